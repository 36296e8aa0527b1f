#include "host/grammar/tool_rules.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "host/base/json_out.h"
#include "host/grammar/json_schema_parts.h"

#define MOST_CALLS 128

typedef struct tools {
    pl_json_rules json;
    pl_rules *rules;
    const char *only; /* the function that must be called; NULL: any */
    bool automatic, parallel;
    pl_error *err;
} tools;

/* ---- calls -------------------------------------------------------------------------------------- */

static int32_t literal(pl_rules *rules, const char *text, size_t n)
{
    int32_t rule = pl_rules_new(rules);
    pl_rules_alternative(rules, rule);
    pl_rules_literal(rules, text, n);
    return rule;
}

static pl_status name_rule(const tools *t, const char *name, size_t n, int32_t *rule)
{
    char *text;
    size_t length;
    pl_json json = pl_json_to_buffer();
    pl_json_text(&json, name, n);
    PL_TRY(pl_json_take(&json, &text, &length, t->err));
    *rule = literal(t->rules, text, length);
    free(text);
    return PL_OK;
}

/* Whether a schema is in the subset. What else is wrong with it is found where it is used. */
static pl_status check_supported(const json_t *schema, bool *supported, pl_error *err)
{
    pl_rules *rules;
    int32_t rule;
    PL_TRY(pl_rules_create(&rules, err));
    pl_status status = pl_json_schema_add_tree(rules, schema, NULL, "", &rule, err);
    if (status == PL_OK)
        status = pl_rules_finish(rules, rule, NULL, NULL, err);
    pl_rules_free(rules);
    *supported = status != PL_ERR_UNSUPPORTED;
    return status == PL_ERR_MEMORY ? status : PL_OK;
}

/* The arguments of a function: an object as its schema says. */
static pl_status arguments_rule(const tools *t, const json_t *tool, size_t index, int32_t *rule)
{
    const json_t *schema = json_object_get(tool, "parameters"), *strict = json_object_get(tool, "strict");
    char where[48];
    if (strict && !json_is_boolean(strict) && !json_is_null(strict))
        return pl_fail(t->err, PL_ERR_ARGUMENT, "tools: \"/tools/%zu/strict\": expected a boolean", index);
    bool none = !schema || json_is_null(schema), bound = !json_is_false(strict);
    if (bound && !none && !json_is_true(strict))
        PL_TRY(check_supported(schema, &bound, t->err));
    if (!bound) {
        *rule = t->json.any_object;
        return PL_OK;
    }
    if (none) {
        *rule = literal(t->rules, "{}", 2);
        return PL_OK;
    }
    snprintf(where, sizeof where, "/tools/%zu/parameters", index);
    json_t *object = json_pack("{s:s}", "type", "object");
    if (!object)
        return pl_fail_memory(t->err, 0, "a grammar of calls");
    pl_status status = pl_json_schema_add_tree(t->rules, schema, object, where, rule, t->err);
    json_decref(object);
    return status;
}

/* An alternative of `call`: {"name": "f", "parameters": {...}} */
static pl_status add_tool(const tools *t, const json_t *tool, size_t index, int32_t call, bool *offered)
{
    pl_rules *rules = t->rules;
    const json_t *name = json_object_get(tool, "name");
    int32_t value, arguments;
    if (!json_is_string(name) || json_string_length(name) == 0)
        return pl_fail(t->err, PL_ERR_ARGUMENT, "tools: \"/tools/%zu/name\": expected a name", index);
    if (t->only && strcmp(t->only, json_string_value(name)) != 0)
        return PL_OK;
    *offered = true;
    PL_TRY(name_rule(t, json_string_value(name), json_string_length(name), &value));
    PL_TRY(arguments_rule(t, tool, index, &arguments));
    int32_t first = pl_json_rules_member(&t->json, literal(rules, "\"name\"", 6), value);
    int32_t second = pl_json_rules_member(&t->json, literal(rules, "\"parameters\"", 12), arguments);
    pl_rules_alternative(rules, call);
    pl_rules_literal(rules, "{", 1);
    pl_rules_refer(rules, t->json.line);
    pl_rules_refer(rules, first);
    pl_rules_literal(rules, ",", 1);
    pl_rules_refer(rules, t->json.gap);
    pl_rules_refer(rules, second);
    pl_rules_refer(rules, t->json.line);
    pl_rules_literal(rules, "}", 1);
    return PL_OK;
}

static void add_rule(pl_rules *rules, int32_t rule, int32_t other)
{
    pl_rules_alternative(rules, rule);
    pl_rules_refer(rules, other);
}

/* One call or several, between lines ```json and ``` or not. */
static void add_calls(const tools *t, int32_t call, int32_t answer)
{
    int32_t calls = pl_rules_new(t->rules);
    add_rule(t->rules, calls, call);
    if (t->parallel)
        add_rule(t->rules, calls, pl_json_rules_list(&t->json, "[]", call, 1, MOST_CALLS));
    add_rule(t->rules, answer, calls);
    pl_rules_alternative(t->rules, answer);
    pl_rules_literal(t->rules, "```json\n", 8);
    pl_rules_refer(t->rules, calls);
    pl_rules_literal(t->rules, "\n```", 4);
}

/* ---- text --------------------------------------------------------------------------------------- */

/* Places in a text that may still become what a reader takes for a call: blanks, ``` with or without json, blanks, then
 * { or [. From each the text may end, or go on with a character of a set. */
enum { START, TICK, TICKS, FENCE, J, JS, JSO, OPEN, N_PLACES, TEXT = N_PLACES };

static const struct arrow {
    int from;
    const char *set;
    bool negated;
    int to;
} arrows[] = {
    {START, " \t\r\n", false, START},
    {START, "`", false, TICK},
    {START, " \t\r\n`{[", true, TEXT},
    {TICK, "`", false, TICKS},
    {TICK, "`", true, TEXT},
    {TICKS, "`", false, FENCE},
    {TICKS, "`", true, TEXT},
    {FENCE, "j", false, J},
    {FENCE, " \t\r\n", false, OPEN},
    {FENCE, " \t\r\nj{[", true, TEXT},
    {J, "s", false, JS},
    {J, "s", true, TEXT},
    {JS, "o", false, JSO},
    {JS, "o", true, TEXT},
    {JSO, "n", false, OPEN},
    {JSO, "n", true, TEXT},
    {OPEN, " \t\r\n", false, OPEN},
    {OPEN, " \t\r\n{[", true, TEXT},
};

static int32_t text_rule(pl_rules *rules)
{
    pl_code_range ranges[8];
    int32_t place[N_PLACES + 1], any = pl_rules_new(rules);
    pl_rules_alternative(rules, any);
    pl_rules_chars(rules, ranges, 0, true);
    for (int i = 0; i <= N_PLACES; i++) {
        place[i] = literal(rules, "", 0);
        if (i == TEXT)
            pl_rules_repeat(rules, any, 0, PL_RULES_ANY);
    }
    for (size_t i = 0; i < sizeof arrows / sizeof *arrows; i++) {
        size_t n = strlen(arrows[i].set);
        for (size_t k = 0; k < n; k++)
            ranges[k] = (pl_code_range){(unsigned char)arrows[i].set[k], (unsigned char)arrows[i].set[k]};
        pl_rules_alternative(rules, place[arrows[i].from]);
        pl_rules_chars(rules, ranges, n, arrows[i].negated);
        pl_rules_refer(rules, place[arrows[i].to]);
    }
    return place[START];
}

/* ---- the whole ---------------------------------------------------------------------------------- */

static pl_status read_choice(const json_t *root, tools *t)
{
    const json_t *choice = json_object_get(root, "choice"), *parallel = json_object_get(root, "parallel");
    const char *text = json_string_value(choice);
    t->parallel = json_is_true(parallel);
    if (parallel && !json_is_boolean(parallel))
        return pl_fail(t->err, PL_ERR_ARGUMENT, "tools: \"/parallel\": expected a boolean");
    if (json_is_object(choice)) {
        t->only = json_string_value(json_object_get(choice, "name"));
        t->parallel = false;
        return t->only ? PL_OK : pl_fail(t->err, PL_ERR_ARGUMENT, "tools: \"/choice/name\": expected a name");
    }
    t->automatic = !choice || (text && strcmp(text, "auto") == 0);
    if (!t->automatic && !(text && strcmp(text, "required") == 0))
        return pl_fail(t->err, PL_ERR_ARGUMENT,
                       "tools: \"/choice\": expected \"auto\", \"required\" or an object with a name");
    return PL_OK;
}

static pl_status make(tools *t, const json_t *root, int32_t *answer)
{
    const json_t *list = json_object_get(root, "tools"), *form = json_object_get(root, "answer");
    int32_t call = pl_rules_new(t->rules), other;
    bool offered = false;
    PL_TRY(read_choice(root, t));
    if (!json_is_array(list))
        return pl_fail(t->err, PL_ERR_ARGUMENT, "tools: \"/tools\": expected an array");
    for (size_t i = 0; i < json_array_size(list); i++)
        PL_TRY(add_tool(t, json_array_get(list, i), i, call, &offered));
    if (t->only && !offered)
        return pl_fail(t->err, PL_ERR_ARGUMENT, "tools: \"/choice/name\": there is no function \"%.80s\"", t->only);
    *answer = pl_rules_new(t->rules);
    add_calls(t, call, *answer);
    if (!t->automatic)
        return PL_OK;
    if (form)
        PL_TRY(pl_json_schema_add_tree(t->rules, form, NULL, "/answer", &other, t->err));
    else
        other = text_rule(t->rules);
    add_rule(t->rules, *answer, other);
    return PL_OK;
}

pl_status pl_tool_rules_compile(const char *text, size_t n, pl_rules **out, pl_error *err)
{
    json_t *root;
    int32_t answer = 0;
    tools t = {.err = err};
    PL_TRY(pl_schema_parse(text, n, "tools", &root, err));
    pl_status status = pl_rules_create(&t.rules, err);
    if (status == PL_OK) {
        pl_json_rules_init(&t.json, t.rules);
        status = make(&t, root, &answer);
    }
    if (status == PL_OK)
        status = pl_rules_finish(t.rules, answer, NULL, NULL, err);
    if (status == PL_OK)
        *out = t.rules;
    else
        pl_rules_free(t.rules);
    json_decref(root);
    return status;
}
