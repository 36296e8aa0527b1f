/* Rows of the per-layer-embedding table as floats: the op ple_look, the same on every instruction set. */
#ifndef PL_CPU_PLE_LOOK_H
#define PL_CPU_PLE_LOOK_H

#include "host/ops/ops.h"

/* from: the whole table (ready == NULL). */
void pl_cpu_ple_look(pl_stream *s, float *ple, int64_t ld, const pl_ple_rows *from, const int32_t *id,
                     const int32_t *layers, int n, int p, int32_t *bad);

#endif
