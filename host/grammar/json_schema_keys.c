/* The keys of JSON Schema, what the simple ones say, and where a message points. */
#include <inttypes.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "host/base/json_out.h"
#include "host/grammar/json_schema_parts.h"

#define POINTER_BYTES 200 /* of a pointer in a message */

static const struct key {
    const char *name;
    pl_key_kind kind;
    unsigned types; /* that it speaks of */
} keys[] = {
    {"type", PL_KEY_SAYS, 0},
    {"enum", PL_KEY_SAYS, 0},
    {"const", PL_KEY_SAYS, 0},
    {"nullable", PL_KEY_SAYS, 0},
    {"properties", PL_KEY_SAYS, PL_TYPE_OBJECT},
    {"required", PL_KEY_SAYS, PL_TYPE_OBJECT},
    {"additionalProperties", PL_KEY_SAYS, PL_TYPE_OBJECT},
    {"patternProperties", PL_KEY_SAYS, PL_TYPE_OBJECT},
    {"minProperties", PL_KEY_SAYS, PL_TYPE_OBJECT},
    {"maxProperties", PL_KEY_SAYS, PL_TYPE_OBJECT},
    {"items", PL_KEY_SAYS, PL_TYPE_ARRAY},
    {"prefixItems", PL_KEY_SAYS, PL_TYPE_ARRAY},
    {"additionalItems", PL_KEY_SAYS, PL_TYPE_ARRAY},
    {"minItems", PL_KEY_SAYS, PL_TYPE_ARRAY},
    {"maxItems", PL_KEY_SAYS, PL_TYPE_ARRAY},
    {"uniqueItems", PL_KEY_SAYS, PL_TYPE_ARRAY},
    {"minLength", PL_KEY_SAYS, PL_TYPE_STRING},
    {"maxLength", PL_KEY_SAYS, PL_TYPE_STRING},
    {"pattern", PL_KEY_SAYS, PL_TYPE_STRING},
    {"format", PL_KEY_SAYS, 0},
    {"minimum", PL_KEY_SAYS, PL_TYPE_NUMBER},
    {"maximum", PL_KEY_SAYS, PL_TYPE_NUMBER},
    {"exclusiveMinimum", PL_KEY_SAYS, PL_TYPE_NUMBER},
    {"exclusiveMaximum", PL_KEY_SAYS, PL_TYPE_NUMBER},
    {"multipleOf", PL_KEY_SAYS, PL_TYPE_NUMBER},
    {"anyOf", PL_KEY_CHOICE, 0},
    {"oneOf", PL_KEY_CHOICE, 0},
    {"allOf", PL_KEY_LINK, 0},
    {"$ref", PL_KEY_LINK, 0},
    {"$defs", PL_KEY_NOTE, 0},
    {"definitions", PL_KEY_NOTE, 0},
    {"title", PL_KEY_NOTE, 0},
    {"description", PL_KEY_NOTE, 0},
    {"default", PL_KEY_NOTE, 0},
    {"example", PL_KEY_NOTE, 0},
    {"examples", PL_KEY_NOTE, 0},
    {"discriminator", PL_KEY_NOTE, 0},
    {"deprecated", PL_KEY_NOTE, 0},
    {"readOnly", PL_KEY_NOTE, 0},
    {"writeOnly", PL_KEY_NOTE, 0},
    {"$schema", PL_KEY_NOTE, 0},
    {"$id", PL_KEY_NOTE, 0},
    {"id", PL_KEY_NOTE, 0},
    {"$comment", PL_KEY_NOTE, 0},
};

pl_key_kind pl_schema_key(const char *key, unsigned *types)
{
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++)
        if (strcmp(keys[i].name, key) == 0) {
            *types = keys[i].types;
            return keys[i].kind;
        }
    return PL_KEY_UNKNOWN;
}

/* ---- messages ----------------------------------------------------------------------------------- */

static void add_step(pl_strbuf *path, const char *key)
{
    pl_strbuf_add(path, "/", 1);
    for (; *key; key++)
        if (*key == '~' || *key == '/')
            pl_strbuf_add_text(path, *key == '~' ? "~0" : "~1");
        else
            pl_strbuf_add(path, key, 1);
}

/* Whether the schema is within value; then its path stands in `path`. */
static bool find(const json_t *value, const json_t *schema, pl_strbuf *path)
{
    size_t before = path->n;
    const char *key;
    json_t *child;
    size_t i;
    if (value == schema)
        return true;
    json_object_foreach((json_t *)(uintptr_t)value, key, child)
    {
        add_step(path, key);
        if (find(child, schema, path))
            return true;
        path->n = before;
    }
    json_array_foreach(value, i, child)
    {
        pl_strbuf_printf(path, "/%zu", i);
        if (find(child, schema, path))
            return true;
        path->n = before;
    }
    return false;
}

/* The pointer of a key of a schema; of a long one the end. */
static void write_pointer(const pl_schema *s, const json_t *schema, const char *key, char out[POINTER_BYTES])
{
    pl_strbuf path = {0};
    pl_strbuf_add_text(&path, s->where);
    if (schema)
        find(s->root, schema, &path);
    if (key)
        add_step(&path, key);
    size_t cut = path.n < POINTER_BYTES - 4 ? 0 : path.n - (POINTER_BYTES - 4);
    while (cut && ((unsigned char)path.data[cut] & 0xc0) == 0x80)
        cut++;
    snprintf(out, POINTER_BYTES, "%s%.*s", cut ? "..." : "", (int)(path.n - cut), path.n ? path.data + cut : "");
    pl_strbuf_free(&path);
}

pl_status(pl_schema_fail)(const pl_schema *s, const json_t *schema, const char *key, pl_status status, const char *fmt,
                          ...)
{
    char what[256], pointer[POINTER_BYTES];
    va_list args;
    va_start(args, fmt);
    vsnprintf(what, sizeof what, fmt, args);
    va_end(args);
    write_pointer(s, schema, key, pointer);
    return pl_fail(s->err, status, "JSON schema, \"%s\": %s", pointer, what);
}

pl_status pl_schema_fail_within(const pl_schema *s, const json_t *schema, const char *key, pl_status status)
{
    char pointer[POINTER_BYTES];
    write_pointer(s, schema, key, pointer);
    return pl_fail_within(s->err, status, "JSON schema, \"%s\"", pointer);
}

pl_status pl_schema_no_memory(const pl_schema *s)
{
    return pl_fail_memory(s->err, s->n_parts * sizeof *s->part, "a JSON schema");
}

pl_status pl_schema_too_large(const pl_schema *s)
{
    return pl_fail(s->err, PL_ERR_UNSUPPORTED,
                   "JSON schema, \"%s\": too large once references and alternatives are followed", s->where);
}

/* ---- what the keys say -------------------------------------------------------------------------- */

void pl_schema_number_text(const json_t *number, char out[32])
{
    if (json_is_integer(number)) {
        snprintf(out, 32, "%" JSON_INTEGER_FORMAT, json_integer_value(number));
        return;
    }
    for (int digits = 15; digits <= 17; digits++) {
        snprintf(out, 32, "%.*g", digits, json_real_value(number));
        if (strtod(out, NULL) == json_real_value(number))
            return;
    }
}

static pl_status one_type(const pl_schema *s, const json_t *schema, const json_t *name, unsigned *types)
{
    static const struct {
        const char *name;
        unsigned types;
    } known[] = {{"null", PL_TYPE_NULL},     {"boolean", PL_TYPE_BOOLEAN}, {"integer", PL_TYPE_INTEGER},
                 {"number", PL_TYPE_NUMBER}, {"string", PL_TYPE_STRING},   {"array", PL_TYPE_ARRAY},
                 {"object", PL_TYPE_OBJECT}};
    const char *text = json_string_value(name);
    for (size_t i = 0; text && i < sizeof known / sizeof *known; i++)
        if (strcmp(known[i].name, text) == 0) {
            *types |= known[i].types;
            return PL_OK;
        }
    return pl_schema_fail(s, schema, "type", PL_ERR_ARGUMENT,
                          "expected null, boolean, integer, number, string, array, object or a list of these");
}

static pl_status read_type(const pl_schema *s, const json_t *schema, pl_schema_shape *shape)
{
    const json_t *type = json_object_get(schema, "type");
    unsigned types = json_is_true(json_object_get(schema, "nullable")) ? PL_TYPE_NULL : 0;
    if (!type)
        return PL_OK;
    if (!json_is_array(type))
        PL_TRY(one_type(s, schema, type, &types));
    for (size_t i = 0; i < json_array_size(type); i++)
        PL_TRY(one_type(s, schema, json_array_get(type, i), &types));
    shape->types &= types;
    shape->typed = true;
    return PL_OK;
}

/* A bound of a size, which is kept if it is narrower than *bound. */
static pl_status read_count(const pl_schema *s, const json_t *schema, const char *key, bool least, int64_t *bound)
{
    const json_t *value = json_object_get(schema, key);
    double number = json_number_value(value);
    if (!value)
        return PL_OK;
    if (!json_is_number(value) || number < 0 || floor(number) != number)
        return pl_schema_fail(s, schema, key, PL_ERR_ARGUMENT, "expected a whole number, 0 or more");
    int64_t count = number < 1e15 ? (int64_t)number : (int64_t)1e15;
    if (least ? count > *bound : *bound < 0 || count < *bound)
        *bound = count;
    if (least && count > PL_RULES_MOST)
        return pl_schema_fail(s, schema, key, PL_ERR_UNSUPPORTED, "more than %d is not supported", PL_RULES_MOST);
    return PL_OK;
}

/* minimum and maximum; `exclusive` is the key that is a bound itself, or true beside `key` as in draft 4. */
static pl_status read_bound(const pl_schema *s, const json_t *schema, const char *key, const char *exclusive,
                            bool least, pl_number_range *range)
{
    const json_t *value = json_object_get(schema, key), *other = json_object_get(schema, exclusive);
    void (*narrow)(pl_number_range *, const pl_decimal *, bool) = least ? pl_number_range_min : pl_number_range_max;
    char text[32];
    if (value && !json_is_number(value))
        return pl_schema_fail(s, schema, key, PL_ERR_ARGUMENT, "expected a number");
    if (other && !json_is_number(other) && !json_is_boolean(other))
        return pl_schema_fail(s, schema, exclusive, PL_ERR_ARGUMENT, "expected a number");
    if (value) {
        pl_schema_number_text(value, text);
        pl_decimal bound = pl_decimal_read(text);
        narrow(range, &bound, json_is_true(other));
    }
    if (json_is_number(other)) {
        pl_schema_number_text(other, text);
        pl_decimal bound = pl_decimal_read(text);
        narrow(range, &bound, true);
    }
    return PL_OK;
}

/* Formats of numbers, which OpenAPI has; those of strings are left for later. */
static pl_status read_format(const pl_schema *s, const json_t *schema, pl_schema_shape *shape)
{
    const json_t *format = json_object_get(schema, "format");
    const char *name = json_string_value(format);
    if (!format)
        return PL_OK;
    if (!name)
        return pl_schema_fail(s, schema, "format", PL_ERR_ARGUMENT, "expected a string");
    if (strcmp(name, "float") == 0 || strcmp(name, "double") == 0 || strcmp(name, "int64") == 0)
        return PL_OK;
    if (strcmp(name, "int32") == 0) {
        pl_decimal min = pl_decimal_read("-2147483648"), max = pl_decimal_read("2147483647");
        pl_number_range_min(&shape->range, &min, false);
        pl_number_range_max(&shape->range, &max, false);
        return PL_OK;
    }
    shape->hinted |= PL_TYPE_STRING;
    if (shape->format_of && shape->format_of != schema)
        return pl_schema_fail(s, schema, "format", PL_ERR_UNSUPPORTED, "two formats of one string are not supported");
    shape->format_of = schema;
    return PL_OK;
}

static pl_status read_values(const pl_schema *s, const json_t *schema, pl_schema_shape *shape)
{
    const json_t *list = json_object_get(schema, "enum"), *constant = json_object_get(schema, "const");
    if (list && !json_is_array(list))
        return pl_schema_fail(s, schema, "enum", PL_ERR_ARGUMENT, "expected an array");
    if ((list || constant) && !shape->values) {
        shape->values = constant ? constant : list;
        shape->values_of = schema;
        shape->is_const = constant;
    }
    return PL_OK;
}

static pl_status read_rest(const pl_schema *s, const json_t *schema, pl_schema_shape *shape)
{
    const json_t *unique = json_object_get(schema, "uniqueItems"), *pattern = json_object_get(schema, "pattern");
    if (unique && !json_is_boolean(unique))
        return pl_schema_fail(s, schema, "uniqueItems", PL_ERR_ARGUMENT, "expected a boolean");
    if (json_is_true(unique))
        shape->unique_of = schema;
    if (json_object_get(schema, "multipleOf"))
        shape->multiple_of = schema;
    if (!pattern)
        return PL_OK;
    if (!json_is_string(pattern))
        return pl_schema_fail(s, schema, "pattern", PL_ERR_ARGUMENT, "expected a string");
    if (shape->pattern_of)
        return pl_schema_fail(s, schema, "pattern", PL_ERR_UNSUPPORTED, "two patterns of one string are not supported");
    shape->pattern_of = schema;
    return PL_OK;
}

static pl_status read_schema(const pl_schema *s, const json_t *schema, pl_schema_shape *shape)
{
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)(uintptr_t)schema, key, value)
    {
        unsigned types = 0;
        pl_schema_key(key, &types);
        shape->hinted |= types;
    }
    PL_TRY(read_type(s, schema, shape));
    PL_TRY(read_values(s, schema, shape));
    PL_TRY(read_format(s, schema, shape));
    PL_TRY(read_rest(s, schema, shape));
    PL_TRY(read_bound(s, schema, "minimum", "exclusiveMinimum", true, &shape->range));
    PL_TRY(read_bound(s, schema, "maximum", "exclusiveMaximum", false, &shape->range));
    PL_TRY(read_count(s, schema, "minLength", true, &shape->min_length));
    PL_TRY(read_count(s, schema, "maxLength", false, &shape->max_length));
    PL_TRY(read_count(s, schema, "minItems", true, &shape->min_items));
    PL_TRY(read_count(s, schema, "maxItems", false, &shape->max_items));
    PL_TRY(read_count(s, schema, "minProperties", true, &shape->min_properties));
    return read_count(s, schema, "maxProperties", false, &shape->max_properties);
}

/* multipleOf: 1 makes a number whole; there is no other. */
static pl_status apply_multiple(const pl_schema *s, pl_schema_shape *shape)
{
    const json_t *multiple = json_object_get(shape->multiple_of, "multipleOf");
    if (!json_is_number(multiple) || json_number_value(multiple) <= 0)
        return pl_schema_fail(s, shape->multiple_of, "multipleOf", PL_ERR_ARGUMENT, "expected a number above 0");
    if (json_number_value(multiple) != 1)
        return pl_schema_fail(s, shape->multiple_of, "multipleOf", PL_ERR_UNSUPPORTED, "only 1 is supported");
    shape->types &= ~(unsigned)PL_TYPE_FRACTION;
    return PL_OK;
}

pl_status pl_schema_read(const pl_schema *s, const pl_schema_part *part, size_t n, pl_schema_shape *shape)
{
    *shape = (pl_schema_shape){.types = PL_TYPE_ANY, .max_length = -1, .max_items = -1, .max_properties = -1};
    for (size_t i = 0; i < n; i++)
        PL_TRY(read_schema(s, part[i].schema, shape));
    if (!shape->typed && !shape->values && shape->hinted)
        shape->types = shape->hinted;
    if (shape->multiple_of && shape->types & PL_TYPE_NUMBER)
        PL_TRY(apply_multiple(s, shape));
    return PL_OK;
}
