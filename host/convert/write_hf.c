#include "host/convert/write_hf.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "host/base/mapfile.h"
#include "host/base/outfile.h"
#include "host/convert/folder.h"
#include "host/model/safetensors_writer.h"

#define PIECE_BYTES (4u << 20)
#define TEMP_NAMES 100

typedef struct placed {
    const pl_export_tensor *tensor;
    const pl_entry *entry; /* of its source */
    uint64_t width;        /* bytes of a value */
} placed;

typedef struct folder_writer {
    const pl_export *e;
    const pl_write_hf_options *options;
    char path[PL_FOLDER_PATH_BYTES]; /* where it will be */
    char temp[PL_FOLDER_PATH_BYTES]; /* where it is written; empty: nowhere yet */
    placed *order;                   /* the tensors as they stand in the file */
    uint64_t done, all;              /* bytes of weights */
    pl_error *err;
} folder_writer;

/* ---- the folder ---------------------------------------------------------------------------------- */

static pl_status fail_folder(const folder_writer *f, const char *doing)
{
    int error = errno;
    return pl_fail(f->err, PL_ERR_IO, "%s: cannot %s: %s", f->path, doing, strerror(error));
}

static bool is_dots(const char *name)
{
    return strcmp(name, ".") == 0 || strcmp(name, "..") == 0;
}

static pl_status check_empty(const folder_writer *f)
{
    struct stat info;
    bool empty = true;
    if (stat(f->path, &info) != 0)
        return errno == ENOENT ? PL_OK : fail_folder(f, "write");
    if (!S_ISDIR(info.st_mode))
        return pl_fail(f->err, PL_ERR_ARGUMENT,
                       "%s: is a file; name a new folder for a Hugging Face model, or a file that ends in .gguf",
                       f->path);
    DIR *dir = opendir(f->path);
    if (!dir)
        return fail_folder(f, "read");
    for (struct dirent *entry; empty && (entry = readdir(dir));)
        empty = is_dots(entry->d_name);
    closedir(dir);
    return empty ? PL_OK : pl_fail(f->err, PL_ERR_ARGUMENT, "%s: the folder is not empty; name a new one", f->path);
}

static pl_status make_temp(folder_writer *f)
{
    char name[PL_FOLDER_PATH_BYTES];
    for (int i = 0; i < TEMP_NAMES; i++) {
        int n = snprintf(name, sizeof name, "%s.%ld-%d.tmp", f->path, (long)getpid(), i);
        if (n < 0 || (size_t)n >= sizeof name)
            return pl_fail(f->err, PL_ERR_ARGUMENT, "%.200s...: the path is too long", f->path);
        if (mkdir(name, 0777) == 0) {
            memcpy(f->temp, name, sizeof name);
            return PL_OK;
        }
        if (errno != EEXIST)
            break;
    }
    return fail_folder(f, "write");
}

static void remove_temp(const folder_writer *f)
{
    char path[PL_FOLDER_PATH_BYTES];
    DIR *dir = *f->temp ? opendir(f->temp) : NULL;
    if (!dir)
        return;
    for (struct dirent *entry; (entry = readdir(dir));)
        if (!is_dots(entry->d_name) && pl_folder_join(f->temp, entry->d_name, path, NULL) == PL_OK)
            unlink(path);
    closedir(dir);
    rmdir(f->temp);
}

static pl_status put_in_place(folder_writer *f)
{
    if (rename(f->temp, f->path) != 0)
        return fail_folder(f, "write");
    f->temp[0] = '\0';
    return PL_OK;
}

static pl_status open_folder(folder_writer *f, const char *folder)
{
    size_t n = strlen(folder);
    while (n > 1 && folder[n - 1] == '/')
        n--;
    if (n == 0 || n >= sizeof f->path)
        return pl_fail(f->err, PL_ERR_ARGUMENT, "the folder's path has %zu bytes, possible are 1 to %zu", n,
                       sizeof f->path - 1);
    memcpy(f->path, folder, n);
    PL_TRY(check_empty(f));
    return make_temp(f);
}

/* ---- small files --------------------------------------------------------------------------------- */

static pl_status write_small(const folder_writer *f, const char *name, const void *data, size_t n)
{
    char path[PL_FOLDER_PATH_BYTES];
    pl_outfile out = {0};
    pl_status status;
    PL_TRY(pl_folder_join(f->temp, name, path, f->err));
    PL_TRY(pl_outfile_open(path, &out, f->err));
    PL_TRY_GOTO(pl_outfile_write(&out, data, n, f->err));
    status = pl_outfile_commit(&out, f->err);
fail:
    pl_outfile_abort(&out);
    return status;
}

static pl_status write_config(const folder_writer *f)
{
    char *text = NULL;
    size_t n = 0;
    PL_TRY(pl_hf_config_text(f->e, &text, &n, f->err));
    pl_status status = write_small(f, "config.json", text, n);
    free(text);
    return status;
}

static bool ends_in(const char *name, const char *end)
{
    size_t n = strlen(name), m = strlen(end);
    return n > m && strcmp(name + n - m, end) == 0;
}

/* Tokenizer, chat template, generation and preprocessor settings, licence: everything that neither holds weights nor
 * says where they are. */
static bool is_companion(const char *name)
{
    if (name[0] == '.' || strcmp(name, "config.json") == 0 || ends_in(name, ".index.json"))
        return false;
    return ends_in(name, ".json") || ends_in(name, ".jinja") || ends_in(name, ".model") || ends_in(name, ".txt") ||
           strncmp(name, "LICENSE", 7) == 0 || strncmp(name, "NOTICE", 6) == 0;
}

static pl_status copy_companion(const folder_writer *f, const char *folder, const char *name)
{
    char path[PL_FOLDER_PATH_BYTES];
    struct stat info;
    pl_mapfile file;
    PL_TRY(pl_folder_join(folder, name, path, f->err));
    if (stat(path, &info) == 0 && !S_ISREG(info.st_mode))
        return PL_OK;
    PL_TRY(pl_mapfile_open(path, &file, f->err));
    pl_status status = write_small(f, name, file.data, file.size);
    pl_mapfile_close(&file);
    return status;
}

static pl_status copy_companions(const folder_writer *f)
{
    const char *folder = pl_checkpoint_path(f->e->source);
    DIR *dir = opendir(folder);
    if (!dir)
        return pl_fail(f->err, PL_ERR_IO, "%s: %s", folder, strerror(errno));
    pl_status status = PL_OK;
    for (struct dirent *entry; status == PL_OK && (entry = readdir(dir));)
        if (is_companion(entry->d_name))
            status = copy_companion(f, folder, entry->d_name);
    closedir(dir);
    return status;
}

/* ---- weights ------------------------------------------------------------------------------------- */

/* Wide values first, so that all stand on multiples of their size; else in the plan's order. */
static int compare_widths(const void *a, const void *b)
{
    const placed *x = a, *y = b;
    if (x->width != y->width)
        return x->width > y->width ? -1 : 1;
    return x->tensor < y->tensor ? -1 : x->tensor > y->tensor;
}

static uint64_t value_bytes(const pl_entry *entry)
{
    uint64_t n = 1;
    for (int d = 0; d < entry->n_dims; d++)
        n *= (uint64_t)entry->dims[d];
    return n ? entry->bytes / n : 1;
}

static pl_status make_order(folder_writer *f)
{
    const pl_tensor_list *entries = pl_checkpoint_entries(f->e->source);
    f->order = malloc((f->e->n + 1) * sizeof *f->order);
    if (!f->order)
        return pl_fail_memory(f->err, (f->e->n + 1) * sizeof *f->order, "the order of the tensors");
    for (size_t i = 0; i < f->e->n; i++) {
        const pl_export_tensor *t = &f->e->tensors[i];
        const pl_entry *entry = pl_tensor_list_find(entries, t->source->name);
        f->order[i] = (placed){t, entry, value_bytes(entry)};
    }
    qsort(f->order, f->e->n, sizeof *f->order, compare_widths);
    return PL_OK;
}

static void declare(folder_writer *f, pl_safetensors_writer *w, const placed *p)
{
    const pl_export_tensor *t = p->tensor;
    bool other = t->role == PL_ROLES; /* of any shape and type */
    uint64_t bytes = other ? p->entry->bytes : (uint64_t)t->n_rows * pl_dtype_bytes(t->type, t->n_cols);
    pl_safetensors_declare(w, t->name, p->entry->type_name, other ? p->entry->dims : t->dims,
                           other ? p->entry->n_dims : t->n_dims, bytes);
    f->all += bytes;
}

static pl_status go_on(folder_writer *f, const pl_export_tensor *t, size_t bytes)
{
    const pl_write_hf_options *o = f->options;
    f->done += bytes;
    if (o->progress)
        o->progress(o->progress_user, t->name, (double)f->done / (double)f->all);
    if (o->cancelled && o->cancelled(o->cancelled_user))
        return pl_fail(f->err, PL_ERR_CANCELLED, "%s: not written: interrupted", f->path);
    return PL_OK;
}

/* Bytes as they are, in pieces. */
static pl_status write_bytes(folder_writer *f, pl_safetensors_writer *w, const pl_export_tensor *t,
                             const unsigned char *data, uint64_t n)
{
    while (n > 0) {
        size_t piece = n < PIECE_BYTES ? (size_t)n : PIECE_BYTES;
        PL_TRY(pl_safetensors_writer_append(w, data, piece, f->err));
        PL_TRY(go_on(f, t, piece));
        data += piece;
        n -= piece;
    }
    return PL_OK;
}

static pl_status write_rows(folder_writer *f, pl_safetensors_writer *w, const pl_export_tensor *t)
{
    size_t row_bytes = pl_dtype_bytes(t->type, t->n_cols);
    int64_t step = (int64_t)(PIECE_BYTES / row_bytes) + 1;
    unsigned char *rows = malloc((size_t)step * row_bytes);
    if (!rows)
        return pl_fail_memory(f->err, (size_t)step * row_bytes, t->name);
    pl_status status = PL_OK;
    for (int64_t row = 0; row < t->n_rows && status == PL_OK; row += step) {
        int64_t n = t->n_rows - row < step ? t->n_rows - row : step;
        pl_export_copy(t, row, n, rows);
        status = write_bytes(f, w, t, rows, (uint64_t)n * row_bytes);
    }
    free(rows);
    return status;
}

static pl_status write_tensor(folder_writer *f, pl_safetensors_writer *w, const placed *p)
{
    if (p->tensor->role == PL_ROLES)
        return write_bytes(f, w, p->tensor, p->entry->data, p->entry->bytes);
    PL_TRY(write_rows(f, w, p->tensor));
    pl_checkpoint_drop(f->e->source, p->tensor->source);
    return PL_OK;
}

static pl_status write_weights(folder_writer *f)
{
    char path[PL_FOLDER_PATH_BYTES];
    pl_safetensors_writer *w = NULL;
    pl_status status;
    PL_TRY(make_order(f));
    PL_TRY(pl_folder_join(f->temp, "model.safetensors", path, f->err));
    PL_TRY(pl_safetensors_writer_create(&w, f->err));
    for (size_t i = 0; i < f->e->n; i++)
        declare(f, w, &f->order[i]);
    PL_TRY_GOTO(pl_safetensors_writer_begin(w, path, "pt", f->err));
    for (size_t i = 0; i < f->e->n; i++)
        PL_TRY_GOTO(write_tensor(f, w, &f->order[i]));
    status = pl_safetensors_writer_commit(w, f->err);
fail:
    pl_safetensors_writer_free(w);
    return status;
}

pl_status pl_write_hf(const pl_export *e, const char *folder, const pl_write_hf_options *options, pl_error *err)
{
    folder_writer f = {.e = e, .options = options, .err = err};
    pl_status status;
    PL_TRY_GOTO(open_folder(&f, folder));
    PL_TRY_GOTO(write_config(&f));
    PL_TRY_GOTO(copy_companions(&f));
    PL_TRY_GOTO(write_weights(&f));
    status = put_in_place(&f);
fail:
    remove_temp(&f);
    free(f.order);
    return status;
}
