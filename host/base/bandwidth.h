/* How fast this machine's threads together read memory: the upper limit for generating tokens. */
#ifndef PL_BASE_BANDWIDTH_H
#define PL_BASE_BANDWIDTH_H

#include "host/base/status.h"

/* Reads a buffer that no cache holds several times with n_threads threads (0: one per physical core), pinned as
 * an engine's unless no_pin, and gives the best time's rate. Takes a few tenths of a second and 512 MiB. */
pl_status pl_bandwidth_read(int n_threads, bool no_pin, double *bytes_per_s, pl_error *err);

#endif
