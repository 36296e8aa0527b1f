/* `down` of many rows: the columns of a group are unpacked for 64 outputs at a time, and each row that has activations there
 * takes what it needs of them. Rows with as many activations come one after the other, since which number comes next
 * could not be foreseen. */
#include "host/base/isa.h"
#include "host/cpu/ffn_columns.h"
#include "host/cpu/ffn_sparse.h"

#define BLOCK_ROWS 512 /* whose sums are held at once */
#define BLOCK_LISTS (BLOCK_ROWS / PL_LIST_ROWS)

/* A part for all outputs of a piece, of which output 64 s + i stands in place 64 s + i % 4 * 16 + i / 4: codes minus offset,
 * two neurons side by side. */
typedef struct down_part {
    int32_t code[PL_GROUP / 2][PL_DOWN_OUTPUTS];
    float d[PL_DOWN_OUTPUTS], m[PL_DOWN_OUTPUTS];
} down_part;

typedef struct down_piece {
    down_part part[2 * PL_SPAN_GROUPS];
    float sum[BLOCK_ROWS][PL_DOWN_OUTPUTS];
} down_piece;

/* A slab's codes of two neurons. */
INLINE void unpack_pair(pl_panel_type t, const uint8_t *a, const uint8_t *b, slab_place place, int32_t *out)
{
    for (int i = 0; i < PL_PANEL_ROWS; i += PL_PART_LANES) {
        words u = bytes_at(t, a, place, 4 * i), v = bytes_at(t, b, place, 4 * i);
        for (int j = 0; j < 4; j++) {
            words high = j < 2 ? v << (16 - 8 * j) : v >> (8 * j - 16);
            words both = (u >> (8 * j) & 0xff) | (high & 0xff0000);
            if (t.values)
                for (int lane = 0; lane < PL_PART_LANES; lane++)
                    both[lane] = (uint16_t)t.values[both[lane] & 0xff] | (uint32_t)t.values[both[lane] >> 16] << 16;
            else
                both = (words)((shorts)both - (int16_t)t.offset);
            memcpy(out + j * PL_PANEL_ROWS + i, &both, sizeof both);
        }
    }
}

/* Half `half` of group g, or all of it, for a slab, which is the piece's from output `first` on. */
INLINE void unpack_part(pl_dtype type, const uint8_t *heads, const uint8_t *columns, size_t column_bytes,
                        slab_place place, int g, int half, int first, down_part *out)
{
    pl_panel_type t = pl_panel_describe(type);
    int pairs = pl_has_halves(t.kind) ? PL_GROUP / 4 : PL_GROUP / 2;
    columns += (size_t)(g * PL_GROUP + half * 16) * column_bytes;
    for (int e = 0; e < pairs; e++, columns += 2 * column_bytes)
        unpack_pair(t, columns, columns + column_bytes, place, out->code[e] + first);
    for (int p = 0; p < PL_NEURON_LINE / PL_PANEL_ROWS; p++) {
        for (int i = 0; i < PL_PANEL_ROWS; i += PL_PART_LANES) {
            scale_pair s = scales_at(type, heads + p * t.head_bytes, g, half, i);
            for (int lane = 0; lane < PL_PART_LANES; lane++) {
                int at = first + lane % 4 * 16 + (p * PL_PANEL_ROWS + i + lane) / 4;
                out->d[at] = s.d[lane];
                if (pl_has_minimum(t.kind))
                    out->m[at] = s.m[lane];
            }
        }
    }
}

#define AT_ONCE (PL_PART_LANES == 16 ? 2 * PL_NEURON_LINE : PL_NEURON_LINE / 2)
#define REGS (AT_ONCE / PL_PART_LANES)

INLINE void add_row(bool minimum, const down_part *w, const pl_live_part *row, const pl_live_pair *pair, int n,
                    int first, float *acc)
{
    pl_parti sum[REGS];
    for (int i = 0; i < REGS; i++)
        sum[i] = (pl_parti){0};
    for (int e = 0; e < n; e++) {
        const int32_t *code = w->code[pair[e].pair] + first;
        for (int i = 0; i < REGS; i++) {
            pl_parti v;
            memcpy(&v, code + i * PL_PART_LANES, sizeof v);
            sum[i] = add_products(sum[i], v, (pl_parti){0} + pair[e].x);
        }
    }
    pl_part scale = part_set(row->scale), shift = part_set(row->shift);
    for (int i = 0; i < REGS; i++) {
        int at = first + i * PL_PART_LANES;
        pl_part v = fused(__builtin_convertvector(sum[i], pl_part), part_load(w->d + at) * scale, part_load(acc + at));
        part_store(acc + at, minimum ? fused(part_load(w->m + at), shift, v) : v);
    }
}

INLINE void add_list(bool minimum, const down_part *w, const pl_live_part *part, int n, const pl_live_pair *pair,
                     float (*acc)[PL_DOWN_OUTPUTS])
{
    for (int first = 0; first < PL_DOWN_OUTPUTS; first += AT_ONCE) {
        int i = 0;
        for (; i < n && part[i].n == 1; i++)
            add_row(minimum, w, &part[i], pair + part[i].first, 1, first, acc[part[i].row]);
        for (; i < n && part[i].n == 2; i++)
            add_row(minimum, w, &part[i], pair + part[i].first, 2, first, acc[part[i].row]);
        for (; i < n; i++)
            add_row(minimum, w, &part[i], pair + part[i].first, part[i].n, first, acc[part[i].row]);
    }
}

/* Asks for list l of a part: nothing else foresees where it lies. */
INLINE void prefetch_list(const pl_live_lists *lists, int64_t part, int64_t l, int pairs)
{
    int64_t at = part * lists->n_rows + l * PL_LIST_ROWS;
    int64_t n = lists->count[part * lists->lists + l];
    const char *a = (const char *)(lists->part + at), *b = (const char *)(lists->pair + at * pairs);
    for (int64_t i = 0; i < n * (int64_t)sizeof *lists->part; i += 64) {
        __builtin_prefetch(a + i, 0, 3);
        __builtin_prefetch(b + i, 0, 3);
    }
}

/* The parts of a span that begins with group g, for lists [begin, end). */
INLINE void add_span(pl_dtype type, const pl_down_many *d, down_piece *p, int64_t g, int groups, int64_t begin,
                     int64_t end)
{
    pl_panel_kind kind = pl_panel_describe(type).kind;
    int halves = 1 + pl_has_halves(kind);
    for (int64_t l = begin; l < end; l++) {
        for (int i = 0; i < groups * halves; i++) {
            if (i + 1 < groups * halves)
                prefetch_list(&d->lists, g * halves + i + 1, l, PL_GROUP / 2 / halves);
            int64_t part = g * halves + i, at = part * d->lists.n_rows + l * PL_LIST_ROWS;
            add_list(pl_has_minimum(kind), &p->part[i], d->lists.part + at, d->lists.count[part * d->lists.lists + l],
                     d->lists.pair + at * (PL_GROUP / 2 / halves), p->sum + (l - begin) * PL_LIST_ROWS);
        }
    }
}

INLINE void multiply_lists(pl_dtype type, const pl_down_many *d, down_piece *p, int64_t slab, int slabs, int64_t begin,
                           int64_t end)
{
    pl_panel_type t = pl_panel_describe(type);
    int halves = 1 + pl_has_halves(t.kind);
    pl_neuron_columns c = pl_neuron_columns_of(t, d->w->rows);
    memset(p->sum, 0, (size_t)(end - begin) * PL_LIST_ROWS * sizeof p->sum[0]);
    for (int64_t g = 0; g < d->groups; g += PL_SPAN_GROUPS) {
        const uint8_t *at = (const uint8_t *)d->w->data + (size_t)(g / PL_SPAN_GROUPS) * (c.heads + PL_SPAN * c.column);
        int groups = (int)(d->groups - g < PL_SPAN_GROUPS ? d->groups - g : PL_SPAN_GROUPS);
        for (int s = 0; s < slabs; s++) {
            slab_place place = place_of(t, c, slab + s);
            const uint8_t *heads = at + (slab + s) * (PL_NEURON_LINE / PL_PANEL_ROWS) * t.head_bytes;
            for (int i = 0; i < groups * halves; i++)
                unpack_part(type, heads, at + c.heads, c.column, place, i / halves, i % halves, s * PL_NEURON_LINE,
                            &p->part[i]);
        }
        add_span(type, d, p, g, groups, begin, end);
    }
}

INLINE void store_row(float *out, const float *sum, int n)
{
    for (int i = 0; i < n; i++)
        out[i] = sum[i / 64 * 64 + i % 4 * 16 + i % 64 / 4];
}

INLINE void multiply(pl_dtype type, const pl_down_many *d, int64_t begin, int64_t end)
{
    down_piece p;
    memset(p.part, 0, sizeof p.part);
    for (int64_t piece = begin; piece < end; piece++) {
        int64_t first = piece * PL_DOWN_OUTPUTS, n = d->w->rows - first;
        n = n < PL_DOWN_OUTPUTS ? n : PL_DOWN_OUTPUTS;
        int slabs = (int)((n + PL_NEURON_LINE - 1) / PL_NEURON_LINE);
        for (int64_t l = 0; l < d->lists.lists; l += BLOCK_LISTS) {
            int64_t stop = l + BLOCK_LISTS < d->lists.lists ? l + BLOCK_LISTS : d->lists.lists;
            multiply_lists(type, d, &p, first / PL_NEURON_LINE, slabs, l, stop);
            for (int64_t r = l * PL_LIST_ROWS; r < stop * PL_LIST_ROWS && r < d->lists.n_rows; r++)
                store_row(d->out + r * d->w->rows + first, p.sum[r - l * PL_LIST_ROWS], (int)n);
        }
    }
}

void PL_ISA_NAME(pl_down_many)(const pl_down_many *d, int64_t begin, int64_t end)
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
