/* The end of the walk: four streams become one hidden state, logits are capped, and what is not finite is found. */
#include "host/base/isa.h"
#include "host/cpu/stream.h"

#include <stdatomic.h>

#define COLUMNS 8192 /* of one piece of the soft cap, or of what is looked at */

typedef struct norm_job {
    float *mean, *out;
    const float *first;
    pl_streams rest;
    const float *w;
    float eps;
} norm_job;

static void norm_rows(void *ctx, int64_t begin, int64_t end, int thread)
{
    (void)thread;
    const norm_job *j = ctx;
    int64_t hidden = j->rest.hidden;
    for (int64_t r = begin; r < end; r++) {
        float *mean = j->mean + r * hidden;
        const float *s0 = j->first + r * hidden;
        const float *s1 = stream_row(j->rest, 1, r), *s2 = stream_row(j->rest, 2, r), *s3 = stream_row(j->rest, 3, r);
        for (int64_t i = 0; i < hidden; i++)
            mean[i] = (s0[i] + s1[i] + s2[i] + s3[i]) * 0.25f;
        row_norm(j->out + r * hidden, mean, j->w, hidden, j->eps);
    }
}

static void output_norm(pl_stream *s, float *mean, float *out, const float *first, pl_streams rest, int n,
                        const float *w, float eps)
{
    norm_job job = {mean, out, first, rest, w, eps};
    pl_pool_for(s->pool, n, row_grain(s, n), norm_rows, &job);
}

typedef struct cap_job {
    float *x;
    int64_t n; /* values */
    float cap;
} cap_job;

static void cap_pieces(void *ctx, int64_t begin, int64_t end, int thread)
{
    (void)thread;
    const cap_job *j = ctx;
    int64_t to = end * COLUMNS < j->n ? end * COLUMNS : j->n;
    for (int64_t i = begin * COLUMNS; i < to; i += PL_LANES) {
        int64_t m = to - i < PL_LANES ? to - i : PL_LANES;
        if (m == PL_LANES)
            vec_store(j->x + i, vec_tanh(vec_load(j->x + i) / j->cap) * j->cap);
        else
            vec_store_part(j->x + i, vec_tanh(vec_load_part(j->x + i, m) / j->cap) * j->cap, m);
    }
}

static void softcap(pl_stream *s, float *x, int n, int64_t cols, float cap)
{
    cap_job job = {x, n * cols, cap};
    pl_pool_for(s->pool, (job.n + COLUMNS - 1) / COLUMNS, 4, cap_pieces, &job);
}

typedef struct finite_job {
    const float *x;
    int64_t n, cols; /* n: values */
    atomic_int bad;
} finite_job;

/* Infinity times zero is NaN, and stays. */
static bool all_finite(const float *x, int64_t n)
{
    pl_vec zero = {0};
    int64_t i = 0;
    for (; i + PL_LANES <= n; i += PL_LANES)
        zero += vec_load(x + i) * 0.0f;
    if (i < n)
        zero += vec_load_part(x + i, n - i) * 0.0f;
    return vec_sum(zero) == 0;
}

static void finite_pieces(void *ctx, int64_t begin, int64_t end, int thread)
{
    (void)thread;
    finite_job *j = ctx;
    int64_t i = begin * COLUMNS, to = end * COLUMNS < j->n ? end * COLUMNS : j->n;
    if (all_finite(j->x + i, to - i))
        return;
    while (all_finite(j->x + i, 1))
        i++;
    atomic_store_explicit(&j->bad, (int)(i / j->cols) + 1, memory_order_relaxed);
}

static void check_finite(pl_stream *s, const float *x, int n, int64_t cols, int32_t *bad)
{
    finite_job job = {x, n * cols, cols, 0};
    pl_pool_for(s->pool, (job.n + COLUMNS - 1) / COLUMNS, 4, finite_pieces, &job);
    if (job.bad)
        *bad = job.bad;
}

void PL_ISA_NAME(pl_output_ops)(pl_ops *ops)
{
    ops->output_norm = output_norm;
    ops->check_finite = check_finite;
    ops->softcap = softcap;
}
