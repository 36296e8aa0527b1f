/* Rows of the per-layer-embedding table as floats, straight from the file's layout, with the bits of pl_decode.
 *
 * A block has 2048 columns of one row, a thread eight of them. The bytes are read once, 16 a thread and from a multiple
 * of 16 on, since they may come over the bus; blocks of a type stand anywhere and are taken apart in shared memory. So
 * base is a multiple of 16 and up to 15 bytes behind the last row are read. Per value: the type's bytes and 4.
 *
 * Rows that the host is still to bring are waited for: by every block of a small step; by one block alone, in a launch of
 * its own, before a large one, which would keep the whole card from other work. */
#include "cuda/kernels.h"
#include "cuda/norm.cuh"
#include "cuda/ptx.cuh"

namespace
{

constexpr int threads = 256, run = 8, columns = threads * run;
constexpr int most_waiting_rows = 4;
constexpr int most_pieces = columns * static_cast<int>(sizeof(float)) / 16 + 1;

/* pl_dtype_describe() at compile time. */
struct form {
    int elems, bytes;
};

__host__ __device__ constexpr form form_of(pl_dtype type)
{
    switch (type) {
    case PL_F32: return {1, 4};
    case PL_F16:
    case PL_BF16: return {1, 2};
    case PL_Q4_0:
    case PL_IQ4_NL: return {32, 18};
    case PL_Q4_1: return {32, 20};
    case PL_Q5_0: return {32, 22};
    case PL_Q5_1: return {32, 24};
    case PL_Q8_0: return {32, 34};
    case PL_MXFP4: return {32, 17};
    case PL_NVFP4: return {64, 36};
    case PL_Q2_K: return {256, 84};
    case PL_Q3_K: return {256, 110};
    case PL_Q4_K: return {256, 144};
    case PL_Q5_K: return {256, 176};
    case PL_Q6_K: return {256, 210};
    case PL_IQ4_XS: return {256, 136};
    }
    return {1, 1};
}

/* ---- fields of a block: quant/blocks.h */

__device__ __forceinline__ uint32_t short_at(const uint8_t *p)
{
    return p[0] | static_cast<uint32_t>(p[1]) << 8;
}

__device__ __forceinline__ float half_at(const uint8_t *p)
{
    __half_raw h;
    h.x = static_cast<unsigned short>(short_at(p));
    return __half2float(__half(h));
}

__device__ __forceinline__ int nibble(uint32_t byte, bool high)
{
    return static_cast<int>(high ? byte >> 4 : byte & 15);
}

/* pl_iq4_values and pl_e2m1_doubled, eight bytes a word. */
__device__ __forceinline__ int iq4_value(int code)
{
    const uint64_t word = code & 8 ? 0x7159453526190d01u : 0xf6eaddcfbfad9881u;
    return static_cast<int8_t>(word >> 8 * (code & 7));
}

__device__ __forceinline__ int e2m1_value(int code)
{
    const int v = static_cast<int>(0x0c08060403020100u >> 8 * (code & 7) & 15);
    return code & 8 ? -v : v;
}

__device__ __forceinline__ float mxfp4_half_scale(uint32_t e)
{
    return __uint_as_float(e < 2 ? 0x200000u << e : (e - 1) << 23);
}

__device__ __forceinline__ float nvfp4_half_scale(uint32_t d)
{
    return d == 127 ? 0 : __fmul_rn(__uint_as_float((d & 127) << 20), 0x1p119f);
}

__device__ __forceinline__ int q3_k_scale(const uint8_t *s, int j)
{
    return static_cast<int>((s[j & 7] >> 4 * (j >> 3) & 15) | (s[8 + (j & 3)] >> 2 * (j >> 2) & 3) << 4) - 32;
}

/* pl_k_scale() of group j. */
__device__ __forceinline__ int k_scale(const uint8_t *s, int j)
{
    return j < 4 ? s[j] & 63 : (s[j + 4] & 15) | (s[j - 4] >> 6) << 4;
}

__device__ __forceinline__ int k_minimum(const uint8_t *s, int j)
{
    return j < 4 ? s[j + 4] & 63 : s[j + 4] >> 4 | (s[j] >> 6) << 4;
}

/* ---- a value: step * code + offset; eight values from a multiple of eight on share step and offset */

struct scale {
    float step, offset;
};

template <pl_dtype TYPE> __device__ __forceinline__ scale scale_at(const uint8_t *b, int e)
{
    const int j = e / 32;
    switch (TYPE) {
    case PL_Q4_1:
    case PL_Q5_1: return {half_at(b), half_at(b + 2)};
    case PL_Q2_K:
        return {__fmul_rn(half_at(b + 80), static_cast<float>(b[e / 16] & 15)),
                -__fmul_rn(half_at(b + 82), static_cast<float>(b[e / 16] >> 4))};
    case PL_Q3_K: return {__fmul_rn(half_at(b + 108), static_cast<float>(q3_k_scale(b + 96, e / 16))), 0};
    case PL_Q4_K:
    case PL_Q5_K:
        return {__fmul_rn(half_at(b), static_cast<float>(k_scale(b + 4, j))),
                -__fmul_rn(half_at(b + 2), static_cast<float>(k_minimum(b + 4, j)))};
    case PL_Q6_K: return {__fmul_rn(half_at(b + 208), static_cast<float>(static_cast<int8_t>(b[192 + e / 16]))), 0};
    case PL_IQ4_XS: {
        const int low = nibble(b[4 + j / 2], j & 1), high = static_cast<int>(short_at(b + 2) >> 2 * j & 3);
        return {__fmul_rn(half_at(b), static_cast<float>((low | high << 4) - 32)), 0};
    }
    case PL_MXFP4: return {mxfp4_half_scale(b[0]), 0};
    case PL_NVFP4: return {nvfp4_half_scale(b[e / 16]), 0};
    default: return {half_at(b), 0};
    }
}

template <pl_dtype TYPE> __device__ __forceinline__ int code_at(const uint8_t *b, int e)
{
    const int j = e / 32, l = e % 32, half = e / 128;
    switch (TYPE) {
    case PL_Q4_0: return nibble(b[2 + e % 16], e & 16) - 8;
    case PL_Q4_1: return nibble(b[4 + e % 16], e & 16);
    case PL_Q5_0: return (nibble(b[6 + e % 16], e & 16) | (b[2 + e / 8] >> e % 8 & 1) << 4) - 16;
    case PL_Q5_1: return nibble(b[8 + e % 16], e & 16) | (b[4 + e / 8] >> e % 8 & 1) << 4;
    case PL_Q8_0: return static_cast<int8_t>(b[2 + e]);
    case PL_Q2_K: return b[16 + 32 * half + l] >> 2 * (j % 4) & 3;
    case PL_Q3_K: return (b[32 + 32 * half + l] >> 2 * (j % 4) & 3) - (b[l] >> j & 1 ? 0 : 4);
    case PL_Q4_K: return nibble(b[16 + 32 * (j / 2) + l], j & 1);
    case PL_Q5_K: return nibble(b[48 + 32 * (j / 2) + l], j & 1) | (b[16 + l] >> j & 1) << 4;
    case PL_Q6_K: {
        const int quarter = j % 4, low = nibble(b[64 * half + 32 * (quarter & 1) + l], quarter >= 2);
        return (low | (b[128 + 32 * half + l] >> 2 * quarter & 3) << 4) - 32;
    }
    case PL_IQ4_NL: return iq4_value(nibble(b[2 + e % 16], e & 16));
    case PL_IQ4_XS: return iq4_value(nibble(b[8 + 16 * j + e % 16], e & 16));
    case PL_MXFP4: return e2m1_value(nibble(b[1 + e % 16], e & 16));
    case PL_NVFP4: return e2m1_value(nibble(b[4 + 8 * (e / 16) + e % 8], e & 8));
    default: return 0;
    }
}

/* Values e to e + 7 of the block at b; of a plain type, the eight at b. */
template <pl_dtype TYPE> __device__ __forceinline__ void decode(const uint8_t *b, int e, float (&v)[run])
{
    if constexpr (form_of(TYPE).elems == 1) {
#pragma unroll
        for (int i = 0; i < run; i++) {
            const uint8_t *p = b + i * form_of(TYPE).bytes;
            if (TYPE == PL_F32)
                v[i] = __uint_as_float(short_at(p) | short_at(p + 2) << 16);
            else
                v[i] = TYPE == PL_F16 ? half_at(p) : __uint_as_float(short_at(p) << 16);
        }
    } else {
        constexpr bool OFFSET = TYPE == PL_Q4_1 || TYPE == PL_Q5_1 || TYPE == PL_Q2_K || TYPE == PL_Q4_K ||
                                TYPE == PL_Q5_K;
        const scale s = scale_at<TYPE>(b, e);
#pragma unroll
        for (int i = 0; i < run; i++) {
            v[i] = __fmul_rn(s.step, static_cast<float>(code_at<TYPE>(b, e + i)));
            if (OFFSET)
                v[i] = __fadd_rn(v[i], s.offset);
        }
    }
}

/* ---- the op */

/* v = this thread's values among columns first to first + n - 1 of the row at src. */
template <pl_dtype TYPE>
__device__ __forceinline__ void look(const uint8_t *src, int first, int n, uint4 *raw, float (&v)[run])
{
    constexpr form F = form_of(TYPE);
    src += static_cast<size_t>(first / F.elems) * F.bytes;
    const int lead = static_cast<int>(reinterpret_cast<uintptr_t>(src) % 16);
    const int pieces = (lead + (n + F.elems - 1) / F.elems * F.bytes + 15) / 16;
    const uint4 *wide = reinterpret_cast<const uint4 *>(src - lead);
    for (int i = static_cast<int>(threadIdx.x); i < pieces; i += threads)
        raw[i] = wide[i];
    __syncthreads();
    const int at = run * static_cast<int>(threadIdx.x);
    if (at < n)
        decode<TYPE>(reinterpret_cast<const uint8_t *>(raw) + lead + at / F.elems * F.bytes, at % F.elems, v);
}

__device__ __forceinline__ bool is_finite(float v)
{
    return (__float_as_uint(v) & 0x7fffffffu) < 0x7f800000u;
}

__device__ __forceinline__ const uint8_t *row_at(const pl_ple_rows &from, const int32_t *id, int row)
{
    const uint8_t *base = static_cast<const uint8_t *>(from.base);
    if (from.ready)
        return base + *from.ticket % from.slots * from.slot_bytes + static_cast<size_t>(row) * from.row_bytes;
    const int32_t token = id[row];
    return base + static_cast<size_t>(token >= 0 && token < from.vocab ? token : 0) * from.row_bytes;
}

__device__ __forceinline__ void look_any(pl_dtype type, const uint8_t *src, int first, int n, uint4 *raw,
                                         float (&v)[run])
{
    switch (type) {
    case PL_F32: return look<PL_F32>(src, first, n, raw, v);
    case PL_F16: return look<PL_F16>(src, first, n, raw, v);
    case PL_BF16: return look<PL_BF16>(src, first, n, raw, v);
    case PL_Q4_0: return look<PL_Q4_0>(src, first, n, raw, v);
    case PL_Q4_1: return look<PL_Q4_1>(src, first, n, raw, v);
    case PL_Q5_0: return look<PL_Q5_0>(src, first, n, raw, v);
    case PL_Q5_1: return look<PL_Q5_1>(src, first, n, raw, v);
    case PL_Q8_0: return look<PL_Q8_0>(src, first, n, raw, v);
    case PL_Q2_K: return look<PL_Q2_K>(src, first, n, raw, v);
    case PL_Q3_K: return look<PL_Q3_K>(src, first, n, raw, v);
    case PL_Q4_K: return look<PL_Q4_K>(src, first, n, raw, v);
    case PL_Q5_K: return look<PL_Q5_K>(src, first, n, raw, v);
    case PL_Q6_K: return look<PL_Q6_K>(src, first, n, raw, v);
    case PL_IQ4_NL: return look<PL_IQ4_NL>(src, first, n, raw, v);
    case PL_IQ4_XS: return look<PL_IQ4_XS>(src, first, n, raw, v);
    case PL_MXFP4: return look<PL_MXFP4>(src, first, n, raw, v);
    case PL_NVFP4: return look<PL_NVFP4>(src, first, n, raw, v);
    }
}

__device__ __forceinline__ void wait_for_rows(const pl_ple_rows &from)
{
    if (threadIdx.x == 0)
        while (static_cast<int32_t>(ptx::ld_acquire_sys(from.ready) - *from.ticket) < 0) {}
    __syncthreads();
}

__global__ void __launch_bounds__(32) wait_kernel(pl_ple_rows from)
{
    wait_for_rows(from);
}

/* WIDE: quads of a row of ple are whole and in 16-byte places. */
template <bool WIDE>
__global__ void __launch_bounds__(threads) look_kernel(float *ple, int64_t ld, pl_ple_rows from, bool wait,
                                                       const int32_t *id, const int32_t *layers, int p, int32_t *bad)
{
    KD_SHARED(uint4, raw, [most_pieces]);
    const int row = static_cast<int>(blockIdx.x), first = columns * static_cast<int>(blockIdx.y);
    const int left = layers[row] * p - first, n = left < columns ? left : columns;
    if (n <= 0)
        return;
    if (wait)
        wait_for_rows(from);
    float v[run] = {};
    look_any(from.type, row_at(from, id, row), first, n, raw, v);
    const int at = run * static_cast<int>(threadIdx.x);
    float *out = ple + row * ld + first + at;
    bool finite = true;
#pragma unroll
    for (int q = 0; q < run; q += 4) {
        row::store4<WIDE>(out + q, n - at - q, make_float4(v[q], v[q + 1], v[q + 2], v[q + 3]));
#pragma unroll
        for (int i = q; i < q + 4; i++)
            finite = finite && (is_finite(v[i]) || at + i >= n);
    }
    if (!finite)
        atomicExch(bad, row + 1);
}

} // namespace

extern "C" cudaError_t pl_cuda_ple_look(cudaStream_t stream, float *ple, int64_t ld, const pl_ple_rows *from,
                                        const int32_t *id, const int32_t *layers, int n, int p, int32_t *bad)
{
    if (n == 0)
        return cudaSuccess;
    const dim3 grid(static_cast<unsigned>(n), static_cast<unsigned>((ld + columns - 1) / columns));
    const bool alone = from->ready && n > most_waiting_rows;
    if (alone) {
        const cudaError_t error = KD_LAUNCH(wait_kernel, (kd::launch_cfg{dim3(1), dim3(32), 0, stream, false}), *from);
        if (error)
            return error;
    }
    auto look = p % 4 == 0 && row::is_wide(ld, ple) ? look_kernel<true> : look_kernel<false>;
    return KD_LAUNCH(look, (kd::launch_cfg{grid, dim3(threads), 0, stream, false}), ple, ld, *from,
                     from->ready && !alone, id, layers, p, bad);
}
