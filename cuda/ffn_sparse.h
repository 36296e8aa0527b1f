/* The FFN of layers with a cutoff (ffn_act's finite z), where most of the activations are zero. */
#ifndef PL_CUDA_FFN_SPARSE_H
#define PL_CUDA_FFN_SPARSE_H

#include "cuda/kernels.h"

#ifdef __cplusplus
extern "C" {
#endif

/* `out` has the bits of matmul_few (gate, up), ffn_act, quantize, matmul_few (down), for 1 to 16 rows. In three
 * launches where up and down are packed and rows of gates are aligned to 16 bytes, else by these ops themselves.
 * gate_out, up_out and mid are work: what they hold afterwards is not said, and f32 activations are not among it. mid:
 * the buffers are the caller's, for n rows of down->cols; all else is set here. */
cudaError_t pl_cuda_ffn_sparse(cudaStream_t stream, const pl_ffn *ffn);

#ifdef __cplusplus
}
#endif

#endif
