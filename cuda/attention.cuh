/* What the kernels of attention have in common: see attention.cu. */
#ifndef PL_CUDA_ATTENTION_CUH
#define PL_CUDA_ATTENTION_CUH

#include "cuda/kernels.h"
#include "cuda/qkv_head.cuh"

namespace attention
{

constexpr int PAGE = PL_KV_PAGE;
constexpr int HEADS = 4; /* query heads that go through the keys together: a set */

/* What q and the K/V of the rows' own tokens are made of, where that is not done yet: see qkv_store. */
struct own_tokens {
    const float *k, *v; /* NULL: the layer has none, q only */
    const float *q_norm, *k_norm, *rope;
    float eps;
};

struct attention_args {
    float *out;
    pl_act act; /* out as integers; no hi_lo: not wanted */
    const float *q;
    own_tokens own; /* no rope: all is made */
    pl_kv_layer kv;
    pl_rows rows;
    pl_heads heads;
    int window;
    int segments;   /* parts of a row, at most */
    unsigned *done; /* [rows][sets] blocks of a row and set; zero between launches */
    float *part;    /* [rows][heads][segments][dim] */
    float2 *sums;   /* [rows][heads][segments] of m, l */
};

/* How K/V are stored: in units of 16 bytes. */
template <class E> struct kv_unit;
template <> struct kv_unit<float> {
    static constexpr int VALUES = 4;
    static __device__ __forceinline__ void unpack(float (&x)[VALUES], uint4 raw)
    {
        x[0] = __uint_as_float(raw.x);
        x[1] = __uint_as_float(raw.y);
        x[2] = __uint_as_float(raw.z);
        x[3] = __uint_as_float(raw.w);
    }
};

struct key_range {
    int from, to; /* [from, to) */
};

static __device__ __forceinline__ key_range visible(const attention_args &a, int row)
{
    int to = a.rows.position[row] + 1;
    return {a.window > 0 && to > a.window ? to - a.window : 0, to};
}

/* The query heads of a set: those from `first` on that belong to the K/V head. */
struct head_set {
    int kv_head, first, n;
    bool is_first; /* of the K/V head */
};

static __host__ __device__ __forceinline__ int sets_of(pl_heads heads)
{
    return (heads.heads / heads.kv_heads + HEADS - 1) / HEADS;
}

static __device__ __forceinline__ head_set set_at(pl_heads heads, int index)
{
    int group = heads.heads / heads.kv_heads, sets = sets_of(heads), kv_head = index / sets, set = index % sets;
    return {kv_head, kv_head * group + set * HEADS, min(HEADS, group - set * HEADS), set == 0};
}

/* Where a page's keys of one head begin. */
static __device__ __forceinline__ int64_t page_offset(const attention_args &a, int page, int kv_head)
{
    return page * a.kv.page_stride + static_cast<int64_t>(kv_head) * PAGE * a.heads.dim;
}

static __device__ __forceinline__ void unpack(float *x, float4 v)
{
    x[0] = v.x;
    x[1] = v.y;
    x[2] = v.z;
    x[3] = v.w;
}

static __device__ __forceinline__ float4 scaled(float4 v, float f)
{
    return make_float4(v.x * f, v.y * f, v.z * f, v.w * f);
}

/* a * f + b */
static __device__ __forceinline__ float4 scaled_add(float4 a, float f, float4 b)
{
    return make_float4(a.x * f + b.x, a.y * f + b.y, a.z * f + b.z, a.w * f + b.w);
}

} // namespace attention

#endif
