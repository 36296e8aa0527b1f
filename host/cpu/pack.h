/* Weights into the layout that the CPU's matrix kernels read. */
#ifndef PL_CPU_PACK_H
#define PL_CPU_PACK_H

#include "host/base/status.h"
#include "host/base/threads.h"
#include "host/ops/matmul.h"

/* Bytes that pl_pack() writes for t; 0 for plain types, which are used where they are. */
size_t pl_pack_bytes(const pl_tensor *t);

/* Repacks t into dst (pl_pack_bytes(), 64-byte aligned for speed) and describes the result; out borrows dst, or
 * t->data for plain types. PL_ERR_FORMAT names tensor and row if a scale is not finite. Never allocates. */
pl_status pl_pack(pl_pool *pool, const pl_tensor *t, void *dst, pl_weight *out, pl_error *err);

/* The same in a layout of neuron.h, where it takes no more room; else as pl_pack(). */
pl_status pl_pack_neurons(pl_pool *pool, const pl_tensor *t, pl_weight_layout layout, void *dst, pl_weight *out,
                          pl_error *err);

/* The panels of rows [row, row + n) alone: of a block-typed t, row a multiple of PL_PANEL_ROWS, n too unless they are
 * the last ones. */
pl_status pl_pack_rows(pl_pool *pool, const pl_tensor *t, int64_t row, int64_t n, void *dst, pl_error *err);

/* out[0..cols) = row `row`, exactly the values that pl_decode() gives for it. */
void pl_weight_row(const pl_weight *w, int64_t row, float *out);

#endif
