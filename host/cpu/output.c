/* The end of the walk: four streams become one hidden state, and logits are capped. */
#include "host/base/isa.h"
#include "host/cpu/stream.h"

#define COLUMNS 8192 /* of one piece of the soft cap */

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

void PL_ISA_NAME(pl_output_ops)(pl_ops *ops)
{
    ops->output_norm = output_norm;
    ops->softcap = softcap;
}
