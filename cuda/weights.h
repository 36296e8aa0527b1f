/* Weights into the card's memory, in the layout of host/cpu/panel.h. */
#ifndef PL_CUDA_WEIGHTS_H
#define PL_CUDA_WEIGHTS_H

#include "cuda/queue.h"
#include "host/base/threads.h"

/* Of block types the panels, of plain types the file's own bytes. */
size_t pl_weights_bytes(const pl_tensor *t);

/* What pl_weights_load() makes of t. */
void pl_weights_describe(const pl_tensor *t, void *dst, pl_weight *out);

/* Queues t to dst, pl_weights_bytes() of the card's memory: while one piece is on the bus, the pool reads and packs the
 * next. Errors as pl_backend's weight_load. */
pl_status pl_weights_load(pl_stream *s, pl_pool *pool, const pl_tensor *t, void *dst, pl_weight *out, pl_error *err);

#endif
