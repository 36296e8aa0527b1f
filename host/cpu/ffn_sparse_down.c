/* `down` of a few rows, neuron by neuron: the steps of matmul_tile.h for one output a lane, the columns of a group that
 * have no activation left out. A group goes through all slabs of a piece before the next one does: how many columns it has
 * cannot be foreseen, but from one slab to the next it is the same. */
#include "host/base/isa.h"
#include "host/cpu/ffn_columns.h"
#include "host/cpu/ffn_sparse.h"

#define AT_ONCE (4 * PL_PART_LANES) /* outputs */

/* ---- columns ---- */

#if defined(__AVX2__) && !defined(__AVX512F__)

INLINE __m256i whole_codes(pl_panel_type t, const uint8_t *column, slab_place place, int at)
{
    __m256i v = (__m256i)bytes_at(t, column, place, at);
    if (!t.values)
        return v;
    __m256i values = _mm256_broadcastsi128_si256(_mm_loadu_si128((const __m128i *)(const void *)t.values));
    return _mm256_shuffle_epi8(_mm256_add_epi8(values, _mm256_set1_epi8((char)t.offset)), v);
}

/* sum += the products of two columns' codes with the two halves of x. */
INLINE void add_two(pl_parti sum[4], __m256i a, __m256i b, __m256i x)
{
    const __m256i zero = _mm256_setzero_si256(), low = _mm256_unpacklo_epi8(a, b), high = _mm256_unpackhi_epi8(a, b);
    sum[0] = add_products(sum[0], (pl_parti)_mm256_unpacklo_epi8(low, zero), (pl_parti)x);
    sum[1] = add_products(sum[1], (pl_parti)_mm256_unpackhi_epi8(low, zero), (pl_parti)x);
    sum[2] = add_products(sum[2], (pl_parti)_mm256_unpacklo_epi8(high, zero), (pl_parti)x);
    sum[3] = add_products(sum[3], (pl_parti)_mm256_unpackhi_epi8(high, zero), (pl_parti)x);
}

/* sum, which is the same in all lanes, += live[0..n) times their columns, of outputs [at, at + AT_ONCE) of a slab. */
INLINE void add_columns(pl_panel_type t, pl_parti sum[4], const uint8_t *columns, size_t column_bytes, slab_place place,
                        int at, const uint32_t *live, int n)
{
    int e = 0;
    for (; e + 1 < n; e += 2) {
        __m256i a = whole_codes(t, columns + (live[e] >> 16) % PL_SPAN * column_bytes, place, at);
        __m256i b = whole_codes(t, columns + (live[e + 1] >> 16) % PL_SPAN * column_bytes, place, at);
        add_two(sum, a, b, _mm256_set1_epi32((int32_t)((live[e] & 0xffff) | live[e + 1] << 16)));
    }
    if (e < n) {
        __m256i a = whole_codes(t, columns + (live[e] >> 16) % PL_SPAN * column_bytes, place, at);
        add_two(sum, a, _mm256_setzero_si256(), _mm256_set1_epi32((int32_t)live[e]));
    }
    __m256i v[4];
    for (int i = 0; i < 4; i++)
        v[i] = (__m256i)sum[i];
    /* Unpacking went by halves of registers. */
    sum[0] = (pl_parti)_mm256_permute2x128_si256(v[0], v[1], 0x20);
    sum[1] = (pl_parti)_mm256_permute2x128_si256(v[2], v[3], 0x20);
    sum[2] = (pl_parti)_mm256_permute2x128_si256(v[0], v[1], 0x31);
    sum[3] = (pl_parti)_mm256_permute2x128_si256(v[2], v[3], 0x31);
}

#else

INLINE void add_columns(pl_panel_type t, pl_parti sum[4], const uint8_t *columns, size_t column_bytes, slab_place place,
                        int at, const uint32_t *live, int n)
{
    for (int e = 0; e < n; e++) {
        const uint8_t *column = columns + (live[e] >> 16) % PL_SPAN * column_bytes;
        for (int i = 0; i < 4; i++)
            sum[i] = add_products(sum[i], codes_at(t, column, place, at + i * PL_PART_LANES),
                                  (pl_parti){0} + (int32_t)live[e]);
    }
}

#endif

/* ---- sums ---- */

typedef float slab_sums[PL_NEURON_LINE];

/* A span of `down` for slabs [begin, end). */
typedef struct down_span {
    const uint8_t *heads, *columns;
    pl_neuron_columns layout;
    int64_t begin, end;
} down_span;

/* Group g of the span, or one half of it: live[0..n). */
INLINE void add_part(pl_dtype type, slab_sums *acc, const down_span *s, const pl_live_group *group, int g, int half,
                     const uint32_t *live, int n)
{
    pl_panel_type t = pl_panel_describe(type);
    int total = pl_has_halves(t.kind) ? group->sum[half] : group->sum[0] + group->sum[1];
    pl_part scale = part_set(group->scale), shift = part_set(group->scale * (float)total);
    for (int64_t slab = s->begin; slab < s->end; slab++, acc++) {
        slab_place place = place_of(t, s->layout, slab);
        const uint8_t *heads = s->heads + slab * SLAB_PANELS * t.head_bytes;
#pragma GCC unroll 2
        for (int at = 0; at < PL_NEURON_LINE; at += AT_ONCE) {
            pl_parti sum[4];
            for (int i = 0; i < 4; i++)
                sum[i] = (pl_parti){0} + (pl_has_minimum(t.kind) ? 0 : -t.offset * total);
            add_columns(t, sum, s->columns, s->layout.column, place, at, live, n);
            for (int i = 0; i < 4; i++) {
                int lane = at + i * PL_PART_LANES;
                scale_pair of = scales_at(type, heads + lane / PL_PANEL_ROWS * t.head_bytes, g, half,
                                          lane % PL_PANEL_ROWS);
                pl_part v = fused(__builtin_convertvector(sum[i], pl_part), of.d * scale, part_load(*acc + lane));
                part_store(*acc + lane, pl_has_minimum(t.kind) ? fused(of.m, shift, v) : v);
            }
        }
    }
}

/* Group `group` of a row, which is group g of the span. Halves without activations are left out as groups are, unless
 * there is no number in the group, which all outputs have to show. */
INLINE void add_group(pl_dtype type, slab_sums *acc, const down_span *s, const pl_live_row *row, int64_t group, int g)
{
    const pl_live_group *of = &row->group[group];
    const uint32_t *live = row->live + of->first;
    if (of->scale == 0)
        return;
    if (!pl_has_halves(pl_panel_describe(type).kind)) {
        add_part(type, acc, s, of, g, 0, live, of->n);
        return;
    }
    int n = 0;
    while (n < of->n && (live[n] >> 16) % PL_GROUP < 16)
        n++;
    const int finite = __builtin_isfinite(of->scale);
    if (n > 0 || !finite)
        add_part(type, acc, s, of, g, 0, live, n);
    if (n < of->n || !finite)
        add_part(type, acc, s, of, g, 1, live + n, of->n - n);
}

/* ---- all ---- */

INLINE void prefetch_lines(const uint8_t *begin, const uint8_t *end)
{
    for (; begin < end; begin += 64)
        __builtin_prefetch(begin, 0, 3);
}

/* Asks for what a group's live columns are to the slabs, and for an eighth of the heads. */
INLINE void prefetch_group(pl_panel_type t, const pl_down *d, const down_span *s, int64_t group, int g)
{
    slab_place from = place_of(t, s->layout, s->begin), last = place_of(t, s->layout, s->end - 1);
    const uint8_t *heads = s->heads + s->begin * SLAB_PANELS * t.head_bytes;
    int64_t bytes = (s->end - s->begin) * SLAB_PANELS * t.head_bytes;
    prefetch_lines(heads + bytes * g / PL_SPAN_GROUPS / 64 * 64, heads + bytes * (g + 1) / PL_SPAN_GROUPS);
    for (int r = 0; r < d->n_rows; r++) {
        const pl_live_group *of = &d->row[r].group[group];
        for (int32_t e = of->first; e < of->first + of->n; e++) {
            const uint8_t *column = s->columns + (d->row[r].live[e] >> 16) % PL_SPAN * s->layout.column;
            if (t.bits >= 4)
                prefetch_lines(column + from.low, column + last.low + 1);
            if (pl_has_pairs(t.bits))
                prefetch_lines(column + from.pairs, column + last.pairs + 1);
            if (pl_has_top(t.bits))
                prefetch_lines(column + from.top, column + last.top + 1);
        }
    }
}

INLINE down_span span_of(const pl_down *d, pl_neuron_columns layout, int64_t span, int64_t begin, int64_t end)
{
    const uint8_t *at = (const uint8_t *)d->w->data + (size_t)span * (layout.heads + PL_SPAN * layout.column);
    return (down_span){at, at + layout.heads, layout, begin, end};
}

INLINE void multiply(pl_dtype type, const pl_down *d, int64_t begin, int64_t end)
{
    pl_panel_type t = pl_panel_describe(type);
    pl_neuron_columns layout = pl_neuron_columns_of(t, d->w->rows);
    slab_sums acc[PL_SPARSE_ROWS][PL_DOWN_SLABS] __attribute__((aligned(64)));
    memset(acc, 0, (size_t)d->n_rows * sizeof acc[0]);
    for (int64_t group = 0; group < d->groups; group++) {
        int64_t span = group / PL_SPAN_GROUPS;
        int g = (int)(group % PL_SPAN_GROUPS);
        down_span s = span_of(d, layout, span, begin, end), next = span_of(d, layout, span + 1, begin, end);
        if (group + PL_SPAN_GROUPS < d->groups)
            prefetch_group(t, d, &next, group + PL_SPAN_GROUPS, g);
        for (int r = 0; r < d->n_rows; r++)
            add_group(type, acc[r], &s, &d->row[r], group, g);
    }
    for (int64_t slab = begin; slab < end; slab++) {
        int64_t first = slab * PL_NEURON_LINE, n = d->w->rows - first;
        for (int r = 0; r < d->n_rows; r++)
            memcpy(d->out + r * d->w->rows + first, acc[r][slab - begin],
                   (size_t)(n < PL_NEURON_LINE ? n : PL_NEURON_LINE) * sizeof *d->out);
    }
}

void PL_ISA_NAME(pl_down_slabs)(const pl_down *d, int64_t begin, int64_t end)
{
    switch (d->w->type) {
#define TYPE_CASE(type)                                                                                                \
    case type: multiply(type, d, begin, end); break;
        PL_EACH_PANEL_TYPE(TYPE_CASE)
#undef TYPE_CASE
    case PL_F32:
    case PL_F16:
    case PL_BF16: break;
    }
}
