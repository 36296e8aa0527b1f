#include "host/model/safetensors.h"

#include <inttypes.h>
#include <string.h>

#include "host/model/model_json.h"

#define HEADER_MAX (100u << 20)
#define TENSORS_MAX 65536

typedef struct dtype_name {
    const char *name;
    int type, bytes;
} dtype_name;

static const dtype_name dtypes[] = {
    {"BF16", PL_BF16, 2}, {"BOOL", -1, 1},    {"F16", PL_F16, 2}, {"F32", PL_F32, 4}, {"F64", -1, 8},
    {"F8_E4M3", -1, 1},   {"F8_E5M2", -1, 1}, {"I16", -1, 2},     {"I32", -1, 4},     {"I64", -1, 8},
    {"I8", -1, 1},        {"U16", -1, 2},     {"U32", -1, 4},     {"U64", -1, 8},     {"U8", -1, 1},
};

typedef struct parser {
    const unsigned char *data; /* of the data section */
    uint64_t size;
    const char *where;
    pl_arena *arena;
    pl_error *err;
} parser;

static const dtype_name *find_dtype(const char *name)
{
    for (size_t i = 0; i < sizeof dtypes / sizeof dtypes[0]; i++)
        if (strcmp(dtypes[i].name, name) == 0)
            return &dtypes[i];
    return NULL;
}

static pl_status bad(const parser *p, const char *name, const char *what)
{
    return pl_fail(p->err, PL_ERR_FORMAT, "%s: tensor %s: %s", p->where, name, what);
}

static pl_status read_shape(const parser *p, const char *name, const json_t *shape, pl_entry *entry, int64_t *elements)
{
    if (!json_is_array(shape))
        return bad(p, name, "shape is not a list");
    if (json_array_size(shape) > PL_MAX_DIMS)
        return bad(p, name, "shape has more than 8 dimensions");
    entry->n_dims = (int)json_array_size(shape);
    for (int i = 0; i < entry->n_dims; i++) {
        const json_t *dim = json_array_get(shape, (size_t)i);
        if (!json_is_integer(dim) || json_integer_value(dim) < 0)
            return bad(p, name, "shape holds something that is not a size");
        entry->dims[i] = json_integer_value(dim);
        if (!pl_mul_i64(*elements, entry->dims[i], elements))
            return bad(p, name, "shape overflows");
    }
    return PL_OK;
}

static pl_status read_place(const parser *p, const char *name, const json_t *place, uint64_t bytes, pl_entry *entry)
{
    const json_t *begin = json_array_get(place, 0), *end = json_array_get(place, 1);
    if (json_array_size(place) != 2 || !json_is_integer(begin) || !json_is_integer(end))
        return bad(p, name, "data_offsets is not a pair of integers");
    json_int_t from = json_integer_value(begin), to = json_integer_value(end);
    if (from < 0 || to < from)
        return bad(p, name, "data_offsets run backwards");
    if ((uint64_t)to > p->size)
        return pl_fail(p->err, PL_ERR_FORMAT,
                       "%s: tensor %s ends at byte %" JSON_INTEGER_FORMAT
                       " of the data, but the file has only %" PRIu64,
                       p->where, name, to, p->size);
    if ((uint64_t)(to - from) != bytes)
        return pl_fail(p->err, PL_ERR_FORMAT,
                       "%s: tensor %s has %" JSON_INTEGER_FORMAT " bytes, its shape and dtype need %" PRIu64, p->where,
                       name, to - from, bytes);
    entry->bytes = bytes;
    entry->data = bytes > 0 ? p->data + from : NULL;
    return PL_OK;
}

static pl_status read_tensor(const parser *p, const char *name, const json_t *value, pl_entry *entry)
{
    if (!json_is_object(value))
        return bad(p, name, "is not an object");
    const char *dtype_text = json_string_value(json_object_get(value, "dtype"));
    if (!dtype_text)
        return bad(p, name, "dtype is missing or not a string");
    const dtype_name *dtype = find_dtype(dtype_text);
    if (!dtype)
        return pl_fail(p->err, PL_ERR_UNSUPPORTED, "%s: tensor %s has the unknown dtype %s", p->where, name,
                       dtype_text);
    int64_t elements = 1, bytes;
    PL_TRY(read_shape(p, name, json_object_get(value, "shape"), entry, &elements));
    if (!pl_mul_i64(elements, dtype->bytes, &bytes))
        return bad(p, name, "shape overflows");
    PL_TRY(read_place(p, name, json_object_get(value, "data_offsets"), (uint64_t)bytes, entry));
    entry->name = pl_arena_text(p->arena, name, strlen(name));
    if (!entry->name)
        return pl_fail_memory(p->err, strlen(name) + 1, "a tensor's name");
    entry->where = p->where;
    entry->type = dtype->type;
    entry->type_name = dtype->name;
    return PL_OK;
}

static pl_status read_tensors(const parser *p, json_t *root, pl_tensor_list *out)
{
    size_t n = json_object_size(root);
    if (n > TENSORS_MAX)
        return pl_fail(p->err, PL_ERR_FORMAT, "%s: the header lists %zu tensors, at most %d are read", p->where, n,
                       TENSORS_MAX);
    pl_entry *items = pl_arena_take(p->arena, n + 1, sizeof *items);
    if (!items)
        return pl_fail_memory(p->err, (n + 1) * sizeof *items, "the list of tensors");
    *out = (pl_tensor_list){.items = items};
    const char *name;
    json_t *value;
    json_object_foreach(root, name, value)
    {
        if (strcmp(name, "__metadata__") == 0)
            continue;
        PL_TRY(read_tensor(p, name, value, &items[out->n]));
        out->n++;
    }
    PL_TRY(pl_tensor_list_check_layout(out, p->data, p->size, true, p->arena, p->err));
    return pl_tensor_list_index(out, p->arena, p->err);
}

pl_status pl_safetensors_parse(const unsigned char *data, size_t size, const char *where, pl_arena *arena,
                               pl_tensor_list *out, pl_error *err)
{
    uint64_t header;
    if (size < sizeof header)
        return pl_fail(err, PL_ERR_FORMAT, "%s: %zu bytes are too few for a safetensors file", where, size);
    memcpy(&header, data, sizeof header);
    if (header > HEADER_MAX)
        return pl_fail(err, PL_ERR_FORMAT, "%s: not a safetensors file (a header of %" PRIu64 " bytes)", where, header);
    if (header > size - sizeof header)
        return pl_fail(err, PL_ERR_FORMAT, "%s: cut short: the header needs %" PRIu64 " bytes, the file has %zu", where,
                       header + sizeof header, size);
    char section[4096];
    snprintf(section, sizeof section, "%s: header", where);
    json_t *root;
    PL_TRY(pl_member_parse((const char *)data + sizeof header, (size_t)header, section, &root, err));
    parser p = {data + sizeof header + header, size - sizeof header - header, where, arena, err};
    pl_status status = read_tensors(&p, root, out);
    json_decref(root);
    return status;
}

pl_status pl_safetensors_open(const char *path, pl_safetensors *out, pl_error *err)
{
    pl_safetensors file = {0};
    pl_status status;
    const char *where;
    PL_TRY_GOTO(pl_mapfile_open(path, &file.file, err));
    PL_TRY_GOTO(pl_arena_create(64 << 10, &file.arena, err));
    where = pl_arena_text(file.arena, path, strlen(path));
    if (!where) {
        status = pl_fail_memory(err, strlen(path) + 1, "a file's name");
        goto fail;
    }
    PL_TRY_GOTO(pl_safetensors_parse(file.file.data, file.file.size, where, file.arena, &file.tensors, err));
    *out = file;
    return PL_OK;
fail:
    pl_safetensors_close(&file);
    return status;
}

void pl_safetensors_close(pl_safetensors *file)
{
    if (!file)
        return;
    pl_arena_free(file->arena);
    pl_mapfile_close(&file->file);
    *file = (pl_safetensors){0};
}
