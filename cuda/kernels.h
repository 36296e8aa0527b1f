/* The ops of host/ops/ops.h as CUDA kernels: same arguments, pointers in device memory, queued on a stream.
 * Each returns the launch's error. What changes from step to step is read from device memory, so that a captured step
 * can be replayed. */
#ifndef PL_CUDA_KERNELS_H
#define PL_CUDA_KERNELS_H

#include "host/ops/ops.h"

#include <cuda_runtime_api.h>

/* What the ops were built for; beyond it they return cudaErrorInvalidValue. */
#define PL_CUDA_MAX_HIDDEN 3072
#define PL_CUDA_MAX_HEAD_DIM 512       /* of qkv_store */
#define PL_CUDA_MAX_SPARSE_WIDTH 16384 /* of ffn_act with a cutoff */

#define PL_CUDA_BARRIER_BYTES 256

#ifdef __cplusplus
extern "C" {
#endif

cudaError_t pl_cuda_quantize(cudaStream_t stream, const pl_act *act, int n);

/* For 1 to 16 rows, and for any number. jobs: in host memory, read before it returns; over the same rows. Those of few
 * may each have an x of their own, those of many share it. */
cudaError_t pl_cuda_matmul_few(cudaStream_t stream, const pl_matmul *jobs, int n_jobs);
cudaError_t pl_cuda_matmul_many(cudaStream_t stream, const pl_matmul *jobs, int n_jobs);

cudaError_t pl_cuda_embed(cudaStream_t stream, float *out, const pl_embed_from *from, const int32_t *id, int n);
cudaError_t pl_cuda_ple_look(cudaStream_t stream, float *ple, int64_t ld, const pl_ple_rows *from, const int32_t *id,
                             const int32_t *layers, int n, int p, int32_t *bad);
cudaError_t pl_cuda_ple_combine(cudaStream_t stream, float *ple, const float *proj, int64_t ld, const float *w, int n,
                                const int32_t *layers, int p, float proj_scale, float look_scale, float eps);
cudaError_t pl_cuda_match_rms(cudaStream_t stream, float *u, const float *ref, int n, int64_t hidden);
cudaError_t pl_cuda_altup_predict(cudaStream_t stream, pl_streams pred, float *x, pl_streams streams,
                                  const pl_rows *rows, const pl_altup *altup, const float *norm, float eps);
cudaError_t pl_cuda_rope_table(cudaStream_t stream, float *out, const int32_t *position, int n, const float *inv_freq,
                               int half);
cudaError_t pl_cuda_qkv_store(cudaStream_t stream, float *q, float *k, float *v, const pl_kv_layer *kv,
                              const pl_rows *rows, pl_heads heads, const float *q_norm, const float *k_norm,
                              const float *rope, float eps);

/* scratch: device memory of pl_cuda_attention_scratch() bytes for partial results of up to 16 rows; 8 MB with 8 heads of
 * 256, whatever the context. It is zero before the first launch, and belongs to one stream: every launch leaves its
 * counts at zero again. Aligned to 16 bytes. */
size_t pl_cuda_attention_scratch(int max_rows, pl_heads heads, int max_context);
cudaError_t pl_cuda_attention(cudaStream_t stream, float *out, const float *q, const pl_kv_layer *kv,
                              const pl_rows *rows, pl_heads heads, int window, int max_context, void *scratch);

cudaError_t pl_cuda_attn_residual(cudaStream_t stream, float *y, float *f, float *laurel, const float *a,
                                  const float *x, const float *att, const float *laurel_norm, const float *att_norm,
                                  const float *ffn_norm, int n, int64_t hidden, float eps);
cudaError_t pl_cuda_ffn_act(cudaStream_t stream, float *gate, const float *up, int64_t ld, int n, const int32_t *width,
                            float z);
cudaError_t pl_cuda_ffn_stats(cudaStream_t stream, double *stats, const float *gate, int64_t ld, int n,
                              const int32_t *width);
cudaError_t pl_cuda_ffn_act_part(cudaStream_t stream, float *gate, const float *up, int64_t ld, int n,
                                 const int32_t *width, const double *stats, float z);
cudaError_t pl_cuda_altup_correct(cudaStream_t stream, pl_streams streams, float *y, float *gate_in, const float *ffn,
                                  pl_streams pred, const pl_rows *rows, const pl_altup *altup, const float *norm,
                                  float eps);
cudaError_t pl_cuda_ple_gate(cudaStream_t stream, float *gate, const float *ple, int64_t ld, const pl_rows *rows,
                             int p);
cudaError_t pl_cuda_ple_add(cudaStream_t stream, pl_streams streams, float *v, const pl_rows *rows, const float *w,
                            float eps);
cudaError_t pl_cuda_output_norm(cudaStream_t stream, float *mean, float *out, const float *first, pl_streams rest,
                                int n, const float *w, float eps);
cudaError_t pl_cuda_check_finite(cudaStream_t stream, const float *x, int n, int64_t cols, int32_t *bad);
cudaError_t pl_cuda_softcap(cudaStream_t stream, float *x, int n, int64_t cols, float cap);

/* pl_fused: for 1 to PL_FUSED_ROWS rows. */
cudaError_t pl_cuda_fused_predict(cudaStream_t stream, pl_streams pred, float *x, pl_act *act, pl_streams streams,
                                  float *v, const float *v_norm, const pl_rows *rows, const pl_altup *altup,
                                  const float *norm, float eps);
/* One launch if `distinct`, two otherwise; one more each where a block of 32 columns lies in two heads (a dim that is no
 * multiple of 32) or, if `distinct`, where operands are not aligned to 16 bytes. q, k, v are left as they are or as
 * qkv_store leaves them. act->f32 is not looked at. */
cudaError_t pl_cuda_fused_attend(cudaStream_t stream, float *out, pl_act *act, float *q, float *k, float *v,
                                 const pl_kv_layer *kv, const pl_rows *rows, pl_heads heads, int window,
                                 const float *q_norm, const float *k_norm, const float *rope, float eps, bool distinct,
                                 int max_context, void *scratch);
cudaError_t pl_cuda_fused_attn_out(cudaStream_t stream, const pl_matmul *o, const pl_matmul *laurel);
cudaError_t pl_cuda_fused_attn_residual(cudaStream_t stream, float *y, float *f, pl_act *act, float *laurel,
                                        const float *a, const float *x, const float *att, const float *laurel_norm,
                                        const float *att_norm, const float *ffn_norm, int n, int64_t hidden, float eps);
cudaError_t pl_cuda_fused_ffn(cudaStream_t stream, const pl_ffn *ffn);
cudaError_t pl_cuda_fused_altup_correct(cudaStream_t stream, pl_streams streams, float *y, float *gate_in, pl_act *act,
                                        const float *ffn, pl_streams pred, const pl_rows *rows, const pl_altup *altup,
                                        const float *norm, float eps);
/* One launch for up to four rows if both weights are packed, two for more. barrier: device memory of
 * PL_CUDA_BARRIER_BYTES, zero before the first launch and never reset; it belongs to one stream. */
cudaError_t pl_cuda_fused_ple(cudaStream_t stream, const pl_ple_block *ple, const pl_rows *rows, void *barrier);

/* Of pl_comm: out[i] = parts[0][i] + parts[1][i] + ..., parts: [ranks][n]; n >= 1. */
cudaError_t pl_cuda_sum_ranks_f32(cudaStream_t stream, float *out, const float *parts, size_t n, int ranks);
cudaError_t pl_cuda_sum_ranks_f64(cudaStream_t stream, double *out, const double *parts, size_t n, int ranks);

#ifdef __cplusplus
}
#endif

#endif
