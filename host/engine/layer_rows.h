/* Which rows of a step each layer works on, and how wide: the place where paths of different shape meet.
 *
 * A layer's rows are sorted by FFN width, widest first, so that every panel of weights serves a prefix of
 * them. The plan is a block of integers without holes, so that it can be brought to where the ops are; it is written
 * wherever the caller wants it. */
#ifndef PL_ENGINE_LAYER_ROWS_H
#define PL_ENGINE_LAYER_ROWS_H

#include "host/engine/shard.h"
#include "host/model/path.h"
#include "host/ops/ops.h"

typedef struct pl_layer_rows pl_layer_rows;

typedef struct pl_layer_view {
    pl_rows rows;
    const int32_t *width; /* [rows.n] FFN width, of a rank its part of it, non-increasing */
} pl_layer_view;

pl_status pl_layer_rows_create(int n_layers, int max_rows, pl_layer_rows **out, pl_error *err);
void pl_layer_rows_free(pl_layer_rows *lr);

/* The most integers that a plan takes. */
int64_t pl_layer_rows_ints(int n_layers, int max_rows);

/* Plans a step of n slots into `plan`; path, position, sequence: by slot. Layers from n_kv_layers on run the first
 * `wanted` slots only. shard: whose widths; NULL: whole ones. Returns the integers used. Allocates nothing. */
int64_t pl_layer_rows_plan(pl_layer_rows *lr, int n_kv_layers, const pl_shard *shard, const pl_path *const *path,
                           const int32_t *position, const int32_t *sequence, int n, int wanted, int32_t *plan);

/* The rows of a layer, in the plan itself or in a copy of it. */
pl_layer_view pl_layer_rows_at(const pl_layer_rows *lr, int layer, const int32_t *plan);

#endif
