/* A head of q, k or v in the registers of a warp: its norm and its rotation. Shared by all that make them, so that they
 * make the same bits: products that are added up are fused by hand, and nothing is left for the compiler to fuse. */
#ifndef PL_CUDA_QKV_HEAD_CUH
#define PL_CUDA_QKV_HEAD_CUH

#include "cuda/kernels.h"
#include "cuda/norm.cuh"

namespace qkv
{

constexpr int LANE_PAIRS = 128; /* of all lanes, four each */
constexpr int FAST_DIM = 2 * LANE_PAIRS;

/* Pairs (i, i + dim / 2) lie in one lane, so that nothing is exchanged but the sum of squares: lane l has pairs 4 l to
 * 4 l + 3, and those again LANE_PAIRS further on. */
template <int QUADS> struct head {
    float4 low[QUADS], high[QUADS];
};

static __device__ __forceinline__ float squares(float4 v)
{
    return fmaf(v.x, v.x, v.y * v.y) + fmaf(v.z, v.z, v.w * v.w);
}

static __device__ __forceinline__ float4 times(float4 x, float factor, float4 w)
{
    return make_float4(x.x * factor * w.x, x.y * factor * w.y, x.z * factor * w.z, x.w * factor * w.w);
}

/* a cos + b sin */
static __device__ __forceinline__ float4 turned(float4 a, float4 b, float4 co, float4 si)
{
    return make_float4(fmaf(b.x, si.x, a.x * co.x), fmaf(b.y, si.y, a.y * co.y), fmaf(b.z, si.z, a.z * co.z),
                       fmaf(b.w, si.w, a.w * co.w));
}

static __device__ __forceinline__ float4 negated(float4 v)
{
    return make_float4(-v.x, -v.y, -v.z, -v.w);
}

/* norm: NULL for weights of 1; cosine: of the pairs, followed by their sines, NULL for no rotation. All lanes of a warp
 * call it. */
template <int QUADS, bool WIDE>
static __device__ __forceinline__ head<QUADS> make_head(const float *x, const float *norm, const float *cosine, int dim,
                                                        float eps)
{
    const int lane = static_cast<int>(threadIdx.x) % 32, pairs = dim / 2;
    const float4 one = make_float4(1, 1, 1, 1), zero = make_float4(0, 0, 0, 0);
    float4 wa[QUADS], wb[QUADS], co[QUADS], si[QUADS];
    head<QUADS> h;
    float sum = 0;
#pragma unroll
    for (int i = 0; i < QUADS; i++) {
        int at = 4 * lane + i * LANE_PAIRS, left = pairs - at;
        h.low[i] = row::load4<WIDE>(x + at, left);
        h.high[i] = row::load4<WIDE>(x + pairs + at, left);
        wa[i] = norm ? row::load4<WIDE>(norm + at, left) : one;
        wb[i] = norm ? row::load4<WIDE>(norm + pairs + at, left) : one;
        co[i] = cosine ? row::load4<WIDE>(cosine + at, left) : one;
        si[i] = cosine ? row::load4<WIDE>(cosine + pairs + at, left) : zero;
        sum += squares(h.low[i]) + squares(h.high[i]);
    }
    float factor = row::inverse_rms(kd::warp_sum(sum), dim, eps);
#pragma unroll
    for (int i = 0; i < QUADS; i++) {
        float4 a = times(h.low[i], factor, wa[i]), b = times(h.high[i], factor, wb[i]);
        h.low[i] = turned(a, b, co[i], negated(si[i]));
        h.high[i] = turned(b, a, co[i], si[i]);
    }
    return h;
}

template <int QUADS, bool WIDE>
static __device__ __forceinline__ void store_head(float *to, const head<QUADS> &h, int dim)
{
    const int lane = static_cast<int>(threadIdx.x) % 32, pairs = dim / 2;
#pragma unroll
    for (int i = 0; i < QUADS; i++) {
        int at = 4 * lane + i * LANE_PAIRS, left = pairs - at;
        row::store4<WIDE>(to + at, left, h.low[i]);
        row::store4<WIDE>(to + pairs + at, left, h.high[i]);
    }
}

/* Where K and V of row r's own token lie. */
static __device__ __forceinline__ int64_t cache_at(const pl_kv_layer &kv, const pl_rows &rows, int64_t r, int kv_head,
                                                   int dim)
{
    int32_t position = rows.position[r];
    int64_t page = kv.table[rows.sequence[r] * kv.table_ld + position / PL_KV_PAGE];
    return page * kv.page_stride + (static_cast<int64_t>(kv_head) * PL_KV_PAGE + position % PL_KV_PAGE) * dim;
}

/* Whether a row's operands may be taken in WIDE pieces. */
static inline bool is_wide(pl_heads heads, const float *q, const float *k, const float *v, const pl_kv_layer &kv,
                           const float *q_norm, const float *k_norm, const float *rope)
{
    return row::is_wide(heads.dim / 2, q, k, v, q_norm, k_norm, rope) &&
           (!k || row::is_wide(kv.page_stride, kv.k, kv.v));
}

} // namespace qkv

#endif
