/* The per-layer-embedding service: rows of the PLE table, brought to where a step needs them.
 *
 * The table is half of the model, and a token needs one row of it. Where it is kept changes no result:
 *   the CPU's ops   the mapped file, whatever the placement, but for DISK: each step's rows are read from the file into
 *                   memory, and a cache keeps those used lately; nothing below it
 *   VRAM, PINNED    a copy that the card reads by itself, in its own memory or over the bus
 *   HOST            in memory, as the mapped file's pages; a thread copies each step's rows to where the card reads them
 *   DISK            the same with the file's pages left to themselves, and a cache of rows used lately
 * With the thread a step is: pl_ple_request, then what queues the step, with the ticket among what it uploads. */
#ifndef PL_ENGINE_PLE_H
#define PL_ENGINE_PLE_H

#include "host/engine/share.h"
#include "host/model/checkpoint.h"

typedef struct pl_ple pl_ple;

typedef struct pl_ple_params {
    pl_ple_placement placement; /* never PL_PLE_AUTO, but for the CPU's ops */
    int max_rows;               /* rows a step */
    size_t cache_bytes;         /* DISK: for rows used lately; 0: none */
    const pl_share *share;      /* VRAM: the table comes from its first engine; NULL: from the file */
    const int *cpus;            /* [n_cpus] processors that the thread may run on (pl_topology_near) */
    int n_cpus;                 /* 0: all */
    pl_timeline *timeline;      /* shows what the thread does; may be NULL */
} pl_ple_params;

/* Borrows checkpoint and backend. PL_ERR_MEMORY where the placement's memory is not to be had. */
pl_status pl_ple_open(const pl_checkpoint *checkpoint, pl_backend *backend, const pl_ple_params *params, pl_ple **out,
                      pl_error *err);

/* Lets steps that wait for rows go (their results mean nothing), waits for the backend's stream, and never for an id
 * that is still to be drawn. */
void pl_ple_free(pl_ple *ple);

/* What ple_look is to read. Where `ready` is set the caller sets `ticket`: the place in the ops' memory to which it
 * uploads each step's ticket. */
pl_ple_rows pl_ple_view(const pl_ple *ple);

/* A row of a step: of the token `id`, or, where drawn is set, of the token that it will hold when its count has reached
 * `count` (modulo 2^32): memory that stays until the step is done, or pl_ple_free(). A token outside the table, as -1 of
 * a draw that failed, is served row 0. */
typedef struct pl_ple_want {
    int32_t id;
    const pl_drawn *drawn;
    uint32_t count;
} pl_ple_want;

/* Asks for the rows of the next step, in the order of its rows; n <= max_rows. To be called once a step and before the
 * step is queued on the backend's stream, outside begin and end; steps are queued in the order of their tickets. Returns
 * at once, but for PL_PLE_SLOTS steps that have not yet read their rows. The draws waited for are queued before
 * the step. *ticket: 0 where there is no thread, and nothing to do. PL_ERR_DEVICE as from the backend;
 * for the CPU's ops PL_ERR_IO where the file cannot be read. */
pl_status pl_ple_request(pl_ple *ple, const pl_ple_want *rows, int n, uint32_t *ticket, pl_error *err);

#define PL_PLE_SLOTS 4

/* These ids will be requested soon: asks the system to read their rows. */
void pl_ple_will_need(const pl_ple *ple, const int32_t *ids, size_t n);

typedef struct pl_ple_stats {
    uint64_t rows;           /* that were served */
    uint64_t hits;           /* of them, from the cache */
    uint64_t bytes;          /* read from the table */
    double wait_s, gather_s; /* waited for ids, and copied */
} pl_ple_stats;

pl_ple_stats pl_ple_statistics(pl_ple *ple);

/* Bytes of the ops' memory and of shared memory that pl_ple_open() will take. */
typedef struct pl_ple_bytes {
    size_t memory, shared, cache;
} pl_ple_bytes;

pl_ple_bytes pl_ple_memory(const pl_checkpoint *checkpoint, const pl_backend *backend, const pl_ple_params *params);

#endif
