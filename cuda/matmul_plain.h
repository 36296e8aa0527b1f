/* The part of pl_cuda_matmul_few() for weights of plain types. */
#ifndef PL_CUDA_MATMUL_PLAIN_H
#define PL_CUDA_MATMUL_PLAIN_H

#include "cuda/kernels.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Those of the jobs whose weights are not packed; 1 to 16 rows. */
cudaError_t pl_cuda_matmul_plain(cudaStream_t stream, const pl_matmul *jobs, int n_jobs);

#ifdef __cplusplus
}
#endif

#endif
