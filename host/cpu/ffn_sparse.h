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

/* ---- many rows ---- */

/* Activations of two neurons, 2 * pair and the next one of a group or of half a group: the first one in the lower half. */
typedef struct pl_live_pair {
    uint32_t pair;
    int32_t x;
} pl_live_pair;

/* Those of a row in a part, which is a group of neurons, or half of one where halves have scales of their own. */
typedef struct pl_live_part {
    uint16_t row, n; /* counted from the list's first row on; pairs */
    uint32_t first;  /* of the list's pairs */
    float scale, shift;
} pl_live_part;

/* Lists of a part and PL_LIST_ROWS rows: of those that have something there, few pairs first. List l of part p has
 * count[p * lists + l] elements; with at = p * n_rows + l * PL_LIST_ROWS they stand from part[at] on, their pairs from
 * pair[at * pairs of a part] on. */
#define PL_LIST_ROWS 64
typedef struct pl_live_lists {
    int32_t *count;
    pl_live_part *part;
    pl_live_pair *pair;
    int64_t n_rows, lists;
} pl_live_lists;

/* out[r] = down . row r, for PL_DOWN_OUTPUTS outputs a piece. */
#define PL_DOWN_OUTPUTS 128
typedef struct pl_down_many {
    const pl_weight *w;
    pl_live_lists lists;
    int64_t groups;
    float *out;
} pl_down_many;

/* A row's operand of `up` in a span: 32 bits are two columns' activations in 16 bits, lane 8 h + g of x[i] those of half h of
 * group g: columns c and c + 2 of it, c = i / 2 * 4 + i % 2. */
typedef struct pl_wide_span {
    int32_t x[8][16];
    float scale[PL_SPAN_GROUPS];
    float shift[2][PL_SPAN_GROUPS]; /* of halves or, the first, of groups */
    float unused[8];                /* to whole lines */
} pl_wide_span;

/* Of a neuron likewise. */
typedef struct pl_neuron_codes {
    int32_t code[8][16];
    float d[2][PL_SPAN_GROUPS], m[2][PL_SPAN_GROUPS];
} pl_neuron_codes;

#define PL_FFN_SPARSE_FUNCTIONS(isa)                                                                                   \
    void pl_widen_span_##isa(pl_panel_type type, const pl_act *x, int64_t row, int64_t span, pl_wide_span *out);       \
    void pl_up_span_##isa(pl_dtype type, int groups, const uint8_t *span, const pl_wide_span *x, const uint16_t *row,  \
                          int n, float *acc);                                                                          \
    void pl_down_many_##isa(const pl_down_many *d, int64_t begin, int64_t end);                                        \
    void pl_ffn_sparse_many_##isa(pl_stream *s, const pl_ffn *f);                                                      \
    float pl_ffn_cutoff_##isa(const float *x, int64_t n, float z);                                                     \
    void pl_down_slabs_##isa(const pl_down *d, int64_t begin, int64_t end);

PL_FFN_SPARSE_FUNCTIONS(base)
PL_FFN_SPARSE_FUNCTIONS(avx2)
PL_FFN_SPARSE_FUNCTIONS(avx512)

#endif
