/* Activations to integers (see pl_act), a block of 32 to eight lanes. Moves 6.4 bytes a value. */
#include "cuda/kernels.h"

#include "cuda/quantize_act.cuh"

namespace
{

constexpr int THREADS = 128;
using quantize::BLOCK_LANES;
using quantize::LANE_COLUMNS;

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

__global__ void __launch_bounds__(THREADS) quantize_act(const pl_act act, int n)
{
    int unit = static_cast<int>(blockIdx.x) * THREADS + static_cast<int>(threadIdx.x), lane = unit % BLOCK_LANES;
    int row = static_cast<int>(blockIdx.y);
    int64_t block = unit / BLOCK_LANES;
    bool exists = block < act.blocks;
    float x[LANE_COLUMNS] = {};
    if (exists)
        load_columns(x, act.f32 + row * act.ld, block * PL_ACT_BLOCK + lane * LANE_COLUMNS, act.cols);
    quantize::store_block(act, n, row, block, exists, x);
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
