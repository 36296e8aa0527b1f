/* Where attention, LAuReL and the active stream meet, and the norm before the FFN. */
#include "host/base/isa.h"
#include "host/cpu/act_rows.h"
#include "host/cpu/stream.h"

#define INLINE static inline __attribute__((always_inline))

typedef struct residual_job {
    float *y, *f, *laurel;
    const float *a, *x, *att;
    const float *laurel_norm, *att_norm, *ffn_norm;
    int64_t hidden;
    float eps;
    const pl_act *act; /* NULL, or f as integers too, and laurel need not be written */
} residual_job;

typedef struct row_factors {
    float laurel, att;
} row_factors;

/* Two sums side by side: each alone waits for its additions. */
static row_factors find_factors(const residual_job *j, const float *laurel, const float *att)
{
    pl_vec l = {0}, a = {0};
    int64_t i = 0;
    for (; i + PL_LANES <= j->hidden; i += PL_LANES) {
        l += vec_load(laurel + i) * vec_load(laurel + i);
        a += vec_load(att + i) * vec_load(att + i);
    }
    if (i < j->hidden) {
        pl_vec tail = vec_load_part(laurel + i, j->hidden - i);
        l += tail * tail;
        tail = vec_load_part(att + i, j->hidden - i);
        a += tail * tail;
    }
    return (row_factors){inverse_rms(vec_sum(l), j->hidden, j->eps), inverse_rms(vec_sum(a), j->hidden, j->eps)};
}

/* laurel, unless it is not wanted, and y, whose squares are added to square; at: where the row begins. */
INLINE void residual_lanes(const residual_job *j, int64_t at, row_factors factor, pl_vec *square, int64_t i, int64_t n)
{
    const float half = 0.70710678118654752f;
    pl_vec laurel = lanes_load(j->x + at + i, n) +
                    lanes_load(j->laurel + at + i, n) * factor.laurel * lanes_load(j->laurel_norm + i, n);
    pl_vec att = lanes_load(j->att + at + i, n) * factor.att * lanes_load(j->att_norm + i, n);
    pl_vec y = (lanes_load(j->a + at + i, n) + att + laurel) * half;
    if (!j->act)
        lanes_store(j->laurel + at + i, laurel, n);
    lanes_store(j->y + at + i, y, n);
    *square += y * y;
}

static void norm_row(const residual_job *j, int64_t r, float factor)
{
    float *f = j->f + r * j->hidden;
    const float *y = j->y + r * j->hidden;
    if (!j->act) {
        row_scale(f, y, j->ffn_norm, factor, j->hidden);
        return;
    }
    for (int64_t at = 0; at < j->hidden; at += PL_ACT_SPAN) {
        float span[PL_ACT_SPAN], *out = j->act->integers_only ? span : f + at;
        int64_t n = j->hidden - at < PL_ACT_SPAN ? j->hidden - at : PL_ACT_SPAN;
        row_scale(out, y + at, j->ffn_norm + at, factor, n);
        span_quantize(j->act, r, at, out, n);
    }
}

static void residual_rows(void *ctx, int64_t begin, int64_t end, int thread)
{
    (void)thread;
    const residual_job *j = ctx;
    for (int64_t r = begin; r < end; r++) {
        int64_t at = r * j->hidden, i = 0;
        row_factors factor = find_factors(j, j->laurel + at, j->att + at);
        pl_vec square = {0};
        for (; i + PL_LANES <= j->hidden; i += PL_LANES)
            residual_lanes(j, at, factor, &square, i, PL_LANES);
        if (i < j->hidden)
            residual_lanes(j, at, factor, &square, i, j->hidden - i);
        norm_row(j, r, inverse_rms(vec_sum(square), j->hidden, j->eps));
    }
}

static void attn_residual(pl_stream *s, float *y, float *f, float *laurel, const float *a, const float *x,
                          const float *att, const float *laurel_norm, const float *att_norm, const float *ffn_norm,
                          int n, int64_t hidden, float eps)
{
    residual_job job = {y, f, laurel, a, x, att, laurel_norm, att_norm, ffn_norm, hidden, eps, NULL};
    pl_pool_for(s->pool, n, row_grain(s, n), residual_rows, &job);
}

static void fused_residual(pl_stream *s, float *y, float *f, pl_act *act, float *laurel, const float *a, const float *x,
                           const float *att, const float *laurel_norm, const float *att_norm, const float *ffn_norm,
                           int n, int64_t hidden, float eps)
{
    residual_job job = {y, f, laurel, a, x, att, laurel_norm, att_norm, ffn_norm, hidden, eps, act};
    act->rows = n;
    pl_pool_for(s->pool, n, row_grain(s, n), residual_rows, &job);
}

void PL_ISA_NAME(pl_residual_ops)(pl_ops *ops)
{
    ops->attn_residual = attn_residual;
}

void PL_ISA_NAME(pl_residual_fused)(pl_fused *fused)
{
    fused->attn_residual = fused_residual;
}
