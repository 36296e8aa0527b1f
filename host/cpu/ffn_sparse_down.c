/* `down` of a few rows, neuron by neuron: the steps of matmul_tile.h for one output a lane, the columns of a group that
 * have no activation left out. A slab of 64 outputs is four panels, whose sums stay in registers through a group. */
#include "host/base/isa.h"
#include "host/cpu/ffn_columns.h"
#include "host/cpu/ffn_sparse.h"

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
                sum[p][i] = add_products(sum[p][i], codes_at(t, column, place, p * PL_PANEL_ROWS + i * PL_PART_LANES),
                                         (pl_parti){0} + (int32_t)live[e]);
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
