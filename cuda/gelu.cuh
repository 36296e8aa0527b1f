/* The activation of the FFN and of the per-layer gate. */
#ifndef PL_CUDA_GELU_CUH
#define PL_CUDA_GELU_CUH

#include "cuda/kd.cuh"

/* 0.5 x (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3))) */
static __device__ __forceinline__ float gelu(float x)
{
    float inner = 0.7978845608028654f * (x + 0.044715f * (x * x * x));
    return 0.5f * x * (1.0f + tanhf(inner));
}

static __device__ __forceinline__ float4 gelu_times(float4 gate, float4 by)
{
    return make_float4(gelu(gate.x) * by.x, gelu(gate.y) * by.y, gelu(gate.z) * by.z, gelu(gate.w) * by.w);
}

#endif
