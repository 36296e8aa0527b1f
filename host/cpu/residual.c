/* Where attention, LAuReL and the active stream meet, and the norm before the FFN. */
#include "host/base/isa.h"
#include "host/cpu/stream.h"

typedef struct residual_job {
    float *y, *f, *laurel;
    const float *a, *x, *att;
    const float *laurel_norm, *att_norm, *ffn_norm;
    int64_t hidden;
    float eps;
} residual_job;

static void residual_rows(void *ctx, int64_t begin, int64_t end, int thread)
{
    (void)thread;
    const residual_job *j = ctx;
    const float half = 0.70710678118654752f;
    for (int64_t r = begin; r < end; r++) {
        int64_t at = r * j->hidden;
        float *y = j->y + at, *laurel = j->laurel + at;
        const float *a = j->a + at, *x = j->x + at, *att = j->att + at;
        float laurel_factor = row_inverse_rms(laurel, j->hidden, j->eps);
        float att_factor = row_inverse_rms(att, j->hidden, j->eps);
        for (int64_t i = 0; i < j->hidden; i++) {
            laurel[i] = x[i] + laurel[i] * laurel_factor * j->laurel_norm[i];
            y[i] = (a[i] + att[i] * att_factor * j->att_norm[i] + laurel[i]) * half;
        }
        row_norm(j->f + at, y, j->ffn_norm, j->hidden, j->eps);
    }
}

static void attn_residual(pl_stream *s, float *y, float *f, float *laurel, const float *a, const float *x,
                          const float *att, const float *laurel_norm, const float *att_norm, const float *ffn_norm,
                          int n, int64_t hidden, float eps)
{
    residual_job job = {y, f, laurel, a, x, att, laurel_norm, att_norm, ffn_norm, hidden, eps};
    pl_pool_for(s->pool, n, row_grain(s, n), residual_rows, &job);
}

void PL_ISA_NAME(pl_residual_ops)(pl_ops *ops)
{
    ops->attn_residual = attn_residual;
}
