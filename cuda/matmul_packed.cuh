/* The product of a panel with up to 16 rows of x, by one warp.
 *
 * A group of a panel (16 rows times 32 columns) is the left operand of one integer mma. Its right operand takes 8
 * columns: the hi and lo parts of four rows of x, a tile, so that 128 * hi + lo stands in neighbouring registers of one
 * lane, the sum over the 32 columns is complete and exact, and what follows is the CPU's arithmetic
 * (host/cpu/matmul_tile.h). One row costs as much as four. With dp4a a lane's sums would be partial, each to be
 * converted and scaled: as many instructions at one row, four times as many at four.
 *
 * x is there as integers (pl_act); or in f32, then the warp makes the very same integers as it goes, in registers: a
 * lane's four columns are what it or a neighbour among eight has to put into the mma. That costs some 50 instructions
 * more for a group and tile, and is meant for operands of a few groups. */
#ifndef PL_CUDA_MATMUL_PACKED_CUH
#define PL_CUDA_MATMUL_PACKED_CUH

#include "cuda/matmul_jobs.cuh"
#include "cuda/panel.cuh"
#include "cuda/quantize_act.cuh"

namespace packed
{

constexpr int TILE_ROWS = 4;
constexpr int OUTPUTS = PL_PANEL_ROWS;

__host__ __device__ constexpr int tiles_of(int rows)
{
    return (rows + TILE_ROWS - 1) / TILE_ROWS;
}

/* ---- x */

/* A lane's share of a group of a tile: the right operand's column lane / 4, that is row lane / 8 of the tile, hi or lo,
 * and for the sums that come to it, scale and sums of row lane % 4. */
struct x_group {
    uint32_t b0, b1;
    float scale;
    int2 sum;
};

/* Where a lane finds x in one span, rows [from, from + rows). Offsets in bytes and in blocks of 32 columns. */
template <int TILES, bool FLOATS> struct x_span {
    const int8_t *codes;
    const float *scale;
    const int2 *sum;
    int code_at[TILES], sum_at[TILES];
    int first; /* group of the row that is the span's first */
    int tiles; /* with rows that have any */

    __device__ __forceinline__ x_span(const few::job &job, int from, int rows, int span, int lane)
        : first(span * PL_SPAN_GROUPS), tiles(tiles_of(rows))
    {
        int ld = min(PL_SPAN_GROUPS, static_cast<int>(job.x.blocks) - first);
        size_t at = static_cast<size_t>(first) * static_cast<int>(job.x.rows);
        codes = job.x.hi_lo + at * 2 * PL_GROUP;
        scale = job.x.scale + at;
        sum = reinterpret_cast<const int2 *>(job.x.sum) + at;
#pragma unroll
        for (int t = 0; t < TILES; t++) {
            int row = from + min(TILE_ROWS * t + lane / 8, rows - 1);
            code_at[t] = (2 * row * ld + lane / 4 % 2) * PL_GROUP + lane % 4 * 4;
            sum_at[t] = (from + min(TILE_ROWS * t + lane % 4, rows - 1)) * ld;
        }
    }

    /* Group `group` of the span; counts: among those that the lane's row wants. */
    template <pl_dtype TYPE> __device__ __forceinline__ x_group load(int t, int group, bool counts) const
    {
        const int8_t *p = codes + code_at[t] + 2 * PL_GROUP * group;
        x_group x;
        x.b0 = __ldg(reinterpret_cast<const uint32_t *>(p));
        x.b1 = __ldg(reinterpret_cast<const uint32_t *>(p + 16));
        x.scale = counts ? __ldg(scale + sum_at[t] + group) : 0;
        x.sum = panel::form_of(TYPE).minimum() ? __ldg(sum + sum_at[t] + group) : int2{0, 0};
        return x;
    }
};

/* The same from f32, one tile. */
template <> struct x_span<1, true> {
    const few::job &job;
    int from, rows, lane, first;
    static constexpr int tiles = 1;

    __device__ __forceinline__ x_span(const few::job &of, int row, int n, int span, int at)
        : job(of), from(row), rows(n), lane(at), first(span * PL_SPAN_GROUPS)
    {
    }

    template <pl_dtype> __device__ __forceinline__ x_group load(int, int group, bool counts) const
    {
        const float *row = job.x.f32 + (from + min(lane / 8, rows - 1)) * job.x.ld;
        int column = (first + group) * PL_GROUP + lane % 8 * 4, mine = lane / 8 * 8 + lane % 4, other = lane % 4 * 8;
        float v[4];
#pragma unroll
        for (int i = 0; i < 4; i++)
            v[i] = column + i < job.x.cols ? __ldg(row + column + i) : 0;
        quantize::codes q = quantize::encode(v);
        bool lo = lane / 4 % 2;
        uint32_t hi0 = __shfl_sync(few::ALL, q.hi, mine), lo0 = __shfl_sync(few::ALL, q.lo, mine);
        uint32_t hi1 = __shfl_sync(few::ALL, q.hi, mine + 4), lo1 = __shfl_sync(few::ALL, q.lo, mine + 4);
        float scale = __shfl_sync(few::ALL, q.scale, other);
        int2 sum = {__shfl_sync(few::ALL, q.sum, other), __shfl_sync(few::ALL, q.sum, other + 4)};
        return {lo ? lo0 : hi0, lo ? lo1 : hi1, counts ? scale : 0, sum};
    }
};

/* ---- products */

/* One step of the CPU's add_part() for panel rows 2 p and 2 p + 1: c holds their sums of hi and of lo. */
template <pl_dtype TYPE>
static __device__ __forceinline__ void add_part(float (&acc)[2], const int32_t (&c)[4],
                                                const panel::scale_values (&w)[2], float scale, float shift)
{
#pragma unroll
    for (int row = 0; row < 2; row++) {
        int32_t s = 128 * c[2 * row] + c[2 * row + 1];
        acc[row] = fmaf(static_cast<float>(s), w[row].d * scale, acc[row]);
        if (panel::form_of(TYPE).minimum())
            acc[row] = fmaf(w[row].m, shift, acc[row]);
    }
}

/* A group times a tile. counts: as of x_span::load(). */
template <pl_dtype TYPE>
static __device__ __forceinline__ void multiply_tile(float (&acc)[2], const uint32_t (&a)[4],
                                                     const panel::scale_values (&w)[2][2], const x_group &x,
                                                     bool counts)
{
    if constexpr (!panel::form_of(TYPE).halves()) {
        int32_t c[4] = {0, 0, 0, 0};
        ptx::mma_s8_16832(c, a, x.b0, x.b1);
        add_part<TYPE>(acc, c, w[0], x.scale, counts ? x.scale * static_cast<float>(x.sum.x + x.sum.y) : 0);
    } else {
        int32_t c[4] = {0, 0, 0, 0}, c2[4] = {0, 0, 0, 0};
        const uint32_t first[4] = {a[0], a[1], 0, 0}, second[4] = {0, 0, a[2], a[3]};
        ptx::mma_s8_16832(c, first, x.b0, x.b1);
        ptx::mma_s8_16832(c2, second, x.b0, x.b1);
        add_part<TYPE>(acc, c, w[0], x.scale, counts ? x.scale * static_cast<float>(x.sum.x) : 0);
        add_part<TYPE>(acc, c2, w[1], x.scale, counts ? x.scale * static_cast<float>(x.sum.y) : 0);
    }
}

/* Groups [first, first + N) of the span times all tiles. */
template <pl_dtype TYPE, int N, int TILES, bool FLOATS>
static __device__ __forceinline__ void multiply_groups(float (&acc)[TILES][2], const uint8_t *span,
                                                       panel::head_words head, int first,
                                                       const x_span<TILES, FLOATS> &x, const int (&groups)[TILES],
                                                       panel::lane_place lane)
{
    constexpr panel::form F = panel::form_of(TYPE);
    panel::code_words<TYPE> codes[N];
    panel::scale_words scales[N];
    const uint8_t *body = span + F.head_bytes + first * F.group_bytes();
#pragma unroll
    for (int i = 0; i < N; i++) {
        panel::load_codes<TYPE>(codes[i], body + i * F.group_bytes(), lane);
        scales[i] = panel::load_scales<TYPE>(span, first + i, lane);
    }
#pragma unroll
    for (int i = 0; i < N; i++) {
        uint32_t a[4];
        panel::scale_values w[2][2];
        panel::operand<TYPE>(codes[i], lane.quarter, a);
#pragma unroll
        for (int h = 0; h < (F.halves() ? 2 : 1); h++)
#pragma unroll
            for (int row = 0; row < 2; row++)
                w[h][row] = panel::scale_at<TYPE>(head, scales[i], h, row);
#pragma unroll
        for (int t = 0; t < TILES; t++)
            if (t == 0 || t < x.tiles) {
                bool counts = x.first + first + i < groups[t];
                multiply_tile<TYPE>(acc[t], a, w, x.template load<TYPE>(t, first + i, counts), counts);
            }
    }
}

template <int TILES> __host__ __device__ constexpr int groups_at_once(panel::form f)
{
    if (TILES == 1)
        return f.loads() == 1 && f.kind == PL_PANEL_OFFSET ? 8 : 4;
    return (f.loads() == 1 ? 8 : 4) / TILES;
}

/* wanted: groups of row from + lane of x. */
template <pl_dtype TYPE, int TILES, bool FLOATS>
static KD_LARGE void multiply_spans(float (&acc)[TILES][2], const few::job &job, const uint8_t *panel, int from,
                                    int wanted, int k, int lane)
{
    constexpr panel::form F = panel::form_of(TYPE);
    /* Groups whose loads go out at once: as many as registers take. */
    constexpr int STEP = FLOATS ? 1 : groups_at_once<TILES>(F);
    panel::lane_place place = panel::place_of(lane);
    int most = __shfl_sync(few::ALL, wanted, 0), groups[TILES];
#pragma unroll
    for (int t = 0; t < TILES; t++)
        groups[t] = __shfl_sync(few::ALL, wanted, TILE_ROWS * t + lane % 4);
    for (int span = k; span * PL_SPAN_GROUPS < most; span += 1 << job.k_shift) {
        const uint8_t *at = panel + static_cast<size_t>(span) * F.span_bytes();
        int rows = __popc(__ballot_sync(few::ALL, wanted > span * PL_SPAN_GROUPS));
        x_span<TILES, FLOATS> x(job, from, rows, span, lane);
        panel::head_words head = panel::load_head<TYPE>(at, place);
        int n = most - span * PL_SPAN_GROUPS;
        if (STEP > 1 && n >= PL_SPAN_GROUPS)
#pragma unroll 1
            for (int i = 0; i < PL_SPAN_GROUPS; i += STEP)
                multiply_groups<TYPE, STEP>(acc, at, head, i, x, groups, place);
        else
#pragma unroll 1
            for (int i = 0; i < min(n, PL_SPAN_GROUPS); i++)
                multiply_groups<TYPE, 1>(acc, at, head, i, x, groups, place);
    }
}

/* Warp k's sums, over every k_warps-th span, of panel `index` with rows [from, from + 4 * TILES) of x. FLOATS: x is in
 * f32. */
template <bool FLOATS, int TILES>
static __device__ __forceinline__ void multiply_rows(float (&acc)[TILES][2], const few::job &job, int index, int from,
                                                     int k, int lane)
{
    const uint8_t *panel = job.weights + static_cast<size_t>(index) * job.unit_bytes;
    int wanted = few::columns_wanted(job, index * OUTPUTS, from + lane) / PL_GROUP;
    switch (job.type) {
#define TYPE_CASE(type)                                                                                                \
    case type: multiply_spans<type, TILES, FLOATS>(acc, job, panel, from, wanted, k, lane); break
        TYPE_CASE(PL_Q4_0);
        TYPE_CASE(PL_Q4_1);
        TYPE_CASE(PL_Q5_0);
        TYPE_CASE(PL_Q5_1);
        TYPE_CASE(PL_Q8_0);
        TYPE_CASE(PL_Q2_K);
        TYPE_CASE(PL_Q3_K);
        TYPE_CASE(PL_Q4_K);
        TYPE_CASE(PL_Q5_K);
        TYPE_CASE(PL_Q6_K);
        TYPE_CASE(PL_IQ4_NL);
        TYPE_CASE(PL_IQ4_XS);
        TYPE_CASE(PL_MXFP4);
        TYPE_CASE(PL_NVFP4);
#undef TYPE_CASE
    default: break;
    }
}

template <int TILES>
static __device__ __forceinline__ void store_part(float *part, const float (&acc)[TILES][2], int lane)
{
    part += lane % 4 * OUTPUTS + lane / 4 * 2;
#pragma unroll
    for (int t = 0; t < TILES; t++)
        *reinterpret_cast<float2 *>(part + t * TILE_ROWS * OUTPUTS) = float2{acc[t][0], acc[t][1]};
}

/* Warp k's sums of panel `index` with every row of x into its part of [4 * TILES][OUTPUTS], STEP tiles at a time,
 * reading the panel anew for each. */
template <int TILES, int STEP, bool FLOATS>
static __device__ __forceinline__ void multiply_part(float *part, const few::job &job, int index, int k, int lane)
{
#pragma unroll 1
    for (int t = 0; t < TILES && (t == 0 || t * TILE_ROWS < job.n_rows); t += STEP) {
        float acc[STEP][2] = {};
        multiply_rows<FLOATS>(acc, job, index, t * TILE_ROWS, k, lane);
        store_part(part + t * TILE_ROWS * OUTPUTS, acc, lane);
    }
}

} // namespace packed

#endif
