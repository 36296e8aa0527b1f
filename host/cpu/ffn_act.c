/* The FFN's activation: Gaussian top-k in the sparse layers, then gelu(gate) * up. */
#include "host/base/isa.h"
#include "host/cpu/stream.h"

#define COLUMNS 2048 /* of one piece of work; a multiple of PL_LANES */

typedef struct act_job {
    float *gate;
    const float *up;
    int64_t ld, pieces; /* pieces of COLUMNS a row */
    const int32_t *width;
    float z;
} act_job;

/* mean + z * std over n values, std biased; two passes, so that a large mean does not eat the variance. */
static float cutoff(const float *x, int64_t n, float z)
{
    pl_vec sum = {0};
    int64_t i = 0;
    for (; i + PL_LANES <= n; i += PL_LANES)
        sum += vec_load(x + i);
    if (i < n)
        sum += vec_load_part(x + i, n - i);
    float mean = vec_sum(sum) / (float)n;
    pl_vec square = {0};
    for (i = 0; i + PL_LANES <= n; i += PL_LANES) {
        pl_vec d = vec_load(x + i) - mean;
        square += d * d;
    }
    float rest = 0;
    for (; i < n; i++)
        rest += (x[i] - mean) * (x[i] - mean);
    return mean + z * __builtin_sqrtf((vec_sum(square) + rest) / (float)n);
}

static pl_vec sparse_lanes(pl_vec gate, pl_vec up, float cut)
{
    pl_vec g = gate - cut;
    return vec_gelu(vec_select(g <= 0.0f, vec_set(0), g)) * up;
}

/* Lanes at or below the cutoff give gelu(0) = 0 exactly; most vectors are all such. */
static void act_sparse(float *gate, const float *up, int64_t n, float cut)
{
    int64_t i = 0;
    for (; i + PL_LANES <= n; i += PL_LANES) {
        pl_vec g = vec_load(gate + i);
        pl_veci dead = g <= cut;
        bool all_dead = true;
        for (int lane = 0; lane < PL_LANES; lane++)
            all_dead &= dead[lane] != 0;
        vec_store(gate + i, all_dead ? vec_set(0) : sparse_lanes(g, vec_load(up + i), cut));
    }
    if (i < n)
        vec_store_part(gate + i, sparse_lanes(vec_load_part(gate + i, n - i), vec_load_part(up + i, n - i), cut),
                       n - i);
}

static void dense_pieces(void *ctx, int64_t begin, int64_t end, int thread)
{
    (void)thread;
    const act_job *j = ctx;
    for (int64_t piece = begin; piece < end; piece++) {
        int64_t r = piece / j->pieces, from = piece % j->pieces * COLUMNS;
        int64_t n = j->width[r] - from;
        if (n > 0)
            row_gelu_times(j->gate + r * j->ld + from, j->up + r * j->ld + from, n < COLUMNS ? n : COLUMNS);
    }
}

static void sparse_rows(void *ctx, int64_t begin, int64_t end, int thread)
{
    (void)thread;
    const act_job *j = ctx;
    for (int64_t r = begin; r < end; r++) {
        float *gate = j->gate + r * j->ld;
        act_sparse(gate, j->up + r * j->ld, j->width[r], cutoff(gate, j->width[r], j->z));
    }
}

static void ffn_act(pl_stream *s, float *gate, const float *up, int64_t ld, int n, const int32_t *width, float z)
{
    act_job job = {gate, up, ld, (ld + COLUMNS - 1) / COLUMNS, width, z};
    if (z == -__builtin_inff())
        pl_pool_for(s->pool, n * job.pieces, 1, dense_pieces, &job);
    else
        pl_pool_for(s->pool, n, 1, sparse_rows, &job);
}

void PL_ISA_NAME(pl_ffn_ops)(pl_ops *ops)
{
    ops->ffn_act = ffn_act;
}
