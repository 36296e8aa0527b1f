#include "host/model/gguf.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define NAME_MAX_BYTES 256
#define COUNT_MAX 65536 /* tensors, keys: a text model has under a thousand tensors and 40 keys */

/* A cursor over the file: nothing is read past its end. */
typedef struct cursor {
    const unsigned char *data;
    uint64_t size, at;
    const char *where;
    pl_arena *arena;
    pl_error *err;
} cursor;

typedef struct type_info {
    const char *name;
    int bytes; /* 0: of no fixed size */
} type_info;

static const type_info value_types[] = {
    [PL_GGUF_U8] = {"u8", 1},       [PL_GGUF_I8] = {"i8", 1},     [PL_GGUF_U16] = {"u16", 2},
    [PL_GGUF_I16] = {"i16", 2},     [PL_GGUF_U32] = {"u32", 4},   [PL_GGUF_I32] = {"i32", 4},
    [PL_GGUF_F32] = {"f32", 4},     [PL_GGUF_BOOL] = {"bool", 1}, [PL_GGUF_STRING] = {"string", 0},
    [PL_GGUF_ARRAY] = {"array", 0}, [PL_GGUF_U64] = {"u64", 8},   [PL_GGUF_I64] = {"i64", 8},
    [PL_GGUF_F64] = {"f64", 8},
};

/* Tensor types of ggml that are not in pl_dtype: enough to name them and to check where they end. */
typedef struct foreign_type {
    uint32_t id;
    pl_dtype_info info;
} foreign_type;

static const foreign_type foreign_types[] = {
    {9, {"Q8_1", 32, 36}},    {10, {"Q2_K", 256, 84}},    {11, {"Q3_K", 256, 110}}, {15, {"Q8_K", 256, 292}},
    {20, {"IQ4_NL", 32, 18}}, {23, {"IQ4_XS", 256, 136}}, {24, {"I8", 1, 1}},       {25, {"I16", 1, 2}},
    {26, {"I32", 1, 4}},      {27, {"I64", 1, 8}},        {28, {"F64", 1, 8}},      {39, {"MXFP4", 32, 17}},
};

const char *pl_gguf_type_name(pl_gguf_type type)
{
    return value_types[type].name;
}

int pl_gguf_type_bytes(pl_gguf_type type)
{
    return value_types[type].bytes;
}

static pl_status cut(const cursor *c, const char *what)
{
    return pl_fail(c->err, PL_ERR_FORMAT,
                   "%s: cut short: %s at byte %" PRIu64 " runs past the end of the file (%" PRIu64 " bytes)", c->where,
                   what, c->at, c->size);
}

static pl_status take(cursor *c, uint64_t n, const char *what, const unsigned char **out)
{
    *out = c->data + c->at;
    if (n > c->size - c->at)
        return cut(c, what);
    c->at += n;
    return PL_OK;
}

static pl_status take_u32(cursor *c, const char *what, uint32_t *out)
{
    const unsigned char *p = NULL;
    *out = 0;
    PL_TRY(take(c, sizeof *out, what, &p));
    memcpy(out, p, sizeof *out);
    return PL_OK;
}

static pl_status take_u64(cursor *c, const char *what, uint64_t *out)
{
    const unsigned char *p = NULL;
    *out = 0;
    PL_TRY(take(c, sizeof *out, what, &p));
    memcpy(out, p, sizeof *out);
    return PL_OK;
}

static pl_status take_string(cursor *c, const char *what, const unsigned char **text, uint64_t *n)
{
    *text = NULL;
    PL_TRY(take_u64(c, what, n));
    return take(c, *n, what, text);
}

/* A name as a NUL-terminated copy. */
static pl_status take_name(cursor *c, const char *what, const char **out)
{
    const unsigned char *text = NULL;
    uint64_t n = 0, at = c->at;
    PL_TRY(take_string(c, what, &text, &n));
    if (n == 0 || n > NAME_MAX_BYTES || memchr(text, 0, n))
        return pl_fail(c->err, PL_ERR_FORMAT, "%s: %s at byte %" PRIu64 " is not a name (%" PRIu64 " bytes)", c->where,
                       what, at, n);
    *out = pl_arena_text(c->arena, (const char *)text, n);
    return *out ? PL_OK : pl_fail_memory(c->err, n, what);
}

static pl_status take_strings(cursor *c, const char *key, uint64_t n)
{
    for (uint64_t i = 0; i < n; i++) {
        const unsigned char *text;
        uint64_t bytes;
        PL_TRY(take_string(c, key, &text, &bytes));
    }
    return PL_OK;
}

static pl_status take_type(cursor *c, const char *key, pl_gguf_type *out)
{
    uint32_t type;
    PL_TRY(take_u32(c, key, &type));
    if (type >= sizeof value_types / sizeof value_types[0])
        return pl_fail(c->err, PL_ERR_FORMAT, "%s: key %s has the unknown value type %" PRIu32, c->where, key, type);
    *out = (pl_gguf_type)type;
    return PL_OK;
}

static pl_status take_array(cursor *c, pl_gguf_value *value)
{
    value->is_array = true;
    PL_TRY(take_type(c, value->key, &value->type));
    PL_TRY(take_u64(c, value->key, &value->n));
    value->data = c->data + c->at;
    if (value->type == PL_GGUF_ARRAY)
        return pl_fail(c->err, PL_ERR_UNSUPPORTED, "%s: key %s is an array of arrays", c->where, value->key);
    if (value->type == PL_GGUF_STRING)
        return take_strings(c, value->key, value->n);
    uint64_t bytes;
    if (__builtin_mul_overflow(value->n, (uint64_t)value_types[value->type].bytes, &bytes))
        return cut(c, value->key);
    return take(c, bytes, value->key, &value->data);
}

static pl_status take_value(cursor *c, pl_gguf_value *value)
{
    PL_TRY(take_name(c, "a key", &value->key));
    PL_TRY(take_type(c, value->key, &value->type));
    if (value->type == PL_GGUF_ARRAY)
        return take_array(c, value);
    if (value->type == PL_GGUF_STRING)
        return take_string(c, value->key, &value->data, &value->n);
    value->n = 1;
    return take(c, (uint64_t)value_types[value->type].bytes, value->key, &value->data);
}

static int compare_keys(const void *a, const void *b)
{
    const pl_gguf_value *x = a, *y = b;
    return strcmp(x->key, y->key);
}

static pl_status take_values(cursor *c, uint64_t n, pl_gguf *out)
{
    pl_gguf_value *values = pl_arena_take(c->arena, n + 1, sizeof *values);
    if (!values)
        return pl_fail_memory(c->err, (n + 1) * sizeof *values, "the list of keys");
    for (uint64_t i = 0; i < n; i++)
        PL_TRY(take_value(c, &values[i]));
    qsort(values, n, sizeof *values, compare_keys);
    for (uint64_t i = 1; i < n; i++)
        if (strcmp(values[i - 1].key, values[i].key) == 0)
            return pl_fail(c->err, PL_ERR_FORMAT, "%s: key %s appears twice", c->where, values[i].key);
    out->values = values;
    out->n_values = n;
    return PL_OK;
}

static const pl_dtype_info *describe(uint32_t type)
{
    const pl_dtype_info *info = type < 1024 ? pl_dtype_describe((int)type) : NULL;
    for (size_t i = 0; !info && i < sizeof foreign_types / sizeof foreign_types[0]; i++)
        if (foreign_types[i].id == type)
            info = &foreign_types[i].info;
    return info;
}

static pl_status set_type(const cursor *c, uint32_t type, int64_t elements, pl_entry *entry)
{
    const pl_dtype_info *info = describe(type);
    entry->type = type < 1024 ? (int)type : -1;
    if (!info) {
        char text[32];
        int n = snprintf(text, sizeof text, "type %" PRIu32, type);
        entry->type_name = pl_arena_text(c->arena, text, (size_t)n);
        return entry->type_name ? PL_OK : pl_fail_memory(c->err, (size_t)n, "a type's name");
    }
    entry->type_name = info->name;
    int64_t row = entry->n_dims > 0 ? entry->dims[entry->n_dims - 1] : 1, bytes;
    if (row % info->block_elems != 0)
        return pl_fail(c->err, PL_ERR_FORMAT, "%s: tensor %s has rows of %" PRId64 " values, %s needs multiples of %d",
                       c->where, entry->name, row, info->name, info->block_elems);
    if (!pl_mul_i64(elements / info->block_elems, info->block_bytes, &bytes))
        return pl_fail(c->err, PL_ERR_FORMAT, "%s: tensor %s: shape overflows", c->where, entry->name);
    entry->bytes = (uint64_t)bytes;
    return PL_OK;
}

static pl_status take_dims(cursor *c, pl_entry *entry, int64_t *elements)
{
    uint32_t n_dims;
    PL_TRY(take_u32(c, entry->name, &n_dims));
    if (n_dims > 4)
        return pl_fail(c->err, PL_ERR_FORMAT, "%s: tensor %s has %" PRIu32 " dimensions, at most 4 are possible",
                       c->where, entry->name, n_dims);
    entry->n_dims = (int)n_dims;
    for (int i = entry->n_dims - 1; i >= 0; i--) {
        uint64_t dim;
        PL_TRY(take_u64(c, entry->name, &dim));
        if (dim > INT64_MAX)
            return pl_fail(c->err, PL_ERR_FORMAT, "%s: tensor %s has a negative size", c->where, entry->name);
        entry->dims[i] = (int64_t)dim;
        if (!pl_mul_i64(*elements, entry->dims[i], elements))
            return pl_fail(c->err, PL_ERR_FORMAT, "%s: tensor %s: shape overflows", c->where, entry->name);
    }
    return PL_OK;
}

/* The place waits for the start of the data, which is known after the last tensor. */
static pl_status take_tensor(cursor *c, pl_entry *entry, uint64_t *offset)
{
    uint32_t type;
    int64_t elements = 1;
    entry->where = c->where;
    PL_TRY(take_name(c, "a tensor's name", &entry->name));
    PL_TRY(take_dims(c, entry, &elements));
    PL_TRY(take_u32(c, entry->name, &type));
    PL_TRY(take_u64(c, entry->name, offset));
    return set_type(c, type, elements, entry);
}

static pl_status place_tensor(const cursor *c, uint64_t start, uint64_t offset, uint64_t alignment, pl_entry *entry)
{
    if (offset % alignment != 0)
        return pl_fail(c->err, PL_ERR_FORMAT,
                       "%s: tensor %s is at offset %" PRIu64 ", which is not a multiple of %" PRIu64, c->where,
                       entry->name, offset, alignment);
    if (start > c->size || offset > c->size - start || entry->bytes > c->size - start - offset)
        return pl_fail(c->err, PL_ERR_FORMAT,
                       "%s: cut short: tensor %s takes %" PRIu64 " bytes at offset %" PRIu64
                       " of the data, which runs past the end of the file",
                       c->where, entry->name, entry->bytes, offset);
    entry->data = entry->bytes > 0 ? c->data + start + offset : NULL;
    return PL_OK;
}

static pl_status take_tensors(cursor *c, uint64_t n, uint64_t alignment, pl_tensor_list *out)
{
    pl_entry *items = pl_arena_take(c->arena, n + 1, sizeof *items);
    uint64_t *offsets = pl_arena_take(c->arena, n + 1, sizeof *offsets);
    if (!items || !offsets)
        return pl_fail_memory(c->err, (n + 1) * sizeof *items, "the list of tensors");
    for (uint64_t i = 0; i < n; i++)
        PL_TRY(take_tensor(c, &items[i], &offsets[i]));
    uint64_t start = (c->at + alignment - 1) / alignment * alignment;
    for (uint64_t i = 0; i < n; i++)
        PL_TRY(place_tensor(c, start, offsets[i], alignment, &items[i]));
    *out = (pl_tensor_list){.items = items, .n = n};
    if (start > c->size)
        return PL_OK;
    return pl_tensor_list_check_layout(out, c->data + start, c->size - start, false, c->arena, c->err);
}

static pl_status take_header(cursor *c, uint64_t *n_tensors, uint64_t *n_values)
{
    const unsigned char *magic = NULL;
    uint32_t version;
    PL_TRY(take(c, 4, "the header", &magic));
    if (memcmp(magic, "GGUF", 4) != 0)
        return pl_fail(c->err, PL_ERR_FORMAT, "%s: not a GGUF file", c->where);
    PL_TRY(take_u32(c, "the header", &version));
    if (version == 0x03000000)
        return pl_fail(c->err, PL_ERR_UNSUPPORTED, "%s: a big-endian GGUF file", c->where);
    if (version != 3)
        return pl_fail(c->err, PL_ERR_UNSUPPORTED, "%s: GGUF version %" PRIu32 ", only 3 is supported", c->where,
                       version);
    PL_TRY(take_u64(c, "the header", n_tensors));
    PL_TRY(take_u64(c, "the header", n_values));
    uint64_t left = c->size - c->at, tensor_min = 8 + 4 + 4 + 8, value_min = 8 + 4 + 1;
    if (*n_tensors > COUNT_MAX || *n_tensors > left / tensor_min)
        return pl_fail(c->err, PL_ERR_FORMAT, "%s: a count of %" PRIu64 " tensors cannot be right", c->where,
                       *n_tensors);
    if (*n_values > COUNT_MAX || *n_values > left / value_min)
        return pl_fail(c->err, PL_ERR_FORMAT, "%s: a count of %" PRIu64 " keys cannot be right", c->where, *n_values);
    return PL_OK;
}

pl_status pl_gguf_parse(const unsigned char *data, size_t size, const char *where, pl_arena *arena, pl_gguf *out,
                        pl_error *err)
{
    cursor c = {data, size, 0, where, arena, err};
    pl_gguf file = {.where = where};
    uint64_t n_tensors, n_values;
    int alignment = 32;
    PL_TRY(take_header(&c, &n_tensors, &n_values));
    PL_TRY(take_values(&c, n_values, &file));
    PL_TRY(pl_gguf_int(&file, "general.alignment", 1, 1 << 30, &alignment, err));
    if ((alignment & (alignment - 1)) != 0)
        return pl_fail(err, PL_ERR_FORMAT, "%s: general.alignment is %d, expected a power of two", where, alignment);
    PL_TRY(take_tensors(&c, n_tensors, (uint64_t)alignment, &file.tensors));
    *out = file;
    return PL_OK;
}
