/* `up` of many rows, one neuron after the other: what it is for the rows whose gate lets it through. A lane is half a group
 * of a span, so that the products need no sums across lanes; the f32 steps of sixteen rows then go side by side. */
#include "host/base/isa.h"
#include "host/cpu/ffn_columns.h"
#include "host/cpu/ffn_sparse.h"

#define BATCH 16 /* rows */

/* ---- one neuron ---- */

/* The word group * stride + half * half_stride of each lane, from lane `first` on; of groups that are not there that of
 * another one. */
INLINE words gather(const uint8_t *p, int groups, int stride, int half_stride, int first)
{
#if defined(__AVX512F__)
    const __m512i lane = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 0, 1, 2, 3, 4, 5, 6, 7);
    __m512i at = _mm512_mullo_epi32(_mm512_min_epi32(lane, _mm512_set1_epi32(groups - 1)), _mm512_set1_epi32(stride));
    (void)first;
    at = _mm512_mask_add_epi32(at, 0xff00, at, _mm512_set1_epi32(half_stride));
    return (words)_mm512_i32gather_epi32(at, p, 4);
#else
    words v;
    for (int i = 0; i < PL_PART_LANES; i++) {
        int group = (first + i) % 8, half = (first + i) / 8;
        uint32_t w;
        memcpy(&w, p + 4 * ((group < groups ? group : 0) * stride + half * half_stride), sizeof w);
        v[i] = w;
    }
    return v;
#endif
}

/* out[c]: gather() from the c-th of four words that stand side by side. */
INLINE void gather_four(const uint8_t *p, int groups, int stride, int half_stride, int first, words out[4])
{
#if defined(__AVX2__) && !defined(__AVX512F__)
    __m256i v[4], pair[4];
    p += 4 * (first / 8) * half_stride;
    for (int i = 0; i < 4; i++) {
        const uint8_t *low = p + 4 * stride * (i < groups ? i : 0),
                      *high = p + 4 * stride * (i + 4 < groups ? i + 4 : 0);
        v[i] = _mm256_loadu2_m128i((const __m128i *)(const void *)high, (const __m128i *)(const void *)low);
    }
    for (int i = 0; i < 2; i++) {
        pair[i] = _mm256_unpacklo_epi32(v[2 * i], v[2 * i + 1]);
        pair[i + 2] = _mm256_unpackhi_epi32(v[2 * i], v[2 * i + 1]);
    }
    for (int i = 0; i < 4; i += 2) {
        out[i] = (words)_mm256_unpacklo_epi64(pair[i], pair[i + 1]);
        out[i + 1] = (words)_mm256_unpackhi_epi64(pair[i], pair[i + 1]);
    }
#else
    for (int c = 0; c < 4; c++)
        out[c] = gather(p + 4 * c, groups, stride, half_stride, first);
#endif
}

INLINE words half_of(int first)
{
    words v = {0};
    for (int i = 0; i < PL_PART_LANES; i++)
        v[i] = (first + i) / 8;
    return v;
}

/* out[c]: codes of columns 4 c and after in half a group, from lane `first` on. */
INLINE void codes_of(pl_panel_type t, const uint8_t *body, int groups, int first, words out[4])
{
    int low = pl_nibble_bits(t.bits);
    words half = half_of(first);
    if (t.bits == 8) {
        gather_four(body, groups, 8, 4, first, out);
        return;
    }
    if (low)
        gather_four(body, groups, t.bits, 0, first, out);
    for (int c = 0; c < 4; c++) {
        words v = {0};
        if (low)
            v = out[c] >> (4 * half) & 0x0f0f0f0f;
        if (pl_has_pairs(t.bits))
            v |= (gather(body + low * 4, groups, t.bits, 1, first) >> (2 * c) & 0x03030303) << low;
        if (pl_has_top(t.bits))
            v |= (gather(body + (t.bits - 1) * 4, groups, t.bits, 0, first) >> (4 * half + (uint32_t)c) & 0x01010101)
                 << (t.bits - 1);
        out[c] = v;
    }
}

INLINE words look_up(pl_panel_type t, words v)
{
    uint8_t code[sizeof v];
    memcpy(code, &v, sizeof v);
    for (size_t i = 0; i < sizeof v; i++)
        code[i] = (uint8_t)(t.values[code[i]] + t.offset);
    memcpy(&v, code, sizeof v);
    return v;
}

INLINE void unpack_codes(pl_panel_type t, const uint8_t *body, int groups, pl_neuron_codes *out)
{
    for (int first = 0; first < 16; first += PL_PART_LANES) {
        words codes[4];
        codes_of(t, body, groups, first, codes);
        for (int c = 0; c < 4; c++) {
            words v = t.values ? look_up(t, codes[c]) : codes[c];
            shorts even = (shorts)(v & 0x00ff00ff) - (int16_t)t.offset;
            shorts odd = (shorts)(v >> 8 & 0x00ff00ff) - (int16_t)t.offset;
            memcpy(out->code[2 * c] + first, &even, sizeof even);
            memcpy(out->code[2 * c + 1] + first, &odd, sizeof odd);
        }
    }
}

INLINE float half_at(const uint8_t *p)
{
    uint16_t h;
    memcpy(&h, p, sizeof h);
    return pl_f16_to_f32(h);
}

INLINE void load_halves(const uint8_t *p, float out[PL_SPAN_GROUPS])
{
#if defined(__F16C__)
    _mm256_storeu_ps(out, _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)(const void *)p)));
#else
    for (int g = 0; g < PL_SPAN_GROUPS; g++)
        out[g] = half_at(p + 2 * g);
#endif
}

INLINE void unpack_scales(pl_dtype type, const uint8_t *head, pl_neuron_codes *out)
{
    switch (type) {
    case PL_Q4_1:
    case PL_Q5_1: load_halves(head + 16, out->m[0]); /* fall through */
    case PL_Q4_0:
    case PL_Q5_0:
    case PL_Q8_0:
    case PL_IQ4_NL: load_halves(head, out->d[0]); break;
    case PL_Q2_K: {
        const float d = half_at(head), m = half_at(head + 2);
        for (int i = 0; i < 16; i++) {
            out->d[i % 2][i / 2] = d * (float)(head[4 + i] & 15);
            out->m[i % 2][i / 2] = -(m * (float)(head[4 + i] >> 4));
        }
        break;
    }
    case PL_Q4_K:
    case PL_Q5_K: {
        const float d = half_at(head), m = half_at(head + 2);
        for (int g = 0; g < PL_SPAN_GROUPS; g++) {
            out->d[0][g] = d * head[4 + g];
            out->m[0][g] = -(m * head[12 + g]);
        }
        break;
    }
    case PL_Q3_K:
    case PL_Q6_K: {
        const float d = half_at(head);
        for (int i = 0; i < 16; i++)
            out->d[i % 2][i / 2] = d * (int8_t)head[2 + i];
        break;
    }
    case PL_IQ4_XS: {
        const float d = half_at(head);
        for (int g = 0; g < PL_SPAN_GROUPS; g++)
            out->d[0][g] = d * (int8_t)head[2 + g];
        break;
    }
    case PL_MXFP4:
        for (int g = 0; g < PL_SPAN_GROUPS; g++)
            out->d[0][g] = pl_mxfp4_half_scale(head[g]);
        break;
    case PL_NVFP4:
        for (int i = 0; i < 16; i++)
            out->d[i % 2][i / 2] = pl_nvfp4_half_scale(head[i] | 0x80);
        break;
    case PL_F32:
    case PL_F16:
    case PL_BF16: break;
    }
}

/* ---- sixteen rows ---- */

INLINE pl_parti load(const int32_t *p)
{
    pl_parti v;
    memcpy(&v, p, sizeof v);
    return v;
}

/* sum[i]: of halves of groups, row i's. */
INLINE void multiply(const pl_neuron_codes *w, const pl_wide_span *x, const uint16_t *row, int n,
                     int32_t sum[BATCH][16])
{
    for (int first = 0; first < 16; first += PL_PART_LANES) {
        pl_parti code[8];
        for (int i = 0; i < 8; i++)
            memcpy(&code[i], w->code[i] + first, sizeof code[i]);
        for (int r = 0; r < n; r++) {
            const pl_wide_span *at = x + row[r];
            pl_parti even = {0}, odd = {0};
            for (int i = 0; i < 8; i += 2) {
                even = add_products(even, code[i], load(at->x[i] + first));
                odd = add_products(odd, code[i + 1], load(at->x[i + 1] + first));
            }
            even += odd;
            memcpy(sum[r] + first, &even, sizeof even);
        }
    }
}

#if defined(__AVX512F__)

/* A row's eight values, and those of the row eight further on. */
INLINE pl_parti rows_at(const int32_t *const *row, int i, size_t offset)
{
    __m512i low = _mm512_castsi256_si512(_mm256_loadu_si256((const __m256i *)(const void *)(row[i] + offset)));
    return (pl_parti)_mm512_inserti64x4(low, _mm256_loadu_si256((const __m256i *)(const void *)(row[i + 8] + offset)),
                                        1);
}

/* out[g], lane i: value g of row i. v[i]: as rows_at() has them. */
INLINE void transpose(const pl_parti v[8], pl_parti out[8])
{
    __m512i a[8], b[8];
    for (int i = 0; i < 8; i += 2) {
        a[i] = _mm512_unpacklo_epi32((__m512i)v[i], (__m512i)v[i + 1]);
        a[i + 1] = _mm512_unpackhi_epi32((__m512i)v[i], (__m512i)v[i + 1]);
    }
    for (int i = 0; i < 8; i += 4) {
        b[i] = _mm512_unpacklo_epi64(a[i], a[i + 2]);
        b[i + 1] = _mm512_unpackhi_epi64(a[i], a[i + 2]);
        b[i + 2] = _mm512_unpacklo_epi64(a[i + 1], a[i + 3]);
        b[i + 3] = _mm512_unpackhi_epi64(a[i + 1], a[i + 3]);
    }
    const __m512i low = _mm512_setr_epi64(0, 1, 8, 9, 4, 5, 12, 13),
                  high = _mm512_setr_epi64(2, 3, 10, 11, 6, 7, 14, 15);
    for (int i = 0; i < 4; i++) {
        out[i] = (pl_parti)_mm512_permutex2var_epi64(b[i], low, b[i + 4]);
        out[i + 4] = (pl_parti)_mm512_permutex2var_epi64(b[i], high, b[i + 4]);
    }
}

#elif defined(__AVX2__)

INLINE pl_parti rows_at(const int32_t *const *row, int i, size_t offset)
{
    return load(row[i] + offset);
}

/* out[g], lane i: v[i][g]. */
INLINE void transpose(const pl_parti v[8], pl_parti out[8])
{
    __m256i a[8], b[8];
    for (int i = 0; i < 8; i += 2) {
        a[i] = _mm256_unpacklo_epi32((__m256i)v[i], (__m256i)v[i + 1]);
        a[i + 1] = _mm256_unpackhi_epi32((__m256i)v[i], (__m256i)v[i + 1]);
    }
    for (int i = 0; i < 8; i += 4) {
        b[i] = _mm256_unpacklo_epi64(a[i], a[i + 2]);
        b[i + 1] = _mm256_unpackhi_epi64(a[i], a[i + 2]);
        b[i + 2] = _mm256_unpacklo_epi64(a[i + 1], a[i + 3]);
        b[i + 3] = _mm256_unpackhi_epi64(a[i + 1], a[i + 3]);
    }
    for (int i = 0; i < 4; i++) {
        out[i] = (pl_parti)_mm256_permute2x128_si256(b[i], b[i + 4], 0x20);
        out[i + 4] = (pl_parti)_mm256_permute2x128_si256(b[i], b[i + 4], 0x31);
    }
}

#endif

#if defined(__AVX2__)

/* What stands `offset` words behind each of the rows, by groups. */
INLINE void groups_of(const int32_t *const *row, size_t offset, pl_parti out[8])
{
    pl_parti v[8];
    for (int i = 0; i < 8; i++)
        v[i] = rows_at(row, i, offset);
    transpose(v, out);
}

/* Of whole groups: both halves together. */
INLINE void whole_groups_of(const int32_t *const *row, pl_parti out[8])
{
    pl_parti v[8];
    for (int i = 0; i < 8; i++)
        v[i] = rows_at(row, i, 0) + rows_at(row, i, 8);
    transpose(v, out);
}

/* A row a lane: its sums join its accumulator group by group. */
INLINE void add_rows(pl_panel_kind kind, const pl_neuron_codes *w, const pl_wide_span *x, const uint16_t *row, int n,
                     int groups, int32_t sum[][16], float *acc)
{
    const int halves = pl_has_halves(kind);
    const int32_t *at[PL_PART_LANES], *sums[PL_PART_LANES];
    pl_parti s[2][8], scale[8], shift[2][8];
    for (int i = 0; i < PL_PART_LANES; i++) {
        const int r = i < n ? i : 0;
        at[i] = (const int32_t *)(const void *)(x + row[r]);
        sums[i] = sum[r];
    }
    groups_of(at, offsetof(pl_wide_span, scale) / 4, scale);
    for (int h = 0; h <= halves && pl_has_minimum(kind); h++)
        groups_of(at, offsetof(pl_wide_span, shift) / 4 + 8 * (size_t)h, shift[h]);
    if (!halves)
        whole_groups_of(sums, s[0]);
    for (int h = 0; h < 2 && halves; h++)
        groups_of(sums, 8 * (size_t)h, s[h]);
    pl_part a = part_load(acc);
    for (int g = 0; g < groups; g++) {
        for (int h = 0; h <= halves; h++) {
            a = fused(__builtin_convertvector(s[h][g], pl_part), part_set(w->d[h][g]) * (pl_part)scale[g], a);
            if (pl_has_minimum(kind))
                a = fused(part_set(w->m[h][g]), (pl_part)shift[h][g], a);
        }
    }
    part_store(acc, a);
}

INLINE void add_groups(pl_panel_kind kind, const pl_neuron_codes *w, const pl_wide_span *x, const uint16_t *row, int n,
                       int groups, int32_t sum[BATCH][16], float *acc)
{
    for (int i = 0; i < n; i += PL_PART_LANES)
        add_rows(kind, w, x, row + i, n - i, groups, sum + i, acc + i);
}

#else

INLINE void add_groups(pl_panel_kind kind, const pl_neuron_codes *w, const pl_wide_span *x, const uint16_t *row, int n,
                       int groups, int32_t sum[BATCH][16], float *acc)
{
    for (int r = 0; r < n; r++) {
        const pl_wide_span *at = x + row[r];
        float a = acc[r];
        for (int g = 0; g < groups; g++) {
            for (int h = 0; h <= pl_has_halves(kind); h++) {
                int32_t s = pl_has_halves(kind) ? sum[r][8 * h + g] : sum[r][g] + sum[r][8 + g];
                a = __builtin_fmaf((float)s, w->d[h][g] * at->scale[g], a);
                if (pl_has_minimum(kind))
                    a = __builtin_fmaf(w->m[h][g], at->shift[h][g], a);
            }
        }
        acc[r] = a;
    }
}

#endif

INLINE void up_span(pl_dtype type, int groups, const uint8_t *span, const pl_wide_span *x, const uint16_t *row, int n,
                    float *acc)
{
    pl_panel_type t = pl_panel_describe(type);
    pl_neuron_codes w;
    int32_t sum[BATCH][16] __attribute__((aligned(64)));
    unpack_codes(t, span + t.head_bytes / PL_PANEL_ROWS, groups, &w);
    unpack_scales(type, span, &w);
    for (int i = 0; i < n; i += BATCH) {
        int some = n - i < BATCH ? n - i : BATCH;
        multiply(&w, x, row + i, some, sum);
        add_groups(t.kind, &w, x, row + i, some, groups, sum, acc + i);
    }
}

void PL_ISA_NAME(pl_up_span)(pl_dtype type, int groups, const uint8_t *span, const pl_wide_span *x, const uint16_t *row,
                             int n, float *acc)
{
    switch (type) {
#define TYPE_CASE(type)                                                                                                \
    case type:                                                                                                         \
        if (groups == PL_SPAN_GROUPS)                                                                                  \
            up_span(type, PL_SPAN_GROUPS, span, x, row, n, acc);                                                       \
        else                                                                                                           \
            up_span(type, groups, span, x, row, n, acc);                                                               \
        break;
        PL_EACH_PANEL_TYPE(TYPE_CASE)
#undef TYPE_CASE
    case PL_F32:
    case PL_F16:
    case PL_BF16: break;
    }
}

/* ---- operands ---- */

/* Activation of column c and of column c + 2 of a group. */
INLINE int32_t two_columns(const int8_t *hi_lo, int c)
{
    return (128 * hi_lo[c + 2] + hi_lo[PL_GROUP + c + 2]) * 65536 + (uint16_t)(128 * hi_lo[c] + hi_lo[PL_GROUP + c]);
}

void PL_ISA_NAME(pl_widen_span)(pl_panel_type type, const pl_act *x, int64_t row, int64_t span, pl_wide_span *out)
{
    int64_t ld, at = pl_act_at(x, row, span, &ld);
    int groups = (int)ld;
    pl_row_terms terms;
    *out = (pl_wide_span){0};
    if (pl_has_minimum(type.kind))
        PL_ISA_NAME(pl_terms)(type, x->sum + 2 * at, x->scale + at, groups, &terms);
    for (int g = 0; g < groups; g++) {
        for (int i = 0; i < 16; i++)
            out->x[i % 8][i / 8 * 8 + g] = two_columns(x->hi_lo + (at + g) * 2 * PL_GROUP,
                                                       i / 8 * 16 + i % 8 / 2 * 4 + i % 2);
        out->scale[g] = x->scale[at + g];
        for (int h = 0; h < 2 && pl_has_minimum(type.kind); h++)
            out->shift[h][g] = pl_has_halves(type.kind) ? terms.shift[2 * g + h] : terms.shift[g];
    }
}
