/* One block of activations to integers (see pl_act): the same bits as host/cpu/quantize_act.c. Eight lanes take a block
 * of 32, four columns each. */
#ifndef PL_CUDA_QUANTIZE_ACT_CUH
#define PL_CUDA_QUANTIZE_ACT_CUH

#include "cuda/kd.cuh"
#include "host/ops/matmul.h"

namespace quantize
{

constexpr int LANE_COLUMNS = 4;
constexpr int BLOCK_LANES = PL_ACT_BLOCK / LANE_COLUMNS;
constexpr int SPAN_BLOCKS = PL_ACT_SPAN / PL_ACT_BLOCK;
constexpr float LARGEST = 16256; /* 128 * 127 */
constexpr unsigned ALL = 0xffffffffu;

/* As integers, magnitudes order like floats, infinity and NaN above all others. */
static __device__ __forceinline__ uint32_t largest_magnitude(const float (&x)[LANE_COLUMNS])
{
    uint32_t largest = 0;
#pragma unroll
    for (int i = 0; i < LANE_COLUMNS; i++)
        largest = max(largest, __float_as_uint(x[i]) & 0x7fffffffu);
#pragma unroll
    for (int far = BLOCK_LANES / 2; far > 0; far >>= 1)
        largest = max(largest, __shfl_xor_sync(ALL, largest, far));
    return largest;
}

/* What a lane's four columns become. */
struct codes {
    uint32_t hi, lo;
    float scale; /* of the block */
    int32_t sum; /* of the half block */
};

/* All lanes of a warp call it, each eight of them for a block of their own. */
static __device__ __forceinline__ codes encode(const float (&x)[LANE_COLUMNS])
{
    uint32_t bits = largest_magnitude(x);
    float largest = __uint_as_float(bits), inverse = 0;
    bool counts = largest >= 0x1p-100f && bits < 0x7f800000u;
    codes c = {0, 0, bits >= 0x7f800000u ? __uint_as_float(0x7fc00000u) : 0, 0};
    if (counts) {
        c.scale = largest / LARGEST;
        inverse = LARGEST / largest;
    }
#pragma unroll
    for (int i = 0; i < LANE_COLUMNS; i++) {
        int q = counts ? kd::to_int(x[i] * inverse) : 0, high = (q + 64) >> 7;
        c.hi |= static_cast<uint32_t>(high & 255) << 8 * i;
        c.lo |= static_cast<uint32_t>((q - 128 * high) & 255) << 8 * i;
        c.sum += q;
    }
    c.sum += __shfl_xor_sync(ALL, c.sum, 1);
    c.sum += __shfl_xor_sync(ALL, c.sum, 2);
    return c;
}

/* As encode(), and stores. Of row `row` of n: columns 4 * lane to 4 * lane + 3 of the block, lane = threadIdx.x % 8,
 * zero beyond act.cols. exists: false where there is no such block. */
static __device__ __forceinline__ void store_block(const pl_act &act, int n, int row, int64_t block, bool exists,
                                                   const float (&x)[LANE_COLUMNS])
{
    int lane = static_cast<int>(threadIdx.x) % BLOCK_LANES;
    codes c = encode(x);
    if (!exists)
        return;
    int64_t first = block / SPAN_BLOCKS * SPAN_BLOCKS, ld = min(static_cast<int64_t>(SPAN_BLOCKS), act.blocks - first);
    int64_t at = first * n + row * ld + block - first;
    uint32_t *words = reinterpret_cast<uint32_t *>(act.hi_lo + at * 2 * PL_ACT_BLOCK);
    words[lane] = c.hi;
    words[BLOCK_LANES + lane] = c.lo;
    if (lane % (BLOCK_LANES / 2) == 0)
        act.sum[2 * at + lane / (BLOCK_LANES / 2)] = c.sum;
    if (lane == 0)
        act.scale[at] = c.scale;
}

} // namespace quantize

#endif
