/* The inside of ffn_sparse (see host/ops/ops.h), once for each instruction set. */
#ifndef PL_CPU_FFN_SPARSE_H
#define PL_CPU_FFN_SPARSE_H

#include "host/cpu/matmul_tile.h"
#include "host/cpu/stream.h"

/* The activation of a row in a group of 32 neurons, those that are 0 left out: n of them from live[first] on, each
 * its neuron in the upper half and its integer in the lower, ascending. scale == 0: there is nothing to add. */
typedef struct pl_live_group {
    int32_t first, n;
    float scale;
    int32_t sum[2]; /* as pl_act has it */
} pl_live_group;

/* A row's groups and what they point to. */
typedef struct pl_live_row {
    pl_live_group *group;
    uint32_t *live; /* [groups][32] */
} pl_live_row;

/* out[r] = down . row r, for the outputs of slabs [begin, end), at most PL_DOWN_SLABS. */
#define PL_DOWN_SLABS 8
typedef struct pl_down {
    const pl_weight *w;
    const pl_live_row *row; /* [n_rows] */
    int n_rows;
    int64_t groups;
    float *out;
} pl_down;

#define PL_FFN_SPARSE_FUNCTIONS(isa)                                                                                   \
    float pl_ffn_cutoff_##isa(const float *x, int64_t n, float z);                                                     \
    void pl_down_slabs_##isa(const pl_down *d, int64_t begin, int64_t end);

PL_FFN_SPARSE_FUNCTIONS(base)
PL_FFN_SPARSE_FUNCTIONS(avx2)
PL_FFN_SPARSE_FUNCTIONS(avx512)

#endif
