/* The activation of layers with a cutoff where others have the row's other gates: sums over those that are here; then,
 * with the whole row's sums, the values.
 *
 * The sums are in f64, which keeps the variance beside any mean: one block a row, each thread every so many of its gates,
 * then a tree. Bytes a row of F columns: 4 F; 8 F and the sectors of `up` where a gate is above the cutoff. */
#include "cuda/gelu.cuh"
#include "cuda/kernels.h"

namespace
{

constexpr int threads = 256;
constexpr int columns = 8 * threads; /* of a block */

__global__ void __launch_bounds__(threads)
    stats_kernel(double *stats, const float *gate, int64_t ld, const int32_t *width)
{
    KD_SHARED(double, parts, [2][threads]);
    const int n = width[blockIdx.x], t = threadIdx.x;
    gate += blockIdx.x * ld;
    double sum = 0, square = 0;
    for (int i = t; i < n; i += threads) {
        const double v = gate[i];
        sum += v;
        square += v * v;
    }
    parts[0][t] = sum;
    parts[1][t] = square;
    for (int half = threads / 2; half > 0; half /= 2) {
        __syncthreads();
        if (t < half) {
            parts[0][t] += parts[0][t + half];
            parts[1][t] += parts[1][t + half];
        }
    }
    if (t == 0) {
        stats += blockIdx.x * PL_FFN_STATS;
        stats[0] = n;
        stats[1] = parts[0][0];
        stats[2] = parts[1][0];
    }
}

__device__ __forceinline__ float cutoff(const double *stats, float z)
{
    const double mean = stats[1] / stats[0], variance = stats[2] / stats[0] - mean * mean;
    return static_cast<float>(mean + z * sqrt(variance > 0 ? variance : 0.0));
}

__global__ void __launch_bounds__(threads)
    act_kernel(float *gate, const float *up, int64_t ld, const int32_t *width, const double *stats, float z)
{
    KD_SHARED(float, cut, [1]);
    const int end = min(width[blockIdx.x], static_cast<int>(blockIdx.y + 1) * columns);
    if (threadIdx.x == 0)
        cut[0] = cutoff(stats + blockIdx.x * PL_FFN_STATS, z);
    __syncthreads();
    gate += blockIdx.x * ld;
    up += blockIdx.x * ld;
    for (int i = static_cast<int>(blockIdx.y) * columns + static_cast<int>(threadIdx.x); i < end; i += threads) {
        const float over = gate[i] - cut[0];
        gate[i] = over <= 0 ? 0 : gelu(over) * up[i];
    }
}

} // namespace

extern "C" cudaError_t pl_cuda_ffn_stats(cudaStream_t stream, double *stats, const float *gate, int64_t ld, int n,
                                         const int32_t *width)
{
    if (n == 0)
        return cudaSuccess;
    const kd::launch_cfg cfg{dim3(static_cast<unsigned>(n)), dim3(threads), 0, stream, false};
    return KD_LAUNCH(stats_kernel, cfg, stats, gate, ld, width);
}

extern "C" cudaError_t pl_cuda_ffn_act_part(cudaStream_t stream, float *gate, const float *up, int64_t ld, int n,
                                            const int32_t *width, const double *stats, float z)
{
    if (n == 0)
        return cudaSuccess;
    const dim3 blocks(static_cast<unsigned>(n), static_cast<unsigned>((ld + columns - 1) / columns));
    return KD_LAUNCH(act_kernel, (kd::launch_cfg{blocks, dim3(threads), 0, stream, false}), gate, up, ld, width, stats,
                     z);
}
