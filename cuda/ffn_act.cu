/* The FFN's activation: Gaussian top-k in the sparse layers, then gelu(gate) * up.
 *
 * Dense: four values a thread. Sparse: one block a row with the row's gates in registers, as the cutoff needs two sums
 * over all of them, one after the other, before the first is written in their place. One gate in twenty is above the
 * cutoff, so that nearly every 32 have one: a warp first lists its own, then works on the list, 32 at a time.
 * Bytes a row of F columns: dense 12 F, sparse 8 F and the sectors of `up` where a gate is above the cutoff. */
#include "cuda/ffn_gates.cuh"
#include "cuda/gelu.cuh"

namespace
{

constexpr int dense_threads = 256;

/* With WIDE a quad that the row's end cuts may be read whole: the row has room for a multiple of four. */
template <bool WIDE>
__global__ void __launch_bounds__(dense_threads)
    dense_kernel(float *gate, const float *up, int64_t ld, const int32_t *width)
{
    const int i = 4 * static_cast<int>(blockIdx.y * dense_threads + threadIdx.x);
    const int left = width[blockIdx.x] - i;
    if (left <= 0)
        return;
    gate += blockIdx.x * ld + i;
    up += blockIdx.x * ld + i;
    float4 v = gelu_times(row::load4<WIDE>(gate, left), row::load4<WIDE>(up, left));
    if (left >= 4)
        row::store4<WIDE>(gate, 4, v);
    else
        row::store4<false>(gate, left, v);
}

template <bool WIDE> __device__ __forceinline__ void store_zeros(float *gate, int left, unsigned except)
{
    if (WIDE && left >= 4 && except == 0) {
        row::store4<true>(gate, 4, make_float4(0, 0, 0, 0));
        return;
    }
#pragma unroll
    for (int i = 0; i < 4; i++)
        if (i < left && !(except >> i & 1))
            gate[i] = 0;
}

template <bool WIDE>
__global__ void __launch_bounds__(gates::THREADS, 1)
    sparse_kernel(float *gate, const float *up, int64_t ld, const int32_t *width, float z)
{
    KD_SHARED(float, parts, [2][row::part_ld]);
    KD_SHARED(uint16_t, lists, [gates::THREADS / 32][32 * 4 * gates::QUADS]);
    const int n = width[blockIdx.x], lane = threadIdx.x % 32;
    gate += blockIdx.x * ld;
    up += blockIdx.x * ld;
    gates::values g = gates::load<WIDE>(gate, n);
    float cut = gates::cutoff(g, n, z, parts);

    uint16_t *list = lists[threadIdx.x / 32];
    int count = 0;
#pragma unroll
    for (int q = 0; q < gates::QUADS; q++) {
        const int at = gates::block::column(q);
        unsigned mine = gates::above(g.v + 4 * q, n - at, cut);
        store_zeros<WIDE>(gate + at, n - at, mine);
#pragma unroll
        for (int i = 0; i < 4; i++) {
            unsigned votes = __ballot_sync(0xffffffffu, mine >> i & 1);
            if (mine >> i & 1)
                list[count + __popc(votes & ((1u << lane) - 1))] = static_cast<uint16_t>(at + i);
            count += __popc(votes);
        }
    }
    __syncwarp();
    for (int i = lane; i < count; i += 32) {
        const int at = list[i];
        gate[at] = gelu(gate[at] - cut) * up[at];
    }
}

cudaError_t launch_dense(cudaStream_t stream, float *gate, const float *up, int64_t ld, int n, const int32_t *width)
{
    auto ffn_act = row::is_wide(ld, gate, up) ? dense_kernel<true> : dense_kernel<false>;
    const int64_t columns = 4 * dense_threads;
    dim3 blocks(static_cast<unsigned>(n), static_cast<unsigned>((ld + columns - 1) / columns));
    return KD_LAUNCH(ffn_act, (kd::launch_cfg{blocks, dim3(dense_threads), 0, stream, false}), gate, up, ld, width);
}

cudaError_t launch_sparse(cudaStream_t stream, float *gate, const float *up, int64_t ld, int n, const int32_t *width,
                          float z)
{
    if (ld > PL_CUDA_MAX_SPARSE_WIDTH)
        return cudaErrorInvalidValue;
    auto ffn_act = row::is_wide(ld, gate, up) ? sparse_kernel<true> : sparse_kernel<false>;
    return KD_LAUNCH(ffn_act, row::launch(stream, n, gates::THREADS), gate, up, ld, width, z);
}

} // namespace

extern "C" cudaError_t pl_cuda_ffn_act(cudaStream_t stream, float *gate, const float *up, int64_t ld, int n,
                                       const int32_t *width, float z)
{
    if (n == 0)
        return cudaSuccess;
    if (isinf(z) && z < 0)
        return launch_dense(stream, gate, up, ld, n, width);
    return launch_sparse(stream, gate, up, ld, n, width, z);
}
