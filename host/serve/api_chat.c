#include "host/serve/api_chat.h"

#include "host/serve/chat_messages.h"
#include "host/serve/logprobs.h"
#include "host/serve/openai_put.h"
#include "host/serve/response_format.h"
#include "host/serve/tool_offer.h"

#include <string.h>

#define TOOLS_MOST 128

typedef struct chat {
    bool usage;  /* in a stream's last event */
    bool named;  /* the function to call was named */
    bool legacy; /* "functions" instead of "tools" */
    char fingerprint[PL_OPENAI_FINGERPRINT];
} chat;

static const chat *chat_of(const pl_call *call)
{
    return pl_call_asked(call)->format_data;
}

/* ---- reading: functions ------------------------------------------------------------------------ */

/* {"name", "description", "parameters", "strict"} */
static void read_function(pl_fields *function, pl_tool_offer *offer)
{
    const char *name = pl_field_required_text(function, "name");
    const char *description = pl_field_text(function, "description", NULL);
    json_t *parameters = pl_field_object(function, "parameters");
    const json_t *strict = pl_tool_read_strict(function);
    if (pl_fields_done(function))
        pl_tool_offer_add(offer, function, "name", name, description, parameters, strict);
}

static void read_tools(pl_fields *f, pl_tool_offer *offer)
{
    static const char *const types[] = {"function", NULL};
    size_t i;
    json_t *tools = pl_field_array(f, "tools", TOOLS_MOST), *value;
    json_array_foreach(tools, i, value)
    {
        pl_fields tool = pl_fields_of(value, f->error, "tools[%zu]", i);
        pl_field_require(&tool, "type");
        pl_field_choice(&tool, "type", 0, types);
        pl_field_require(&tool, "function");
        pl_fields function = pl_fields_of(pl_field_object(&tool, "function"), f->error, "%s.function", tool.where);
        pl_fields_done(&tool);
        read_function(&function, offer);
    }
}

static void read_legacy_functions(pl_fields *f, pl_tool_offer *offer)
{
    size_t i;
    json_t *functions = pl_field_array(f, "functions", TOOLS_MOST), *value;
    json_array_foreach(functions, i, value)
    {
        pl_fields function = pl_fields_of(value, f->error, "functions[%zu]", i);
        read_function(&function, offer);
    }
}

/* {"type": "allowed_tools", "allowed_tools": {"mode", "tools"}} */
static void read_allowed_choice(pl_fields *choice, pl_tool_offer *offer)
{
    pl_field_require(choice, "allowed_tools");
    pl_fields allowed = pl_fields_of(pl_field_object(choice, "allowed_tools"), choice->error,
                                     "tool_choice.allowed_tools");
    pl_tool_offer_allow(offer, &allowed, true);
    pl_fields_done(&allowed);
}

/* {"type": "function", "function": {"name"}} or, of the legacy field, {"name"} */
static void read_named_choice(json_t *value, bool legacy, pl_fields *f, pl_tool_offer *offer)
{
    static const char *const types[] = {"function", "allowed_tools", NULL};
    pl_fields choice = pl_fields_of(value, f->error, "%s", legacy ? "function_call" : "tool_choice");
    offer->choice = PL_TOOLS_NAMED;
    if (!legacy)
        pl_field_require(&choice, "type");
    if (legacy) {
        offer->name = pl_field_required_text(&choice, "name");
    } else if (pl_field_choice(&choice, "type", 0, types) == 1) {
        read_allowed_choice(&choice, offer);
    } else {
        pl_field_require(&choice, "function");
        pl_fields function = pl_fields_of(pl_field_object(&choice, "function"), f->error, "tool_choice.function");
        offer->name = pl_field_required_text(&function, "name");
        pl_fields_done(&function);
    }
    pl_fields_done(&choice);
}

static void read_tool_choice(pl_fields *f, bool legacy, pl_tool_offer *offer)
{
    static const char *const words[] = {"none", "auto", "required", NULL};
    const char *name = legacy ? "function_call" : "tool_choice";
    json_t *value = pl_field_any(f, name);
    if (json_is_object(value))
        read_named_choice(value, legacy, f, offer);
    else
        offer->choice = (pl_tool_choice)pl_field_choice(f, name, PL_TOOLS_AUTO, words);
}

static void read_calling(pl_call *call, pl_fields *f, chat *data, pl_conversation *c, pl_call_spec *spec)
{
    pl_tool_offer offer = {.choice = PL_TOOLS_AUTO};
    data->legacy = pl_field_given(f, "functions");
    if (data->legacy && pl_field_given(f, "tools"))
        pl_field_fail(f, "functions", "invalid_value", "'functions' and 'tools' cannot be used together.");
    offer.parallel = pl_field_bool(f, "parallel_tool_calls", true) && !data->legacy;
    read_tools(f, &offer);
    read_legacy_functions(f, &offer);
    read_tool_choice(f, data->legacy, &offer);
    pl_field_ignore(f, data->legacy ? "tool_choice" : "function_call");
    data->named = offer.choice == PL_TOOLS_NAMED;
    pl_tool_offer_use(&offer, call, f, data->legacy ? "functions" : "tools", c, spec);
}

/* ---- reading: the rest ------------------------------------------------------------------------- */

static void read_logprobs(pl_fields *f, pl_call_spec *spec)
{
    bool wanted = pl_field_bool(f, "logprobs", false);
    int64_t top = pl_field_int(f, "top_logprobs", 0, 0, 20);
    if (!wanted && pl_field_given(f, "top_logprobs") && top > 0)
        pl_field_fail(f, "top_logprobs", "invalid_value", "'top_logprobs' is only allowed when 'logprobs' is enabled.");
    spec->request.generation.n_logprobs = wanted ? (int32_t)top : -1;
}

static void read_max(pl_call *call, pl_fields *f, pl_call_spec *spec)
{
    if (pl_field_given(f, "max_tokens") && pl_field_given(f, "max_completion_tokens"))
        pl_field_fail(f, "max_tokens", "invalid_value",
                      "Setting 'max_tokens' and 'max_completion_tokens' at the same time is not supported.");
    pl_call_read_max_tokens(call, f, "max_tokens", spec);
    pl_call_read_max_tokens(call, f, "max_completion_tokens", spec);
}

/* What has a meaning elsewhere, and what would be wrong to pass over. */
static void read_others(pl_fields *f)
{
    static const char *const harmless[] = {"user",
                                           "metadata",
                                           "store",
                                           "service_tier",
                                           "reasoning_effort",
                                           "verbosity",
                                           "prediction",
                                           "safety_identifier",
                                           "prompt_cache_key",
                                           "modalities",
                                           "prompt_cache_retention",
                                           "prompt_cache_options"};
    static const char *const unsupported[] = {"audio", "web_search_options", "moderation"};
    static const char *const modalities[] = {"text", NULL};
    json_t *modes = pl_field_array(f, "modalities", 8);
    for (size_t i = 0; i < json_array_size(modes); i++)
        if (strcmp(pl_field_text_at(f, "modalities", modes, i), modalities[0]) != 0)
            pl_field_fail(f, "modalities", "unsupported_value", "This server answers with 'text' only.");
    for (size_t i = 0; i < sizeof unsupported / sizeof unsupported[0]; i++)
        if (pl_field_given(f, unsupported[i]))
            pl_field_fail(f, unsupported[i], "unsupported_parameter",
                          "Unsupported parameter: '%s' is not supported by this server.", unsupported[i]);
    for (size_t i = 0; i < sizeof harmless / sizeof harmless[0]; i++)
        pl_field_ignore(f, harmless[i]);
}

static void read_fields(pl_call *call, pl_fields *f, chat *data, pl_conversation *c, pl_call_spec *spec)
{
    pl_call_read_common(call, f, spec);
    pl_chat_messages_read(f, c);
    pl_call_read_sampling(call, f, 2, spec);
    pl_call_read_stop(call, f, "stop", spec);
    read_max(call, f, spec);
    read_logprobs(f, spec);
    spec->n = (int32_t)pl_field_int(f, "n", 1, 1, PL_CALL_CHOICES);
    spec->stream = pl_field_bool(f, "stream", false);
    data->usage = pl_openai_read_stream_options(f, spec->stream);
    read_others(f);
    pl_response_format_read(call, f, "response_format", false, spec);
    pl_call_read_grammar(call, f, spec);
    read_calling(call, f, data, c, spec);
}

static bool read_chat(pl_call *call, json_t *body, pl_call_spec *spec, pl_api_error *error)
{
    pl_fields f = pl_fields_of(body, error, "%s", "");
    chat *data = pl_call_keep(call, sizeof *data);
    if (!data)
        pl_field_fail_of(&f, "", &(pl_error){PL_ERR_MEMORY, "out of memory"});
    if (!data || !pl_call_converse(call, &f, spec))
        return false;
    spec->format_data = data;
    spec->prompt_field = "messages";
    pl_openai_fingerprint(call, data->fingerprint);
    read_fields(call, &f, data, spec->conversation, spec);
    return pl_fields_done(&f);
}

/* ---- writing: parts ---------------------------------------------------------------------------- */

static const char *finish_of(const pl_call *call, const pl_call_choice *c)
{
    const char *name = pl_call_finish_name(c);
    if (strcmp(name, "tool_calls") != 0)
        return name;
    if (chat_of(call)->named)
        return "stop";
    return chat_of(call)->legacy ? "function_call" : name;
}

/* "logprobs": of n pieces that are tokens, or null */
static void put_logprobs(const pl_call *call, const pl_call_piece *pieces, size_t n, pl_json *json)
{
    pl_json_key(json, "logprobs");
    if (pl_call_asked(call)->request.generation.n_logprobs < 0) {
        pl_json_null(json);
        return;
    }
    const pl_model *model = pl_service_model(pl_call_service(call));
    pl_json_begin_object(json);
    pl_json_key_array(json, "content");
    for (size_t i = 0; i < n; i++)
        if (pieces[i].id >= 0)
            pl_put_logprob(model, &pieces[i], json);
    pl_json_end_array(json);
    pl_json_key(json, "refusal");
    pl_json_null(json);
    pl_json_end_object(json);
}

/* ---- writing: a stream ------------------------------------------------------------------------- */

static pl_json begin_chunk(const pl_call *call)
{
    pl_json json = pl_json_to_buffer();
    pl_openai_begin(call, "chatcmpl-", "chat.completion.chunk", chat_of(call)->fingerprint, &json);
    return json;
}

static void put_no_usage(const pl_call *call, pl_json *json)
{
    if (!chat_of(call)->usage)
        return;
    pl_json_key(json, "usage");
    pl_json_null(json);
}

/* Up to the inside of "delta". */
static pl_json begin_delta(const pl_call *call, int32_t choice)
{
    pl_json json = begin_chunk(call);
    pl_json_key_array(&json, "choices");
    pl_json_begin_object(&json);
    pl_json_put_int(&json, "index", choice);
    pl_json_key_object(&json, "delta");
    return json;
}

static void end_delta(pl_call *call, const pl_call_piece *piece, pl_json *json, pl_strbuf *out)
{
    pl_json_end_object(json);
    if (piece && piece->id >= 0) {
        put_logprobs(call, piece, 1, json);
    } else {
        pl_json_key(json, "logprobs");
        pl_json_null(json);
    }
    pl_json_key(json, "finish_reason");
    pl_json_null(json);
    pl_json_end_object(json);
    pl_json_end_array(json);
    put_no_usage(call, json);
    pl_json_end_object(json);
    pl_call_event(out, NULL, json);
}

static void stream_begin(pl_call *call, pl_strbuf *out)
{
    for (int32_t i = 0; i < pl_call_choices(call); i++) {
        pl_json json = begin_delta(call, i);
        pl_json_put_string(&json, "role", "assistant");
        pl_json_put_string(&json, "content", "");
        pl_json_put_string(&json, "refusal", NULL);
        end_delta(call, NULL, &json, out);
    }
}

static void stream_piece(pl_call *call, int32_t choice, const pl_call_piece *piece, pl_strbuf *out)
{
    pl_json json = begin_delta(call, choice);
    pl_json_key(&json, "content");
    pl_json_text(&json, piece->text, piece->n_bytes);
    end_delta(call, piece, &json, out);
}

static void put_tool_delta(const pl_tool_piece *piece, bool legacy, pl_json *json)
{
    if (!legacy) {
        pl_json_key_array(json, "tool_calls");
        pl_json_begin_object(json);
        pl_json_put_int(json, "index", piece->index);
        if (piece->begin) {
            pl_json_put_string(json, "id", piece->id);
            pl_json_put_string(json, "type", "function");
        }
    }
    pl_json_key_object(json, legacy ? "function_call" : "function");
    if (piece->begin)
        pl_json_put_string(json, "name", piece->name);
    pl_json_key(json, "arguments");
    pl_json_text(json, piece->arguments, piece->n_bytes);
    pl_json_end_object(json);
    if (!legacy) {
        pl_json_end_object(json);
        pl_json_end_array(json);
    }
}

static void stream_tool(pl_call *call, int32_t choice, const pl_tool_piece *piece, pl_strbuf *out)
{
    if (piece->end)
        return;
    pl_json json = begin_delta(call, choice);
    put_tool_delta(piece, chat_of(call)->legacy, &json);
    end_delta(call, NULL, &json, out);
}

static void stream_choice_done(pl_call *call, int32_t choice, pl_strbuf *out)
{
    pl_json json = begin_delta(call, choice);
    pl_json_end_object(&json);
    pl_json_key(&json, "logprobs");
    pl_json_null(&json);
    pl_json_put_string(&json, "finish_reason", finish_of(call, pl_call_choice_at(call, choice)));
    pl_json_end_object(&json);
    pl_json_end_array(&json);
    put_no_usage(call, &json);
    pl_call_put_served(call, choice, &json);
    pl_json_end_object(&json);
    pl_call_event(out, NULL, &json);
}

static void stream_end(pl_call *call, pl_strbuf *out)
{
    if (chat_of(call)->usage) {
        pl_json json = begin_chunk(call);
        pl_json_key_array(&json, "choices");
        pl_json_end_array(&json);
        pl_openai_put_usage(call, &json);
        pl_json_end_object(&json);
        pl_call_event(out, NULL, &json);
    }
    pl_openai_done(out);
}

/* ---- writing: a whole answer ------------------------------------------------------------------- */

static void put_function(const pl_tool_call *tool, const char *key, pl_json *json)
{
    pl_json_key_object(json, key);
    pl_json_put_string(json, "name", tool->name.data);
    pl_json_key(json, "arguments");
    pl_json_text(json, tool->arguments.data, tool->arguments.n);
    pl_json_end_object(json);
}

static void put_tool_calls(const pl_call_choice *c, pl_json *json)
{
    pl_json_key_array(json, "tool_calls");
    for (size_t i = 0; i < c->n_tools; i++) {
        pl_json_begin_object(json);
        pl_json_put_string(json, "id", c->tools[i].id);
        pl_json_put_string(json, "type", "function");
        put_function(&c->tools[i], "function", json);
        pl_json_end_object(json);
    }
    pl_json_end_array(json);
}

static void put_message(const pl_call *call, const pl_call_choice *c, pl_json *json)
{
    pl_json_key_object(json, "message");
    pl_json_put_string(json, "role", "assistant");
    pl_json_key(json, "content");
    if (c->n_tools && c->text.n == 0)
        pl_json_null(json);
    else
        pl_json_text(json, c->text.data ? c->text.data : "", c->text.n);
    pl_json_put_string(json, "refusal", NULL);
    if (c->n_tools && chat_of(call)->legacy)
        put_function(&c->tools[0], "function_call", json);
    else if (c->n_tools)
        put_tool_calls(c, json);
    pl_json_end_object(json);
}

static void put_choice(const pl_call *call, int32_t i, pl_json *json)
{
    const pl_call_choice *c = pl_call_choice_at(call, i);
    put_message(call, c, json);
    put_logprobs(call, c->pieces, c->n_pieces, json);
    pl_json_put_string(json, "finish_reason", finish_of(call, c));
}

static void whole(pl_call *call, pl_json *json)
{
    pl_openai_begin(call, "chatcmpl-", "chat.completion", chat_of(call)->fingerprint, json);
    pl_openai_put_choices(call, put_choice, json);
}

static const pl_call_format format = {
    .read = read_chat,
    .begin = stream_begin,
    .piece = stream_piece,
    .tool = stream_tool,
    .choice_done = stream_choice_done,
    .end = stream_end,
    .fail = pl_openai_fail,
    .whole = whole,
};

void pl_api_chat(void *user, pl_exchange *x)
{
    pl_call_start(user, x, &format);
}
