#include "host/model/model_json.h"

#include <math.h>

pl_status pl_member_parse(const char *text, size_t n, const char *where, json_t **out, pl_error *err)
{
    json_error_t error;
    json_t *root = json_loadb(text, n, JSON_REJECT_DUPLICATES, &error);
    if (!root && (json_error_code(&error) == json_error_out_of_memory || error.text[0] == '\0')) /* or says nothing */
        return pl_fail(err, PL_ERR_MEMORY, "%s: out of memory", where);
    if (!root)
        return pl_fail(err, PL_ERR_FORMAT, "%s: line %d, column %d: %s", where, error.line, error.column, error.text);
    if (!json_is_object(root)) {
        pl_fail(err, PL_ERR_FORMAT, "%s: is %s, expected an object", where, pl_member_kind(root));
        json_decref(root);
        return PL_ERR_FORMAT;
    }
    *out = root;
    return PL_OK;
}

const char *pl_member_kind(const json_t *value)
{
    switch (json_typeof(value)) {
    case JSON_OBJECT: return "an object";
    case JSON_ARRAY: return "a list";
    case JSON_STRING: return "a string";
    case JSON_INTEGER: return "an integer";
    case JSON_REAL: return "a number";
    case JSON_TRUE: return "true";
    case JSON_FALSE: return "false";
    case JSON_NULL: return "null";
    }
    return "nothing";
}

const json_t *pl_member_get(const json_t *object, const char *key)
{
    const json_t *value = json_object_get(object, key);
    return json_is_null(value) ? NULL : value;
}

static pl_status wrong_kind(const json_t *value, const char *key, const char *where, const char *expected,
                            pl_error *err)
{
    return pl_fail(err, PL_ERR_FORMAT, "%s: %s is %s, expected %s", where, key, pl_member_kind(value), expected);
}

pl_status pl_member_int(const json_t *object, const char *key, const char *where, int low, int high, int *out,
                        pl_error *err)
{
    const json_t *value = pl_member_get(object, key);
    if (!value)
        return PL_OK;
    if (!json_is_integer(value))
        return wrong_kind(value, key, where, "an integer", err);
    json_int_t number = json_integer_value(value);
    if (number < low || number > high)
        return pl_fail(err, PL_ERR_FORMAT, "%s: %s is %" JSON_INTEGER_FORMAT ", expected %d to %d", where, key, number,
                       low, high);
    *out = (int)number;
    return PL_OK;
}

pl_status pl_member_float(const json_t *object, const char *key, const char *where, float *out, pl_error *err)
{
    const json_t *value = pl_member_get(object, key);
    if (!value)
        return PL_OK;
    if (!json_is_number(value))
        return wrong_kind(value, key, where, "a number", err);
    double number = json_number_value(value);
    if (!(fabs(number) <= 1e30))
        return pl_fail(err, PL_ERR_FORMAT, "%s: %s is %g, which is out of range", where, key, number);
    *out = (float)number;
    return PL_OK;
}

pl_status pl_member_bool(const json_t *object, const char *key, const char *where, bool *out, pl_error *err)
{
    const json_t *value = pl_member_get(object, key);
    if (!value)
        return PL_OK;
    if (!json_is_boolean(value))
        return wrong_kind(value, key, where, "true or false", err);
    *out = json_is_true(value);
    return PL_OK;
}

pl_status pl_member_text(const json_t *object, const char *key, const char *where, const char **out, pl_error *err)
{
    const json_t *value = pl_member_get(object, key);
    if (!value)
        return PL_OK;
    if (!json_is_string(value))
        return wrong_kind(value, key, where, "a string", err);
    *out = json_string_value(value);
    return PL_OK;
}

pl_status pl_member_object(const json_t *object, const char *key, const char *where, const json_t **out, pl_error *err)
{
    const json_t *value = pl_member_get(object, key);
    if (!value)
        return PL_OK;
    if (!json_is_object(value))
        return wrong_kind(value, key, where, "an object", err);
    *out = value;
    return PL_OK;
}
