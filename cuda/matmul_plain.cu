/* The product for 1 to 16 rows of x with weights in f32, f16 or bf16, in f32.
 *
 * Moves w->bytes, once for all rows; of x, 4 bytes a value and four outputs, from the caches.
 *
 * A lane takes 16 bytes of four rows of weights at a time, loads them all before it uses the first, and keeps the sums
 * of these four with every row of x. Lanes are added in the order of kd::warp_sum(). Rows that do not begin at
 * multiples of 16 bytes, which no published model has, go through a kernel that is merely right. */
#include "cuda/matmul_plain.h"

#include "cuda/matmul_jobs.cuh"
#include "cuda/ptx.cuh"

namespace
{

constexpr int OUTPUTS = 4;

struct plain_args {
    few::batch batch;
    const float *x;
    int64_t ld;
};

/* ---- weights */

template <pl_dtype TYPE> struct element {
    static constexpr int BYTES = TYPE == PL_F32 ? 4 : 2;
    static constexpr int LANE_COLUMNS = 16 / BYTES;
};

static __device__ __forceinline__ float half_value(uint32_t bits)
{
    __half_raw h;
    h.x = static_cast<unsigned short>(bits);
    return __half2float(__half(h));
}

/* Columns [4 part, 4 part + 4). */
template <pl_dtype TYPE> __device__ __forceinline__ void four_values(float (&out)[4], uint4 w, int part)
{
    if (TYPE == PL_F32) {
        out[0] = __uint_as_float(w.x);
        out[1] = __uint_as_float(w.y);
        out[2] = __uint_as_float(w.z);
        out[3] = __uint_as_float(w.w);
        return;
    }
    const uint32_t words[2] = {part ? w.z : w.x, part ? w.w : w.y};
#pragma unroll
    for (int i = 0; i < 2; i++) {
        out[2 * i] = TYPE == PL_BF16 ? __uint_as_float(words[i] << 16) : half_value(words[i]);
        out[2 * i + 1] = TYPE == PL_BF16 ? __uint_as_float(words[i] & 0xffff0000u) : half_value(words[i] >> 16);
    }
}

/* ---- products */

/* sums += w . x over the first n of four columns. */
__device__ __forceinline__ void add_products(float *sums, const float (&w)[OUTPUTS][4], const float *x, int n)
{
    if (n <= 0)
        return;
    float4 v = __ldg(reinterpret_cast<const float4 *>(x));
#pragma unroll
    for (int o = 0; o < OUTPUTS; o++) {
        sums[o] = fmaf(w[o][0], v.x, sums[o]);
        sums[o] = n > 1 ? fmaf(w[o][1], v.y, sums[o]) : sums[o];
        sums[o] = n > 2 ? fmaf(w[o][2], v.z, sums[o]) : sums[o];
        sums[o] = n > 3 ? fmaf(w[o][3], v.w, sums[o]) : sums[o];
    }
}

/* Adds up N values over the lanes; afterwards lane l holds, in v[0] and on, those from l * N / 32. Each value's sum has
 * the bits that kd::warp_sum() gives. HELD: of the values, how many a lane still holds. */
template <int N, int HELD = N, int FAR = 16> __device__ __forceinline__ void sum_over_lanes(float (&v)[N], int lane)
{
    if (HELD == 1) {
        v[0] += __shfl_xor_sync(few::ALL, v[0], FAR);
    } else {
        bool upper = lane & FAR;
#pragma unroll
        for (int i = 0; i < HELD / 2; i++) {
            float sent = upper ? v[i] : v[i + HELD / 2], kept = upper ? v[i + HELD / 2] : v[i];
            v[i] = kept + __shfl_xor_sync(few::ALL, sent, FAR);
        }
    }
    if constexpr (FAR > 1)
        sum_over_lanes<N, (HELD > 1 ? HELD / 2 : 1), FAR / 2>(v, lane);
}

/* Adds to sums, of [ROWS][OUTPUTS], the products of the unit that starts at output `first`: of the warp's every
 * k_warps-th piece of a row from piece k on, not yet added over the lanes. */
template <pl_dtype TYPE, int ROWS>
__device__ __forceinline__ void multiply_unit(float (&sums)[ROWS * OUTPUTS], const plain_args &a, const few::job &j,
                                              int first, int k, int lane)
{
    using E = element<TYPE>;
    constexpr int PIECE = 32 * E::LANE_COLUMNS;
    size_t row_bytes = static_cast<size_t>(j.cols) * E::BYTES;
    int most = few::columns_wanted(j, first, 0);
    for (int column = k * PIECE; column < most; column += PIECE << j.k_shift) {
        int at = column + lane * E::LANE_COLUMNS;
        uint4 words[OUTPUTS];
#pragma unroll
        for (int o = 0; o < OUTPUTS; o++)
            words[o] = at < j.cols ? ptx::ld_nc_v4(j.weights + min(first + o, j.rows - 1) * row_bytes + at * E::BYTES)
                                   : uint4{0, 0, 0, 0};
#pragma unroll
        for (int part = 0; part < E::LANE_COLUMNS / 4; part++) {
            float w[OUTPUTS][4];
#pragma unroll
            for (int o = 0; o < OUTPUTS; o++)
                four_values<TYPE>(w[o], words[o], part);
#pragma unroll
            for (int r = 0; r < ROWS; r++)
                add_products(sums + r * OUTPUTS, w, a.x + r * a.ld + at + 4 * part,
                             few::columns_wanted(j, first, r) - at - 4 * part);
        }
    }
}

template <int ROWS>
__global__ void __launch_bounds__(few::THREADS, 2) matmul_plain(const __grid_constant__ plain_args a)
{
    constexpr int N = ROWS * OUTPUTS, KEPT = N < 32 ? 1 : N / 32, HOLDERS = N < 32 ? 32 / N : 1;
    KD_DYN_SHARED(float, parts);
    int block = static_cast<int>(blockIdx.x), warp = few::warp_index();
    int lane = static_cast<int>(threadIdx.x) % 32;
    const few::job &j = few::job_of_block(a.batch, block);
    int first = (block - j.first_block) * j.block_units;
    int units = min(j.block_units, (j.rows + OUTPUTS - 1) / OUTPUTS - first);
    for (int at = warp; at < units << j.k_shift; at += few::WARPS) {
        int output = (first + (at >> j.k_shift)) * OUTPUTS, k = at & ((1 << j.k_shift) - 1);
        float sums[N] = {};
        if (j.type == PL_F32)
            multiply_unit<PL_F32, ROWS>(sums, a, j, output, k, lane);
        else if (j.type == PL_F16)
            multiply_unit<PL_F16, ROWS>(sums, a, j, output, k, lane);
        else
            multiply_unit<PL_BF16, ROWS>(sums, a, j, output, k, lane);
        sum_over_lanes<N>(sums, lane);
        if (lane % HOLDERS == 0)
#pragma unroll
            for (int i = 0; i < KEPT; i++)
                parts[at * N + lane * N / 32 + i] = sums[i];
    }
    __syncthreads();
    few::store_units<ROWS, OUTPUTS>(parts, j, first * OUTPUTS, units);
}

/* A warp for each output, a row of x after the other. */
__global__ void __launch_bounds__(few::THREADS, 2) matmul_unaligned(const few::job j, const float *x, int64_t ld)
{
    int output = static_cast<int>(blockIdx.x) * few::WARPS + few::warp_index();
    int lane = static_cast<int>(threadIdx.x) % 32;
    if (output >= j.rows)
        return;
    for (int r = 0; r < j.n_rows; r++) {
        int end = few::columns_wanted(j, output, r);
        size_t first = static_cast<size_t>(output) * j.cols;
        float sum = 0;
        for (int k = lane; k < end; k += 32) {
            float w = j.type == PL_F32 ? __ldg(reinterpret_cast<const float *>(j.weights) + first + k) : 0;
            if (j.type != PL_F32) {
                uint32_t bits = __ldg(reinterpret_cast<const uint16_t *>(j.weights) + first + k);
                w = j.type == PL_F16 ? half_value(bits) : __uint_as_float(bits << 16);
            }
            sum = fmaf(w, __ldg(x + r * ld + k), sum);
        }
        sum = kd::warp_sum(sum);
        if (lane == 0 && output < (j.n_out ? __ldg(j.n_out + r) : j.rows))
            j.out[r * j.out_ld + output] = sum;
    }
}

template <int ROWS> cudaError_t launch(cudaStream_t stream, const plain_args &a, int blocks)
{
    size_t shared = few::MOST_PASSES * few::WARPS * ROWS * OUTPUTS * sizeof(float);
    kd::launch_cfg cfg = {dim3(static_cast<unsigned>(blocks)), dim3(few::THREADS), shared, stream, false};
    return KD_LAUNCH(matmul_plain<ROWS>, cfg, a);
}

cudaError_t launch_batch(cudaStream_t stream, plain_args *a)
{
    int rows = few::most_rows(a->batch), blocks = few::deal_blocks(&a->batch, OUTPUTS);
    if (rows <= 1)
        return launch<1>(stream, *a, blocks);
    return rows <= 4 ? launch<4>(stream, *a, blocks) : launch<16>(stream, *a, blocks);
}

cudaError_t launch_unaligned(cudaStream_t stream, const few::job &j, const pl_act &x)
{
    unsigned blocks = static_cast<unsigned>((j.rows + few::WARPS - 1) / few::WARPS);
    kd::launch_cfg cfg = {dim3(blocks), dim3(few::THREADS), 0, stream, false};
    return KD_LAUNCH(matmul_unaligned, cfg, j, x.f32, x.ld);
}

bool is_aligned(const pl_matmul &m)
{
    return (m.w->cols * (m.w->type == PL_F32 ? 4 : 2) | static_cast<int64_t>(m.x->ld * sizeof(float)) |
            static_cast<int64_t>(reinterpret_cast<uintptr_t>(m.w->data) | reinterpret_cast<uintptr_t>(m.x->f32))) %
               16 ==
           0;
}

} // namespace

cudaError_t pl_cuda_matmul_plain(cudaStream_t stream, const pl_matmul *jobs, int n_jobs)
{
    plain_args a = {};
    cudaError_t err = cudaSuccess;
    for (int i = 0; i < n_jobs && err == cudaSuccess; i++) {
        if (jobs[i].w->packed || jobs[i].n_rows == 0)
            continue;
        few::job j = few::describe(jobs[i], 0);
        if (!is_aligned(jobs[i])) {
            err = launch_unaligned(stream, j, *jobs[i].x);
            continue;
        }
        a.x = jobs[i].x->f32;
        a.ld = jobs[i].x->ld;
        a.batch.jobs[a.batch.n++] = j;
        if (a.batch.n == few::MOST_JOBS) {
            err = launch_batch(stream, &a);
            a.batch.n = 0;
        }
    }
    return err == cudaSuccess && a.batch.n > 0 ? launch_batch(stream, &a) : err;
}
