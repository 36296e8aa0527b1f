/* Products with plain weights for many rows of x, on the tensor cores' bf16.
 *
 * Both operands are written as sums of bf16 numbers, each the last one's rounding error rounded: 8 bits a part. Weights
 * in bf16 are one part, in f16 exactly two, in f32 three; x has two, and three against f32. Of the products of parts
 * the smallest are left out: i + j < parts of x. So a product is within
 *     bf16   2^-18    (two instructions)     of which x's rounding is all
 *     f16    2^-17    (three)                x's and the product left out
 *     f32    2^-25    (six)
 * of itself; x alone in bf16 would be within 2^-9. Sums over 32 columns are made by the tensor cores, which cut off,
 * and added up in f32: columns / 32 roundings.
 *
 * A block makes 64 rows of x times 64 of weights, in stages of 32 columns: loaded into registers one stage ahead, split
 * on the way into shared memory. Rows need no alignment; with it a thread reads 16 bytes at once.
 * Bytes: weights once for each 64 rows of x, x once for each 64 of weights; after the first time from the cache. */
#include "cuda/matmul_many.cuh"

namespace
{

constexpr int tile_rows = 64, stage_cols = 32, threads = 128;
constexpr int piece_cols = 8, row_pieces = stage_cols / piece_cols;
constexpr int thread_pieces = tile_rows * row_pieces / threads;
constexpr int row_bytes = stage_cols * 2;

template <pl_dtype TYPE> struct parts_of {
    static constexpr int w = TYPE == PL_BF16 ? 1 : TYPE == PL_F16 ? 2 : 3;
    static constexpr int x = TYPE == PL_F32 ? 3 : 2;
};

template <pl_dtype TYPE> struct shared_tile {
    uint8_t w[2][parts_of<TYPE>::w][tile_rows][row_bytes];
    uint8_t x[2][parts_of<TYPE>::x][tile_rows][row_bytes];
};

/* Of a row's four 16-byte pieces; ldmatrix reads eight rows in 32 banks. */
__device__ __forceinline__ int piece_at(int row, int piece)
{
    return (piece ^ (row >> 1 & 3)) * 16;
}

/* ---- values */

template <pl_dtype TYPE> __device__ __forceinline__ float value_at(const uint8_t *row, int k)
{
    if (TYPE == PL_F32)
        return __ldg(reinterpret_cast<const float *>(row) + k);
    const unsigned short bits = __ldg(reinterpret_cast<const unsigned short *>(row) + k);
    return TYPE == PL_F16 ? __half2float(__ushort_as_half(bits)) : __uint_as_float(static_cast<uint32_t>(bits) << 16);
}

template <pl_dtype TYPE> __device__ __forceinline__ void values_of(float (&v)[2], uint32_t two)
{
    if (TYPE == PL_BF16) {
        v[0] = __uint_as_float(two << 16);
        v[1] = __uint_as_float(two & 0xffff0000u);
    } else {
        v[0] = __half2float(__ushort_as_half(static_cast<unsigned short>(two & 0xffff)));
        v[1] = __half2float(__ushort_as_half(static_cast<unsigned short>(two >> 16)));
    }
}

/* Columns k to k + 7 of a row that has `cols`; what is beyond is zero. */
template <pl_dtype TYPE>
__device__ __forceinline__ void load_piece(float (&v)[piece_cols], const uint8_t *row, int k, int cols, bool wide)
{
    if (wide && k + piece_cols <= cols) {
        constexpr int loads = TYPE == PL_F32 ? 2 : 1, values = piece_cols / loads / 4;
#pragma unroll
        for (int i = 0; i < loads; i++) {
            const uint4 q = __ldg(reinterpret_cast<const uint4 *>(row + k * (TYPE == PL_F32 ? 4 : 2)) + i);
            const uint32_t word[4] = {q.x, q.y, q.z, q.w};
#pragma unroll
            for (int j = 0; j < 4; j++) {
                if (TYPE == PL_F32) {
                    v[4 * i + j] = __uint_as_float(word[j]);
                } else {
                    float two[2];
                    values_of<TYPE>(two, word[j]);
                    v[values * j] = two[0];
                    v[values * j + 1] = two[1];
                }
            }
        }
        return;
    }
#pragma unroll
    for (int i = 0; i < piece_cols; i++)
        v[i] = k + i < cols ? value_at<TYPE>(row, k + i) : 0;
}

/* Eight values as parts, a piece each; the parts lie part_bytes from one another. */
template <int PARTS>
__device__ __forceinline__ void store_piece(uint8_t *to, int part_bytes, const float (&value)[piece_cols])
{
    float rest[piece_cols];
#pragma unroll
    for (int i = 0; i < piece_cols; i++)
        rest[i] = value[i];
#pragma unroll
    for (int part = 0; part < PARTS; part++) {
        uint32_t word[4];
#pragma unroll
        for (int i = 0; i < 4; i++) {
            const __nv_bfloat162 two = __floats2bfloat162_rn(rest[2 * i], rest[2 * i + 1]);
            const uint32_t low = __bfloat16_as_ushort(two.x), high = __bfloat16_as_ushort(two.y);
            rest[2 * i] -= __uint_as_float(low << 16);
            rest[2 * i + 1] -= __uint_as_float(high << 16);
            word[i] = low | high << 16;
        }
        *reinterpret_cast<uint4 *>(to + part * part_bytes) = make_uint4(word[0], word[1], word[2], word[3]);
    }
}

/* ---- stages */

/* What a thread copies: the same piece of two rows of weights and two of x. Rows beyond the last count as the last. */
template <pl_dtype TYPE> struct stage_copy {
    const uint8_t *w[thread_pieces], *x[thread_pieces];
    int x_cols[thread_pieces];
    float w_value[thread_pieces][piece_cols], x_value[thread_pieces][piece_cols];
    int w_cols;
    bool w_wide, x_wide;
    int row, piece;

    __device__ __forceinline__ stage_copy(const many::job &job, const pl_act &act, int first_output, int first_row)
        : w_cols(job.cols), row(threadIdx.x / row_pieces), piece(threadIdx.x % row_pieces)
    {
        const int64_t w_ld = static_cast<int64_t>(job.cols) * (TYPE == PL_F32 ? 4 : 2);
        w_wide = ((reinterpret_cast<uintptr_t>(job.weights) | static_cast<uintptr_t>(w_ld)) & 15) == 0;
        x_wide = ((reinterpret_cast<uintptr_t>(act.f32) | static_cast<uintptr_t>(act.ld * 4)) & 15) == 0;
#pragma unroll
        for (int i = 0; i < thread_pieces; i++) {
            const int output = min(first_output + row + i * threads / row_pieces, job.rows - 1);
            const int x_row = min(first_row + row + i * threads / row_pieces, job.n_rows - 1);
            w[i] = job.weights + output * w_ld;
            x[i] = reinterpret_cast<const uint8_t *>(act.f32 + x_row * act.ld);
            x_cols[i] = many::prefix(job.n_in, x_row, job.cols);
        }
    }

    __device__ __forceinline__ void load(int stage)
    {
        const int k = stage * stage_cols + piece * piece_cols;
#pragma unroll
        for (int i = 0; i < thread_pieces; i++) {
            load_piece<TYPE>(w_value[i], w[i], k, w_cols, w_wide);
            load_piece<PL_F32>(x_value[i], x[i], k, x_cols[i], x_wide);
        }
    }

    __device__ __forceinline__ void store(shared_tile<TYPE> *sm, int stage) const
    {
#pragma unroll
        for (int i = 0; i < thread_pieces; i++) {
            const int at = row + i * threads / row_pieces;
            store_piece<parts_of<TYPE>::w>(sm->w[stage & 1][0][at] + piece_at(at, piece), sizeof sm->w[0][0],
                                           w_value[i]);
            store_piece<parts_of<TYPE>::x>(sm->x[stage & 1][0][at] + piece_at(at, piece), sizeof sm->x[0][0],
                                           x_value[i]);
        }
    }
};

/* ---- sums: a warp has 32 of the weights' rows times 32 of x */

constexpr int m_tiles = 2, n_tiles = 4;

/* 16 rows from `row` on times 16 columns: as mma's left operand, or as two right ones, of eight rows each. */
__device__ __forceinline__ void load_left(uint32_t (&a)[4], const uint8_t (*rows)[row_bytes], int row, int step)
{
    const int lane = threadIdx.x % 32, at = row + lane % 16;
    ptx::ldmatrix_x4(a, rows[at] + piece_at(at, 2 * step + lane / 16));
}

__device__ __forceinline__ void load_right(uint32_t (&b)[4], const uint8_t (*rows)[row_bytes], int row, int step)
{
    const int lane = threadIdx.x % 32, at = row + lane / 16 * 8 + lane % 8;
    ptx::ldmatrix_x4(b, rows[at] + piece_at(at, 2 * step + lane / 8 % 2));
}

template <pl_dtype TYPE>
__device__ __forceinline__ void multiply_stage(float (&acc)[m_tiles][n_tiles][4], const shared_tile<TYPE> *sm,
                                               int stage, int w_row, int x_row)
{
    constexpr int w_parts = parts_of<TYPE>::w, x_parts = parts_of<TYPE>::x;
    float sum[m_tiles][n_tiles][4] = {};
#pragma unroll
    for (int step = 0; step < stage_cols / 16; step++) {
        uint32_t a[w_parts][m_tiles][4];
#pragma unroll
        for (int i = 0; i < w_parts; i++)
#pragma unroll
            for (int m = 0; m < m_tiles; m++)
                load_left(a[i][m], sm->w[stage & 1][i], w_row + 16 * m, step);
#pragma unroll
        for (int j = 0; j < x_parts; j++)
#pragma unroll
            for (int n = 0; n < n_tiles; n += 2) {
                uint32_t b[4];
                load_right(b, sm->x[stage & 1][j], x_row + 8 * n, step);
#pragma unroll
                for (int i = 0; i < w_parts && i + j < x_parts; i++)
#pragma unroll
                    for (int m = 0; m < m_tiles; m++) {
                        ptx::mma_bf16_16816(sum[m][n], a[i][m], b[0], b[1]);
                        ptx::mma_bf16_16816(sum[m][n + 1], a[i][m], b[2], b[3]);
                    }
            }
    }
#pragma unroll
    for (int m = 0; m < m_tiles; m++)
#pragma unroll
        for (int n = 0; n < n_tiles; n++)
#pragma unroll
            for (int e = 0; e < 4; e++)
                acc[m][n][e] += sum[m][n][e];
}

__device__ __forceinline__ void store_sums(const float (&acc)[m_tiles][n_tiles][4], const many::job &job, int w_row,
                                           int x_row)
{
    const int lane = threadIdx.x % 32;
#pragma unroll
    for (int n = 0; n < n_tiles; n++) {
#pragma unroll
        for (int c = 0; c < 2; c++) {
            const int row = x_row + 8 * n + lane % 4 * 2 + c;
            if (row >= job.n_rows)
                continue;
            const int end = many::prefix(job.n_out, row, job.rows);
#pragma unroll
            for (int m = 0; m < 2 * m_tiles; m++) {
                const int output = w_row + 8 * m + lane / 4;
                if (output < end)
                    job.out[row * job.out_ld + output] = acc[m / 2][n][m % 2 * 2 + c];
            }
        }
    }
}

template <pl_dtype TYPE>
__global__ void __launch_bounds__(threads, TYPE == PL_BF16 ? 3 : 2) multiply_plain(const many::launch launch)
{
    KD_DYN_SHARED(shared_tile<TYPE>, sm);
    const many::job &job = many::job_of_tile(launch, blockIdx.y);
    const int first_row = blockIdx.x * tile_rows, first_output = (blockIdx.y - job.first_tile) * tile_rows;
    if (first_row >= job.n_rows || first_output >= many::prefix(job.n_out, first_row, job.rows))
        return;

    const int warp = threadIdx.x / 32, w_row = warp / 2 * 32, x_row = warp % 2 * 32;
    const int stages = (many::prefix(job.n_in, first_row, job.cols) + stage_cols - 1) / stage_cols;
    stage_copy<TYPE> copy(job, launch.x, first_output, first_row);
    float acc[m_tiles][n_tiles][4] = {};
    copy.load(0);
    for (int s = 0; s < stages; s++) {
        copy.store(sm, s);
        __syncthreads();
        copy.load(s + 1);
        multiply_stage<TYPE>(acc, sm, s, w_row, x_row);
    }
    store_sums(acc, job, first_output + w_row, first_row + x_row);
}

template <pl_dtype TYPE> cudaError_t launch_type(cudaStream_t stream, many::launch *l)
{
    static_assert(sizeof(shared_tile<TYPE>) <= 48 * 1024, "what a block gets without asking");
    const dim3 grid = many::deal_tiles(l, tile_rows, tile_rows);
    return KD_LAUNCH((multiply_plain<TYPE>),
                     (kd::launch_cfg{grid, dim3(threads), sizeof(shared_tile<TYPE>), stream, false}), *l);
}

} // namespace

cudaError_t pl_cuda_many_plain(cudaStream_t stream, pl_dtype type, many::launch *l)
{
    switch (type) {
    case PL_F32: return launch_type<PL_F32>(stream, l);
    case PL_F16: return launch_type<PL_F16>(stream, l);
    case PL_BF16: return launch_type<PL_BF16>(stream, l);
    default: return cudaErrorInvalidValue;
    }
}
