/* The ranks of a job that was started on several processes or machines by mpirun or srun: messages between them, nothing else.
 * The only implementation over a network is MPI's (ranks_mpi.c), a module of its own (pleiad-mpi.so) beside the program, so that the
 * program needs no MPI where there is none. Calls by one thread at a time. */
#ifndef PL_BATCH_RANKS_H
#define PL_BATCH_RANKS_H

#include "host/base/status.h"

typedef struct pl_ranks pl_ranks;

struct pl_ranks {
    int rank, size;
    int host;           /* ranks on the same machine have the same, counted from 0 */
    bool first_of_host; /* the lowest rank there */
    int local, n_local; /* which of its machine's ranks it is, and of how many: they share its cards */
    char name[128];     /* of this rank's machine */
    size_t unsent;      /* bytes of messages that have not left yet */
    double patience_s;  /* a collective call that hears nothing for so long fails */

    /* Sends n bytes to a rank; 0 <= kind < 256. They are copied; returns at once. Messages from one rank to another come in order. */
    pl_status (*send)(pl_ranks *r, int to, int kind, const void *data, size_t n, pl_error *err);

    /* The next message that has arrived, from any rank: *data is malloc'ed. *from = -1: none is there. Never waits. */
    pl_status (*poll)(pl_ranks *r, int *from, int *kind, void **data, size_t *n, pl_error *err);

    /* Collective: n bytes of rank 0 come to one rank of each machine (first_of_host); others return at once. */
    pl_status (*broadcast_to_hosts)(pl_ranks *r, void *data, size_t n, pl_error *err);

    /* Collective: waits for all. */
    pl_status (*barrier)(pl_ranks *r, pl_error *err);

    /* Ends all ranks at once with this exit code, not 0; does not return. Who fails while others wait for it calls this. */
    void (*abort)(pl_ranks *r, int code);

    /* Collective where all is well: the end. */
    void (*close)(pl_ranks *r);
};

/* Joins the ranks of a job. launched: what pl_launched_processes() says. *out = NULL where there is only this process. */
pl_status pl_ranks_open(int launched, double patience_s, pl_ranks **out, pl_error *err);

/* What the module exports, by this name. */
#define PL_RANKS_MPI_OPEN "pl_ranks_open_mpi"
typedef pl_status (*pl_ranks_open_fn)(double patience_s, pl_ranks **out, pl_error *err);

#endif
