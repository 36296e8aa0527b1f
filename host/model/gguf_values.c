/* Typed access to the metadata of a parsed GGUF file. */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "host/model/gguf.h"

const pl_gguf_value *pl_gguf_find(const pl_gguf *file, const char *key)
{
    size_t low = 0, high = file->n_values;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        int order = strcmp(file->values[middle].key, key);
        if (order == 0)
            return &file->values[middle];
        if (order < 0)
            low = middle + 1;
        else
            high = middle;
    }
    return NULL;
}

pl_status pl_gguf_missing(const pl_gguf *file, const char *key, pl_error *err)
{
    return pl_fail(err, PL_ERR_FORMAT, "%s: key %s is missing", file->where, key);
}

static pl_status wrong_type(const pl_gguf *file, const pl_gguf_value *value, const char *expected, pl_error *err)
{
    return pl_fail(err, PL_ERR_FORMAT, "%s: key %s is %s%s, expected %s", file->where, value->key,
                   value->is_array ? "an array of " : "", pl_gguf_type_name(value->type), expected);
}

bool pl_gguf_is_integer(pl_gguf_type type)
{
    switch (type) {
    case PL_GGUF_U8:
    case PL_GGUF_I8:
    case PL_GGUF_U16:
    case PL_GGUF_I16:
    case PL_GGUF_U32:
    case PL_GGUF_I32:
    case PL_GGUF_U64:
    case PL_GGUF_I64: return true;
    default: return false;
    }
}

int64_t pl_gguf_integer_at(const pl_gguf_value *value, uint64_t i)
{
    union {
        uint8_t u8;
        int8_t i8;
        uint16_t u16;
        int16_t i16;
        uint32_t u32;
        int32_t i32;
        uint64_t u64;
        int64_t i64;
    } v = {0};
    switch (value->type) {
    case PL_GGUF_U8: memcpy(&v, value->data + i, 1); return v.u8;
    case PL_GGUF_I8: memcpy(&v, value->data + i, 1); return v.i8;
    case PL_GGUF_U16: memcpy(&v, value->data + 2 * i, 2); return v.u16;
    case PL_GGUF_I16: memcpy(&v, value->data + 2 * i, 2); return v.i16;
    case PL_GGUF_U32: memcpy(&v, value->data + 4 * i, 4); return v.u32;
    case PL_GGUF_I32: memcpy(&v, value->data + 4 * i, 4); return v.i32;
    case PL_GGUF_U64: memcpy(&v, value->data + 8 * i, 8); return v.u64 > INT64_MAX ? INT64_MAX : v.i64;
    case PL_GGUF_I64: memcpy(&v, value->data + 8 * i, 8); return v.i64;
    default: return 0;
    }
}

pl_status pl_gguf_int(const pl_gguf *file, const char *key, int64_t low, int64_t high, int *out, pl_error *err)
{
    const pl_gguf_value *value = pl_gguf_find(file, key);
    if (!value)
        return PL_OK;
    if (value->is_array || !pl_gguf_is_integer(value->type))
        return wrong_type(file, value, "an integer", err);
    int64_t number = pl_gguf_integer_at(value, 0);
    if (number < low || number > high)
        return pl_fail(err, PL_ERR_FORMAT, "%s: key %s is %" PRId64 ", expected %" PRId64 " to %" PRId64, file->where,
                       key, number, low, high);
    *out = (int)number;
    return PL_OK;
}

pl_status pl_gguf_float(const pl_gguf *file, const char *key, float *out, pl_error *err)
{
    const pl_gguf_value *value = pl_gguf_find(file, key);
    if (!value)
        return PL_OK;
    if (value->is_array || value->type != PL_GGUF_F32)
        return wrong_type(file, value, "f32", err);
    memcpy(out, value->data, sizeof *out);
    if (!isfinite(*out))
        return pl_fail(err, PL_ERR_FORMAT, "%s: key %s is not a finite number", file->where, key);
    return PL_OK;
}

pl_status pl_gguf_bool(const pl_gguf *file, const char *key, bool *out, pl_error *err)
{
    const pl_gguf_value *value = pl_gguf_find(file, key);
    if (!value)
        return PL_OK;
    if (value->is_array || value->type != PL_GGUF_BOOL)
        return wrong_type(file, value, "bool", err);
    *out = value->data[0] != 0;
    return PL_OK;
}

pl_status pl_gguf_text(const pl_gguf *file, const char *key, const char **out, size_t *n, pl_error *err)
{
    const pl_gguf_value *value = pl_gguf_find(file, key);
    *out = NULL;
    *n = 0;
    if (!value)
        return PL_OK;
    if (value->is_array || value->type != PL_GGUF_STRING)
        return wrong_type(file, value, "a string", err);
    *out = (const char *)value->data;
    *n = value->n;
    return PL_OK;
}

pl_status pl_gguf_array(const pl_gguf *file, const char *key, pl_gguf_type type, const pl_gguf_value **out,
                        pl_error *err)
{
    const pl_gguf_value *value = pl_gguf_find(file, key);
    *out = value;
    if (value && (!value->is_array || value->type != type)) {
        char expected[32];
        snprintf(expected, sizeof expected, "an array of %s", pl_gguf_type_name(type));
        return wrong_type(file, value, expected, err);
    }
    return PL_OK;
}
