/* Rows of the PLE table read from the file, step by step, by the thread that runs the steps: for ops that share the
 * host's memory, where the table is to take none of it. */
#ifndef PL_ENGINE_PLE_GATHER_H
#define PL_ENGINE_PLE_GATHER_H

#include "host/engine/ple.h"

typedef struct pl_ple_gather pl_ple_gather;

/* table: the rows that serve. cache_bytes: for rows used lately;
 * less than a row's: none. */
pl_status pl_ple_gather_open(const pl_checkpoint *checkpoint, const pl_tensor *table, size_t cache_bytes,
                             pl_ple_gather **out, pl_error *err);
void pl_ple_gather_free(pl_ple_gather *gather);

/* rows[i] = the row of want[i], whose `drawn` is NULL; an id outside the table is row 0. PL_ERR_IO where the file cannot
 * be read. */
pl_status pl_ple_gather_rows(pl_ple_gather *gather, const pl_ple_want *want, int n, char *rows, pl_error *err);

/* Asks the system for the row of an id, unless it is in the cache. */
void pl_ple_gather_ask(const pl_ple_gather *gather, int32_t id);

pl_ple_stats pl_ple_gather_stats(const pl_ple_gather *gather);

#endif
