/* Block types on 256-bit registers: half a panel, 8 rows, in one. Compiled for AVX2 and again for AVX-VNNI. Codes of few
 * rows stay in registers from the packed form to the sum.
 *
 * Without vpdpbusd, pairs of products of bytes go through 16 bits (vpmaddubsw), where a few may be added before they must be
 * widened: eight of 4-bit codes, four of 5, as 15 * 128 * 2 * 8 < 2^15 and so on. Larger codes meet 128 * hi + lo in 16 bits:
 * the even bytes of a chunk are one operand, the odd ones another. So do all codes of three and four rows: bytes need two sums
 * where words need one, and with half as many sums both halves of a panel share the operands of the rows. */
#include "host/cpu/matmul_tile.h"

#include "host/base/isa.h"
#include "host/cpu/in_order.h"

#include <immintrin.h>

#define INLINE static inline __attribute__((always_inline))
#define HALF_ROWS 8
#define SPANS_AHEAD 4 /* in the second-level cache */
#define SUMS 4        /* at a time: with codes, operands and products they fit 16 registers */
#define HI_SUMS 8     /* where a row needs one: there is no lo, or words hold both */
#define SIDE_PANELS 2 /* of 8-bit codes, which memory is too slow for rather than the arithmetic */
#define FEW_BITS 5    /* of codes whose products with bytes may be added in 16 bits */
#if defined(__AVXVNNI__)
#define BYTE_BITS 8
#define BYTE_ROWS SUMS
#else
#define BYTE_BITS FEW_BITS /* of codes that are multiplied as bytes */
#define BYTE_ROWS 2        /* that share them */
#endif

_Static_assert(PL_DIRECT_ROWS <= SUMS, "rows that pl_direct() multiplies at once");

INLINE __m256i load(const void *p)
{
    return _mm256_loadu_si256(p);
}

INLINE __m256i broadcast4(const void *p)
{
    int32_t v;
    __builtin_memcpy(&v, p, sizeof v);
    return _mm256_set1_epi32(v);
}

/* ---- unpacking ---- */

/* The bits of `mask` at place `from`, moved to place `to`; what a 16-bit shift carries over is masked off. */
INLINE __m256i move_bits(__m256i v, int from, int to, char mask)
{
    v = from <= to ? _mm256_slli_epi16(v, to - from) : _mm256_srli_epi16(v, from - to);
    return _mm256_and_si256(v, _mm256_set1_epi8((char)(mask << to)));
}

INLINE __m256i code_half(pl_panel_type t, const uint8_t *body, int c, int half)
{
    int low = pl_nibble_bits(t.bits);
    __m256i v = _mm256_setzero_si256();
    body += 32 * half;
    if (t.bits == 8)
        return load(body + c * PL_CHUNK_BYTES);
    if (low)
        v = move_bits(load(body + (c & 3) * PL_CHUNK_BYTES), c & 4, 0, 15);
    if (pl_has_pairs(t.bits))
        v = _mm256_or_si256(v, move_bits(load(body + (low + c / 4) * PL_CHUNK_BYTES), 2 * (c & 3), low, 3));
    if (pl_has_top(t.bits))
        v = _mm256_or_si256(v, move_bits(load(body + (t.bits - 1) * PL_CHUNK_BYTES), c, t.bits - 1, 1));
    if (t.values) {
        __m256i values = _mm256_broadcastsi128_si256(_mm_loadu_si128((const __m128i *)t.values));
        v = _mm256_shuffle_epi8(_mm256_add_epi8(values, _mm256_set1_epi8((char)t.offset)), v);
    }
    return v;
}

INLINE __m256 halves_at(const uint8_t *p)
{
    return _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)p));
}

INLINE __m256 bytes_at(const uint8_t *p, int is_signed)
{
    __m128i v = _mm_loadl_epi64((const __m128i *)p);
    return _mm256_cvtepi32_ps(is_signed ? _mm256_cvtepi8_epi32(v) : _mm256_cvtepu8_epi32(v));
}

/* Bits `shift` to `shift` + 3 of the bytes. */
INLINE __m256 nibbles_at(const uint8_t *p, int shift)
{
    __m256i v = _mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i *)p));
    return _mm256_cvtepi32_ps(_mm256_and_si256(_mm256_srli_epi32(v, shift), _mm256_set1_epi32(15)));
}

/* 2^(e - 128): a shifted exponent, or below 2 the fraction of a subnormal number; the larger is the right one. */
INLINE __m256 mxfp4_at(const uint8_t *p)
{
    __m256i e = _mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i *)p));
    __m256i normal = _mm256_slli_epi32(_mm256_sub_epi32(e, _mm256_set1_epi32(1)), 23);
    __m256i small = _mm256_sllv_epi32(_mm256_set1_epi32(0x200000), _mm256_min_epi32(e, _mm256_set1_epi32(2)));
    return _mm256_castsi256_ps(_mm256_max_epi32(normal, small));
}

/* The bits are those of an f16 at its upper end, with an exponent that is 7 too small. */
INLINE __m256 nvfp4_at(const uint8_t *p)
{
    __m128i h = _mm_slli_epi16(_mm_cvtepu8_epi16(_mm_loadl_epi64((const __m128i *)p)), 7);
    return _mm256_mul_ps(_mm256_cvtph_ps(h), _mm256_set1_ps(128));
}

INLINE __m256 negative(__m256 v)
{
    return _mm256_xor_ps(v, _mm256_set1_ps(-0.0f));
}

typedef struct scale_pair {
    __m256 d, m; /* m: of types with a minimum */
} scale_pair;

/* Of panel rows [n, n + 8) in part `at`: a group, or half of one where halves have scales of their own. */
INLINE scale_pair scales_at(pl_dtype type, const uint8_t *head, int at, int n)
{
    const uint8_t *half = head + 2 * n;
    const int i = PL_PANEL_ROWS * at + n;
    switch (type) {
    case PL_Q4_1:
    case PL_Q5_1: return (scale_pair){halves_at(head + 2 * i), halves_at(head + 256 + 2 * i)};
    case PL_Q4_K:
    case PL_Q5_K:
        return (scale_pair){_mm256_mul_ps(halves_at(half), bytes_at(head + 64 + i, 0)),
                            negative(_mm256_mul_ps(halves_at(half + 32), bytes_at(head + 192 + i, 0)))};
    case PL_Q2_K:
        return (scale_pair){_mm256_mul_ps(halves_at(half), nibbles_at(head + 64 + i, 0)),
                            negative(_mm256_mul_ps(halves_at(half + 32), nibbles_at(head + 64 + i, 4)))};
    case PL_Q3_K:
    case PL_Q6_K:
    case PL_IQ4_XS: return (scale_pair){.d = _mm256_mul_ps(halves_at(half), bytes_at(head + 32 + i, 1))};
    case PL_MXFP4: return (scale_pair){.d = mxfp4_at(head + i)};
    case PL_NVFP4: return (scale_pair){.d = nvfp4_at(head + i)};
    default: return (scale_pair){.d = halves_at(head + 2 * i)};
    }
}

/* What lies SPANS_AHEAD behind group g. */
INLINE void prefetch_group(pl_dtype type, const uint8_t *span, int g)
{
    pl_panel_type t = pl_panel_describe(type);
    const uint8_t *body = span + t.head_bytes + g * pl_group_bytes(t);
    for (int i = 0; i < pl_group_bytes(t); i += 64)
        _mm_prefetch((const char *)body + SPANS_AHEAD * pl_span_bytes(t) + i, _MM_HINT_T1);
}

INLINE void unpack_type(pl_dtype type, const uint8_t *span, int groups, pl_span_codes *out)
{
    pl_panel_type t = pl_panel_describe(type);
    const int parts = 1 + pl_has_halves(t.kind);
    for (int g = 0; g < groups; g++) {
        const uint8_t *body = span + t.head_bytes + g * pl_group_bytes(t);
        prefetch_group(type, span, g);
        for (int half = 0; half < 2; half++) {
            const int n = HALF_ROWS * half;
#pragma GCC unroll 8
            for (int c = 0; c < 8; c++)
                _mm256_store_si256((__m256i *)(out->code[g] + c * PL_CHUNK_BYTES + 32 * half),
                                   code_half(t, body, c, half));
            for (int at = parts * g; at < parts * (g + 1); at++) {
                scale_pair s = scales_at(type, span, at, n);
                _mm256_store_ps(out->d[at] + n, s.d);
                if (pl_has_minimum(t.kind))
                    _mm256_store_ps(out->m[at] + n, s.m);
            }
        }
    }
}

void PL_ISA_NAME(pl_unpack)(pl_dtype type, const uint8_t *span, int groups, pl_span_codes *out)
{
    switch (type) {
#define TYPE_CASE(type)                                                                                                \
    case type: unpack_type(type, span, groups, out); break;
        PL_EACH_PANEL_TYPE(TYPE_CASE)
#undef TYPE_CASE
    case PL_F32:
    case PL_F16:
    case PL_BF16: break;
    }
}

/* ---- activations ---- */

INLINE bool in_words(int bits, int rows)
{
    return bits > BYTE_BITS || rows > BYTE_ROWS;
}

/* A row's span in 16 bits: of chunk c of a group columns 0 and 2 in pair [2 c], 1 and 3 in [2 c + 1]. */
typedef struct wide_row {
    int32_t pair[PL_SPAN_GROUPS][PL_GROUP / 2] __attribute__((aligned(32)));
} wide_row;

INLINE void widen(const pl_tile_rows *rows, int groups, wide_row *out)
{
    const __m256i middle_swapped = _mm256_setr_epi8(0, 1, 4, 5, 2, 3, 6, 7, 8, 9, 12, 13, 10, 11, 14, 15, 0, 1, 4, 5, 2,
                                                    3, 6, 7, 8, 9, 12, 13, 10, 11, 14, 15);
    for (int r = 0; r < rows->n; r++) {
        for (int g = 0; g < groups; g++) {
            const int8_t *hi = rows->hi_lo + (r * rows->ld + g) * 2 * PL_GROUP, *lo = hi + PL_GROUP;
            for (int i = 0; i < PL_GROUP; i += 16) {
                __m256i v = _mm256_slli_epi16(_mm256_cvtepi8_epi16(_mm_loadu_si128((const __m128i *)(hi + i))), 7);
                v = _mm256_add_epi16(v, _mm256_cvtepi8_epi16(_mm_loadu_si128((const __m128i *)(lo + i))));
                _mm256_store_si256((__m256i *)(out[r].pair[g] + i / 2), _mm256_shuffle_epi8(v, middle_swapped));
            }
        }
    }
}

/* ---- products ---- */

/* One panel's span. */
typedef struct panel_span {
    const pl_span_codes *codes; /* NULL: it is packed */
    const uint8_t *packed;
    pl_dtype type; /* of the packed one */
    int bits;      /* that the codes have at most */
} panel_span;

INLINE __m256i codes_of(panel_span w, int g, int c, int half)
{
    if (w.codes)
        return load(w.codes->code[g] + c * PL_CHUNK_BYTES + 32 * half);
    pl_panel_type t = pl_panel_describe(w.type);
    return code_half(t, w.packed + t.head_bytes + g * pl_group_bytes(t), c, half);
}

INLINE scale_pair scales_of(panel_span w, int at, int n)
{
    if (w.codes)
        return (scale_pair){_mm256_load_ps(w.codes->d[at] + n), _mm256_load_ps(w.codes->m[at] + n)};
    return scales_at(w.type, w.packed, at, n);
}

/* Rows of x and halves of a panel's rows that are multiplied at once: sum[r * halves + i] is that of half first_half + i. */
typedef struct tile_shape {
    int rows, halves, first_half;
    bool lo;    /* false: all lo are 0 */
    bool words; /* products of 16 bits */
} tile_shape;

INLINE __m256i add_bytes(__m256i sum, __m256i code, __m256i x)
{
#if defined(__AVXVNNI__)
    return _mm256_dpbusd_avx_epi32(sum, code, x);
#else
    return pl_add_epi16(sum, _mm256_maddubs_epi16(code, x));
#endif
}

/* 128 * hi + lo in 32 bits. */
INLINE __m256i join(__m256i hi, __m256i lo)
{
#if defined(__AVXVNNI__)
    return _mm256_add_epi32(_mm256_slli_epi32(hi, 7), lo);
#else
    return _mm256_add_epi32(_mm256_madd_epi16(hi, _mm256_set1_epi16(128)), _mm256_madd_epi16(lo, _mm256_set1_epi16(1)));
#endif
}

/* sum += chunks [begin, end) of group g, so few that their sums of bytes are exact. */
INLINE void add_run(panel_span w, tile_shape s, int g, int begin, int end, const pl_tile_rows *rows,
                    __m256i sum[HI_SUMS])
{
    __m256i hi[HI_SUMS], lo[HI_SUMS];
    for (int i = 0; i < s.rows * s.halves; i++)
        hi[i] = lo[i] = _mm256_setzero_si256();
#pragma GCC unroll 8
    for (int c = begin; c < end; c++) {
#pragma GCC unroll 8
        for (int i = 0; i < s.rows * s.halves; i++) {
            const int8_t *x = rows->hi_lo + (i / s.halves * rows->ld + g) * 2 * PL_GROUP + 4 * c;
            __m256i v = codes_of(w, g, c, s.first_half + i % s.halves);
            hi[i] = add_bytes(hi[i], v, broadcast4(x));
            if (s.lo)
                lo[i] = add_bytes(lo[i], v, broadcast4(x + PL_GROUP));
        }
    }
    for (int i = 0; i < s.rows * s.halves; i++)
        sum[i] = _mm256_add_epi32(sum[i], join(hi[i], lo[i]));
}

/* The same in 16 bits, of any codes. */
INLINE void add_words(panel_span w, tile_shape s, int g, int begin, int end, const wide_row *x, __m256i sum[HI_SUMS])
{
#pragma GCC unroll 8
    for (int c = begin; c < end; c++) {
#pragma GCC unroll 8
        for (int i = 0; i < s.rows * s.halves; i++) {
            const int32_t *pair = x[i / s.halves].pair[g] + 2 * c;
            __m256i v = codes_of(w, g, c, s.first_half + i % s.halves);
            __m256i even = _mm256_and_si256(v, _mm256_set1_epi16(0xff)), odd = _mm256_srli_epi16(v, 8);
            sum[i] = pl_add_epi32(sum[i], _mm256_madd_epi16(even, broadcast4(pair)));
            sum[i] = pl_add_epi32(sum[i], _mm256_madd_epi16(odd, broadcast4(pair + 1)));
        }
    }
}

INLINE void add_chunks(panel_span w, tile_shape s, int g, int begin, int end, const pl_tile_rows *rows,
                       const wide_row *x, __m256i sum[HI_SUMS])
{
    const int run = BYTE_BITS == 8 || w.bits <= 4 || end - begin <= 4 ? end - begin : 4;
    if (s.words) {
        add_words(w, s, g, begin, end, x, sum);
        return;
    }
    for (int c = begin; c < end; c += run)
        add_run(w, s, g, c, c + run, rows, sum);
}

/* Adds half h of group g, or all of it. */
INLINE void add_part(pl_panel_kind kind, panel_span w, tile_shape s, int g, int h, const pl_tile_rows *rows,
                     const wide_row *x, __m256 acc[HI_SUMS])
{
    const int begin = 4 * h, end = pl_has_halves(kind) ? begin + 4 : 8;
    const int at = pl_has_halves(kind) ? 2 * g + h : g;
    __m256i sum[HI_SUMS];
    scale_pair scales[2];
    for (int i = 0; i < s.rows * s.halves; i++)
        sum[i] = pl_has_minimum(kind) ? _mm256_setzero_si256() : _mm256_set1_epi32(rows->terms[i / s.halves].start[at]);
    add_chunks(w, s, g, begin, end, rows, x, sum);
    for (int i = 0; i < s.halves; i++)
        scales[i] = scales_of(w, at, HALF_ROWS * (s.first_half + i));
    for (int i = 0; i < s.rows * s.halves; i++) {
        const int r = i / s.halves;
        const scale_pair of = scales[i % s.halves];
        __m256 d = _mm256_mul_ps(of.d, _mm256_set1_ps(rows->scale[r * rows->ld + g]));
        acc[i] = _mm256_fmadd_ps(_mm256_cvtepi32_ps(sum[i]), d, acc[i]);
        if (pl_has_minimum(kind))
            acc[i] = _mm256_fmadd_ps(of.m, _mm256_set1_ps(rows->terms[r].shift[at]), acc[i]);
    }
}

INLINE void multiply_shape(pl_panel_kind kind, panel_span w, tile_shape s, int groups, const pl_tile_rows *rows,
                           const wide_row *x, float *out)
{
    for (s.first_half = 0; s.first_half < 2; s.first_half += s.halves) {
        __m256 acc[HI_SUMS];
        float *to = out + HALF_ROWS * s.first_half;
        for (int i = 0; i < s.rows * s.halves; i++)
            acc[i] = _mm256_loadu_ps(to + i / s.halves * PL_PANEL_ROWS + i % s.halves * HALF_ROWS);
        for (int g = 0; g < groups; g++) {
            if (s.first_half == 0 && !w.codes)
                prefetch_group(w.type, w.packed, g);
            add_part(kind, w, s, g, 0, rows, x, acc);
            if (pl_has_halves(kind))
                add_part(kind, w, s, g, 1, rows, x, acc);
        }
        for (int i = 0; i < s.rows * s.halves; i++)
            _mm256_storeu_ps(to + i / s.halves * PL_PANEL_ROWS + i % s.halves * HALF_ROWS, acc[i]);
    }
}

INLINE void multiply_rows(pl_panel_kind kind, panel_span w, int n, bool lo, int groups, const pl_tile_rows *rows,
                          const wide_row *x, float *out)
{
    const bool words = lo && in_words(w.bits, n);
    const int halves = n <= 2 || words || !lo ? 2 : 1;
    multiply_shape(kind, w, (tile_shape){n, halves, 0, lo, words}, groups, rows, x, out);
}

INLINE void multiply(pl_panel_kind kind, panel_span w, bool lo, int groups, const pl_tile_rows *rows, const wide_row *x,
                     float *out)
{
    switch (rows->n) {
    case 1: multiply_rows(kind, w, 1, lo, groups, rows, x, out); break;
    case 2: multiply_rows(kind, w, 2, lo, groups, rows, x, out); break;
    case 3: multiply_rows(kind, w, 3, lo, groups, rows, x, out); break;
    default: multiply_rows(kind, w, 4, lo, groups, rows, x, out); break;
    }
}

INLINE void multiply_codes(pl_panel_kind kind, bool few_bits, const pl_span_codes *codes, int groups,
                           const pl_tile_rows *rows, const wide_row *x, float *out)
{
    if (few_bits)
        multiply(kind, (panel_span){.codes = codes, .bits = FEW_BITS}, true, groups, rows, x, out);
    else
        multiply(kind, (panel_span){.codes = codes, .bits = 8}, true, groups, rows, x, out);
}

static __attribute__((noinline)) void multiply_unpacked(pl_panel_type t, const pl_span_codes *codes, int groups,
                                                        const pl_tile_rows *rows, const wide_row *x, float *out)
{
    const bool few_bits = pl_code_bits(t) <= FEW_BITS;
    switch (t.kind) {
    case PL_PANEL_OFFSET: multiply_codes(PL_PANEL_OFFSET, few_bits, codes, groups, rows, x, out); break;
    case PL_PANEL_HALVES: multiply_codes(PL_PANEL_HALVES, few_bits, codes, groups, rows, x, out); break;
    case PL_PANEL_MIN: multiply_codes(PL_PANEL_MIN, true, codes, groups, rows, x, out); break;
    case PL_PANEL_MIN_HALVES: multiply_codes(PL_PANEL_MIN_HALVES, true, codes, groups, rows, x, out); break;
    }
}

/* Rows [r, r + SUMS) of those that are there. */
static pl_tile_rows rows_from(const pl_tile_rows *rows, int r)
{
    const int left = rows->n - r;
    return (pl_tile_rows){rows->hi_lo + r * rows->ld * 2 * PL_GROUP,
                          rows->scale + r * rows->ld,
                          rows->terms + r,
                          rows->ld,
                          left < SUMS ? left : SUMS,
                          0,
                          rows->lo_zero};
}

void PL_ISA_NAME(pl_tile)(pl_dtype type, const pl_span_codes *w, int n_panels, int groups, const pl_tile_rows *rows,
                          float *acc, int64_t acc_ld)
{
    const pl_panel_type t = pl_panel_describe(type);
    for (int r = 0; r < rows->n; r += SUMS) {
        pl_tile_rows some = rows_from(rows, r);
        wide_row x[SUMS];
        if (in_words(pl_code_bits(t), some.n))
            widen(&some, groups, x);
        for (int p = 0; p < n_panels; p++)
            multiply_unpacked(t, w + p, groups, &some, x, acc + (p * acc_ld + r) * PL_PANEL_ROWS);
    }
}

/* One row, a group of each panel in turn: streams so close to each other are what the prefetchers follow best. */
INLINE void multiply_side_by_side(pl_dtype type, const uint8_t *const span[SIDE_PANELS], int groups,
                                  const pl_tile_rows *rows, const wide_row *x, float *acc, int64_t acc_ld)
{
    const pl_panel_type t = pl_panel_describe(type);
    const tile_shape shape = {1, 2, 0, true, true};
    __m256 sum[SIDE_PANELS][HI_SUMS];
    for (int i = 0; i < 2 * SIDE_PANELS; i++)
        sum[i / 2][i % 2] = _mm256_loadu_ps(acc + i / 2 * acc_ld * PL_PANEL_ROWS + i % 2 * HALF_ROWS);
    for (int g = 0; g < groups; g++) {
        for (int p = 0; p < SIDE_PANELS; p++) {
            panel_span w = {.packed = span[p], .type = type, .bits = pl_code_bits(t)};
            add_part(t.kind, w, shape, g, 0, rows, x, sum[p]);
        }
    }
    for (int i = 0; i < 2 * SIDE_PANELS; i++)
        _mm256_storeu_ps(acc + i / 2 * acc_ld * PL_PANEL_ROWS + i % 2 * HALF_ROWS, sum[i / 2][i % 2]);
}

INLINE void multiply_type(pl_dtype type, const uint8_t *const *span, int n_panels, int groups, const pl_tile_rows *rows,
                          float *acc, int64_t acc_ld)
{
    const pl_panel_type t = pl_panel_describe(type);
    const bool lo = type != PL_Q4_0 || !rows->lo_zero;
    wide_row x[SUMS];
    if (lo && in_words(pl_code_bits(t), rows->n))
        widen(rows, groups, x);
    if (t.bits == 8 && t.bits > BYTE_BITS && rows->n == 1 && n_panels == SIDE_PANELS) {
        multiply_side_by_side(type, span, groups, rows, x, acc, acc_ld);
        return;
    }
    for (int p = 0; p < n_panels; p++) {
        panel_span w = {.packed = span[p], .type = type, .bits = pl_code_bits(t)};
        float *out = acc + p * acc_ld * PL_PANEL_ROWS;
        if (lo)
            multiply(t.kind, w, true, groups, rows, x, out);
        else if (type == PL_Q4_0)
            multiply(t.kind, w, false, groups, rows, x, out);
    }
}

/* Each type in a function of its own: compilers take far longer over a large one, and gcc checks its loads for
 * AddressSanitizer by calls. */
#define DIRECT(type)                                                                                                   \
    static __attribute__((noinline)) void direct_##type(const uint8_t *const *span, int n_panels, int groups,          \
                                                        const pl_tile_rows *rows, float *acc, int64_t acc_ld)          \
    {                                                                                                                  \
        multiply_type(type, span, n_panels, groups, rows, acc, acc_ld);                                                \
    }
PL_EACH_PANEL_TYPE(DIRECT)

void PL_ISA_NAME(pl_direct)(pl_dtype type, const uint8_t *const *span, int n_panels, int groups,
                            const pl_tile_rows *rows, float *acc, int64_t acc_ld)
{
    switch (type) {
#define TYPE_CASE(type)                                                                                                \
    case type: direct_##type(span, n_panels, groups, rows, acc, acc_ld); break;
        PL_EACH_PANEL_TYPE(TYPE_CASE)
#undef TYPE_CASE
    case PL_F32:
    case PL_F16:
    case PL_BF16: break;
    }
}
