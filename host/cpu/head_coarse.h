/* The coarse copy of the head, see head_screen.h: panels of Q4_0, whose products the ordinary kernels compute, with the
 * random numbers in the place of the activations' sums. */
#ifndef PL_CPU_HEAD_COARSE_H
#define PL_CPU_HEAD_COARSE_H

#include "host/cpu/matmul.h"
#include "host/cpu/panel.h"
#include "host/ops/ops.h"

#define PL_HEAD_CENTRE 7.5f /* codes 0 to 15 stand for -7.5 to 7.5 steps, and a random part of one more */

typedef struct pl_head_coarse pl_head_coarse;

/* What of a row of x decides how far products with it may be off, with y_b of a block of 32 as in numerics.md. */
typedef struct pl_head_reach {
    float length; /* root of the sum of y_b^2, times the bound's factor */
    float fourth; /* fourth root of the sum of y_b^4, likewise */
} pl_head_reach;

size_t pl_head_coarse_bytes(int64_t rows, int64_t cols);

/* Room for it; w->cols is a multiple of 32. */
pl_status pl_head_coarse_create(const pl_weight *w, pl_head_coarse **out, pl_error *err);
void pl_head_coarse_free(pl_head_coarse *c);

/* Makes at most n panels more of it; true once all are there. */
bool pl_head_coarse_make(pl_head_coarse *c, pl_stream *s, int64_t n);

/* Makes span `span` of panel `panel` at `out` from w's; zero: [w->cols] the place of a weight of 0 among the codes, before it is cut
 * to an integer. step: D by group and row, infinite where f16 has no such step. */
typedef void pl_head_coarse_span(const pl_weight *w, int64_t panel, int64_t span, const float *zero, uint8_t *out,
                                 float step[PL_SPAN_GROUPS][PL_PANEL_ROWS]);
pl_head_coarse_span pl_head_coarse_span_base, pl_head_coarse_span_avx2, pl_head_coarse_span_avx512;

/* out: [n][w->rows]; x: quantised, n <= PL_HEAD_ROWS. */
void pl_head_coarse_multiply(pl_head_coarse *c, pl_stream *s, const pl_act *x, int n, float *out, pl_head_reach *reach);

/* What the products of a panel's 16 rows may be off, rounding included, of them and of the exact ones. */
void pl_head_coarse_bounds(const pl_head_coarse *c, int64_t panel, const pl_head_reach *reach, float *bound);

/* Room for the integers of one row of x. */
pl_act pl_head_coarse_row(pl_head_coarse *c);

#endif
