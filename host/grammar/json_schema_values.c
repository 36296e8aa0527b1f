/* Values that are named one by one, strings and arrays. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "host/base/json_out.h"
#include "host/grammar/json_schema_parts.h"
#include "host/grammar/regex.h"

/* ---- enum and const ----------------------------------------------------------------------------- */

static bool write_value(pl_json *json, const json_t *value)
{
    char number[32];
    const char *key;
    json_t *child;
    size_t i;
    if (json->depth == PL_JSON_DEPTH - 1)
        return false;
    switch (json_typeof(value)) {
    case JSON_OBJECT:
        pl_json_begin_object(json);
        json_object_foreach((json_t *)(uintptr_t)value, key, child)
        {
            pl_json_key(json, key);
            if (!write_value(json, child))
                return false;
        }
        pl_json_end_object(json);
        return true;
    case JSON_ARRAY:
        pl_json_begin_array(json);
        json_array_foreach(value, i, child) if (!write_value(json, child)) return false;
        pl_json_end_array(json);
        return true;
    case JSON_STRING: pl_json_text(json, json_string_value(value), json_string_length(value)); return true;
    case JSON_TRUE:
    case JSON_FALSE: pl_json_bool(json, json_is_true(value)); return true;
    case JSON_NULL: pl_json_null(json); return true;
    case JSON_INTEGER:
    case JSON_REAL: break;
    }
    pl_schema_number_text(value, number);
    pl_json_raw(json, number, strlen(number));
    return true;
}

static unsigned type_of(const json_t *value)
{
    switch (json_typeof(value)) {
    case JSON_OBJECT: return PL_TYPE_OBJECT;
    case JSON_ARRAY: return PL_TYPE_ARRAY;
    case JSON_STRING: return PL_TYPE_STRING;
    case JSON_INTEGER: return PL_TYPE_INTEGER;
    case JSON_REAL: break;
    case JSON_TRUE:
    case JSON_FALSE: return PL_TYPE_BOOLEAN;
    case JSON_NULL: return PL_TYPE_NULL;
    }
    return floor(json_real_value(value)) == json_real_value(value) ? PL_TYPE_INTEGER : PL_TYPE_FRACTION;
}

static bool equal(const json_t *a, const json_t *b)
{
    if (json_is_number(a) && json_is_number(b) && json_typeof(a) != json_typeof(b))
        return json_number_value(a) == json_number_value(b);
    return json_equal(a, b);
}

static bool is_named(const json_t *schema, const json_t *value)
{
    const json_t *list = json_object_get(schema, "enum"), *constant = json_object_get(schema, "const");
    if (constant && !equal(constant, value))
        return false;
    for (size_t i = 0; i < json_array_size(list); i++)
        if (equal(json_array_get(list, i), value))
            return true;
    return !list;
}

static int64_t characters(const json_t *string)
{
    const char *text = json_string_value(string);
    int64_t count = 0;
    for (size_t i = 0; i < json_string_length(string); i++)
        count += ((unsigned char)text[i] & 0xc0) != 0x80;
    return count;
}

/* Whether the other keys allow a value. */
static pl_status is_allowed(const pl_schema *s, const pl_schema_shape *shape, const json_t *value, bool *allowed)
{
    unsigned type = type_of(value);
    *allowed = shape->types & type;
    if (!*allowed)
        return PL_OK;
    if (type & PL_TYPE_NUMBER) {
        char text[32];
        pl_schema_number_text(value, text);
        pl_decimal number = pl_decimal_read(text);
        *allowed = pl_number_range_has(&shape->range, &number);
    } else if (type == PL_TYPE_STRING) {
        int64_t n = characters(value);
        *allowed = n >= shape->min_length && (shape->max_length < 0 || n <= shape->max_length);
    }
    bool checked = type & shape->hinted & (PL_TYPE_ARRAY | PL_TYPE_OBJECT);
    if (checked || (type == PL_TYPE_STRING && (shape->pattern_of || shape->format_of)))
        return pl_schema_fail(s, shape->values_of, shape->is_const ? "const" : "enum", PL_ERR_UNSUPPORTED,
                              "not supported together with other keys for such values but type and bounds");
    return PL_OK;
}

static pl_status add_value(const pl_schema *s, const json_t *value, int32_t rule)
{
    char *text;
    size_t n;
    pl_json json = pl_json_to_buffer();
    if (!write_value(&json, value)) {
        pl_json_free(&json);
        return pl_fail(s->err, PL_ERR_UNSUPPORTED, "JSON schema: a value of enum or const is nested too deep");
    }
    PL_TRY(pl_json_take(&json, &text, &n, s->err));
    pl_rules_alternative(s->rules, rule);
    pl_rules_literal(s->rules, text, n);
    free(text);
    return PL_OK;
}

pl_status pl_schema_values(pl_schema *s, const pl_schema_part *part, size_t n, const pl_schema_shape *shape,
                           int32_t rule)
{
    size_t count = shape->is_const ? 1 : json_array_size(shape->values);
    for (size_t k = 0; k < n; k++)
        if (part[k].schema != shape->values_of &&
            json_array_size(json_object_get(part[k].schema, "enum")) > PL_SCHEMA_COMPARED / (count + 1))
            return pl_schema_too_large(s);
    for (size_t i = 0; i < count; i++) {
        const json_t *value = shape->is_const ? shape->values : json_array_get(shape->values, i);
        bool allowed;
        PL_TRY(is_allowed(s, shape, value, &allowed));
        for (size_t k = 0; allowed && k < n; k++)
            if (part[k].schema != shape->values_of || shape->is_const)
                allowed = is_named(part[k].schema, value);
        if (allowed)
            PL_TRY(add_value(s, value, rule));
    }
    return PL_OK;
}

/* ---- strings ------------------------------------------------------------------------------------ */

pl_status pl_schema_pattern(pl_schema *s, const json_t *schema, const char *key, const char *text, size_t n,
                            int64_t min, int64_t max, int32_t *rule)
{
    int32_t inside;
    pl_status status = pl_regex_add_sized(s->rules, text, n, PL_REGEX_IN_JSON, min, max, &inside, s->err);
    if (status != PL_OK)
        return pl_schema_fail_within(s, schema, key, status);
    *rule = pl_rules_new(s->rules);
    pl_rules_alternative(s->rules, *rule);
    pl_rules_literal(s->rules, "\"", 1);
    pl_rules_refer(s->rules, inside);
    pl_rules_literal(s->rules, "\"", 1);
    return PL_OK;
}

pl_status pl_schema_string(pl_schema *s, const pl_schema_shape *shape, int32_t *rule)
{
    const json_t *pattern = json_object_get(shape->pattern_of, "pattern");
    const char *format = json_string_value(json_object_get(shape->format_of, "format"));
    if (pattern && format)
        return pl_schema_fail(s, shape->pattern_of, "pattern", PL_ERR_UNSUPPORTED,
                              "a pattern beside a format is not supported");
    if (pattern)
        return pl_schema_pattern(s, shape->pattern_of, "pattern", json_string_value(pattern),
                                 json_string_length(pattern), shape->min_length, shape->max_length, rule);
    if (format) {
        const char *text = pl_schema_format(format);
        if (!text)
            return pl_schema_fail(s, shape->format_of, "format", PL_ERR_UNSUPPORTED, "\"%.60s\" is not supported",
                                  format);
        return pl_schema_pattern(s, shape->format_of, "format", text, strlen(text), shape->min_length,
                                 shape->max_length, rule);
    }
    int64_t min = shape->min_length, max = shape->max_length;
    if (max > PL_RULES_MOST)
        max = PL_RULES_MOST;
    if (max >= 0 && max < min)
        *rule = s->never;
    else if (min == 0 && max < 0)
        *rule = s->text.any_string;
    else
        *rule = pl_json_rules_string(&s->text, (int32_t)min, max < 0 ? PL_RULES_ANY : (int32_t)max);
    return PL_OK;
}

/* ---- arrays ------------------------------------------------------------------------------------- */

/* The leading items that a schema names one by one; in older drafts items itself does. */
static const json_t *named_items(const json_t *schema)
{
    const json_t *items = json_object_get(schema, "items");
    return json_is_array(items) ? items : json_object_get(schema, "prefixItems");
}

/* The key that speaks of the items after these. */
static const char *rest_key(const json_t *schema)
{
    return json_is_array(json_object_get(schema, "items")) ? "additionalItems" : "items";
}

/* The rule of item i; past those that are named, of all others. */
static pl_status item_rule(pl_schema *s, const pl_schema_part *part, size_t n, size_t i, int32_t *rule)
{
    pl_schema_list list = {0};
    pl_status status = PL_OK;
    for (size_t k = 0; status == PL_OK && k < n; k++) {
        const json_t *schema = part[k].schema, *named = json_array_get(named_items(schema), i);
        const char *key = rest_key(schema);
        const json_t *rest = json_object_get(schema, key);
        if (named || rest)
            status = pl_schema_gather(s, &list, named ? named : rest, schema, named ? "prefixItems" : key);
    }
    if (status == PL_OK)
        status = pl_schema_rule(s, &list, rule);
    pl_schema_list_free(&list);
    return status;
}

typedef struct array {
    pl_schema *s;
    size_t n_named;
    int64_t min, max; /* max: -1: none */
    int32_t rest;     /* the rule of the items behind the named ones */
} array;

/* A comma, unless it is the first, and an item. */
static int32_t next_item(const array *a, bool first, int32_t item)
{
    pl_rules *rules = a->s->rules;
    int32_t rule = pl_rules_new(rules);
    pl_rules_alternative(rules, rule);
    if (!first)
        pl_rules_literal(rules, ",", 1);
    pl_rules_refer(rules, first ? a->s->text.line : a->s->text.gap);
    pl_rules_refer(rules, item);
    return rule;
}

/* What follows the named items, or i of them. */
static void add_end(const array *a, size_t i, int32_t rule)
{
    pl_rules *rules = a->s->rules;
    int64_t min = a->min > (int64_t)i ? a->min - (int64_t)i : 0, max = a->max < 0 ? PL_RULES_ANY : a->max - (int64_t)i;
    if (i < a->n_named ? min > 0 : max != PL_RULES_ANY && max < min)
        return;
    int32_t more = i == a->n_named ? next_item(a, false, a->rest) : 0;
    pl_rules_alternative(rules, rule);
    if (i == a->n_named && max)
        pl_rules_repeat(rules, more, (int32_t)min, (int32_t)max);
    if (i)
        pl_rules_refer(rules, a->s->text.line);
    pl_rules_literal(rules, "]", 1);
}

static pl_status make_tuple(const array *a, const pl_schema_part *part, size_t n, int32_t *rule)
{
    pl_rules *rules = a->s->rules;
    int32_t here = pl_rules_new(rules);
    *rule = pl_rules_new(rules);
    pl_rules_alternative(rules, *rule);
    pl_rules_literal(rules, "[", 1);
    pl_rules_refer(rules, here);
    for (size_t i = 0; i <= a->n_named; i++) {
        add_end(a, i, here);
        if (i == a->n_named || (a->max >= 0 && (int64_t)i >= a->max))
            break;
        int32_t item, after = pl_rules_new(rules);
        PL_TRY(item_rule(a->s, part, n, i, &item));
        item = next_item(a, i == 0, item);
        pl_rules_alternative(rules, here);
        pl_rules_refer(rules, item);
        pl_rules_refer(rules, after);
        here = after;
    }
    return PL_OK;
}

static pl_status check_parts(const pl_schema *s, const pl_schema_part *part, size_t n, array *a, bool *says_rest)
{
    for (size_t k = 0; k < n; k++) {
        const json_t *schema = part[k].schema, *prefix = json_object_get(schema, "prefixItems");
        if (prefix && !json_is_array(prefix))
            return pl_schema_fail(s, schema, "prefixItems", PL_ERR_ARGUMENT, "expected an array of schemas");
        size_t named = json_array_size(named_items(schema));
        a->n_named = named > a->n_named ? named : a->n_named;
        *says_rest = *says_rest || json_object_get(schema, rest_key(schema));
    }
    return PL_OK;
}

pl_status pl_schema_array(pl_schema *s, const pl_schema_part *part, size_t n, const pl_schema_shape *shape,
                          int32_t *rule)
{
    array a = {.s = s, .min = shape->min_items, .max = shape->max_items};
    bool says_rest = false;
    PL_TRY(check_parts(s, part, n, &a, &says_rest));
    if (a.n_named && !says_rest && (a.max < 0 || a.max > (int64_t)a.n_named) && a.min <= (int64_t)a.n_named)
        a.max = (int64_t)a.n_named;
    if (a.max > PL_RULES_MOST)
        a.max = PL_RULES_MOST;
    if (shape->unique_of && (a.max < 0 || a.max > 1))
        return pl_schema_fail(s, shape->unique_of, "uniqueItems", PL_ERR_UNSUPPORTED, "true is not supported");
    *rule = s->never;
    if (a.max >= 0 && a.max < a.min)
        return PL_OK;
    PL_TRY(item_rule(s, part, n, a.n_named, &a.rest));
    if (a.n_named)
        return make_tuple(&a, part, n, rule);
    *rule = pl_json_rules_list(&s->text, "[]", a.rest, (int32_t)a.min, a.max < 0 ? PL_RULES_ANY : (int32_t)a.max);
    return PL_OK;
}
