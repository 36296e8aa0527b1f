#include "host/engine/memory.h"

#include "host/engine/draws.h"
#include "host/engine/ple.h"
#include "host/engine/step.h"
#include "host/model/path.h"
#include "host/model/weight_table.h"
#include "host/ops/backend.h"

#include <string.h>

#define ATTENTION_SPLITS 60
#define DRAW_PADDING 16384

static size_t tensor_bytes(const pl_tensor *t)
{
    return (size_t)t->rows * pl_tensor_row_bytes(t);
}

static void add_matrix(const pl_tensor *t, size_t *packed, size_t *mapped)
{
    size_t bytes = pl_backend_cpu_weight_bytes(t);
    if (bytes)
        *packed += bytes;
    else
        *mapped += tensor_bytes(t);
}

/* Beside packed matrices plain ones are copied. */
static void copy_plain(pl_memory_plan *plan)
{
    plan->core_packed += plan->core_mapped;
    plan->head_packed += plan->head_mapped;
    plan->core_mapped = plan->head_mapped = 0;
}

/* Vectors become f32 in memory; they count as packed. */
static void add_vector(const pl_tensor *t, size_t *packed)
{
    *packed += (size_t)(t->rows * t->cols) * sizeof(float);
}

/* What a card would hold of the model that path e2b cuts out, as the file stores it. */
static size_t slice_bytes(const pl_checkpoint *checkpoint)
{
    pl_path e2b;
    if (strcmp(pl_path_default(checkpoint), "e2b") == 0 || pl_path_parse(checkpoint, "e2b", &e2b, NULL) != PL_OK)
        return 0;
    return (size_t)pl_path_bytes(checkpoint, &e2b);
}

static void add_weights(const pl_weights *w, const pl_config *c, const pl_shard *shard, pl_memory_plan *plan)
{
    bool packs = false;
    for (pl_weight_cursor at = {0}; pl_weight_next(w, c, &at);) {
        pl_tensor t = shard ? pl_shard_part(shard, at.layer, at.role, at.tensor) : *at.tensor;
        bool head = at.role == PL_ROLE_EMBED || at.role == PL_ROLE_HEAD;
        if (pl_weight_table[at.role].kind == PL_WEIGHT_LOOKUP)
            continue;
        plan->card_weights += t.rows * t.cols;
        if (pl_weight_table[at.role].kind == PL_WEIGHT_VECTOR) {
            add_vector(&t, &plan->core_packed);
            continue;
        }
        packs |= pl_backend_cpu_weight_bytes(&t) > 0;
        add_matrix(&t, head ? &plan->head_packed : &plan->core_packed, head ? &plan->head_mapped : &plan->core_mapped);
    }
    if (packs)
        copy_plain(plan);
}

static size_t unused_bytes(const pl_checkpoint *checkpoint)
{
    const pl_tensor *all = NULL;
    size_t n = pl_checkpoint_tensors(checkpoint, &all), bytes = 0;
    for (size_t i = 0; i < n; i++)
        bytes += tensor_bytes(&all[i]);
    for (pl_weight_cursor at = {0};
         pl_weight_next(pl_checkpoint_weights(checkpoint), pl_checkpoint_config(checkpoint), &at);)
        bytes -= tensor_bytes(at.tensor);
    return bytes;
}

void pl_memory_plan_rank(const pl_checkpoint *checkpoint, const pl_shard *shard, int context, int batch_rows,
                         pl_cache_type cache, pl_memory_plan *out)
{
    const pl_config *c = shard ? &shard->config : pl_checkpoint_config(checkpoint);
    const pl_weights *w = pl_checkpoint_weights(checkpoint);
    pl_memory_plan plan = {0};
    add_weights(w, c, shard, &plan);
    plan.head_copy = pl_backend_cpu_head_bytes(w->head.data ? &w->head : &w->embed);
    plan.ple_table = tensor_bytes(&w->ple_table);
    plan.ple_row = pl_tensor_row_bytes(&w->ple_table);
    plan.kv = pl_kv_sequence_bytes(c, context, batch_rows, cache);
    plan.kv_per_token = pl_kv_token_bytes(c, cache);
    plan.work = pl_step_bytes(c, batch_rows, true);
    *out = plan;
}

void pl_memory_plan_compute(const pl_checkpoint *checkpoint, int context, int batch_rows, pl_cache_type cache,
                            pl_memory_plan *out)
{
    pl_memory_plan_rank(checkpoint, NULL, context, batch_rows, cache, out);
    out->unused = unused_bytes(checkpoint);
    out->card_slice = slice_bytes(checkpoint);
}

/* ---- cards ---- */

static size_t pages_of(int context)
{
    return ((size_t)context + PL_KV_PAGE - 1) / PL_KV_PAGE;
}

/* What ops on a card work in: of attention the partial results, at most ATTENTION_SPLITS of a row; of draws a copy of the
 * logits and a thirtieth beside it. */
static size_t ops_scratch(const pl_config *c, int context, int batch_rows)
{
    size_t splits = pages_of(context) < ATTENTION_SPLITS ? pages_of(context) : ATTENTION_SPLITS;
    size_t rows = (size_t)(batch_rows < PL_FUSED_ROWS ? batch_rows : PL_FUSED_ROWS), heads = (size_t)c->n_heads;
    size_t attention = rows * splits * heads * ((size_t)c->head_dim + 2) + PL_FUSED_ROWS * heads + 4;
    size_t draws = PL_FUSED_ROWS * ((size_t)c->vocab + (size_t)c->vocab / 30 + DRAW_PADDING);
    return (attention + draws) * sizeof(float);
}

void pl_card_memory_compute(const pl_config *config, const pl_memory_plan *plan, pl_ple_placement ple,
                            const pl_kv_size *size, pl_card_memory *out)
{
    int rows = size->batch_rows;
    pl_card_memory m = {
        .weights = plan->core_packed + plan->core_mapped + plan->head_packed + plan->head_mapped,
        .kv = pl_kv_bytes(config, size),
        .work = pl_step_bytes(config, rows, false) + ops_scratch(config, size->context, rows) +
                pl_draws_bytes(size->sequences),
        .reserve = PL_CARD_RESERVE,
    };
    size_t slots = PL_PLE_SLOTS * (size_t)rows * ((plan->ple_row + 15) / 16 * 16);
    switch (ple) {
    case PL_PLE_AUTO: break;
    case PL_PLE_VRAM: m.table = plan->ple_table; break;
    case PL_PLE_PINNED: m.pinned = plan->ple_table; break;
    case PL_PLE_HOST:
        m.pinned = slots;
        m.host = plan->ple_table;
        break;
    case PL_PLE_DISK:
        m.pinned = slots;
        m.host = PL_PLE_CACHE_BYTES;
        break;
    }
    *out = m;
}

size_t pl_card_memory_total(const pl_card_memory *m)
{
    return m->weights + m->kv + m->work + m->reserve + m->table;
}
