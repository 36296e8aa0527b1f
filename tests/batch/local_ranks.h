/* Ranks that are threads of one process: messages through queues, late, lost or damaged as wished. */
#ifndef PL_TESTS_BATCH_LOCAL_RANKS_H
#define PL_TESTS_BATCH_LOCAL_RANKS_H

#include "host/batch/ranks.h"

typedef struct local_net local_net;

typedef struct local_params {
    int size;
    const int *hosts; /* [size] the machine of each, or NULL: one for all */
    double delay_s;   /* of a message, at most; what is underway is drawn */
    uint64_t seed;

    /* May change the message's bytes or, false, lose it; may be NULL. By the sender's thread. */
    bool (*tamper)(void *user, int from, int to, int kind, void *data, size_t *n);
    void *user;
} local_params;

local_net *local_net_create(const local_params *params);
pl_ranks *local_net_rank(local_net *net, int i);
void local_net_cut_off(local_net *net, int i); /* no message comes from there or arrives there any more */

/* Before the ranks begin: rank 0 hears of each other rank, and they of it, that it is alive (PL_CREW_PULSE) until it is cut
 * off, however long its threads are held up. So nobody else is taken for lost, even after a short silence. */
void local_net_vouch(local_net *net);
void local_net_free(local_net *net);

#endif
