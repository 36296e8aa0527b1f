/* The gate of per-layer inputs: two small products, and between them p values a row that go through gelu.
 *
 * Up to four rows take one launch. Some of its blocks multiply with the gate. The others, which multiply with proj, have
 * their weights on the way into registers meanwhile, wait until the gate's product is there, and then make the operand
 * for themselves, in shared memory. So the second product costs neither a launch nor the way to its weights, only that
 * of p values a row through the second cache. The launch is cooperative, or those who wait might keep the others out.
 *
 * For more rows, and where that does not fit, the gate is a launch of its own. Either way moves the bytes of both
 * weights, and for each block with proj (at most 128 outputs at once) 8 bytes of each of the p values of a row, from the
 * second cache.
 *
 * Without a wait every block would have to multiply with the whole gate. At p = 256 and 2048 columns these are 1024
 * groups of some 40 instructions for a tile of four rows: on a multiprocessor that starts four a cycle more than 10,000
 * cycles, and 290 KB through its port to the second cache (64 bytes a cycle) another 4,600 if they do not overlap. That
 * is 4 to 6 us at one row. */
#include "cuda/gelu.cuh"
#include "cuda/kernels.h"
#include "cuda/matmul_packed.cuh"
#include "cuda/norm.cuh"

namespace
{

constexpr int MOST_COLUMNS = 512; /* of proj: a warp has one span */
constexpr int MOST_LOADS = 3;     /* of a group's codes */

struct proj_args {
    few::job job;      /* its x is made by each block */
    const float *gate; /* [n][p]; the launch that reads it may have written it */
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

/* Panels from those of the block on, all that come to it of `blocks`; of those at once a warp has one span of one.
 * gate_done(): waits, all threads of the block call it. */
template <int TILES, class WAIT>
__device__ __forceinline__ void multiply_proj(float *parts, const proj_args &a, int block, int blocks, WAIT gate_done)
{
    constexpr int PART = TILES * packed::TILE_ROWS * packed::OUTPUTS;
    const few::job &job = a.job;
    const int warp = few::warp_index(), lane = static_cast<int>(threadIdx.x) % 32, unit = warp >> job.k_shift;
    const int span = warp & ((1 << job.k_shift) - 1), wide = job.cols / PL_ACT_BLOCK;
    const int all = (job.rows + packed::OUTPUTS - 1) / packed::OUTPUTS;
    const operand x = operand_at(parts + few::WARPS * PART, job.n_rows, wide);

#pragma unroll 1
    for (int first = block * job.block_units; first < all; first += blocks * job.block_units) {
        const int panels = min(job.block_units, all - first);
        const int groups = unit < panels ? min(PL_SPAN_GROUPS, wide - span * PL_SPAN_GROUPS) : 0;
        panel_span s = {};
        if (groups > 0)
            for_type(job.type, [&](auto t) {
                constexpr pl_dtype TYPE = decltype(t)::type;
                const uint8_t *at = job.weights + static_cast<size_t>(first + unit) * job.unit_bytes;
                load_span<TYPE>(s, at + span * panel::form_of(TYPE).span_bytes(), groups, panel::place_of(lane));
            });
        if (first == block * job.block_units) {
            gate_done();
            make_operand(x, a);
        }
        __syncthreads();
        if (groups > 0)
            for_type(job.type, [&](auto t) {
                multiply_span<decltype(t)::type>(parts + warp * PART, s, x, span * PL_SPAN_GROUPS, groups, job.n_rows,
                                                 lane);
            });
        __syncthreads();
        few::store_units<TILES * packed::TILE_ROWS, packed::OUTPUTS>(parts, job, first * packed::OUTPUTS, panels);
    }
}

__global__ void __launch_bounds__(few::THREADS, 1) proj_kernel(const __grid_constant__ proj_args a)
{
    KD_DYN_SHARED(float, parts);
    multiply_proj<few::MOST_ROWS / packed::TILE_ROWS>(parts, a, static_cast<int>(blockIdx.x),
                                                      static_cast<int>(gridDim.x), [] {});
}

/* ---- both products in one launch, for a tile of rows
 * The barrier: every block adds to it once, all of a launch together 2^31, so that the upper bit turns when the last
 * one has come, and the others are zero again. It need not be reset, and the next launch may have other blocks. */

constexpr unsigned TURNS = 1u << 31;

struct ple_args {
    few::job gate;
    proj_args proj;
    unsigned *barrier;
    int gate_blocks; /* the first; the rest are for proj */
};

/* As matmul_few has it. */
__device__ __forceinline__ void multiply_gate(float *parts, const few::job &job, int block, int blocks)
{
    constexpr int PART = packed::TILE_ROWS * packed::OUTPUTS;
    const int lane = static_cast<int>(threadIdx.x) % 32, all = (job.rows + packed::OUTPUTS - 1) / packed::OUTPUTS;
#pragma unroll 1
    for (int first = block * job.block_units; first < all; first += blocks * job.block_units) {
        const int panels = min(job.block_units, all - first), at = few::warp_index();
        if (at < panels << job.k_shift)
            packed::multiply_part<1, 1, false>(parts + at * PART, job, first + (at >> job.k_shift),
                                               at & ((1 << job.k_shift) - 1), lane);
        __syncthreads();
        few::store_units<packed::TILE_ROWS, packed::OUTPUTS>(parts, job, first * packed::OUTPUTS, panels);
        __syncthreads();
    }
}

__global__ void __launch_bounds__(few::THREADS, 1) ple_kernel(const __grid_constant__ ple_args a)
{
    KD_DYN_SHARED(float, parts);
    const int block = static_cast<int>(blockIdx.x);
    if (block < a.gate_blocks) {
        multiply_gate(parts, a.gate, block, a.gate_blocks);
        if (threadIdx.x == 0)
            ptx::atom_add_release(a.barrier, block == 0 ? TURNS - (gridDim.x - 1) : 1);
        return;
    }
    unsigned before = 0;
    if (threadIdx.x == 0)
        before = atomicAdd(a.barrier, 1u); /* without release: it has written nothing */
    multiply_proj<1>(parts, a.proj, block - a.gate_blocks, static_cast<int>(gridDim.x) - a.gate_blocks, [&] {
        if (threadIdx.x == 0)
            while (((ptx::ld_acquire(a.barrier) ^ before) & TURNS) == 0)
                ;
        __syncthreads();
    });
}

/* ---- launches */

size_t shared_bytes(const few::job &proj, int tiles)
{
    size_t blocks = static_cast<size_t>(proj.cols / PL_ACT_BLOCK), rows = static_cast<size_t>(proj.n_rows);
    size_t parts = few::WARPS * static_cast<size_t>(tiles) * packed::TILE_ROWS * packed::OUTPUTS * sizeof(float);
    size_t words = static_cast<size_t>(row_words(static_cast<int>(blocks))) * sizeof(uint32_t);
    return parts + rows * (words + blocks * (sizeof(int2) + sizeof(float)));
}

int blocks_of(const few::job &j)
{
    return (few::unit_count(j) + j.block_units - 1) / j.block_units;
}

int min_of(int a, int b)
{
    return a < b ? a : b;
}

proj_args describe_proj(const pl_ple_block &ple, const pl_rows &rows, const pl_matmul &proj)
{
    proj_args a = {few::describe(proj), ple.gate_out, ple.ple, ple.ple_ld, rows.slot};
    a.job.block_units = few::WARPS >> a.job.k_shift;
    return a;
}

cudaError_t launch_proj(cudaStream_t stream, const proj_args &a)
{
    size_t shared = shared_bytes(a.job, few::MOST_ROWS / packed::TILE_ROWS);
    kd::launch_cfg cfg = {dim3(static_cast<unsigned>(blocks_of(a.job))), dim3(few::THREADS), shared, stream, false};
    return KD_LAUNCH(proj_kernel, cfg, a);
}

/* A block for each multiprocessor at most: so many fit at once. Those that the gate leaves share proj evenly. */
cudaError_t launch_both(cudaStream_t stream, const pl_matmul &gate, const proj_args &proj, void *barrier,
                        int processors)
{
    ple_args a = {few::describe(gate), proj, static_cast<unsigned *>(barrier), 0};
    few::job &p = a.proj.job;
    a.gate.block_units = few::WARPS >> a.gate.k_shift;
    a.gate_blocks = min_of(blocks_of(a.gate), processors / 2);
    int left = processors - a.gate_blocks;
    p.block_units = min_of(p.block_units, (few::unit_count(p) + left - 1) / left);
    unsigned blocks = static_cast<unsigned>(a.gate_blocks + min_of(blocks_of(p), left));
    kd::launch_cfg cfg = {dim3(blocks), dim3(few::THREADS), shared_bytes(p, 1), stream, true};
    return KD_LAUNCH(ple_kernel, cfg, a);
}

/* Multiprocessors that a launch with a barrier has; 0: there are no such launches. */
cudaError_t cooperative_processors(int *out)
{
    int can = 0;
    *out = 0;
    cudaError_t err = kd::card_attribute(&can, cudaDevAttrCooperativeLaunch);
    return err == cudaSuccess && can ? kd::card_attribute(out, cudaDevAttrMultiProcessorCount) : err;
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

extern "C" cudaError_t pl_cuda_fused_ple(cudaStream_t stream, const pl_ple_block *ple, const pl_rows *rows,
                                         void *barrier)
{
    const pl_matmul gate = {ple->gate, ple->x, ple->gate_out, ple->p, rows->n, nullptr, nullptr};
    const pl_matmul proj = {ple->proj, ple->mid, ple->out, ple->proj->rows, rows->n, nullptr, nullptr};
    const bool whole_quads = row::is_wide(ple->p, ple->gate_out, ple->ple) && row::is_wide(ple->ple_ld);
    const bool in_blocks = ple->proj->packed && ple->p <= MOST_COLUMNS && whole_quads;
    int processors = 0;
    cudaError_t err = cudaSuccess;
    if (rows->n == 0)
        return cudaSuccess;
    if (in_blocks && ple->gate->packed && rows->n <= packed::TILE_ROWS)
        err = cooperative_processors(&processors);
    if (err == cudaSuccess && processors >= 2)
        return launch_both(stream, gate, describe_proj(*ple, *rows, proj), barrier, processors);
    if (err == cudaSuccess)
        err = pl_cuda_matmul_few(stream, &gate, 1);
    if (err != cudaSuccess)
        return err;
    return in_blocks ? launch_proj(stream, describe_proj(*ple, *rows, proj))
                     : multiply_singly(stream, *ple, *rows, proj);
}
