/* Code that the host and a card's kernels share. PL_BOTH stands before its functions; arithmetic that must come out the
 * same on both goes through the functions below, which no compiler fuses (on the host: -ffp-contract=off). Additions,
 * divisions and conversions that nothing is multiplied into need none. */
#ifndef PL_BASE_BOTH_H
#define PL_BASE_BOTH_H

#ifdef __CUDACC__
#define PL_BOTH static __host__ __device__ __forceinline__
#else
#define PL_BOTH static inline
#endif

PL_BOTH float pl_mul(float a, float b)
{
#ifdef __CUDA_ARCH__
    return __fmul_rn(a, b);
#else
    return a * b;
#endif
}

PL_BOTH float pl_add(float a, float b)
{
#ifdef __CUDA_ARCH__
    return __fadd_rn(a, b);
#else
    return a + b;
#endif
}

PL_BOTH double pl_mul_double(double a, double b)
{
#ifdef __CUDA_ARCH__
    return __dmul_rn(a, b);
#else
    return a * b;
#endif
}

PL_BOTH double pl_add_double(double a, double b)
{
#ifdef __CUDA_ARCH__
    return __dadd_rn(a, b);
#else
    return a + b;
#endif
}

#endif
