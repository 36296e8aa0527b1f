/* The plan of a file to be written. Reading what is planned: export_read.c. */
#include "host/convert/export.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define NAME_BYTES 512

/* Which layers of the source remain, and under which number. */
typedef struct kept_layers {
    int n;
    int old_of[PL_MAX_LAYERS]; /* [n] */
    int new_of[PL_MAX_LAYERS]; /* -1: left out */
    bool all;                  /* every layer in full width */
} kept_layers;

typedef struct planned {
    pl_export_tensor tensor;
    size_t place; /* of its first part among the source's tensors; last where it has none */
    size_t turn;  /* in which it was planned */
} planned;

typedef struct planner {
    pl_export *e;
    const pl_weights *weights;
    const pl_config *config; /* of the source */
    const pl_tensor_list *entries;
    kept_layers kept;
    char prefix[NAME_BYTES];   /* of the source's names of the text model */
    bool *used;                /* entries that stand in the plan or belong to none */
    planned *list;             /* room for everything */
    pl_export_span *per_layer; /* the kept layers' parts of what has P values for each */
    int n_per_layer;
    size_t n;
    pl_error *err;
} planner;

static pl_status no_memory(const planner *p)
{
    return pl_fail_memory(p->err, p->entries->n * sizeof(planned), "the plan of a file");
}

static const char *keep_text(planner *p, const char *text)
{
    return pl_arena_text(p->e->arena, text, strlen(text));
}

/* ---- what remains -------------------------------------------------------------------------------- */

static void choose_layers(planner *p, const pl_path *path)
{
    kept_layers *k = &p->kept;
    k->all = true;
    for (int l = 0; l < p->config->n_layers; l++) {
        bool skip = path && path->skip[l];
        k->new_of[l] = skip ? -1 : k->n;
        if (skip)
            k->all = false;
        else
            k->old_of[k->n++] = l;
        if (path && path->ffn[l] != p->config->ffn[l])
            k->all = false;
    }
}

static pl_status make_config(planner *p, const pl_path *path)
{
    const pl_config *from = p->config;
    pl_config *c = &p->e->config;
    *c = *from;
    c->n_layers = p->kept.n;
    c->n_kv_layers = 0;
    for (int l = 0; l < c->n_layers; l++) {
        int old = p->kept.old_of[l];
        p->e->old_layer[l] = old;
        c->ffn[l] = path ? path->ffn[old] : from->ffn[old];
        c->local[l] = from->local[old];
        c->sparsity_z[l] = from->sparsity_z[old];
        c->n_kv_layers += old < from->n_kv_layers;
    }
    return pl_config_check(c, pl_checkpoint_path(p->e->source), p->err);
}

/* One span for each run of neighbours. */
static pl_status make_spans(planner *p)
{
    int64_t width = p->config->ple_dim;
    p->per_layer = pl_arena_take(p->e->arena, (size_t)p->kept.n, sizeof *p->per_layer);
    if (!p->per_layer)
        return no_memory(p);
    for (int l = 0; l < p->kept.n; l++) {
        int old = p->kept.old_of[l];
        if (l > 0 && old == p->kept.old_of[l - 1] + 1)
            p->per_layer[p->n_per_layer - 1].n += width;
        else
            p->per_layer[p->n_per_layer++] = (pl_export_span){old * width, width};
    }
    return PL_OK;
}

static void keep_paths(planner *p)
{
    if (p->kept.all)
        p->e->n_paths = pl_checkpoint_paths(p->e->source, &p->e->paths);
}

/* What stands before "embed_tokens.weight". */
static void find_prefix(planner *p)
{
    const char *name = p->weights->embed.name, *end = strstr(name, pl_weight_table[PL_ROLE_EMBED].hf);
    size_t n = pl_checkpoint_kind(p->e->source) == PL_CHECKPOINT_HF && end ? (size_t)(end - name) : 0;
    if (n >= sizeof p->prefix)
        n = 0;
    memcpy(p->prefix, name, n);
}

/* ---- tensors of the model ------------------------------------------------------------------------ */

static size_t place_of(const planner *p, const char *name)
{
    const pl_entry *entry = name ? pl_tensor_list_find(p->entries, name) : NULL;
    return entry ? (size_t)(entry - p->entries->items) : p->entries->n;
}

static void push(planner *p, const pl_export_tensor *t)
{
    size_t place = place_of(p, t->source ? t->source->name : NULL);
    p->list[p->n] = (planned){*t, place, p->n};
    p->n++;
    for (int i = 0; t->source && i < t->n_parts; i++) {
        size_t part = place_of(p, t->source[i].name);
        if (part < p->entries->n)
            p->used[part] = true;
    }
}

static void set_shape(pl_export_tensor *t, const pl_config *c, int64_t rows)
{
    const pl_weight_info *info = &pl_weight_table[t->role];
    int64_t cols = pl_size_of(c, t->layer, info->cols);
    int n = 0;
    if (t->n_parts > 1)
        t->dims[n++] = t->n_parts;
    if (info->rows != PL_SIZE_1)
        t->dims[n++] = rows;
    t->dims[n++] = cols;
    t->n_dims = n;
    t->n_rows = rows * t->n_parts;
    t->n_cols = cols;
}

/* The source's type where one serves all parts and no block of it is cut. */
static pl_dtype choose_type(const planner *p, const pl_export_tensor *t)
{
    if (p->e->format == PL_CHECKPOINT_GGUF && pl_weight_table[t->role].kind == PL_WEIGHT_VECTOR)
        return PL_F32;
    if (!t->source)
        return p->weights->layer[0].k.type;
    pl_export_tensor as_is = *t;
    as_is.type = t->source->type;
    return pl_export_is_copy(&as_is) ? as_is.type : PL_F32;
}

/* The single span 0 .. n of `all`, or none where that is all. */
static pl_status first_of(planner *p, int64_t n, int64_t all, const pl_export_span **spans, int *n_spans)
{
    if (n >= all)
        return PL_OK;
    pl_export_span *span = pl_arena_take(p->e->arena, 1, sizeof *span);
    if (!span)
        return no_memory(p);
    *span = (pl_export_span){0, n};
    *spans = span;
    *n_spans = 1;
    return PL_OK;
}

static pl_status cut(planner *p, pl_export_tensor *t)
{
    const pl_weight_info *info = &pl_weight_table[t->role];
    if (info->rows == PL_SIZE_F)
        return first_of(p, t->n_rows, t->source->rows, &t->rows, &t->n_row_spans);
    if (info->cols == PL_SIZE_F)
        return first_of(p, t->n_cols, t->source->cols, &t->cols, &t->n_col_spans);
    if (info->rows == PL_SIZE_LP && p->kept.n < p->config->n_layers) {
        t->rows = p->per_layer;
        t->n_row_spans = p->n_per_layer;
    }
    if (info->cols == PL_SIZE_LP && p->kept.n < p->config->n_layers) {
        t->cols = p->per_layer;
        t->n_col_spans = p->n_per_layer;
    }
    if (t->role == PL_ROLE_PLE_TABLE)
        return first_of(p, t->n_rows, t->source->rows, &t->rows, &t->n_row_spans);
    return PL_OK;
}

/* index: of several in Hugging Face's names. source: NULL for zeros. */
static pl_status plan_role(planner *p, int layer, pl_role role, int index, const pl_tensor *source, int n_parts)
{
    const pl_config *c = &p->e->config;
    const pl_weight_info *info = &pl_weight_table[role];
    pl_export_tensor t = {.role = role, .layer = layer, .source = source, .n_parts = n_parts};
    char name[PL_WEIGHT_NAME_BYTES];
    bool gguf = p->e->format == PL_CHECKPOINT_GGUF;
    pl_weight_name(p->e->format, gguf ? "" : p->prefix, layer, role, index, name);
    t.name = role == PL_ROLE_HEAD && !gguf ? source->name : keep_text(p, name);
    if (!t.name)
        return no_memory(p);
    /* llama.cpp wants a row of the table for every id; those that it does not serve hold zeros. */
    set_shape(&t, c, role == PL_ROLE_PLE_TABLE && gguf ? c->vocab : pl_size_of(c, layer, info->rows));
    if (source)
        PL_TRY(cut(p, &t));
    t.type = choose_type(p, &t);
    push(p, &t);
    return PL_OK;
}

static bool is_matrix(const pl_entry *entry, int64_t rows, int64_t cols)
{
    return entry && pl_dtype_describe(entry->type) && entry->n_dims == (rows == 1 ? 1 : 2) &&
           entry->dims[entry->n_dims - 1] == cols && (rows == 1 || entry->dims[0] == rows);
}

/* K/V tensors of layers that do not use them, as published files have them: a view that the binding leaves out. */
static pl_status find_unused(planner *p, int old, pl_role role, const pl_tensor **out)
{
    const pl_weight_info *info = &pl_weight_table[role];
    int64_t rows = pl_size_of(p->config, old, info->rows), cols = pl_size_of(p->config, old, info->cols), first = 0;
    int64_t all = rows;
    char name[PL_WEIGHT_NAME_BYTES];
    pl_weight_name(pl_checkpoint_kind(p->e->source), p->prefix, old, role, 0, name);
    const pl_entry *entry = pl_tensor_list_find(p->entries, name);
    if (!entry && role != PL_ROLE_K_NORM) {
        snprintf(name, sizeof name, "blk.%d.attn_qkv.weight", old);
        entry = pl_tensor_list_find(p->entries, name);
        first = pl_size_of(p->config, old, PL_SIZE_Q) + (role == PL_ROLE_V ? rows : 0);
        all = pl_size_of(p->config, old, PL_SIZE_Q) + 2 * rows;
    }
    if (!is_matrix(entry, all, cols))
        return PL_OK;
    pl_tensor *view = pl_arena_take(p->e->arena, 1, sizeof *view);
    if (!view)
        return no_memory(p);
    *view = (pl_tensor){.name = entry->name, .rows = rows, .cols = cols, .type = (pl_dtype)entry->type};
    view->data = entry->data + (size_t)first * pl_tensor_row_bytes(view);
    *out = view;
    return PL_OK;
}

static pl_status plan_layer(planner *p, int layer)
{
    int old = p->kept.old_of[layer];
    for (pl_role role = 0; role < PL_LAYER_ROLES; role++) {
        const pl_tensor *source = pl_weight_at(p->weights, old, role);
        if (!source->data) {
            source = NULL;
            if (pl_weight_table[role].when == PL_WHEN_OWNS_KV)
                PL_TRY(find_unused(p, old, role, &source));
            if (!source && p->e->format == PL_CHECKPOINT_HF)
                continue;
        }
        PL_TRY(plan_role(p, layer, role, 0, source, 1));
    }
    return PL_OK;
}

static pl_status plan_whole(planner *p)
{
    for (pl_role role = PL_LAYER_ROLES; role < PL_ROLES; role++) {
        const pl_tensor *source = pl_weight_at(p->weights, -1, role);
        int count = pl_weight_table[role].count;
        if (!source->data)
            continue;
        if (p->e->format == PL_CHECKPOINT_GGUF)
            PL_TRY(plan_role(p, -1, role, 0, source, count));
        else
            for (int i = 0; i < count; i++)
                PL_TRY(plan_role(p, -1, role, i, source + i, 1));
    }
    return PL_OK;
}

/* ---- everything else in the file ----------------------------------------------------------------- */

/* The name with its layer renumbered; NULL where the layer is left out. *renamed: an arena text, or `name`. */
static pl_status renumber(planner *p, const char *name, int *layer, const char **renamed)
{
    char head[NAME_BYTES + 16], text[2 * NAME_BYTES];
    bool hf = p->e->format == PL_CHECKPOINT_HF;
    int n = snprintf(head, sizeof head, "%s%s.", p->prefix, hf ? "layers" : "blk");
    *layer = -1;
    *renamed = name;
    if (strncmp(name, head, (size_t)n) != 0)
        return PL_OK;
    char *rest;
    long old = strtol(name + n, &rest, 10);
    if (rest == name + n || *rest != '.' || old < 0 || old >= p->config->n_layers)
        return PL_OK;
    *layer = p->kept.new_of[old];
    *renamed = NULL;
    if (*layer < 0)
        return PL_OK;
    n = snprintf(text, sizeof text, "%s%d%s", head, *layer, rest);
    if (n < 0 || (size_t)n >= sizeof text)
        return pl_fail(p->err, PL_ERR_UNSUPPORTED, "tensor %.200s...: the name is too long", name);
    *renamed = keep_text(p, text);
    return *renamed ? PL_OK : no_memory(p);
}

static pl_status plan_other(planner *p, const pl_entry *entry)
{
    pl_export_tensor t = {.role = PL_ROLES, .n_parts = 1, .type = (pl_dtype)entry->type};
    PL_TRY(renumber(p, entry->name, &t.layer, &t.name));
    if (!t.name)
        return PL_OK;
    if (p->e->format == PL_CHECKPOINT_GGUF && !pl_dtype_describe(entry->type))
        return pl_fail(p->err, PL_ERR_UNSUPPORTED, "%s: tensor %s has type %s, which cannot be written", entry->where,
                       entry->name, entry->type_name);
    pl_tensor *view = pl_arena_take(p->e->arena, 1, sizeof *view);
    if (!view)
        return no_memory(p);
    *view = (pl_tensor){.name = entry->name, .data = entry->data, .rows = 1, .cols = 1, .type = t.type};
    for (int d = 0; d < entry->n_dims; d++)
        *(d == entry->n_dims - 1 ? &view->cols : &view->rows) *= entry->dims[d];
    bool fits = entry->n_dims >= 1 && entry->n_dims <= 4;
    t.n_dims = fits ? entry->n_dims : 2;
    memcpy(t.dims, fits ? entry->dims : (const int64_t[]){view->rows, view->cols}, (size_t)t.n_dims * sizeof *t.dims);
    t.source = view;
    t.n_rows = view->rows;
    t.n_cols = view->cols;
    if (p->e->format == PL_CHECKPOINT_GGUF && entry->bytes == 0)
        return pl_fail(p->err, PL_ERR_UNSUPPORTED, "%s: tensor %s holds no values", entry->where, entry->name);
    push(p, &t);
    return PL_OK;
}

/* A text model in GGUF stands alone; else what belongs to the encoders stays with it. */
static pl_status plan_others(planner *p)
{
    if (pl_checkpoint_kind(p->e->source) != p->e->format)
        return PL_OK;
    for (size_t i = 0; i < p->entries->n; i++)
        if (!p->used[i])
            PL_TRY(plan_other(p, &p->entries->items[i]));
    return PL_OK;
}

static int compare_places(const void *a, const void *b)
{
    const planned *x = a, *y = b;
    if (x->place != y->place)
        return x->place < y->place ? -1 : 1;
    return x->turn < y->turn ? -1 : 1;
}

/* A file made from one of the same format keeps its order. */
static pl_status keep_list(planner *p)
{
    if (pl_checkpoint_kind(p->e->source) == p->e->format)
        qsort(p->list, p->n, sizeof *p->list, compare_places);
    p->e->tensors = pl_arena_take(p->e->arena, p->n, sizeof *p->e->tensors);
    if (!p->e->tensors)
        return no_memory(p);
    for (size_t i = 0; i < p->n; i++)
        p->e->tensors[i] = p->list[i].tensor;
    p->e->n = p->n;
    return PL_OK;
}

static pl_status check_formats(const planner *p)
{
    const char *path = pl_checkpoint_path(p->e->source);
    bool from_hf = pl_checkpoint_kind(p->e->source) == PL_CHECKPOINT_HF;
    if (!from_hf && p->e->format == PL_CHECKPOINT_HF)
        return pl_fail(p->err, PL_ERR_UNSUPPORTED, "%s: a GGUF file can only be written as GGUF", path);
    if (from_hf && p->e->format == PL_CHECKPOINT_GGUF && !p->config->altup_correct_scale)
        return pl_fail(p->err, PL_ERR_UNSUPPORTED, "%s: a model without altup_correct_scale cannot be said in GGUF",
                       path);
    return PL_OK;
}

static pl_status plan(planner *p, const pl_path *path)
{
    size_t room = p->entries->n + (size_t)p->config->n_layers * PL_LAYER_ROLES + PL_ROLES + 2 * PL_ALTUP;
    PL_TRY(check_formats(p));
    choose_layers(p, path);
    PL_TRY(make_config(p, path));
    PL_TRY(make_spans(p));
    keep_paths(p);
    find_prefix(p);
    p->used = pl_arena_take(p->e->arena, p->entries->n + 1, sizeof *p->used);
    p->list = malloc(room * sizeof *p->list);
    if (!p->used || !p->list)
        return no_memory(p);
    PL_TRY(plan_whole(p));
    for (int l = 0; l < p->kept.n; l++)
        PL_TRY(plan_layer(p, l));
    PL_TRY(plan_others(p));
    return keep_list(p);
}

pl_status pl_export_plan(const pl_checkpoint *source, const pl_path *path, pl_checkpoint_format format, pl_export **out,
                         pl_error *err)
{
    pl_arena *arena = NULL;
    PL_TRY(pl_arena_create(1 << 18, &arena, err));
    pl_export *e = pl_arena_take(arena, 1, sizeof *e);
    if (!e) {
        pl_arena_free(arena);
        return pl_fail_memory(err, sizeof *e, "the plan of a file");
    }
    *e = (pl_export){.source = source, .format = format, .arena = arena};
    planner p = {.e = e,
                 .weights = pl_checkpoint_weights(source),
                 .config = pl_checkpoint_config(source),
                 .entries = pl_checkpoint_entries(source),
                 .err = err};
    pl_status status = plan(&p, path);
    free(p.list);
    if (status != PL_OK) {
        pl_arena_free(arena);
        return status;
    }
    *out = e;
    return PL_OK;
}

void pl_export_free(pl_export *e)
{
    if (e)
        pl_arena_free(e->arena);
}

int64_t pl_export_bytes(const pl_export *e)
{
    int64_t bytes = 0;
    for (size_t i = 0; i < e->n; i++)
        if (pl_dtype_describe((int)e->tensors[i].type))
            bytes += e->tensors[i].n_rows * (int64_t)pl_dtype_bytes(e->tensors[i].type, e->tensors[i].n_cols);
    return bytes;
}
