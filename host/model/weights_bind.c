#include "host/model/weights_bind.h"

#include "host/model/weight_table.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#define SHAPE_BYTES 200
#define TYPES_BYTES 200
#define TYPE_IDS 64 /* those of GGUF lie below */

static void write_shape(const int64_t *dims, int n, char *out)
{
    size_t at = (size_t)snprintf(out, SHAPE_BYTES, "[");
    for (int i = 0; i < n; i++)
        at += (size_t)snprintf(out + at, SHAPE_BYTES - at, "%s%" PRId64, i > 0 ? ", " : "", dims[i]);
    snprintf(out + at, SHAPE_BYTES - at, "]");
}

/* Leading sizes of 1 say nothing: GGUF drops them. */
static bool same_shape(const int64_t *a, int n_a, const int64_t *b, int n_b)
{
    while (n_a > 0 && a[0] == 1)
        a++, n_a--;
    while (n_b > 0 && b[0] == 1)
        b++, n_b--;
    return n_a == n_b && (n_a == 0 || memcmp(a, b, (size_t)n_a * sizeof *a) == 0);
}

static pl_status check_shape(const pl_binder *b, const pl_entry *entry, const int64_t *expected, int n)
{
    if (same_shape(entry->dims, entry->n_dims, expected, n))
        return PL_OK;
    char is[SHAPE_BYTES], should[SHAPE_BYTES];
    write_shape(entry->dims, entry->n_dims, is);
    write_shape(expected, n, should);
    return pl_fail(b->err, PL_ERR_FORMAT, "%s: tensor %s is %s, expected %s", entry->where, entry->name, is, should);
}

static void write_types(char *out)
{
    size_t at = 0;
    for (int id = 0; id < TYPE_IDS; id++) {
        const pl_dtype_info *info = pl_dtype_describe(id);
        if (info && at < TYPES_BYTES)
            at += (size_t)snprintf(out + at, TYPES_BYTES - at, "%s%s", at > 0 ? ", " : "", info->name);
    }
}

static pl_status check_type(const pl_binder *b, const pl_entry *entry)
{
    if (pl_dtype_describe(entry->type))
        return PL_OK;
    char types[TYPES_BYTES];
    write_types(types);
    return pl_fail(b->err, PL_ERR_UNSUPPORTED, "%s: tensor %s has type %s; supported are %s", entry->where, entry->name,
                   entry->type_name, types);
}

/* A view of rows of an entry whose shape and type were checked. */
static pl_status view(const pl_binder *b, const pl_entry *entry, int64_t row, int64_t rows, int64_t cols,
                      pl_tensor *out)
{
    pl_tensor t = {.name = entry->name, .rows = rows, .cols = cols, .type = (pl_dtype)entry->type};
    size_t row_bytes = pl_tensor_row_bytes(&t);
    t.data = entry->data + (size_t)row * row_bytes;
    const pl_dtype_info *info = pl_dtype_describe(entry->type);
    if (info->block_elems == 1 && (uintptr_t)t.data % (size_t)info->block_bytes != 0) {
        void *copy = pl_arena_take(b->arena, (size_t)rows, row_bytes);
        if (!copy)
            return pl_fail_memory(b->err, (size_t)rows * row_bytes, entry->name);
        t.data = memcpy(copy, t.data, (size_t)rows * row_bytes);
    }
    *out = t;
    return PL_OK;
}

static pl_status find(const pl_binder *b, const char *name, const pl_entry **out)
{
    *out = pl_tensor_list_find(b->list, name);
    if (!*out)
        return pl_fail(b->err, PL_ERR_FORMAT, "%s: tensor %s is missing", b->where, name);
    return check_type(b, *out);
}

pl_status pl_weights_bind_one(const pl_binder *b, const char *name, int64_t rows, int64_t cols, pl_tensor *out)
{
    const pl_entry *entry;
    PL_TRY(find(b, name, &entry));
    int64_t expected[] = {rows, cols};
    PL_TRY(check_shape(b, entry, rows == 1 ? expected + 1 : expected, rows == 1 ? 1 : 2));
    return view(b, entry, 0, rows, cols, out);
}

static pl_status bind_role(const pl_binder *b, int layer, pl_role role, pl_tensor *out)
{
    const pl_weight_info *info = &pl_weight_table[role];
    char name[PL_WEIGHT_NAME_BYTES];
    pl_weight_name(b->format, b->prefix, layer, role, 0, name);
    return pl_weights_bind_one(b, name, pl_size_of(b->config, layer, info->rows),
                               pl_size_of(b->config, layer, info->cols), out);
}

/* q, k and v in one tensor, in that order. */
static pl_status bind_fused(const pl_binder *b, int layer, const pl_entry *entry, pl_layer_weights *out)
{
    const pl_config *c = b->config;
    int64_t q = pl_size_of(c, layer, PL_SIZE_Q), k = pl_size_of(c, layer, PL_SIZE_K), hidden = c->hidden;
    int64_t expected[] = {q + 2 * k, hidden};
    PL_TRY(check_type(b, entry));
    PL_TRY(check_shape(b, entry, expected, 2));
    PL_TRY(view(b, entry, 0, q, hidden, &out->q));
    if (!pl_weight_needed(c, layer, PL_ROLE_K))
        return PL_OK;
    PL_TRY(view(b, entry, q, k, hidden, &out->k));
    return view(b, entry, q + k, k, hidden, &out->v);
}

static pl_status bind_layer(const pl_binder *b, int layer, pl_layer_weights *out)
{
    char name[PL_WEIGHT_NAME_BYTES];
    snprintf(name, sizeof name, "blk.%d.attn_qkv.weight", layer);
    const pl_entry *fused = b->format == PL_CHECKPOINT_GGUF ? pl_tensor_list_find(b->list, name) : NULL;
    if (fused)
        PL_TRY(bind_fused(b, layer, fused, out));
    for (pl_role role = 0; role < PL_LAYER_ROLES; role++) {
        bool in_fused = fused && (role == PL_ROLE_Q || role == PL_ROLE_K || role == PL_ROLE_V);
        if (pl_weight_needed(b->config, layer, role) && !in_fused)
            PL_TRY(bind_role(b, layer, role, (pl_tensor *)(void *)((char *)out + pl_weight_table[role].offset)));
    }
    return PL_OK;
}

/* Three matrices: one tensor each, or stacked in one. */
static pl_status bind_altup(const pl_binder *b, pl_role role, pl_tensor *out)
{
    int64_t hidden = b->config->hidden, stacked[] = {PL_ALTUP - 1, hidden, hidden};
    char name[PL_WEIGHT_NAME_BYTES];
    if (b->format == PL_CHECKPOINT_HF) {
        for (int i = 0; i < PL_ALTUP - 1; i++) {
            pl_weight_name(b->format, b->prefix, -1, role, i, name);
            PL_TRY(pl_weights_bind_one(b, name, hidden, hidden, &out[i]));
        }
        return PL_OK;
    }
    const pl_entry *entry;
    PL_TRY(find(b, pl_weight_table[role].gguf, &entry));
    PL_TRY(check_shape(b, entry, stacked, 3));
    for (int i = 0; i < PL_ALTUP - 1; i++)
        PL_TRY(view(b, entry, i * hidden, hidden, hidden, &out[i]));
    return PL_OK;
}

/* GGUF pads the table with rows for ids that it does not serve. */
static pl_status bind_ple_table(const pl_binder *b, pl_tensor *out)
{
    char name[PL_WEIGHT_NAME_BYTES];
    const pl_entry *entry;
    pl_weight_name(b->format, b->prefix, -1, PL_ROLE_PLE_TABLE, 0, name);
    PL_TRY(find(b, name, &entry));
    int64_t expected[] = {b->config->ple_vocab, pl_size_of(b->config, 0, PL_SIZE_LP)};
    if (b->format == PL_CHECKPOINT_GGUF && entry->n_dims == 2 && entry->dims[0] > expected[0])
        expected[0] = entry->dims[0];
    PL_TRY(check_shape(b, entry, expected, 2));
    return view(b, entry, 0, expected[0], expected[1], out);
}

pl_status pl_weights_bind(const pl_binder *b, pl_weights *out)
{
    PL_TRY(bind_role(b, -1, PL_ROLE_EMBED, &out->embed));
    PL_TRY(bind_role(b, -1, PL_ROLE_PLE_MODEL_PROJ, &out->ple_model_proj));
    PL_TRY(bind_role(b, -1, PL_ROLE_PLE_NORM, &out->ple_norm));
    PL_TRY(bind_altup(b, PL_ROLE_ALTUP_PROJ, out->altup_proj));
    PL_TRY(bind_altup(b, PL_ROLE_ALTUP_UNEMBED, out->altup_unembed));
    PL_TRY(bind_role(b, -1, PL_ROLE_OUT_NORM, &out->out_norm));
    PL_TRY(bind_ple_table(b, &out->ple_table));
    for (int l = 0; l < b->config->n_layers; l++)
        PL_TRY(bind_layer(b, l, &out->layer[l]));
    return PL_OK;
}
