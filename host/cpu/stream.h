/* The inside of the CPU's stream, and helpers that its ops share. */
#ifndef PL_CPU_STREAM_H
#define PL_CPU_STREAM_H

#include "host/base/threads.h"
#include "host/base/vec.h"
#include "host/cpu/matmul.h"
#include "host/ops/ops.h"

struct pl_stream {
    pl_pool *pool;
    const pl_matmul_kernels *kernels;
    float *partial; /* attention: partial results of split rows, see attention.c */
    int64_t partial_floats;
    float *thread_scratch; /* attention: threads x scratch_floats */
    int64_t scratch_floats;
};

/* Each compiled for every instruction set; fills its part of the table. */
#define PL_ISA_OPS(isa)                                                                                                \
    void pl_altup_ops_##isa(pl_ops *ops);                                                                              \
    void pl_attention_ops_##isa(pl_ops *ops);                                                                          \
    void pl_embed_ops_##isa(pl_ops *ops);                                                                              \
    void pl_ffn_ops_##isa(pl_ops *ops);                                                                                \
    void pl_output_ops_##isa(pl_ops *ops);                                                                             \
    void pl_ple_ops_##isa(pl_ops *ops);                                                                                \
    void pl_qkv_ops_##isa(pl_ops *ops);                                                                                \
    void pl_residual_ops_##isa(pl_ops *ops);

PL_ISA_OPS(base)
PL_ISA_OPS(avx2)
PL_ISA_OPS(avx512)

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

static inline float row_inverse_rms(const float *x, int64_t n, float eps)
{
    return 1.0f / __builtin_sqrtf(row_square_sum(x, n) / (float)n + eps);
}

static inline float row_dot(const float *a, const float *b, int64_t n)
{
    pl_vec sum = {0};
    int64_t i = 0;
    for (; i + PL_LANES <= n; i += PL_LANES)
        sum += vec_load(a + i) * vec_load(b + i);
    if (i < n)
        sum += vec_load_part(a + i, n - i) * vec_load_part(b + i, n - i);
    return vec_sum(sum);
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

/* gate = gelu(gate) * by */
static inline void row_gelu_times(float *gate, const float *by, int64_t n)
{
    int64_t i = 0;
    for (; i + PL_LANES <= n; i += PL_LANES)
        vec_store(gate + i, vec_gelu(vec_load(gate + i)) * vec_load(by + i));
    if (i < n)
        vec_store_part(gate + i, vec_gelu(vec_load_part(gate + i, n - i)) * vec_load_part(by + i, n - i), n - i);
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
