/* Names of properties that are none of some given ones: a tree of the given ones, left at any character. */
#include <stdlib.h>
#include <string.h>

#include "host/grammar/json_schema_parts.h"
#include "host/text/utf8.h"

#define LONGEST_NAME 250 /* bytes */

/* A way on from a place in the tree: a character, and the names that have it there. */
typedef struct step {
    uint32_t code;
    size_t first, n;
    int32_t rule;
} step;

typedef struct tree {
    pl_schema *s;
    const char **names; /* sorted by their bytes */
    int32_t others;     /* any characters and the closing quote */
} tree;

static int by_bytes(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

/* A character that is none of the steps', as an alternative with what may follow. */
static pl_status add_others(const tree *t, const step *steps, size_t n, int32_t rule)
{
    pl_code_range *range = calloc(2 * n + 2 + PL_JSON_RULES_SPLITS, sizeof *range);
    uint32_t from = 0;
    size_t count = 0;
    if (!range)
        return pl_schema_no_memory(t->s);
    for (size_t i = 0; i < n; i++) {
        if (steps[i].code > from)
            range[count++] = (pl_code_range){from, steps[i].code - 1};
        from = steps[i].code + 1;
    }
    range[count++] = (pl_code_range){from, 0x10ffff};
    int32_t character = pl_json_rules_chars(t->s->rules, range, count, range + count);
    free(range);
    pl_rules_alternative(t->s->rules, rule);
    pl_rules_refer(t->s->rules, character);
    pl_rules_refer(t->s->rules, t->others);
    return PL_OK;
}

static pl_status make_place(const tree *t, size_t first, size_t n, size_t at, int32_t *rule);

/* names[first, first + n) agree up to byte `at`; the shortest may end there. */
static pl_status make_steps(const tree *t, size_t first, size_t n, size_t at, step *steps, size_t *n_steps)
{
    for (size_t i = first; i < first + n; i++) {
        uint32_t code = 0;
        size_t length = pl_utf8_next(t->names[i] + at, strlen(t->names[i] + at), &code);
        step *last = *n_steps ? &steps[*n_steps - 1] : NULL;
        if (length == 0)
            continue;
        if (last && last->code == code)
            last->n++;
        else
            steps[(*n_steps)++] = (step){.code = code, .first = i, .n = 1};
    }
    for (size_t i = 0; i < *n_steps; i++) {
        size_t length = steps[i].code < 0x80 ? 1 : steps[i].code < 0x800 ? 2 : steps[i].code < 0x10000 ? 3 : 4;
        PL_TRY(make_place(t, steps[i].first, steps[i].n, at + length, &steps[i].rule));
    }
    return PL_OK;
}

static pl_status make_place(const tree *t, size_t first, size_t n, size_t at, int32_t *rule)
{
    pl_rules *rules = t->s->rules;
    step *steps = calloc(n + 1, sizeof *steps);
    size_t n_steps = 0;
    pl_status status = steps ? make_steps(t, first, n, at, steps, &n_steps) : pl_schema_no_memory(t->s);
    *rule = pl_rules_new(rules);
    for (size_t i = 0; status == PL_OK && i < n_steps; i++) {
        pl_code_range one = {steps[i].code, steps[i].code}, bare[1 + PL_JSON_RULES_SPLITS];
        int32_t character = pl_json_rules_chars(rules, &one, 1, bare);
        pl_rules_alternative(rules, *rule);
        pl_rules_refer(rules, character);
        pl_rules_refer(rules, steps[i].rule);
    }
    if (status == PL_OK)
        status = add_others(t, steps, n_steps, *rule);
    free(steps);
    if (t->names[first][at]) {
        pl_rules_alternative(rules, *rule);
        pl_rules_literal(rules, "\"", 1);
    }
    return status;
}

static pl_status fill(const tree *t, json_t *names)
{
    const char *name;
    json_t *value;
    size_t i = 0;
    json_object_foreach(names, name, value)
    {
        if (strlen(name) > LONGEST_NAME)
            return pl_fail(t->s->err, PL_ERR_UNSUPPORTED,
                           "JSON schema: a property's name of more than %d bytes is not supported beside "
                           "additionalProperties",
                           LONGEST_NAME);
        t->names[i++] = name;
    }
    qsort(t->names, i, sizeof *t->names, by_bytes);
    return PL_OK;
}

pl_status pl_schema_other_names(pl_schema *s, json_t *names, int32_t *rule)
{
    pl_rules *rules = s->rules;
    size_t n = json_object_size(names);
    tree t = {.s = s, .names = calloc(n, sizeof *t.names), .others = pl_rules_new(rules)};
    int32_t inside = 0;
    pl_rules_alternative(rules, t.others);
    pl_rules_repeat(rules, s->text.plain_char, 0, PL_RULES_ANY);
    pl_rules_literal(rules, "\"", 1);
    pl_status status = t.names ? fill(&t, names) : pl_schema_no_memory(s);
    if (status == PL_OK && t.names)
        status = make_place(&t, 0, n, 0, &inside);
    free(t.names);
    *rule = pl_rules_new(rules);
    pl_rules_alternative(rules, *rule);
    pl_rules_literal(rules, "\"", 1);
    pl_rules_refer(rules, inside);
    return status;
}
