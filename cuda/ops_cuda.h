/* The op tables of the CUDA backend. */
#ifndef PL_CUDA_OPS_CUDA_H
#define PL_CUDA_OPS_CUDA_H

#include "host/ops/ops.h"

extern const pl_ops pl_cuda_ops;
extern const pl_fused pl_cuda_fused;

#endif
