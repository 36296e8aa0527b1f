/* The FFN of layers with a cutoff. Nineteen in twenty of the activations are exact zeros, and what only they would be
 * multiplied with is not read: of `up` the panels of 16 units in which no row has a gate above its cutoff; of `down`
 * the pieces of 64 bytes (of 4-bit codes 8 columns of a panel) in whose columns no row has one, and the scales of a
 * group of 32 columns without any. A sum loses only terms that are +-0 and never is -0 itself: its bits stay.
 *
 * The cutoff takes two sums over a whole row of gates, one after the other. For one or two rows all blocks of the
 * kernel for `up` compute them, each for itself, from the caches, which saves a launch. They then know all live panels
 * of the matrix and share them out evenly. From three rows on that costs more than `up` has to spare, so gate and up
 * are one product and a kernel with one block a row does the rest; from five rows on `down` is read whole as well.
 *
 * Megabytes for E4B (F 16384, H 2048, Q4_0), were the zeros of different rows independent; all three matrices are 56.6:
 *     rows     gate     up    down   together
 *     1        18.9   10.6     7.3       36.8
 *     2        18.9   15.2    11.4       45.5
 *     4        18.9   18.9    15.6       53.4
 *     5 to 16  18.9   18.9    18.9       56.6   (at 5 rows `down` has 2.2 to spare, at 16 nothing)
 * and from the caches, for one or two rows, 64 KB of gates a row for each multiprocessor. */
#include "cuda/ffn_gates.cuh"
#include "cuda/ffn_sparse.h"
#include "cuda/gelu.cuh"
#include "cuda/matmul_packed.cuh"

namespace
{

constexpr int UP_ROWS = 2;                   /* for which the kernel for `up` finds the cutoffs itself */
constexpr int DOWN_ROWS = packed::TILE_ROWS; /* for which `down` is read in part */
constexpr int OUTPUTS = packed::OUTPUTS;
constexpr int MOST_K_WARPS = few::WARPS;
constexpr int MOST_WORDS = PL_CUDA_MAX_SPARSE_WIDTH / PL_GROUP / 4; /* a byte a group */
static_assert(PL_CUDA_MAX_SPARSE_WIDTH % PL_SPAN == 0, "the words are there for whole spans");

/* ---- the product of a panel with up to four rows, of which some chunks of 4 columns count */

/* panel::load_codes() of what the lane's chunks need, low and high; the other codes come out as anything. */
template <pl_dtype TYPE>
__device__ __forceinline__ void load_live_codes(panel::code_words<TYPE> &w, const uint8_t *group,
                                                panel::lane_place lane, bool low, bool high)
{
    constexpr panel::form F = panel::form_of(TYPE);
    const uint8_t *rows = group + 8 * lane.pair, *own = rows + lane.quarter * PL_CHUNK_BYTES;
    int n = 0;
#pragma unroll
    for (int i = 0; i < F.loads(); i++)
        w.v[i] = uint2{0, 0};
    if constexpr (F.bits == 8) {
        if (low)
            w.v[n] = ptx::ld_nc_v2(own);
        if (high)
            w.v[n + 1] = ptx::ld_nc_v2(own + 4 * PL_CHUNK_BYTES);
    } else if constexpr (F.low_bits() > 0) {
        if (low || high)
            w.v[n] = ptx::ld_nc_v2(own);
        n++;
    }
    if constexpr (F.pairs()) {
        if (low)
            w.v[n] = ptx::ld_nc_v2(rows + F.low_bits() * PL_CHUNK_BYTES);
        if (high)
            w.v[n + 1] = ptx::ld_nc_v2(rows + (F.low_bits() + 1) * PL_CHUNK_BYTES);
        n += 2;
    }
    if constexpr (F.top())
        if (low || high)
            w.v[n] = ptx::ld_nc_v2(rows + (F.bits - 1) * PL_CHUNK_BYTES);
}

/* packed::multiply_groups() without what does not count. live: of each group of the span, a bit for each chunk. */
template <pl_dtype TYPE, int N>
__device__ __forceinline__ void multiply_live_groups(float (&acc)[2], const uint8_t *span, panel::head_words head,
                                                     int first, const packed::x_span<1, false> &x,
                                                     panel::lane_place lane, const uint8_t *live)
{
    constexpr panel::form F = panel::form_of(TYPE);
    panel::code_words<TYPE> codes[N];
    panel::scale_words scales[N];
    const uint8_t *body = span + F.head_bytes + first * F.group_bytes();
    live += first;
#pragma unroll
    for (int i = 0; i < N; i++) {
        int bits = live[i] >> lane.quarter;
        load_live_codes<TYPE>(codes[i], body + i * F.group_bytes(), lane, bits & 1, bits & 16);
        scales[i] = {0, 0};
        if (live[i])
            scales[i] = panel::load_scales<TYPE>(span, first + i, lane);
    }
#pragma unroll
    for (int i = 0; i < N; i++) {
        uint32_t a[4];
        panel::scale_values w[2][2];
        if (!live[i])
            continue;
        panel::operand<TYPE>(codes[i], lane.quarter, a);
#pragma unroll
        for (int h = 0; h < (F.halves() ? 2 : 1); h++)
#pragma unroll
            for (int row = 0; row < 2; row++)
                w[h][row] = panel::scale_at<TYPE>(head, scales[i], h, row);
        packed::multiply_tile<TYPE>(acc, a, w, x.load<TYPE>(0, first + i, true), true);
    }
}

/* Every k_warps-th span from k on. live: two words a span, a byte a group, 0 beyond the row. */
template <pl_dtype TYPE>
__device__ __forceinline__ void multiply_live_spans(float (&acc)[2], const few::job &job, const uint8_t *panel, int k,
                                                    int lane, const uint32_t *live)
{
    constexpr panel::form F = panel::form_of(TYPE);
    constexpr int STEP = F.loads() == 1 && F.kind == PL_PANEL_OFFSET ? 8 : 4; /* groups whose loads go out at once */
    panel::lane_place place = panel::place_of(lane);
    for (int span = k; span * PL_SPAN < job.cols; span += 1 << job.k_shift) {
        const uint32_t *words = live + 2 * span;
        if (!(words[0] | words[1]))
            continue;
        const uint8_t *at = panel + static_cast<size_t>(span) * F.span_bytes();
        packed::x_span<1, false> x(job, 0, job.n_rows, span, lane);
        panel::head_words head = panel::load_head<TYPE>(at, place);
#pragma unroll 1
        for (int i = 0; i < PL_SPAN_GROUPS; i += STEP)
            multiply_live_groups<TYPE, STEP>(acc, at, head, i, x, place, reinterpret_cast<const uint8_t *>(words));
    }
}

__device__ __forceinline__ void multiply_live(float (&acc)[2], const few::job &job, int index, int k, int lane,
                                              const uint32_t *live)
{
    const uint8_t *panel = job.weights + static_cast<size_t>(index) * job.unit_bytes;
    switch (job.type) {
#define TYPE_CASE(type)                                                                                                \
    case type: multiply_live_spans<type>(acc, job, panel, k, lane, live); break
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

/* ---- which chunks count */

constexpr int GATE_WARPS = gates::THREADS / 32;
static_assert(gates::QUADS * GATE_WARPS == MOST_WORDS, "a quad of gates is a chunk of columns");

/* Bit q: whether quad q of the thread has one above the cutoff. */
__device__ __forceinline__ unsigned live_quads(const gates::values &g, int n, float cut)
{
    unsigned live = 0;
#pragma unroll
    for (int q = 0; q < gates::QUADS; q++)
        live |= gates::above(g.v + 4 * q, n - gates::block::column(q), cut) ? 1u << q : 0;
    return live;
}

/* One bit for every quad of a row: byte g is group g's, bit c of it chunk c's. */
__device__ __forceinline__ void store_live(uint32_t *words, int n_words, unsigned live)
{
#pragma unroll
    for (int q = 0; q < gates::QUADS; q++) {
        unsigned votes = __ballot_sync(few::ALL, live >> q & 1);
        int word = static_cast<int>(threadIdx.x) / 32 + GATE_WARPS * q;
        if (threadIdx.x % 32 == 0 && word < n_words)
            words[word] = votes;
    }
}

/* ---- `up` and the activation for one or two rows */

struct up_args {
    few::job up; /* n_out: the widths */
    const float *gate;
    int64_t ld;
    float z;
    pl_act mid;
    uint32_t *live; /* for the kernel of `down` */
};

constexpr int MOST_SLOTS = 32; /* live panels of a block */
constexpr uint16_t NONE = 0xffff;
constexpr int PANEL_PARTS = MOST_K_WARPS * UP_ROWS * OUTPUTS;

/* The live panels in order, `total` of them, are dealt to the blocks in equal runs; a pair of panels, that is a block
 * of integers, stays whole and belongs to the block in whose run it begins. Returns the length of the run: panel i of
 * it, and perhaps one after it, goes to panels[i], which stays NONE where a pair of the block before ends. */
__device__ __forceinline__ int deal_panels(uint16_t *panels, int *counts, const uint32_t *live)
{
    const int pair = static_cast<int>(threadIdx.x), lane = pair % 32, warp = pair / 32;
    const unsigned before_me = (1u << lane) - 1;
    bool low = live[pair / 4] >> 8 * (pair % 4) & 15, high = live[pair / 4] >> 8 * (pair % 4) & 240;
    unsigned lows = __ballot_sync(few::ALL, low), highs = __ballot_sync(few::ALL, high);
    if (lane == 0)
        counts[warp] = __popc(lows) + __popc(highs);
    __syncthreads();
    int rank = __popc(lows & before_me) + __popc(highs & before_me), total = 0;
    for (int w = 0; w < GATE_WARPS; w++) {
        rank += w < warp ? counts[w] : 0;
        total += counts[w];
    }
    const int blocks = static_cast<int>(gridDim.x), block = static_cast<int>(blockIdx.x);
    const int first = block * total / blocks, end = (block + 1) * total / blocks;
    if (rank >= first && rank < end) {
        uint16_t *at = panels + rank - first;
        if (low)
            *at++ = static_cast<uint16_t>(2 * pair);
        if (high)
            *at = static_cast<uint16_t>(2 * pair + 1);
    }
    return end - first;
}

/* The sum of the warps' parts [UP_ROWS][OUTPUTS] of a panel, in the order of few::store_units(). */
__device__ __forceinline__ float add_parts(const float *parts, int k_shift, int row, int output)
{
    const float *part = parts + row * OUTPUTS + output;
    float sum = part[0];
    for (int k = 1; k < 1 << k_shift; k++)
        sum += part[k * UP_ROWS * OUTPUTS];
    return sum;
}

/* Four columns of the activation of row `row`, from column `at` on. slot: of their panel, if it is live. */
__device__ __forceinline__ void activate(float (&h)[4], const up_args &a, int row, int at, float cut,
                                         const float (*parts)[PANEL_PARTS], int slot)
{
    const int left = __ldg(a.up.n_out + row) - at;
    float4 quad = row::load4<true>(a.gate + row * a.ld + at, left);
    const float g[4] = {quad.x, quad.y, quad.z, quad.w};
    unsigned live = gates::above(g, left, cut);
#pragma unroll
    for (int i = 0; i < 4; i++)
        if (live >> i & 1)
            h[i] = gelu(g[i] - cut) * add_parts(parts[slot], a.up.k_shift, row, at % OUTPUTS + i);
}

__global__ void __launch_bounds__(gates::THREADS, 1) sparse_up(const __grid_constant__ up_args a)
{
    KD_SHARED(float, sums, [2 * UP_ROWS][row::part_ld]);
    KD_SHARED(float, cuts, [UP_ROWS]);
    KD_SHARED(uint32_t, live, [MOST_WORDS]);
    KD_SHARED(int, counts, [GATE_WARPS]);
    KD_SHARED(uint16_t, panels, [MOST_SLOTS]);
    KD_SHARED(float, parts, [MOST_SLOTS][PANEL_PARTS]);
    const int thread = static_cast<int>(threadIdx.x), lane = thread % 32, rows = a.up.n_rows;
    unsigned quads = 0;
    for (int r = 0; r < rows; r++) {
        const int n = __ldg(a.up.n_out + r);
        gates::values g = gates::load<true>(a.gate + r * a.ld, n);
        float cut = gates::cutoff(g, n, a.z, sums + 2 * r);
        quads |= live_quads(g, n, cut);
        if (thread == 0)
            cuts[r] = cut;
    }
    store_live(live, MOST_WORDS, quads);
    if (blockIdx.x == 0)
        store_live(a.live, (static_cast<int>(a.mid.blocks) + 3) / 4, quads);
    if (thread < MOST_SLOTS)
        panels[thread] = NONE;
    __syncthreads();
    const int slots = deal_panels(panels, counts, live) + 1;
    __syncthreads();

    const int k_warps = 1 << a.up.k_shift;
    for (int unit = few::warp_index(); unit < slots * k_warps; unit += GATE_WARPS) {
        const int slot = unit >> a.up.k_shift, k = unit & (k_warps - 1);
        if (panels[slot] == NONE)
            continue;
        float acc[1][2] = {};
        packed::multiply_rows<false>(acc, a.up, panels[slot], 0, k, lane);
        if (lane % 4 < UP_ROWS) {
            float *part = parts[slot] + (k * UP_ROWS + lane % 4) * OUTPUTS + lane / 4 * 2;
            *reinterpret_cast<float2 *>(part) = float2{acc[0][0], acc[0][1]};
        }
    }
    __syncthreads();

    constexpr int LANES = quantize::BLOCK_LANES;
    for (int i = thread; i / 32 * 32 < slots * rows * LANES; i += gates::THREADS) {
        const int slot = i / LANES / rows, row = i / LANES % rows, quad = i % LANES;
        const int panel = slot < slots ? panels[slot] : NONE, pair = panel / 2;
        bool exists = panel != NONE && (slot == 0 || panels[slot - 1] / 2 != pair);
        float h[4] = {0, 0, 0, 0};
        if (exists)
            activate(h, a, row, pair * PL_GROUP + 4 * quad, cuts[row], parts, slot + quad / 4 - panel % 2);
        quantize::store_block(a.mid, rows, row, pair, exists, h);
    }
}

/* ---- the activation for more rows, a block a row */

__global__ void __launch_bounds__(gates::THREADS, 1)
    sparse_act(float *gate, const float *up, int64_t ld, const int32_t *width, float z, const pl_act mid)
{
    KD_SHARED(float, sums, [2][row::part_ld]);
    const int row = static_cast<int>(blockIdx.x), n = width[row];
    gate += row * ld;
    up += row * ld;
    gates::values g = gates::load<true>(gate, n);
    float cut = gates::cutoff(g, n, z, sums);
    /* In place of the gates, which all threads hold by now. */
    store_live(reinterpret_cast<uint32_t *>(gate), (static_cast<int>(mid.blocks) + 3) / 4, live_quads(g, n, cut));
#pragma unroll
    for (int q = 0; q < gates::QUADS; q++) {
        const int at = gates::block::column(q);
        unsigned live = gates::above(g.v + 4 * q, n - at, cut);
        float h[4] = {0, 0, 0, 0};
        if (live) {
            float4 v = row::load4<true>(up + at, n - at);
            const float by[4] = {v.x, v.y, v.z, v.w};
#pragma unroll
            for (int i = 0; i < 4; i++)
                if (live >> i & 1)
                    h[i] = gelu(g.v[4 * q + i] - cut) * by[i];
        }
        quantize::store_block(mid, static_cast<int>(gridDim.x), row, at / PL_GROUP, at / PL_GROUP < mid.blocks, h);
    }
}

/* ---- `down` for up to four rows */

struct down_args {
    few::job down;
    const uint32_t *live;
    int64_t live_ld; /* in words */
    int live_rows;   /* to be taken together */
};

__global__ void __launch_bounds__(few::THREADS, 2) sparse_down(const __grid_constant__ down_args a)
{
    constexpr int PART = DOWN_ROWS * OUTPUTS;
    KD_SHARED(uint32_t, live, [MOST_WORDS]);
    KD_SHARED(float, parts, [few::MOST_PASSES * few::WARPS * PART]);
    const few::job &job = a.down;
    const int lane = static_cast<int>(threadIdx.x) % 32, words = (job.cols / PL_GROUP + 3) / 4;
    for (int i = static_cast<int>(threadIdx.x); i < MOST_WORDS; i += few::THREADS) {
        uint32_t any = 0;
        for (int r = 0; r < a.live_rows && i < words; r++)
            any |= __ldg(a.live + r * a.live_ld + i);
        live[i] = any;
    }
    __syncthreads();
    const int first = static_cast<int>(blockIdx.x) * job.block_units;
    const int panels = min(job.block_units, (job.rows + OUTPUTS - 1) / OUTPUTS - first);
    for (int at = few::warp_index(); at < panels << job.k_shift; at += few::WARPS) {
        float acc[1][2] = {};
        multiply_live(acc[0], job, first + (at >> job.k_shift), at & ((1 << job.k_shift) - 1), lane, live);
        packed::store_part(parts + at * PART, acc, lane);
    }
    __syncthreads();
    few::store_units<DOWN_ROWS, OUTPUTS>(parts, job, first * OUTPUTS, panels);
}

/* ---- launches */

pl_matmul product_of(const pl_ffn *f, const pl_weight *w, float *out)
{
    pl_matmul m = {};
    m.w = w;
    m.x = f->x;
    m.out = out;
    m.out_ld = f->ld;
    m.n_rows = f->n;
    m.n_out = f->width;
    return m;
}

pl_matmul product_of_down(const pl_ffn *f)
{
    pl_matmul m = product_of(f, f->down, f->out);
    m.x = f->mid;
    m.out_ld = f->down->rows;
    m.n_out = nullptr;
    m.n_in = f->width;
    return m;
}

/* As many blocks as multiprocessors, since each sums up all gates; on small cards as many as it takes. */
cudaError_t launch_up(cudaStream_t stream, const pl_ffn *f, uint32_t *live)
{
    const int least = static_cast<int>((pl_panel_count(f->up->rows) + MOST_SLOTS - 2) / (MOST_SLOTS - 1));
    const up_args a = {few::describe(product_of(f, f->up, f->up_out)), f->gate_out, f->ld, f->z, *f->mid, live};
    int blocks = 0;
    const cudaError_t err = kd::card_attribute(&blocks, cudaDevAttrMultiProcessorCount);
    if (err != cudaSuccess)
        return err;
    const dim3 grid(static_cast<unsigned>(blocks > least ? blocks : least));
    return KD_LAUNCH(sparse_up, (kd::launch_cfg{grid, dim3(gates::THREADS), 0, stream, false}), a);
}

cudaError_t launch_act(cudaStream_t stream, const pl_ffn *f)
{
    return KD_LAUNCH(sparse_act, row::launch(stream, f->n, gates::THREADS), f->gate_out, f->up_out, f->ld, f->width,
                     f->z, *f->mid);
}

cudaError_t launch_down(cudaStream_t stream, const pl_ffn *f, const void *live, int live_rows)
{
    few::batch one = {};
    one.jobs[one.n++] = few::describe(product_of_down(f));
    const dim3 grid(static_cast<unsigned>(few::deal_blocks(&one)));
    const down_args a = {one.jobs[0], static_cast<const uint32_t *>(live), f->ld, live_rows};
    return KD_LAUNCH(sparse_down, (kd::launch_cfg{grid, dim3(few::THREADS), 0, stream, false}), a);
}

cudaError_t multiply_gates(cudaStream_t stream, const pl_ffn *f, bool with_up)
{
    const pl_matmul jobs[2] = {product_of(f, f->gate, f->gate_out), product_of(f, f->up, f->up_out)};
    return pl_cuda_matmul_few(stream, jobs, with_up ? 2 : 1);
}

cudaError_t multiply_down(cudaStream_t stream, const pl_ffn *f)
{
    const pl_matmul job = product_of_down(f);
    return pl_cuda_matmul_few(stream, &job, 1);
}

cudaError_t run_single_ops(cudaStream_t stream, const pl_ffn *f)
{
    cudaError_t err = multiply_gates(stream, f, true);
    if (err == cudaSuccess)
        err = pl_cuda_ffn_act(stream, f->gate_out, f->up_out, f->ld, f->n, f->width, f->z);
    if (err == cudaSuccess && f->down->packed)
        err = pl_cuda_quantize(stream, f->mid, f->n);
    return err == cudaSuccess ? multiply_down(stream, f) : err;
}

bool is_supported(const pl_ffn *f)
{
    return f->up->packed && f->down->packed && isfinite(f->z) && f->ld <= PL_CUDA_MAX_SPARSE_WIDTH &&
           f->up->rows == f->down->cols && row::is_wide(f->ld, f->gate_out, f->up_out);
}

} // namespace

cudaError_t pl_cuda_ffn_sparse(cudaStream_t stream, const pl_ffn *ffn)
{
    if (ffn->n == 0)
        return cudaSuccess;
    if (ffn->n > PL_FUSED_ROWS)
        return cudaErrorInvalidValue;
    pl_act *mid = ffn->mid;
    mid->f32 = ffn->gate_out;
    mid->ld = ffn->ld;
    mid->cols = ffn->down->cols;
    mid->blocks = (mid->cols + PL_ACT_BLOCK - 1) / PL_ACT_BLOCK;
    mid->rows = ffn->n;
    if (!is_supported(ffn))
        return run_single_ops(stream, ffn);

    bool skips_up = ffn->n <= UP_ROWS, skips_down = ffn->n <= DOWN_ROWS;
    cudaError_t err = multiply_gates(stream, ffn, !skips_up);
    if (err == cudaSuccess)
        err = skips_up ? launch_up(stream, ffn, reinterpret_cast<uint32_t *>(ffn->up_out)) : launch_act(stream, ffn);
    if (err != cudaSuccess)
        return err;
    if (!skips_down)
        return multiply_down(stream, ffn);
    return skips_up ? launch_down(stream, ffn, ffn->up_out, 1) : launch_down(stream, ffn, ffn->gate_out, ffn->n);
}
