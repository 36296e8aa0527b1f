#include "host/engine/layer_rows.h"

#include <stdlib.h>

struct pl_layer_rows {
    int n_layers;
    int *n;                   /* [layers] */
    int64_t *at;              /* [layers] where the layer's part of the plan begins: slot, position, sequence, width */
    const pl_path **distinct; /* [max_rows] the step's paths */
    int *order;               /* [max_rows] of distinct, widest first in the layer at hand */
    int *path_of;             /* [max_rows] index into distinct, by slot */
};

pl_status pl_layer_rows_create(int n_layers, int max_rows, pl_layer_rows **out, pl_error *err)
{
    pl_layer_rows *lr = calloc(1, sizeof *lr);
    if (!lr)
        return pl_fail_memory(err, sizeof *lr, "row plan");
    size_t rows = (size_t)max_rows;
    lr->n_layers = n_layers;
    lr->n = calloc((size_t)n_layers, sizeof *lr->n);
    lr->at = calloc((size_t)n_layers, sizeof *lr->at);
    lr->distinct = calloc(rows, sizeof *lr->distinct);
    lr->order = calloc(rows, sizeof *lr->order);
    lr->path_of = calloc(rows, sizeof *lr->path_of);
    if (!lr->n || !lr->at || !lr->distinct || !lr->order || !lr->path_of) {
        pl_layer_rows_free(lr);
        return pl_fail_memory(err, rows * sizeof *lr->distinct, "row plan");
    }
    *out = lr;
    return PL_OK;
}

void pl_layer_rows_free(pl_layer_rows *lr)
{
    if (!lr)
        return;
    free(lr->n);
    free(lr->at);
    free(lr->distinct);
    free(lr->order);
    free(lr->path_of);
    free(lr);
}

int64_t pl_layer_rows_ints(int n_layers, int max_rows)
{
    return (int64_t)4 * n_layers * max_rows;
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

static int count_rows(const pl_layer_rows *lr, int layer, int last)
{
    int n = 0;
    for (int s = 0; s < last; s++)
        n += !lr->distinct[lr->path_of[s]]->skip[layer];
    return n;
}

int64_t pl_layer_rows_plan(pl_layer_rows *lr, int n_kv_layers, const pl_shard *shard, const pl_path *const *path,
                           const int32_t *position, const int32_t *sequence, int n, int wanted, int32_t *plan)
{
    int count = find_distinct(lr, path, n);
    int64_t used = 0;
    for (int layer = 0; layer < lr->n_layers; layer++) {
        int last = layer < n_kv_layers ? n : wanted, rows = count_rows(lr, layer, last), r = 0;
        int32_t *part = plan + used;
        sort_by_width(lr, layer, count);
        for (int i = 0; i < count; i++) {
            const pl_path *p = lr->distinct[lr->order[i]];
            int32_t width = shard ? pl_shard_width(shard, layer, p->ffn[layer]) : p->ffn[layer];
            for (int s = 0; s < last && !p->skip[layer]; s++) {
                if (lr->path_of[s] != lr->order[i])
                    continue;
                part[r] = s;
                part[rows + r] = position[s];
                part[2 * rows + r] = sequence[s];
                part[3 * rows + r++] = width;
            }
        }
        lr->n[layer] = rows;
        lr->at[layer] = used;
        used += 4 * (int64_t)rows;
    }
    return used;
}

pl_layer_view pl_layer_rows_at(const pl_layer_rows *lr, int layer, const int32_t *plan)
{
    const int32_t *part = plan + lr->at[layer];
    int n = lr->n[layer];
    return (pl_layer_view){{n, part, part + n, part + 2 * n}, part + 3 * n};
}
