/* Embeddings: of words, rows of the same matrix that the head multiplies; of images and sound, rows that are there already.
 *
 * A plain type: four columns a thread in one load. A panel: eight columns a thread, two chunks of a group. A panel keeps
 * sixteen rows together, so that of 32 bytes fetched a row has 4; a row is some kilobytes and read once a step. */
#include "cuda/kernels.h"
#include "cuda/norm.cuh"
#include "cuda/panel.cuh"

namespace
{

struct source {
    const uint8_t *data;
    int64_t columns;
    pl_dtype type;
    size_t panel_bytes;
};

/* Rows that are there; see pl_embed_from. */
struct given {
    const float *hard, *soft;
    int32_t first_hard, n_hard;
};

/* nullptr: id is a word. */
__device__ __forceinline__ const float *given_row(const given &g, int32_t id, int64_t columns)
{
    if (id < 0)
        return g.soft + (-1 - static_cast<int64_t>(id)) * columns;
    if (id >= g.first_hard && id - g.first_hard < g.n_hard)
        return g.hard + static_cast<int64_t>(id - g.first_hard) * columns;
    return nullptr;
}

/* ---- plain types */

/* The first n of four elements of 16 bits. */
template <bool WIDE> __device__ __forceinline__ ushort4 load4_short(const uint16_t *p, int n)
{
    if (WIDE)
        return *reinterpret_cast<const ushort4 *>(p);
    ushort4 v = make_ushort4(0, 0, 0, 0);
    v.x = p[0];
    if (n > 1)
        v.y = p[1];
    if (n > 2)
        v.z = p[2];
    if (n > 3)
        v.w = p[3];
    return v;
}

__device__ __forceinline__ float of_half(uint16_t bits)
{
    __half_raw h;
    h.x = bits;
    return __half2float(__half(h));
}

__device__ __forceinline__ float of_bf16(uint16_t bits)
{
    return __uint_as_float(static_cast<uint32_t>(bits) << 16);
}

template <bool WIDE> __device__ __forceinline__ float4 plain4(const source &s, int64_t row, int column)
{
    const int64_t at = row * s.columns + column;
    const int n = static_cast<int>(s.columns) - column;
    if (s.type == PL_F32)
        return row::load4<WIDE>(reinterpret_cast<const float *>(s.data) + at, n);
    ushort4 v = load4_short<WIDE>(reinterpret_cast<const uint16_t *>(s.data) + at, n);
    if (s.type == PL_F16)
        return make_float4(of_half(v.x), of_half(v.y), of_half(v.z), of_half(v.w));
    return make_float4(of_bf16(v.x), of_bf16(v.y), of_bf16(v.z), of_bf16(v.w));
}

/* ---- panels */

/* d * code + m of four signed bytes; the product is exact wherever there is an m. */
__device__ __forceinline__ float4 decoded(uint32_t codes, panel::scale_values s)
{
    float v[4];
#pragma unroll
    for (int i = 0; i < 4; i++)
        v[i] = s.d * static_cast<float>(static_cast<int8_t>(codes >> 8 * i)) + s.m;
    return make_float4(v[0], v[1], v[2], v[3]);
}

/* Of chunks c and c + 4 of a group: 16 columns lie between them. */
struct two_chunks {
    float4 low, high;
};

template <pl_dtype TYPE> __device__ __forceinline__ two_chunks panel_values(const source &s, int64_t row, int column)
{
    constexpr panel::form F = panel::form_of(TYPE);
    const int in_panel = static_cast<int>(row % PL_PANEL_ROWS), group = column % PL_SPAN / PL_GROUP;
    const panel::lane_place place = {in_panel / 2, column % PL_GROUP / 4};
    const uint8_t *span = s.data + row / PL_PANEL_ROWS * s.panel_bytes + column / PL_SPAN * F.span_bytes();
    panel::code_words<TYPE> words;
    panel::load_codes<TYPE>(words, span + F.head_bytes + group * F.group_bytes(), place);
    panel::head_words head = panel::load_head<TYPE>(span, place);
    panel::scale_words scales = panel::load_scales<TYPE>(span, group, place);
    uint32_t codes[2];
    panel::row_codes<TYPE>(words, in_panel % 2, place.quarter, codes[0], codes[1]);
    return {decoded(codes[0], panel::scale_at<TYPE>(head, scales, 0, in_panel % 2)),
            decoded(codes[1], panel::scale_at<TYPE>(head, scales, F.halves(), in_panel % 2))};
}

__device__ __forceinline__ two_chunks panel_at(const source &s, int64_t row, int column)
{
    switch (s.type) {
    case PL_Q4_0: return panel_values<PL_Q4_0>(s, row, column);
    case PL_Q4_1: return panel_values<PL_Q4_1>(s, row, column);
    case PL_Q5_0: return panel_values<PL_Q5_0>(s, row, column);
    case PL_Q5_1: return panel_values<PL_Q5_1>(s, row, column);
    case PL_Q8_0: return panel_values<PL_Q8_0>(s, row, column);
    case PL_Q2_K: return panel_values<PL_Q2_K>(s, row, column);
    case PL_Q3_K: return panel_values<PL_Q3_K>(s, row, column);
    case PL_Q4_K: return panel_values<PL_Q4_K>(s, row, column);
    case PL_Q5_K: return panel_values<PL_Q5_K>(s, row, column);
    case PL_Q6_K: return panel_values<PL_Q6_K>(s, row, column);
    case PL_IQ4_NL: return panel_values<PL_IQ4_NL>(s, row, column);
    case PL_IQ4_XS: return panel_values<PL_IQ4_XS>(s, row, column);
    case PL_MXFP4: return panel_values<PL_MXFP4>(s, row, column);
    case PL_NVFP4: return panel_values<PL_NVFP4>(s, row, column);
    case PL_F32:
    case PL_F16:
    case PL_BF16: break;
    }
    return {};
}

/* ---- the op */

constexpr int threads = 128;

__device__ __forceinline__ float4 times(float4 v, float scale)
{
    return make_float4(v.x * scale, v.y * scale, v.z * scale, v.w * scale);
}

template <bool WIDE>
__global__ void __launch_bounds__(threads) plain_kernel(float *out, source s, given g, const int32_t *id, float scale)
{
    const int column = 4 * static_cast<int>(blockIdx.y * threads + threadIdx.x);
    const int left = static_cast<int>(s.columns) - column;
    if (left <= 0)
        return;
    const float *there = given_row(g, id[blockIdx.x], s.columns);
    float4 v = there ? row::load4<WIDE>(there + column, left) : times(plain4<WIDE>(s, id[blockIdx.x], column), scale);
    row::store4<WIDE>(out + blockIdx.x * s.columns + column, left, v);
}

/* Blocks of a type are of 32 columns or more, so rows end with a group. */
__global__ void __launch_bounds__(threads) packed_kernel(float *out, source s, given g, const int32_t *id, float scale)
{
    const int t = static_cast<int>(blockIdx.y * threads + threadIdx.x), column = t / 4 * PL_GROUP + t % 4 * 4;
    if (column >= s.columns)
        return;
    const float *there = given_row(g, id[blockIdx.x], s.columns);
    out += blockIdx.x * s.columns + column;
    if (there) {
        row::store4<true>(out, 4, row::load4<true>(there + column, 4));
        row::store4<true>(out + PL_GROUP / 2, 4, row::load4<true>(there + column + PL_GROUP / 2, 4));
        return;
    }
    two_chunks v = panel_at(s, id[blockIdx.x], column);
    row::store4<true>(out, 4, times(v.low, scale));
    row::store4<true>(out + PL_GROUP / 2, 4, times(v.high, scale));
}

dim3 grid(int n, int64_t columns, int thread_columns)
{
    const int64_t piece = threads * thread_columns;
    return dim3(static_cast<unsigned>(n), static_cast<unsigned>((columns + piece - 1) / piece));
}

} // namespace

extern "C" cudaError_t pl_cuda_embed(cudaStream_t stream, float *out, const pl_embed_from *from, const int32_t *id,
                                     int n)
{
    if (n == 0)
        return cudaSuccess;
    const pl_weight *table = from->table;
    const given g = {from->hard, from->soft, from->first_hard, from->n_hard};
    const int64_t columns = table->cols;
    source s = {static_cast<const uint8_t *>(table->data), columns, table->type, 0};
    if (table->packed) {
        s.panel_bytes = pl_panel_bytes(pl_panel_describe(table->type), columns);
        return KD_LAUNCH(packed_kernel, (kd::launch_cfg{grid(n, columns, 8), dim3(threads), 0, stream, false}), out, s,
                         g, id, from->scale);
    }
    auto embed = row::is_wide(columns, out, s.data, g.hard, g.soft) ? plain_kernel<true> : plain_kernel<false>;
    return KD_LAUNCH(embed, (kd::launch_cfg{grid(n, columns, 4), dim3(threads), 0, stream, false}), out, s, g, id,
                     from->scale);
}
