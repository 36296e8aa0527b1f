/* The ops of host/ops/draw.h as CUDA kernels. */
#ifndef PL_CUDA_DRAW_H
#define PL_CUDA_DRAW_H

#include "host/ops/draw.h"

#include <cuda_runtime_api.h>

#define PL_CUDA_MAX_VOCAB (1 << 24) /* the weights of so many tokens fit in 64 bits */

#ifdef __cplusplus
extern "C" {
#endif

/* Bytes of device memory that draws of up to n rows need beside the logits, aligned to 16. */
size_t pl_cuda_draw_scratch(int64_t vocab, int n);

/* drawn: pointers to pinned memory. Two launches. */
cudaError_t pl_cuda_draw(cudaStream_t stream, const float *logits, int64_t vocab, int n, pl_draw *const *draws,
                         pl_drawn *const *drawn, void *scratch);

cudaError_t pl_cuda_take(cudaStream_t stream, int32_t *id, const int32_t *from, pl_draw *const *draws, int n);

#ifdef __cplusplus
}
#endif

#endif
