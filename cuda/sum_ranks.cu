/* Sums over cards, of what all of them have brought to each: in the order of their ranks, wherever a value stands. */
#include "cuda/kernels.h"

#include "cuda/kd.cuh"

namespace
{

constexpr int threads = 256;

template <class T> __global__ void __launch_bounds__(threads) sum_kernel(T *out, const T *parts, int64_t n, int ranks)
{
    const int64_t i = static_cast<int64_t>(blockIdx.x) * threads + static_cast<int>(threadIdx.x);
    if (i >= n)
        return;
    T v = parts[i];
    for (int rank = 1; rank < ranks; rank++)
        v += parts[rank * n + i];
    out[i] = v;
}

template <class T> cudaError_t sum(cudaStream_t stream, T *out, const T *parts, size_t n, int ranks)
{
    const unsigned blocks = static_cast<unsigned>((n + threads - 1) / threads);
    const kd::launch_cfg cfg = {dim3(blocks), dim3(threads), 0, stream, false};
    return KD_LAUNCH(sum_kernel<T>, cfg, out, parts, static_cast<int64_t>(n), ranks);
}

} // namespace

cudaError_t pl_cuda_sum_ranks_f32(cudaStream_t stream, float *out, const float *parts, size_t n, int ranks)
{
    return sum(stream, out, parts, n, ranks);
}

cudaError_t pl_cuda_sum_ranks_f64(cudaStream_t stream, double *out, const double *parts, size_t n, int ranks)
{
    return sum(stream, out, parts, n, ranks);
}
