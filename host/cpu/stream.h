/* The inside of the CPU's stream, and helpers that its ops share. */
#ifndef PL_CPU_STREAM_H
#define PL_CPU_STREAM_H

#include "host/base/threads.h"
#include "host/base/vec.h"
#include "host/cpu/head_coarse.h"
#include "host/cpu/matmul.h"
#include "host/ops/backend.h"

#include <stdatomic.h>

struct pl_head_screen;
struct pl_gemm_kernels;

struct pl_stream {
    const pl_ops *ops;
    struct pl_head_screen *screen; /* of the head, or NULL */
    pl_head_coarse_span *coarse_span;
    pl_pool *pool;
    const pl_matmul_kernels *kernels;
    float *partial; /* attention: partial results of split rows, see attention.c */
    int64_t partial_floats;
    float *thread_scratch; /* attention: threads x scratch_floats */
    int64_t scratch_floats;
    float *routed; /* altup: what predict leaves for correct, [max_rows][PL_STREAMS] */
    pl_skipped skipped;
    atomic_bool lost; /* a rank of its engine has failed: what is computed means nothing */

    const struct pl_gemm_kernels *gemm; /* of the towers */
    float *gemm_scratch;                /* threads x PL_GEMM_SCRATCH_FLOATS */
    void (*softmax)(pl_pool *pool, float *x, int64_t n, int64_t cols, float scale); /* x[i] = softmax(x[i] * scale) */
};

/* All products but those of the towers. */
static inline void pl_stream_matmul(pl_stream *s, const pl_matmul *jobs, int n_jobs)
{
    s->kernels->matmul(s->pool, jobs, n_jobs);
    s->skipped.products += s->kernels->rounded_away(jobs, n_jobs);
}

/* Each compiled for every instruction set; fills its part of the table. */
#define PL_ISA_OPS(isa)                                                                                                \
    void pl_altup_ops_##isa(pl_ops *ops);                                                                              \
    void pl_attention_ops_##isa(pl_ops *ops);                                                                          \
    void pl_embed_ops_##isa(pl_ops *ops);                                                                              \
    void pl_ffn_ops_##isa(pl_ops *ops);                                                                                \
    void pl_ffn_sparse_ops_##isa(pl_ops *ops);                                                                         \
    void pl_output_ops_##isa(pl_ops *ops);                                                                             \
    void pl_ple_ops_##isa(pl_ops *ops);                                                                                \
    void pl_qkv_ops_##isa(pl_ops *ops);                                                                                \
    void pl_residual_ops_##isa(pl_ops *ops);

/* Likewise its part of the table of fused ops. */
#define PL_ISA_FUSED(isa)                                                                                              \
    void pl_altup_fused_##isa(pl_fused *fused);                                                                        \
    void pl_ffn_fused_##isa(pl_fused *fused);                                                                          \
    void pl_ple_fused_##isa(pl_fused *fused);                                                                          \
    void pl_residual_fused_##isa(pl_fused *fused);

PL_ISA_OPS(base)
PL_ISA_OPS(avx2)
PL_ISA_OPS(avx512)

PL_ISA_FUSED(base)
PL_ISA_FUSED(avx2)
PL_ISA_FUSED(avx512)

/* n lanes: all of them, or in a row's tail the first ones, the others zero. */
static inline __attribute__((always_inline)) pl_vec lanes_load(const float *p, int64_t n)
{
    return n == PL_LANES ? vec_load(p) : vec_load_part(p, n);
}

static inline __attribute__((always_inline)) void lanes_store(float *p, pl_vec v, int64_t n)
{
    if (n == PL_LANES)
        vec_store(p, v);
    else
        vec_store_part(p, v, n);
}

/* Sum of squares of n values. */
static inline float row_square_sum(const float *x, int64_t n)
{
    pl_vec sum = {0};
    int64_t i = 0;
    for (; i + PL_LANES <= n; i += PL_LANES) {
        pl_vec v = vec_load(x + i);
        sum += v * v;
    }
    if (i < n) {
        pl_vec v = vec_load_part(x + i, n - i);
        sum += v * v;
    }
    return vec_sum(sum);
}

static inline float inverse_rms(float square_sum, int64_t n, float eps)
{
    return 1.0f / __builtin_sqrtf(square_sum / (float)n + eps);
}

static inline float row_inverse_rms(const float *x, int64_t n, float eps)
{
    return inverse_rms(row_square_sum(x, n), n, eps);
}

/* out = x * factor * w (w may be NULL); out may be x. */
static inline void row_scale(float *out, const float *x, const float *w, float factor, int64_t n)
{
    if (w)
        for (int64_t i = 0; i < n; i++)
            out[i] = x[i] * factor * w[i];
    else
        for (int64_t i = 0; i < n; i++)
            out[i] = x[i] * factor;
}

/* out = norm(x; w); out may be x. */
static inline void row_norm(float *out, const float *x, const float *w, int64_t n, float eps)
{
    row_scale(out, x, w, row_inverse_rms(x, n, eps), n);
}

#define GELU_STEP (PL_MOST_PARTS * PL_PART_LANES)
#define GELU_AHEAD 512 /* values; the processor's own prefetching comes too late for so short a loop */

/* out = gelu(gate) * by; out may be gate. */
static inline void row_gelu_times(float *out, const float *gate, const float *by, int64_t n)
{
    int64_t i = 0;
    for (; i + GELU_STEP <= n; i += GELU_STEP) {
        pl_part x[PL_MOST_PARTS];
        for (int p = 0; p < PL_MOST_PARTS; p++) {
            __builtin_prefetch(gate + i + GELU_AHEAD + p * PL_PART_LANES);
            __builtin_prefetch(by + i + GELU_AHEAD + p * PL_PART_LANES);
            x[p] = part_load(gate + i + p * PL_PART_LANES);
        }
        part_gelu(x, PL_MOST_PARTS);
        for (int p = 0; p < PL_MOST_PARTS; p++)
            part_store(out + i + p * PL_PART_LANES, x[p] * part_load(by + i + p * PL_PART_LANES));
    }
    for (; i < n; i += PL_LANES) {
        int64_t m = n - i < PL_LANES ? n - i : PL_LANES;
        vec_store_part(out + i, vec_gelu(vec_load_part(gate + i, m)) * vec_load_part(by + i, m), m);
    }
}

/* Stream k of row i. */
static inline float *stream_row(pl_streams s, int k, int64_t i)
{
    return s.v + (k * s.rows + i) * s.hidden;
}

/* Rows a thread takes at once: enough pieces for every thread, few enough to hand out cheaply. */
static inline int64_t row_grain(const pl_stream *s, int64_t n)
{
    int64_t grain = n / (4 * (int64_t)pl_pool_threads(s->pool));
    return grain > 0 ? grain : 1;
}

#endif
