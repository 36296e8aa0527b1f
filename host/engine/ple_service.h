/* The thread behind pl_ple: copies the rows of each step, in the order of the requests, into the step's slot of a ring
 * and flags it. */
#ifndef PL_ENGINE_PLE_SERVICE_H
#define PL_ENGINE_PLE_SERVICE_H

#include "host/engine/ple.h"
#include "host/engine/row_cache.h"

typedef struct pl_ple_service pl_ple_service;

typedef struct pl_ple_service_params {
    const char *rows; /* [vocab] of row_bytes */
    size_t row_bytes;
    int32_t vocab;
    pl_row_cache *cache; /* borrowed, or NULL */
    bool read_ahead;     /* rows are asked of the file all at once before they are copied */

    char *ring; /* [PL_PLE_SLOTS][max_rows] of row_stride */
    size_t row_stride;
    int max_rows;
    uint32_t *ready; /* the last ticket whose rows are in the ring; 0 at first */

    const int *cpus; /* as in pl_ple_params, both */
    int n_cpus;
    pl_timeline *timeline;
} pl_ple_service_params;

pl_status pl_ple_service_start(const pl_ple_service_params *params, pl_ple_service **out, pl_error *err);

/* Gives up what is not served yet: *ready is the last ticket. */
void pl_ple_service_stop(pl_ple_service *service);

/* Waits until the thread is done with the request PL_PLE_SLOTS before, whose slot this one takes. Returns the ticket, one
 * more than the last, from 1. */
uint32_t pl_ple_service_ask(pl_ple_service *service, const pl_ple_want *rows, int n);

pl_ple_stats pl_ple_service_stats(pl_ple_service *service);

/* Tells the system how bytes of a mapped file will be used: advice as for madvise(). */
int pl_ple_advise(const void *p, size_t bytes, int advice);

#endif
