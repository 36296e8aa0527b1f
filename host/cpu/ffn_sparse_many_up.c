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

INLINE words half_of(int first)
{
    words v = {0};
    for (int i = 0; i < PL_PART_LANES; i++)
        v[i] = (first + i) / 8;
    return v;
}

/* Codes of columns 4 c and after in half a group, from lane `first` on. */
INLINE words codes_of(pl_panel_type t, const uint8_t *body, int groups, int c, int first)
{
    int low = pl_nibble_bits(t.bits);
    words half = half_of(first), v = {0};
    if (t.bits == 8)
        return gather(body + 4 * c, groups, 8, 4, first);
    if (low)
        v = gather(body + 4 * c, groups, t.bits, 0, first) >> (4 * half) & 0x0f0f0f0f;
    if (pl_has_pairs(t.bits))
        v |= (gather(body + low * 4, groups, t.bits, 1, first) >> (2 * c) & 0x03030303) << low;
    if (pl_has_top(t.bits))
        v |= (gather(body + (t.bits - 1) * 4, groups, t.bits, 0, first) >> (4 * half + (uint32_t)c) & 0x01010101)
             << (t.bits - 1);
    return v;
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
    for (int c = 0; c < 4; c++) {
        for (int first = 0; first < 16; first += PL_PART_LANES) {
            words v = codes_of(t, body, groups, c, first);
            if (t.values)
                v = look_up(t, v);
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
    case PL_Q2_K:
        for (int i = 0; i < 16; i++) {
            out->d[i % 2][i / 2] = half_at(head) * (float)(head[4 + i] & 15);
            out->m[i % 2][i / 2] = -(half_at(head + 2) * (float)(head[4 + i] >> 4));
        }
        break;
    case PL_Q4_K:
    case PL_Q5_K:
        for (int g = 0; g < PL_SPAN_GROUPS; g++) {
            out->d[0][g] = half_at(head) * head[4 + g];
            out->m[0][g] = -(half_at(head + 2) * head[12 + g]);
        }
        break;
    case PL_Q3_K:
    case PL_Q6_K:
        for (int i = 0; i < 16; i++)
            out->d[i % 2][i / 2] = half_at(head) * (int8_t)head[2 + i];
        break;
    case PL_IQ4_XS:
        for (int g = 0; g < PL_SPAN_GROUPS; g++)
            out->d[0][g] = half_at(head) * (int8_t)head[2 + g];
        break;
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

/* out[g], lane i: p[i][g]. */
INLINE void transpose(const __m512i v[8], __m512i out[8])
{
    /* v[i]: that of row i, then that of row 8 + i */
    __m512i a[8], b[8];
    for (int i = 0; i < 8; i += 2) {
        a[i] = _mm512_unpacklo_epi32(v[i], v[i + 1]);
        a[i + 1] = _mm512_unpackhi_epi32(v[i], v[i + 1]);
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
        out[i] = _mm512_permutex2var_epi64(b[i], low, b[i + 4]);
        out[i + 4] = _mm512_permutex2var_epi64(b[i], high, b[i + 4]);
    }
}

INLINE __m512i two_at(const void *a, const void *b)
{
    __m512i low = _mm512_castsi256_si512(_mm256_loadu_si256((const __m256i *)a));
    return _mm512_inserti64x4(low, _mm256_loadu_si256((const __m256i *)b), 1);
}

INLINE void sums_of(const int32_t sum[BATCH][16], int half, __m512i out[8])
{
    __m512i v[8];
    for (int i = 0; i < 8; i++)
        v[i] = two_at(sum[i] + 8 * half, sum[i + 8] + 8 * half);
    transpose(v, out);
}

INLINE void add_groups(pl_panel_kind kind, const pl_neuron_codes *w, const pl_wide_span *x, const uint16_t *row, int n,
                       int groups, const int32_t sum[BATCH][16], float *acc)
{
    const pl_wide_span *at[BATCH];
    for (int i = 0; i < BATCH; i++)
        at[i] = x + row[i < n ? i : 0];
    int halves = pl_has_halves(kind);
    __m512i v[8], s[2][8], scale[8], shift[2][8];
    for (int i = 0; i < 8; i++)
        v[i] = two_at(at[i]->scale, at[i + 8]->scale);
    transpose(v, scale);
    if (halves) {
        sums_of(sum, 0, s[0]);
        sums_of(sum, 1, s[1]);
    } else {
        for (int i = 0; i < 8; i++)
            v[i] = _mm512_add_epi32(two_at(sum[i], sum[i + 8]), two_at(sum[i] + 8, sum[i + 8] + 8));
        transpose(v, s[0]);
    }
    for (int h = 0; h <= halves && pl_has_minimum(kind); h++) {
        for (int i = 0; i < 8; i++)
            v[i] = two_at(at[i]->shift[h], at[i + 8]->shift[h]);
        transpose(v, shift[h]);
    }
    __m512 a = _mm512_loadu_ps(acc);
    for (int g = 0; g < groups; g++) {
        for (int h = 0; h <= halves; h++) {
            __m512 d = _mm512_mul_ps(_mm512_set1_ps(w->d[h][g]), _mm512_castsi512_ps(scale[g]));
            a = _mm512_fmadd_ps(_mm512_cvtepi32_ps(s[h][g]), d, a);
            if (pl_has_minimum(kind))
                a = _mm512_fmadd_ps(_mm512_set1_ps(w->m[h][g]), _mm512_castsi512_ps(shift[h][g]), a);
        }
    }
    _mm512_storeu_ps(acc, a);
}

#else

INLINE void add_groups(pl_panel_kind kind, const pl_neuron_codes *w, const pl_wide_span *x, const uint16_t *row, int n,
                       int groups, const int32_t sum[BATCH][16], float *acc)
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
        break
        TYPE_CASE(PL_Q4_0);
        TYPE_CASE(PL_Q4_1);
        TYPE_CASE(PL_Q5_0);
        TYPE_CASE(PL_Q5_1);
        TYPE_CASE(PL_Q8_0);
        TYPE_CASE(PL_Q2_K);
        TYPE_CASE(PL_Q3_K);
        TYPE_CASE(PL_Q4_K);
        TYPE_CASE(PL_Q5_K);
        TYPE_CASE(PL_Q6_K);
        TYPE_CASE(PL_IQ4_NL);
        TYPE_CASE(PL_IQ4_XS);
        TYPE_CASE(PL_MXFP4);
        TYPE_CASE(PL_NVFP4);
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
