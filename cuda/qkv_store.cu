/* From projections to attention's operands: norms per head, rotation, and the store of K and V.
 *
 * qkv_store: one warp for a head of a row. Bytes a row: 8 Q + 16 K + 16 V (V = K columns), with the tables some more from L2.
 * rope_table: one thread an angle. */
#include "cuda/kernels.h"
#include "cuda/qkv_head.cuh"

namespace
{

/* Both within 2^-36 of their value for angles up to 2^31, and then rounded: what is left of the angle after whole quarters
 * of a turn is exact to the last bit of a double, and the series, to r^11 and r^12 with |r| <= pi/4, leave out less than
 * 1e-11. The library's functions would bring a stack for the sake of angles beyond. */
__device__ __forceinline__ void cos_sin(double angle, float *cosine, float *sine)
{
    double quarters = rint(angle * 0.63661977236758138);
    double r = fma(-quarters, 1.5707963267948966, angle);
    r = fma(-quarters, 6.123233995736766e-17, r);
    double z = r * r;
    double s = fma(z, -1.0 / 39916800, 1.0 / 362880);
    s = fma(z, s, -1.0 / 5040);
    s = fma(z, s, 1.0 / 120);
    s = fma(z, s, -1.0 / 6);
    s = fma(z * r, s, r);
    double c = fma(z, 1.0 / 479001600, -1.0 / 3628800);
    c = fma(z, c, 1.0 / 40320);
    c = fma(z, c, -1.0 / 720);
    c = fma(z, c, 1.0 / 24);
    c = fma(z, c, -0.5);
    c = fma(z, c, 1.0);
    double turn = quarters - 4 * floor(quarters * 0.25);
    bool swap = turn == 1 || turn == 3;
    float co = static_cast<float>(swap ? s : c), si = static_cast<float>(swap ? c : s);
    *cosine = turn == 1 || turn == 2 ? -co : co;
    *sine = turn >= 2 ? -si : si;
}

constexpr int rope_threads = 32;

__global__ void __launch_bounds__(rope_threads)
    rope_kernel(float *out, const int32_t *position, const float *inv_freq, int pairs)
{
    const int i = static_cast<int>(blockIdx.y * rope_threads + threadIdx.x);
    if (i >= pairs)
        return;
    out += static_cast<int64_t>(blockIdx.x) * 2 * pairs + i;
    float angle = static_cast<float>(position[blockIdx.x]) * inv_freq[i];
    cos_sin(angle, out, out + pairs);
}

constexpr int store_warps = 4;
constexpr int any_quads = 2;
static_assert(any_quads * qkv::FAST_DIM == PL_CUDA_MAX_HEAD_DIM, "a head fits the warp");

/* What one warp works on. */
struct head {
    float *x;
    const float *norm; /* NULL: 1 */
    float *cache;      /* NULL: not for the cache */
    bool rotated;
};

/* The heads of q, then those of k, then those of v. */
__device__ __forceinline__ head head_of(int index, int64_t r, float *q, float *k, float *v, const pl_kv_layer &kv,
                                        const pl_rows &rows, const pl_heads &heads, const float *q_norm,
                                        const float *k_norm)
{
    if (index < heads.heads)
        return {q + (r * heads.heads + index) * heads.dim, q_norm, nullptr, true};
    int kv_head = index - heads.heads;
    bool is_k = kv_head < heads.kv_heads;
    if (!is_k)
        kv_head -= heads.kv_heads;
    int64_t at = (r * heads.kv_heads + kv_head) * heads.dim, to = qkv::cache_at(kv, rows, r, kv_head, heads.dim);
    return is_k ? head{k + at, k_norm, kv.k + to, true} : head{v + at, nullptr, kv.v + to, false};
}

template <int QUADS, bool WIDE>
__global__ void __launch_bounds__(32 * store_warps)
    store_kernel(float *q, float *k, float *v, pl_kv_layer kv, pl_rows rows, pl_heads heads, const float *q_norm,
                 const float *k_norm, const float *rope, float eps)
{
    const int index = static_cast<int>(blockIdx.y * store_warps + threadIdx.x / 32);
    if (index >= heads.heads + (k ? 2 * heads.kv_heads : 0))
        return;
    const int64_t r = blockIdx.x;
    const head h = head_of(index, r, q, k, v, kv, rows, heads, q_norm, k_norm);
    const float *cosine = h.rotated ? rope + static_cast<int64_t>(rows.slot[r]) * heads.dim : nullptr;
    const qkv::head<QUADS> made = qkv::make_head<QUADS, WIDE>(h.x, h.norm, cosine, heads.dim, eps);
    qkv::store_head<QUADS, WIDE>(h.x, made, heads.dim);
    if (h.cache)
        qkv::store_head<QUADS, WIDE>(h.cache, made, heads.dim);
}

unsigned pieces(int n, int piece)
{
    return static_cast<unsigned>((n + piece - 1) / piece);
}

} // namespace

extern "C" cudaError_t pl_cuda_rope_table(cudaStream_t stream, float *out, const int32_t *position, int n,
                                          const float *inv_freq, int pairs)
{
    if (n == 0)
        return cudaSuccess;
    dim3 blocks(static_cast<unsigned>(n), pieces(pairs, rope_threads));
    return KD_LAUNCH(rope_kernel, (kd::launch_cfg{blocks, dim3(rope_threads), 0, stream, false}), out, position,
                     inv_freq, pairs);
}

extern "C" cudaError_t pl_cuda_qkv_store(cudaStream_t stream, float *q, float *k, float *v, const pl_kv_layer *kv,
                                         const pl_rows *rows, pl_heads heads, const float *q_norm, const float *k_norm,
                                         const float *rope, float eps)
{
    if (rows->n == 0)
        return cudaSuccess;
    if (heads.dim > PL_CUDA_MAX_HEAD_DIM)
        return cudaErrorInvalidValue;
    bool wide = qkv::is_wide(heads, q, k, v, *kv, q_norm, k_norm, rope);
    auto qkv_store = wide && heads.dim <= qkv::FAST_DIM ? store_kernel<1, true> : store_kernel<any_quads, false>;
    dim3 blocks(static_cast<unsigned>(rows->n), pieces(heads.heads + (k ? 2 * heads.kv_heads : 0), store_warps));
    return KD_LAUNCH(qkv_store, (kd::launch_cfg{blocks, dim3(32 * store_warps), 0, stream, false}), q, k, v, *kv, *rows,
                     heads, q_norm, k_norm, rope, eps);
}
