/* Objects: the named properties in their order, each there or not, then the additional ones. */
#include <stdlib.h>
#include <string.h>

#include "host/base/json_out.h"
#include "host/grammar/json_schema_parts.h"

#define MOST_PLACES 100000 /* named properties times counts */

typedef struct object {
    pl_schema *s;
    json_t *names;   /* an object: name to whether it is required, in order */
    int32_t *member; /* [n] rules: name, colon and value */
    bool *required;  /* [n] */
    int64_t n;
    int64_t min, max;   /* properties; max: -1: none */
    int32_t additional; /* the rule of a member that is not named; -1: there are none */
} object;

/* ---- names -------------------------------------------------------------------------------------- */

static pl_status add_required(const pl_schema *s, const json_t *schema, json_t *names)
{
    const json_t *required = json_object_get(schema, "required");
    if (required && !json_is_array(required))
        return pl_schema_fail(s, schema, "required", PL_ERR_ARGUMENT, "expected an array of names");
    for (size_t i = 0; i < json_array_size(required); i++) {
        const json_t *name = json_array_get(required, i);
        const char *text = json_string_value(name);
        if (!text || strlen(text) != json_string_length(name))
            return pl_schema_fail(s, schema, "required", PL_ERR_ARGUMENT, "expected an array of names");
        if (json_object_set_new(names, text, json_true()) != 0)
            return pl_schema_no_memory(s);
    }
    return PL_OK;
}

static pl_status add_properties(const pl_schema *s, const json_t *schema, json_t *names)
{
    json_t *properties = json_object_get(schema, "properties"), *value;
    const char *name;
    if (properties && !json_is_object(properties))
        return pl_schema_fail(s, schema, "properties", PL_ERR_ARGUMENT, "expected an object of schemas");
    json_object_foreach(properties, name,
                        value) if (!json_object_get(names, name) &&
                                   json_object_set_new(names, name, json_false()) != 0) return pl_schema_no_memory(s);
    return PL_OK;
}

static pl_status collect_names(const pl_schema *s, const pl_schema_part *part, size_t n, json_t *names)
{
    for (size_t k = 0; k < n; k++)
        PL_TRY(add_properties(s, part[k].schema, names));
    for (size_t k = 0; k < n; k++)
        PL_TRY(add_required(s, part[k].schema, names));
    return PL_OK;
}

/* ---- members ------------------------------------------------------------------------------------ */

/* The rule of the value of a property; name: NULL: of the additional ones. */
static pl_status value_rule(pl_schema *s, const pl_schema_part *part, size_t n, const char *name, int32_t *rule)
{
    pl_schema_list list = {0};
    pl_status status = PL_OK;
    for (size_t k = 0; status == PL_OK && k < n; k++) {
        const json_t *schema = part[k].schema, *properties = json_object_get(schema, "properties");
        const json_t *own = name ? json_object_get(properties, name) : NULL;
        const json_t *others = json_object_get(schema, "additionalProperties");
        if (own)
            status = pl_schema_gather(s, &list, own, properties, name);
        else if (others)
            status = pl_schema_gather(s, &list, others, schema, "additionalProperties");
    }
    if (status == PL_OK)
        status = pl_schema_rule(s, &list, rule);
    pl_schema_list_free(&list);
    return status;
}

static pl_status key_rule(const pl_schema *s, const char *name, int32_t *rule)
{
    char *text;
    size_t n;
    pl_json json = pl_json_to_buffer();
    pl_json_string(&json, name);
    PL_TRY(pl_json_take(&json, &text, &n, s->err));
    *rule = pl_rules_new(s->rules);
    pl_rules_alternative(s->rules, *rule);
    pl_rules_literal(s->rules, text, n);
    free(text);
    return PL_OK;
}

static pl_status make_members(object *o, const pl_schema_part *part, size_t n)
{
    const char *name;
    json_t *required;
    size_t i = 0;
    json_object_foreach(o->names, name, required)
    {
        int32_t key, value;
        PL_TRY(value_rule(o->s, part, n, name, &value));
        PL_TRY(key_rule(o->s, name, &key));
        o->member[i++] = pl_json_rules_member(&o->s->text, key, value);
    }
    return PL_OK;
}

/* ---- additional properties ---------------------------------------------------------------------- */

/* Whether members that are not named are allowed: where a schema says so, or none names any. */
static bool is_open(const pl_schema_part *part, size_t n)
{
    bool names = false;
    for (size_t k = 0; k < n; k++) {
        if (json_object_get(part[k].schema, "additionalProperties"))
            return true;
        names = names || json_object_get(part[k].schema, "properties");
    }
    return !names;
}

/* The one pattern of patternProperties; NULL: there is none. */
static pl_status find_pattern(const pl_schema *s, const pl_schema_part *part, size_t n, const json_t **of)
{
    *of = NULL;
    for (size_t k = 0; k < n; k++) {
        const json_t *schema = part[k].schema, *patterns = json_object_get(schema, "patternProperties");
        if (!patterns)
            continue;
        if (!json_is_object(patterns))
            return pl_schema_fail(s, schema, "patternProperties", PL_ERR_ARGUMENT, "expected an object of schemas");
        if (*of || json_object_size(patterns) != 1)
            return pl_schema_fail(s, schema, "patternProperties", PL_ERR_UNSUPPORTED,
                                  "anything but one pattern is not supported");
        *of = schema;
    }
    return PL_OK;
}

static pl_status pattern_member(object *o, const pl_schema_part *part, size_t n, const json_t *of)
{
    json_t *patterns = json_object_get(of, "patternProperties");
    void *first = json_object_iter(patterns);
    const char *pattern = json_object_iter_key(first);
    pl_schema_list list = {0};
    int32_t key, value = 0;
    for (size_t k = 0; k < n; k++) {
        const json_t *others = json_object_get(part[k].schema, "additionalProperties");
        if (o->n > 0 || (others && !json_is_false(others)))
            return pl_schema_fail(o->s, of, "patternProperties", PL_ERR_UNSUPPORTED,
                                  "not supported beside properties, required or additionalProperties");
    }
    pl_status status = pl_schema_gather(o->s, &list, json_object_iter_value(first), patterns, pattern);
    if (status == PL_OK)
        status = pl_schema_rule(o->s, &list, &value);
    pl_schema_list_free(&list);
    PL_TRY(status);
    PL_TRY(pl_schema_pattern(o->s, patterns, pattern, pattern, strlen(pattern), 0, -1, &key));
    o->additional = pl_json_rules_member(&o->s->text, key, value);
    return PL_OK;
}

static pl_status open_member(object *o, const pl_schema_part *part, size_t n)
{
    int32_t key = o->s->text.any_string, value;
    PL_TRY(value_rule(o->s, part, n, NULL, &value));
    if (value == o->s->never)
        return PL_OK;
    if (o->n)
        PL_TRY(pl_schema_other_names(o->s, o->names, &key));
    o->additional = pl_json_rules_member(&o->s->text, key, value);
    return PL_OK;
}

static pl_status make_additional(object *o, const pl_schema_part *part, size_t n)
{
    const json_t *patterns_of;
    PL_TRY(find_pattern(o->s, part, n, &patterns_of));
    o->additional = -1;
    if (patterns_of)
        PL_TRY(pattern_member(o, part, n, patterns_of));
    else if (is_open(part, n))
        PL_TRY(open_member(o, part, n));
    return PL_OK;
}

/* ---- the object --------------------------------------------------------------------------------- */

/* A comma, unless it is the first, and a member. */
static void add_member(const object *o, bool first, int32_t member)
{
    if (!first)
        pl_rules_literal(o->s->rules, ",", 1);
    pl_rules_refer(o->s->rules, first ? o->s->text.line : o->s->text.gap);
    pl_rules_refer(o->s->rules, member);
}

/* The end of an object that has `count` members; `next`: a comma and one that is not named. */
static void add_end(const object *o, int64_t count, int32_t next, int32_t rule)
{
    pl_rules *rules = o->s->rules;
    int64_t min = o->min > count ? o->min - count : 0, max = o->max < 0 ? PL_RULES_MOST : o->max - count;
    bool more = o->additional >= 0 && max > 0;
    if (max > PL_RULES_MOST)
        max = PL_RULES_MOST;
    if (min > (more ? max : 0))
        return;
    if (count == 0 && min == 0) {
        pl_rules_alternative(rules, rule);
        pl_rules_literal(rules, "}", 1);
    }
    if (count == 0 && !more)
        return;
    pl_rules_alternative(rules, rule);
    if (count == 0)
        add_member(o, true, o->additional);
    int32_t taken = count == 0;
    if (more)
        pl_rules_repeat(rules, next, (int32_t)min > taken ? (int32_t)min - taken : 0,
                        o->max < 0 ? PL_RULES_ANY : (int32_t)max - taken);
    pl_rules_refer(rules, o->s->text.line);
    pl_rules_literal(rules, "}", 1);
}

/* The rule at place (i, count): i named properties are decided on, count of them were there. Counts above the last
 * one that matters are the same. */
typedef struct places {
    int32_t first; /* rule; they follow one another */
    int64_t counts;
} places;

static int32_t place(const places *p, int64_t i, int64_t count)
{
    return p->first + (int32_t)(i * p->counts + (count < p->counts ? count : p->counts - 1));
}

static void add_place(const object *o, const places *p, int64_t i, int64_t count)
{
    pl_rules *rules = o->s->rules;
    int32_t rule = place(p, i, count);
    if (o->max < 0 || count < o->max) {
        pl_rules_alternative(rules, rule);
        add_member(o, count == 0, o->member[i]);
        pl_rules_refer(rules, place(p, i + 1, count + 1));
    }
    if (!o->required[i]) {
        pl_rules_alternative(rules, rule);
        pl_rules_refer(rules, place(p, i + 1, count));
    }
}

static pl_status make_places(const object *o, int32_t *rule)
{
    pl_rules *rules = o->s->rules;
    int64_t last = o->max >= 0 ? o->n : o->min > 1 ? o->min : 1;
    places p = {.counts = (last < o->n ? last : o->n) + 1};
    int32_t next = pl_rules_new(rules);
    if ((o->n + 1) * p.counts > MOST_PLACES)
        return pl_schema_too_large(o->s);
    if (o->additional >= 0) {
        pl_rules_alternative(rules, next);
        add_member(o, false, o->additional);
    }
    for (int64_t k = 0; k < (o->n + 1) * p.counts; k++) {
        int32_t made = pl_rules_new(rules);
        if (k == 0)
            p.first = made;
    }
    for (int64_t count = 0; count < p.counts; count++) {
        for (int64_t i = 0; i < o->n; i++)
            add_place(o, &p, i, count);
        add_end(o, count, next, place(&p, o->n, count));
    }
    *rule = pl_rules_new(rules);
    pl_rules_alternative(rules, *rule);
    pl_rules_literal(rules, "{", 1);
    pl_rules_refer(rules, place(&p, 0, 0));
    return PL_OK;
}

/* Names that are not given may come up twice in one object, and would count as one. */
static pl_status check_count(const object *o, const pl_schema_part *part, size_t n)
{
    int64_t required = 0;
    for (int64_t i = 0; i < o->n; i++)
        required += o->required[i];
    if (o->additional < 0 || o->min <= required + 1)
        return PL_OK;
    for (size_t k = 0; k < n; k++)
        if (json_object_get(part[k].schema, "minProperties"))
            return pl_schema_fail(o->s, part[k].schema, "minProperties", PL_ERR_UNSUPPORTED,
                                  "more than one property beside the required ones is not supported where names are "
                                  "free, for they may be equal");
    return PL_OK;
}

static pl_status make_object(object *o, const pl_schema_part *part, size_t n, int32_t *rule)
{
    PL_TRY(make_members(o, part, n));
    PL_TRY(make_additional(o, part, n));
    PL_TRY(check_count(o, part, n));
    return make_places(o, rule);
}

static pl_status make_named(object *o, const pl_schema_part *part, size_t n, int32_t *rule)
{
    size_t count = json_object_size(o->names), i = 0;
    const char *name;
    json_t *value;
    o->n = (int64_t)count;
    o->member = calloc(count + 1, sizeof *o->member);
    o->required = calloc(count + 1, sizeof *o->required);
    if (!o->member || !o->required)
        return pl_schema_no_memory(o->s);
    json_object_foreach(o->names, name, value) o->required[i++] = json_is_true(value);
    return make_object(o, part, n, rule);
}

pl_status pl_schema_object(pl_schema *s, const pl_schema_part *part, size_t n, const pl_schema_shape *shape,
                           int32_t *rule)
{
    object o = {.s = s, .names = json_object(), .min = shape->min_properties, .max = shape->max_properties};
    pl_status status = o.names ? collect_names(s, part, n, o.names) : pl_schema_no_memory(s);
    if (status == PL_OK)
        status = make_named(&o, part, n, rule);
    free(o.member);
    free(o.required);
    json_decref(o.names);
    return status;
}
