/* Block types on 256-bit registers: half a panel, 8 rows, in one. Compiled for AVX2 and again for AVX-VNNI.
 *
 * Without vpdpbusd, pairs of products go through 16 bits (vpmaddubsw), where a few may be added before they must
 * be widened: eight of 4-bit codes, four of 5, two of 6, as 15 * 127 * 2 * 8 < 2^15 and so on. Codes of 8 bits
 * would saturate: there the weight's sign moves to the activation, 128 * 127 * 2 < 2^15, which also removes the
 * offset. Sums are exact either way. */
#include "host/cpu/matmul_tile.h"

#include "host/base/isa.h"

#include <immintrin.h>

#define INLINE static inline __attribute__((always_inline))
#define HALF_ROWS 8
#define SUB_ROWS 3 /* rows of x at a time: two sums, a code and a product each, within 16 registers */

INLINE __m256i load(const void *p)
{
    return _mm256_loadu_si256(p);
}

INLINE __m256i broadcast4(const int8_t *p)
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

/* Of half-group h, panel rows [n, n + 8). */
INLINE void unpack_half_scales(pl_dtype type, const uint8_t *head, int h, int n, pl_span_codes *out)
{
    int at = PL_PANEL_ROWS * h + n;
    switch (type) {
    case PL_Q2_K:
        _mm256_store_ps(out->d[h] + n, _mm256_mul_ps(halves_at(head + 2 * n), nibbles_at(head + 64 + at, 0)));
        _mm256_store_ps(out->m[h] + n,
                        negative(_mm256_mul_ps(halves_at(head + 32 + 2 * n), nibbles_at(head + 64 + at, 4))));
        break;
    case PL_Q3_K:
    case PL_Q6_K:
        _mm256_store_ps(out->d[h] + n, _mm256_mul_ps(halves_at(head + 2 * n), bytes_at(head + 32 + at, 1)));
        break;
    case PL_NVFP4: _mm256_store_ps(out->d[h] + n, nvfp4_at(head + at)); break;
    default: break;
    }
}

INLINE void unpack_scales(pl_dtype type, const uint8_t *head, int g, int n, pl_span_codes *out)
{
    int at = PL_PANEL_ROWS * g + n;
    switch (type) {
    case PL_Q4_1:
    case PL_Q5_1: _mm256_store_ps(out->m[g] + n, halves_at(head + 256 + 2 * at)); /* fall through */
    case PL_Q4_0:
    case PL_Q5_0:
    case PL_Q8_0:
    case PL_IQ4_NL: _mm256_store_ps(out->d[g] + n, halves_at(head + 2 * at)); break;
    case PL_Q4_K:
    case PL_Q5_K:
        _mm256_store_ps(out->d[g] + n, _mm256_mul_ps(halves_at(head + 2 * n), bytes_at(head + 64 + at, 0)));
        _mm256_store_ps(out->m[g] + n,
                        negative(_mm256_mul_ps(halves_at(head + 32 + 2 * n), bytes_at(head + 192 + at, 0))));
        break;
    case PL_IQ4_XS:
        _mm256_store_ps(out->d[g] + n, _mm256_mul_ps(halves_at(head + 2 * n), bytes_at(head + 32 + at, 1)));
        break;
    case PL_MXFP4: _mm256_store_ps(out->d[g] + n, mxfp4_at(head + at)); break;
    case PL_Q2_K:
    case PL_Q3_K:
    case PL_Q6_K:
    case PL_NVFP4:
        unpack_half_scales(type, head, 2 * g, n, out);
        unpack_half_scales(type, head, 2 * g + 1, n, out);
        break;
    case PL_F32:
    case PL_F16:
    case PL_BF16: break;
    }
}

INLINE void unpack_type(pl_dtype type, const uint8_t *span, int groups, pl_span_codes *out)
{
    pl_panel_type t = pl_panel_describe(type);
    for (int g = 0; g < groups; g++) {
        const uint8_t *body = span + t.head_bytes + g * pl_group_bytes(t);
        for (int i = 0; i < pl_group_bytes(t); i += 64)
            _mm_prefetch((const char *)body + pl_span_bytes(t) + i, _MM_HINT_T0);
        for (int half = 0; half < 2; half++) {
#pragma GCC unroll 8
            for (int c = 0; c < 8; c++)
                _mm256_store_si256((__m256i *)(out->code[g] + c * PL_CHUNK_BYTES + 32 * half),
                                   code_half(t, body, c, half));
            unpack_scales(type, span, g, HALF_ROWS * half, out);
        }
    }
}

void PL_ISA_NAME(pl_unpack)(pl_dtype type, const uint8_t *span, int groups, pl_span_codes *out)
{
    switch (type) {
    case PL_Q4_0: unpack_type(PL_Q4_0, span, groups, out); break;
    case PL_Q4_1: unpack_type(PL_Q4_1, span, groups, out); break;
    case PL_Q5_0: unpack_type(PL_Q5_0, span, groups, out); break;
    case PL_Q5_1: unpack_type(PL_Q5_1, span, groups, out); break;
    case PL_Q8_0: unpack_type(PL_Q8_0, span, groups, out); break;
    case PL_Q2_K: unpack_type(PL_Q2_K, span, groups, out); break;
    case PL_Q3_K: unpack_type(PL_Q3_K, span, groups, out); break;
    case PL_Q4_K: unpack_type(PL_Q4_K, span, groups, out); break;
    case PL_Q5_K: unpack_type(PL_Q5_K, span, groups, out); break;
    case PL_Q6_K: unpack_type(PL_Q6_K, span, groups, out); break;
    case PL_IQ4_NL: unpack_type(PL_IQ4_NL, span, groups, out); break;
    case PL_IQ4_XS: unpack_type(PL_IQ4_XS, span, groups, out); break;
    case PL_MXFP4: unpack_type(PL_MXFP4, span, groups, out); break;
    case PL_NVFP4: unpack_type(PL_NVFP4, span, groups, out); break;
    case PL_F32:
    case PL_F16:
    case PL_BF16: break;
    }
}

/* ---- products ---- */

/* sum[r] += chunks [begin, end) of 8 panel rows times rows r's bytes. */
INLINE void add_chunks(int code_bits, int n_rows, const uint8_t *code, int begin, int end, const int8_t *x,
                       int64_t row_bytes, __m256i sum[SUB_ROWS])
{
#if defined(__AVXVNNI__)
    (void)code_bits;
    for (int c = begin; c < end; c++) {
        __m256i w = load(code + c * PL_CHUNK_BYTES);
        for (int r = 0; r < n_rows; r++)
            sum[r] = _mm256_dpbusd_avx_epi32(sum[r], w, broadcast4(x + r * row_bytes + 4 * c));
    }
#else
    int run = code_bits == 4   ? 8
              : code_bits == 5 ? 4
              : code_bits == 6 ? 2
                               : 1; /* chunks that may be added in 16 bits */
    run = run < end - begin ? run : end - begin;
    for (int first = begin; first < end; first += run) {
        __m256i pair[SUB_ROWS];
        for (int r = 0; r < n_rows; r++)
            pair[r] = _mm256_setzero_si256();
        for (int c = first; c < first + run; c++) {
            __m256i w = load(code + c * PL_CHUNK_BYTES);
            if (code_bits == 8)
                w = _mm256_xor_si256(w, _mm256_set1_epi8(-128));
            for (int r = 0; r < n_rows; r++) {
                __m256i b = broadcast4(x + r * row_bytes + 4 * c);
                __m256i product = code_bits == 8 ? _mm256_maddubs_epi16(_mm256_abs_epi8(w), _mm256_sign_epi8(b, w))
                                                 : _mm256_maddubs_epi16(w, b);
                pair[r] = _mm256_add_epi16(pair[r], product);
            }
        }
        for (int r = 0; r < n_rows; r++)
            sum[r] = _mm256_add_epi32(sum[r], _mm256_madd_epi16(pair[r], _mm256_set1_epi16(1)));
    }
#endif
}

/* Half h of group g, or all of it, for panel rows [n, n + 8). */
INLINE void add_part(pl_panel_kind kind, int code_bits, int n_rows, const pl_span_codes *w, int n, int g, int h,
                     const pl_tile_rows *rows, __m256 acc[SUB_ROWS])
{
#if defined(__AVXVNNI__)
    const int offset_gone = 0;
#else
    const int offset_gone = code_bits == 8;
#endif
    int begin = 4 * h, end = pl_has_halves(kind) ? begin + 4 : 8;
    int at = pl_has_halves(kind) ? 2 * g + h : g;
    const int8_t *x = rows->hi_lo + 2 * PL_GROUP * g;
    const uint8_t *code = w->code[g] + 4 * n;
    int64_t row_bytes = rows->ld * 2 * PL_GROUP;
    __m256i sum[SUB_ROWS];
    for (int r = 0; r < n_rows; r++)
        sum[r] = _mm256_setzero_si256();
    add_chunks(code_bits, n_rows, code, begin, end, x, row_bytes, sum);
    for (int r = 0; r < n_rows; r++) {
        sum[r] = _mm256_slli_epi32(sum[r], 7);
        if (!pl_has_minimum(kind) && !offset_gone)
            sum[r] = _mm256_add_epi32(sum[r], _mm256_set1_epi32(rows->terms[r].start[at]));
    }
    add_chunks(code_bits, n_rows, code, begin, end, x + PL_GROUP, row_bytes, sum);
    for (int r = 0; r < n_rows; r++) {
        __m256 d = _mm256_mul_ps(_mm256_load_ps(w->d[at] + n), _mm256_set1_ps(rows->scale[r * rows->ld + g]));
        acc[r] = _mm256_fmadd_ps(_mm256_cvtepi32_ps(sum[r]), d, acc[r]);
        if (pl_has_minimum(kind))
            acc[r] = _mm256_fmadd_ps(_mm256_load_ps(w->m[at] + n), _mm256_set1_ps(rows->terms[r].shift[at]), acc[r]);
    }
}

INLINE void tile_rows(pl_panel_kind kind, int code_bits, int n_rows, const pl_span_codes *w, int groups,
                      const pl_tile_rows *rows, float *out)
{
    for (int n = 0; n < PL_PANEL_ROWS; n += HALF_ROWS) {
        __m256 acc[SUB_ROWS];
        for (int r = 0; r < n_rows; r++)
            acc[r] = _mm256_loadu_ps(out + r * PL_PANEL_ROWS + n);
        for (int g = 0; g < groups; g++) {
            add_part(kind, code_bits, n_rows, w, n, g, 0, rows, acc);
            if (pl_has_halves(kind))
                add_part(kind, code_bits, n_rows, w, n, g, 1, rows, acc);
        }
        for (int r = 0; r < n_rows; r++)
            _mm256_storeu_ps(out + r * PL_PANEL_ROWS + n, acc[r]);
    }
}

INLINE void tile_panel(pl_panel_kind kind, int code_bits, const pl_span_codes *w, int groups, const pl_tile_rows *rows,
                       float *acc)
{
    pl_tile_rows part = *rows;
    for (; part.n >= SUB_ROWS; part.n -= SUB_ROWS) {
        tile_rows(kind, code_bits, SUB_ROWS, w, groups, &part, acc);
        part.hi_lo += SUB_ROWS * part.ld * 2 * PL_GROUP;
        part.scale += SUB_ROWS * part.ld;
        part.terms += SUB_ROWS;
        acc += SUB_ROWS * PL_PANEL_ROWS;
    }
    if (part.n == 2)
        tile_rows(kind, code_bits, 2, w, groups, &part, acc);
    else if (part.n == 1)
        tile_rows(kind, code_bits, 1, w, groups, &part, acc);
}

void PL_ISA_NAME(pl_tile)(pl_dtype type, const pl_span_codes *w, int n_panels, int groups, const pl_tile_rows *rows,
                          float *acc, int64_t acc_ld)
{
    for (int p = 0; p < n_panels; p++, acc += acc_ld * PL_PANEL_ROWS) {
        switch (type) {
        case PL_Q4_0: tile_panel(PL_PANEL_OFFSET, 4, w + p, groups, rows, acc); break;
        case PL_Q5_0:
        case PL_MXFP4: tile_panel(PL_PANEL_OFFSET, 5, w + p, groups, rows, acc); break;
        case PL_Q8_0:
        case PL_IQ4_NL:
        case PL_IQ4_XS: tile_panel(PL_PANEL_OFFSET, 8, w + p, groups, rows, acc); break;
        case PL_Q4_1:
        case PL_Q4_K: tile_panel(PL_PANEL_MIN, 4, w + p, groups, rows, acc); break;
        case PL_Q5_1:
        case PL_Q5_K: tile_panel(PL_PANEL_MIN, 5, w + p, groups, rows, acc); break;
        case PL_Q2_K: tile_panel(PL_PANEL_MIN_HALVES, 4, w + p, groups, rows, acc); break;
        case PL_Q3_K:
        case PL_NVFP4: tile_panel(PL_PANEL_HALVES, 5, w + p, groups, rows, acc); break;
        case PL_Q6_K: tile_panel(PL_PANEL_HALVES, 6, w + p, groups, rows, acc); break;
        case PL_F32:
        case PL_F16:
        case PL_BF16: break;
        }
    }
}

/* The codes pass through the first-level cache: 16 registers do not hold a group. */
void PL_ISA_NAME(pl_direct)(pl_dtype type, const uint8_t *const *span, int n_panels, int groups,
                            const pl_tile_rows *rows, float *acc, int64_t acc_ld)
{
    for (int p = 0; p < n_panels; p++) {
        pl_span_codes codes;
        PL_ISA_NAME(pl_unpack)(type, span[p], groups, &codes);
        PL_ISA_NAME(pl_tile)(type, &codes, 1, groups, rows, acc + p * acc_ld * PL_PANEL_ROWS, acc_ld);
    }
}
