/* The gate of per-layer inputs: two small products, and between them p values a row that go through gelu.
 *
 * Two launches: the product of the gate, and one whose blocks make the operand of proj for themselves, in shared
 * memory, while the weights are on their way. Moves the bytes of both weights, and for each block of the second launch
 * (128 outputs) 8 bytes of each of the p values of a row, from the second cache.
 *
 * In one launch every block would have to multiply with the whole gate. At p = 256 and 2048 columns these are 1024
 * groups of some 40 instructions for a tile of four rows: on a multiprocessor that starts four a cycle more than 10,000
 * cycles, and 290 KB through its port to the second cache (64 bytes a cycle) another 4,600 if they do not overlap. That
 * is 4 to 6 us at one row; the second launch costs less than 2 us at any number. */
#include "cuda/gelu.cuh"
#include "cuda/kernels.h"
#include "cuda/matmul_packed.cuh"
#include "cuda/norm.cuh"

namespace
{

constexpr int MOST_COLUMNS = 512; /* of proj: a warp has one span */
constexpr int MOST_LOADS = 3;     /* of a group's codes */

struct proj_args {
    few::job job;      /* its x is made on entry */
    const float *gate; /* [n][p] */
    const float *ple;
    int64_t ple_ld;
    const int32_t *slot;
};

/* ---- one span of a panel, in registers before anything waits for it */

struct panel_span {
    uint2 codes[PL_SPAN_GROUPS][MOST_LOADS];
    panel::scale_words scales[PL_SPAN_GROUPS];
    panel::head_words head;
};

template <pl_dtype TYPE>
__device__ __forceinline__ void load_span(panel_span &s, const uint8_t *at, int groups, panel::lane_place lane)
{
    constexpr panel::form F = panel::form_of(TYPE);
    s.head = panel::load_head<TYPE>(at, lane);
#pragma unroll
    for (int i = 0; i < PL_SPAN_GROUPS; i++) {
        if (i < groups) {
            panel::code_words<TYPE> w;
            panel::load_codes<TYPE>(w, at + F.head_bytes + i * F.group_bytes(), lane);
#pragma unroll
            for (int j = 0; j < F.loads(); j++)
                s.codes[i][j] = w.v[j];
            s.scales[i] = panel::load_scales<TYPE>(at, i, lane);
        }
    }
}

/* ---- the operand of proj in shared memory
 * Of a row, in words: blocks of hi[4], lo[4] of 16 columns and the same of the next 16; 8 words more, so that the rows
 * of a tile lie in different banks. */

struct operand {
    uint32_t *codes;
    int2 *sum;    /* [rows][blocks] */
    float *scale; /* [rows][blocks] */
    int blocks;
};

constexpr int BLOCK_WORDS = 2 * PL_ACT_BLOCK / 4;

__host__ __device__ constexpr int row_words(int blocks)
{
    return blocks * BLOCK_WORDS + 8;
}

__device__ __forceinline__ operand operand_at(void *memory, int rows, int blocks)
{
    uint32_t *codes = static_cast<uint32_t *>(memory);
    int2 *sum = reinterpret_cast<int2 *>(codes + rows * row_words(blocks));
    return {codes, sum, reinterpret_cast<float *>(sum + rows * blocks), blocks};
}

/* gelu(gate) * ple of all rows, by all threads of the block; eight lanes for each 32 columns. */
__device__ __forceinline__ void make_operand(const operand &x, const proj_args &a)
{
    const int p = a.job.cols, quads = p / quantize::LANE_COLUMNS, all = a.job.n_rows * quads;
    const int lane = static_cast<int>(threadIdx.x) % quantize::BLOCK_LANES;
    for (int first = static_cast<int>(threadIdx.x) / 32 * 32; first < all; first += few::THREADS) {
        int at = first + static_cast<int>(threadIdx.x) % 32, row = at / quads, column = 4 * (at % quads);
        float4 v = make_float4(0, 0, 0, 0);
        if (at < all)
            v = gelu_times(row::load4<true>(a.gate + row * p + column, 4),
                           row::load4<true>(a.ple + a.slot[row] * a.ple_ld + column, 4));
        const float values[quantize::LANE_COLUMNS] = {v.x, v.y, v.z, v.w};
        quantize::codes q = quantize::encode(values);
        if (at >= all)
            continue;
        int block = column / PL_ACT_BLOCK, half = lane / 4;
        uint32_t *words = x.codes + row * row_words(x.blocks) + block * BLOCK_WORDS + half * BLOCK_WORDS / 2 + lane % 4;
        words[0] = q.hi;
        words[4] = q.lo;
        if (lane % 4 == 0)
            reinterpret_cast<int32_t *>(x.sum + row * x.blocks + block)[half] = q.sum;
        if (lane == 0)
            x.scale[row * x.blocks + block] = q.scale;
    }
}

/* A lane's share of a block of a tile's rows; n: there are in all. */
__device__ __forceinline__ packed::x_group load_x(const operand &x, int tile, int block, int n, int lane)
{
    int row = min(packed::TILE_ROWS * tile + lane / 8, n - 1), of_sum = min(packed::TILE_ROWS * tile + lane % 4, n - 1);
    const uint32_t *words = x.codes + row * row_words(x.blocks) + block * BLOCK_WORDS + lane / 4 % 2 * 4 + lane % 4;
    int at = of_sum * x.blocks + block;
    return {words[0], words[BLOCK_WORDS / 2], x.scale[at], x.sum[at]};
}

/* ---- the product */

/* The span, whose first column is in block `first`, with every row; part: [rows][OUTPUTS]. */
template <pl_dtype TYPE>
__device__ __forceinline__ void multiply_span(float *part, const panel_span &s, const operand &x, int first, int groups,
                                              int n, int lane)
{
    constexpr panel::form F = panel::form_of(TYPE);
#pragma unroll 1
    for (int tile = 0; tile * packed::TILE_ROWS < n; tile++) {
        float acc[1][2] = {};
#pragma unroll
        for (int i = 0; i < PL_SPAN_GROUPS; i++) {
            if (i < groups) {
                panel::code_words<TYPE> codes;
#pragma unroll
                for (int j = 0; j < F.loads(); j++)
                    codes.v[j] = s.codes[i][j];
                uint32_t a[4];
                panel::scale_values w[2][2];
                panel::operand<TYPE>(codes, lane % 4, a);
#pragma unroll
                for (int h = 0; h < (F.halves() ? 2 : 1); h++)
#pragma unroll
                    for (int row = 0; row < 2; row++)
                        w[h][row] = panel::scale_at<TYPE>(s.head, s.scales[i], h, row);
                packed::multiply_tile<TYPE>(acc[0], a, w, load_x(x, tile, first + i, n, lane), true);
            }
        }
        packed::store_part(part + tile * packed::TILE_ROWS * packed::OUTPUTS, acc, lane);
    }
}

template <pl_dtype TYPE> struct of_type {
    static constexpr pl_dtype type = TYPE;
};

template <class DO> __device__ __forceinline__ void for_type(pl_dtype type, const DO &run)
{
    switch (type) {
    case PL_Q4_0: return run(of_type<PL_Q4_0>());
    case PL_Q4_1: return run(of_type<PL_Q4_1>());
    case PL_Q5_0: return run(of_type<PL_Q5_0>());
    case PL_Q5_1: return run(of_type<PL_Q5_1>());
    case PL_Q8_0: return run(of_type<PL_Q8_0>());
    case PL_Q2_K: return run(of_type<PL_Q2_K>());
    case PL_Q3_K: return run(of_type<PL_Q3_K>());
    case PL_Q4_K: return run(of_type<PL_Q4_K>());
    case PL_Q5_K: return run(of_type<PL_Q5_K>());
    case PL_Q6_K: return run(of_type<PL_Q6_K>());
    case PL_IQ4_NL: return run(of_type<PL_IQ4_NL>());
    case PL_IQ4_XS: return run(of_type<PL_IQ4_XS>());
    case PL_MXFP4: return run(of_type<PL_MXFP4>());
    case PL_NVFP4: return run(of_type<PL_NVFP4>());
    default: return;
    }
}

/* A warp has one span of one panel. */
template <int TILES> __global__ void __launch_bounds__(few::THREADS, 1) proj_kernel(const __grid_constant__ proj_args a)
{
    constexpr int PART = TILES * packed::TILE_ROWS * packed::OUTPUTS;
    KD_DYN_SHARED(float, parts);
    const few::job &job = a.job;
    const int warp = few::warp_index(), lane = static_cast<int>(threadIdx.x) % 32;
    const int first = static_cast<int>(blockIdx.x) * job.block_units;
    const int panels = min(job.block_units, (job.rows + packed::OUTPUTS - 1) / packed::OUTPUTS - first);
    const int span = warp & ((1 << job.k_shift) - 1), blocks = job.cols / PL_ACT_BLOCK;
    const int groups = warp >> job.k_shift < panels ? min(PL_SPAN_GROUPS, blocks - span * PL_SPAN_GROUPS) : 0;
    operand x = operand_at(parts + few::WARPS * PART, job.n_rows, blocks);

    panel_span s = {};
    if (groups > 0)
        for_type(job.type, [&](auto t) {
            constexpr pl_dtype TYPE = decltype(t)::type;
            const uint8_t *at = job.weights + static_cast<size_t>(first + (warp >> job.k_shift)) * job.unit_bytes;
            load_span<TYPE>(s, at + span * panel::form_of(TYPE).span_bytes(), groups, panel::place_of(lane));
        });
    make_operand(x, a);
    __syncthreads();
    if (groups > 0)
        for_type(job.type, [&](auto t) {
            multiply_span<decltype(t)::type>(parts + warp * PART, s, x, span * PL_SPAN_GROUPS, groups, job.n_rows,
                                             lane);
        });
    __syncthreads();
    few::store_units<TILES * packed::TILE_ROWS, packed::OUTPUTS>(parts, job, first * packed::OUTPUTS, panels);
}

template <int TILES> cudaError_t launch(cudaStream_t stream, const proj_args &a)
{
    const few::job &j = a.job;
    size_t blocks = static_cast<size_t>(j.cols / PL_ACT_BLOCK), rows = static_cast<size_t>(j.n_rows);
    size_t parts = few::WARPS * TILES * packed::TILE_ROWS * packed::OUTPUTS * sizeof(float);
    size_t words = static_cast<size_t>(row_words(static_cast<int>(blocks))) * sizeof(uint32_t);
    size_t shared = parts + rows * (words + blocks * (sizeof(int2) + sizeof(float)));
    int grid = (few::unit_count(j) + j.block_units - 1) / j.block_units;
    kd::launch_cfg cfg = {dim3(static_cast<unsigned>(grid)), dim3(few::THREADS), shared, stream, false};
    return KD_LAUNCH(proj_kernel<TILES>, cfg, a);
}

cudaError_t multiply_proj(cudaStream_t stream, const pl_ple_block &ple, const pl_rows &rows, const pl_matmul &proj)
{
    proj_args a = {few::describe(proj), ple.gate_out, ple.ple, ple.ple_ld, rows.slot};
    a.job.block_units = few::WARPS >> a.job.k_shift;
    return rows.n <= packed::TILE_ROWS ? launch<1>(stream, a) : launch<few::MOST_ROWS / packed::TILE_ROWS>(stream, a);
}

/* The single ops behind the gate's product. */
cudaError_t multiply_singly(cudaStream_t stream, const pl_ple_block &ple, const pl_rows &rows, const pl_matmul &proj)
{
    row::integers_of(ple.mid, ple.gate_out, rows.n, ple.p);
    cudaError_t err = pl_cuda_ple_gate(stream, ple.gate_out, ple.ple, ple.ple_ld, &rows, ple.p);
    if (err == cudaSuccess && ple.proj->packed)
        err = pl_cuda_quantize(stream, ple.mid, rows.n);
    return err == cudaSuccess ? pl_cuda_matmul_few(stream, &proj, 1) : err;
}

} // namespace

extern "C" cudaError_t pl_cuda_fused_ple(cudaStream_t stream, const pl_ple_block *ple, const pl_rows *rows)
{
    const pl_matmul gate = {ple->gate, ple->x, ple->gate_out, ple->p, rows->n, nullptr, nullptr};
    const pl_matmul proj = {ple->proj, ple->mid, ple->out, ple->proj->rows, rows->n, nullptr, nullptr};
    if (rows->n == 0)
        return cudaSuccess;
    cudaError_t err = pl_cuda_matmul_few(stream, &gate, 1);
    if (err != cudaSuccess)
        return err;
    bool whole_quads = row::is_wide(ple->p, ple->gate_out, ple->ple) && row::is_wide(ple->ple_ld);
    return ple->proj->packed && ple->p <= MOST_COLUMNS && whole_quads ? multiply_proj(stream, *ple, *rows, proj)
                                                                      : multiply_singly(stream, *ple, *rows, proj);
}
