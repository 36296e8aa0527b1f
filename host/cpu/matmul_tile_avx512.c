/* Block types on AVX-512 with VNNI: one register is 16 rows of a panel, one vpdpbusd is 64 products.
 *
 * vpdpbusd starts at most twice a cycle, like nearly all 512-bit arithmetic, so the kernels are counted in
 * such instructions. A group of 16 x 32 weights and one row takes 16 of them and 5 to make a sum an f32. Six
 * rows and two panels keep 12 chains of latency 5 going and fit, with their f32 sums, into 32 registers. */
#include "host/cpu/matmul_tile.h"

#include <immintrin.h>
#include <stdbool.h>

#define INLINE static inline __attribute__((always_inline))
#define PAIR 2 /* panels a tile */

INLINE __m512i load(const void *p)
{
    return _mm512_loadu_si512(p);
}

INLINE __m512i broadcast4(const int8_t *p)
{
    int32_t v;
    __builtin_memcpy(&v, p, sizeof v);
    return _mm512_set1_epi32(v);
}

/* a | (b & mask) */
INLINE __m512i merge_bits(__m512i a, __m512i b, __m512i mask)
{
    return _mm512_ternarylogic_epi32(a, b, mask, 0xf8);
}

/* a | the two bits of v at place `from`, moved to place `to`; a has bits below `to` only. The 16-bit shifts, here and
 * below, may carry bits from one byte to the next: only into bits that are masked off. */
INLINE __m512i merge_pair(__m512i a, __m512i v, int from, int to)
{
    __m512i bits = _mm512_set1_epi8((char)(3 << to));
    v = from <= to ? _mm512_slli_epi16(v, (unsigned)(to - from)) : _mm512_srli_epi16(v, (unsigned)(from - to));
    return to > 0 ? merge_bits(a, v, bits) : _mm512_and_si512(v, bits);
}

INLINE void add_pairs(const uint8_t *pairs, int to, __m512i q[8])
{
    for (int i = 0; i < 2; i++) {
        __m512i v = load(pairs + i * PL_CHUNK_BYTES);
        q[4 * i] = merge_pair(q[4 * i], v, 0, to);
        q[4 * i + 1] = merge_pair(q[4 * i + 1], v, 2, to);
        q[4 * i + 2] = merge_pair(q[4 * i + 2], v, 4, to);
        q[4 * i + 3] = merge_pair(q[4 * i + 3], v, 6, to);
    }
}

INLINE void add_top_bits(const uint8_t *top, int to, __m512i q[8])
{
    __m512i h = load(top), bit = _mm512_set1_epi8((char)(1 << to));
    for (int c = 0; c <= to; c++)
        q[c] = merge_bits(q[c], _mm512_slli_epi16(h, (unsigned)(to - c)), bit);
    for (int c = to + 1; c < 8; c++)
        q[c] = merge_bits(q[c], _mm512_srli_epi16(h, (unsigned)(c - to)), bit);
}

INLINE void load_codes(pl_panel_type t, const uint8_t *body, __m512i q[8])
{
    int low = pl_nibble_bits(t.bits);
    if (t.bits == 8) {
        for (int c = 0; c < 8; c++)
            q[c] = load(body + c * PL_CHUNK_BYTES);
        return;
    }
    __m512i nibble = _mm512_set1_epi8(15);
    for (int j = 0; j < 4; j++) {
        __m512i v = low ? load(body + j * PL_CHUNK_BYTES) : _mm512_setzero_si512();
        q[j] = _mm512_and_si512(v, nibble);
        q[j + 4] = _mm512_and_si512(_mm512_srli_epi16(v, 4), nibble);
    }
    if (pl_has_pairs(t.bits))
        add_pairs(body + low * PL_CHUNK_BYTES, low, q);
    if (pl_has_top(t.bits))
        add_top_bits(body + (t.bits - 1) * PL_CHUNK_BYTES, t.bits - 1, q);
    if (t.values) {
        __m512i values = _mm512_broadcast_i32x4(_mm_loadu_si128((const __m128i *)t.values));
        values = _mm512_add_epi8(values, _mm512_set1_epi8((char)t.offset));
        for (int c = 0; c < 8; c++)
            q[c] = _mm512_shuffle_epi8(values, q[c]);
    }
}

/* ---- scales ---- */

typedef struct scales {
    __m512 d[2], m[2];
} scales;

INLINE __m512 load_halves(const uint8_t *p)
{
    return _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)p));
}

INLINE __m512i widen(const uint8_t *p)
{
    return _mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i *)p));
}

INLINE __m512 load_bytes(const uint8_t *p)
{
    return _mm512_cvtepi32_ps(widen(p));
}

INLINE __m512 load_signed_bytes(const uint8_t *p)
{
    return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i *)p)));
}

/* 2^(e - 128): a shifted exponent, or below 2 the fraction of a subnormal number. */
INLINE __m512 load_mxfp4(const uint8_t *p)
{
    __m512i e = widen(p), bits = _mm512_slli_epi32(_mm512_sub_epi32(e, _mm512_set1_epi32(1)), 23);
    __mmask16 small = _mm512_cmplt_epi32_mask(e, _mm512_set1_epi32(2));
    return _mm512_castsi512_ps(_mm512_mask_sllv_epi32(bits, small, _mm512_set1_epi32(0x200000), e));
}

/* The bits are those of an f16 at its upper end, with an exponent that is 7 too small. */
INLINE __m512 load_nvfp4(const uint8_t *p)
{
    __m256i h = _mm256_slli_epi16(_mm256_cvtepu8_epi16(_mm_loadu_si128((const __m128i *)p)), 7);
    return _mm512_mul_ps(_mm512_cvtph_ps(h), _mm512_set1_ps(128));
}

INLINE __m512 negative(__m512 v)
{
    return _mm512_xor_ps(v, _mm512_set1_ps(-0.0f));
}

/* What is the same for the groups of a K-quant's span: d, and dmin negated. */
INLINE scales span_scales(pl_dtype type, const uint8_t *head)
{
    scales s = {{_mm512_setzero_ps(), _mm512_setzero_ps()}, {_mm512_setzero_ps(), _mm512_setzero_ps()}};
    switch (type) {
    case PL_Q2_K:
    case PL_Q4_K:
    case PL_Q5_K: s.m[0] = negative(load_halves(head + 32)); /* fall through */
    case PL_Q3_K:
    case PL_Q6_K:
    case PL_IQ4_XS: s.d[0] = load_halves(head); break;
    default: break;
    }
    return s;
}

INLINE scales group_scales(pl_dtype type, const uint8_t *head, int group, scales span)
{
    scales s = span;
    switch (type) {
    case PL_Q4_1:
    case PL_Q5_1: s.m[0] = load_halves(head + 256 + 32 * group); /* fall through */
    case PL_Q4_0:
    case PL_Q5_0:
    case PL_Q8_0:
    case PL_IQ4_NL: s.d[0] = load_halves(head + 32 * group); break;
    case PL_Q2_K:
        for (int h = 0; h < 2; h++) {
            __m512i v = widen(head + 64 + 32 * group + 16 * h);
            s.d[h] = _mm512_mul_ps(span.d[0], _mm512_cvtepi32_ps(_mm512_and_si512(v, _mm512_set1_epi32(15))));
            s.m[h] = _mm512_mul_ps(span.m[0], _mm512_cvtepi32_ps(_mm512_srli_epi32(v, 4)));
        }
        break;
    case PL_Q4_K:
    case PL_Q5_K:
        s.d[0] = _mm512_mul_ps(span.d[0], load_bytes(head + 64 + 16 * group));
        s.m[0] = _mm512_mul_ps(span.m[0], load_bytes(head + 192 + 16 * group));
        break;
    case PL_Q3_K:
    case PL_Q6_K:
        s.d[0] = _mm512_mul_ps(span.d[0], load_signed_bytes(head + 32 + 32 * group));
        s.d[1] = _mm512_mul_ps(span.d[0], load_signed_bytes(head + 48 + 32 * group));
        break;
    case PL_IQ4_XS: s.d[0] = _mm512_mul_ps(span.d[0], load_signed_bytes(head + 32 + 16 * group)); break;
    case PL_MXFP4: s.d[0] = load_mxfp4(head + 16 * group); break;
    case PL_NVFP4:
        s.d[0] = load_nvfp4(head + 32 * group);
        s.d[1] = load_nvfp4(head + 32 * group + 16);
        break;
    case PL_F32:
    case PL_F16:
    case PL_BF16: break;
    }
    return s;
}

/* ---- unpacking for many rows ---- */

/* Codes as they are, or code - offset, as a byte or in the pairs of pl_wide_codes. */
typedef enum code_form { PLAIN, CENTRED, PAIRS } code_form;

/* Where they go, with d and m. */
typedef struct unpacked {
    uint8_t *code;
    float (*d)[PL_PANEL_ROWS], (*m)[PL_PANEL_ROWS];
} unpacked;

/* A chunk, and where the next one goes. */
INLINE uint8_t *store_codes(code_form form, __m512i q, int offset, uint8_t *to)
{
    const __m512i first = _mm512_set4_epi32(0x0d800c80, 0x09800880, 0x05800480, 0x01800080); /* 80: zero */
    const __m512i second = _mm512_add_epi8(first, _mm512_set1_epi16(0x0200));
    if (form != PLAIN)
        q = _mm512_sub_epi8(q, _mm512_set1_epi8((char)offset));
    if (form == PAIRS) {
        _mm512_store_si512(to, _mm512_srai_epi16(_mm512_shuffle_epi8(q, first), 8));
        to += PL_CHUNK_BYTES;
        q = _mm512_srai_epi16(_mm512_shuffle_epi8(q, second), 8);
    }
    _mm512_store_si512(to, q);
    return to + PL_CHUNK_BYTES;
}

INLINE void unpack(pl_dtype type, code_form form, const uint8_t *span, int groups, unpacked to)
{
    pl_panel_type t = pl_panel_describe(type);
    scales common = span_scales(type, span);
    for (int g = 0; g < groups; g++) {
        __m512i q[8];
        const uint8_t *body = span + t.head_bytes + g * pl_group_bytes(t);
        load_codes(t, body, q);
        for (int c = 0; c < 8; c++)
            to.code = store_codes(form, q[c], t.offset, to.code);
        scales s = group_scales(type, span, g, common);
        int halves = pl_has_halves(t.kind);
        for (int h = 0; h <= halves; h++) {
            _mm512_store_ps(to.d[g * (1 + halves) + h], s.d[h]);
            if (pl_has_minimum(t.kind))
                _mm512_store_ps(to.m[g * (1 + halves) + h], s.m[h]);
        }
    }
}

INLINE void unpack_type(pl_dtype type, code_form form, const uint8_t *span, int groups, unpacked to)
{
    switch (type) {
#define TYPE_CASE(type)                                                                                                \
    case type: unpack(type, form, span, groups, to); break;
        PL_EACH_PANEL_TYPE(TYPE_CASE)
#undef TYPE_CASE
    case PL_F32:
    case PL_F16:
    case PL_BF16: break;
    }
}

void pl_unpack_avx512(pl_dtype type, const uint8_t *span, int groups, pl_span_codes *out)
{
    unpack_type(type, PLAIN, span, groups, (unpacked){out->code[0], out->d, out->m});
    out->after = span + pl_span_bytes(pl_panel_describe(type));
}

void pl_unpack_centred_avx512(pl_dtype type, const uint8_t *span, int groups, uint8_t *code, float (*d)[PL_PANEL_ROWS],
                              float (*m)[PL_PANEL_ROWS])
{
    unpack_type(type, CENTRED, span, groups, (unpacked){code, d, m});
}

void pl_unpack_wide_avx512(pl_dtype type, const uint8_t *span, int groups, pl_wide_codes *out)
{
    unpack_type(type, PAIRS, span, groups, (unpacked){out->code[0], out->d, out->m});
    out->after = span + pl_span_bytes(pl_panel_describe(type));
}

/* ---- many rows ---- */

/* Group g's share of the `bytes` at p, the next span: the processor's own prefetching stops at the end of a page, and the
 * kernel would wait there for one stream or another all the time. */
INLINE void prefetch_share(const uint8_t *p, size_t bytes, int g)
{
    size_t share = (bytes + 64 * PL_SPAN_GROUPS - 1) / (64 * PL_SPAN_GROUPS) * 64;
    for (size_t i = 0; i < share; i += 64)
        _mm_prefetch(p + (size_t)g * share + i, _MM_HINT_T0);
}

/* sum[p][r] += chunks [begin, end) of group g times the rows' bytes x, which start `plane` bytes into the group. */
INLINE void add_chunks(int n_panels, int n_rows, const pl_span_codes *w, int g, int begin, int end, const int8_t *x,
                       int64_t row_bytes, __m512i sum[PAIR][PL_TILE_ROWS])
{
    for (int c = begin; c < end; c++) {
        __m512i v[PAIR];
        for (int p = 0; p < n_panels; p++)
            v[p] = _mm512_load_si512(w[p].code[g] + c * PL_CHUNK_BYTES);
#pragma GCC unroll 6
        for (int r = 0; r < n_rows; r++) {
            __m512i b = broadcast4(x + r * row_bytes + 4 * c);
            for (int p = 0; p < n_panels; p++)
                sum[p][r] = _mm512_dpbusd_epi32(sum[p][r], v[p], b);
        }
    }
}

/* sum = 128 * (hi plane) + lo plane + start, for half h of group g or all of it. Many rows: one plane after the
 * other in the same register; few rows: both at once, or latency would leave the units idle. */
INLINE void add_planes(pl_panel_kind kind, int n_panels, int n_rows, const pl_span_codes *w, int g, int h,
                       const pl_tile_rows *rows, __m512i sum[PAIR][PL_TILE_ROWS])
{
    int begin = 4 * h, end = pl_has_halves(kind) ? begin + 4 : 8;
    int at = pl_has_halves(kind) ? 2 * g + h : g;
    int few = n_rows <= 3;
    const int8_t *x = rows->hi_lo + 2 * PL_GROUP * g;
    int64_t row_bytes = rows->ld * 2 * PL_GROUP;
    __m512i lo[PAIR][PL_TILE_ROWS];
#pragma GCC unroll 6
    for (int r = 0; r < n_rows; r++) {
        for (int p = 0; p < n_panels; p++) {
            sum[p][r] = _mm512_setzero_si512();
            lo[p][r] = pl_has_minimum(kind) ? _mm512_setzero_si512() : _mm512_set1_epi32(rows->terms[r].start[at]);
        }
    }
    if (few)
        add_chunks(n_panels, n_rows, w, g, begin, end, x + PL_GROUP, row_bytes, lo);
    add_chunks(n_panels, n_rows, w, g, begin, end, x, row_bytes, sum);
#pragma GCC unroll 6
    for (int r = 0; r < n_rows; r++) {
        for (int p = 0; p < n_panels; p++) {
            sum[p][r] = _mm512_slli_epi32(sum[p][r], 7);
            if (few || !pl_has_minimum(kind))
                sum[p][r] = _mm512_add_epi32(sum[p][r], lo[p][r]);
        }
    }
    if (!few)
        add_chunks(n_panels, n_rows, w, g, begin, end, x + PL_GROUP, row_bytes, sum);
}

INLINE void add_part(pl_panel_kind kind, int n_panels, int n_rows, const pl_span_codes *w, int g, int h,
                     const pl_tile_rows *rows, __m512 acc[PAIR][PL_TILE_ROWS])
{
    int at = pl_has_halves(kind) ? 2 * g + h : g;
    __m512i sum[PAIR][PL_TILE_ROWS];
    add_planes(kind, n_panels, n_rows, w, g, h, rows, sum);
#pragma GCC unroll 6
    for (int r = 0; r < n_rows; r++) {
        __m512 scale = _mm512_set1_ps(rows->scale[r * rows->ld + g]);
        for (int p = 0; p < n_panels; p++) {
            __m512 d = _mm512_mul_ps(_mm512_load_ps(w[p].d[at]), scale);
            acc[p][r] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(sum[p][r]), d, acc[p][r]);
            if (pl_has_minimum(kind))
                acc[p][r] = _mm512_fmadd_ps(_mm512_load_ps(w[p].m[at]), _mm512_set1_ps(rows->terms[r].shift[at]),
                                            acc[p][r]);
        }
    }
}

INLINE void tile(pl_panel_kind kind, int n_panels, int n_rows, const pl_span_codes *w, int groups,
                 const pl_tile_rows *rows, float *out, int64_t out_ld)
{
    __m512 acc[PAIR][PL_TILE_ROWS];
#pragma GCC unroll 6
    for (int r = 0; r < n_rows; r++)
        for (int p = 0; p < n_panels; p++)
            acc[p][r] = _mm512_loadu_ps(out + (p * out_ld + r) * PL_PANEL_ROWS);
    for (int g = 0; g < groups; g++) {
        for (int p = 0; p < n_panels; p++)
            prefetch_share(w[p].after, rows->ahead, g);
        add_part(kind, n_panels, n_rows, w, g, 0, rows, acc);
        if (pl_has_halves(kind))
            add_part(kind, n_panels, n_rows, w, g, 1, rows, acc);
    }
#pragma GCC unroll 6
    for (int r = 0; r < n_rows; r++)
        for (int p = 0; p < n_panels; p++)
            _mm512_storeu_ps(out + (p * out_ld + r) * PL_PANEL_ROWS, acc[p][r]);
}

INLINE void tile_of_kind(pl_panel_kind kind, int n_panels, const pl_span_codes *w, int groups, const pl_tile_rows *rows,
                         float *acc, int64_t acc_ld)
{
    switch (rows->n) {
    case 1: tile(kind, n_panels, 1, w, groups, rows, acc, acc_ld); break;
    case 2: tile(kind, n_panels, 2, w, groups, rows, acc, acc_ld); break;
    case 3: tile(kind, n_panels, 3, w, groups, rows, acc, acc_ld); break;
    case 4: tile(kind, n_panels, 4, w, groups, rows, acc, acc_ld); break;
    case 5: tile(kind, n_panels, 5, w, groups, rows, acc, acc_ld); break;
    default: tile(kind, n_panels, 6, w, groups, rows, acc, acc_ld); break;
    }
}

void pl_tile_avx512(pl_dtype type, const pl_span_codes *w, int n_panels, int groups, const pl_tile_rows *rows,
                    float *acc, int64_t acc_ld)
{
    pl_panel_kind kind = pl_panel_describe(type).kind;
    for (; n_panels >= 2; n_panels -= 2, w += 2, acc += 2 * acc_ld * PL_PANEL_ROWS) {
        switch (kind) {
        case PL_PANEL_OFFSET: tile_of_kind(PL_PANEL_OFFSET, 2, w, groups, rows, acc, acc_ld); break;
        case PL_PANEL_HALVES: tile_of_kind(PL_PANEL_HALVES, 2, w, groups, rows, acc, acc_ld); break;
        case PL_PANEL_MIN: tile_of_kind(PL_PANEL_MIN, 2, w, groups, rows, acc, acc_ld); break;
        case PL_PANEL_MIN_HALVES: tile_of_kind(PL_PANEL_MIN_HALVES, 2, w, groups, rows, acc, acc_ld); break;
        }
    }
    if (n_panels == 0)
        return;
    switch (kind) {
    case PL_PANEL_OFFSET: tile_of_kind(PL_PANEL_OFFSET, 1, w, groups, rows, acc, acc_ld); break;
    case PL_PANEL_HALVES: tile_of_kind(PL_PANEL_HALVES, 1, w, groups, rows, acc, acc_ld); break;
    case PL_PANEL_MIN: tile_of_kind(PL_PANEL_MIN, 1, w, groups, rows, acc, acc_ld); break;
    case PL_PANEL_MIN_HALVES: tile_of_kind(PL_PANEL_MIN_HALVES, 1, w, groups, rows, acc, acc_ld); break;
    }
}

/* ---- few rows ---- */

/* What a row brings to the groups of a span. */
typedef struct direct_row {
    const int8_t *x;
    const float *scale;
    const pl_row_terms *terms;
} direct_row;

/* start + chunks [begin, end), as f32. */
INLINE __m512 direct_sum(const __m512i q[8], const int8_t *x, int begin, int end, int32_t start)
{
    __m512i hi = _mm512_setzero_si512(), lo = _mm512_set1_epi32(start);
    for (int c = begin; c < end; c++) {
        hi = _mm512_dpbusd_epi32(hi, q[c], broadcast4(x + 4 * c));
        lo = _mm512_dpbusd_epi32(lo, q[c], broadcast4(x + PL_GROUP + 4 * c));
    }
    return _mm512_cvtepi32_ps(_mm512_add_epi32(_mm512_slli_epi32(hi, 7), lo));
}

INLINE void direct_group(pl_dtype type, int n_rows, const uint8_t *span, int g, scales common, const direct_row *row,
                         __m512 *acc)
{
    pl_panel_type t = pl_panel_describe(type);
    scales s = group_scales(type, span, g, common);
    int parts = pl_has_halves(t.kind) ? 2 : 1, chunks = 8 / parts;
    __m512i q[8];
    load_codes(t, span + t.head_bytes + g * pl_group_bytes(t), q);
#pragma GCC unroll 4
    for (int r = 0; r < n_rows; r++) {
        __m512 scale = _mm512_set1_ps(row[r].scale[g]);
        for (int h = 0; h < parts; h++) {
            int at = parts * g + h, start = pl_has_minimum(t.kind) ? 0 : row[r].terms->start[at];
            __m512 sum = direct_sum(q, row[r].x + 2 * PL_GROUP * g, h * chunks, (h + 1) * chunks, start);
            acc[r] = _mm512_fmadd_ps(sum, _mm512_mul_ps(s.d[h], scale), acc[r]);
            if (pl_has_minimum(t.kind))
                acc[r] = _mm512_fmadd_ps(s.m[h], _mm512_set1_ps(row[r].terms->shift[at]), acc[r]);
        }
    }
}

INLINE void direct_panels(pl_dtype type, int n_panels, int n_rows, const uint8_t *const *span, int groups,
                          const direct_row *row, int n, float *out, int64_t out_ld)
{
    const size_t bytes = pl_span_bytes(pl_panel_describe(type));
    __m512 acc[PL_DIRECT_PANELS][PL_DIRECT_ROWS];
    scales common[PL_DIRECT_PANELS];
#pragma GCC unroll 4
    for (int p = 0; p < n_panels; p++) {
        common[p] = span_scales(type, span[p]);
#pragma GCC unroll 4
        for (int r = 0; r < n_rows; r++)
            acc[p][r] = _mm512_loadu_ps(out + (p * out_ld + (r < n ? r : 0)) * PL_PANEL_ROWS);
    }
    for (int g = 0; g < groups; g++) {
#pragma GCC unroll 4
        for (int p = 0; p < n_panels; p++) {
            prefetch_share(span[p] + bytes, bytes, g);
            direct_group(type, n_rows, span[p], g, common[p], row, acc[p]);
        }
    }
#pragma GCC unroll 4
    for (int p = 0; p < n_panels; p++)
#pragma GCC unroll 4
        for (int r = 0; r < n_rows; r++)
            if (r < n)
                _mm512_storeu_ps(out + (p * out_ld + r) * PL_PANEL_ROWS, acc[p][r]);
}

/* Three rows are four of which one counts for nothing. */
INLINE void direct_rows(pl_dtype type, int n_rows, const uint8_t *const *span, int n_panels, int groups,
                        const pl_tile_rows *rows, float *out, int64_t out_ld)
{
    direct_row row[PL_DIRECT_ROWS];
    for (int r = 0; r < n_rows; r++) {
        int64_t at = r < rows->n ? r : 0;
        row[r] = (direct_row){rows->hi_lo + at * rows->ld * 2 * PL_GROUP, rows->scale + at * rows->ld,
                              rows->terms + at};
    }
    if (n_panels == PL_DIRECT_PANELS) {
        direct_panels(type, PL_DIRECT_PANELS, n_rows, span, groups, row, rows->n, out, out_ld);
        return;
    }
    for (int p = 0; p < n_panels; p++)
        direct_panels(type, 1, n_rows, span + p, groups, row, rows->n, out + p * out_ld * PL_PANEL_ROWS, out_ld);
}

INLINE void direct(pl_dtype type, const uint8_t *const *span, int n_panels, int groups, const pl_tile_rows *rows,
                   float *out, int64_t out_ld)
{
    if (rows->n == 1)
        direct_rows(type, 1, span, n_panels, groups, rows, out, out_ld);
    else if (rows->n == 2)
        direct_rows(type, 2, span, n_panels, groups, rows, out, out_ld);
    else
        direct_rows(type, 4, span, n_panels, groups, rows, out, out_ld);
}

/* Each type in a function of its own: compilers take far longer over a large one, and gcc checks its loads for
 * AddressSanitizer by calls. */
#define DIRECT(type)                                                                                                   \
    static __attribute__((noinline)) void direct_##type(const uint8_t *const *span, int n_panels, int groups,          \
                                                        const pl_tile_rows *rows, float *acc, int64_t acc_ld)          \
    {                                                                                                                  \
        direct(type, span, n_panels, groups, rows, acc, acc_ld);                                                       \
    }
PL_EACH_PANEL_TYPE(DIRECT)

void pl_direct_avx512(pl_dtype type, const uint8_t *const *span, int n_panels, int groups, const pl_tile_rows *rows,
                      float *acc, int64_t acc_ld)
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
