/* `down` of a few rows, neuron by neuron: the steps of matmul_tile.h for one output a lane, the columns of a group that
 * have no activation left out. A slab of 64 outputs is four panels, whose sums stay in registers through a group. */
#include "host/base/isa.h"
#include "host/cpu/ffn_sparse.h"
#include "host/cpu/neuron.h"

#define INLINE static inline __attribute__((always_inline))
#define SLAB_PANELS (PL_NEURON_LINE / PL_PANEL_ROWS)

typedef uint8_t part_bytes __attribute__((vector_size(PL_PART_LANES)));

/* ---- lanes ---- */

INLINE pl_parti widen(const uint8_t *p)
{
    part_bytes v;
    memcpy(&v, p, sizeof v);
#if defined(__AVX512F__)
    return (pl_parti)_mm512_cvtepu8_epi32((__m128i)v);
#else
    return __builtin_convertvector(v, pl_parti);
#endif
}

INLINE pl_part widen_signed(const uint8_t *p)
{
    pl_parti v = widen(p);
    return __builtin_convertvector((v ^ 128) - 128, pl_part);
}

INLINE pl_part halves_at(const uint8_t *p)
{
#if defined(__AVX512F__)
    return (pl_part)_mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)(const void *)p));
#elif defined(__F16C__)
    return (pl_part)_mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)(const void *)p));
#else
    pl_part out;
    for (int i = 0; i < PL_PART_LANES; i++) {
        uint16_t h;
        memcpy(&h, p + 2 * i, sizeof h);
        out[i] = pl_f16_to_f32(h);
    }
    return out;
#endif
}

INLINE pl_part fused(pl_part a, pl_part b, pl_part c)
{
#if defined(__AVX512F__)
    return (pl_part)_mm512_fmadd_ps((__m512)a, (__m512)b, (__m512)c);
#elif defined(__FMA__)
    return (pl_part)_mm256_fmadd_ps((__m256)a, (__m256)b, (__m256)c);
#else
    for (int i = 0; i < PL_PART_LANES; i++)
        c[i] = __builtin_fmaf(a[i], b[i], c[i]);
    return c;
#endif
}

/* sum + code * the lower half of live; the codes' own upper halves are 0. */
INLINE pl_parti add_product(pl_parti sum, pl_parti code, uint32_t live)
{
#if defined(__AVX512VNNI__)
    return (pl_parti)_mm512_dpwssd_epi32((__m512i)sum, (__m512i)code, _mm512_set1_epi32((int32_t)live));
#elif defined(__AVX2__)
    return sum + (pl_parti)_mm256_madd_epi16((__m256i)code, _mm256_set1_epi32((int32_t)live));
#else
    return sum + code * (int16_t)live;
#endif
}

/* ---- scales: those of lanes [lane, lane + PL_PART_LANES) of a panel, as matmul_tile_avx512.c has them ---- */

typedef struct scale_pair {
    pl_part d, m;
} scale_pair;

INLINE pl_part byte_scales(const uint8_t *p)
{
    return __builtin_convertvector(widen(p), pl_part);
}

INLINE pl_part each(float (*fn)(uint8_t), const uint8_t *p, int with)
{
    pl_part out;
    for (int i = 0; i < PL_PART_LANES; i++)
        out[i] = fn((uint8_t)(p[i] | with));
    return out;
}

INLINE scale_pair scales_at(pl_dtype type, const uint8_t *head, int group, int half, int lane)
{
    scale_pair s = {{0}, {0}};
    const uint8_t *whole = head + 2 * lane, *of_group = head + 32 * group + 2 * lane;
    int at = 16 * group + lane, half_at = 32 * group + 16 * half + lane;
    switch (type) {
    case PL_Q4_1:
    case PL_Q5_1: s.m = halves_at(of_group + 256); /* fall through */
    case PL_Q4_0:
    case PL_Q5_0:
    case PL_Q8_0:
    case PL_IQ4_NL: s.d = halves_at(of_group); break;
    case PL_Q2_K: {
        pl_parti both = widen(head + 64 + half_at);
        s.d = halves_at(whole) * __builtin_convertvector(both & 15, pl_part);
        s.m = -(halves_at(whole + 32) * __builtin_convertvector(both >> 4, pl_part));
        break;
    }
    case PL_Q4_K:
    case PL_Q5_K:
        s.d = halves_at(whole) * byte_scales(head + 64 + at);
        s.m = -(halves_at(whole + 32) * byte_scales(head + 192 + at));
        break;
    case PL_Q3_K:
    case PL_Q6_K: s.d = halves_at(whole) * widen_signed(head + 32 + half_at); break;
    case PL_IQ4_XS: s.d = halves_at(whole) * widen_signed(head + 32 + at); break;
    case PL_MXFP4: s.d = each(pl_mxfp4_half_scale, head + at, 0); break;
    case PL_NVFP4: s.d = each(pl_nvfp4_half_scale, head + half_at, 0x80); break;
    case PL_F32:
    case PL_F16:
    case PL_BF16: break;
    }
    return s;
}

/* ---- codes ---- */

/* Where a slab's codes are within a column. */
typedef struct slab_place {
    size_t low, pairs, top;
    int low_shift, pairs_shift, top_shift;
} slab_place;

INLINE slab_place place_of(pl_panel_type t, pl_neuron_columns c, int64_t slab)
{
    int low = t.bits == 8 ? 8 : 4;
    slab_place p = {.low = (size_t)(slab * low / 8 * PL_NEURON_LINE), .low_shift = (int)(slab * low % 8)};
    p.pairs = c.pairs + (size_t)(slab / 4 * PL_NEURON_LINE);
    p.pairs_shift = (int)(slab % 4 * 2);
    p.top = c.top + (size_t)(slab / 8 * PL_NEURON_LINE);
    p.top_shift = (int)(slab % 8);
    return p;
}

/* Of lanes [at, at + PL_PART_LANES) of a slab. */
INLINE pl_parti codes_at(pl_panel_type t, const uint8_t *column, slab_place p, int at)
{
    int low = pl_nibble_bits(t.bits);
    if (t.bits == 8)
        return widen(column + p.low + at);
    pl_parti code = {0};
    if (low)
        code = widen(column + p.low + at) >> p.low_shift & 15;
    if (pl_has_pairs(t.bits))
        code |= (widen(column + p.pairs + at) >> p.pairs_shift & 3) << low;
    if (pl_has_top(t.bits))
        code |= (widen(column + p.top + at) >> p.top_shift & 1) << (t.bits - 1);
    if (t.values)
        for (int i = 0; i < PL_PART_LANES; i++)
            code[i] = t.values[code[i]] + t.offset;
    return code;
}

/* ---- sums ---- */

typedef struct slab_sums {
    pl_part v[SLAB_PANELS][PL_PARTS];
} slab_sums;

/* Group g of the span, or one half of it: live[0..n). */
INLINE void add_part(pl_dtype type, slab_sums *acc, const uint8_t *heads, const uint8_t *columns, size_t column_bytes,
                     slab_place place, const pl_live_group *group, int g, int half, const uint32_t *live, int n)
{
    pl_panel_type t = pl_panel_describe(type);
    int total = pl_has_halves(t.kind) ? group->sum[half] : group->sum[0] + group->sum[1];
    pl_parti sum[SLAB_PANELS][PL_PARTS];
    for (int p = 0; p < SLAB_PANELS; p++)
        for (int i = 0; i < PL_PARTS; i++)
            sum[p][i] = (pl_parti){0} + (pl_has_minimum(t.kind) ? 0 : -t.offset * total);
    for (int e = 0; e < n; e++) {
        const uint8_t *column = columns + (live[e] >> 16) % PL_SPAN * column_bytes;
        for (int p = 0; p < SLAB_PANELS; p++)
            for (int i = 0; i < PL_PARTS; i++)
                sum[p][i] = add_product(sum[p][i], codes_at(t, column, place, p * PL_PANEL_ROWS + i * PL_PART_LANES),
                                        live[e]);
    }
    pl_part scale = part_set(group->scale), shift = part_set(group->scale * (float)total);
    for (int p = 0; p < SLAB_PANELS; p++) {
        for (int i = 0; i < PL_PARTS; i++) {
            scale_pair s = scales_at(type, heads + p * t.head_bytes, g, half, i * PL_PART_LANES);
            pl_part v = fused(__builtin_convertvector(sum[p][i], pl_part), s.d * scale, acc->v[p][i]);
            acc->v[p][i] = pl_has_minimum(t.kind) ? fused(s.m, shift, v) : v;
        }
    }
}

INLINE void add_span(pl_dtype type, slab_sums *acc, const uint8_t *heads, const uint8_t *columns, size_t column_bytes,
                     slab_place place, const pl_live_row *row, int64_t first_group, int groups)
{
    pl_panel_type t = pl_panel_describe(type);
    slab_sums sums = *acc;
    for (int g = 0; g < groups; g++) {
        const pl_live_group *group = &row->group[first_group + g];
        const uint32_t *live = row->live + group->first;
        if (group->scale == 0)
            continue;
        if (!pl_has_halves(t.kind)) {
            add_part(type, &sums, heads, columns, column_bytes, place, group, g, 0, live, group->n);
            continue;
        }
        int n = 0;
        while (n < group->n && (live[n] >> 16) % PL_GROUP < 16)
            n++;
        add_part(type, &sums, heads, columns, column_bytes, place, group, g, 0, live, n);
        add_part(type, &sums, heads, columns, column_bytes, place, group, g, 1, live + n, group->n - n);
    }
    *acc = sums;
}

/* ---- all ---- */

/* Asks for what the lines of a slab are in a span: heads, and the live columns of all rows. */
INLINE void prefetch(const pl_down *d, pl_panel_type t, pl_neuron_columns c, const uint8_t *at, int64_t slab,
                     slab_place place, int64_t first_group, int64_t end_group)
{
    const uint8_t *heads = at + slab * SLAB_PANELS * t.head_bytes;
    for (int i = 0; i < SLAB_PANELS * t.head_bytes; i += 64)
        __builtin_prefetch(heads + i, 0, 2);
    if (place.low_shift || (t.bits < 4 && place.pairs_shift))
        return;
    for (int r = 0; r < d->n_rows; r++) {
        const pl_live_group *group = d->row[r].group;
        for (int64_t g = first_group; g < end_group; g++)
            for (int32_t e = 0; e < group[g].n; e++) {
                const uint8_t *column = at + c.heads + (d->row[r].live[group[g].first + e] >> 16) % PL_SPAN * c.column;
                if (t.bits >= 4)
                    __builtin_prefetch(column + place.low, 0, 2);
                if (pl_has_pairs(t.bits))
                    __builtin_prefetch(column + place.pairs, 0, 2);
                if (pl_has_top(t.bits))
                    __builtin_prefetch(column + place.top, 0, 2);
            }
    }
}

INLINE void multiply(pl_dtype type, const pl_down *d, int64_t begin, int64_t end)
{
    pl_panel_type t = pl_panel_describe(type);
    pl_neuron_columns c = pl_neuron_columns_of(t, d->w->rows);
    slab_sums acc[PL_DOWN_SLABS][PL_SPARSE_ROWS];
    size_t span_bytes = c.heads + PL_SPAN * c.column;
    memset(acc, 0, sizeof acc);
    for (int64_t g = 0; g < d->groups; g += PL_SPAN_GROUPS) {
        const uint8_t *at = (const uint8_t *)d->w->data + (size_t)(g / PL_SPAN_GROUPS) * span_bytes;
        int64_t groups = d->groups - g, next = groups - PL_SPAN_GROUPS;
        groups = groups < PL_SPAN_GROUPS ? groups : PL_SPAN_GROUPS;
        next = next < PL_SPAN_GROUPS ? next : PL_SPAN_GROUPS;
        for (int64_t slab = begin; slab < end; slab++) {
            slab_place place = place_of(t, c, slab);
            if (next > 0)
                prefetch(d, t, c, at + span_bytes, slab, place, g + PL_SPAN_GROUPS, g + PL_SPAN_GROUPS + next);
            for (int r = 0; r < d->n_rows; r++)
                add_span(type, &acc[slab - begin][r], at + slab * SLAB_PANELS * t.head_bytes, at + c.heads, c.column,
                         place, &d->row[r], g, (int)groups);
        }
    }
    for (int64_t slab = begin; slab < end; slab++) {
        int64_t first = slab * PL_NEURON_LINE, n = d->w->rows - first;
        for (int r = 0; r < d->n_rows; r++)
            memcpy(d->out + r * d->w->rows + first, &acc[slab - begin][r],
                   (size_t)(n < PL_NEURON_LINE ? n : PL_NEURON_LINE) * sizeof *d->out);
    }
}

void PL_ISA_NAME(pl_down_slabs)(const pl_down *d, int64_t begin, int64_t end)
{
    switch (d->w->type) {
#define TYPE_CASE(type)                                                                                                \
    case type: multiply(type, d, begin, end); break
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
