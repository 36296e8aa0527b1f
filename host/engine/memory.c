#include "host/engine/memory.h"

#include "host/engine/kv.h"
#include "host/engine/step.h"
#include "host/model/weight_table.h"
#include "host/ops/backend.h"

static size_t tensor_bytes(const pl_tensor *t)
{
    return (size_t)t->rows * pl_tensor_row_bytes(t);
}

static size_t add_matrix(const pl_tensor *t, size_t *packed, size_t *mapped)
{
    size_t bytes = pl_backend_cpu_weight_bytes(t);
    if (bytes)
        *packed += bytes;
    else
        *mapped += tensor_bytes(t);
    return tensor_bytes(t);
}

/* Vectors become f32 in memory; they count as packed. */
static size_t add_vector(const pl_tensor *t, size_t *packed)
{
    *packed += (size_t)(t->rows * t->cols) * sizeof(float);
    return tensor_bytes(t);
}

void pl_memory_plan_compute(const pl_checkpoint *checkpoint, int context, int batch_rows, pl_memory_plan *out)
{
    const pl_config *c = pl_checkpoint_config(checkpoint);
    const pl_weights *w = pl_checkpoint_weights(checkpoint);
    pl_memory_plan plan = {0};
    size_t used = 0;
    for (pl_weight_cursor at = {0}; pl_weight_next(w, c, &at);) {
        bool head = at.role == PL_ROLE_EMBED || at.role == PL_ROLE_HEAD;
        switch (pl_weight_table[at.role].kind) {
        case PL_WEIGHT_VECTOR: used += add_vector(at.tensor, &plan.core_packed); break;
        case PL_WEIGHT_MATRIX:
            used += add_matrix(at.tensor, head ? &plan.head_packed : &plan.core_packed,
                               head ? &plan.head_mapped : &plan.core_mapped);
            break;
        case PL_WEIGHT_LOOKUP: used += tensor_bytes(at.tensor); break;
        }
    }
    plan.ple_table = tensor_bytes(&w->ple_table);
    plan.ple_row = pl_tensor_row_bytes(&w->ple_table);
    plan.kv = pl_kv_sequence_bytes(c, context, batch_rows);
    plan.kv_per_token = pl_kv_token_bytes(c);
    plan.work = pl_step_bytes(c, batch_rows);
    const pl_tensor *all = NULL;
    size_t n = pl_checkpoint_tensors(checkpoint, &all), total = 0;
    for (size_t i = 0; i < n; i++)
        total += tensor_bytes(&all[i]);
    plan.unused = total - used;
    *out = plan;
}
