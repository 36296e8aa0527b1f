/* Attention for up to 16 rows, in one launch.
 *
 * The pages that a row sees, fixed positions of its sequence, are cut into splits of equal length, whose number follows
 * from the row's own position alone. A block for each row, set of heads and split leaves a part (maximum m, sum l of
 * e^(score - m), values weighted by the same). The block of a row and set that is done last adds up the parts, always in
 * the same order, so that it does not matter which one it is, and sets their count back to zero for the next launch.
 *   Moves 8 dim bytes a key and K/V head for each row (rows of one sequence share them in the second cache), and
 * twice 4 (dim + 2) a split and query head for the parts.
 *
 * Own tokens: every block norms and rotates q for itself, and that of the newest keys makes K and V of the row's token,
 * stores them and works on with its copy, so that of what a launch writes other blocks read the parts only. In place of
 * 16 dim bytes a query head and 32 a K/V head of qkv_store it moves 4 dim a query head and split, from the second cache
 * but once, and 16 a K/V head. */
#ifndef PL_CUDA_ATTENTION_FEW_CUH
#define PL_CUDA_ATTENTION_FEW_CUH

#include "cuda/attention.cuh"
#include "cuda/ptx.cuh"
#include "cuda/quantize_act.cuh"

namespace attention
{

/* Of a row. With two K/V heads they are 120 blocks for a single row, about what cards have multiprocessors (82 to 170);
 * and the parts of 16 rows with 8 heads of 256 take 8 MB. */
constexpr int MOST_SPLITS = 60;

constexpr int WARPS = 8;
constexpr int KEYS = PAGE / WARPS; /* of a warp */
constexpr int HALF_KEYS = KEYS / 2;
constexpr unsigned ALL_KEYS = (1u << KEYS) - 1;

static_assert(KEYS * HEADS == 32, "a lane for each score");
static_assert(HEADS + 2 <= WARPS, "a warp for each head that a block makes");

/* In: 2 HALF sums over as many lanes, in every lane its own terms. Out: in v[0], lane i of them has sum i. */
template <int HALF> static __device__ __forceinline__ void lane_sums(float *v, int lane)
{
    bool upper = lane & HALF;
#pragma unroll
    for (int i = 0; i < HALF; i++) {
        float give = upper ? v[i] : v[i + HALF], keep = upper ? v[i + HALF] : v[i];
        v[i] = keep + __shfl_xor_sync(0xffffffffu, give, HALF);
    }
    if constexpr (HALF > 1)
        lane_sums<HALF / 2>(v, lane);
}

/* A warp's keys in registers: unit r of a lane is unit 32 r + lane of the key. */
template <class E, int DIM> struct few_keys {
    static constexpr int VALUES = kv_unit<E>::VALUES;
    static constexpr int UNITS = (DIM / VALUES + 31) / 32;
    uint4 raw[KEYS][UNITS];

    /* keys: a bit for each one to load; the others become zeros. */
    __device__ __forceinline__ void load(const void *data, int64_t offset, int dim, unsigned keys, int lane)
    {
        const E *from = static_cast<const E *>(data) + offset + lane * VALUES;
#pragma unroll
        for (int t = 0; t < KEYS; t++)
#pragma unroll
            for (int r = 0; r < UNITS; r++)
                raw[t][r] = make_uint4(0, 0, 0, 0);
        if (keys == ALL_KEYS) {
#pragma unroll
            for (int t = 0; t < KEYS; t++)
                load_key(t, from, dim, lane);
            return;
        }
#pragma unroll
        for (int t = 0; t < KEYS; t++)
            if (keys >> t & 1)
                load_key(t, from, dim, lane);
    }

    __device__ __forceinline__ void load_key(int t, const E *from, int dim, int lane)
    {
#pragma unroll
        for (int r = 0; r < UNITS; r++)
            if ((r * 32 + lane) * VALUES < dim)
                raw[t][r] = ptx::ld_nc_v4(from + t * dim + r * 32 * VALUES);
    }
};

/* What the threads of a block leave for each other. */
template <class E, int DIM> struct few_shared {
    float4 values[WARPS][HEADS][DIM / 4]; /* of a lane, so far */
    float2 sums[WARPS + 1][HEADS];        /* of the warps, and of the row's own token */
    float weight[WARPS][KEYS * HEADS];
    float factor[WARPS][HEADS];   /* for the values before */
    float q[HEADS][DIM];          /* of heads beyond the set nothing: nobody reads what comes of it */
    float own_k[DIM], own_v[DIM]; /* of the row's own token */
    float part_factor[HEADS][MOST_SPLITS];
    float inverse[HEADS];
};

/* This lane's share of the scores of key first + t with head h, at t * HEADS + h. */
template <class E, int DIM>
__device__ __forceinline__ void few_products(float (&dot)[HALF_KEYS * HEADS], const few_keys<E, DIM> &k, int first,
                                             const few_shared<E, DIM> &sm, int dim, int lane)
{
    constexpr int VALUES = few_keys<E, DIM>::VALUES;
#pragma unroll
    for (int r = 0; r < few_keys<E, DIM>::UNITS; r++) {
        int at = (r * 32 + lane) * VALUES;
#pragma unroll
        for (int h = 0; h < HEADS; h++) {
            float query[VALUES] = {};
            if (at < dim)
#pragma unroll
                for (int i = 0; i < VALUES; i += 4)
                    unpack(query + i, *reinterpret_cast<const float4 *>(&sm.q[h][at + i]));
#pragma unroll
            for (int t = 0; t < HALF_KEYS; t++) {
                float x[VALUES];
                kv_unit<E>::unpack(x, k.raw[first + t][r]);
#pragma unroll
                for (int i = 0; i < VALUES; i++)
                    dot[t * HEADS + h] += query[i] * x[i];
            }
        }
    }
}

/* The score of key t with head h in lane t * HEADS + h; keys in halves, for the sake of registers. */
template <class E, int DIM>
__device__ __forceinline__ float few_scores(const few_keys<E, DIM> &k, const few_shared<E, DIM> &sm, int dim, int lane)
{
    float low[HALF_KEYS * HEADS] = {}, high[HALF_KEYS * HEADS] = {};
    few_products(low, k, 0, sm, dim, lane);
    lane_sums<8>(low, lane);
    few_products(high, k, HALF_KEYS, sm, dim, lane);
    lane_sums<8>(high, lane);
    bool upper = lane & 16;
    return (upper ? high[0] : low[0]) + __shfl_xor_sync(0xffffffffu, upper ? low[0] : high[0], 16);
}

template <class E, int DIM>
__device__ __forceinline__ void few_values(few_shared<E, DIM> &sm, const few_keys<E, DIM> &v, int warp, int lane)
{
    constexpr int VALUES = few_keys<E, DIM>::VALUES;
#pragma unroll
    for (int r = 0; r < few_keys<E, DIM>::UNITS; r++) {
        int at = (r * 32 + lane) * VALUES;
        if (at >= DIM)
            break;
        float sum[HEADS][VALUES];
#pragma unroll
        for (int h = 0; h < HEADS; h++)
#pragma unroll
            for (int i = 0; i < VALUES; i += 4)
                unpack(sum[h] + i, scaled(sm.values[warp][h][(at + i) / 4], sm.factor[warp][h]));
#pragma unroll
        for (int t = 0; t < KEYS; t++) {
            float4 w = *reinterpret_cast<const float4 *>(&sm.weight[warp][t * HEADS]);
            float x[VALUES];
            kv_unit<E>::unpack(x, v.raw[t][r]);
#pragma unroll
            for (int i = 0; i < VALUES; i++) {
                sum[0][i] += w.x * x[i];
                sum[1][i] += w.y * x[i];
                sum[2][i] += w.z * x[i];
                sum[3][i] += w.w * x[i];
            }
        }
#pragma unroll
        for (int h = 0; h < HEADS; h++)
#pragma unroll
            for (int i = 0; i < VALUES; i += 4)
                sm.values[warp][h][(at + i) / 4] = make_float4(sum[h][i], sum[h][i + 1], sum[h][i + 2], sum[h][i + 3]);
    }
}

/* ---- a split ------------------------------------------------------------------------------------- */

/* The pages of a row, cut. */
struct split_plan {
    int n;            /* splits */
    int first, pages; /* of the split at hand */
};

static __device__ __forceinline__ split_plan plan_split(key_range seen, int split)
{
    int begin = seen.from / PAGE, pages = (seen.to - 1) / PAGE + 1 - begin;
    int length = (pages + MOST_SPLITS - 1) / MOST_SPLITS;
    return {(pages + length - 1) / length, begin + split * length, min(length, pages - split * length)};
}

/* Of keys 0 to KEYS - 1, a bit for each in the range. */
static __device__ __forceinline__ unsigned key_bits(key_range keys)
{
    int from = max(min(keys.from, KEYS), 0), to = max(min(keys.to, KEYS), 0);
    return ((1u << to) - 1) & ~((1u << from) - 1);
}

/* A warp's softmax so far; lane t * HEADS + h holds that of head h. */
struct few_softmax {
    float m = -INFINITY, l = 0;
};

/* Scores of a page become weights, and the factor is for what was summed before. */
template <class E, int DIM>
__device__ __forceinline__ void few_soften(few_shared<E, DIM> &sm, few_softmax &sum, float score, bool sees, int warp,
                                           int lane)
{
    float top = sees ? score : -INFINITY;
#pragma unroll
    for (int o = HEADS; o < 32; o *= 2)
        top = fmaxf(top, __shfl_xor_sync(0xffffffffu, top, o));
    top = fmaxf(top, sum.m);
    float weight = sees ? expf(score - top) : 0, l = weight, factor = sum.l == 0 ? 0 : expf(sum.m - top);
#pragma unroll
    for (int o = HEADS; o < 32; o *= 2)
        l += __shfl_xor_sync(0xffffffffu, l, o);
    sum.l = sum.l * factor + l;
    sum.m = top;
    __syncwarp();
    sm.weight[warp][lane] = weight;
    if (lane < HEADS)
        sm.factor[warp][lane] = factor;
    __syncwarp();
}

/* q, from where it lies. */
template <class E, int DIM>
__device__ __forceinline__ void copy_q(const attention_args &a, few_shared<E, DIM> &sm, head_set set, int row)
{
    int dim = a.heads.dim;
    const float *q = a.q + (static_cast<int64_t>(row) * a.heads.heads + set.first) * dim;
    for (int i = threadIdx.x; i < set.n * (dim / 4); i += WARPS * 32) {
        int h = i / (dim / 4), at = i % (dim / 4) * 4;
        *reinterpret_cast<float4 *>(&sm.q[h][at]) = *reinterpret_cast<const float4 *>(q + h * dim + at);
    }
}

/* K and V of the row's own token, from the cache. */
template <class E, int DIM>
__device__ __forceinline__ void copy_own(const attention_args &a, few_shared<E, DIM> &sm, head_set set, int row)
{
    int64_t from = qkv::cache_at(a.kv, a.rows, row, set.kv_head, a.heads.dim);
    int at = threadIdx.x * 4;
    if (at >= a.heads.dim)
        return;
    *reinterpret_cast<float4 *>(&sm.own_k[at]) = *reinterpret_cast<const float4 *>(a.kv.k + from + at);
    *reinterpret_cast<float4 *>(&sm.own_v[at]) = *reinterpret_cast<const float4 *>(a.kv.v + from + at);
}

/* q and, with own, K and V of the row's token. A warp makes one head; those that have nothing to make take a head of q
 * once more, since all lanes of all warps have to come. */
template <class E, int DIM>
__device__ __forceinline__ void make_operands(const attention_args &a, few_shared<E, DIM> &sm, head_set set, int row,
                                              bool own)
{
    int warp = threadIdx.x / 32, dim = a.heads.dim;
    bool is_k = own && warp == HEADS, is_v = own && warp == HEADS + 1;
    const float *cosine = a.own.rope + static_cast<int64_t>(a.rows.slot[row]) * dim;
    const float *x = a.q + (static_cast<int64_t>(row) * a.heads.heads + set.first + (warp < set.n ? warp : 0)) * dim;
    if (is_k || is_v)
        x = (is_k ? a.own.k : a.own.v) + (static_cast<int64_t>(row) * a.heads.kv_heads + set.kv_head) * dim;
    const float *norm = is_k ? a.own.k_norm : is_v ? nullptr : a.own.q_norm;
    qkv::head<1> made = qkv::make_head<1, true>(x, norm, is_v ? nullptr : cosine, dim, a.own.eps);
    if (warp < set.n)
        qkv::store_head<1, true>(sm.q[warp], made, dim);
    if (!is_k && !is_v)
        return;
    qkv::store_head<1, true>(is_k ? sm.own_k : sm.own_v, made, dim);
    if (set.is_first)
        qkv::store_head<1, true>((is_k ? a.kv.k : a.kv.v) + qkv::cache_at(a.kv, a.rows, row, set.kv_head, dim), made,
                                 dim);
}

/* Whatever of a block's operands does not come page by page, and room for its values. newest: with the row's token. */
template <class E, int DIM>
__device__ __forceinline__ void few_operands(const attention_args &a, few_shared<E, DIM> &sm, head_set set, int row,
                                             bool newest)
{
    for (int i = threadIdx.x; i < WARPS * HEADS * DIM / 4; i += WARPS * 32)
        (&sm.values[0][0][0])[i] = make_float4(0, 0, 0, 0);
    if (a.own.rope)
        make_operands(a, sm, set, row, newest && a.own.k);
    else
        copy_q(a, sm, set, row);
    if (newest && !a.own.k)
        copy_own(a, sm, set, row);
}

/* The row's own token is a part by itself: its score, in the place of a warp's sums; the weight is 1. */
template <class E, int DIM> __device__ __forceinline__ void score_own(few_shared<E, DIM> &sm, int dim, bool newest)
{
    int head = threadIdx.x / 32 % HEADS, lane = threadIdx.x % 32;
    float score = 0;
#pragma unroll
    for (int at = lane * 4; at < DIM; at += 128)
        if (at < dim) {
            float4 q = *reinterpret_cast<const float4 *>(&sm.q[head][at]);
            float4 k = *reinterpret_cast<const float4 *>(&sm.own_k[at]);
            score += (q.x * k.x + q.y * k.y) + (q.z * k.z + q.w * k.w);
        }
    score = kd::warp_sum(score);
    if (threadIdx.x < HEADS * 32 && lane == 0)
        sm.sums[WARPS][head] = newest ? make_float2(score, 1) : make_float2(-INFINITY, 0);
}

/* This warp's keys of each page of the split. */
template <class E, int DIM>
__device__ __forceinline__ few_softmax few_pages(const attention_args &a, few_shared<E, DIM> &sm, int kv_head,
                                                 const split_plan &plan, key_range seen, int row)
{
    int warp = threadIdx.x / 32, lane = threadIdx.x % 32, dim = a.heads.dim;
    int in_page = (kv_head * PAGE + warp * KEYS) * dim, begin = plan.first * PAGE + warp * KEYS;
    const int32_t *table = a.kv.table + a.rows.sequence[row] * a.kv.table_ld + plan.first;
    seen = {seen.from - begin, seen.to - begin};
    few_softmax sum;
#pragma unroll 1
    for (int left = plan.pages; left > 0; left--) {
        few_keys<E, DIM> k, v;
        int64_t at = *table++ * a.kv.page_stride + in_page;
        unsigned keys = key_bits(seen);
        k.load(a.kv.k, at, dim, keys, lane);
        float score = few_scores(k, sm, dim, lane);
        v.load(a.kv.v, at, dim, keys, lane);
        few_soften(sm, sum, score, keys >> lane / HEADS & 1, warp, lane);
        few_values(sm, v, warp, lane);
        seen = {seen.from - PAGE, seen.to - PAGE};
    }
    return sum;
}

/* The warps' results become the part of the split, with the largest m of all. */
template <class E, int DIM>
__device__ __forceinline__ void few_part(const attention_args &a, const few_shared<E, DIM> &sm, head_set set, int row,
                                         int split, bool newest)
{
    for (int i = threadIdx.x; i < set.n * (DIM / 4); i += WARPS * 32) {
        int h = i / (DIM / 4), unit = i % (DIM / 4);
        float m = -INFINITY, l = 0;
        float4 value = make_float4(0, 0, 0, 0);
#pragma unroll
        for (int w = 0; w <= WARPS; w++)
            m = fmaxf(m, sm.sums[w][h].x);
#pragma unroll
        for (int w = 0; w < WARPS; w++) {
            float f = expf(sm.sums[w][h].x - m);
            l += f * sm.sums[w][h].y;
            value = scaled_add(sm.values[w][h][unit], f, value);
        }
        if (newest) {
            float f = expf(sm.sums[WARPS][h].x - m);
            l += f;
            value = scaled_add(*reinterpret_cast<const float4 *>(&sm.own_v[unit * 4]), f, value);
        }
        int64_t part = (static_cast<int64_t>(row) * a.heads.heads + set.first + h) * a.segments + split;
        if (unit * 4 < a.heads.dim)
            *reinterpret_cast<float4 *>(a.part + part * a.heads.dim + unit * 4) = value;
        if (unit == 0)
            a.sums[part] = make_float2(m, l);
    }
}

/* ---- merging ----------------------------------------------------------------------------------------------- */

/* What the parts of the warp's head count for, and 1 / the sum of all weights. */
template <class E, int DIM>
__device__ __forceinline__ void merge_factors(few_shared<E, DIM> &sm, const float2 *sums, int n, int head, int lane)
{
    constexpr int TURNS = (MOST_SPLITS + 31) / 32;
    float2 sum[TURNS];
    float top = -INFINITY, l = 0;
#pragma unroll
    for (int i = 0; i < TURNS; i++) {
        sum[i] = i * 32 + lane < n ? sums[i * 32 + lane] : make_float2(-INFINITY, 0);
        top = fmaxf(top, sum[i].x);
    }
    top = kd::warp_max(top);
#pragma unroll
    for (int i = 0; i < TURNS; i++)
        if (i * 32 + lane < n) {
            float f = expf(sum[i].x - top);
            sm.part_factor[head][i * 32 + lane] = f;
            l += f * sum[i].y;
        }
    l = kd::warp_sum(l);
    if (lane == 0)
        sm.inverse[head] = 1 / l;
}

/* All parts of a row and set are there; splits in order. */
template <class E, int DIM>
__device__ __forceinline__ void few_merge(const attention_args &a, few_shared<E, DIM> &sm, head_set set, int row, int n)
{
    int warp = threadIdx.x / 32, dim = a.heads.dim;
    int64_t first_head = static_cast<int64_t>(row) * a.heads.heads + set.first;
    if (warp < set.n)
        merge_factors(sm, a.sums + (first_head + warp) * a.segments, n, warp, threadIdx.x % 32);
    __syncthreads();
    for (int i = threadIdx.x; i < HEADS * (DIM / 4); i += WARPS * 32) {
        int h = i / (DIM / 4), at = i % (DIM / 4) * 4;
        bool exists = h < set.n && at < dim;
        float x[4] = {};
        if (exists) {
            const float *part = a.part + (first_head + h) * a.segments * dim + at;
            float4 value = make_float4(0, 0, 0, 0);
#pragma unroll 8
            for (int s = 0; s < n; s++)
                value = scaled_add(*reinterpret_cast<const float4 *>(part + static_cast<int64_t>(s) * dim),
                                   sm.part_factor[h][s], value);
            value = scaled(value, sm.inverse[h]);
            *reinterpret_cast<float4 *>(a.out + (first_head + h) * dim + at) = value;
            unpack(x, value);
        }
        if (a.act.hi_lo)
            quantize::store_block(a.act, a.rows.n, row, ((set.first + h) * dim + at) / PL_ACT_BLOCK, exists, x);
    }
}

/* grid: rows, sets of all K/V heads, splits. Rows are neighbours in time: those of one sequence read the same pages. */
template <class E, int DIM, bool PADDED>
__global__ void __launch_bounds__(WARPS * 32, PADDED ? 1 : 2) attention_few(attention_args a)
{
    if (!PADDED)
        a.heads.dim = DIM;
    using shared = few_shared<E, DIM>;
    KD_SHARED(shared, in_shared, [1]);
    shared &sm = in_shared[0];
    int row = blockIdx.x, split = blockIdx.z, warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    key_range seen = visible(a, row);
    split_plan plan = plan_split(seen, split);
    if (split >= plan.n)
        return;
    head_set set = set_at(a.heads, blockIdx.y);
    bool newest = split == plan.n - 1;
    few_operands(a, sm, set, row, newest);
    __syncthreads();
    score_own(sm, a.heads.dim, newest);
    if (newest)
        seen.to--;
    few_softmax sum = few_pages(a, sm, set.kv_head, plan, seen, row);
    if (lane < HEADS)
        sm.sums[warp][lane] = make_float2(sum.m, sum.l);
    __syncthreads();
    few_part(a, sm, set, row, split, newest);
    __syncthreads();
    unsigned *done = a.done + row * gridDim.y + blockIdx.y, before = static_cast<unsigned>(plan.n - 1);
    if (!__syncthreads_or(threadIdx.x == 0 && ptx::atom_add_acq_rel(done, 1) == before))
        return;
    if (threadIdx.x == 0)
        *done = 0;
    few_merge(a, sm, set, row, plan.n);
}

} // namespace attention

#endif
