#include "host/engine/step_input.h"

#include <stdlib.h>
#include <string.h>

/* The block: pointers for draws by slot, ticket, report; then the arrays by slot; then the plan of the layers. */
enum {
    POINTER_INTS = 2 * (int)(sizeof(void *) / sizeof(int32_t)), /* of a slot */
    HEAD_INTS = 1 + PL_INPUT_REPORT_INTS,
    SLOT_INTS = POINTER_INTS + 6
};

struct pl_step_input {
    const pl_config *config;
    const pl_shard *shard;
    pl_backend *backend;
    pl_layer_rows *layers;
    int32_t *host, *ops; /* the block, twice */
    int64_t room, used;
    int max_rows, n;
    const pl_path **path; /* [max_rows] */
};

static pl_status create(pl_step_input *in, pl_error *err)
{
    PL_TRY(pl_layer_rows_create(in->config->n_layers, in->max_rows, &in->layers, err));
    in->room = HEAD_INTS + (int64_t)SLOT_INTS * in->max_rows + pl_layer_rows_ints(in->config->n_layers, in->max_rows);
    size_t bytes = (size_t)in->room * sizeof *in->host;
    in->host = calloc(1, bytes);
    in->path = calloc((size_t)in->max_rows, sizeof *in->path);
    in->ops = in->backend->memory_take(in->backend, bytes);
    return in->host && in->path && in->ops ? PL_OK : pl_backend_fail_memory(in->backend, bytes, "rows of a step", err);
}

pl_status pl_step_input_create(const pl_config *config, const pl_shard *shard, pl_backend *backend, int max_rows,
                               pl_step_input **out, pl_error *err)
{
    pl_step_input *in = calloc(1, sizeof *in);
    if (!in)
        return pl_fail_memory(err, sizeof *in, "rows of a step");
    in->config = config;
    in->shard = shard;
    in->backend = backend;
    in->max_rows = max_rows;
    pl_status status = create(in, err);
    if (status != PL_OK) {
        pl_step_input_free(in);
        return status;
    }
    *out = in;
    return PL_OK;
}

void pl_step_input_free(pl_step_input *in)
{
    if (!in)
        return;
    pl_layer_rows_free(in->layers);
    in->backend->memory_give(in->backend, in->ops, (size_t)in->room * sizeof *in->ops);
    free(in->host);
    free(in->path);
    free(in);
}

static pl_step_slots slots_at(int32_t *block, int n)
{
    int32_t *head = block + POINTER_INTS * n, *slots = head + HEAD_INTS;
    pl_draw **draws = (pl_draw **)(void *)block;
    return (pl_step_slots){.draws = draws,
                           .drawns = (pl_drawn **)(draws + n),
                           .ticket = (uint32_t *)head,
                           .report = head + 1,
                           .token = slots,
                           .drawn = slots + n,
                           .position = slots + 2 * n,
                           .sequence = slots + 3 * n,
                           .ple_layers = slots + 4 * n,
                           .ple_cols = slots + 5 * n,
                           .layers = head + HEAD_INTS + (SLOT_INTS - POINTER_INTS) * n};
}

pl_step_slots pl_step_input_host(const pl_step_input *in)
{
    return slots_at(in->host, in->n);
}

pl_step_slots pl_step_input_ops(const pl_step_input *in)
{
    return slots_at(in->ops, in->n);
}

static int fill_slots(pl_step_input *in, const pl_step_row *rows, bool wanted, int slot)
{
    const pl_config *c = in->config;
    pl_step_slots s = pl_step_input_host(in);
    for (int i = 0; i < in->n; i++) {
        if (rows[i].wanted != wanted)
            continue;
        s.token[slot] = rows[i].token;
        s.drawn[slot] = rows[i].drawn ? rows[i].sequence : -1;
        s.position[slot] = rows[i].position;
        s.sequence[slot] = rows[i].sequence;
        in->path[slot] = rows[i].path;
        s.ple_layers[slot] = wanted ? c->n_layers : c->n_kv_layers;
        s.ple_cols[slot] = s.ple_layers[slot] * c->ple_dim;
        slot++;
    }
    return slot;
}

int pl_step_input_fill(pl_step_input *in, const pl_step_row *rows, int n)
{
    in->n = n;
    memset(in->host, 0, (size_t)(POINTER_INTS * n + HEAD_INTS) * sizeof *in->host);
    int wanted = fill_slots(in, rows, true, 0);
    fill_slots(in, rows, false, wanted);
    pl_step_slots s = pl_step_input_host(in);
    in->used = s.layers - in->host +
               pl_layer_rows_plan(in->layers, in->config->n_kv_layers, in->shard, in->path, s.position, s.sequence, n,
                                  wanted, s.layers);
    return wanted;
}

void pl_step_input_upload(pl_step_input *in)
{
    in->backend->upload(in->backend->stream, in->ops, in->host, (size_t)in->used * sizeof *in->host);
}

const pl_path *const *pl_step_input_paths(const pl_step_input *in)
{
    return in->path;
}

pl_layer_view pl_step_input_layer_host(const pl_step_input *in, int layer)
{
    return pl_layer_rows_at(in->layers, layer, pl_step_input_host(in).layers);
}

pl_layer_view pl_step_input_layer_ops(const pl_step_input *in, int layer)
{
    return pl_layer_rows_at(in->layers, layer, pl_step_input_ops(in).layers);
}
