#include "host/tower/source.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "host/tower/source_parts.h"

typedef bool (*name_fn)(const char *name, char out[PL_TOWER_NAME_BYTES]);

/* Keeps those of the towers under their names in a folder. */
static pl_status keep(pl_tower_source *s, const pl_tensor_list *all, name_fn rename, pl_error *err)
{
    char name[PL_TOWER_NAME_BYTES];
    s->tensors.items = pl_arena_take(s->arena, all->n + 1, sizeof *s->tensors.items);
    if (!s->tensors.items)
        return pl_fail_memory(err, (all->n + 1) * sizeof *s->tensors.items, "the list of the towers' tensors");
    for (size_t i = 0; i < all->n; i++) {
        if (!rename(all->items[i].name, name))
            continue;
        pl_entry *entry = &s->tensors.items[s->tensors.n++];
        *entry = all->items[i];
        entry->name = pl_arena_text(s->arena, name, strlen(name));
        if (!entry->name)
            return pl_fail_memory(err, strlen(name) + 1, "the name of a tensor");
    }
    for (size_t i = 0; i < s->tensors.n; i++) {
        s->has_vision |= strncmp(s->tensors.items[i].name, "vision_tower.", 13) == 0;
        s->has_audio |= strncmp(s->tensors.items[i].name, "audio_tower.", 12) == 0;
    }
    return pl_tensor_list_index(&s->tensors, s->arena, err);
}

pl_status pl_tower_source_read(pl_tower_source *s, const unsigned char *data, size_t size, pl_error *err)
{
    pl_gguf keys;
    PL_TRY(pl_gguf_parse(data, size, s->where, s->arena, &keys, err));
    PL_TRY(keep(s, &keys.tensors, pl_tower_name_from_gguf, err));
    if (!s->has_vision && !s->has_audio)
        return pl_fail(err, PL_ERR_FORMAT, "%s: holds neither an image nor an audio encoder of Gemma 3n", s->where);
    return pl_tower_config_from_gguf(s, &keys, err);
}

static pl_status open_beside(pl_tower_source *s, const char *path, pl_error *err)
{
    s->where = pl_arena_text(s->arena, path, strlen(path));
    if (!s->where)
        return pl_fail_memory(err, strlen(path) + 1, "a path");
    PL_TRY(pl_mapfile_open(path, &s->file, err));
    return pl_tower_source_read(s, s->file.data, s->file.size, err);
}

static pl_status open_within(pl_tower_source *s, pl_error *err)
{
    const pl_checkpoint *c = s->checkpoint;
    s->where = pl_checkpoint_path(c);
    if (pl_checkpoint_kind(c) == PL_CHECKPOINT_HF) {
        PL_TRY(keep(s, pl_checkpoint_entries(c), pl_tower_name_from_folder, err));
        return pl_tower_config_from_folder(s, err);
    }
    pl_gguf keys = {.where = s->where};
    keys.n_values = pl_checkpoint_gguf_values(c, &keys.values);
    PL_TRY(keep(s, pl_checkpoint_entries(c), pl_tower_name_from_gguf, err));
    return pl_tower_config_from_gguf(s, &keys, err);
}

pl_status pl_tower_source_open(const pl_checkpoint *checkpoint, const char *path, pl_tower_source **out, pl_error *err)
{
    pl_status status;
    pl_tower_source *s = calloc(1, sizeof *s);
    if (!s)
        return pl_fail_memory(err, sizeof *s, "the towers' source");
    s->checkpoint = checkpoint;
    PL_TRY_GOTO(pl_arena_create(1 << 16, &s->arena, err));
    PL_TRY_GOTO(path ? open_beside(s, path, err) : open_within(s, err));
    PL_TRY_GOTO(pl_tower_config_check(s, err));
    *out = s;
    return PL_OK;
fail:
    pl_tower_source_close(s);
    return status;
}

void pl_tower_source_close(pl_tower_source *source)
{
    if (!source)
        return;
    pl_mapfile_close(&source->file);
    pl_arena_free(source->arena);
    free(source);
}

const pl_vision_config *pl_tower_source_vision(const pl_tower_source *source)
{
    return source->has_vision ? &source->vision : NULL;
}

const pl_audio_config *pl_tower_source_audio(const pl_tower_source *source)
{
    return source->has_audio ? &source->audio : NULL;
}

const pl_media_tokens *pl_tower_source_tokens(const pl_tower_source *source)
{
    return &source->tokens;
}

static size_t bytes_of(const pl_tower_source *source, const char *tower, const char *embedder)
{
    size_t bytes = 0;
    for (size_t i = 0; i < source->tensors.n; i++) {
        const pl_entry *entry = &source->tensors.items[i];
        if (strncmp(entry->name, tower, strlen(tower)) == 0 || strncmp(entry->name, embedder, strlen(embedder)) == 0)
            bytes += entry->bytes;
    }
    return bytes;
}

size_t pl_tower_source_vision_bytes(const pl_tower_source *source)
{
    return source->has_vision ? bytes_of(source, "vision_tower.", "embed_vision.") : 0;
}

size_t pl_tower_source_audio_bytes(const pl_tower_source *source)
{
    return source->has_audio ? bytes_of(source, "audio_tower.", "embed_audio.") : 0;
}

const pl_entry *pl_tower_source_find(const pl_tower_source *source, const char *name)
{
    return pl_tensor_list_find(&source->tensors, name);
}

static pl_status find_readable(const pl_tower_source *s, const char *name, const pl_entry **out, pl_error *err)
{
    const pl_entry *entry = pl_tower_source_find(s, name);
    if (!entry)
        return pl_fail(err, PL_ERR_FORMAT, "%s: tensor %s is missing", s->where, name);
    if (!pl_dtype_describe(entry->type))
        return pl_fail(err, PL_ERR_UNSUPPORTED, "%s: tensor %s has type %s, which is not supported", entry->where, name,
                       entry->type_name);
    if (entry->n_dims < 1 || entry->bytes == 0)
        return pl_fail(err, PL_ERR_FORMAT, "%s: tensor %s is empty", entry->where, name);
    *out = entry;
    return PL_OK;
}

pl_status pl_tower_source_matrix(const pl_tower_source *source, const char *name, int64_t rows, int64_t cols,
                                 pl_tensor *out, pl_error *err)
{
    const pl_entry *entry = NULL;
    PL_TRY(find_readable(source, name, &entry, err));
    pl_tensor t = {entry->name, entry->data, entry->dims[0], 1, (pl_dtype)entry->type};
    for (int d = 1; d < entry->n_dims; d++)
        t.cols *= entry->dims[d];
    if ((rows > 0 && t.rows != rows) || (cols > 0 && t.cols != cols))
        return pl_fail(err, PL_ERR_FORMAT,
                       "%s: tensor %s is of %" PRId64 " times %" PRId64 " values, expected %" PRId64 " times %" PRId64,
                       entry->where, name, t.rows, t.cols, rows > 0 ? rows : t.rows, cols > 0 ? cols : t.cols);
    *out = t;
    return PL_OK;
}

pl_status pl_tower_source_vector(const pl_tower_source *source, const char *name, int64_t n, float *out, pl_error *err)
{
    const pl_entry *entry = NULL;
    PL_TRY(find_readable(source, name, &entry, err));
    int64_t total = 1;
    for (int d = 0; d < entry->n_dims; d++)
        total *= entry->dims[d];
    if (total != n)
        return pl_fail(err, PL_ERR_FORMAT, "%s: tensor %s has %" PRId64 " values, expected %" PRId64, entry->where,
                       name, total, n);
    pl_decode((pl_dtype)entry->type, entry->data, out, n);
    for (int64_t i = 0; i < n; i++)
        if (!isfinite(out[i]))
            return pl_fail(err, PL_ERR_FORMAT, "%s: tensor %s: value %" PRId64 " is not finite", entry->where, name, i);
    return PL_OK;
}

void pl_tower_source_drop(const pl_tower_source *source, const pl_tensor *tensor)
{
    const unsigned char *data = tensor->data;
    const pl_mapfile *file = &source->file;
    if (!file->data)
        pl_checkpoint_drop(source->checkpoint, tensor);
    else if (data >= file->data && data < file->data + file->size)
        pl_mapfile_drop(file, (size_t)(data - file->data), (size_t)tensor->rows * pl_tensor_row_bytes(tensor));
}
