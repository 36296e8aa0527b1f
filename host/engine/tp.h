/* The ranks of an engine that compute one model together (`--tp`). The first one's backend, weights, K/V and step are the
 * engine's own; the others have theirs here. */
#ifndef PL_ENGINE_TP_H
#define PL_ENGINE_TP_H

#include "host/engine/step.h"

typedef struct pl_tp_rank {
    pl_shard shard;
    pl_backend *backend; /* from here on: NULL of the first rank */
    pl_net *net;
    pl_ple *ple; /* NULL: it reads where the first one does */
    pl_ple_rows ple_rows;
    pl_step *step;
} pl_tp_rank;

typedef struct pl_tp {
    int n;
    pl_tp_rank rank[PL_COMM_MOST];
    pl_step *others[PL_COMM_MOST]; /* steps of the ranks from 1 on */
    pl_comm *comm[PL_COMM_MOST];
    pl_team *team;
} pl_tp;

/* n of them, 2 or more, each with its shard. PL_ERR_UNSUPPORTED: the model does not split into so many. Borrows the checkpoint. */
pl_status pl_tp_create(const pl_checkpoint *checkpoint, int n, pl_tp **out, pl_error *err);

/* The engine's parts of the first rank, if they borrow any of these, are freed between the two: steps and weights, then
 * backends and the rest. */
void pl_tp_free_parts(pl_tp *ranks);
void pl_tp_free(pl_tp *ranks);

/* Threads and comm, once all have backends; first: that of the first rank. threads: of all pools. */
pl_status pl_tp_connect(pl_tp *ranks, pl_backend *first, int threads, pl_error *err);

/* Loads the weights of all ranks side by side; *net: of the first, which tells its progress. */
pl_status pl_tp_load(pl_tp *ranks, const pl_checkpoint *checkpoint, pl_backend *first, pl_progress_fn progress,
                     void *user, pl_net **net, pl_error *err);

/* A K/V memory over all of them. config: of the whole model. */
pl_status pl_tp_create_kv(const pl_tp *ranks, const pl_config *config, pl_backend *first, const pl_kv_size *size,
                          pl_kv **out, pl_error *err);

/* Steps of the others, which read per-layer embeddings from tables of their own or with the first one, whose rows these are. */
pl_status pl_tp_create_steps(pl_tp *ranks, pl_kv *kv, const pl_ple_rows *rows, pl_soft_rows *soft, int max_rows,
                             pl_step *first, pl_error *err);

size_t pl_tp_loaded_bytes(const pl_tp *ranks, bool mapped); /* of the others' weights, see pl_net */

#endif
