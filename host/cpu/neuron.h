/* Weights of an FFN with a cutoff, so that single neurons can be read: `up` by rows, `down` by columns. Few rows of
 * activations read only the neurons that some gate lets through (ffn_sparse.c); all others see panels, which
 * pl_neuron_span() makes a span at a time. The bytes are those of panel.h in another order, and never more.
 *
 *     PL_NEURON_ROWS     a row is a panel of one row: spans of a head (halves, then bytes) and groups (words).
 *     PL_NEURON_COLUMNS  spans of 256 columns: the heads of all panels, then the columns one by one. A column's codes
 *                        are cut like those of a panel's group: nibbles, pairs, top, or bytes. A line of 64 bytes
 *                        holds such a part, of b bits, of 8 / b slabs of 64 rows: row 64 s + i in byte i of line
 *                        s b / 8, from bit s b mod 8 on. */
#ifndef PL_CPU_NEURON_H
#define PL_CPU_NEURON_H

#include "host/cpu/panel.h"
#include "host/ops/matmul.h"

#define PL_NEURON_LINE 64 /* rows of a slab, and bytes */
#define PL_NEURON_MAX_COLUMNS 65536

/* Room for a span of any type. */
#define PL_NEURON_SPAN_BYTES (512 + PL_SPAN * PL_PANEL_ROWS)

/* Where the columns of a matrix lie. */
typedef struct pl_neuron_columns {
    size_t heads;      /* bytes, of all panels of a span */
    size_t column;     /* bytes */
    size_t pairs, top; /* where in a column they begin; nibbles or bytes at 0 */
} pl_neuron_columns;

static inline size_t pl_neuron_part_bytes(int64_t rows, int bits)
{
    int64_t slabs = (rows + PL_NEURON_LINE - 1) / PL_NEURON_LINE;
    return (size_t)((slabs * bits + 7) / 8) * PL_NEURON_LINE;
}

static inline pl_neuron_columns pl_neuron_columns_of(pl_panel_type t, int64_t rows)
{
    pl_neuron_columns c = {.heads = (size_t)pl_panel_count(rows) * (size_t)t.head_bytes};
    c.pairs = pl_neuron_part_bytes(rows, t.bits == 8 ? 8 : pl_nibble_bits(t.bits));
    c.top = c.pairs + (pl_has_pairs(t.bits) ? pl_neuron_part_bytes(rows, 2) : 0);
    c.column = c.top + (pl_has_top(t.bits) ? pl_neuron_part_bytes(rows, 1) : 0);
    return c;
}

/* Of a row of `cols` columns, PL_NEURON_ROWS. */
static inline size_t pl_neuron_row_bytes(pl_panel_type t, int64_t cols)
{
    return pl_panel_bytes(t, cols) / PL_PANEL_ROWS;
}

/* Whether a matrix takes no more room in this layout than in panels. */
bool pl_neuron_fits(pl_dtype type, int64_t rows, int64_t cols, pl_weight_layout layout);

/* Panels that a thread must put together, all of them from a multiple of it on: they share bytes. */
int pl_neuron_shared_panels(pl_dtype type, pl_weight_layout layout);

/* The span of a panel from its groups, into w->data; of PL_NEURON_COLUMNS the first panel of those that share bytes goes
 * first. */
void pl_neuron_put(const pl_weight *w, int64_t panel, int64_t span, const pl_panel_group *groups, int n_groups);

/* The first `groups` groups of that span as panel.h has them, in work (PL_NEURON_SPAN_BYTES, aligned to 64). Rows that
 * the matrix has not hold anything. */
void pl_neuron_span(const pl_weight *w, int64_t panel, int64_t span, int groups, uint8_t *work);

/* The same of any sixteen rows; PL_NEURON_ROWS. */
void pl_neuron_gather(const pl_weight *w, const int32_t *row, int64_t span, int groups, uint8_t *work);

#endif
