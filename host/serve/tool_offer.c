#include "host/serve/tool_offer.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>

#define NAME_BYTES 64
#define ALLOWED_MOST 1024

static bool is_name(const char *name)
{
    size_t n = strlen(name);
    for (size_t i = 0; i < n; i++)
        if (!isalnum((unsigned char)name[i]) && name[i] != '_' && name[i] != '-' && name[i] != '.')
            return false;
    return n > 0 && n <= NAME_BYTES;
}

static bool is_offered(const pl_tool_offer *offer, const char *name)
{
    size_t i;
    json_t *tool;
    json_array_foreach(offer->tools, i, tool)
    {
        if (strcmp(json_string_value(json_object_get(tool, "name")), name) == 0)
            return true;
    }
    return false;
}

static void fail_memory(pl_fields *f, const char *name)
{
    pl_error err;
    pl_fail_memory(&err, 0, "the functions of a request");
    pl_field_fail_of(f, name, &err);
}

const json_t *pl_tool_read_strict(pl_fields *tool)
{
    pl_field_bool(tool, "strict", false);
    return pl_field_any(tool, "strict");
}

void pl_tool_offer_add(pl_tool_offer *offer, pl_fields *f, const char *where, const char *name, const char *description,
                       json_t *parameters, const json_t *strict)
{
    if (pl_fields_failed(f))
        return;
    if (!is_name(name)) {
        pl_field_fail(f, where, "invalid_value",
                      "Invalid name of a function: '%.80s'. Expected 1 to %d letters, digits, '_', '-' and '.'.", name,
                      NAME_BYTES);
        return;
    }
    if (is_offered(offer, name)) {
        pl_field_fail(f, where, "invalid_value", "There are two functions of the name '%s'.", name);
        return;
    }
    if (!offer->tools)
        offer->tools = json_array();
    json_t *tool = json_object();
    bool there = json_object_set_new(tool, "name", json_string(name)) == 0 &&
                 (!description || json_object_set_new(tool, "description", json_string(description)) == 0) &&
                 (!parameters || json_object_set(tool, "parameters", parameters) == 0) &&
                 (!strict || json_object_set_new(tool, "strict", json_boolean(json_is_true(strict))) == 0);
    if (!there || json_array_append(offer->tools, tool) != 0)
        fail_memory(f, where);
    json_decref(tool);
}

static void allow_one(pl_tool_offer *offer, pl_fields *tool, bool nested)
{
    static const char *const types[] = {"function", NULL};
    pl_field_require(tool, "type");
    pl_field_choice(tool, "type", 0, types);
    pl_fields function = *tool;
    if (nested) {
        pl_field_require(tool, "function");
        function = pl_fields_of(pl_field_object(tool, "function"), tool->error, "%s.function", tool->where);
        pl_fields_done(tool);
    }
    const char *name = pl_field_required_text(&function, "name");
    if (pl_fields_done(&function) && json_array_append_new(offer->allowed, json_string(name)) != 0)
        fail_memory(&function, "name");
}

void pl_tool_offer_allow(pl_tool_offer *offer, pl_fields *choice, bool nested)
{
    static const char *const modes[] = {"auto", "required", NULL};
    size_t i;
    json_t *value;
    pl_field_require(choice, "mode");
    offer->choice = pl_field_choice(choice, "mode", 0, modes) ? PL_TOOLS_REQUIRED : PL_TOOLS_AUTO;
    pl_field_require(choice, "tools");
    json_t *tools = pl_field_array(choice, "tools", ALLOWED_MOST);
    if (tools && json_array_size(tools) == 0)
        pl_field_fail(choice, "tools", "empty_array", "Invalid '%s.tools': empty array.", choice->where);
    offer->allowed = json_array();
    if (!offer->allowed)
        fail_memory(choice, "tools");
    json_array_foreach(tools, i, value)
    {
        pl_fields tool = pl_fields_of(value, choice->error, "%s.tools[%zu]", choice->where, i);
        allow_one(offer, &tool, nested);
        if (pl_fields_failed(choice))
            return;
    }
}

/* The first allowed name that is not offered; NULL: none. */
static const char *stranger(const pl_tool_offer *offer)
{
    size_t i;
    json_t *name;
    json_array_foreach(offer->allowed, i, name)
    {
        if (!is_offered(offer, json_string_value(name)))
            return json_string_value(name);
    }
    return offer->choice == PL_TOOLS_NAMED && !is_offered(offer, offer->name) ? offer->name : NULL;
}

/* Those that may be called; NULL: no memory. */
static json_t *callable(const pl_tool_offer *offer)
{
    size_t i, k;
    json_t *tool, *name;
    if (!offer->allowed)
        return json_incref(offer->tools);
    json_t *list = json_array();
    json_array_foreach(offer->tools, i, tool)
    {
        json_array_foreach(offer->allowed, k, name)
        {
            if (!json_equal(name, json_object_get(tool, "name")))
                continue;
            json_array_append(list, tool);
            break;
        }
    }
    return list;
}

/* The text that PL_GRAMMAR_TOOLS takes; free(), NULL: no memory. */
static char *grammar_text(const pl_tool_offer *offer, const char *form)
{
    json_t *choice = offer->choice == PL_TOOLS_NAMED
                         ? json_pack("{s:s}", "name", offer->name)
                         : json_string(offer->choice == PL_TOOLS_AUTO ? "auto" : "required");
    json_t *root = json_pack("{s:o, s:o, s:b}", "tools", callable(offer), "choice", choice, "parallel",
                             offer->parallel);
    bool whole = root && (!form || json_object_set_new(root, "answer", json_loads(form, JSON_DECODE_ANY, NULL)) == 0);
    char *text = whole ? json_dumps(root, JSON_COMPACT) : NULL;
    json_decref(root);
    return text;
}

static bool keep_names(const pl_tool_offer *offer, pl_call *call, pl_call_spec *spec)
{
    size_t i, n = json_array_size(offer->tools);
    json_t *tool;
    const char **names = pl_call_keep(call, (n + 1) * sizeof *names);
    if (!names)
        return false;
    json_array_foreach(offer->tools, i, tool)
    {
        const char *name = json_string_value(json_object_get(tool, "name"));
        names[i] = pl_call_keep_text(call, name, strlen(name));
        if (!names[i])
            return false;
    }
    names[n] = NULL;
    spec->tool_names = names;
    return true;
}

/* What the model is shown of them: not how strict we are. */
static bool show(const pl_tool_offer *offer, pl_conversation *c)
{
    size_t i;
    json_t *tool, *shown = json_deep_copy(offer->tools);
    if (!shown)
        return false;
    json_array_foreach(shown, i, tool)
    {
        json_object_del(tool, "strict");
    }
    pl_conversation_offer(c, shown, offer->parallel);
    json_decref(shown);
    return true;
}

static void use(pl_tool_offer *offer, pl_call *call, pl_fields *f, const char *field, pl_conversation *c,
                pl_call_spec *spec)
{
    const char *wrong = stranger(offer);
    if (wrong) {
        pl_field_fail(f, "tool_choice", "invalid_value",
                      "tool_choice names the function '%.80s', which is not offered.", wrong);
        return;
    }
    char *text = grammar_text(offer, spec->form);
    bool there = text && keep_names(offer, call, spec) && show(offer, c);
    if (spec->form) { /* the form alone, which has shown that it can be had */
        pl_grammar_free(spec->grammar);
        spec->grammar = NULL;
    }
    if (!there)
        fail_memory(f, field);
    else
        pl_call_use_grammar(call, f, field, PL_GRAMMAR_TOOLS, text, strlen(text), spec);
    spec->tools = true;
    free(text);
}

void pl_tool_offer_use(pl_tool_offer *offer, pl_call *call, pl_fields *f, const char *field, pl_conversation *c,
                       pl_call_spec *spec)
{
    size_t n = json_array_size(offer->tools);
    if (!pl_fields_failed(f) && n == 0 && (offer->choice == PL_TOOLS_REQUIRED || offer->choice == PL_TOOLS_NAMED))
        pl_field_fail(f, "tool_choice", "invalid_value", "'tool_choice' is only allowed when functions are offered.");
    if (!pl_fields_failed(f) && n > 0 && offer->choice != PL_TOOLS_NONE)
        use(offer, call, f, field, c, spec);
    json_decref(offer->tools);
    json_decref(offer->allowed);
    offer->tools = offer->allowed = NULL;
}
