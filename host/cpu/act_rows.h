/* Activations to integers as ops make them, while a row is in the first-level cache. */
#ifndef PL_CPU_ACT_ROWS_H
#define PL_CPU_ACT_ROWS_H

#include "host/base/isa.h"
#include "host/ops/matmul.h"

/* As in matmul_tile.h. */
void PL_ISA_NAME(pl_quantize_row)(const float *x, int64_t cols, int8_t *hi_lo, float *scale, int32_t *sum);

/* The span of row r that begins at `col`: n values, fewer than PL_ACT_SPAN only at the end of a row. */
static inline void span_quantize(const pl_act *act, int64_t r, int64_t col, const float *x, int64_t n)
{
    int64_t ld, at = pl_act_at(act, r, col / PL_ACT_SPAN, &ld);
    PL_ISA_NAME(pl_quantize_row)(x, n, act->hi_lo + at * 2 * PL_ACT_BLOCK, act->scale + at, act->sum + 2 * at);
}

/* The first n values of row r. */
static inline void row_quantize(const pl_act *act, int64_t r, const float *x, int64_t n)
{
    for (int64_t col = 0; col < n; col += PL_ACT_SPAN)
        span_quantize(act, r, col, x + col, n - col < PL_ACT_SPAN ? n - col : PL_ACT_SPAN);
}

#endif
