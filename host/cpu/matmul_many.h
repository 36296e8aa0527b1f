/* Activations as the products of many rows in 16 bits read them. */
#ifndef PL_CPU_MATMUL_MANY_H
#define PL_CPU_MATMUL_MANY_H

#include "host/cpu/matmul_tile.h"

#define PL_PAIRS (PL_GROUP / 2)

/* A group of a tile in pl_act.wide: for each pair of columns that of every row, the first one in the lower half, and by
 * row the scale and its product with the sum of the group and of its halves. */
typedef struct pl_wide_group {
    int32_t pair[PL_PAIRS][PL_ACT_WIDE_ROWS];
    float scale[PL_ACT_WIDE_ROWS], shift[PL_ACT_WIDE_ROWS], half_shift[2][PL_ACT_WIDE_ROWS];
} pl_wide_group;

_Static_assert(sizeof(pl_wide_group) <= PL_ACT_WIDE_ROWS * PL_ACT_WIDE, "a block's share of a tile");

/* What stands beside the pairs of row r, from its block in pl_act. */
static inline void pl_wide_scales(float scale, const int32_t *sum, int r, pl_wide_group *out)
{
    out->scale[r] = scale;
    out->shift[r] = scale * (float)(sum[0] + sum[1]);
    out->half_shift[0][r] = scale * (float)sum[0];
    out->half_shift[1][r] = scale * (float)sum[1];
}

/* So many rows of x in the tile, and where its first row's blocks of the span are, counted in blocks; *ld: blocks from
 * row to row. */
static inline int64_t pl_wide_source(const pl_act *x, int64_t span, int64_t tile, int *rows, int64_t *ld)
{
    int64_t row = tile * PL_ACT_WIDE_ROWS;
    *rows = (int)(x->rows - row < PL_ACT_WIDE_ROWS ? x->rows - row : PL_ACT_WIDE_ROWS);
    return pl_act_at(x, row, span, ld);
}

/* The group as if row `row` were its first one: its rows behind the last one are not to be read. */
static inline const pl_wide_group *pl_wide_from(const pl_wide_group *g, int row)
{
    return (const pl_wide_group *)(const void *)(g->pair[0] + row);
}

#endif
