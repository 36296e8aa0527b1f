/* How fast this machine's threads together read memory: the upper limit for generating tokens. */
#ifndef PL_BASE_BANDWIDTH_H
#define PL_BASE_BANDWIDTH_H

#include "host/base/status.h"

typedef struct pl_bandwidth pl_bandwidth;

/* A buffer of 512 MiB, which a processor's own caches do not hold, and n_threads threads (0: one per physical core),
 * pinned as an engine's unless no_pin. */
pl_status pl_bandwidth_create(int n_threads, bool no_pin, pl_bandwidth **out, pl_error *err);
void pl_bandwidth_free(pl_bandwidth *b);

/* Reads it several times, with each thread in 1, 2, 4 and 8 places at once, and gives the best time's bytes a second:
 * one stream a thread does not use all that memory gives. Takes some tenths of a second. */
double pl_bandwidth_measure(pl_bandwidth *b);

/* All of that once. */
pl_status pl_bandwidth_read(int n_threads, bool no_pin, double *bytes_per_s, pl_error *err);

#endif
