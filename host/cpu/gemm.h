/* Products of matrices for the towers: many rows of f32 with weights of any type, as exact as f32.
 *
 * With AMX each value is the sum of two bf16, x = hi + lo; weights that are bf16 already are one.
 * x w = lo w_hi + hi w_hi + hi w_lo; what is left out is below 2^-14 of a product, 2^-17 as a rule. With weights in f32
 * both are sums of three, and of six products what is left out is below f32's own rounding. There parts below 2^-126 count as zero and values from 2^128 (1 - 2^-9) on as infinite.
 * Elsewhere products are f32.
 * Every row is summed in an order of its own that follows from cols alone. Where a row holds something else than finite
 * numbers its outputs are not finite; other rows are untouched. */
#ifndef PL_CPU_GEMM_H
#define PL_CPU_GEMM_H

#include "host/base/threads.h"
#include "host/ops/tower_ops.h"

/* Where a product's rows come from: a matrix, or the windows of a map (then row i is pixel i of the output, its columns
 * [size][size][channels]). */
typedef struct pl_gemm_rows {
    const float *x;
    int64_t ld;              /* of a matrix; ignored for a map */
    const pl_map *map;       /* NULL: a matrix */
    pl_kernel_window window; /* of a map */
    int out_width;           /* of a map: pixels in a row of the output */
} pl_gemm_rows;

/* A product is made in pieces of at most so many rows, and of so many columns at a time. */
#define PL_GEMM_ROWS 192
#define PL_GEMM_SLAB 256

/* The outputs that a piece of the weights has side by side. */
#define PL_GEMM_PANEL 32

/* Of scratch, for each thread of the pool. */
#define PL_GEMM_SCRATCH_FLOATS ((3 * PL_GEMM_ROWS / 2 + PL_GEMM_PANEL) * PL_GEMM_SLAB)

typedef struct pl_gemm_kernels {
    const char *name; /* "amx-bf16", "avx512", "avx2", "base" */

    size_t (*bytes)(int64_t rows, int64_t cols, pl_dtype type);

    /* t is of a plain type or of blocks; finite. dst: bytes() of it, aligned to 64. */
    void (*pack)(pl_pool *pool, const pl_tensor *t, void *dst, pl_tower_matrix *out);

    /* out: [n][ld_out]; scratch: PL_GEMM_SCRATCH_FLOATS for each thread, aligned to 64. */
    void (*multiply)(pl_pool *pool, float *scratch, float *out, int64_t ld_out, const pl_gemm_rows *rows, int64_t n,
                     const pl_tower_matrix *w);
} pl_gemm_kernels;

/* The fastest for a processor with these features (pl_cpu_features()). */
const pl_gemm_kernels *pl_gemm_select(unsigned features);

#endif
