/* A Hugging Face folder: config.json, safetensors in one file or several with an index. */
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "host/model/checkpoint_parts.h"
#include "host/model/config_parts.h"
#include "host/model/safetensors.h"
#include "host/model/weights_bind.h"

#define PATH_BYTES 4096

typedef struct loader {
    pl_checkpoint *checkpoint;
    json_t *config, *generation, *index; /* generation, index: may be NULL */
    pl_tensor_list tensors;              /* of all files together */
    pl_error *err;
} loader;

static pl_status join(const loader *l, const char *name, char *out)
{
    int n = snprintf(out, PATH_BYTES, "%s/%s", l->checkpoint->path, name);
    if (n < 0 || n >= PATH_BYTES)
        return pl_fail(l->err, PL_ERR_ARGUMENT, "%s: the path is too long", l->checkpoint->path);
    return PL_OK;
}

static bool has(const loader *l, const char *name)
{
    char path[PATH_BYTES];
    return join(l, name, path) == PL_OK && access(path, F_OK) == 0;
}

static pl_status read_json(const loader *l, const char *name, json_t **out)
{
    char path[PATH_BYTES];
    pl_mapfile file;
    PL_TRY(join(l, name, path));
    PL_TRY(pl_mapfile_open(path, &file, l->err));
    pl_status status = pl_member_parse((const char *)file.data, file.size, path, out, l->err);
    pl_mapfile_close(&file);
    return status;
}

static pl_status read_configs(loader *l)
{
    pl_checkpoint *c = l->checkpoint;
    char path[PATH_BYTES];
    if (!has(l, "config.json"))
        return pl_fail(l->err, PL_ERR_IO, "%s: has no config.json; a model folder holds config.json and *.safetensors",
                       c->path);
    PL_TRY(read_json(l, "config.json", &l->config));
    if (has(l, "generation_config.json"))
        PL_TRY(read_json(l, "generation_config.json", &l->generation));
    PL_TRY(join(l, "config.json", path));
    return pl_config_from_tree(l->config, l->generation, path, &c->config, l->err);
}

static pl_status read_nested_paths(const loader *l)
{
    char where[PATH_BYTES];
    const json_t *paths = NULL;
    PL_TRY(join(l, "config.json", where));
    PL_TRY(pl_member_object(l->config, "pleiad_paths", where, &paths, l->err));
    PL_TRY(pl_checkpoint_expect_paths(l->checkpoint, json_object_size(paths), l->err));
    if (!paths)
        return PL_OK;
    const char *name;
    json_t *spec;
    json_object_foreach(json_object_get(l->config, "pleiad_paths"), name, spec)
    {
        if (!json_is_string(spec))
            return pl_fail(l->err, PL_ERR_FORMAT, "%s: pleiad_paths.%s is %s, expected a string", where, name,
                           pl_member_kind(spec));
        PL_TRY(pl_checkpoint_add_path(l->checkpoint, name, json_string_value(spec), json_string_length(spec), l->err));
    }
    return PL_OK;
}

static int compare_texts(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

static bool plain_file_name(const char *name)
{
    size_t n = strlen(name);
    return n > 12 && name[0] != '.' && !strchr(name, '/') && !strchr(name, '\\') &&
           strcmp(name + n - 12, ".safetensors") == 0;
}

/* The distinct files of the index, sorted. names: in the checkpoint's arena. */
static pl_status list_shards(loader *l, const char ***names, size_t *n)
{
    static const char file[] = "model.safetensors.index.json";
    const json_t *map = NULL;
    PL_TRY(read_json(l, file, &l->index));
    PL_TRY(pl_member_object(l->index, "weight_map", file, &map, l->err));
    size_t room = json_object_size(map);
    if (room == 0)
        return pl_fail(l->err, PL_ERR_FORMAT, "%s/%s: weight_map is missing or empty", l->checkpoint->path, file);
    const char **all = pl_arena_take(l->checkpoint->arena, room, sizeof *all);
    if (!all)
        return pl_fail_memory(l->err, room * sizeof *all, "the list of shards");
    const char *tensor;
    json_t *value;
    size_t i = 0;
    json_object_foreach(json_object_get(l->index, "weight_map"), tensor, value)
    {
        const char *name = json_string_value(value);
        if (!name || !plain_file_name(name))
            return pl_fail(l->err, PL_ERR_FORMAT,
                           "%s/%s: tensor %s: '%s' is not the name of a safetensors file in this folder",
                           l->checkpoint->path, file, tensor, name ? name : pl_member_kind(value));
        all[i++] = name;
    }
    qsort(all, room, sizeof *all, compare_texts);
    *n = 0;
    for (i = 0; i < room; i++)
        if (*n == 0 || strcmp(all[*n - 1], all[i]) != 0)
            all[(*n)++] = all[i];
    *names = all;
    return PL_OK;
}

static pl_status find_files(loader *l, const char ***names, size_t *n)
{
    static const char *single[] = {"model.safetensors"};
    if (has(l, single[0])) {
        *names = single;
        *n = 1;
        return PL_OK;
    }
    if (has(l, "model.safetensors.index.json"))
        return list_shards(l, names, n);
    return pl_fail(l->err, PL_ERR_IO, "%s: has neither model.safetensors nor model.safetensors.index.json",
                   l->checkpoint->path);
}

static pl_status map_file(loader *l, const char *name, pl_tensor_list *out)
{
    pl_checkpoint *c = l->checkpoint;
    char path[PATH_BYTES];
    const char *where = NULL;
    PL_TRY(join(l, name, path));
    PL_TRY(pl_checkpoint_text(c, path, strlen(path), &where, l->err));
    pl_mapfile *file = &c->files[c->n_files];
    PL_TRY(pl_mapfile_open(path, file, l->err));
    c->n_files++;
    return pl_safetensors_parse(file->data, file->size, where, c->arena, out, l->err);
}

/* Every tensor of the index must stand in the file that the index names. */
static pl_status check_index(const loader *l)
{
    const char *tensor;
    json_t *value;
    json_object_foreach(json_object_get(l->index, "weight_map"), tensor, value)
    {
        const pl_entry *entry = pl_tensor_list_find(&l->tensors, tensor);
        const char *file = json_string_value(value);
        if (!entry || strcmp(pl_file_base(entry->where), file) != 0)
            return pl_fail(l->err, PL_ERR_FORMAT, "%s/%s: does not hold tensor %s, as the index says it does",
                           l->checkpoint->path, file, tensor);
    }
    return PL_OK;
}

static pl_status map_files(loader *l)
{
    pl_checkpoint *c = l->checkpoint;
    const char **names = NULL;
    size_t n = 0, total = 0;
    PL_TRY(find_files(l, &names, &n));
    if (n > PL_MAX_PARTS)
        return pl_fail(l->err, PL_ERR_UNSUPPORTED, "%s: %zu shards, at most %d are read", c->path, n, PL_MAX_PARTS);
    c->files = pl_arena_take(c->arena, n, sizeof *c->files);
    pl_tensor_list *lists = pl_arena_take(c->arena, n, sizeof *lists);
    if (!c->files || !lists)
        return pl_fail_memory(l->err, n * (sizeof *c->files + sizeof *lists), "the list of shards");
    for (size_t i = 0; i < n; i++) {
        PL_TRY(map_file(l, names[i], &lists[i]));
        total += lists[i].n;
    }
    l->tensors.items = pl_arena_take(c->arena, total + 1, sizeof *l->tensors.items);
    if (!l->tensors.items)
        return pl_fail_memory(l->err, (total + 1) * sizeof *l->tensors.items, "the list of tensors");
    for (size_t i = 0; i < n; i++) {
        memcpy(l->tensors.items + l->tensors.n, lists[i].items, lists[i].n * sizeof *lists[i].items);
        l->tensors.n += lists[i].n;
    }
    PL_TRY(pl_tensor_list_index(&l->tensors, c->arena, l->err));
    return l->index ? check_index(l) : PL_OK;
}

/* What saved the file decides: transformers 4.53 and later, earlier ones, a text model alone, bare modules. */
static pl_status find_prefix(const loader *l, const char **out)
{
    static const char *const prefixes[] = {"model.language_model.", "language_model.model.", "model.",
                                           "language_model.", ""};
    char name[64];
    for (size_t i = 0; i < sizeof prefixes / sizeof prefixes[0]; i++) {
        snprintf(name, sizeof name, "%sembed_tokens.weight", prefixes[i]);
        if (pl_tensor_list_find(&l->tensors, name)) {
            *out = prefixes[i];
            return PL_OK;
        }
    }
    return pl_fail(l->err, PL_ERR_FORMAT,
                   "%s: tensor model.language_model.embed_tokens.weight is missing, under any known prefix",
                   l->checkpoint->path);
}

/* A tied model's lm_head, where a file has one, repeats the embedding. */
static pl_status bind_head(const loader *l, const pl_binder *binder)
{
    pl_checkpoint *c = l->checkpoint;
    bool tied = true;
    PL_TRY(pl_member_bool(l->config, "tie_word_embeddings", c->path, &tied, l->err));
    PL_TRY(pl_member_bool(json_object_get(l->config, "text_config"), "tie_word_embeddings", c->path, &tied, l->err));
    if (tied)
        return PL_OK;
    const char *name = "lm_head.weight", *nested = "language_model.lm_head.weight";
    if (!pl_tensor_list_find(&l->tensors, name) && pl_tensor_list_find(&l->tensors, nested))
        name = nested;
    return pl_weights_bind_one(binder, name, c->config.vocab, c->config.hidden, &c->weights.head);
}

static pl_status bind(const loader *l)
{
    pl_checkpoint *c = l->checkpoint;
    pl_binder binder = {PL_CHECKPOINT_HF, c->path, NULL, &l->tensors, &c->config, c->arena, l->err};
    PL_TRY(find_prefix(l, &binder.prefix));
    PL_TRY(pl_weights_bind(&binder, &c->weights));
    return bind_head(l, &binder);
}

/* A template, or a list of named ones of which the default counts. */
static const char *template_of(const json_t *root)
{
    const json_t *value = json_object_get(root, "chat_template");
    if (!json_is_array(value))
        return json_string_value(value);
    for (size_t i = 0; i < json_array_size(value); i++) {
        const json_t *item = json_array_get(value, i);
        const char *name = json_string_value(json_object_get(item, "name"));
        if (name && strcmp(name, "default") == 0)
            return json_string_value(json_object_get(item, "template"));
    }
    return NULL;
}

static pl_status read_template_json(const loader *l, const char *name)
{
    json_t *root = NULL;
    PL_TRY(read_json(l, name, &root));
    const char *text = template_of(root);
    pl_status status = PL_OK;
    if (text)
        status = pl_checkpoint_text(l->checkpoint, text, strlen(text), &l->checkpoint->chat_template, l->err);
    json_decref(root);
    return status;
}

static pl_status read_template(const loader *l)
{
    pl_checkpoint *c = l->checkpoint;
    if (has(l, "chat_template.jinja")) {
        char path[PATH_BYTES];
        pl_mapfile file;
        PL_TRY(join(l, "chat_template.jinja", path));
        PL_TRY(pl_mapfile_open(path, &file, l->err));
        pl_status status = pl_checkpoint_text(c, (const char *)file.data, file.size, &c->chat_template, l->err);
        pl_mapfile_close(&file);
        return status;
    }
    if (has(l, "chat_template.json"))
        PL_TRY(read_template_json(l, "chat_template.json"));
    if (!c->chat_template && has(l, "tokenizer_config.json"))
        PL_TRY(read_template_json(l, "tokenizer_config.json"));
    return PL_OK;
}

/* The folder's own name, whatever way leads to it. */
static pl_status set_name(const loader *l)
{
    pl_checkpoint *c = l->checkpoint;
    char real[PATH_MAX];
    const char *name = pl_file_base(realpath(c->path, real) ? real : c->path);
    return pl_checkpoint_text(c, name, strlen(name), &c->name, l->err);
}

pl_status pl_checkpoint_load_hf(pl_checkpoint *checkpoint, pl_error *err)
{
    loader l = {.checkpoint = checkpoint, .err = err};
    pl_status status;
    checkpoint->format = PL_CHECKPOINT_HF;
    PL_TRY_GOTO(set_name(&l));
    PL_TRY_GOTO(read_configs(&l));
    PL_TRY_GOTO(map_files(&l));
    if (!checkpoint->parts) {
        PL_TRY_GOTO(bind(&l));
        PL_TRY_GOTO(read_nested_paths(&l));
        PL_TRY_GOTO(read_template(&l));
    }
    status = pl_checkpoint_keep_tensors(checkpoint, &l.tensors, err);
fail:
    json_decref(l.index);
    json_decref(l.generation);
    json_decref(l.config);
    return status;
}
