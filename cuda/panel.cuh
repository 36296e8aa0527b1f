/* Reading a panel (host/cpu/panel.h) as a warp's tensor cores want it: the 16 rows times 32 columns of a group are the
 * left operand of mma.m16n8k32, with panel rows 2 p and 2 p + 1 as its rows p and p + 8.
 *
 * Lane 4 p + q holds chunks q and q + 4 of these two rows, so of 4-bit codes 8 bytes, which are 256 bytes in one piece
 * for the warp. Codes come out as signed bytes: code - offset, the table's value, or the code where the type has a
 * minimum. */
#ifndef PL_CUDA_PANEL_CUH
#define PL_CUDA_PANEL_CUH

#include "cuda/ptx.cuh"
#include "host/cpu/panel.h"

namespace panel
{

struct form {
    pl_panel_kind kind;
    int bits, offset, head_bytes;
    bool table;

    __host__ __device__ constexpr bool halves() const
    {
        return kind == PL_PANEL_HALVES || kind == PL_PANEL_MIN_HALVES;
    }
    __host__ __device__ constexpr bool minimum() const
    {
        return kind == PL_PANEL_MIN || kind == PL_PANEL_MIN_HALVES;
    }
    __host__ __device__ constexpr int low_bits() const /* in nibbles */
    {
        return bits < 4 ? 0 : 4;
    }
    __host__ __device__ constexpr bool pairs() const
    {
        return bits == 2 || bits == 3 || bits == 6;
    }
    __host__ __device__ constexpr bool top() const
    {
        return bits == 3 || bits == 5;
    }
    __host__ __device__ constexpr int group_bytes() const
    {
        return bits * PL_CHUNK_BYTES;
    }
    __host__ __device__ constexpr int span_bytes() const
    {
        return head_bytes + PL_SPAN_GROUPS * group_bytes();
    }
    __host__ __device__ constexpr int loads() const /* of 8 bytes a lane, for a group's codes */
    {
        return bits == 8 ? 2 : (low_bits() ? 1 : 0) + (pairs() ? 2 : 0) + (top() ? 1 : 0);
    }
};

/* pl_panel_describe() at compile time. */
__host__ __device__ constexpr form form_of(pl_dtype type)
{
    switch (type) {
    case PL_Q4_0: return {PL_PANEL_OFFSET, 4, 8, 256, false};
    case PL_Q4_1: return {PL_PANEL_MIN, 4, 0, 512, false};
    case PL_Q5_0: return {PL_PANEL_OFFSET, 5, 16, 256, false};
    case PL_Q5_1: return {PL_PANEL_MIN, 5, 0, 512, false};
    case PL_Q8_0: return {PL_PANEL_OFFSET, 8, 128, 256, false};
    case PL_Q2_K: return {PL_PANEL_MIN_HALVES, 2, 0, 320, false};
    case PL_Q3_K: return {PL_PANEL_HALVES, 3, 4, 320, false};
    case PL_Q4_K: return {PL_PANEL_MIN, 4, 0, 320, false};
    case PL_Q5_K: return {PL_PANEL_MIN, 5, 0, 320, false};
    case PL_Q6_K: return {PL_PANEL_HALVES, 6, 32, 320, false};
    case PL_IQ4_NL: return {PL_PANEL_OFFSET, 4, 0, 256, true};
    case PL_IQ4_XS: return {PL_PANEL_OFFSET, 4, 0, 192, true};
    case PL_MXFP4: return {PL_PANEL_OFFSET, 4, 0, 128, true};
    case PL_NVFP4: return {PL_PANEL_HALVES, 4, 0, 256, true};
    case PL_F32:
    case PL_F16:
    case PL_BF16: break;
    }
    return {PL_PANEL_OFFSET, 0, 0, 0, false};
}

struct lane_place {
    int pair, quarter; /* rows 2 pair and 2 pair + 1, chunks quarter and quarter + 4 */
};

static __device__ __forceinline__ lane_place place_of(int lane)
{
    return {lane >> 2, lane & 3};
}

/* ---- codes */

template <pl_dtype TYPE> struct code_words {
    uint2 v[form_of(TYPE).loads()]; /* x: row 2 pair, y: row 2 pair + 1; nibbles or bytes, pairs, top */
};

template <pl_dtype TYPE>
static __device__ __forceinline__ void load_codes(code_words<TYPE> &w, const uint8_t *group, lane_place lane)
{
    constexpr form F = form_of(TYPE);
    const uint8_t *rows = group + 8 * lane.pair;
    int n = 0;
    if constexpr (F.low_bits())
        w.v[n++] = ptx::ld_nc_v2(rows + lane.quarter * PL_CHUNK_BYTES);
    if constexpr (F.bits == 8)
        w.v[n++] = ptx::ld_nc_v2(rows + (lane.quarter + 4) * PL_CHUNK_BYTES);
    if constexpr (F.pairs()) {
        w.v[n++] = ptx::ld_nc_v2(rows + F.low_bits() * PL_CHUNK_BYTES);
        w.v[n++] = ptx::ld_nc_v2(rows + (F.low_bits() + 1) * PL_CHUNK_BYTES);
    }
    if constexpr (F.top())
        w.v[n++] = ptx::ld_nc_v2(rows + (F.bits - 1) * PL_CHUNK_BYTES);
}

/* Signed bytes, entries 0 to 15 of a type's table, four a word. */
template <pl_dtype TYPE> static __device__ __forceinline__ uint4 table_of()
{
    if (TYPE == PL_IQ4_NL || TYPE == PL_IQ4_XS)
        return {0xbfad9881u, 0xf6eaddcfu, 0x26190d01u, 0x71594535u};
    return {0x03020100u, 0x0c080604u, 0xfdfeff00u, 0xf4f8fafcu};
}

/* Table entries for four nibbles, in bits 0 to 15 of nibbles. */
static __device__ __forceinline__ uint32_t look_up_four(uint4 table, uint32_t nibbles)
{
    uint32_t index = nibbles & 0x7777;
    uint32_t below8 = __byte_perm(table.x, table.y, index), from8 = __byte_perm(table.z, table.w, index);
    return __byte_perm(below8, from8, 0x3210 | (nibbles & 0x8888) >> 1);
}

/* low: of the low nibbles of the four bytes, high: of the others. */
template <pl_dtype TYPE> static __device__ __forceinline__ void look_up(uint32_t bytes, uint32_t &low, uint32_t &high)
{
    uint4 table = table_of<TYPE>();
    uint32_t first = look_up_four(table, bytes), second = look_up_four(table, bytes >> 16);
    low = __byte_perm(first, second, 0x6420);
    high = __byte_perm(first, second, 0x7531);
}

/* Four codes minus the offset. No sum carries into the next byte. */
template <pl_dtype TYPE> static __device__ __forceinline__ uint32_t centred(uint32_t codes)
{
    constexpr form F = form_of(TYPE);
    if (F.bits == 8)
        return codes ^ 0x80808080u;
    if (F.offset == 0)
        return codes;
    return (codes + (128 - F.offset) * 0x01010101u) ^ 0x80808080u;
}

template <pl_dtype TYPE>
static __device__ __forceinline__ void row_codes(const code_words<TYPE> &w, bool second, int quarter, uint32_t &low,
                                                 uint32_t &high)
{
    constexpr form F = form_of(TYPE);
    uint32_t v[F.loads()];
#pragma unroll
    for (int i = 0; i < F.loads(); i++)
        v[i] = second ? w.v[i].y : w.v[i].x;
    int n = 0;
    low = high = 0;
    if constexpr (F.table) {
        look_up<TYPE>(v[0], low, high);
    } else if constexpr (F.bits == 8) {
        low = v[n++];
        high = v[n++];
    } else if constexpr (F.low_bits()) {
        low = v[n] & 0x0f0f0f0fu;
        high = v[n++] >> 4 & 0x0f0f0f0fu;
    }
    if constexpr (F.pairs()) {
        low |= (v[n++] >> 2 * quarter & 0x03030303u) << F.low_bits();
        high |= (v[n++] >> 2 * quarter & 0x03030303u) << F.low_bits();
    }
    if constexpr (F.top()) {
        uint32_t top = v[n++] >> quarter;
        low |= (top & 0x01010101u) << (F.bits - 1);
        high |= (top >> 4 & 0x01010101u) << (F.bits - 1);
    }
    low = centred<TYPE>(low);
    high = centred<TYPE>(high);
}

/* The operand's registers: 0 and 1 hold columns 0 to 15 of the group, 2 and 3 the others. */
template <pl_dtype TYPE>
static __device__ __forceinline__ void operand(const code_words<TYPE> &w, int quarter, uint32_t (&a)[4])
{
    row_codes<TYPE>(w, false, quarter, a[0], a[2]);
    row_codes<TYPE>(w, true, quarter, a[1], a[3]);
}

/* ---- scales */

/* Two rows' f16 of the whole span, where the type has such. */
struct head_words {
    uint32_t d, m;
};

/* Two rows' scale and minimum of a group, as stored; or scales of its halves. */
struct scale_words {
    uint32_t a, b;
};

static __device__ __forceinline__ uint32_t load_two_bytes(const uint8_t *p)
{
    return __ldg(reinterpret_cast<const uint16_t *>(p));
}

static __device__ __forceinline__ uint32_t load_two_halves(const uint8_t *p)
{
    return __ldg(reinterpret_cast<const uint32_t *>(p));
}

template <pl_dtype TYPE> static __device__ __forceinline__ head_words load_head(const uint8_t *span, lane_place lane)
{
    constexpr bool MIN = TYPE == PL_Q2_K || TYPE == PL_Q4_K || TYPE == PL_Q5_K;
    constexpr bool K = MIN || TYPE == PL_Q3_K || TYPE == PL_Q6_K || TYPE == PL_IQ4_XS;
    return {K ? load_two_halves(span + 4 * lane.pair) : 0, MIN ? load_two_halves(span + 32 + 4 * lane.pair) : 0};
}

template <pl_dtype TYPE>
static __device__ __forceinline__ scale_words load_scales(const uint8_t *span, int group, lane_place lane)
{
    const uint8_t *bytes = span + 16 * group + 2 * lane.pair, *halves = span + 32 * group + 4 * lane.pair;
    const uint8_t *by_half = bytes + 16 * group;
    switch (TYPE) {
    case PL_Q4_1:
    case PL_Q5_1: return {load_two_halves(halves), load_two_halves(halves + 256)};
    case PL_Q4_K:
    case PL_Q5_K: return {load_two_bytes(bytes + 64), load_two_bytes(bytes + 192)};
    case PL_Q2_K: return {load_two_bytes(by_half + 64), load_two_bytes(by_half + 80)};
    case PL_Q3_K:
    case PL_Q6_K: return {load_two_bytes(by_half + 32), load_two_bytes(by_half + 48)};
    case PL_NVFP4: return {load_two_bytes(by_half), load_two_bytes(by_half + 16)};
    case PL_IQ4_XS: return {load_two_bytes(bytes + 32), 0};
    case PL_MXFP4: return {load_two_bytes(bytes), 0};
    default: return {load_two_halves(halves), 0};
    }
}

/* One row's half of a word. */
static __device__ __forceinline__ float half_at(uint32_t words, int row)
{
    __half_raw h;
    h.x = static_cast<unsigned short>(words >> 16 * row);
    return __half2float(__half(h));
}

static __device__ __forceinline__ uint32_t byte_at(uint32_t bytes, int row)
{
    return bytes >> 8 * row & 255;
}

/* pl_mxfp4_half_scale() and pl_nvfp4_half_scale(), 127 counting as a number. */
static __device__ __forceinline__ float mxfp4_scale(uint32_t e)
{
    return __uint_as_float(e < 2 ? 0x200000u << e : (e - 1) << 23);
}

static __device__ __forceinline__ float nvfp4_scale(uint32_t d)
{
    return __uint_as_float((d & 127) << 20) * 0x1p119f;
}

struct scale_values {
    float d, m;
};

/* Of row 2 pair + row; half: 0 where the halves have none of their own. The values of pl_panel_get(). */
template <pl_dtype TYPE>
static __device__ __forceinline__ scale_values scale_at(head_words head, scale_words words, int half, int row)
{
    uint32_t byte = byte_at(half ? words.b : words.a, row);
    switch (TYPE) {
    case PL_Q4_1:
    case PL_Q5_1: return {half_at(words.a, row), half_at(words.b, row)};
    case PL_Q4_K:
    case PL_Q5_K:
        return {half_at(head.d, row) * static_cast<float>(byte),
                -(half_at(head.m, row) * static_cast<float>(byte_at(words.b, row)))};
    case PL_Q2_K:
        return {half_at(head.d, row) * static_cast<float>(byte & 15),
                -(half_at(head.m, row) * static_cast<float>(byte >> 4))};
    case PL_Q3_K:
    case PL_Q6_K:
    case PL_IQ4_XS: return {half_at(head.d, row) * static_cast<float>(static_cast<int8_t>(byte)), 0};
    case PL_MXFP4: return {mxfp4_scale(byte), 0};
    case PL_NVFP4: return {nvfp4_scale(byte), 0};
    default: return {half_at(words.a, row), 0};
    }
}

} // namespace panel

#endif
