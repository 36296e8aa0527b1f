/* The coarse copy of the head, see head_screen.h: panels of Q4_0, whose products the ordinary kernels compute, with the
 * random numbers in the place of the activations' sums. */
#ifndef PL_CPU_HEAD_COARSE_H
#define PL_CPU_HEAD_COARSE_H

#include "host/cpu/matmul.h"
#include "host/cpu/panel.h"
#include "host/ops/ops.h"

typedef struct pl_head_coarse pl_head_coarse;

/* What of a row of x decides how far products with it may be off; |x_b|: of a block of 32. */
typedef struct pl_head_reach {
    float square; /* sum of |x_b|^2, times the bound's factor squared */
    float fourth; /* root of the sum of |x_b|^4, likewise */
} pl_head_reach;

size_t pl_head_coarse_bytes(int64_t rows, int64_t cols);

/* Room for it; w->cols is a multiple of 32. */
pl_status pl_head_coarse_create(const pl_weight *w, int threads, pl_head_coarse **out, pl_error *err);
void pl_head_coarse_free(pl_head_coarse *c);

/* Makes at most n panels more of it; true once all are there. */
bool pl_head_coarse_make(pl_head_coarse *c, pl_pool *pool, int64_t n);

/* out: [n][w->rows]; x: quantised, n <= PL_HEAD_ROWS. */
void pl_head_coarse_multiply(pl_head_coarse *c, pl_stream *s, const pl_act *x, int n, float *out, pl_head_reach *reach);

/* What the products of a panel's 16 rows may be off, rounding included, of them and of the exact ones. */
void pl_head_coarse_bounds(const pl_head_coarse *c, int64_t panel, const pl_head_reach *reach, float *bound);

/* Room for the integers of one row of x. */
pl_act pl_head_coarse_row(pl_head_coarse *c);

#endif
