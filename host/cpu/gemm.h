/* Products of matrices for the towers: many rows of f32 with weights of any plain type, as exact as f32.
 *
 * With AMX each value is the sum of two bf16 (weights that are bf16 already of one): x = hi + lo, and
 * x w = hi w_hi + lo w_hi + hi w_lo; what is left out is below 2^-16 of a product. Elsewhere products are f32.
 * Every row is summed in an order of its own that follows from cols alone. */
#ifndef PL_CPU_GEMM_H
#define PL_CPU_GEMM_H

#include "host/base/threads.h"
#include "host/ops/tower_ops.h"

/* Where a product's rows come from: a matrix, or the windows of a map (then row i is pixel i of the output). */
typedef struct pl_gemm_rows {
    const float *x;
    int64_t ld;              /* of a matrix; ignored for a map */
    const pl_map *map;       /* NULL: a matrix */
    pl_kernel_window window; /* of a map */
    int out_width;           /* of a map: pixels in a row of the output */
} pl_gemm_rows;

typedef struct pl_gemm_kernels {
    const char *name; /* "amx-bf16", "avx512", "avx2", "base" */

    size_t (*bytes)(int64_t rows, int64_t cols, pl_dtype type);

    /* t is of a plain type or of blocks; finite. */
    void (*pack)(pl_pool *pool, const pl_tensor *t, void *dst, pl_tower_matrix *out);

    /* out: [n][ld_out] */
    void (*multiply)(pl_pool *pool, float *out, int64_t ld_out, const pl_gemm_rows *rows, int64_t n,
                     const pl_tower_matrix *w);
} pl_gemm_kernels;

/* The fastest for a processor with these features (pl_cpu_features()). */
const pl_gemm_kernels *pl_gemm_select(unsigned features);

#endif
