#include "host/engine/layer_rows.h"

#include <stdlib.h>

struct pl_layer_rows {
    int n_layers, max_rows;
    int *n;                                      /* [layers] */
    int32_t *slot, *position, *sequence, *width; /* [layers][max_rows] */
    const pl_path **distinct;                    /* [max_rows] the step's paths */
    int *order;                                  /* [max_rows] of distinct, widest first in the layer at hand */
    int *path_of;                                /* [max_rows] index into distinct, by slot */
};

pl_status pl_layer_rows_create(int n_layers, int max_rows, pl_layer_rows **out, pl_error *err)
{
    pl_layer_rows *lr = calloc(1, sizeof *lr);
    if (!lr)
        return pl_fail_memory(err, sizeof *lr, "row plan");
    size_t rows = (size_t)max_rows, all = (size_t)n_layers * rows;
    lr->n_layers = n_layers;
    lr->max_rows = max_rows;
    lr->n = calloc((size_t)n_layers, sizeof *lr->n);
    lr->slot = calloc(all, sizeof *lr->slot);
    lr->position = calloc(all, sizeof *lr->position);
    lr->sequence = calloc(all, sizeof *lr->sequence);
    lr->width = calloc(all, sizeof *lr->width);
    lr->distinct = calloc(rows, sizeof *lr->distinct);
    lr->order = calloc(rows, sizeof *lr->order);
    lr->path_of = calloc(rows, sizeof *lr->path_of);
    if (!lr->n || !lr->slot || !lr->position || !lr->sequence || !lr->width || !lr->distinct || !lr->order ||
        !lr->path_of) {
        pl_layer_rows_free(lr);
        return pl_fail_memory(err, all * 4 * sizeof *lr->slot, "row plan");
    }
    *out = lr;
    return PL_OK;
}

void pl_layer_rows_free(pl_layer_rows *lr)
{
    if (!lr)
        return;
    free(lr->n);
    free(lr->slot);
    free(lr->position);
    free(lr->sequence);
    free(lr->width);
    free(lr->distinct);
    free(lr->order);
    free(lr->path_of);
    free(lr);
}

static int find_distinct(pl_layer_rows *lr, const pl_path *const *path, int n)
{
    int count = 0;
    for (int s = 0; s < n; s++) {
        int i = 0;
        while (i < count && lr->distinct[i] != path[s])
            i++;
        if (i == count)
            lr->distinct[count++] = path[s];
        lr->path_of[s] = i;
    }
    return count;
}

static void sort_by_width(pl_layer_rows *lr, int layer, int count)
{
    for (int i = 0; i < count; i++) {
        int at = i;
        for (; at > 0 && lr->distinct[lr->order[at - 1]]->ffn[layer] < lr->distinct[i]->ffn[layer]; at--)
            lr->order[at] = lr->order[at - 1];
        lr->order[at] = i;
    }
}

void pl_layer_rows_plan(pl_layer_rows *lr, const pl_config *config, const pl_path *const *path, const int32_t *position,
                        const int32_t *sequence, int n, int wanted)
{
    int count = find_distinct(lr, path, n);
    for (int layer = 0; layer < lr->n_layers; layer++) {
        size_t base = (size_t)layer * (size_t)lr->max_rows, r = base;
        int last = layer < config->n_kv_layers ? n : wanted;
        sort_by_width(lr, layer, count);
        for (int i = 0; i < count; i++) {
            const pl_path *p = lr->distinct[lr->order[i]];
            for (int s = 0; s < last && !p->skip[layer]; s++) {
                if (lr->path_of[s] != lr->order[i])
                    continue;
                lr->slot[r] = s;
                lr->position[r] = position[s];
                lr->sequence[r] = sequence[s];
                lr->width[r++] = p->ffn[layer];
            }
        }
        lr->n[layer] = (int)(r - base);
    }
}

pl_layer_view pl_layer_rows_at(const pl_layer_rows *lr, int layer)
{
    size_t base = (size_t)layer * (size_t)lr->max_rows;
    return (pl_layer_view){{lr->n[layer], lr->slot + base, lr->position + base, lr->sequence + base}, lr->width + base};
}
