/* Products with weights in panels (host/cpu/panel.h) for many rows of x, on the tensor cores' integers.
 *
 * A warp has the sums of MT panels times 8 NT rows. Weights go from memory straight into its registers, in the panel's
 * own order the left operand of mma.m16n8k32, two groups of 32 columns ahead; no other warp of the block wants them.
 * Activations are the block's: hi and lo of 64 columns are 128 bytes a row, copied by cp.async some stages ahead and
 * read by ldmatrix. hi and lo take an instruction each, whose sums start from a float's bits, so that they are floats
 * without conversion; four operations a sum remain for a group, five with a minimum.
 *
 * Sums are made in the CPU's order, group after group with its roundings (host/cpu/matmul_tile.h): the same bits,
 * whatever the tile and whatever rows share it.
 *
 * Why not bf16, without work between groups: with both operands rounded to 8 bits the result is off by 2.4e-3 of its
 * own deviation, here by 4e-5 (for normal x) to 8e-5 (for their cubes); Q8_0's rounding of the weights is 4.7e-3. And
 * by NVIDIA's figures for GeForce cards, integers need half the time of bf16 with f32 sums: 32 cycles for 16 x 8 x 32
 * against 64. Beside these 32 there are 27 other instructions (Q4_0, Q8_0) or 33 (Q4_K) on the large tile; 49 of Q6_K,
 * whose scales count for 16 columns. On H100, whose tensor cores need 8 cycles for either, that leaves a quarter of
 * bf16's rate. All this is counted, not measured.
 *
 * Bytes: weights once for each tile of rows, x (2.1 a value) once for each tile of weights; after the first time from
 * the cache, as tiles of rows are neighbours in the grid. */
#include "cuda/matmul_many.cuh"
#include "cuda/panel.cuh"

namespace
{

constexpr int stage_groups = 2;
constexpr int stage_row_bytes = stage_groups * 2 * PL_ACT_BLOCK;
constexpr int pieces = stage_row_bytes / 16;

template <int MT_, int NT_, int WARPS_, int STAGES_, int BLOCKS_> struct tile {
    static constexpr int MT = MT_, NT = NT_, WARPS = WARPS_, STAGES = STAGES_;
    static constexpr int BLOCKS = BLOCKS_; /* on a multiprocessor */
    static constexpr int THREADS = 32 * WARPS;
    static constexpr int PANELS = MT * WARPS;
    static constexpr int ROWS = 8 * NT;
    static_assert(THREADS >= ROWS * stage_groups, "a thread has one factor");
};

using small_tile = tile<1, 4, 4, 4, 4>;
using medium_tile = tile<1, 8, 4, 3, 3>;
using large_tile = tile<2, 8, 4, 3, 2>;

/* What goes with the integers of a stage's rows. shift: of groups, or of their halves. */
template <class T> struct row_factors {
    float scale[stage_groups][T::ROWS];
    float shift[2 * stage_groups][T::ROWS];
};

template <class T> struct shared_tile {
    uint8_t x[T::STAGES][T::ROWS][stage_row_bytes];
    row_factors<T> factors[2];
    int32_t groups[T::ROWS]; /* of x that a row reads */
};

/* ---- activations */

/* Where the blocks of one stage lie in x: group g of row i at first + i * ld + g, see pl_act. */
struct act_place {
    int64_t first;
    int ld;
};

__device__ __forceinline__ act_place place_in_x(const pl_act &x, int stage)
{
    const int group = stage * stage_groups, span = group & ~(PL_SPAN_GROUPS - 1);
    return {span * x.rows + (group - span), min(PL_SPAN_GROUPS, static_cast<int>(x.blocks) - span)};
}

/* Rows change places of their 16-byte pieces, so that ldmatrix reads eight rows in 32 banks. */
__device__ __forceinline__ int piece_at(int row, int piece)
{
    return (piece ^ (row & 7)) * 16;
}

/* A thread copies the same piece of a few rows. What a row does not read is zero. */
template <class T> struct x_copy {
    static constexpr int rows = T::ROWS * pieces / T::THREADS, step = T::THREADS / pieces;
    int row, piece, group;
    int groups[rows]; /* that the rows read */

    __device__ __forceinline__ x_copy(const shared_tile<T> *sm)
        : row(threadIdx.x / pieces), piece(threadIdx.x % pieces), group(piece / (pieces / stage_groups))
    {
#pragma unroll
        for (int i = 0; i < rows; i++)
            groups[i] = sm->groups[row + i * step];
    }

    __device__ __forceinline__ void start(shared_tile<T> *sm, const pl_act &x, int first_row, int stage) const
    {
        const act_place at = place_in_x(x, stage);
        const int8_t *from = x.hi_lo + (at.first + (first_row + row) * at.ld) * 2 * PL_ACT_BLOCK + piece * 16;
        uint8_t *to = sm->x[stage % T::STAGES][row] + piece_at(row, piece); /* step is a multiple of 8 rows */
#pragma unroll
        for (int i = 0; i < rows; i++)
            ptx::cp_async_16(to + i * step * stage_row_bytes, from + i * step * at.ld * 2 * PL_ACT_BLOCK,
                             stage * stage_groups + group < groups[i]);
    }
};

/* A row's factors for one group, on their way through a thread's registers: the first 2 * ROWS threads have one. */
struct factor {
    float scale;
    int2 sum;
};

template <bool MINIMUM, class T>
__device__ __forceinline__ factor load_factor(const shared_tile<T> *sm, const pl_act &x, int first_row, int stage)
{
    const int row = threadIdx.x % T::ROWS, group = threadIdx.x / T::ROWS;
    factor f = {0, {0, 0}};
    if (group < stage_groups && stage * stage_groups + group < sm->groups[row]) {
        const act_place place = place_in_x(x, stage);
        const int64_t at = place.first + (first_row + row) * place.ld + group;
        f.scale = __ldg(x.scale + at);
        if (MINIMUM)
            f.sum = __ldg(reinterpret_cast<const int2 *>(x.sum) + at);
    }
    return f;
}

template <pl_panel_kind KIND, class T>
__device__ __forceinline__ void store_factor(shared_tile<T> *sm, factor f, int stage)
{
    const int row = threadIdx.x % T::ROWS, group = threadIdx.x / T::ROWS;
    row_factors<T> *to = &sm->factors[stage & 1];
    if (group >= stage_groups)
        return;
    to->scale[group][row] = f.scale;
    if (KIND == PL_PANEL_MIN)
        to->shift[group][row] = f.scale * static_cast<float>(f.sum.x + f.sum.y);
    if (KIND == PL_PANEL_MIN_HALVES) {
        to->shift[2 * group][row] = f.scale * static_cast<float>(f.sum.x);
        to->shift[2 * group + 1][row] = f.scale * static_cast<float>(f.sum.y);
    }
}

/* ---- weights */

template <pl_dtype TYPE> struct packed_group {
    panel::code_words<TYPE> codes;
    panel::head_words head;
    panel::scale_words scales;
};

template <pl_dtype TYPE>
__device__ __forceinline__ void load_group(packed_group<TYPE> &w, const uint8_t *of_panel, int group,
                                           panel::lane_place lane)
{
    constexpr panel::form F = panel::form_of(TYPE);
    const uint8_t *span = of_panel + static_cast<int64_t>(group / PL_SPAN_GROUPS) * F.span_bytes();
    const int in_span = group % PL_SPAN_GROUPS;
    panel::load_codes<TYPE>(w.codes, span + F.head_bytes + in_span * F.group_bytes(), lane);
    w.head = panel::load_head<TYPE>(span, lane);
    w.scales = panel::load_scales<TYPE>(span, in_span, lane);
}

/* An operand with the scales of its two rows, of the group or of its halves. */
template <pl_dtype TYPE> struct unpacked_group {
    static constexpr int parts = panel::form_of(TYPE).halves() ? 2 : 1;
    uint32_t a[4];
    panel::scale_values scale[parts][2];
};

template <pl_dtype TYPE>
__device__ __forceinline__ void unpack(unpacked_group<TYPE> &u, const packed_group<TYPE> &w, int quarter)
{
    panel::operand<TYPE>(w.codes, quarter, u.a);
#pragma unroll
    for (int h = 0; h < u.parts; h++)
#pragma unroll
        for (int row = 0; row < 2; row++)
            u.scale[h][row] = panel::scale_at<TYPE>(w.head, w.scales, h, row);
}

/* ---- sums */

constexpr int32_t magic_bits = 0x4b400000; /* of 1.5 * 2^23: plus an integer below 2^22, the bits of their sum */
constexpr float magic = 12582912.0f;

/* 128 * hi + lo, rounded to f32 once. */
__device__ __forceinline__ float whole_sum(int32_t hi, int32_t lo)
{
    const float hi_part = fmaf(__int_as_float(hi), 128.0f, -129.0f * magic); /* 128 * hi - magic, exactly */
    return hi_part + __int_as_float(lo);
}

/* Sums of 32 columns, or of those from 16 * h on. */
template <bool HALVES>
__device__ __forceinline__ void integer_sums(int32_t (&d)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1, int h)
{
#pragma unroll
    for (int e = 0; e < 4; e++)
        d[e] = magic_bits;
    if (HALVES)
        ptx::mma_s8_16816(d, a[2 * h], a[2 * h + 1], h ? b1 : b0);
    else
        ptx::mma_s8_16832(d, a, b0, b1);
}

/* Adds one group of a panel times eight rows. b: hi of columns 0 to 15 and of the others, then lo. */
template <pl_dtype TYPE>
__device__ __forceinline__ void add_group(float (&acc)[4], const unpacked_group<TYPE> &w, const uint32_t (&b)[4],
                                          float2 scale, const float2 (&shift)[2])
{
    constexpr panel::form F = panel::form_of(TYPE);
#pragma unroll
    for (int h = 0; h < w.parts; h++) {
        int32_t hi[4], lo[4];
        integer_sums<F.halves()>(hi, w.a, b[0], b[1], h);
        integer_sums<F.halves()>(lo, w.a, b[2], b[3], h);
#pragma unroll
        for (int e = 0; e < 4; e++) {
            const panel::scale_values of_row = w.scale[h][e / 2];
            acc[e] = fmaf(whole_sum(hi[e], lo[e]), of_row.d * (e % 2 ? scale.y : scale.x), acc[e]);
            if (F.minimum())
                acc[e] = fmaf(of_row.m, e % 2 ? shift[h].y : shift[h].x, acc[e]);
        }
    }
}

__device__ __forceinline__ float2 pair_at(const float *p)
{
    return *reinterpret_cast<const float2 *>(p);
}

template <pl_dtype TYPE, class T>
__device__ __forceinline__ void multiply_group(float (&acc)[T::MT][T::NT][4], const unpacked_group<TYPE> (&w)[T::MT],
                                               const shared_tile<T> *sm, int stage, int group, int lane)
{
    constexpr int parts = unpacked_group<TYPE>::parts;
    const row_factors<T> &factors = sm->factors[stage & 1];
    const int matrix_row = lane % 8, piece = group * (pieces / stage_groups) + lane / 8, pair = lane % 4 * 2;
    const uint8_t *x = sm->x[stage % T::STAGES][matrix_row] + piece_at(matrix_row, piece);
#pragma unroll
    for (int j = 0; j < T::NT; j++) {
        uint32_t b[4];
        float2 shift[2];
        if (j > 0 && (parts > 1 || j % 2 == 0))
            __syncwarp(); /* no instruction, but loads stay behind it: registers do not suffice for all at once */
        ptx::ldmatrix_x4(b, x + 8 * j * stage_row_bytes);
        const float2 scale = pair_at(&factors.scale[group][8 * j + pair]);
#pragma unroll
        for (int h = 0; h < parts && panel::form_of(TYPE).minimum(); h++)
            shift[h] = pair_at(&factors.shift[parts * group + h][8 * j + pair]);
#pragma unroll
        for (int p = 0; p < T::MT; p++)
            add_group<TYPE>(acc[p][j], w[p], b, scale, shift);
    }
}

template <class T>
__device__ __forceinline__ void store_sums(const float (&acc)[T::MT][T::NT][4], const many::job &job, int first_panel,
                                           int first_row, int lane)
{
#pragma unroll
    for (int j = 0; j < T::NT; j++) {
#pragma unroll
        for (int c = 0; c < 2; c++) {
            const int row = first_row + 8 * j + lane % 4 * 2 + c;
            if (row >= job.n_rows)
                continue;
            const int end = many::prefix(job.n_out, row, job.rows);
            float *out = job.out + row * job.out_ld;
#pragma unroll
            for (int p = 0; p < T::MT; p++) {
                const int n = (first_panel + p) * PL_PANEL_ROWS + lane / 4 * 2;
                if (n < end)
                    out[n] = acc[p][j][c];
                if (n + 1 < end)
                    out[n + 1] = acc[p][j][2 + c];
            }
        }
    }
}

/* ---- the kernel: blocks are tiles of rows times tiles of weights, of all jobs */

/* The groups of a warp's panels, loaded two before their use. Panels and groups beyond the last count as the last:
 * their sums go nowhere, or are with zeros. */
template <pl_dtype TYPE, class T> struct panel_reader {
    const uint8_t *panels[T::MT];
    packed_group<TYPE> next[T::MT], after[T::MT];
    panel::lane_place lane;
    int last_group;

    __device__ __forceinline__ panel_reader(const many::job &job, int first_panel, int groups)
        : lane(panel::place_of(threadIdx.x % 32)), last_group(max(groups - 1, 0))
    {
        constexpr panel::form F = panel::form_of(TYPE);
        const int last_panel = (job.rows - 1) / PL_PANEL_ROWS, rest = job.cols % PL_SPAN / PL_GROUP;
        const int64_t bytes = static_cast<int64_t>(job.cols / PL_SPAN) * F.span_bytes() +
                              (rest ? F.head_bytes + rest * F.group_bytes() : 0);
#pragma unroll
        for (int p = 0; p < T::MT; p++) {
            panels[p] = job.weights + min(first_panel + p, last_panel) * bytes;
            load_group<TYPE>(next[p], panels[p], 0, lane);
            load_group<TYPE>(after[p], panels[p], min(1, last_group), lane);
        }
    }

    /* Unpacks group `group`; calls come in order. */
    __device__ __forceinline__ void take(unpacked_group<TYPE> (&w)[T::MT], int group)
    {
#pragma unroll
        for (int p = 0; p < T::MT; p++) {
            unpack<TYPE>(w[p], next[p], lane.quarter);
            next[p] = after[p];
            load_group<TYPE>(after[p], panels[p], min(group + 2, last_group), lane);
        }
    }
};

template <class T> __device__ __forceinline__ void write_groups(shared_tile<T> *sm, const many::job &job, int first_row)
{
    for (int i = threadIdx.x; i < T::ROWS; i += T::THREADS) {
        const int row = first_row + i;
        sm->groups[i] = row < job.n_rows ? many::prefix(job.n_in, row, job.cols) / PL_GROUP : 0;
    }
}

template <pl_dtype TYPE, class T>
__global__ void __launch_bounds__(T::THREADS, T::BLOCKS) multiply_packed(const many::launch launch)
{
    constexpr panel::form F = panel::form_of(TYPE);
    KD_DYN_SHARED(shared_tile<T>, sm);
    const many::job &job = many::job_of_tile(launch, blockIdx.y);
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, first_row = blockIdx.x * T::ROWS;
    const int tile_panel = (blockIdx.y - job.first_tile) * T::PANELS, first_panel = tile_panel + warp * T::MT;
    if (first_row >= job.n_rows || tile_panel * PL_PANEL_ROWS >= many::prefix(job.n_out, first_row, job.rows))
        return;

    const int groups = many::prefix(job.n_in, first_row, job.cols) / PL_GROUP;
    const int stages = (groups + stage_groups - 1) / stage_groups;
    write_groups<T>(sm, job, first_row);
    panel_reader<TYPE, T> reader(job, first_panel, groups);
    __syncthreads();

    const x_copy<T> copy(sm);
#pragma unroll
    for (int s = 0; s < T::STAGES - 1; s++) {
        if (s < stages)
            copy.start(sm, launch.x, first_row, s);
        ptx::cp_async_commit();
    }
    store_factor<F.kind, T>(sm, load_factor<F.minimum(), T>(sm, launch.x, first_row, 0), 0);

    float acc[T::MT][T::NT][4] = {};
    for (int s = 0; s < stages; s++) {
        ptx::cp_async_wait<T::STAGES - 2>();
        __syncthreads();
        if (s + T::STAGES - 1 < stages)
            copy.start(sm, launch.x, first_row, s + T::STAGES - 1);
        ptx::cp_async_commit();
        const factor next = load_factor<F.minimum(), T>(sm, launch.x, first_row, s + 1);
#pragma unroll 1
        for (int g = 0; g < stage_groups; g++) {
            unpacked_group<TYPE> w[T::MT];
            reader.take(w, s * stage_groups + g);
            multiply_group<TYPE, T>(acc, w, sm, s, g, lane);
        }
        store_factor<F.kind, T>(sm, next, s + 1);
    }
    store_sums<T>(acc, job, first_panel, first_row, lane);
}

/* Blocks that keep a card's multiprocessors busy to the end. */
constexpr unsigned enough_blocks = 240;

template <class T> dim3 deal_tiles(many::launch *l)
{
    return many::deal_tiles(l, T::ROWS, T::PANELS * PL_PANEL_ROWS);
}

template <pl_dtype TYPE, class T> cudaError_t launch_tiles(cudaStream_t stream, many::launch *l)
{
    static_assert(sizeof(shared_tile<T>) <= 48 * 1024, "what a block gets without asking");
    const dim3 grid = deal_tiles<T>(l);
    return KD_LAUNCH((multiply_packed<TYPE, T>),
                     (kd::launch_cfg{grid, dim3(T::THREADS), sizeof(shared_tile<T>), stream, false}), *l);
}

/* Any tile gives the same bits, so that the number of rows may decide. */
template <pl_dtype TYPE> cudaError_t launch_type(cudaStream_t stream, many::launch *l)
{
    const dim3 large = deal_tiles<large_tile>(l);
    if (large.x > 1 && large.x * large.y >= enough_blocks)
        return launch_tiles<TYPE, large_tile>(stream, l);
    if (deal_tiles<small_tile>(l).x > 1)
        return launch_tiles<TYPE, medium_tile>(stream, l);
    return launch_tiles<TYPE, small_tile>(stream, l);
}

} // namespace

cudaError_t pl_cuda_many_packed(cudaStream_t stream, pl_dtype type, many::launch *l)
{
    switch (type) {
    case PL_Q4_0: return launch_type<PL_Q4_0>(stream, l);
    case PL_Q4_1: return launch_type<PL_Q4_1>(stream, l);
    case PL_Q5_0: return launch_type<PL_Q5_0>(stream, l);
    case PL_Q5_1: return launch_type<PL_Q5_1>(stream, l);
    case PL_Q8_0: return launch_type<PL_Q8_0>(stream, l);
    case PL_Q2_K: return launch_type<PL_Q2_K>(stream, l);
    case PL_Q3_K: return launch_type<PL_Q3_K>(stream, l);
    case PL_Q4_K: return launch_type<PL_Q4_K>(stream, l);
    case PL_Q5_K: return launch_type<PL_Q5_K>(stream, l);
    case PL_Q6_K: return launch_type<PL_Q6_K>(stream, l);
    case PL_IQ4_NL: return launch_type<PL_IQ4_NL>(stream, l);
    case PL_IQ4_XS: return launch_type<PL_IQ4_XS>(stream, l);
    case PL_MXFP4: return launch_type<PL_MXFP4>(stream, l);
    case PL_NVFP4: return launch_type<PL_NVFP4>(stream, l);
    case PL_F32:
    case PL_F16:
    case PL_BF16: break;
    }
    return cudaErrorInvalidValue;
}
