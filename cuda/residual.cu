/* Where attention, LAuReL and the active stream meet, and the norm before the FFN.
 *
 * One block a row, all five rows in registers; the two norms' sums share a barrier, the third needs their result.
 * Bytes a row of H columns: 28 H and the three norms' weights; f as integers 2.4 H more. */
#include "cuda/kernels.h"
#include "cuda/norm.cuh"

namespace
{

/* y may be att: a thread writes what it alone has read. act: f as integers; without buffers none are wanted. */
template <int THREADS, bool WIDE>
__global__ void __launch_bounds__(THREADS, 1)
    residual_kernel(float *y, float *f, pl_act act, float *laurel, const float *a, const float *x, const float *att,
                    const float *laurel_norm, const float *att_norm, const float *ffn_norm, int n, float eps)
{
    using block = row::block<THREADS, WIDE>;
    KD_SHARED(float, parts, [3][row::part_ld]);
    const int64_t at = static_cast<int64_t>(blockIdx.x) * n;
    row::part l = block::load(laurel + at, n), v = block::load(att + at, n);
    row::part wl = block::load(laurel_norm, n), wv = block::load(att_norm, n);
    row::part from_x = block::load(x + at, n), from_a = block::load(a + at, n);
    row::part wf = block::load(ffn_norm, n);

    row::put_sum(parts[0], row::square_sum(l));
    row::put_sum(parts[1], row::square_sum(v));
    __syncthreads();
    float laurel_factor = row::inverse_rms(block::get_sum(parts[0]), n, eps);
    float att_factor = row::inverse_rms(block::get_sum(parts[1]), n, eps);
    const float root_half = 0.70710678118654752f;
#pragma unroll
    for (int i = 0; i < row::values; i++) {
        l.v[i] = from_x.v[i] + l.v[i] * laurel_factor * wl.v[i];
        v.v[i] = (from_a.v[i] + v.v[i] * att_factor * wv.v[i] + l.v[i]) * root_half;
    }
    row::put_sum(parts[2], row::square_sum(v));
    block::store(laurel + at, n, l);
    block::store(y + at, n, v);
    __syncthreads();
    float factor = row::inverse_rms(block::get_sum(parts[2]), n, eps);
    row::scale(v, factor, wf);
    block::store(f + at, n, v);
    if (act.hi_lo)
        block::store_integers(act, static_cast<int>(gridDim.x), static_cast<int>(blockIdx.x), v);
}

cudaError_t residual(cudaStream_t stream, float *y, float *f, pl_act act, float *laurel, const float *a, const float *x,
                     const float *att, const float *laurel_norm, const float *att_norm, const float *ffn_norm, int n,
                     int64_t hidden, float eps)
{
    if (n == 0)
        return cudaSuccess;
    if (hidden > PL_CUDA_MAX_HIDDEN)
        return cudaErrorInvalidValue;
    bool wide = row::is_wide(hidden, y, f, laurel, a, x, att, laurel_norm, att_norm, ffn_norm);
    auto attn_residual = row::choose(hidden, wide, residual_kernel<row::fast_threads, true>,
                                     residual_kernel<row::any_threads, false>);
    return KD_LAUNCH(attn_residual.kernel, row::launch(stream, n, attn_residual.threads), y, f, act, laurel, a, x, att,
                     laurel_norm, att_norm, ffn_norm, static_cast<int>(hidden), eps);
}

} // namespace

extern "C" cudaError_t pl_cuda_attn_residual(cudaStream_t stream, float *y, float *f, float *laurel, const float *a,
                                             const float *x, const float *att, const float *laurel_norm,
                                             const float *att_norm, const float *ffn_norm, int n, int64_t hidden,
                                             float eps)
{
    return residual(stream, y, f, pl_act{}, laurel, a, x, att, laurel_norm, att_norm, ffn_norm, n, hidden, eps);
}

extern "C" cudaError_t pl_cuda_fused_attn_residual(cudaStream_t stream, float *y, float *f, pl_act *act, float *laurel,
                                                   const float *a, const float *x, const float *att,
                                                   const float *laurel_norm, const float *att_norm,
                                                   const float *ffn_norm, int n, int64_t hidden, float eps)
{
    pl_act integers = row::integers_of(act, f, n, hidden);
    return residual(stream, y, f, integers, laurel, a, x, att, laurel_norm, att_norm, ffn_norm, n, hidden, eps);
}
