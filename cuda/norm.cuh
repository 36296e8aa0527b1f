/* A row of a matrix in the registers of one block, eight values a thread, and sums over the block: so that a kernel
 * reads a row once, whatever it computes from it.
 *
 * The shape of a sum is fixed: a tree of the thread's values, one of the warp's lanes, then the warps by fours. It takes
 * one barrier: every thread adds up the warps' sums for itself. */
#ifndef PL_CUDA_NORM_CUH
#define PL_CUDA_NORM_CUH

#include "cuda/kd.cuh"
#include "cuda/kernels.h"
#include "cuda/quantize_act.cuh"

namespace row
{

constexpr int values = 8; /* of a row a thread holds */
constexpr int max_warps = 32;
constexpr int part_ld = max_warps + 4; /* rows of parts begin in different banks */

struct part {
    float v[values];
};

/* ---- four values
 * WIDE: p is a multiple of 16 bytes, and a quad that the row's end cuts may be read and written whole. */

/* The first n of four values; n may be negative or above 4. */
template <bool WIDE> static __device__ __forceinline__ float4 load4(const float *p, int n)
{
    float4 v = make_float4(0, 0, 0, 0);
    if (WIDE) {
        if (n > 0)
            v = *reinterpret_cast<const float4 *>(p);
        return v;
    }
    if (n > 0)
        v.x = p[0];
    if (n > 1)
        v.y = p[1];
    if (n > 2)
        v.z = p[2];
    if (n > 3)
        v.w = p[3];
    return v;
}

template <bool WIDE> static __device__ __forceinline__ void store4(float *p, int n, float4 v)
{
    if (WIDE) {
        if (n > 0)
            *reinterpret_cast<float4 *>(p) = v;
        return;
    }
    if (n > 0)
        p[0] = v.x;
    if (n > 1)
        p[1] = v.y;
    if (n > 2)
        p[2] = v.z;
    if (n > 3)
        p[3] = v.w;
}

/* ---- sums */

/* Of N values, N a power of two. */
template <int N> static __device__ __forceinline__ float tree_sum(const float (&v)[N])
{
    float t[N];
#pragma unroll
    for (int i = 0; i < N; i++)
        t[i] = v[i];
#pragma unroll
    for (int step = 1; step < N; step *= 2)
#pragma unroll
        for (int i = 0; i + step < N; i += 2 * step)
            t[i] += t[i + step];
    return t[0];
}

static __device__ __forceinline__ float square_sum(const part &r)
{
    float square[values];
#pragma unroll
    for (int i = 0; i < values; i++)
        square[i] = r.v[i] * r.v[i];
    return tree_sum(square);
}

/* put_sum, __syncthreads, block::get_sum: the sum of the block's values in every thread. parts: part_ld floats of shared
 * memory, others for each sum of a kernel. */
static __device__ __forceinline__ void put_sum(float *parts, float v)
{
    v = kd::warp_sum(v);
    if (threadIdx.x % 32 == 0)
        parts[threadIdx.x / 32] = v;
}

/* As put_sum for four values at parts[0..3]: six exchanges instead of twenty, since lanes hand over the values that
 * they do not keep. */
static __device__ __forceinline__ void put_four_sums(float (*parts)[part_ld], const float (&v)[4])
{
    const unsigned all = 0xffffffffu;
    bool upper = threadIdx.x & 16, odd = threadIdx.x & 8;
    float a = upper ? v[2] : v[0], b = upper ? v[3] : v[1];
    a += __shfl_xor_sync(all, upper ? v[0] : v[2], 16);
    b += __shfl_xor_sync(all, upper ? v[1] : v[3], 16);
    float sum = odd ? b : a;
    sum += __shfl_xor_sync(all, odd ? a : b, 8);
#pragma unroll
    for (int bit = 4; bit > 0; bit /= 2)
        sum += __shfl_xor_sync(all, sum, bit);
    if (threadIdx.x % 8 == 0)
        parts[threadIdx.x / 8 % 4][threadIdx.x / 32] = sum;
}

static __device__ __forceinline__ float inverse_rms(float squares, int n, float eps)
{
    return 1.0f / sqrtf(squares / static_cast<float>(n) + eps);
}

/* The rest of an RMS norm: v * factor * w. */
static __device__ __forceinline__ void scale(part &v, float factor, const part &w)
{
#pragma unroll
    for (int i = 0; i < values; i++)
        v.v[i] = v.v[i] * factor * w.v[i];
}

/* ---- the block */

/* Thread t holds columns 4 t to 4 t + 3, and those again 4 THREADS further on. What is beyond the row is zero. */
template <int THREADS, bool WIDE> struct block {
    static_assert(THREADS % 128 == 0 && THREADS <= 32 * max_warps, "get_sum takes warps by fours");

    static __device__ __forceinline__ int column(int quad)
    {
        return 4 * static_cast<int>(threadIdx.x) + 4 * THREADS * quad;
    }

    static __device__ __forceinline__ part load(const float *p, int n)
    {
        part r;
#pragma unroll
        for (int q = 0; q < values / 4; q++) {
            float4 v = load4<WIDE>(p + column(q), n - column(q));
            r.v[4 * q] = v.x;
            r.v[4 * q + 1] = v.y;
            r.v[4 * q + 2] = v.z;
            r.v[4 * q + 3] = v.w;
        }
        return r;
    }

    static __device__ __forceinline__ void store(float *p, int n, const part &r)
    {
#pragma unroll
        for (int q = 0; q < values / 4; q++)
            store4<WIDE>(p + column(q), n - column(q),
                         make_float4(r.v[4 * q], r.v[4 * q + 1], r.v[4 * q + 2], r.v[4 * q + 3]));
    }

    /* Row `row` of n as integers (see pl_act). */
    static __device__ __forceinline__ void store_integers(const pl_act &act, int n, int row, const part &r)
    {
#pragma unroll
        for (int q = 0; q < values / 4; q++) {
            const float quad[4] = {r.v[4 * q], r.v[4 * q + 1], r.v[4 * q + 2], r.v[4 * q + 3]};
            int64_t at = column(q) / PL_ACT_BLOCK;
            quantize::store_block(act, n, row, at, at < act.blocks, quad);
        }
    }

    static __device__ __forceinline__ float get_sum(const float *parts)
    {
        float sum = 0;
#pragma unroll
        for (int warp = 0; warp < THREADS / 32; warp += 4) {
            float4 p = *reinterpret_cast<const float4 *>(parts + warp);
            sum += (p.x + p.y) + (p.z + p.w);
        }
        return sum;
    }
};

/* ---- residual streams */

static __device__ __forceinline__ float *stream_row(const pl_streams &s, int k, int64_t i)
{
    return s.v + (k * s.rows + i) * s.hidden;
}

/* ple_add: v becomes its norm, factor being the inverse RMS, and goes onto streams 1 to 3 of the slot, which s holds.
 * The sums are not to be fused with the norm's products: what calls this gives the same bits. */
template <class BLOCK>
static __device__ __forceinline__ void add_to_streams(const pl_streams &streams, int64_t slot, part (&s)[PL_STREAMS],
                                                      part &v, float factor, const part &w)
{
    const int n = static_cast<int>(streams.hidden);
    scale(v, factor, w);
#pragma unroll
    for (int k = 1; k < PL_STREAMS; k++) {
#pragma unroll
        for (int i = 0; i < values; i++)
            s[k].v[i] = __fadd_rn(s[k].v[i], v.v[i]);
        BLOCK::store(stream_row(streams, k, slot), n, s[k]);
    }
}

/* ---- launch: a kernel is built for the model's own width, and once more for any other */

constexpr int fast_threads = 256;
constexpr int any_threads = 384;
static_assert(values * any_threads == PL_CUDA_MAX_HIDDEN, "a row fits the block");

template <class... P> static inline bool is_wide(int64_t columns, const P *...rows)
{
    uintptr_t bits = sizeof(float) * static_cast<uintptr_t>(columns);
    ((bits |= reinterpret_cast<uintptr_t>(rows)), ...);
    return bits % sizeof(float4) == 0;
}

template <class K> struct choice {
    K kernel;
    int threads;
};

template <class K> static inline choice<K> choose(int64_t columns, bool wide, K fast, K any)
{
    bool is_fast = wide && columns <= static_cast<int64_t>(values) * fast_threads;
    return is_fast ? choice<K>{fast, fast_threads} : choice<K>{any, any_threads};
}

/* What an op leaves as integers: all columns of its result f32. */
static inline pl_act integers_of(pl_act *act, const float *f32, int n, int64_t columns)
{
    act->f32 = f32;
    act->ld = act->cols = columns;
    act->blocks = (columns + PL_ACT_BLOCK - 1) / PL_ACT_BLOCK;
    act->rows = n;
    return *act;
}

/* A block a row. */
static inline kd::launch_cfg launch(cudaStream_t stream, int n, int threads)
{
    return kd::launch_cfg{dim3(static_cast<unsigned>(n)), dim3(static_cast<unsigned>(threads)), 0, stream, false};
}

} // namespace row

#endif
