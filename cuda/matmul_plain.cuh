/* The product of four rows of weights in f32, f16 or bf16 with up to 16 rows of x, in f32, by one warp.
 *
 * A lane takes 16 bytes of four rows of weights at a time, loads them all before it uses the first, and keeps the sums
 * of these four with every row of x. Lanes are added in the order of kd::warp_sum(). */
#ifndef PL_CUDA_MATMUL_PLAIN_CUH
#define PL_CUDA_MATMUL_PLAIN_CUH

#include "cuda/matmul_jobs.cuh"
#include "cuda/ptx.cuh"

namespace plain
{

constexpr int OUTPUTS = few::PLAIN_OUTPUTS;

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
template <pl_dtype TYPE> static __device__ __forceinline__ void four_values(float (&out)[4], uint4 w, int part)
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
static __device__ __forceinline__ void add_products(float *sums, const float (&w)[OUTPUTS][4], const float *x, int n)
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
template <int N, int HELD = N, int FAR = 16>
static __device__ __forceinline__ void sum_over_lanes(float (&v)[N], int lane)
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
static __device__ __forceinline__ void multiply_unit(float (&sums)[ROWS * OUTPUTS], const few::job &j, int first,
                                                     int from, int k, int lane)
{
    using E = element<TYPE>;
    constexpr int PIECE = 32 * E::LANE_COLUMNS;
    size_t row_bytes = static_cast<size_t>(j.cols) * E::BYTES;
    int most = few::columns_wanted(j, first, from);
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
                add_products(sums + r * OUTPUTS, w, j.x.f32 + (from + r) * j.x.ld + at + 4 * part,
                             few::columns_wanted(j, first, from + r) - at - 4 * part);
        }
    }
}

/* Warp k's sums, over every k_warps-th piece of a row, of the unit that starts at output `first` with rows
 * [from, from + ROWS) of x, into its part of [ROWS][OUTPUTS]. */
template <int ROWS>
static __device__ __forceinline__ void multiply_rows(float *part, const few::job &j, int first, int from, int k,
                                                     int lane)
{
    constexpr int N = ROWS * OUTPUTS, KEPT = N < 32 ? 1 : N / 32, HOLDERS = N < 32 ? 32 / N : 1;
    float sums[N] = {};
    if (j.type == PL_F32)
        multiply_unit<PL_F32, ROWS>(sums, j, first, from, k, lane);
    else if (j.type == PL_F16)
        multiply_unit<PL_F16, ROWS>(sums, j, first, from, k, lane);
    else
        multiply_unit<PL_BF16, ROWS>(sums, j, first, from, k, lane);
    sum_over_lanes<N>(sums, lane);
    if (lane % HOLDERS == 0)
#pragma unroll
        for (int i = 0; i < KEPT; i++)
            part[lane * N / 32 + i] = sums[i];
}

/* The same for all of ROWS rows, at most STEP at a time, reading the weights anew. */
template <int ROWS, int STEP>
static __device__ __forceinline__ void multiply_part(float *part, const few::job &j, int first, int k, int lane)
{
#pragma unroll 1
    for (int r = 0; r < ROWS && (r == 0 || r < j.n_rows); r += STEP)
        multiply_rows<STEP>(part + r * OUTPUTS, j, first, r, k, lane);
}

} // namespace plain

#endif
