/* AltUp: four residual streams, of which each layer computes one and predicts the others.
 *
 * One block a row, the row's streams in registers: every value is read once and all loads are on their way before the
 * first sum is. What follows a load is a chain of two sums over the block. The router's four products are taken of
 * v * w instead of norm(v), which is one factor away, so that they need not wait for the sum of squares.
 * Bytes a row, H columns, beside the weights (L2, the same for all rows): predict 36 H, with ple_add 56 H, correct 48 H,
 * match_rms 12 H; integers 2.4 H more. */
#include "cuda/kernels.h"
#include "cuda/norm.cuh"

namespace
{

/* What the router reads of the weights, its sums, and how many they are. */
struct router {
    row::part norm;
    row::part weight[PL_STREAMS];
};

constexpr int router_sums = 1 + PL_STREAMS;

template <class BLOCK> __device__ __forceinline__ router load_router(const pl_altup &altup, int n)
{
    router r;
    r.norm = BLOCK::load(altup.router_norm, n);
#pragma unroll
    for (int k = 0; k < PL_STREAMS; k++)
        r.weight[k] = BLOCK::load(altup.router + static_cast<int64_t>(k) * n, n);
    return r;
}

__device__ __forceinline__ void put_route(float (*parts)[row::part_ld], const row::part &v, const router &w)
{
    float dot[PL_STREAMS];
    row::part weighted;
#pragma unroll
    for (int i = 0; i < row::values; i++)
        weighted.v[i] = v.v[i] * w.norm.v[i];
#pragma unroll
    for (int k = 0; k < PL_STREAMS; k++) {
        float product[row::values];
#pragma unroll
        for (int i = 0; i < row::values; i++)
            product[i] = w.weight[k].v[i] * weighted.v[i];
        dot[k] = row::tree_sum(product);
    }
    row::put_sum(parts[0], row::square_sum(v));
    row::put_four_sums(parts + 1, dot);
}

/* m[k] = tanh(router[k] . norm(v) / n); a lane works out one of the four. */
template <class BLOCK>
__device__ __forceinline__ void get_route(float (&m)[PL_STREAMS], const float (*parts)[row::part_ld], int n, float eps)
{
    float factor = row::inverse_rms(BLOCK::get_sum(parts[0]), n, eps);
    float logit = BLOCK::get_sum(parts[1 + threadIdx.x % PL_STREAMS]) * factor / static_cast<float>(n);
    float mine = tanhf(logit);
#pragma unroll
    for (int k = 0; k < PL_STREAMS; k++)
        m[k] = __shfl_sync(0xffffffffu, mine, k);
}

__device__ __forceinline__ float dot4(float4 w, const float (&m)[PL_STREAMS])
{
    return w.x * m[0] + w.y * m[1] + w.z * m[2] + w.w * m[3];
}

/* Stream k's prediction: s[k] + sum_j c[j] s[j]; lane 4 k + j of the warp has c[j]. */
__device__ __forceinline__ row::part mix(const row::part (&s)[PL_STREAMS], int k, float coefficient)
{
    float c[PL_STREAMS];
#pragma unroll
    for (int j = 0; j < PL_STREAMS; j++)
        c[j] = __shfl_sync(0xffffffffu, coefficient, PL_STREAMS * k + j);
    row::part out;
#pragma unroll
    for (int i = 0; i < row::values; i++)
        out.v[i] = s[k].v[i] + (c[0] * s[0].v[i] + c[1] * s[1].v[i] + c[2] * s[2].v[i] + c[3] * s[3].v[i]);
    return out;
}

/* act: x as integers; without buffers none are wanted. v: what ple_add puts onto the streams first; NULL: nothing. The
 * single ops are this kernel too. */
template <int THREADS, bool WIDE>
__global__ void __launch_bounds__(THREADS, 1)
    predict_kernel(pl_streams pred, float *x, pl_act act, pl_streams streams, float *v, const float *v_norm,
                   pl_rows rows, pl_altup altup, const float *norm, float eps)
{
    using block = row::block<THREADS, WIDE>;
    KD_SHARED(float, parts, [router_sums + 2][row::part_ld]);
    const int n = static_cast<int>(streams.hidden), lane = threadIdx.x % 32;
    const int64_t r = blockIdx.x, slot = rows.slot[r];
    router route = load_router<block>(altup, n);
    row::part w = block::load(norm, n), s[PL_STREAMS], added, w_added;
    float4 mixer = row::load4<WIDE>(altup.predict + PL_STREAMS * (lane % 16), PL_STREAMS);
#pragma unroll
    for (int k = 0; k < PL_STREAMS; k++)
        s[k] = block::load(row::stream_row(streams, k, slot), n);
    if (v) {
        added = block::load(v + r * n, n);
        w_added = block::load(v_norm, n);
        row::put_sum(parts[router_sums + 1], row::square_sum(added));
    }

    float m[PL_STREAMS];
    put_route(parts, s[0], route);
    __syncthreads();
    if (v) {
        float factor = row::inverse_rms(block::get_sum(parts[router_sums + 1]), n, eps);
        row::add_to_streams<block>(streams, slot, s, added, factor, w_added);
        block::store(v + r * n, n, added);
    }
    get_route<block>(m, parts, n, eps);
    float coefficient = dot4(mixer, m);
    row::part first = mix(s, 0, coefficient);
    row::put_sum(parts[router_sums], row::square_sum(first));
    block::store(row::stream_row(pred, 0, r), n, first);
#pragma unroll
    for (int k = 1; k < PL_STREAMS; k++)
        block::store(row::stream_row(pred, k, r), n, mix(s, k, coefficient));
    __syncthreads();
    row::scale(first, row::inverse_rms(block::get_sum(parts[router_sums]), n, eps), w);
    block::store(x + r * n, n, first);
    if (act.hi_lo)
        block::store_integers(act, rows.n, static_cast<int>(r), first);
}

/* act: gate_in as integers; without buffers none are wanted. */
template <int THREADS, bool WIDE>
__global__ void __launch_bounds__(THREADS, 1)
    correct_kernel(pl_streams streams, float *y, float *gate_in, pl_act act, const float *ffn, pl_streams pred,
                   pl_rows rows, pl_altup altup, const float *norm, float eps)
{
    using block = row::block<THREADS, WIDE>;
    KD_SHARED(float, parts, [1 + router_sums][row::part_ld]);
    const int n = static_cast<int>(streams.hidden), lane = threadIdx.x % 32;
    const int64_t r = blockIdx.x, slot = rows.slot[r];
    row::part f = block::load(ffn + r * n, n), w = block::load(norm, n), v = block::load(y + r * n, n);
    router route = load_router<block>(altup, n);
    float4 mixer = row::load4<WIDE>(altup.correct + PL_STREAMS * (lane % PL_STREAMS), PL_STREAMS);
    row::part p[PL_STREAMS], scale;
#pragma unroll
    for (int k = 0; k < PL_STREAMS; k++)
        p[k] = block::load(row::stream_row(pred, k, r), n);
    scale = altup.scale ? block::load(altup.scale, n) : row::part{{1, 1, 1, 1, 1, 1, 1, 1}};

    row::put_sum(parts[0], row::square_sum(f));
    __syncthreads();
    float factor = row::inverse_rms(block::get_sum(parts[0]), n, eps);
#pragma unroll
    for (int i = 0; i < row::values; i++)
        v.v[i] += f.v[i] * factor * w.v[i];
    float m[PL_STREAMS];
    put_route(parts + 1, v, route);
    block::store(y + r * n, n, v);
    __syncthreads();
    get_route<block>(m, parts + 1, n, eps);
    float coefficient = 1.0f + dot4(mixer, m);
#pragma unroll
    for (int i = 0; i < row::values; i++)
        v.v[i] -= p[0].v[i];
#pragma unroll
    for (int k = 0; k < PL_STREAMS; k++) {
        float c = __shfl_sync(0xffffffffu, coefficient, k);
#pragma unroll
        for (int i = 0; i < row::values; i++)
            p[k].v[i] += c * v.v[i];
        block::store(row::stream_row(streams, k, slot), n, p[k]);
    }
#pragma unroll
    for (int i = 0; i < row::values; i++)
        p[0].v[i] *= scale.v[i];
    block::store(gate_in + r * n, n, p[0]);
    if (act.hi_lo)
        block::store_integers(act, rows.n, static_cast<int>(r), p[0]);
}

template <int THREADS, bool WIDE>
__global__ void __launch_bounds__(THREADS, 1) match_kernel(float *u, const float *ref, int n)
{
    using block = row::block<THREADS, WIDE>;
    KD_SHARED(float, parts, [2][row::part_ld]);
    const int64_t at = static_cast<int64_t>(blockIdx.x) * n;
    row::part v = block::load(u + at, n), like = block::load(ref + at, n);
    row::put_sum(parts[0], row::square_sum(v));
    row::put_sum(parts[1], row::square_sum(like));
    __syncthreads();
    float have = block::get_sum(parts[0]) / static_cast<float>(n),
          want = block::get_sum(parts[1]) / static_cast<float>(n);
    float factor = sqrtf(want) / sqrtf(have > 1e-5f ? have : 1e-5f);
#pragma unroll
    for (int i = 0; i < row::values; i++)
        v.v[i] *= factor;
    block::store(u + at, n, v);
}

cudaError_t predict(cudaStream_t stream, pl_streams pred, float *x, pl_act act, pl_streams streams, float *v,
                    const float *v_norm, const pl_rows *rows, const pl_altup *altup, const float *norm, float eps)
{
    int64_t hidden = streams.hidden;
    if (rows->n == 0)
        return cudaSuccess;
    if (hidden > PL_CUDA_MAX_HIDDEN)
        return cudaErrorInvalidValue;
    bool wide = row::is_wide(hidden, pred.v, x, streams.v, v, v_norm, altup->router_norm, altup->router, altup->predict,
                             norm);
    auto altup_predict = row::choose(hidden, wide, predict_kernel<row::fast_threads, true>,
                                     predict_kernel<row::any_threads, false>);
    return KD_LAUNCH(altup_predict.kernel, row::launch(stream, rows->n, altup_predict.threads), pred, x, act, streams,
                     v, v_norm, *rows, *altup, norm, eps);
}

cudaError_t correct(cudaStream_t stream, pl_streams streams, float *y, float *gate_in, pl_act act, const float *ffn,
                    pl_streams pred, const pl_rows *rows, const pl_altup *altup, const float *norm, float eps)
{
    int64_t hidden = streams.hidden;
    if (rows->n == 0)
        return cudaSuccess;
    if (hidden > PL_CUDA_MAX_HIDDEN)
        return cudaErrorInvalidValue;
    bool wide = row::is_wide(hidden, streams.v, y, gate_in, ffn, pred.v, altup->router_norm, altup->router,
                             altup->correct, altup->scale, norm);
    auto altup_correct = row::choose(hidden, wide, correct_kernel<row::fast_threads, true>,
                                     correct_kernel<row::any_threads, false>);
    return KD_LAUNCH(altup_correct.kernel, row::launch(stream, rows->n, altup_correct.threads), streams, y, gate_in,
                     act, ffn, pred, *rows, *altup, norm, eps);
}

} // namespace

extern "C" cudaError_t pl_cuda_altup_predict(cudaStream_t stream, pl_streams pred, float *x, pl_streams streams,
                                             const pl_rows *rows, const pl_altup *altup, const float *norm, float eps)
{
    return predict(stream, pred, x, pl_act{}, streams, nullptr, nullptr, rows, altup, norm, eps);
}

extern "C" cudaError_t pl_cuda_fused_predict(cudaStream_t stream, pl_streams pred, float *x, pl_act *act,
                                             pl_streams streams, float *v, const float *v_norm, const pl_rows *rows,
                                             const pl_altup *altup, const float *norm, float eps)
{
    pl_act integers = row::integers_of(act, x, rows->n, streams.hidden);
    return predict(stream, pred, x, integers, streams, v, v_norm, rows, altup, norm, eps);
}

extern "C" cudaError_t pl_cuda_altup_correct(cudaStream_t stream, pl_streams streams, float *y, float *gate_in,
                                             const float *ffn, pl_streams pred, const pl_rows *rows,
                                             const pl_altup *altup, const float *norm, float eps)
{
    return correct(stream, streams, y, gate_in, pl_act{}, ffn, pred, rows, altup, norm, eps);
}

extern "C" cudaError_t pl_cuda_fused_altup_correct(cudaStream_t stream, pl_streams streams, float *y, float *gate_in,
                                                   pl_act *act, const float *ffn, pl_streams pred, const pl_rows *rows,
                                                   const pl_altup *altup, const float *norm, float eps)
{
    pl_act integers = row::integers_of(act, gate_in, rows->n, streams.hidden);
    return correct(stream, streams, y, gate_in, integers, ffn, pred, rows, altup, norm, eps);
}

extern "C" cudaError_t pl_cuda_match_rms(cudaStream_t stream, float *u, const float *ref, int n, int64_t hidden)
{
    if (n == 0)
        return cudaSuccess;
    if (hidden > PL_CUDA_MAX_HIDDEN)
        return cudaErrorInvalidValue;
    auto match_rms = row::choose(hidden, row::is_wide(hidden, u, ref), match_kernel<row::fast_threads, true>,
                                 match_kernel<row::any_threads, false>);
    return KD_LAUNCH(match_rms.kernel, row::launch(stream, n, match_rms.threads), u, ref, static_cast<int>(hidden));
}
