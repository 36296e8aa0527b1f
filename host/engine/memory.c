#include "host/engine/memory.h"

#include "host/engine/kv.h"
#include "host/engine/step.h"
#include "host/ops/backend.h"

static size_t tensor_bytes(const pl_tensor *t)
{
    return t->data ? (size_t)t->rows * pl_tensor_row_bytes(t) : 0;
}

static size_t add_matrix(const pl_tensor *t, size_t *packed, size_t *mapped)
{
    size_t bytes = t->data ? pl_backend_cpu_weight_bytes(t) : 0;
    if (bytes)
        *packed += bytes;
    else
        *mapped += tensor_bytes(t);
    return tensor_bytes(t);
}

/* Vectors become f32 in memory; they count as packed. */
static size_t add_vector(const pl_tensor *t, size_t *packed)
{
    *packed += t->data ? (size_t)(t->rows * t->cols) * sizeof(float) : 0;
    return tensor_bytes(t);
}

static size_t add_layer(const pl_layer_weights *w, pl_memory_plan *plan)
{
    const pl_tensor *matrices[] = {
        &w->q,        &w->k,       &w->v, &w->o, &w->gate, &w->up, &w->down, &w->laurel_left, &w->laurel_right,
        &w->ple_gate, &w->ple_proj};
    const pl_tensor *vectors[] = {
        &w->attn_norm,     &w->post_attn_norm, &w->ffn_norm,    &w->post_ffn_norm, &w->post_ple_norm,
        &w->q_norm,        &w->k_norm,         &w->laurel_norm, &w->altup_router,  &w->altup_router_norm,
        &w->altup_predict, &w->altup_correct,  &w->altup_scale};
    size_t used = 0;
    for (size_t i = 0; i < sizeof matrices / sizeof *matrices; i++)
        used += add_matrix(matrices[i], &plan->core_packed, &plan->core_mapped);
    for (size_t i = 0; i < sizeof vectors / sizeof *vectors; i++)
        used += add_vector(vectors[i], &plan->core_packed);
    return used;
}

void pl_memory_plan_compute(const pl_checkpoint *checkpoint, int context, int batch_rows, pl_memory_plan *out)
{
    const pl_config *c = pl_checkpoint_config(checkpoint);
    const pl_weights *w = pl_checkpoint_weights(checkpoint);
    pl_memory_plan plan = {0};
    size_t used = 0;
    for (int l = 0; l < c->n_layers; l++)
        used += add_layer(&w->layer[l], &plan);
    used += add_matrix(&w->ple_model_proj, &plan.core_packed, &plan.core_mapped);
    for (int k = 0; k < PL_ALTUP - 1; k++) {
        used += add_matrix(&w->altup_proj[k], &plan.core_packed, &plan.core_mapped);
        used += add_matrix(&w->altup_unembed[k], &plan.core_packed, &plan.core_mapped);
    }
    used += add_vector(&w->ple_norm, &plan.core_packed);
    used += add_vector(&w->out_norm, &plan.core_packed);
    used += add_matrix(&w->embed, &plan.head_packed, &plan.head_mapped);
    used += add_matrix(&w->head, &plan.head_packed, &plan.head_mapped);
    plan.ple_table = tensor_bytes(&w->ple_table);
    plan.ple_row = pl_tensor_row_bytes(&w->ple_table);
    plan.kv = pl_kv_sequence_bytes(c, context, batch_rows);
    plan.kv_per_token = pl_kv_token_bytes(c);
    plan.work = pl_step_bytes(c, batch_rows);
    const pl_tensor *all = NULL;
    size_t n = pl_checkpoint_tensors(checkpoint, &all), total = 0;
    for (size_t i = 0; i < n; i++)
        total += tensor_bytes(&all[i]);
    plan.unused = total - used - plan.ple_table;
    *out = plan;
}
