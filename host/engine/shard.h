/* What a rank holds of a model that several compute together (`--tp`).
 *
 *     attention   query heads by rank, in order, with their rows of q and columns of o, and the K/V heads that they read:
 *                 with more ranks than K/V heads several ranks hold the same one
 *     FFN         blocks of neurons, dealt round robin: rows of gate and up, columns of down. So the first W neurons split
 *                 as evenly as all do, for any W, and a rank's part of them is a prefix of what it holds
 *
 * Products with o and down are then parts of a sum over the ranks. Everything else is on every rank, and the same bits on
 * all: a rank's residual streams are whole. */
#ifndef PL_ENGINE_SHARD_H
#define PL_ENGINE_SHARD_H

#include "host/model/weight_table.h"

typedef struct pl_shard {
    int rank, size;
    const pl_config *whole; /* the checkpoint's */
    pl_config config;       /* the same with the heads and FFN widths of this rank */
    int first_head, first_kv_head;
    int block[PL_MAX_LAYERS]; /* neurons that are dealt at once */
} pl_shard;

/* PL_ERR_UNSUPPORTED says what of the model does not split into so many parts. Borrows the checkpoint. */
pl_status pl_shard_make(const pl_checkpoint *checkpoint, int rank, int size, pl_shard *out, pl_error *err);

/* How many of a layer's first `width` neurons the rank has. */
int32_t pl_shard_width(const pl_shard *shard, int layer, int32_t width);

/* The rank's part of a tensor. data is NULL where it is scattered in the whole one: pl_shard_gather() puts it together. */
pl_tensor pl_shard_part(const pl_shard *shard, int layer, pl_role role, const pl_tensor *whole);

/* Rows [begin, end) of such a part to their places in `out`, which has room for all of it. */
void pl_shard_gather(const pl_shard *shard, int layer, pl_role role, const pl_tensor *whole, int64_t begin, int64_t end,
                     void *out);

#endif
