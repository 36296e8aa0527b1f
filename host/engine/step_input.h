/* What changes from step to step: one block of integers, filled by the host and brought to the ops by one copy. */
#ifndef PL_ENGINE_STEP_INPUT_H
#define PL_ENGINE_STEP_INPUT_H

#include "host/engine/layer_rows.h"
#include "host/engine/step.h"

typedef struct pl_step_input pl_step_input;

/* By slot: the rows that are wanted first, else in the order given. */
typedef struct pl_step_slots {
    pl_draw **draws; /* [n] of the first wanted rows, those that draw: the sampler and where its token goes */
    pl_drawn **drawns;
    int32_t *token; /* of a row that takes the token drawn last: any */
    int32_t *drawn; /* [n] the row's sequence where it takes the token drawn last, else -1 */
    int32_t *position, *sequence;
    int32_t *ple_layers, *ple_cols; /* how many of the per-layer values the row needs */
    uint32_t *ticket;               /* of the PLE rows */
    int32_t *report;                /* [PL_INPUT_REPORT_INTS] zero before the step; written by ops */
    int32_t *layers;                /* the plan of pl_layer_rows */
} pl_step_slots;

#define PL_INPUT_REPORT_INTS 24

/* Borrows config, shard and backend. shard: as in pl_net. */
pl_status pl_step_input_create(const pl_config *config, const pl_shard *shard, pl_backend *backend, int max_rows,
                               pl_step_input **out, pl_error *err);
void pl_step_input_free(pl_step_input *in);

/* Fills the host's block for a step of these rows; returns how many of them are wanted. Allocates nothing. */
int pl_step_input_fill(pl_step_input *in, const pl_step_row *rows, int n);

/* Queues the copy of what was filled. */
void pl_step_input_upload(pl_step_input *in);

/* Where the parts of the present step's block are: as the host reads and writes them, and as the ops do. */
pl_step_slots pl_step_input_host(const pl_step_input *in);
pl_step_slots pl_step_input_ops(const pl_step_input *in);

const pl_path *const *pl_step_input_paths(const pl_step_input *in); /* by slot */

/* A layer's rows, likewise. */
pl_layer_view pl_step_input_layer_host(const pl_step_input *in, int layer);
pl_layer_view pl_step_input_layer_ops(const pl_step_input *in, int layer);

#endif
