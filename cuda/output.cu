/* The end of the walk: four streams become one hidden state, and logits are capped.
 *
 * output_norm: one block a row, the row in registers, 24 bytes a column. softcap: 8 bytes a value, a thread has four.
 * check_finite: 4 bytes a value. */
#include "cuda/kernels.h"
#include "cuda/norm.cuh"

namespace
{

template <int THREADS, bool WIDE>
__global__ void __launch_bounds__(THREADS, 1)
    norm_kernel(float *mean, float *out, const float *first, pl_streams rest, const float *norm, float eps)
{
    using block = row::block<THREADS, WIDE>;
    KD_SHARED(float, parts, [row::part_ld]);
    const int n = static_cast<int>(rest.hidden);
    const int64_t at = static_cast<int64_t>(blockIdx.x) * n, stream = rest.rows * n;
    row::part v = block::load(first + at, n), s1 = block::load(rest.v + stream + at, n);
    row::part s2 = block::load(rest.v + 2 * stream + at, n), s3 = block::load(rest.v + 3 * stream + at, n);
    row::part w = block::load(norm, n);
#pragma unroll
    for (int i = 0; i < row::values; i++)
        v.v[i] = (v.v[i] + s1.v[i] + s2.v[i] + s3.v[i]) * 0.25f;
    row::put_sum(parts, row::square_sum(v));
    block::store(mean + at, n, v);
    __syncthreads();
    float factor = row::inverse_rms(block::get_sum(parts), n, eps);
    row::scale(v, factor, w);
    block::store(out + at, n, v);
}

constexpr int quad_threads = 256; /* four values each */

dim3 quad_blocks(int64_t values)
{
    return dim3(static_cast<unsigned>((values + 4 * quad_threads - 1) / (4 * quad_threads)));
}

template <bool WIDE> __global__ void __launch_bounds__(quad_threads) softcap_kernel(float *x, int64_t n, float cap)
{
    int64_t at = 4 * (static_cast<int64_t>(blockIdx.x) * quad_threads + threadIdx.x);
    int left = n - at < 4 ? static_cast<int>(n - at) : 4;
    float4 v = row::load4<WIDE>(x + at, left);
    v = make_float4(tanhf(v.x / cap) * cap, tanhf(v.y / cap) * cap, tanhf(v.z / cap) * cap, tanhf(v.w / cap) * cap);
    row::store4<WIDE>(x + at, left, v);
}

__device__ __forceinline__ bool is_finite(float v)
{
    return (__float_as_uint(v) & 0x7fffffffu) < 0x7f800000u;
}

template <bool WIDE>
__global__ void __launch_bounds__(quad_threads) finite_kernel(const float *x, int64_t n, int64_t cols, int32_t *bad)
{
    int64_t at = 4 * (static_cast<int64_t>(blockIdx.x) * quad_threads + threadIdx.x);
    int left = n - at < 4 ? static_cast<int>(n - at) : 4;
    float4 v = row::load4<WIDE>(x + at, left);
    int finite = !is_finite(v.x) ? 0 : !is_finite(v.y) ? 1 : !is_finite(v.z) ? 2 : !is_finite(v.w) ? 3 : 4;
    if (finite < 4)
        atomicExch(bad, static_cast<int32_t>((at + finite) / cols) + 1);
}

} // namespace

extern "C" cudaError_t pl_cuda_output_norm(cudaStream_t stream, float *mean, float *out, const float *first,
                                           pl_streams rest, int n, const float *w, float eps)
{
    int64_t hidden = rest.hidden;
    if (n == 0)
        return cudaSuccess;
    if (hidden > PL_CUDA_MAX_HIDDEN)
        return cudaErrorInvalidValue;
    bool wide = row::is_wide(hidden, mean, out, first, rest.v, w);
    auto output_norm = row::choose(hidden, wide, norm_kernel<row::fast_threads, true>,
                                   norm_kernel<row::any_threads, false>);
    return KD_LAUNCH(output_norm.kernel, row::launch(stream, n, output_norm.threads), mean, out, first, rest, w, eps);
}

extern "C" cudaError_t pl_cuda_softcap(cudaStream_t stream, float *x, int n, int64_t cols, float cap)
{
    int64_t all = n * cols;
    if (all == 0)
        return cudaSuccess;
    auto softcap = row::is_wide(cols, x) ? softcap_kernel<true> : softcap_kernel<false>;
    return KD_LAUNCH(softcap, (kd::launch_cfg{quad_blocks(all), dim3(quad_threads), 0, stream, false}), x, all, cap);
}

extern "C" cudaError_t pl_cuda_check_finite(cudaStream_t stream, const float *x, int n, int64_t cols, int32_t *bad)
{
    int64_t all = n * cols;
    if (all == 0)
        return cudaSuccess;
    auto check_finite = row::is_wide(all, x) ? finite_kernel<true> : finite_kernel<false>;
    return KD_LAUNCH(check_finite, (kd::launch_cfg{quad_blocks(all), dim3(quad_threads), 0, stream, false}), x, all,
                     cols, bad);
}
