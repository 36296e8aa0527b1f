/* The per-layer-embedding service: rows of the PLE table, brought to where a step needs them.
 *
 * The table is half of the model, and a token needs one row of it; it stays in the mapped file. */
#ifndef PL_ENGINE_PLE_H
#define PL_ENGINE_PLE_H

#include "host/base/threads.h"
#include "host/model/checkpoint.h"

typedef struct pl_ple {
    const pl_tensor *table;
    int32_t vocab; /* rows; ids outside read row 0 */
    int dim;       /* values a layer */
} pl_ple;

pl_ple pl_ple_of(const pl_checkpoint *checkpoint);

/* out[i] = the first layers[i] layers' values of row id[i]; out: [n][ld] f32. PL_ERR_NUMERIC names a row that
 * holds something else than finite numbers. */
pl_status pl_ple_gather(const pl_ple *ple, pl_pool *pool, const int32_t *id, const int32_t *layers, int n, float *out,
                        int64_t ld, pl_error *err);

/* These ids will be gathered soon: asks the system to read their rows. */
void pl_ple_will_need(const pl_ple *ple, const int32_t *id, size_t n);

#endif
