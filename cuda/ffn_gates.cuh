/* A row of gates in the registers of one block, and its cutoff: what the kernels of the sparse FFN have in common. They
 * all have to come to the same bits, as the cutoff decides which activations are zero. */
#ifndef PL_CUDA_FFN_GATES_CUH
#define PL_CUDA_FFN_GATES_CUH

#include "cuda/norm.cuh"

namespace gates
{

constexpr int THREADS = 512;
constexpr int QUADS = 8; /* of a row a thread holds */
static_assert(4 * QUADS * THREADS == PL_CUDA_MAX_SPARSE_WIDTH, "a row fits the block");

using block = row::block<THREADS, false>;

struct values {
    float v[4 * QUADS];
};

static __device__ __forceinline__ int column_of(int i)
{
    return block::column(i / 4) + i % 4;
}

template <bool WIDE> static __device__ __forceinline__ values load(const float *gate, int n)
{
    values g;
#pragma unroll
    for (int q = 0; q < QUADS; q++) {
        float4 v = row::load4<WIDE>(gate + block::column(q), n - block::column(q));
        g.v[4 * q] = v.x;
        g.v[4 * q + 1] = v.y;
        g.v[4 * q + 2] = v.z;
        g.v[4 * q + 3] = v.w;
    }
    return g;
}

/* mean + z * std over the row's n gates, std biased; two passes, so that a large mean does not eat the variance. parts:
 * others for each row that a kernel takes. */
static __device__ __forceinline__ float cutoff(const values &g, int n, float z, float (*parts)[row::part_ld])
{
    float t[4 * QUADS];
#pragma unroll
    for (int i = 0; i < 4 * QUADS; i++)
        t[i] = column_of(i) < n ? g.v[i] : 0;
    row::put_sum(parts[0], row::tree_sum(t));
    __syncthreads();
    float mean = block::get_sum(parts[0]) / static_cast<float>(n);
#pragma unroll
    for (int i = 0; i < 4 * QUADS; i++)
        t[i] = column_of(i) < n ? (g.v[i] - mean) * (g.v[i] - mean) : 0;
    row::put_sum(parts[1], row::tree_sum(t));
    __syncthreads();
    return mean + z * sqrtf(block::get_sum(parts[1]) / static_cast<float>(n));
}

/* Which values of a quad are above the cutoff, or NaN; left: how many it has in the row. */
static __device__ __forceinline__ unsigned above(const float *v, int left, float cut)
{
    unsigned bits = 0;
#pragma unroll
    for (int i = 0; i < 4; i++)
        if (i < left && !(v[i] - cut <= 0))
            bits |= 1u << i;
    return bits;
}

} // namespace gates

#endif
