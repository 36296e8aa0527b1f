#include "host/serve/api_responses_read.h"

#include "host/serve/response_format.h"
#include "host/serve/tool_offer.h"

#include <stdlib.h>
#include <string.h>

#define MAX_ITEMS 100000
#define MAX_PARTS 10000
#define MAX_TOOLS 1024
#define MAX_INCLUDES 64
#define MAX_LOGPROBS 20

static void ignore_all(pl_fields *f, const char *const *names)
{
    for (int i = 0; names[i]; i++)
        pl_field_ignore(f, names[i]);
}

/* ---- input ------------------------------------------------------------------------------------- */

/* The text of a part of a message or of a function's output. */
static const char *read_text_part(pl_fields *part, const char *type)
{
    static const char *const ignored[] = {"annotations", "logprobs", "parsed", "prompt_cache_breakpoint", NULL};
    bool refusal = strcmp(type, "refusal") == 0;
    bool text = strcmp(type, "input_text") == 0 || strcmp(type, "output_text") == 0 || strcmp(type, "text") == 0;
    if (!text && !refusal)
        pl_field_fail(part, "type", "unsupported_value", "%s: parts of type '%.60s' are not supported here.",
                      part->where, type);
    ignore_all(part, ignored);
    return pl_field_required_text(part, refusal ? "refusal" : "text");
}

static bool is_shown(const char *type)
{
    return strcmp(type, "input_image") == 0 || strcmp(type, "input_audio") == 0 || strcmp(type, "input_file") == 0;
}

/* {"type": "input_image", "image_url", "detail"}, {"type": "input_file", "file_data"} or {"type": "input_audio",
 * "input_audio": {"data", "format"}} */
static void read_shown_part(pl_fields *part, const char *type, pl_conversation *c)
{
    static const pl_media_kind image = PL_MEDIA_IMAGE;
    pl_media_part shown = {0};
    if (strcmp(type, "input_audio") == 0) {
        pl_field_require(part, "input_audio");
        pl_fields object = pl_fields_of(pl_field_object(part, "input_audio"), part->error, "%s.input_audio",
                                        part->where);
        pl_media_read_input_audio(&object, &shown);
    } else if (strcmp(type, "input_file") == 0) {
        pl_media_read_file(part, &shown);
    } else {
        if (pl_field_given(part, "file_id"))
            pl_field_fail(part, "file_id", "unsupported_parameter",
                          "Unsupported parameter: 'file_id'. Nothing is stored here: send 'image_url'.");
        int32_t side = pl_media_read_detail(part);
        pl_media_read_url(part, "image_url", &image, &shown);
        shown.side = side;
    }
    pl_field_ignore(part, "prompt_cache_breakpoint");
    if (pl_fields_done(part))
        pl_conversation_show(c, &shown);
    else
        pl_media_part_free(&shown);
}

typedef struct listener {
    void (*text)(void *user, const char *text);
    void *user;
    pl_conversation *show; /* NULL: nothing can be shown */
} listener;

/* A string, or an array of parts, of the field `name`: texts and what is shown are passed on. */
static void read_parts(pl_fields *f, const char *name, const listener *l)
{
    json_t *value = pl_field_any(f, name), *item;
    size_t i;
    if (!value || json_is_string(value)) {
        const char *text = pl_field_required_text(f, name);
        if (!pl_fields_failed(f))
            l->text(l->user, text);
        return;
    }
    value = pl_field_array(f, name, MAX_PARTS);
    json_array_foreach(value, i, item)
    {
        pl_fields part = pl_fields_of(item, f->error, "%s.%s[%zu]", f->where, name, i);
        const char *type = pl_field_required_text(&part, "type");
        if (is_shown(type) && l->show) {
            read_shown_part(&part, type, l->show);
            continue;
        }
        const char *text = read_text_part(&part, type);
        if (!pl_fields_done(&part))
            return;
        l->text(l->user, text);
    }
}

typedef struct speech {
    pl_conversation *conversation;
    pl_speaker speaker;
} speech;

static void say(void *user, const char *text)
{
    const speech *s = user;
    pl_conversation_say(s->conversation, s->speaker, text, strlen(text));
}

static void add_text(void *user, const char *text)
{
    pl_strbuf_add_text(user, text);
}

static void read_message(pl_fields *item, pl_conversation *c)
{
    static const char *const roles[] = {"user", "assistant", "system", "developer", NULL};
    static const pl_speaker speakers[] = {PL_SPEAKER_USER, PL_SPEAKER_MODEL, PL_SPEAKER_SYSTEM, PL_SPEAKER_SYSTEM};
    static const char *const ignored[] = {"id", "status", "phase", NULL};
    pl_field_require(item, "role");
    speech s = {c, speakers[pl_field_choice(item, "role", 0, roles)]};
    ignore_all(item, ignored);
    read_parts(item, "content", &(listener){say, &s, s.speaker == PL_SPEAKER_USER ? c : NULL});
}

static void read_function_call(pl_fields *item, pl_conversation *c)
{
    static const char *const ignored[] = {"id", "status", "caller", "namespace", "async", "parsed_arguments", NULL};
    const char *id = pl_field_required_text(item, "call_id"), *name = pl_field_required_text(item, "name");
    const char *arguments = pl_field_required_text(item, "arguments");
    ignore_all(item, ignored);
    json_t *parsed = json_loads(arguments, 0, NULL);
    if (arguments[0] && !json_is_object(parsed))
        pl_field_fail(item, "arguments", "invalid_value", "%s.arguments: expected a JSON object in a string.",
                      item->where);
    json_decref(parsed);
    if (pl_fields_done(item))
        pl_conversation_call(c, id, name, arguments, strlen(arguments));
}

static void read_function_output(pl_fields *item, pl_conversation *c)
{
    static const char *const ignored[] = {"id", "status", "caller", "name", "namespace", NULL};
    const char *id = pl_field_required_text(item, "call_id");
    pl_strbuf text = {0};
    ignore_all(item, ignored);
    read_parts(item, "output", &(listener){add_text, &text, NULL});
    if (text.failed)
        pl_field_fail_of(item, "output", &(pl_error){PL_ERR_MEMORY, "out of memory"});
    else if (pl_fields_done(item) && !pl_conversation_result(c, id, NULL, text.data ? text.data : "", text.n))
        pl_field_fail(item, "call_id", "invalid_value",
                      "No tool call found for function call output with call_id %.100s.", id);
    pl_strbuf_free(&text);
}

static void read_item(pl_fields *item, pl_conversation *c)
{
    const char *type = pl_field_text(item, "type", "message");
    if (strcmp(type, "message") == 0)
        read_message(item, c);
    else if (strcmp(type, "function_call") == 0)
        read_function_call(item, c);
    else if (strcmp(type, "function_call_output") == 0)
        read_function_output(item, c);
    else if (strcmp(type, "reasoning") == 0)
        return;
    else if (strcmp(type, "item_reference") == 0)
        pl_field_fail(item, "type", "unsupported_value", "%s: nothing is stored that could be referred to.",
                      item->where);
    else
        pl_field_fail(item, "type", "unsupported_value", "%s: items of type '%.60s' are not supported.", item->where,
                      type);
    if (!pl_fields_failed(item))
        pl_fields_done(item);
}

static void read_input(pl_fields *f, pl_conversation *c)
{
    json_t *input = pl_field_any(f, "input"), *value;
    size_t i;
    if (!input || json_is_string(input)) {
        const char *text = pl_field_required_text(f, "input");
        pl_conversation_say(c, PL_SPEAKER_USER, text, strlen(text));
        return;
    }
    input = pl_field_array(f, "input", MAX_ITEMS);
    if (input && json_array_size(input) == 0)
        pl_field_fail(f, "input", "invalid_value", "Invalid 'input': it is empty.");
    json_array_foreach(input, i, value)
    {
        pl_fields item = pl_fields_of(value, f->error, "input[%zu]", i);
        read_item(&item, c);
        if (pl_fields_failed(f))
            return;
    }
}

/* ---- tools ------------------------------------------------------------------------------------- */

static void read_tool(pl_fields *f, pl_fields *tool, pl_tool_offer *offer)
{
    static const char *const ignored[] = {"allowed_callers", "defer_loading", "output_schema", NULL};
    const char *type = pl_field_required_text(tool, "type");
    if (strcmp(type, "function") != 0)
        pl_field_fail(tool, "type", "unsupported_value",
                      "%s: tools of type '%.60s' are not supported: only 'function' is.", tool->where, type);
    ignore_all(tool, ignored);
    const char *name = pl_field_required_text(tool, "name");
    const char *description = pl_field_text(tool, "description", NULL);
    json_t *parameters = pl_field_object(tool, "parameters");
    const json_t *strict = pl_tool_read_strict(tool);
    if (pl_fields_done(tool))
        pl_tool_offer_add(offer, f, tool->where, name, description, parameters, strict);
}

static void read_tool_choice(pl_fields *f, pl_tool_offer *offer)
{
    static const char *const words[] = {"none", "auto", "required", NULL};
    static const pl_tool_choice choices[] = {PL_TOOLS_NONE, PL_TOOLS_AUTO, PL_TOOLS_REQUIRED};
    json_t *value = pl_field_any(f, "tool_choice");
    if (!value || json_is_string(value)) {
        offer->choice = choices[pl_field_choice(f, "tool_choice", 1, words)];
        return;
    }
    static const char *const types[] = {"function", "allowed_tools", NULL};
    pl_fields choice = pl_fields_of(value, f->error, "tool_choice");
    pl_field_require(&choice, "type");
    if (pl_field_choice(&choice, "type", 0, types) == 1) {
        pl_tool_offer_allow(offer, &choice, false);
    } else {
        offer->choice = PL_TOOLS_NAMED;
        offer->name = pl_field_required_text(&choice, "name");
    }
    pl_fields_done(&choice);
}

static void read_tools(pl_fields *f, pl_tool_offer *offer)
{
    json_t *tools = pl_field_array(f, "tools", MAX_TOOLS), *item;
    size_t i;
    json_array_foreach(tools, i, item)
    {
        pl_fields tool = pl_fields_of(item, f->error, "tools[%zu]", i);
        read_tool(f, &tool, offer);
        if (pl_fields_failed(f))
            return;
    }
    offer->parallel = pl_field_bool(f, "parallel_tool_calls", true);
    read_tool_choice(f, offer);
}

/* ---- the rest ---------------------------------------------------------------------------------- */

static void read_text(pl_call *call, pl_fields *f, pl_call_spec *spec)
{
    json_t *object = pl_field_object(f, "text");
    if (!object)
        return;
    pl_fields text = pl_fields_of(object, f->error, "text");
    pl_field_ignore(&text, "verbosity");
    pl_response_format_read(call, &text, "format", true, spec);
    pl_fields_done(&text);
}

/* Log probabilities go with the text where `include` names them; what else it may name there is none of here. */
static void read_logprobs(pl_fields *f, pl_call_spec *spec)
{
    int32_t top = (int32_t)pl_field_int(f, "top_logprobs", 0, 0, MAX_LOGPROBS);
    json_t *include = pl_field_array(f, "include", MAX_INCLUDES);
    bool wanted = pl_field_given(f, "top_logprobs") && top > 0;
    for (size_t i = 0; i < json_array_size(include); i++)
        wanted |= strcmp(pl_field_text_at(f, "include", include, i), "message.output_text.logprobs") == 0;
    if (wanted)
        spec->request.generation.n_logprobs = top;
}

/* What would need memory of earlier requests, or work when nobody waits. */
static void refuse_stored(pl_fields *f)
{
    const char *id = pl_field_text(f, "previous_response_id", NULL);
    if (id)
        pl_field_fail(
            f, "previous_response_id", "previous_response_not_found",
            "Previous response with id '%.100s' not found: this server stores none. Send the whole conversation "
            "as 'input'.",
            id);
    if (pl_field_given(f, "conversation"))
        pl_field_fail(f, "conversation", "unsupported_parameter",
                      "Unsupported parameter: 'conversation'. Nothing is "
                      "stored here.");
    if (pl_field_given(f, "prompt"))
        pl_field_fail(f, "prompt", "unsupported_parameter", "Unsupported parameter: 'prompt'. Nothing is stored here.");
    if (pl_field_bool(f, "background", false))
        pl_field_fail(f, "background", "unsupported_value", "Unsupported value: 'background' must be false.");
}

static const char *keep_json(pl_call *call, pl_fields *f, const char *name, const char *preset)
{
    const json_t *value = pl_field_any(f, name);
    char *text = value ? json_dumps(value, JSON_COMPACT | JSON_ENCODE_ANY) : NULL;
    const char *kept = text ? pl_call_keep_text(call, text, strlen(text)) : NULL;
    if (value && !kept)
        pl_field_fail_of(f, name, &(pl_error){PL_ERR_MEMORY, "out of memory"});
    free(text);
    return kept ? kept : preset;
}

static void read_echo(pl_call *call, pl_fields *f, const pl_tool_offer *offer, pl_responses_echo *echo)
{
    pl_field_object(f, "metadata");
    echo->instructions = keep_json(call, f, "instructions", "null");
    echo->metadata = keep_json(call, f, "metadata", "{}");
    echo->tools = keep_json(call, f, "tools", "[]");
    echo->tool_choice = keep_json(call, f, "tool_choice", "\"auto\"");
    echo->text = keep_json(call, f, "text", "{\"format\":{\"type\":\"text\"}}");
    echo->max_output_tokens = pl_field_int(f, "max_output_tokens", 0, INT64_MIN, INT64_MAX);
    echo->parallel = offer->parallel;
}

static void read_conversation(pl_call *call, pl_fields *f, pl_call_spec *spec, pl_responses_echo *echo)
{
    pl_conversation *c = spec->conversation;
    pl_tool_offer offer = {0};
    const char *instructions = pl_field_text(f, "instructions", NULL);
    if (instructions)
        pl_conversation_say(c, PL_SPEAKER_SYSTEM, instructions, strlen(instructions));
    read_input(f, c);
    read_tools(f, &offer);
    read_echo(call, f, &offer, echo);
    read_text(call, f, spec);
    pl_call_read_grammar(call, f, spec);
    pl_tool_offer_use(&offer, call, f, "tools", c, spec);
}

static void read_settings(pl_call *call, pl_fields *f, pl_call_spec *spec)
{
    static const char *const ignored[] = {"max_tool_calls",
                                          "prompt_cache_key",
                                          "prompt_cache_options",
                                          "prompt_cache_retention",
                                          "reasoning",
                                          "safety_identifier",
                                          "service_tier",
                                          "store",
                                          "stream_options",
                                          "truncation",
                                          "user",
                                          NULL};
    pl_call_read_common(call, f, spec);
    pl_call_read_sampling(call, f, 2, spec);
    pl_call_read_max_tokens(call, f, "max_output_tokens", spec);
    pl_call_read_stop(call, f, "stop", spec);
    read_logprobs(f, spec);
    refuse_stored(f);
    ignore_all(f, ignored);
    spec->stream = pl_field_bool(f, "stream", false);
    spec->prompt_field = "input";
}

bool pl_responses_read(pl_call *call, json_t *body, pl_call_spec *spec, pl_responses_echo *echo, pl_api_error *error)
{
    pl_fields f = pl_fields_of(body, error, "%s", "");
    if (!pl_call_converse(call, &f, spec))
        return false;
    read_settings(call, &f, spec);
    read_conversation(call, &f, spec, echo);
    return pl_fields_done(&f);
}
