/* Matrix products: the one op that reads the weights, and its operands. */
#ifndef PL_OPS_MATMUL_H
#define PL_OPS_MATMUL_H

#include "host/ops/tensor.h"

#include <stdbool.h>

/* How packed weights lie: panels, or so that single FFN neurons can be read, which are rows or columns. */
typedef enum pl_weight_layout { PL_PANELS, PL_NEURON_ROWS, PL_NEURON_COLUMNS } pl_weight_layout;

/* A weight matrix in the layout that a backend computes on. Plain types stay as the file has them (data
 * points into the mapping); block types are repacked into panels. */
typedef struct pl_weight {
    const char *name;
    const void *data;
    int64_t rows, cols;
    pl_dtype type;
    bool packed; /* data is owned by the backend and lies as `layout` says */
    pl_weight_layout layout;
    size_t bytes; /* of data: what one full product reads */
} pl_weight;

#define PL_ACT_BLOCK 32
#define PL_ACT_SPAN 256

/* Activations of up to `rows` rows, in f32 and, for block-typed weights, as integers: in each block of 32
 *
 *     x = scale * (128 * hi + lo),   hi in [-127, 127], lo in [-64, 63]
 *
 * 15 bits, so that the weights' own rounding, not the activations', decides the result. A row is cut into spans of
 * 256 columns, of which a span of all rows lies together: with B = 8 blocks a span (fewer in the last one)
 *     hi_lo [spans][rows][B][2][32] int8   hi, then lo
 *     scale [spans][rows][B] f32
 *     sum   [spans][rows][B][2] int32      of 128 * hi + lo over each half block
 * in all rows * blocks, blocks = ceil(cols / 32); the tail of the last block is zero. Buffers are the caller's.
 *
 * Products of many rows may want another form of them, which they make themselves, in pl_act_wide_bytes() at `wide`,
 * aligned to 64; NULL: they do without, and are slower. */
#define PL_ACT_WIDE_ROWS 16
#define PL_ACT_WIDE 80     /* bytes for each block of a row */
#define PL_ROUNDED_ROWS 64 /* from so many on products are rounded, where they may be */
typedef struct pl_act {
    const float *f32; /* row i at f32 + i * ld */
    int64_t ld;
    int64_t cols;
    int64_t blocks;
    int64_t rows; /* of the integers: set by the op that fills them */
    int8_t *hi_lo;
    float *scale;
    int32_t *sum;
    void *wide;
    bool rounded;       /* products of many rows of block-typed weights may round their operands */
    bool lo_zero;       /* all lo are 0: products may leave them out, those of Q4_0 do */
    bool integers_only; /* nobody will read f32: whoever makes both need not write it */
} pl_act;

/* Where row `row`'s blocks of the span lie, counted in blocks; *ld: of them, which is from row to row. */
static inline int64_t pl_act_at(const pl_act *x, int64_t row, int64_t span, int64_t *ld)
{
    const int64_t most = PL_ACT_SPAN / PL_ACT_BLOCK, left = x->blocks - span * most;
    *ld = left < most ? left : most;
    return span * most * x->rows + row * *ld;
}

static inline size_t pl_act_wide_bytes(int64_t rows, int64_t blocks)
{
    return (size_t)((rows + PL_ACT_WIDE_ROWS - 1) / PL_ACT_WIDE_ROWS * PL_ACT_WIDE_ROWS * blocks) * PL_ACT_WIDE;
}

/* out[i][n] = sum_k w[n][k] * x[i][k] for rows i in [0, n_rows), n < n_out[i], k < n_in[i].
 *
 * n_out, n_in: per row, non-increasing, at most w->rows and w->cols, NULL: all. So each panel of weights
 * serves a prefix of the rows: MatFormer paths of different width share one pass over the weights. n_in is
 * a multiple of the weight's block size.
 * out: [n_rows][ld] f32; must not overlap x.
 * A row's result does not depend on the other rows, on n_rows or on the number of threads: bit for bit, unless x->rounded. */
typedef struct pl_matmul {
    const pl_weight *w;
    const pl_act *x;
    float *out;
    int64_t out_ld;
    int n_rows;
    const int32_t *n_out;
    const int32_t *n_in;
} pl_matmul;

#endif
