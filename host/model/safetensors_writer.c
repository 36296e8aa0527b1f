#include "host/model/safetensors_writer.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "host/base/json_out.h"
#include "host/base/outfile.h"

#define VALUE_BYTES 4 /* of both types of pl_out_dtype */

struct pl_safetensors_writer {
    pl_json tensors; /* the header in the making */
    pl_strbuf names; /* NUL-terminated, one behind the other */
    size_t n;
    uint64_t bytes;   /* of all data */
    pl_error trouble; /* the first, PL_OK: none */
    pl_outfile file;
    uint64_t left; /* data still to come */
};

pl_status pl_safetensors_writer_create(pl_safetensors_writer **out, pl_error *err)
{
    pl_safetensors_writer *w = calloc(1, sizeof *w);
    if (!w)
        return pl_fail_memory(err, sizeof *w, "a safetensors file to be written");
    w->tensors = pl_json_to_buffer();
    pl_json_begin_object(&w->tensors);
    *out = w;
    return PL_OK;
}

void pl_safetensors_writer_free(pl_safetensors_writer *w)
{
    if (!w)
        return;
    pl_outfile_abort(&w->file);
    pl_json_free(&w->tensors);
    pl_strbuf_free(&w->names);
    free(w);
}

static void put_numbers(pl_json *json, const char *key, const int64_t *numbers, int n)
{
    pl_json_key_array(json, key);
    for (int i = 0; i < n; i++)
        pl_json_int(json, numbers[i]);
    pl_json_end_array(json);
}

void pl_safetensors_declare(pl_safetensors_writer *w, const char *name, const char *dtype, const int64_t *dims,
                            int n_dims, uint64_t bytes)
{
    pl_json *json = &w->tensors;
    uint64_t end;
    if (w->trouble.status != PL_OK)
        return;
    if (__builtin_add_overflow(w->bytes, bytes, &end) || end > INT64_MAX) {
        pl_fail(&w->trouble, PL_ERR_ARGUMENT, "tensor %s: shape overflows", name);
        return;
    }
    pl_json_key_object(json, name);
    pl_json_put_string(json, "dtype", dtype);
    put_numbers(json, "shape", dims, n_dims);
    put_numbers(json, "data_offsets", (const int64_t[]){(int64_t)w->bytes, (int64_t)end}, 2);
    pl_json_end_object(json);
    pl_strbuf_add(&w->names, name, strlen(name) + 1);
    w->bytes = end;
    w->n++;
}

static int compare_texts(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

static pl_status check_names(const pl_safetensors_writer *w, pl_error *err)
{
    const char **names = calloc(w->n + 1, sizeof *names), *at = w->names.data;
    pl_status status = PL_OK;
    if (!names || w->names.failed) {
        free(names);
        return pl_fail_memory(err, w->names.n + (w->n + 1) * sizeof *names, "the tensors' names");
    }
    for (size_t i = 0; i < w->n; i++, at += strlen(at) + 1)
        names[i] = at;
    qsort(names, w->n, sizeof *names, compare_texts);
    for (size_t i = 1; i < w->n && status == PL_OK; i++)
        if (strcmp(names[i - 1], names[i]) == 0)
            status = pl_fail(err, PL_ERR_ARGUMENT, "two tensors are named %s", names[i]);
    free(names);
    return status;
}

/* The header's length, the header, and spaces so that the data starts on eight bytes. */
static pl_status write_header(pl_safetensors_writer *w, const char *header, size_t n, pl_error *err)
{
    uint64_t padded = (n + 7) / 8 * 8;
    PL_TRY(pl_outfile_reserve(&w->file, sizeof padded + padded + w->bytes, err));
    PL_TRY(pl_outfile_write(&w->file, &padded, sizeof padded, err));
    PL_TRY(pl_outfile_write(&w->file, header, n, err));
    return pl_outfile_write(&w->file, "       ", (size_t)padded - n, err);
}

pl_status pl_safetensors_writer_begin(pl_safetensors_writer *w, const char *path, const char *format, pl_error *err)
{
    char *header = NULL;
    size_t n = 0;
    pl_status status = w->trouble.status;
    if (status != PL_OK)
        return pl_fail(err, status, "%s: %s", path, w->trouble.message);
    PL_TRY(check_names(w, err));
    if (format) {
        pl_json_key_object(&w->tensors, "__metadata__");
        pl_json_put_string(&w->tensors, "format", format);
        pl_json_end_object(&w->tensors);
    }
    pl_json_end_object(&w->tensors);
    PL_TRY_GOTO(pl_json_take(&w->tensors, &header, &n, err));
    PL_TRY_GOTO(pl_outfile_open(path, &w->file, err));
    status = write_header(w, header, n, err);
    w->left = w->bytes;
fail:
    free(header);
    if (status != PL_OK)
        pl_outfile_abort(&w->file);
    return status;
}

pl_status pl_safetensors_writer_append(pl_safetensors_writer *w, const void *data, size_t bytes, pl_error *err)
{
    assert(bytes <= w->left);
    w->left -= bytes;
    return pl_outfile_write(&w->file, data, bytes, err);
}

pl_status pl_safetensors_writer_commit(pl_safetensors_writer *w, pl_error *err)
{
    assert(w->left == 0);
    return pl_outfile_commit(&w->file, err);
}

static pl_status tensor_bytes(const pl_out_tensor *t, uint64_t *out, pl_error *err)
{
    uint64_t bytes = VALUE_BYTES;
    for (int i = 0; i < t->n_dims; i++)
        if (t->dims[i] < 0 || __builtin_mul_overflow(bytes, (uint64_t)t->dims[i], &bytes) || bytes > INT64_MAX)
            return pl_fail(err, PL_ERR_ARGUMENT, "tensor %s: shape overflows", t->name);
    *out = bytes;
    return PL_OK;
}

pl_status pl_safetensors_write(const char *path, const pl_out_tensor *tensors, size_t n, pl_error *err)
{
    pl_safetensors_writer *w = NULL;
    pl_status status;
    uint64_t bytes = 0;
    PL_TRY(pl_safetensors_writer_create(&w, err));
    for (size_t i = 0; i < n; i++) {
        const pl_out_tensor *t = &tensors[i];
        PL_TRY_GOTO(tensor_bytes(t, &bytes, err));
        pl_safetensors_declare(w, t->name, t->dtype == PL_OUT_F32 ? "F32" : "I32", t->dims, t->n_dims, bytes);
    }
    PL_TRY_GOTO(pl_safetensors_writer_begin(w, path, NULL, err));
    for (size_t i = 0; i < n; i++) {
        PL_TRY_GOTO(tensor_bytes(&tensors[i], &bytes, err));
        PL_TRY_GOTO(pl_safetensors_writer_append(w, tensors[i].data, bytes, err));
    }
    status = pl_safetensors_writer_commit(w, err);
fail:
    pl_safetensors_writer_free(w);
    return status;
}
