#include "host/serve/tool_offer.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>

#define NAME_BYTES 64

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

void pl_tool_offer_add(pl_tool_offer *offer, pl_fields *f, const char *where, const char *name, const char *description,
                       json_t *parameters, bool strict)
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
                 (strict || json_object_set_new(tool, "strict", json_false()) == 0);
    if (!there || json_array_append(offer->tools, tool) != 0)
        fail_memory(f, where);
    json_decref(tool);
}

/* The text that PL_GRAMMAR_TOOLS takes; free(), NULL: no memory. */
static char *grammar_text(const pl_tool_offer *offer)
{
    json_t *choice = offer->choice == PL_TOOLS_NAMED
                         ? json_pack("{s:s}", "name", offer->name)
                         : json_string(offer->choice == PL_TOOLS_AUTO ? "auto" : "required");
    json_t *root = json_pack("{s:O, s:o, s:b}", "tools", offer->tools, "choice", choice, "parallel", offer->parallel);
    char *text = root ? json_dumps(root, JSON_COMPACT) : NULL;
    json_decref(root);
    return text;
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
    if (offer->choice == PL_TOOLS_NAMED && !is_offered(offer, offer->name)) {
        pl_field_fail(f, "tool_choice", "invalid_value",
                      "tool_choice names the function '%.80s', which is not offered.", offer->name);
        return;
    }
    char *text = grammar_text(offer);
    if (!text || !show(offer, c))
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
    offer->tools = NULL;
}
