/* Per-layer inputs: made once a step, let in through each layer's gate.
 *
 * ple_combine: a warp for one layer of one row; P is small and the second read of it comes from the first cache.
 * ple_gate: four values a thread, 12 P bytes a row. ple_add: one block a row, all in registers, 32 H bytes a row. */
#include "cuda/gelu.cuh"
#include "cuda/kernels.h"
#include "cuda/norm.cuh"

namespace
{

constexpr int combine_warps = 4;

template <bool WIDE>
__global__ void __launch_bounds__(32 * combine_warps)
    combine_kernel(float *ple, const float *proj, int64_t ld, const float *norm, const int32_t *layers, int p,
                   float proj_scale, float look_scale, float eps)
{
    const int layer = static_cast<int>(blockIdx.y * combine_warps + threadIdx.x / 32), lane = threadIdx.x % 32;
    if (layer >= layers[blockIdx.x])
        return;
    proj += blockIdx.x * ld + static_cast<int64_t>(layer) * p;
    ple += blockIdx.x * ld + static_cast<int64_t>(layer) * p;
    float squares = 0;
    for (int i = 4 * lane; i < p; i += 128) {
        float4 v = row::load4<WIDE>(proj + i, p - i);
        squares += (v.x * v.x + v.y * v.y) + (v.z * v.z + v.w * v.w);
    }
    float mean = kd::warp_sum(squares) * proj_scale * proj_scale / static_cast<float>(p);
    float factor = proj_scale / sqrtf(mean + eps);
    const float root_half = 0.70710678118654752f;
    for (int i = 4 * lane; i < p; i += 128) {
        float4 v = row::load4<WIDE>(proj + i, p - i), w = row::load4<WIDE>(norm + i, p - i);
        float4 look = row::load4<WIDE>(ple + i, p - i);
        v.x = (v.x * factor * w.x + look.x * look_scale) * root_half;
        v.y = (v.y * factor * w.y + look.y * look_scale) * root_half;
        v.z = (v.z * factor * w.z + look.z * look_scale) * root_half;
        v.w = (v.w * factor * w.w + look.w * look_scale) * root_half;
        row::store4<WIDE>(ple + i, p - i, v);
    }
}

constexpr int gate_threads = 64;

template <bool WIDE>
__global__ void __launch_bounds__(gate_threads)
    gate_kernel(float *gate, const float *ple, int64_t ld, const int32_t *slot, int p)
{
    const int i = 4 * static_cast<int>(blockIdx.y * gate_threads + threadIdx.x);
    if (i >= p)
        return;
    gate += static_cast<int64_t>(blockIdx.x) * p + i;
    float4 g = row::load4<WIDE>(gate, p - i);
    float4 by = row::load4<WIDE>(ple + slot[blockIdx.x] * ld + i, p - i);
    row::store4<WIDE>(gate, p - i, gelu_times(g, by));
}

template <int THREADS, bool WIDE>
__global__ void __launch_bounds__(THREADS, 1)
    add_kernel(pl_streams streams, float *v, const int32_t *slot, const float *norm, float eps)
{
    using block = row::block<THREADS, WIDE>;
    KD_SHARED(float, parts, [row::part_ld]);
    const int n = static_cast<int>(streams.hidden);
    const int64_t at = static_cast<int64_t>(blockIdx.x) * n, to = slot[blockIdx.x];
    row::part x = block::load(v + at, n), w = block::load(norm, n), s[PL_STREAMS];
#pragma unroll
    for (int k = 1; k < PL_STREAMS; k++)
        s[k] = block::load(row::stream_row(streams, k, to), n);
    row::put_sum(parts, row::square_sum(x));
    __syncthreads();
    float factor = row::inverse_rms(block::get_sum(parts), n, eps);
    row::add_to_streams<block>(streams, to, s, x, factor, w);
    block::store(v + at, n, x);
}

unsigned pieces(int64_t n, int64_t piece)
{
    return static_cast<unsigned>((n + piece - 1) / piece);
}

} // namespace

extern "C" cudaError_t pl_cuda_ple_combine(cudaStream_t stream, float *ple, const float *proj, int64_t ld,
                                           const float *w, int n, const int32_t *layers, int p, float proj_scale,
                                           float look_scale, float eps)
{
    if (n == 0)
        return cudaSuccess;
    auto ple_combine = row::is_wide(p, ple, proj, w) && row::is_wide(ld) ? combine_kernel<true> : combine_kernel<false>;
    dim3 blocks(static_cast<unsigned>(n), pieces(ld / p, combine_warps));
    return KD_LAUNCH(ple_combine, (kd::launch_cfg{blocks, dim3(32 * combine_warps), 0, stream, false}), ple, proj, ld,
                     w, layers, p, proj_scale, look_scale, eps);
}

extern "C" cudaError_t pl_cuda_ple_gate(cudaStream_t stream, float *gate, const float *ple, int64_t ld,
                                        const pl_rows *rows, int p)
{
    if (rows->n == 0)
        return cudaSuccess;
    auto ple_gate = row::is_wide(p, gate, ple) && row::is_wide(ld) ? gate_kernel<true> : gate_kernel<false>;
    dim3 blocks(static_cast<unsigned>(rows->n), pieces(p, 4 * gate_threads));
    return KD_LAUNCH(ple_gate, (kd::launch_cfg{blocks, dim3(gate_threads), 0, stream, false}), gate, ple, ld,
                     rows->slot, p);
}

extern "C" cudaError_t pl_cuda_ple_add(cudaStream_t stream, pl_streams streams, float *v, const pl_rows *rows,
                                       const float *w, float eps)
{
    int64_t hidden = streams.hidden;
    if (rows->n == 0)
        return cudaSuccess;
    if (hidden > PL_CUDA_MAX_HIDDEN)
        return cudaErrorInvalidValue;
    auto ple_add = row::choose(hidden, row::is_wide(hidden, streams.v, v, w), add_kernel<row::fast_threads, true>,
                               add_kernel<row::any_threads, false>);
    return KD_LAUNCH(ple_add.kernel, row::launch(stream, rows->n, ple_add.threads), streams, v, rows->slot, w, eps);
}
