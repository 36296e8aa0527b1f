#include "host/model/gguf_writer.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "host/base/outfile.h"
#include "host/base/strbuf.h"

#define ALIGNMENT 32       /* of data, where general.alignment does not say another */
#define NAME_MAX_BYTES 256 /* as the reader has it */
#define COUNT_MAX 65536    /* likewise */

typedef struct declared {
    const char *name;
    int64_t dims[4];
    int n_dims;
    pl_dtype type;
    uint64_t bytes;
} declared;

struct pl_gguf_writer {
    pl_arena *arena;  /* names */
    pl_strbuf values; /* as they will stand in the file */
    const char **keys;
    size_t n_keys, room_keys;
    declared *tensors;
    size_t n_tensors, room_tensors;
    uint64_t name_bytes, data_bytes; /* of all tensors' names; of their data with padding */
    pl_error trouble;                /* the first, PL_OK: none */

    pl_outfile file;
    size_t current; /* the tensor that is being written */
    uint64_t left;  /* its bytes still to come */
};

pl_status pl_gguf_writer_create(pl_gguf_writer **out, pl_error *err)
{
    pl_gguf_writer *w = calloc(1, sizeof *w);
    if (!w)
        return pl_fail_memory(err, sizeof *w, "a GGUF file to be written");
    pl_status status = pl_arena_create(1 << 16, &w->arena, err);
    if (status != PL_OK) {
        free(w);
        return status;
    }
    *out = w;
    return PL_OK;
}

void pl_gguf_writer_free(pl_gguf_writer *w)
{
    if (!w)
        return;
    pl_outfile_abort(&w->file);
    pl_strbuf_free(&w->values);
    free(w->keys);
    free(w->tensors);
    pl_arena_free(w->arena);
    free(w);
}

/* ---- what the file will hold --------------------------------------------------------------------- */

static bool in_trouble(const pl_gguf_writer *w)
{
    return w->trouble.status != PL_OK;
}

/* The list with room for one more than its n items of `size` bytes; NULL in trouble. */
static void *grown(pl_gguf_writer *w, void *items, size_t n, size_t *room, size_t size, const char *what)
{
    if (n < *room)
        return items;
    if (n >= COUNT_MAX) {
        pl_fail(&w->trouble, PL_ERR_ARGUMENT, "a GGUF file takes at most %d %s", COUNT_MAX, what);
        return NULL;
    }
    size_t more = *room ? 2 * *room : 64;
    void *list = realloc(items, more * size);
    if (!list) {
        pl_fail_memory(&w->trouble, more * size, what);
        return NULL;
    }
    *room = more;
    return list;
}

/* A checked copy, NULL in trouble. */
static const char *keep_name(pl_gguf_writer *w, const char *name, const char *what)
{
    size_t n = strlen(name);
    if (n == 0 || n > NAME_MAX_BYTES) {
        pl_fail(&w->trouble, PL_ERR_ARGUMENT, "the name of %s has %zu bytes, possible are 1 to %d: '%.80s'", what, n,
                NAME_MAX_BYTES, name);
        return NULL;
    }
    const char *copy = pl_arena_text(w->arena, name, n);
    if (!copy)
        pl_fail_memory(&w->trouble, n + 1, what);
    return copy;
}

static void add_u32(pl_strbuf *buf, uint32_t v)
{
    pl_strbuf_add(buf, &v, sizeof v);
}

static void add_u64(pl_strbuf *buf, uint64_t v)
{
    pl_strbuf_add(buf, &v, sizeof v);
}

static void add_string(pl_strbuf *buf, const char *text, size_t n)
{
    add_u64(buf, n);
    pl_strbuf_add(buf, text, n);
}

/* Enters the key; false in trouble. */
static bool begin_value(pl_gguf_writer *w, const char *key, pl_gguf_type type)
{
    if (in_trouble(w))
        return false;
    const char *copy = keep_name(w, key, "a key");
    const char **keys = copy ? grown(w, w->keys, w->n_keys, &w->room_keys, sizeof *keys, "keys") : NULL;
    if (!keys)
        return false;
    w->keys = keys;
    if (strcmp(key, "general.alignment") == 0) {
        pl_fail(&w->trouble, PL_ERR_ARGUMENT, "key general.alignment: files are written with %d", ALIGNMENT);
        return false;
    }
    w->keys[w->n_keys++] = copy;
    add_string(&w->values, key, strlen(key));
    add_u32(&w->values, (uint32_t)type);
    return true;
}

static void put_plain(pl_gguf_writer *w, const char *key, pl_gguf_type type, const void *data, size_t bytes)
{
    if (begin_value(w, key, type))
        pl_strbuf_add(&w->values, data, bytes);
}

void pl_gguf_put_u32(pl_gguf_writer *w, const char *key, uint32_t value)
{
    put_plain(w, key, PL_GGUF_U32, &value, sizeof value);
}

void pl_gguf_put_i32(pl_gguf_writer *w, const char *key, int32_t value)
{
    put_plain(w, key, PL_GGUF_I32, &value, sizeof value);
}

void pl_gguf_put_f32(pl_gguf_writer *w, const char *key, float value)
{
    put_plain(w, key, PL_GGUF_F32, &value, sizeof value);
}

void pl_gguf_put_bool(pl_gguf_writer *w, const char *key, bool value)
{
    unsigned char byte = value;
    put_plain(w, key, PL_GGUF_BOOL, &byte, 1);
}

void pl_gguf_put_bytes(pl_gguf_writer *w, const char *key, const char *text, size_t n)
{
    if (begin_value(w, key, PL_GGUF_STRING))
        add_string(&w->values, text, n);
}

void pl_gguf_put_text(pl_gguf_writer *w, const char *key, const char *text)
{
    pl_gguf_put_bytes(w, key, text, strlen(text));
}

/* Enters key and header of an array; false in trouble. */
static bool begin_array(pl_gguf_writer *w, const char *key, pl_gguf_type type, uint64_t n)
{
    if (!begin_value(w, key, PL_GGUF_ARRAY))
        return false;
    add_u32(&w->values, (uint32_t)type);
    add_u64(&w->values, n);
    return true;
}

void pl_gguf_put_array(pl_gguf_writer *w, const char *key, pl_gguf_type type, const void *data, uint64_t n)
{
    assert(pl_gguf_type_bytes(type) > 0);
    if (begin_array(w, key, type, n))
        pl_strbuf_add(&w->values, data, (size_t)n * (size_t)pl_gguf_type_bytes(type));
}

void pl_gguf_put_texts(pl_gguf_writer *w, const char *key, const char *const *texts, const size_t *n_bytes, uint64_t n)
{
    if (!begin_array(w, key, PL_GGUF_STRING, n))
        return;
    for (uint64_t i = 0; i < n; i++)
        add_string(&w->values, texts[i], n_bytes[i]);
}

/* Bytes of an array's strings with their lengths, which the reader has checked. */
static size_t packed_strings(const pl_gguf_value *value)
{
    size_t at = 0;
    for (uint64_t i = 0, n; i < value->n; i++) {
        memcpy(&n, value->data + at, sizeof n);
        at += sizeof n + n;
    }
    return at;
}

void pl_gguf_put_value(pl_gguf_writer *w, const pl_gguf_value *value)
{
    size_t size = (size_t)pl_gguf_type_bytes(value->type);
    if (value->is_array) {
        if (begin_array(w, value->key, value->type, value->n))
            pl_strbuf_add(&w->values, value->data, size ? (size_t)value->n * size : packed_strings(value));
    } else if (value->type == PL_GGUF_STRING) {
        pl_gguf_put_bytes(w, value->key, (const char *)value->data, (size_t)value->n);
    } else {
        put_plain(w, value->key, value->type, value->data, size);
    }
}

static uint64_t padding(uint64_t bytes)
{
    return (ALIGNMENT - bytes % ALIGNMENT) % ALIGNMENT;
}

/* Bytes of the data; false when the shape is not one that a file can have. */
static bool measure(const int64_t *dims, int n_dims, pl_dtype type, uint64_t *bytes)
{
    const pl_dtype_info *info = pl_dtype_describe((int)type);
    int64_t n = 1;
    if (!info || n_dims < 1 || n_dims > 4 || dims[n_dims - 1] % info->block_elems != 0)
        return false;
    for (int i = 0; i < n_dims; i++)
        if (dims[i] < 0 || !pl_mul_i64(n, dims[i], &n))
            return false;
    if (!pl_mul_i64(n / info->block_elems, info->block_bytes, &n) || n > INT64_MAX / 2)
        return false;
    *bytes = (uint64_t)n;
    return true;
}

void pl_gguf_declare(pl_gguf_writer *w, const char *name, pl_dtype type, const int64_t *dims, int n_dims)
{
    declared d = {.n_dims = n_dims, .type = type};
    if (in_trouble(w))
        return;
    d.name = keep_name(w, name, "a tensor");
    declared *list = d.name ? grown(w, w->tensors, w->n_tensors, &w->room_tensors, sizeof d, "tensors") : NULL;
    if (!list)
        return;
    w->tensors = list;
    if (!measure(dims, n_dims, type, &d.bytes) ||
        __builtin_add_overflow(w->data_bytes, d.bytes + padding(d.bytes), &w->data_bytes)) {
        pl_fail(&w->trouble, PL_ERR_ARGUMENT, "tensor %s: its shape cannot be written as type %d", name, (int)type);
        return;
    }
    memcpy(d.dims, dims, (size_t)n_dims * sizeof *dims);
    w->tensors[w->n_tensors++] = d;
    w->name_bytes += 8 + strlen(name) + 4 + 8 * (uint64_t)n_dims + 4 + 8;
}

/* ---- writing ------------------------------------------------------------------------------------- */

static uint64_t header_bytes(const pl_gguf_writer *w)
{
    uint64_t bytes = 4 + 4 + 8 + 8 + w->values.n + w->name_bytes;
    return bytes + padding(bytes);
}

uint64_t pl_gguf_writer_bytes(const pl_gguf_writer *w)
{
    return header_bytes(w) + w->data_bytes;
}

static int compare_texts(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

static pl_status check_distinct(const char **names, size_t n, const char *what, pl_error *err)
{
    if (n > 1)
        qsort(names, n, sizeof *names, compare_texts);
    for (size_t i = 1; i < n; i++)
        if (strcmp(names[i - 1], names[i]) == 0)
            return pl_fail(err, PL_ERR_ARGUMENT, "%s %s is given twice", what, names[i]);
    return PL_OK;
}

static pl_status check_names(const pl_gguf_writer *w, pl_error *err)
{
    const char **names = pl_arena_take(w->arena, w->n_tensors + 1, sizeof *names);
    if (!names)
        return pl_fail_memory(err, (w->n_tensors + 1) * sizeof *names, "the tensors' names");
    for (size_t i = 0; i < w->n_tensors; i++)
        names[i] = w->tensors[i].name;
    PL_TRY(check_distinct(names, w->n_tensors, "tensor", err));
    return check_distinct(w->keys, w->n_keys, "key", err);
}

static void add_tensor(pl_strbuf *out, const declared *d, uint64_t offset)
{
    add_string(out, d->name, strlen(d->name));
    add_u32(out, (uint32_t)d->n_dims);
    for (int i = d->n_dims - 1; i >= 0; i--)
        add_u64(out, (uint64_t)d->dims[i]);
    add_u32(out, (uint32_t)d->type);
    add_u64(out, offset);
}

static void add_tensors(const pl_gguf_writer *w, pl_strbuf *out)
{
    uint64_t offset = 0;
    for (size_t i = 0; i < w->n_tensors; i++) {
        add_tensor(out, &w->tensors[i], offset);
        offset += w->tensors[i].bytes + padding(w->tensors[i].bytes);
    }
}

static pl_status write_padding(pl_gguf_writer *w, pl_error *err)
{
    static const unsigned char zeros[ALIGNMENT];
    return pl_outfile_write(&w->file, zeros, padding(w->file.at), err);
}

/* Goes on to the next tensor that has bytes. */
static void next_tensor(pl_gguf_writer *w)
{
    while (w->left == 0 && w->current < w->n_tensors)
        if (++w->current < w->n_tensors)
            w->left = w->tensors[w->current].bytes;
}

static pl_status write_text(pl_gguf_writer *w, const pl_strbuf *text, pl_error *err)
{
    if (text->failed)
        return pl_fail_memory(err, header_bytes(w), "the header of a GGUF file");
    return pl_outfile_write(&w->file, text->data, text->n, err);
}

static pl_status write_header(pl_gguf_writer *w, pl_error *err)
{
    pl_strbuf start = {0}, tensors = {0};
    pl_status status;
    pl_strbuf_add(&start, "GGUF", 4);
    add_u32(&start, 3);
    add_u64(&start, w->n_tensors);
    add_u64(&start, w->n_keys);
    add_tensors(w, &tensors);
    PL_TRY_GOTO(write_text(w, &start, err));
    PL_TRY_GOTO(write_text(w, &w->values, err));
    PL_TRY_GOTO(write_text(w, &tensors, err));
    PL_TRY_GOTO(write_padding(w, err));
    assert(w->file.at == header_bytes(w));
fail:
    pl_strbuf_free(&start);
    pl_strbuf_free(&tensors);
    return status;
}

pl_status pl_gguf_writer_begin(pl_gguf_writer *w, const char *path, pl_error *err)
{
    pl_status status = w->trouble.status;
    assert(!w->file.file);
    if (status != PL_OK)
        return pl_fail(err, status, "%s: %s", path, w->trouble.message);
    status = check_names(w, err);
    if (status != PL_OK)
        return pl_fail_within(err, status, "%s", path);
    PL_TRY(pl_outfile_open(path, &w->file, err));
    PL_TRY_GOTO(pl_outfile_reserve(&w->file, pl_gguf_writer_bytes(w), err));
    PL_TRY_GOTO(write_header(w, err));
    w->left = w->n_tensors > 0 ? w->tensors[0].bytes : 0;
    next_tensor(w);
    return PL_OK;
fail:
    pl_outfile_abort(&w->file);
    return status;
}

pl_status pl_gguf_writer_append(pl_gguf_writer *w, const void *data, size_t bytes, pl_error *err)
{
    assert(w->file.file && bytes <= w->left);
    PL_TRY(pl_outfile_write(&w->file, data, bytes, err));
    w->left -= bytes;
    if (w->left == 0) {
        PL_TRY(write_padding(w, err));
        next_tensor(w);
    }
    return PL_OK;
}

pl_status pl_gguf_writer_commit(pl_gguf_writer *w, pl_error *err)
{
    assert(w->current == w->n_tensors && w->file.at == pl_gguf_writer_bytes(w));
    return pl_outfile_commit(&w->file, err);
}
