/* Follows $ref and allOf, and checks that every key is known. */
#include <stdlib.h>
#include <string.h>

#include "host/grammar/grow.h"
#include "host/grammar/json_schema_parts.h"

#define DEPTH 100 /* of references and allOf that lead to each other */

/* ---- references --------------------------------------------------------------------------------- */

static int hex_digit(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    c = (char)(c | 0x20);
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* Undoes %XX in place. */
static size_t decode_percent(char *text, size_t n)
{
    size_t out = 0;
    for (size_t i = 0; i < n; out++) {
        int high = text[i] == '%' && i + 2 < n ? hex_digit(text[i + 1]) : -1;
        int low = high >= 0 ? hex_digit(text[i + 2]) : -1;
        text[out] = low >= 0 ? (char)(high << 4 | low) : text[i];
        i += low >= 0 ? 3 : 1;
    }
    return out;
}

/* Undoes ~0 and ~1 in place. */
static size_t decode_step(char *text, size_t n)
{
    size_t out = 0;
    for (size_t i = 0; i < n; i++, out++) {
        bool escape = text[i] == '~' && i + 1 < n && (text[i + 1] == '0' || text[i + 1] == '1');
        text[out] = text[i];
        if (escape)
            text[out] = text[++i] == '0' ? '~' : '/';
    }
    return out;
}

static const json_t *step_into(const json_t *value, char *step, size_t n)
{
    n = decode_step(step, n);
    if (json_is_object(value))
        return json_object_getn(value, step, n);
    size_t index = 0;
    if (n == 0 || n > 9 || (n > 1 && step[0] == '0'))
        return NULL;
    for (size_t i = 0; i < n; i++) {
        if (step[i] < '0' || step[i] > '9')
            return NULL;
        index = index * 10 + (size_t)(step[i] - '0');
    }
    return json_array_get(value, index);
}

/* The value at a JSON pointer, which is taken apart. */
static const json_t *at_pointer(const json_t *value, char *pointer, size_t n)
{
    char *end = pointer + n;
    while (value && pointer < end) {
        char *step = pointer + 1, *next = memchr(step, '/', (size_t)(end - step));
        if (*pointer != '/')
            return NULL;
        if (!next)
            next = end;
        value = step_into(value, step, (size_t)(next - step));
        pointer = next;
    }
    return value;
}

pl_status pl_schema_follow(const pl_schema *s, const json_t *schema, const json_t **out)
{
    const json_t *ref = json_object_get(schema, "$ref");
    const char *text = json_string_value(ref);
    size_t n = json_string_length(ref);
    if (!text)
        return pl_schema_fail(s, schema, "$ref", PL_ERR_ARGUMENT, "expected a string");
    if (n == 0 || text[0] != '#' || (n > 1 && text[1] != '/'))
        return pl_schema_fail(s, schema, "$ref", PL_ERR_UNSUPPORTED,
                              "only references within the schema are supported: \"#\" or \"#/...\"");
    char *pointer = malloc(n);
    if (!pointer)
        return pl_schema_no_memory(s);
    memcpy(pointer, text + 1, n - 1);
    *out = at_pointer(s->root, pointer, decode_percent(pointer, n - 1));
    free(pointer);
    if (!json_is_object(*out) && !json_is_boolean(*out))
        return pl_schema_fail(s, schema, "$ref", PL_ERR_ARGUMENT, "\"%.100s\" does not lead to a schema", text);
    return PL_OK;
}

/* ---- lists -------------------------------------------------------------------------------------- */

void pl_schema_list_free(pl_schema_list *list)
{
    free(list->part);
    *list = (pl_schema_list){0};
}

/* Whether a part says something about the text that no list of its own says. */
static bool says(const pl_schema_part *part)
{
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)(uintptr_t)part->schema, key, value)
    {
        unsigned types;
        pl_key_kind kind = pl_schema_key(key, &types);
        bool done = strcmp(key, "anyOf") == 0 ? part->any_done : part->one_done;
        if (kind == PL_KEY_SAYS || (kind == PL_KEY_CHOICE && !done))
            return true;
    }
    return false;
}

pl_status pl_schema_push(pl_schema *s, pl_schema_list *list, pl_schema_part part)
{
    if (++s->work > PL_SCHEMA_WORK)
        return pl_schema_too_large(s);
    if (!says(&part))
        return PL_OK;
    for (size_t i = 0; i < list->n; i++) {
        pl_schema_part *other = &list->part[i];
        if (other->schema == part.schema) {
            other->any_done = other->any_done && part.any_done;
            other->one_done = other->one_done && part.one_done;
            return PL_OK;
        }
    }
    if (list->n == PL_SCHEMA_PARTS)
        return pl_schema_fail(s, part.schema, NULL, PL_ERR_UNSUPPORTED, "more than %d schemas apply to one value",
                              PL_SCHEMA_PARTS);
    if (!pl_grow(&list->part, list->n, &list->room, 1, sizeof *list->part))
        return pl_schema_no_memory(s);
    list->part[list->n++] = part;
    return PL_OK;
}

/* ---- gathering ---------------------------------------------------------------------------------- */

/* The schemas that were met on the way; the first `depth` of a walk are still open. */
typedef struct walk {
    pl_schema *s;
    pl_schema_list *list;
    const json_t *open[DEPTH];
    int depth;
    const json_t **seen;
    size_t n_seen, seen_room;
} walk;

static pl_status visit(walk *w, const json_t *schema, const json_t *of, const char *key);

static pl_status visit_all(walk *w, const json_t *schema)
{
    const json_t *all = json_object_get(schema, "allOf");
    if (!json_is_array(all) || json_array_size(all) == 0)
        return pl_schema_fail(w->s, schema, "allOf", PL_ERR_ARGUMENT, "expected an array of schemas");
    for (size_t i = 0; i < json_array_size(all); i++)
        PL_TRY(visit(w, json_array_get(all, i), schema, "allOf"));
    return PL_OK;
}

static pl_status visit_ref(walk *w, const json_t *schema)
{
    const json_t *target = NULL;
    PL_TRY(pl_schema_follow(w->s, schema, &target));
    return visit(w, target, schema, "$ref");
}

/* The parts in the order in which properties are to stand: the schema's own where its properties are. */
static pl_status visit_keys(walk *w, const json_t *schema)
{
    pl_schema_part own = {.schema = schema};
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)(uintptr_t)schema, key, value)
    {
        unsigned types;
        if (pl_schema_key(key, &types) == PL_KEY_UNKNOWN)
            return pl_schema_fail(w->s, schema, key, PL_ERR_UNSUPPORTED, "this key is not supported");
        if (strcmp(key, "properties") == 0)
            PL_TRY(pl_schema_push(w->s, w->list, own));
        else if (strcmp(key, "allOf") == 0)
            PL_TRY(visit_all(w, schema));
        else if (strcmp(key, "$ref") == 0)
            PL_TRY(visit_ref(w, schema));
    }
    return pl_schema_push(w->s, w->list, own);
}

static bool among(const json_t *const *list, size_t n, const json_t *schema)
{
    for (size_t i = 0; i < n; i++)
        if (list[i] == schema)
            return true;
    return false;
}

static pl_status visit(walk *w, const json_t *schema, const json_t *of, const char *key)
{
    if (json_is_boolean(schema)) {
        w->list->never = w->list->never || json_is_false(schema);
        return PL_OK;
    }
    if (!json_is_object(schema))
        return pl_schema_fail(w->s, of, key, PL_ERR_ARGUMENT, "expected a schema: an object, true or false");
    if (among(w->open, (size_t)w->depth, schema))
        return pl_schema_fail(w->s, of, key, PL_ERR_ARGUMENT, "leads back to itself");
    if (among(w->seen, w->n_seen, schema))
        return PL_OK;
    if (w->depth == DEPTH || w->n_seen == 4 * PL_SCHEMA_PARTS)
        return pl_schema_fail(w->s, of, key, PL_ERR_UNSUPPORTED, "leads to too many schemas");
    if (!pl_grow(&w->seen, w->n_seen, &w->seen_room, 1, sizeof *w->seen))
        return pl_schema_no_memory(w->s);
    w->seen[w->n_seen++] = schema;
    w->open[w->depth++] = schema;
    pl_status status = visit_keys(w, schema);
    w->depth--;
    return status;
}

pl_status pl_schema_gather(pl_schema *s, pl_schema_list *list, const json_t *schema, const json_t *of, const char *key)
{
    walk w = {.s = s, .list = list};
    pl_status status = visit(&w, schema, of, key);
    free(w.seen);
    return status;
}
