#include "host/grammar/json_schema.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "host/grammar/grow.h"
#include "host/grammar/json_schema_parts.h"

/* ---- lists of parts, each once ------------------------------------------------------------------ */

static uint64_t hash_list(const pl_schema_list *list)
{
    uint64_t h = list->n;
    for (size_t i = 0; i < list->n; i++) {
        const pl_schema_part *p = &list->part[i];
        h = (h ^ (uint64_t)(uintptr_t)p->schema ^ (uint64_t)p->any_done << 1 ^ p->one_done) * 0x9e3779b97f4a7c15u;
        h ^= h >> 29;
    }
    return h;
}

static bool same(const pl_schema *s, const pl_schema_entry *entry, const pl_schema_list *list, uint64_t hash)
{
    if (entry->hash != hash || entry->n != list->n)
        return false;
    for (size_t i = 0; i < list->n; i++) {
        const pl_schema_part *a = &s->part[entry->first + i], *b = &list->part[i];
        if (a->schema != b->schema || a->any_done != b->any_done || a->one_done != b->one_done)
            return false;
    }
    return true;
}

static bool widen(pl_schema *s)
{
    size_t slots = s->slots ? 2 * s->slots : 256;
    uint32_t *slot = calloc(slots, sizeof *slot);
    if (!slot)
        return false;
    for (size_t i = 0; i < s->n_entries; i++) {
        size_t at = s->entry[i].hash & (slots - 1);
        while (slot[at])
            at = (at + 1) & (slots - 1);
        slot[at] = (uint32_t)i + 1;
    }
    free(s->slot);
    s->slot = slot;
    s->slots = slots;
    return true;
}

static pl_status add_entry(pl_schema *s, const pl_schema_list *list, uint64_t hash)
{
    if (s->n_entries == PL_SCHEMA_LISTS)
        return pl_schema_too_large(s);
    if (!pl_grow(&s->part, s->n_parts, &s->part_room, list->n, sizeof *s->part) ||
        !pl_grow(&s->entry, s->n_entries, &s->entry_room, 1, sizeof *s->entry))
        return pl_schema_no_memory(s);
    memcpy(s->part + s->n_parts, list->part, list->n * sizeof *list->part);
    s->entry[s->n_entries++] = (pl_schema_entry){s->n_parts, list->n, hash, pl_rules_new(s->rules)};
    s->n_parts += list->n;
    return PL_OK;
}

pl_status pl_schema_rule(pl_schema *s, const pl_schema_list *list, int32_t *rule)
{
    *rule = list->never ? s->never : s->text.any_value;
    if (list->never || list->n == 0)
        return PL_OK;
    if (2 * (s->n_entries + 1) > s->slots && !widen(s))
        return pl_schema_no_memory(s);
    uint64_t hash = hash_list(list);
    size_t at = hash & (s->slots - 1);
    while (s->slot[at] && !same(s, &s->entry[s->slot[at] - 1], list, hash))
        at = (at + 1) & (s->slots - 1);
    if (!s->slot[at]) {
        PL_TRY(add_entry(s, list, hash));
        s->slot[at] = (uint32_t)s->n_entries;
    }
    *rule = s->entry[s->slot[at] - 1].rule;
    return PL_OK;
}

/* ---- one list ----------------------------------------------------------------------------------- */

/* The key of a part's alternatives that none was chosen of yet. */
static const char *open_choice(const pl_schema_part *part)
{
    if (!part->any_done && json_object_get(part->schema, "anyOf"))
        return "anyOf";
    return !part->one_done && json_object_get(part->schema, "oneOf") ? "oneOf" : NULL;
}

/* The list with one alternative of part `at` beside that part. */
static pl_status choose(pl_schema *s, const pl_schema_list *from, size_t at, const char *key, const json_t *alternative,
                        pl_schema_list *list)
{
    for (size_t i = 0; i < from->n; i++) {
        pl_schema_part part = from->part[i];
        if (i == at) {
            part.any_done = part.any_done || strcmp(key, "anyOf") == 0;
            part.one_done = part.one_done || strcmp(key, "oneOf") == 0;
        }
        PL_TRY(pl_schema_push(s, list, part));
        if (i == at)
            PL_TRY(pl_schema_gather(s, list, alternative, part.schema, key));
    }
    return PL_OK;
}

static pl_status make_choice(pl_schema *s, const pl_schema_list *from, size_t at, const char *key, int32_t rule)
{
    const json_t *schema = from->part[at].schema, *alternatives = json_object_get(schema, key);
    if (!json_is_array(alternatives) || json_array_size(alternatives) == 0)
        return pl_schema_fail(s, schema, key, PL_ERR_ARGUMENT, "expected an array of schemas");
    for (size_t i = 0; i < json_array_size(alternatives); i++) {
        pl_schema_list list = {0};
        int32_t one = 0;
        pl_status status = choose(s, from, at, key, json_array_get(alternatives, i), &list);
        if (status == PL_OK)
            status = pl_schema_rule(s, &list, &one);
        pl_schema_list_free(&list);
        PL_TRY(status);
        pl_rules_alternative(s->rules, rule);
        pl_rules_refer(s->rules, one);
    }
    return PL_OK;
}

static void add_rule(const pl_schema *s, int32_t rule, int32_t other)
{
    pl_rules_alternative(s->rules, rule);
    pl_rules_refer(s->rules, other);
}

static void add_words(const pl_schema *s, const pl_schema_shape *shape, int32_t rule)
{
    static const char *const words[] = {"null", "true", "false"};
    for (size_t i = 0; i < 3; i++)
        if (shape->types & (i == 0 ? PL_TYPE_NULL : PL_TYPE_BOOLEAN)) {
            pl_rules_alternative(s->rules, rule);
            pl_rules_literal(s->rules, words[i], strlen(words[i]));
        }
}

/* The rule of a range of numbers; each is made once. */
static pl_status number_rule(pl_schema *s, const pl_number_range *range, bool whole, int32_t *rule)
{
    const pl_decimal *a = &range->min, *b = &range->max;
    char key[256];
    snprintf(key, sizeof key, "%d%d%d%d%d %d%d%" PRIu64 ".%s %d%d%" PRIu64 ".%s", whole, range->has_min, range->has_max,
             range->above, range->below, a->negative, a->huge, a->huge ? 0 : a->whole, a->fraction, b->negative,
             b->huge, b->huge ? 0 : b->whole, b->fraction);
    const json_t *made = json_object_get(s->ranges, key);
    if (made) {
        *rule = (int32_t)json_integer_value(made);
        return PL_OK;
    }
    *rule = whole ? pl_number_range_integers(&s->text, range) : pl_number_range_numbers(&s->text, range);
    return json_object_set_new(s->ranges, key, json_integer(*rule)) == 0 ? PL_OK : pl_schema_no_memory(s);
}

static pl_status make_types(pl_schema *s, const pl_schema_part *part, size_t n, const pl_schema_shape *shape,
                            int32_t rule)
{
    int32_t one;
    add_words(s, shape, rule);
    if (shape->types & PL_TYPE_NUMBER) {
        PL_TRY(number_rule(s, &shape->range, !(shape->types & PL_TYPE_FRACTION), &one));
        add_rule(s, rule, one);
    }
    if (shape->types & PL_TYPE_STRING) {
        PL_TRY(pl_schema_string(s, shape, &one));
        add_rule(s, rule, one);
    }
    if (shape->types & PL_TYPE_ARRAY) {
        PL_TRY(pl_schema_array(s, part, n, shape, &one));
        add_rule(s, rule, one);
    }
    if (shape->types & PL_TYPE_OBJECT) {
        PL_TRY(pl_schema_object(s, part, n, shape, &one));
        add_rule(s, rule, one);
    }
    return PL_OK;
}

static pl_status make_list(pl_schema *s, const pl_schema_list *list, int32_t rule)
{
    pl_schema_shape shape;
    for (size_t i = 0; i < list->n; i++) {
        const char *key = open_choice(&list->part[i]);
        if (key)
            return make_choice(s, list, i, key, rule);
    }
    PL_TRY(pl_schema_read(s, list->part, list->n, &shape));
    if (shape.values)
        return pl_schema_values(s, list->part, list->n, &shape, rule);
    return make_types(s, list->part, list->n, &shape, rule);
}

/* Makes the rules of all lists that are asked for, also by those made meanwhile. */
static pl_status make_all(pl_schema *s)
{
    for (size_t i = 0; i < s->n_entries; i++) {
        pl_schema_part part[PL_SCHEMA_PARTS];
        pl_schema_list list = {.part = part, .n = s->entry[i].n};
        memcpy(part, s->part + s->entry[i].first, list.n * sizeof *part);
        PL_TRY(make_list(s, &list, s->entry[i].rule));
    }
    return PL_OK;
}

/* ---- the whole ---------------------------------------------------------------------------------- */

static pl_status make_root(pl_schema *s, const json_t *also, int32_t *rule)
{
    pl_schema_list list = {0};
    pl_status status = pl_schema_gather(s, &list, s->root, NULL, NULL);
    if (status == PL_OK && also)
        status = pl_schema_push(s, &list, (pl_schema_part){.schema = also});
    if (status == PL_OK)
        status = pl_schema_rule(s, &list, rule);
    pl_schema_list_free(&list);
    return status;
}

pl_status pl_json_schema_add_tree(pl_rules *rules, const json_t *schema, const json_t *also, const char *where,
                                  int32_t *rule, pl_error *err)
{
    pl_schema s = {.rules = rules, .root = schema, .where = where, .err = err, .ranges = json_object()};
    pl_json_rules_init(&s.text, rules);
    s.never = pl_rules_new(rules);
    pl_status status = s.ranges ? make_root(&s, also, rule) : pl_schema_no_memory(&s);
    if (status == PL_OK)
        status = make_all(&s);
    free(s.part);
    free(s.entry);
    free(s.slot);
    json_decref(s.ranges);
    return status;
}

pl_status pl_schema_parse(const char *text, size_t n, const char *what, json_t **out, pl_error *err)
{
    json_error_t why;
    *out = json_loadb(text, n, JSON_DECODE_ANY | JSON_REJECT_DUPLICATES | JSON_ALLOW_NUL, &why);
    if (*out)
        return PL_OK;
    if (json_error_code(&why) == json_error_out_of_memory)
        return pl_fail_memory(err, n, what);
    return pl_fail(err, PL_ERR_ARGUMENT, "%s: not JSON that can be read: line %d, column %d: %s", what, why.line,
                   why.column, why.text);
}

pl_status pl_json_schema_add(pl_rules *rules, const char *schema, size_t n, const char *where, int32_t *rule,
                             pl_error *err)
{
    json_t *root;
    PL_TRY(pl_schema_parse(schema, n, "JSON schema", &root, err));
    pl_status status = pl_json_schema_add_tree(rules, root, NULL, where, rule, err);
    json_decref(root);
    return status;
}

static const char *rule_name(void *user, int32_t rule)
{
    const int32_t *root = user;
    return rule == *root ? "of the JSON schema" : "of a part of the JSON schema";
}

static pl_status finish(pl_rules *rules, pl_status status, int32_t root, pl_rules **out, pl_error *err)
{
    if (status == PL_OK)
        status = pl_rules_finish(rules, root, rule_name, &root, err);
    if (status == PL_OK)
        *out = rules;
    else
        pl_rules_free(rules);
    return status;
}

pl_status pl_json_schema_compile(const char *schema, size_t n, pl_rules **out, pl_error *err)
{
    pl_rules *rules;
    int32_t root = 0;
    PL_TRY(pl_rules_create(&rules, err));
    pl_status status = pl_json_schema_add(rules, schema, n, "", &root, err);
    return finish(rules, status, root, out, err);
}

pl_status pl_json_object_compile(pl_rules **out, pl_error *err)
{
    pl_rules *rules;
    pl_json_rules text;
    PL_TRY(pl_rules_create(&rules, err));
    pl_json_rules_init(&text, rules);
    return finish(rules, PL_OK, text.any_object, out, err);
}
