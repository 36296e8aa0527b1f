/* The engines of a batch in this process: one a card, else the CPU's. */
#ifndef PL_TOOLS_BATCH_ENGINES_H
#define PL_TOOLS_BATCH_ENGINES_H

#include "host/base/options.h"
#include "host/batch/ranks.h"
#include "host/ops/devices.h"

typedef struct pl_batch_engines {
    pl_engine *items[PL_DEVICES_MAX];
    int n;
} pl_batch_engines;

/* On the cards that --device names, as far as they are this rank's: ranks of one machine share them. ranks: NULL, there is one. */
pl_status pl_batch_engines_make(const pl_options *options, const pl_model *model, const pl_ranks *ranks,
                                pl_batch_engines *out, pl_error *err);
void pl_batch_engines_free(pl_batch_engines *engines);

#endif
