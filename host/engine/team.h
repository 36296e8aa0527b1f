/* A thread for each rank of an engine but the first, whose thread is the caller. Where one of them fails while they work
 * together, their comm is aborted, so that the others come to an end as well. */
#ifndef PL_ENGINE_TEAM_H
#define PL_ENGINE_TEAM_H

#include "host/ops/comm.h"

typedef struct pl_team pl_team;

/* spins: whoever waits has a processor to wait on for a while. */
pl_status pl_team_create(int ranks, bool spins, pl_team **out, pl_error *err);
void pl_team_free(pl_team *team);

/* What is aborted: an end of any rank, borrowed; NULL: nothing yet. */
void pl_team_set_comm(pl_team *team, pl_comm *comm);

/* Calls fn(ctx, rank) for each rank from 1 on, on its thread, and returns at once. */
typedef pl_status (*pl_team_fn)(void *ctx, int rank, pl_error *err);
void pl_team_begin(pl_team *team, pl_team_fn fn, void *ctx);

/* Between begin and end: the first rank has failed, too. */
void pl_team_fail(pl_team *team, const pl_error *failure);

/* Waits for all; the first failure since begin. */
pl_status pl_team_end(pl_team *team, pl_error *err);

#endif
