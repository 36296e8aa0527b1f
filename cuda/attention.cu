/* Attention over paged K/V; query heads of one K/V head go through its keys four at a time.
 *
 * Up to 16 rows: a block for each row, K/V head and page, whose result is a part (maximum m, sum l of e^(score - m),
 * values weighted by the same); a second kernel merges a row's parts, always in the same order. Pages are fixed
 * positions of the sequence.
 *   Moves 8 dim bytes a key and K/V head for each row (rows of one sequence share them in the second cache), and
 *   twice 4 (dim + 2) a page and query head for the parts.
 *
 * More rows: attention_many.cuh.
 *
 * A key that a row does not see never enters its sums, not even with weight 0: it may be NaN. */
#include "cuda/attention.cuh"
#include "cuda/attention_many.cuh"
#include "cuda/ptx.cuh"

using namespace attention;

namespace
{

/* ---- few rows: parts ------------------------------------------------------------------------------------- */

constexpr int WARPS = 8;
constexpr int KEYS = PAGE / WARPS; /* of a warp */

static_assert(KEYS * HEADS == 32, "a lane for each score");

/* In: 2 HALF sums over lanes, in every lane its own terms. Out: in v[0], lane i has sum i. */
template <int HALF> __device__ __forceinline__ void lane_sums(float *v, int lane)
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

    __device__ __forceinline__ void load(const void *data, int64_t offset, int dim, key_range keys, int lane)
    {
        const E *from = static_cast<const E *>(data) + offset + lane * VALUES;
#pragma unroll
        for (int r = 0; r < UNITS; r++)
#pragma unroll
            for (int t = 0; t < KEYS; t++) {
                bool take = t >= keys.from && t < keys.to && (r * 32 + lane) * VALUES < dim;
                raw[t][r] = take ? ptx::ld_nc_v4(from + t * dim + r * 32 * VALUES) : make_uint4(0, 0, 0, 0);
            }
    }
};

/* What the threads of a block leave for each other. */
template <int DIM> struct few_shared {
    float4 values[WARPS][HEADS][DIM / 4];
    float2 sums[WARPS][HEADS];
    float weight[WARPS][KEYS * HEADS];
};

/* This lane's share of the scores of key t with head h, at t * HEADS + h. */
template <class E, int DIM>
__device__ __forceinline__ void few_products(float (&dot)[32], const few_keys<E, DIM> &k, const float *q, int dim,
                                             int n_heads, int lane)
{
    constexpr int VALUES = few_keys<E, DIM>::VALUES;
#pragma unroll
    for (int r = 0; r < few_keys<E, DIM>::UNITS; r++) {
        int at = (r * 32 + lane) * VALUES;
#pragma unroll
        for (int h = 0; h < HEADS; h++) {
            float query[VALUES] = {};
            if (h < n_heads && at < dim)
#pragma unroll
                for (int i = 0; i < VALUES; i += 4)
                    unpack(query + i, *reinterpret_cast<const float4 *>(q + h * dim + at + i));
#pragma unroll
            for (int t = 0; t < KEYS; t++) {
                float x[VALUES];
                kv_unit<E>::unpack(x, k.raw[t][r]);
#pragma unroll
                for (int i = 0; i < VALUES; i++)
                    dot[t * HEADS + h] += query[i] * x[i];
            }
        }
    }
}

template <class E, int DIM>
__device__ __forceinline__ void few_values(few_shared<DIM> &sm, const few_keys<E, DIM> &v, int warp, int lane)
{
    constexpr int VALUES = few_keys<E, DIM>::VALUES;
#pragma unroll
    for (int r = 0; r < few_keys<E, DIM>::UNITS; r++) {
        float sum[HEADS][VALUES] = {};
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
        int at = (r * 32 + lane) * VALUES;
        if (at < DIM)
#pragma unroll
            for (int h = 0; h < HEADS; h++)
#pragma unroll
                for (int i = 0; i < VALUES; i += 4)
                    sm.values[warp][h][(at + i) / 4] = make_float4(sum[h][i], sum[h][i + 1], sum[h][i + 2],
                                                                   sum[h][i + 3]);
    }
}

/* The warps' results become the part of the page, with the largest m of all. */
template <int DIM>
__device__ __forceinline__ void few_part(const attention_args &a, const few_shared<DIM> &sm, head_set set, int row,
                                         int segment)
{
    for (int i = threadIdx.x; i < set.n * (DIM / 4); i += WARPS * 32) {
        int h = i / (DIM / 4), unit = i % (DIM / 4);
        float m = -INFINITY, l = 0;
        float4 value = make_float4(0, 0, 0, 0);
#pragma unroll
        for (int w = 0; w < WARPS; w++)
            m = fmaxf(m, sm.sums[w][h].x);
#pragma unroll
        for (int w = 0; w < WARPS; w++) {
            float f = expf(sm.sums[w][h].x - m);
            l += f * sm.sums[w][h].y;
            value = scaled_add(sm.values[w][h][unit], f, value);
        }
        int64_t part = (static_cast<int64_t>(row) * a.heads.heads + set.first + h) * a.segments + segment;
        if (unit * 4 < a.heads.dim)
            *reinterpret_cast<float4 *>(a.part + part * a.heads.dim + unit * 4) = value;
        if (unit == 0)
            a.sums[part] = make_float2(m, l);
    }
}

/* grid: rows, sets of all K/V heads, pages counted from the first that the row sees. Rows are neighbours in time: those
 * of one sequence read the same pages. */
template <class E, int DIM, bool PADDED>
__global__ void __launch_bounds__(WARPS * 32, PADDED ? 1 : 2) attention_few(attention_args a)
{
    if (!PADDED)
        a.heads.dim = DIM;
    KD_SHARED(few_shared<DIM>, shared, [1]);
    few_shared<DIM> &sm = shared[0];
    int row = blockIdx.x, segment = blockIdx.z, warp = threadIdx.x / 32, lane = threadIdx.x % 32, dim = a.heads.dim;
    key_range seen = visible(a, row);
    int page = seen.from / PAGE + segment, first = page * PAGE + warp * KEYS;
    if (page * PAGE >= seen.to)
        return;

    head_set set = set_at(a.heads, blockIdx.y);
    int64_t at = page_offset(a, a.kv.table[a.rows.sequence[row] * a.kv.table_ld + page], set.kv_head) +
                 static_cast<int64_t>(warp) * KEYS * dim;
    key_range keys = {seen.from - first, seen.to - first};
    few_keys<E, DIM> k, v;
    k.load(a.kv.k, at, dim, keys, lane);
    float dot[32] = {};
    few_products(dot, k, a.q + (static_cast<int64_t>(row) * a.heads.heads + set.first) * dim, dim, set.n, lane);
    v.load(a.kv.v, at, dim, keys, lane);
    lane_sums<16>(dot, lane);

    bool sees = lane / HEADS >= keys.from && lane / HEADS < keys.to;
    float m = sees ? dot[0] : -INFINITY;
#pragma unroll
    for (int o = HEADS; o < 32; o *= 2)
        m = fmaxf(m, __shfl_xor_sync(0xffffffffu, m, o));
    float weight = sees ? expf(dot[0] - m) : 0, l = weight;
#pragma unroll
    for (int o = HEADS; o < 32; o *= 2)
        l += __shfl_xor_sync(0xffffffffu, l, o);
    sm.weight[warp][lane] = weight;
    if (lane < HEADS)
        sm.sums[warp][lane] = make_float2(m, l);
    __syncwarp();
    few_values(sm, v, warp, lane);
    __syncthreads();
    few_part(a, sm, set, row, segment);
}

/* ---- few rows: merging ----------------------------------------------------------------------------------- */

constexpr int MERGE_GROUPS = 16;
constexpr int MERGE_UNITS = 16; /* float4 of a block */

struct merged {
    float m, l;
    float4 value;
};

__device__ __forceinline__ void merge(merged &sum, float m, float l, float4 value)
{
    float top = fmaxf(sum.m, m), old = expf(sum.m - top), fresh = expf(m - top);
    sum.l = sum.l * old + l * fresh;
    sum.value = scaled_add(sum.value, old, scaled(value, fresh));
    sum.m = top;
}

/* grid: rows, heads, 64 dims. Group g takes parts g, g + 16, ... */
__global__ void __launch_bounds__(MERGE_GROUPS *MERGE_UNITS) attention_merge(attention_args a)
{
    KD_SHARED(float4, values, [MERGE_GROUPS][MERGE_UNITS]);
    KD_SHARED(float2, sums, [MERGE_GROUPS]);
    int group = threadIdx.x / MERGE_UNITS, unit = threadIdx.x % MERGE_UNITS, dim = a.heads.dim;
    int at = (blockIdx.z * MERGE_UNITS + unit) * 4;
    key_range seen = visible(a, blockIdx.x);
    int parts = (seen.to - 1) / PAGE - seen.from / PAGE + 1;
    int64_t head = static_cast<int64_t>(blockIdx.x) * a.heads.heads + blockIdx.y;
    const float2 *part_sums = a.sums + head * a.segments;
    const float *part = a.part + head * a.segments * dim + at;

    merged sum = {-INFINITY, 0, make_float4(0, 0, 0, 0)};
#pragma unroll 4
    for (int s = group; s < parts; s += MERGE_GROUPS) {
        float4 value = at < dim ? *reinterpret_cast<const float4 *>(part + static_cast<int64_t>(s) * dim)
                                : make_float4(0, 0, 0, 0);
        merge(sum, part_sums[s].x, part_sums[s].y, value);
    }
    values[group][unit] = sum.value;
    if (unit == 0)
        sums[group] = make_float2(sum.m, sum.l);
    __syncthreads();
    if (group != 0 || at >= dim)
        return;
    for (int g = 1; g < min(parts, MERGE_GROUPS); g++)
        merge(sum, sums[g].x, sums[g].y, values[g][unit]);
    *reinterpret_cast<float4 *>(a.out + head * dim + at) = scaled(sum.value, 1 / sum.l);
}

/* ---- launching ------------------------------------------------------------------------------------------- */

/* Pages that a row sees, at most. */
int most_segments(int window, int max_context)
{
    int all = (max_context + PAGE - 1) / PAGE, in_window = (window + PAGE - 2) / PAGE + 1;
    return window > 0 ? min(in_window, all) : all;
}

template <class E, int DIM, bool PADDED> cudaError_t launch_few(cudaStream_t stream, const attention_args &a)
{
    unsigned n = a.rows.n, sets = a.heads.kv_heads * sets_of(a.heads);
    kd::launch_cfg cfg = {dim3(n, sets, a.segments), dim3(WARPS * 32), 0, stream, false};
    auto *parts = attention_few<E, DIM, PADDED>;
    cudaError_t err = KD_LAUNCH(parts, cfg, a);
    if (err != cudaSuccess)
        return err;
    cfg.grid = dim3(n, a.heads.heads, (a.heads.dim + 4 * MERGE_UNITS - 1) / (4 * MERGE_UNITS));
    cfg.block = dim3(MERGE_GROUPS * MERGE_UNITS);
    return KD_LAUNCH(attention_merge, cfg, a);
}

constexpr int FEW_ROWS = 16;
constexpr int DIM_STEP = 16; /* heads' dims are multiples of it */
constexpr int MOST_DIM = 256;
constexpr int MANY_BLOCKS = 256; /* of 16 rows, from which on they are taken */

/* Small blocks until large ones would fill a card; the results are the same. */
template <class E, int DIM, bool PADDED> cudaError_t launch(cudaStream_t stream, const attention_args &a)
{
    if (a.rows.n <= FEW_ROWS)
        return launch_few<E, DIM, PADDED>(stream, a);
    if (static_cast<int64_t>(a.rows.n) * a.heads.kv_heads * sets_of(a.heads) < MANY_BLOCKS * 16)
        return launch_many<E, DIM, PADDED, 8>(stream, a);
    return launch_many<E, DIM, PADDED, 16>(stream, a);
}

} // namespace

size_t pl_cuda_attention_scratch(int max_rows, pl_heads heads, int max_context)
{
    size_t rows = min(max_rows, FEW_ROWS);
    return rows * heads.heads * most_segments(0, max_context) * (heads.dim * sizeof(float) + sizeof(float2));
}

cudaError_t pl_cuda_attention(cudaStream_t stream, float *out, const float *q, const pl_kv_layer *kv,
                              const pl_rows *rows, pl_heads heads, int window, int max_context, void *scratch)
{
    if (heads.dim % DIM_STEP != 0 || heads.dim > MOST_DIM || heads.heads % heads.kv_heads != 0)
        return cudaErrorInvalidValue;
    if (rows->n == 0)
        return cudaSuccess;
    int segments = most_segments(window, max_context);
    float *part = static_cast<float *>(scratch);
    float2 *sums = reinterpret_cast<float2 *>(part + static_cast<size_t>(rows->n) * heads.heads * segments * heads.dim);
    attention_args a = {out, q, *kv, *rows, heads, window, segments, part, sums};
    if (heads.dim == 256)
        return launch<float, 256, false>(stream, a);
    if (heads.dim > 64)
        return launch<float, 256, true>(stream, a);
    return launch<float, 64, true>(stream, a);
}
