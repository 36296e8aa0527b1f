/* The matrix product for 1 to 16 rows of x: what decoding spends its time in.
 *
 * Moves w->bytes, once for all rows; of x, 2.4 bytes a value and panel, from the caches.
 *
 * A group of a panel (16 rows times 32 columns) is the left operand of one integer mma. Its right operand takes 8
 * columns: the hi and lo parts of four rows of x, a tile, so that 128 * hi + lo stands in neighbouring registers of one
 * lane, the sum over the 32 columns is complete and exact, and what follows is the CPU's arithmetic
 * (host/cpu/matmul_tile.h). One row costs as much as four. With dp4a a lane's sums would be partial, each to be
 * converted and scaled: as many instructions at one row, four times as many at four.
 *
 * The spans of a panel are dealt to up to eight warps of a block, which add up in the order of the warps; their number
 * depends on the matrix alone. A warp issues the loads of 2 to 8 groups before it uses the first: at one row 19 KB
 * (Q4_K) to 37 KB (Q4_0) are under way on a multiprocessor. */
#include "cuda/kernels.h"
#include "cuda/matmul_jobs.cuh"
#include "cuda/matmul_plain.h"
#include "cuda/panel.cuh"

namespace
{

constexpr int TILE_ROWS = 4;
constexpr int OUTPUTS = PL_PANEL_ROWS;

struct few_args {
    few::batch batch;
    const int8_t *hi_lo;
    const float *scale;
    const int32_t *sum;
    int x_rows, x_blocks;
};

/* Where a lane finds x in one span: the right operand's column lane / 4, that is row lane / 8 of each tile, hi or lo,
 * and for the sums that come to it, row lane % 4. Offsets in bytes and in blocks of 32 columns. */
template <int TILES> struct x_span {
    const int8_t *codes;
    const float *scale;
    const int2 *sum;
    int code_at[TILES], sum_at[TILES];
    int first; /* group of the row that is the span's first */
    int tiles; /* with rows that have any */
};

template <int TILES>
__device__ __forceinline__ x_span<TILES> x_at(const few_args &a, const few::job &job, int span, int lane)
{
    int first = span * PL_SPAN_GROUPS, ld = min(PL_SPAN_GROUPS, a.x_blocks - first);
    size_t at = static_cast<size_t>(first) * a.x_rows;
    x_span<TILES> x;
    x.first = first;
    x.codes = a.hi_lo + at * 2 * PL_GROUP;
    x.scale = a.scale + at;
    x.sum = reinterpret_cast<const int2 *>(a.sum) + at;
#pragma unroll
    for (int t = 0; t < TILES; t++) {
        int row = min(TILE_ROWS * t + lane / 8, job.n_rows - 1);
        x.code_at[t] = (2 * row * ld + lane / 4 % 2) * PL_GROUP + lane % 4 * 4;
        x.sum_at[t] = min(TILE_ROWS * t + lane % 4, job.n_rows - 1) * ld;
    }
    return x;
}

__device__ __forceinline__ uint32_t load_codes_of_x(const int8_t *p)
{
    return __ldg(reinterpret_cast<const uint32_t *>(p));
}

/* One step of the CPU's add_part() for panel rows 2 p and 2 p + 1: c holds their sums of hi and of lo. */
template <pl_dtype TYPE>
__device__ __forceinline__ void add_part(float (&acc)[2], const int32_t (&c)[4], const panel::scale_values (&w)[2],
                                         float scale, float shift)
{
#pragma unroll
    for (int row = 0; row < 2; row++) {
        int32_t s = 128 * c[2 * row] + c[2 * row + 1];
        acc[row] = fmaf(static_cast<float>(s), w[row].d * scale, acc[row]);
        if (panel::form_of(TYPE).minimum())
            acc[row] = fmaf(w[row].m, shift, acc[row]);
    }
}

/* Group `group` of the span times tile t. */
template <pl_dtype TYPE, int TILES>
__device__ __forceinline__ void multiply_tile(float (&acc)[2], const uint32_t (&a)[4],
                                              const panel::scale_values (&w)[2][2], const x_span<TILES> &x, int t,
                                              int group, int groups)
{
    constexpr panel::form F = panel::form_of(TYPE);
    const int8_t *codes = x.codes + x.code_at[t] + 2 * PL_GROUP * group;
    uint32_t b0 = load_codes_of_x(codes), b1 = load_codes_of_x(codes + 16);
    bool counts = x.first + group < groups;
    float scale = counts ? __ldg(x.scale + x.sum_at[t] + group) : 0;
    int2 sum = F.minimum() ? __ldg(x.sum + x.sum_at[t] + group) : int2{0, 0};
    if (!F.halves()) {
        int32_t c[4] = {0, 0, 0, 0};
        ptx::mma_s8_16832(c, a, b0, b1);
        float shift = counts ? scale * static_cast<float>(sum.x + sum.y) : 0;
        add_part<TYPE>(acc, c, w[0], scale, shift);
        return;
    }
    int32_t c[4] = {0, 0, 0, 0}, c2[4] = {0, 0, 0, 0};
    const uint32_t first[4] = {a[0], a[1], 0, 0}, second[4] = {0, 0, a[2], a[3]};
    ptx::mma_s8_16832(c, first, b0, b1);
    ptx::mma_s8_16832(c2, second, b0, b1);
    add_part<TYPE>(acc, c, w[0], scale, counts ? scale * static_cast<float>(sum.x) : 0);
    add_part<TYPE>(acc, c2, w[1], scale, counts ? scale * static_cast<float>(sum.y) : 0);
}

/* Groups [first, first + N) of the span times all tiles. */
template <pl_dtype TYPE, int TILES, int N>
__device__ __forceinline__ void multiply_groups(float (&acc)[TILES][2], const uint8_t *span, panel::head_words head,
                                                int first, const x_span<TILES> &x, const int (&groups)[TILES],
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
            if (t == 0 || t < x.tiles)
                multiply_tile<TYPE, TILES>(acc[t], a, w, x, t, first + i, groups[t]);
    }
}

/* wanted: groups of row `lane` of x. */
template <pl_dtype TYPE, int TILES>
__device__ __forceinline__ void multiply_spans(float (&acc)[TILES][2], const few_args &a, const few::job &job,
                                               const uint8_t *panel, int wanted, int k, int lane)
{
    constexpr panel::form F = panel::form_of(TYPE);
    /* Groups whose loads go out at once. */
    constexpr int STEP = TILES == 1 && F.loads() == 1 && F.kind == PL_PANEL_OFFSET ? 8 : TILES == 4 ? 2 : 4;
    panel::lane_place place = panel::place_of(lane);
    int most = __shfl_sync(few::ALL, wanted, 0), groups[TILES];
#pragma unroll
    for (int t = 0; t < TILES; t++)
        groups[t] = __shfl_sync(few::ALL, wanted, TILE_ROWS * t + lane % 4);
    for (int span = k; span * PL_SPAN_GROUPS < most; span += 1 << job.k_shift) {
        const uint8_t *at = panel + static_cast<size_t>(span) * F.span_bytes();
        x_span<TILES> x = x_at<TILES>(a, job, span, lane);
        x.tiles = TILES == 1 ? 1 : (__popc(__ballot_sync(few::ALL, wanted > span * PL_SPAN_GROUPS)) + 3) / 4;
        panel::head_words head = panel::load_head<TYPE>(at, place);
        int n = most - span * PL_SPAN_GROUPS;
        if (n >= PL_SPAN_GROUPS)
#pragma unroll 1
            for (int i = 0; i < PL_SPAN_GROUPS; i += STEP)
                multiply_groups<TYPE, TILES, STEP>(acc, at, head, i, x, groups, place);
        else
#pragma unroll 1
            for (int i = 0; i < n; i++)
                multiply_groups<TYPE, TILES, 1>(acc, at, head, i, x, groups, place);
    }
}

/* The sums of panel `index` with every row of x, over every k_warps-th span from k on. */
template <int TILES>
__device__ __forceinline__ void multiply_panel(float (&acc)[TILES][2], const few_args &a, const few::job &job,
                                               int index, int k, int lane)
{
    const uint8_t *panel = job.weights + static_cast<size_t>(index) * job.unit_bytes;
    int wanted = few::columns_wanted(job, index * OUTPUTS, lane) / PL_GROUP;
    switch (job.type) {
#define TYPE_CASE(type)                                                                                                \
    case type: multiply_spans<type, TILES>(acc, a, job, panel, wanted, k, lane); break
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

/* Two blocks a multiprocessor: registers for all that a warp has under way count for more than further warps. */
template <int TILES> __global__ void __launch_bounds__(few::THREADS, 2) matmul_few(const __grid_constant__ few_args a)
{
    constexpr int ROWS = TILE_ROWS * TILES;
    KD_DYN_SHARED(float, parts);
    int block = static_cast<int>(blockIdx.x), warp = few::warp_index();
    int lane = static_cast<int>(threadIdx.x) % 32;
    const few::job &job = few::job_of_block(a.batch, block);
    int first = (block - job.first_block) * job.block_units;
    int panels = min(job.block_units, (job.rows + OUTPUTS - 1) / OUTPUTS - first);
    for (int at = warp; at < panels << job.k_shift; at += few::WARPS) {
        float acc[TILES][2] = {};
        multiply_panel<TILES>(acc, a, job, first + (at >> job.k_shift), at & ((1 << job.k_shift) - 1), lane);
        float *part = parts + at * ROWS * OUTPUTS + lane % 4 * OUTPUTS + lane / 4 * 2;
#pragma unroll
        for (int t = 0; t < TILES; t++)
            *reinterpret_cast<float2 *>(part + t * TILE_ROWS * OUTPUTS) = float2{acc[t][0], acc[t][1]};
    }
    __syncthreads();
    few::store_units<ROWS, OUTPUTS>(parts, job, first * OUTPUTS, panels);
}

template <int TILES> cudaError_t launch(cudaStream_t stream, const few_args &a, int blocks)
{
    size_t shared = few::MOST_PASSES * few::WARPS * TILE_ROWS * TILES * OUTPUTS * sizeof(float);
    kd::launch_cfg cfg = {dim3(static_cast<unsigned>(blocks)), dim3(few::THREADS), shared, stream, false};
    return KD_LAUNCH(matmul_few<TILES>, cfg, a);
}

cudaError_t launch_batch(cudaStream_t stream, few_args *a)
{
    int tiles = (few::most_rows(a->batch) + TILE_ROWS - 1) / TILE_ROWS, blocks = few::deal_blocks(&a->batch, OUTPUTS);
    if (tiles <= 1)
        return launch<1>(stream, *a, blocks);
    return tiles == 2 ? launch<2>(stream, *a, blocks) : launch<4>(stream, *a, blocks);
}

cudaError_t multiply_packed(cudaStream_t stream, const pl_matmul *jobs, int n_jobs)
{
    few_args a = {};
    cudaError_t err = cudaSuccess;
    for (int i = 0; i < n_jobs && err == cudaSuccess; i++) {
        const pl_weight *w = jobs[i].w;
        const pl_act *x = jobs[i].x;
        if (!w->packed || jobs[i].n_rows == 0)
            continue;
        a.hi_lo = x->hi_lo;
        a.scale = x->scale;
        a.sum = x->sum;
        a.x_rows = static_cast<int>(x->rows);
        a.x_blocks = static_cast<int>(x->blocks);
        a.batch.jobs[a.batch.n++] = few::describe(jobs[i], pl_panel_bytes(pl_panel_describe(w->type), w->cols));
        if (a.batch.n == few::MOST_JOBS) {
            err = launch_batch(stream, &a);
            a.batch.n = 0;
        }
    }
    return err == cudaSuccess && a.batch.n > 0 ? launch_batch(stream, &a) : err;
}

} // namespace

cudaError_t pl_cuda_matmul_few(cudaStream_t stream, const pl_matmul *jobs, int n_jobs)
{
    for (int i = 0; i < n_jobs; i++)
        if (jobs[i].n_rows > few::MOST_ROWS)
            return cudaErrorInvalidValue;
    cudaError_t err = multiply_packed(stream, jobs, n_jobs);
    return err == cudaSuccess ? pl_cuda_matmul_plain(stream, jobs, n_jobs) : err;
}
