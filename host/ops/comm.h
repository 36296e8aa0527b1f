/* Ranks of one engine, or engines of one process, that work with the same numbers: sums and copies between their memories.
 *
 * Each rank has an end of its own, used by one thread at a time. All ranks call the same functions in the same order with the
 * same sizes; a call queues its work on a stream of the rank's backend and returns, and may be part of a recording
 * (pl_backend.begin). Where a rank is lost the others' work never ends: pl_comm_abort, from any thread, makes it fail.
 *
 *     local   backends on the CPU: threads of one process meet at each call
 *     NCCL    cards (cuda/comm_nccl.c) */
#ifndef PL_OPS_COMM_H
#define PL_OPS_COMM_H

#include "host/ops/backend.h"

typedef struct pl_comm pl_comm;

struct pl_comm {
    int rank, size;

    /* data[i] = the sum over all ranks of their data[i], in place; the same bits on all ranks. It is summed in the
     * order of the ranks. data: in the ops' memory. */
    void (*sum_f32)(pl_comm *c, pl_stream *s, float *data, size_t n);
    void (*sum_f64)(pl_comm *c, pl_stream *s, double *data, size_t n);

    /* data of rank `root` comes to all. */
    void (*broadcast)(pl_comm *c, pl_stream *s, void *data, size_t bytes, int root);

    /* Work that was queued fails, as does all that follows: PL_ERR_DEVICE at the backend's next fetch or wait_for. */
    void (*abort)(pl_comm *c);

    /* When nothing is under way, or after abort, and before the backend is destroyed, whose recordings are forgotten. */
    void (*destroy)(pl_comm *c);
};

#define PL_COMM_MOST 16

/* Ends for backends[0..n), all of the same kind, in that order. PL_ERR_UNSUPPORTED: there is no such thing for them (built
 * without NCCL, two of them on one card). */
pl_status pl_comm_create(pl_backend *const *backends, int n, pl_comm **out, pl_error *err);

/* NULL: nothing. */
static inline void pl_comm_free(pl_comm *c)
{
    if (c)
        c->destroy(c);
}

#endif
