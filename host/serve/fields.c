#include "host/serve/fields.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

/* ---- errors ------------------------------------------------------------------------------------ */

bool pl_fields_failed(const pl_fields *f)
{
    return f->error->status != 0;
}

static void name_field(const pl_fields *f, const char *name, char *out, size_t n)
{
    const char *dot = f->where[0] && name[0] && name[0] != '[' ? "." : "";
    snprintf(out, n, "%s%s%s", f->where, dot, name);
}

static __attribute__((format(printf, 4, 0))) void fail(pl_fields *f, const char *name, const char *code,
                                                       const char *format, va_list args)
{
    pl_api_error *e = f->error;
    if (e->status)
        return;
    *e = (pl_api_error){.status = 400};
    name_field(f, name, e->param, sizeof e->param);
    snprintf(e->code, sizeof e->code, "%s", code);
    vsnprintf(e->message, sizeof e->message, format, args);
}

void pl_field_fail(pl_fields *f, const char *name, const char *code, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    fail(f, name, code, format, args);
    va_end(args);
}

void pl_field_fail_of(pl_fields *f, const char *name, const pl_error *err)
{
    if (pl_fields_failed(f))
        return;
    *f->error = pl_api_error_of(err);
    name_field(f, name, f->error->param, sizeof f->error->param);
}

/* Something wrong with the value of a field; the message begins with its full name. */
static void fail_value(pl_fields *f, const char *name, const char *code, const char *format, ...)
    __attribute__((format(printf, 4, 5)));
static void fail_value(pl_fields *f, const char *name, const char *code, const char *format, ...)
{
    char full[128], what[PL_ERROR_BYTES];
    va_list args;
    name_field(f, name, full, sizeof full);
    va_start(args, format);
    vsnprintf(what, sizeof what, format, args);
    va_end(args);
    pl_field_fail(f, name, code, "Invalid '%s': %s", full, what);
}

const char *pl_json_type_name(const json_t *value)
{
    switch (json_typeof(value)) {
    case JSON_OBJECT: return "an object";
    case JSON_ARRAY: return "an array";
    case JSON_STRING: return "a string";
    case JSON_INTEGER: return "an integer";
    case JSON_REAL: return "a decimal number";
    case JSON_TRUE:
    case JSON_FALSE: return "a boolean";
    case JSON_NULL: break;
    }
    return "null";
}

void pl_field_fail_type(pl_fields *f, const char *name, const char *expected, const json_t *got)
{
    char full[128];
    name_field(f, name, full, sizeof full);
    pl_field_fail(f, name, "invalid_type", "Invalid type for '%s': expected %s, but got %s instead.",
                  full[0] ? full : "body", expected, pl_json_type_name(got));
}

/* ---- an object --------------------------------------------------------------------------------- */

pl_fields pl_fields_of(json_t *value, pl_api_error *error, const char *where, ...)
{
    pl_fields f = {.error = error};
    va_list args;
    va_start(args, where);
    vsnprintf(f.where, sizeof f.where, where, args);
    va_end(args);
    if (json_is_object(value))
        f.object = value;
    else if (value)
        pl_field_fail_type(&f, "", "an object", value);
    return f;
}

static bool is_known(const pl_fields *f, const char *name)
{
    for (size_t i = 0; i < f->n_known; i++)
        if (strcmp(f->known[i], name) == 0)
            return true;
    return false;
}

/* The value, or NULL where it is not given or there was an error before. */
static json_t *take(pl_fields *f, const char *name)
{
    json_t *value = json_object_get(f->object, name);
    if (value && !is_known(f, name) && f->n_known < PL_FIELDS_KNOWN)
        f->known[f->n_known++] = name;
    return pl_fields_failed(f) || json_is_null(value) ? NULL : value;
}

bool pl_fields_done(pl_fields *f)
{
    const char *name;
    json_t *value;
    json_object_foreach(f->object, name, value)
    {
        if (is_known(f, name))
            continue;
        char full[128];
        name_field(f, name, full, sizeof full);
        pl_field_fail(f, name, "unknown_parameter",
                      f->where[0] ? "Unknown parameter: '%s'." : "Unrecognized request argument supplied: %s", full);
        break;
    }
    return !pl_fields_failed(f);
}

bool pl_field_given(pl_fields *f, const char *name)
{
    return take(f, name) != NULL;
}

void pl_field_ignore(pl_fields *f, const char *name)
{
    take(f, name);
}

void pl_field_require(pl_fields *f, const char *name)
{
    char full[128];
    name_field(f, name, full, sizeof full);
    if (!take(f, name))
        pl_field_fail(f, name, "missing_required_parameter", "Missing required parameter: '%s'.", full);
}

/* ---- values ------------------------------------------------------------------------------------ */

/* Of a kind, "integer" or "decimal". */
static void check_range(pl_fields *f, const char *name, const char *kind, double value, double min, double max)
{
    char code[64];
    bool low = value < min;
    if (!low && value <= max)
        return;
    snprintf(code, sizeof code, "%s_%s_value", kind, low ? "below_min" : "above_max");
    fail_value(f, name, code, "%s %s value. Expected a value %s %.15g, but got %.15g instead.", kind,
               low ? "below minimum" : "above maximum", low ? ">=" : "<=", low ? min : max, value);
}

double pl_field_number(pl_fields *f, const char *name, double preset, double min, double max)
{
    json_t *value = take(f, name);
    if (!value)
        return preset;
    if (!json_is_number(value)) {
        pl_field_fail_type(f, name, "a decimal", value);
        return preset;
    }
    check_range(f, name, "decimal", json_number_value(value), min, max);
    return pl_fields_failed(f) ? preset : json_number_value(value);
}

int64_t pl_field_int(pl_fields *f, const char *name, int64_t preset, int64_t min, int64_t max)
{
    json_t *value = take(f, name);
    if (!value)
        return preset;
    if (!json_is_integer(value)) {
        pl_field_fail_type(f, name, "an integer", value);
        return preset;
    }
    int64_t given = json_integer_value(value);
    if (given < min || given > max)
        check_range(f, name, "integer", (double)given, (double)min, (double)max);
    return pl_fields_failed(f) ? preset : given;
}

bool pl_field_bool(pl_fields *f, const char *name, bool preset)
{
    json_t *value = take(f, name);
    if (!value)
        return preset;
    if (!json_is_boolean(value))
        pl_field_fail_type(f, name, "a boolean", value);
    return pl_fields_failed(f) ? preset : json_is_true(value);
}

static const char *text_of(pl_fields *f, const char *name, const json_t *value, const char *preset)
{
    if (!json_is_string(value))
        pl_field_fail_type(f, name, "a string", value);
    else if (strlen(json_string_value(value)) != json_string_length(value))
        fail_value(f, name, "invalid_value", "NUL characters are not supported.");
    return pl_fields_failed(f) ? preset : json_string_value(value);
}

const char *pl_field_text(pl_fields *f, const char *name, const char *preset)
{
    json_t *value = take(f, name);
    return value ? text_of(f, name, value, preset) : preset;
}

const char *pl_field_required_text(pl_fields *f, const char *name)
{
    pl_field_require(f, name);
    return pl_field_text(f, name, "");
}

const char *pl_field_text_at(pl_fields *f, const char *name, json_t *array, size_t i)
{
    char element[128];
    snprintf(element, sizeof element, "%s[%zu]", name, i);
    return pl_fields_failed(f) ? "" : text_of(f, element, json_array_get(array, i), "");
}

/* 'a', 'b', and 'c' */
static void list_words(const char *const *words, char *out, size_t n)
{
    size_t at = 0;
    out[0] = '\0';
    for (size_t i = 0; words[i] && at < n; i++) {
        const char *between = !i ? "" : words[i + 1] ? ", " : i == 1 ? " and " : ", and ";
        int k = snprintf(out + at, n - at, "%s'%s'", between, words[i]);
        at += k > 0 ? (size_t)k : 0;
    }
}

int pl_field_choice(pl_fields *f, const char *name, int preset, const char *const *words)
{
    char all[256];
    const char *text = pl_field_text(f, name, NULL);
    if (!text)
        return preset;
    for (int i = 0; words[i]; i++)
        if (strcmp(words[i], text) == 0)
            return i;
    list_words(words, all, sizeof all);
    pl_field_fail(f, name, "invalid_value", "Invalid value: '%.100s'. Supported values are: %s.", text, all);
    return preset;
}

json_t *pl_field_object(pl_fields *f, const char *name)
{
    json_t *value = take(f, name);
    if (value && !json_is_object(value))
        pl_field_fail_type(f, name, "an object", value);
    return pl_fields_failed(f) ? NULL : value;
}

json_t *pl_field_array(pl_fields *f, const char *name, size_t max)
{
    json_t *value = take(f, name);
    if (!value)
        return NULL;
    if (!json_is_array(value))
        pl_field_fail_type(f, name, "an array", value);
    else if (json_array_size(value) > max)
        fail_value(f, name, "array_above_max_length",
                   "array too long. Expected an array with maximum length %zu, but got an array with length %zu "
                   "instead.",
                   max, json_array_size(value));
    return pl_fields_failed(f) ? NULL : value;
}

json_t *pl_field_any(pl_fields *f, const char *name)
{
    return take(f, name);
}

/* ---- a body ------------------------------------------------------------------------------------ */

json_t *pl_fields_parse(const char *body, size_t n, pl_api_error *error)
{
    json_error_t why;
    json_t *root = json_loadb(body, n, JSON_DECODE_ANY | JSON_ALLOW_NUL, &why);
    if (!root && json_error_code(&why) == json_error_out_of_memory) {
        pl_error err;
        pl_fail_memory(&err, n, "a request's body");
        *error = pl_api_error_of(&err);
    } else if (!root) {
        *error = (pl_api_error){.status = 400};
        snprintf(error->message, sizeof error->message,
                 "We could not parse the JSON body of your request: line %d, column %d: %s", why.line, why.column,
                 why.text);
    } else {
        pl_fields_of(root, error, "%s", "");
    }
    if (root && error->status) {
        json_decref(root);
        root = NULL;
    }
    return root;
}
