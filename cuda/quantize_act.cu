/* Activations to integers (see pl_act): the same bits as host/cpu/quantize_act.c. Eight lanes take a block of 32, four
 * columns each.
 *
 * Moves 6.4 bytes a value. */
#include "cuda/kernels.h"

#include "cuda/kd.cuh"

namespace
{

constexpr int THREADS = 128;
constexpr int LANE_COLUMNS = 4;
constexpr int BLOCK_LANES = PL_ACT_BLOCK / LANE_COLUMNS;
constexpr int SPAN_BLOCKS = PL_ACT_SPAN / PL_ACT_BLOCK;
constexpr float LARGEST = 16256; /* 128 * 127 */
constexpr unsigned ALL = 0xffffffffu;

__device__ __forceinline__ void load_columns(float (&x)[LANE_COLUMNS], const float *row, int64_t k, int64_t cols)
{
    if (k + LANE_COLUMNS <= cols && reinterpret_cast<uintptr_t>(row + k) % 16 == 0) {
        float4 v = *reinterpret_cast<const float4 *>(row + k);
        x[0] = v.x;
        x[1] = v.y;
        x[2] = v.z;
        x[3] = v.w;
        return;
    }
#pragma unroll
    for (int i = 0; i < LANE_COLUMNS; i++)
        x[i] = k + i < cols ? row[k + i] : 0;
}

/* As integers, magnitudes order like floats, infinity and NaN above all others. */
__device__ __forceinline__ uint32_t largest_magnitude(const float (&x)[LANE_COLUMNS])
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

__global__ void __launch_bounds__(THREADS) quantize_act(const pl_act act, int n)
{
    int unit = static_cast<int>(blockIdx.x) * THREADS + static_cast<int>(threadIdx.x), lane = unit % BLOCK_LANES;
    int row = static_cast<int>(blockIdx.y);
    int64_t block = unit / BLOCK_LANES;
    bool exists = block < act.blocks;
    float x[LANE_COLUMNS] = {};
    if (exists)
        load_columns(x, act.f32 + row * act.ld, block * PL_ACT_BLOCK + lane * LANE_COLUMNS, act.cols);
    uint32_t bits = largest_magnitude(x);
    float largest = __uint_as_float(bits), scale = bits >= 0x7f800000u ? __uint_as_float(0x7fc00000u) : 0, inverse = 0;
    bool counts = largest >= 0x1p-100f && bits < 0x7f800000u;
    if (counts) {
        scale = largest / LARGEST;
        inverse = LARGEST / largest;
    }
    uint32_t hi = 0, lo = 0;
    int32_t sum = 0;
#pragma unroll
    for (int i = 0; i < LANE_COLUMNS; i++) {
        int q = counts ? kd::to_int(x[i] * inverse) : 0, high = (q + 64) >> 7;
        hi |= static_cast<uint32_t>(high & 255) << 8 * i;
        lo |= static_cast<uint32_t>((q - 128 * high) & 255) << 8 * i;
        sum += q;
    }
    sum += __shfl_xor_sync(ALL, sum, 1);
    sum += __shfl_xor_sync(ALL, sum, 2);
    if (!exists)
        return;
    int64_t first = block / SPAN_BLOCKS * SPAN_BLOCKS, ld = min(static_cast<int64_t>(SPAN_BLOCKS), act.blocks - first);
    int64_t at = first * n + row * ld + block - first;
    uint32_t *codes = reinterpret_cast<uint32_t *>(act.hi_lo + at * 2 * PL_ACT_BLOCK);
    codes[lane] = hi;
    codes[BLOCK_LANES + lane] = lo;
    if (lane % (BLOCK_LANES / 2) == 0)
        act.sum[2 * at + lane / (BLOCK_LANES / 2)] = sum;
    if (lane == 0)
        act.scale[at] = scale;
}

} // namespace

cudaError_t pl_cuda_quantize(cudaStream_t stream, const pl_act *act, int n)
{
    if (n == 0)
        return cudaSuccess;
    unsigned blocks = static_cast<unsigned>((act->blocks * BLOCK_LANES + THREADS - 1) / THREADS);
    kd::launch_cfg cfg = {dim3(blocks, static_cast<unsigned>(n)), dim3(THREADS), 0, stream, false};
    return KD_LAUNCH(quantize_act, cfg, *act, n);
}
