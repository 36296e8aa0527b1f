#include "host/model/checkpoint.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "host/model/checkpoint_parts.h"
#include "host/model/path.h"

const char *pl_file_base(const char *path)
{
    const char *slash = strrchr(path, '/');
    return slash ? slash + 1 : path;
}

pl_status pl_checkpoint_text(pl_checkpoint *checkpoint, const char *text, size_t n, const char **out, pl_error *err)
{
    *out = pl_arena_text(checkpoint->arena, text, n);
    return *out ? PL_OK : pl_fail_memory(err, n + 1, "a text of the checkpoint");
}

pl_status pl_checkpoint_create(const char *path, pl_checkpoint **out, pl_error *err)
{
    pl_arena *arena = NULL;
    PL_TRY(pl_arena_create(1 << 20, &arena, err));
    pl_checkpoint *checkpoint = pl_arena_take(arena, 1, sizeof *checkpoint);
    if (!checkpoint) {
        pl_arena_free(arena);
        return pl_fail_memory(err, sizeof *checkpoint, "a checkpoint");
    }
    checkpoint->arena = arena;
    pl_status status = pl_checkpoint_text(checkpoint, path, strlen(path), &checkpoint->path, err);
    if (status != PL_OK) {
        pl_checkpoint_close(checkpoint);
        return status;
    }
    *out = checkpoint;
    return PL_OK;
}

pl_status pl_checkpoint_expect_paths(pl_checkpoint *checkpoint, size_t n, pl_error *err)
{
    checkpoint->paths = pl_arena_take(checkpoint->arena, n + 1, sizeof *checkpoint->paths);
    return checkpoint->paths ? PL_OK : pl_fail_memory(err, (n + 1) * sizeof *checkpoint->paths, "the nested paths");
}

pl_status pl_checkpoint_add_path(pl_checkpoint *checkpoint, const char *name, const char *spec, size_t n_spec,
                                 pl_error *err)
{
    pl_named_path *path = &checkpoint->paths[checkpoint->n_paths];
    PL_TRY(pl_checkpoint_text(checkpoint, name, strlen(name), &path->name, err));
    PL_TRY(pl_checkpoint_text(checkpoint, spec, n_spec, &path->spec, err));
    checkpoint->n_paths++;
    return PL_OK;
}

static pl_status check_paths(const pl_checkpoint *checkpoint, pl_error *err)
{
    for (size_t i = 0; i < checkpoint->n_paths; i++) {
        pl_path path;
        pl_status status = pl_path_parse(checkpoint, checkpoint->paths[i].name, &path, err);
        if (status != PL_OK)
            return pl_fail_within(err, PL_ERR_FORMAT, "%s: path %s", checkpoint->path, checkpoint->paths[i].name);
    }
    return PL_OK;
}

pl_status pl_checkpoint_keep_tensors(pl_checkpoint *checkpoint, const pl_tensor_list *list, pl_error *err)
{
    checkpoint->tensors = pl_arena_take(checkpoint->arena, list->n + 1, sizeof *checkpoint->tensors);
    if (!checkpoint->tensors)
        return pl_fail_memory(err, (list->n + 1) * sizeof *checkpoint->tensors, "the list of tensors");
    for (size_t i = 0; i < list->n; i++) {
        const pl_entry *entry = &list->items[i];
        pl_tensor *t = &checkpoint->tensors[i];
        *t = (pl_tensor){.name = entry->name, .rows = 1, .cols = 1, .type = (pl_dtype)entry->type};
        if (pl_dtype_describe(entry->type))
            t->data = entry->data;
        if (entry->n_dims > 0)
            t->cols = entry->dims[entry->n_dims - 1];
        for (int d = 0; d < entry->n_dims - 1; d++)
            t->rows *= entry->dims[d];
    }
    checkpoint->n_tensors = list->n;
    checkpoint->entries = *list;
    return PL_OK;
}

static pl_status open_path(const char *path, bool parts, pl_checkpoint **out, pl_error *err)
{
    struct stat info;
    if (stat(path, &info) != 0)
        return pl_fail(err, PL_ERR_IO, "%s: %s", path, strerror(errno));
    pl_checkpoint *checkpoint = NULL;
    pl_status status;
    PL_TRY_GOTO(pl_checkpoint_create(path, &checkpoint, err));
    checkpoint->parts = parts;
    if (S_ISDIR(info.st_mode))
        PL_TRY_GOTO(pl_checkpoint_load_hf(checkpoint, err));
    else
        PL_TRY_GOTO(pl_checkpoint_load_gguf(checkpoint, err));
    PL_TRY_GOTO(check_paths(checkpoint, err));
    *out = checkpoint;
    return PL_OK;
fail:
    pl_checkpoint_close(checkpoint);
    return status;
}

pl_status pl_checkpoint_open(const char *path, pl_checkpoint **out, pl_error *err)
{
    return open_path(path, false, out, err);
}

pl_status pl_checkpoint_open_parts(const char *path, pl_checkpoint **out, pl_error *err)
{
    return open_path(path, true, out, err);
}

void pl_checkpoint_close(pl_checkpoint *checkpoint)
{
    if (!checkpoint)
        return;
    for (size_t i = 0; i < checkpoint->n_files; i++)
        pl_mapfile_close(&checkpoint->files[i]);
    pl_arena_free(checkpoint->arena);
}

pl_checkpoint_format pl_checkpoint_kind(const pl_checkpoint *checkpoint)
{
    return checkpoint->format;
}

const char *pl_checkpoint_path(const pl_checkpoint *checkpoint)
{
    return checkpoint->path;
}

const char *pl_checkpoint_name(const pl_checkpoint *checkpoint)
{
    return checkpoint->name;
}

const pl_config *pl_checkpoint_config(const pl_checkpoint *checkpoint)
{
    return &checkpoint->config;
}

const pl_weights *pl_checkpoint_weights(const pl_checkpoint *checkpoint)
{
    return &checkpoint->weights;
}

const pl_pieces *pl_checkpoint_pieces(const pl_checkpoint *checkpoint)
{
    return checkpoint->format == PL_CHECKPOINT_GGUF ? &checkpoint->pieces : NULL;
}

size_t pl_checkpoint_gguf_values(const pl_checkpoint *checkpoint, const pl_gguf_value **out)
{
    *out = checkpoint->values;
    return checkpoint->n_values;
}

const char *pl_checkpoint_chat_template(const pl_checkpoint *checkpoint)
{
    return checkpoint->chat_template;
}

size_t pl_checkpoint_paths(const pl_checkpoint *checkpoint, const pl_named_path **out)
{
    *out = checkpoint->paths;
    return checkpoint->n_paths;
}

size_t pl_checkpoint_tensors(const pl_checkpoint *checkpoint, const pl_tensor **out)
{
    *out = checkpoint->tensors;
    return checkpoint->n_tensors;
}

const pl_tensor_list *pl_checkpoint_entries(const pl_checkpoint *checkpoint)
{
    return &checkpoint->entries;
}

size_t pl_checkpoint_bytes(const pl_checkpoint *checkpoint)
{
    size_t bytes = 0;
    for (size_t i = 0; i < checkpoint->n_files; i++)
        bytes += checkpoint->files[i].size;
    return bytes;
}

typedef void (*advise_fn)(const pl_mapfile *file, size_t offset, size_t bytes);

/* The file that holds the tensor's data, and where; NULL: none. */
static const pl_mapfile *file_of(const pl_checkpoint *checkpoint, const pl_tensor *tensor, size_t *offset)
{
    const unsigned char *data = tensor->data;
    for (size_t i = 0; i < checkpoint->n_files && data; i++) {
        const pl_mapfile *file = &checkpoint->files[i];
        if (file->data && data >= file->data && data < file->data + file->size) {
            *offset = (size_t)(data - file->data);
            return file;
        }
    }
    return NULL;
}

static void advise(const pl_checkpoint *checkpoint, const pl_tensor *tensor, advise_fn fn)
{
    size_t offset;
    const pl_mapfile *file = file_of(checkpoint, tensor, &offset);
    if (file)
        fn(file, offset, (size_t)tensor->rows * pl_tensor_row_bytes(tensor));
}

pl_status pl_checkpoint_read(const pl_checkpoint *checkpoint, const pl_tensor *tensor, void *out, pl_error *err)
{
    char what[256];
    size_t offset = 0, bytes = (size_t)tensor->rows * pl_tensor_row_bytes(tensor);
    const pl_mapfile *file = file_of(checkpoint, tensor, &offset);
    assert(file);
    snprintf(what, sizeof what, "%.120s: tensor %.100s", checkpoint->path, tensor->name);
    return pl_mapfile_read(file, what, offset, out, bytes, err);
}

void pl_checkpoint_will_need(const pl_checkpoint *checkpoint, const pl_tensor *tensor)
{
    advise(checkpoint, tensor, pl_mapfile_will_need);
}

void pl_checkpoint_drop(const pl_checkpoint *checkpoint, const pl_tensor *tensor)
{
    advise(checkpoint, tensor, pl_mapfile_drop);
}
