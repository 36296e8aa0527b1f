/* The samplers of an engine's sequences where the ops draw (host/ops/draw.h). */
#ifndef PL_ENGINE_DRAWS_H
#define PL_ENGINE_DRAWS_H

#include "host/ops/backend.h"
#include "host/ops/draw.h"

typedef struct pl_draws pl_draws;

/* Borrows backend. *out is NULL where its ops do not draw. */
pl_status pl_draws_create(pl_backend *backend, int sequences, pl_draws **out, pl_error *err);
void pl_draws_free(pl_draws *draws);

/* Bytes of the ops' memory that pl_draws_create() takes. */
size_t pl_draws_bytes(int sequences);

/* Queues the copy of a sampler to the place of a sequence of which no draw is queued. */
void pl_draws_start(pl_draws *draws, int32_t sequence, const pl_draw *sampler);

/* The sampler and what it has drawn, for the ops; the samplers of all sequences, by sequence. */
pl_draw *pl_draws_sampler(const pl_draws *draws, int32_t sequence);
pl_drawn *pl_draws_drawn(const pl_draws *draws, int32_t sequence);
pl_draw *const *pl_draws_all(const pl_draws *draws);

/* Another draw of this sequence is queued; what its count will be. */
uint32_t pl_draws_queue(pl_draws *draws, int32_t sequence);

/* Draws of this sequence queued so far. */
uint32_t pl_draws_queued(const pl_draws *draws, int32_t sequence);

#endif
