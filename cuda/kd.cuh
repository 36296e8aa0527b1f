/* The dialect kernels are written in, so that one source runs on a card (nvcc) and, for the tests, on a CPU (any C++17
 * compiler). A kernel file includes only this, cuda/ptx.cuh and plain headers.
 *
 *   Shared memory   KD_SHARED(float, part, [8]); KD_DYN_SHARED(tile, sm);    never written as __shared__
 *   Launch          KD_LAUNCH(kernel, (kd::launch_cfg{grid, block, bytes, stream, cooperative}), arguments...)
 *   Reductions      kd::warp_sum, kd::warp_max: all 32 lanes take part, and all get the result
 *   Float to int    kd::to_int: nearest, ties to even; saturates, NaN gives 0
 *   Busy waits      only around ptx::ld_acquire
 *   Large bodies    static KD_LARGE void f(...): inlined on a card; on the CPU not, where a compiler with sanitizers
 *                   takes minutes over a kernel that has one for each type
 *
 * Warp intrinsics are those with _sync. Not in the dialect: inline assembly outside cuda/ptx.cuh, cooperative groups,
 * textures, variables of the device, allocation on the device, shifts by 32 and more. What changes from step to step
 * lies in device memory and not in arguments. .ci/check_dialect.sh holds sources to it. */
#ifndef PL_CUDA_KD_CUH
#define PL_CUDA_KD_CUH

#include <stddef.h>
#include <stdint.h>

#if defined(__CUDACC__)

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#define KD_EMU 0

#define KD_LARGE __device__ __forceinline__
#define KD_SHARED(T, name, dims) __shared__ __align__(16) T name dims
#define KD_DYN_SHARED(T, name)                                                                                         \
    extern __shared__ __align__(128) unsigned char kd_dynamic_shared[];                                                \
    T *name = reinterpret_cast<T *>(kd_dynamic_shared)

namespace kd
{

struct launch_cfg {
    dim3 grid, block;
    size_t smem; /* bytes of KD_DYN_SHARED; above 48 KiB after allow_smem() */
    cudaStream_t stream;
    bool coop; /* all blocks run at once: for kernels with a barrier across the grid */
};

template <class... P, class... A>
inline cudaError_t launch(const char *, void (*kernel)(P...), const launch_cfg &cfg, A &&...args)
{
    cudaLaunchConfig_t config = {};
    cudaLaunchAttribute cooperative;
    config.gridDim = cfg.grid;
    config.blockDim = cfg.block;
    config.dynamicSmemBytes = cfg.smem;
    config.stream = cfg.stream;
    if (cfg.coop) {
        cooperative.id = cudaLaunchAttributeCooperative;
        cooperative.val.cooperative = 1;
        config.attrs = &cooperative;
        config.numAttrs = 1;
    }
    return cudaLaunchKernelEx(&config, kernel, static_cast<P>(args)...);
}

template <class K> inline cudaError_t allow_smem(K *kernel, size_t bytes)
{
    return cudaFuncSetAttribute(reinterpret_cast<const void *>(kernel), cudaFuncAttributeMaxDynamicSharedMemorySize,
                                static_cast<int>(bytes));
}

/* The order of the sums is part of the result: lane l adds l^16, l^8, l^4, l^2, l^1, the same bits in every lane. */
static __device__ __forceinline__ float warp_sum(float v)
{
#pragma unroll
    for (int o = 16; o > 0; o >>= 1)
        v += __shfl_xor_sync(0xffffffffu, v, o);
    return v;
}

static __device__ __forceinline__ int warp_sum(int v)
{
#pragma unroll
    for (int o = 16; o > 0; o >>= 1)
        v += __shfl_xor_sync(0xffffffffu, v, o);
    return v;
}

/* As fmaxf: a NaN loses against a number. */
static __device__ __forceinline__ float warp_max(float v)
{
#pragma unroll
    for (int o = 16; o > 0; o >>= 1)
        v = fmaxf(v, __shfl_xor_sync(0xffffffffu, v, o));
    return v;
}

static __device__ __forceinline__ int to_int(float v)
{
    return __float2int_rn(v);
}

} // namespace kd

#else

#include "tests/cuda/emu.hpp"

#define KD_EMU 1

#define KD_LARGE __attribute__((noinline))

#endif

namespace kd
{

/* Of the card that launches go to. */
static inline cudaError_t card_attribute(int *value, cudaDeviceAttr what)
{
    int device = 0;
    const cudaError_t err = cudaGetDevice(&device);
    return err == cudaSuccess ? cudaDeviceGetAttribute(value, what, device) : err;
}

} // namespace kd

#define KD_LAUNCH(kernel, cfg, ...) ::kd::launch(#kernel, kernel, cfg, __VA_ARGS__)

#endif
