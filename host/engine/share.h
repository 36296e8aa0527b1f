/* Weights that the first of several engines brings into its backend's memory and the others get from there. */
#ifndef PL_ENGINE_SHARE_H
#define PL_ENGINE_SHARE_H

#include "host/ops/comm.h"

typedef struct pl_share {
    pl_comm *comm; /* the backend's end; rank 0 is the first engine's */

    /* Returns when all engines have come here; fails where one has failed. All have their memory before a broadcast begins,
     * and none takes more before it is over: taking memory of a card may wait for work of others. */
    pl_status (*meet)(void *user, pl_error *err);
    void *user;
    bool table; /* the per-layer table, too, is a copy on each card */
} pl_share;

static inline bool pl_share_gets(const pl_share *share)
{
    return share && share->comm->rank > 0;
}

/* Queues the broadcast of a memory in pieces, the same for all engines, as far as `ready` bytes of it make whole ones.
 * *done: bytes that are queued, 0 at first. */
void pl_share_pieces(const pl_share *share, pl_stream *s, void *memory, size_t bytes, size_t ready, size_t *done);

#endif
