/* The CPU's matrix kernels, chosen once for the machine. */
#ifndef PL_CPU_MATMUL_H
#define PL_CPU_MATMUL_H

#include "host/base/threads.h"
#include "host/ops/matmul.h"

/* What pl_act.rounded makes of products of many rows. */
typedef enum pl_rounding {
    PL_ROUNDS_NOTHING,
    PL_ROUNDS_ACTS, /* activations have 8 bits in place of 15 */
    PL_ROUNDS_BOTH, /* activations and weights are bf16 */
} pl_rounding;

typedef struct pl_matmul_kernels {
    const char *name; /* "avx512-vnni" */
    bool wide;        /* products of many rows make use of pl_act.wide */
    pl_rounding rounding;
    int rounded_bits; /* and of which types: their codes, unpacked, have at most so many */

    /* Fills hi_lo, scale and sum of the first n rows from act->f32. A block with a value that is not finite gets
     * the scale NaN, one whose largest value is below 2^-100 counts as zero. */
    void (*quantize)(pl_pool *pool, pl_act *act, int n);

    /* See pl_matmul. Jobs must not write what another one reads. */
    void (*matmul)(pl_pool *pool, const pl_matmul *jobs, int n_jobs);

    /* Products with lower bytes of activations that matmul leaves out of these jobs. */
    uint64_t (*rounded_away)(const pl_matmul *jobs, int n_jobs);
} pl_matmul_kernels;

/* The fastest kernels for a processor with these features (pl_cpu_features()). All of them give the same bits. */
const pl_matmul_kernels *pl_matmul_select(unsigned features);

#endif
