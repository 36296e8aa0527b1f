/* Per-layer inputs: made once a step, let in through each layer's gate. */
#include "host/base/isa.h"
#include "host/cpu/act_rows.h"
#include "host/cpu/stream.h"

typedef struct combine_job {
    float *ple;
    const float *proj, *w;
    int64_t ld;
    const int32_t *layers;
    int p;
    float proj_scale, look_scale, eps;
} combine_job;

static void combine_rows(void *ctx, int64_t begin, int64_t end, int thread)
{
    (void)thread;
    const combine_job *j = ctx;
    const float half = 0.70710678118654752f;
    for (int64_t r = begin; r < end; r++)
        for (int64_t l = 0; l < j->layers[r]; l++) {
            const float *proj = j->proj + r * j->ld + l * j->p;
            float *ple = j->ple + r * j->ld + l * j->p;
            float mean = row_square_sum(proj, j->p) * j->proj_scale * j->proj_scale / (float)j->p;
            float factor = j->proj_scale / __builtin_sqrtf(mean + j->eps);
            for (int i = 0; i < j->p; i++)
                ple[i] = (proj[i] * factor * j->w[i] + ple[i] * j->look_scale) * half;
        }
}

static void ple_combine(pl_stream *s, float *ple, const float *proj, int64_t ld, const float *w, int n,
                        const int32_t *layers, int p, float proj_scale, float look_scale, float eps)
{
    combine_job job = {ple, proj, w, ld, layers, p, proj_scale, look_scale, eps};
    pl_pool_for(s->pool, n, row_grain(s, n), combine_rows, &job);
}

typedef struct gate_job {
    float *gate;
    const float *ple;
    int64_t ld;
    const pl_rows *rows;
    int p;
    const pl_act *act; /* NULL, or the gates as integers too */
} gate_job;

static void gate_rows(void *ctx, int64_t begin, int64_t end, int thread)
{
    (void)thread;
    const gate_job *j = ctx;
    for (int64_t r = begin; r < end; r++) {
        row_gelu_times(j->gate + r * j->p, j->gate + r * j->p, j->ple + j->rows->slot[r] * j->ld, j->p);
        if (j->act)
            row_quantize(j->act, r, j->gate + r * j->p, j->p);
    }
}

static void ple_gate(pl_stream *s, float *gate, const float *ple, int64_t ld, const pl_rows *rows, int p)
{
    gate_job job = {gate, ple, ld, rows, p, NULL};
    pl_pool_for(s->pool, rows->n, row_grain(s, rows->n), gate_rows, &job);
}

static void fused_ple_gate(pl_stream *s, pl_act *act, float *gate, const float *ple, int64_t ld, const pl_rows *rows,
                           int p)
{
    gate_job job = {gate, ple, ld, rows, p, act};
    act->rows = rows->n;
    pl_pool_for(s->pool, rows->n, row_grain(s, rows->n), gate_rows, &job);
}

typedef struct add_job {
    pl_streams streams;
    float *v;
    const pl_rows *rows;
    const float *w;
    float eps;
} add_job;

static void add_rows(void *ctx, int64_t begin, int64_t end, int thread)
{
    (void)thread;
    const add_job *j = ctx;
    int64_t hidden = j->streams.hidden;
    for (int64_t r = begin; r < end; r++) {
        float *v = j->v + r * hidden;
        row_norm(v, v, j->w, hidden, j->eps);
        for (int k = 1; k < PL_STREAMS; k++) {
            float *out = stream_row(j->streams, k, j->rows->slot[r]);
            for (int64_t i = 0; i < hidden; i++)
                out[i] += v[i];
        }
    }
}

static void ple_add(pl_stream *s, pl_streams streams, float *v, const pl_rows *rows, const float *w, float eps)
{
    add_job job = {streams, v, rows, w, eps};
    pl_pool_for(s->pool, rows->n, row_grain(s, rows->n), add_rows, &job);
}

void PL_ISA_NAME(pl_ple_ops)(pl_ops *ops)
{
    ops->ple_combine = ple_combine;
    ops->ple_gate = ple_gate;
    ops->ple_add = ple_add;
}

void PL_ISA_NAME(pl_ple_fused)(pl_fused *fused)
{
    fused->ple_gate = fused_ple_gate;
}
