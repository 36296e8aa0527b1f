#include "host/serve/api_messages.h"

#include "host/serve/api_messages_read.h"

#include <stdlib.h>
#include <string.h>

/* A streamed answer: its content is a row of blocks, of which the last may be open. */
typedef struct message_stream {
    int32_t n_blocks; /* begun */
    bool open, text;  /* the last block, and it is a text */
} message_stream;

/* ---- the body ---------------------------------------------------------------------------------- */

/* {"type": "json_schema", "schema"} */
static void read_format(pl_call *call, pl_fields *config, pl_call_spec *spec)
{
    static const char *const types[] = {"json_schema", NULL};
    json_t *object = pl_field_object(config, "format");
    if (!object)
        return;
    pl_fields format = pl_fields_of(object, config->error, "%s.format", config->where);
    pl_field_require(&format, "type");
    pl_field_choice(&format, "type", 0, types);
    pl_field_require(&format, "schema");
    json_t *schema = pl_field_object(&format, "schema");
    char *text = schema ? json_dumps(schema, JSON_COMPACT) : NULL;
    spec->form = text ? pl_call_keep_text(call, text, strlen(text)) : NULL;
    if (text && spec->form)
        pl_call_use_grammar(call, &format, "schema", PL_GRAMMAR_JSON_SCHEMA, text, strlen(text), spec);
    else if (schema)
        pl_field_fail_of(&format, "schema", &(pl_error){PL_ERR_MEMORY, "out of memory"});
    free(text);
    pl_fields_done(&format);
}

static void read_output_config(pl_call *call, pl_fields *f, pl_call_spec *spec)
{
    json_t *object = pl_field_object(f, "output_config");
    pl_fields config = pl_fields_of(object, f->error, "output_config");
    pl_field_ignore(&config, "effort");
    read_format(call, &config, spec);
    pl_fields_done(&config);
}

static void read_settings(pl_call *call, pl_fields *f, pl_call_spec *spec)
{
    pl_call_read_common(call, f, spec);
    pl_call_read_sampling(call, f, 1, spec);
    pl_field_require(f, "max_tokens");
    pl_call_read_max_tokens(call, f, "max_tokens", spec);
    pl_call_read_stop(call, f, "stop_sequences", spec);
    read_output_config(call, f, spec);
    pl_call_read_grammar(call, f, spec);
    spec->stream = pl_field_bool(f, "stream", false);
    spec->prompt_field = "messages";
    spec->format_data = pl_call_keep(call, sizeof(message_stream));
    if (!spec->format_data)
        pl_field_fail_of(f, "", &(pl_error){PL_ERR_MEMORY, "out of memory"});
}

static void read_talk(pl_call *call, pl_fields *f, pl_call_spec *spec)
{
    pl_tool_offer offer = {0};
    pl_messages_read(f, spec->conversation, &offer);
    pl_tool_offer_use(&offer, call, f, "tools", spec->conversation, spec);
}

static bool read_body(pl_call *call, json_t *body, pl_call_spec *spec, pl_api_error *error)
{
    pl_fields f = pl_fields_of(body, error, "%s", "");
    if (!pl_call_converse(call, &f, spec))
        return false;
    read_settings(call, &f, spec);
    read_talk(call, &f, spec);
    return pl_fields_done(&f);
}

/* ---- what an answer is told with --------------------------------------------------------------- */

static const char *stop_reason(const pl_call *call, const pl_call_choice *choice)
{
    switch (choice->finish) {
    case PL_FINISH_STOP: return "stop_sequence";
    case PL_FINISH_LENGTH:
        return choice->answer.n_tokens < (size_t)pl_call_asked(call)->request.generation.max_tokens
                   ? "model_context_window_exceeded"
                   : "max_tokens";
    case PL_FINISH_EOS:
    case PL_FINISH_CANCEL: break;
    }
    return choice->n_tools ? "tool_use" : "end_turn";
}

/* stop_reason and stop_sequence; of no choice: null. */
static void put_stop(const pl_call *call, const pl_call_choice *choice, pl_json *json)
{
    const pl_generation *asked = &pl_call_asked(call)->request.generation;
    const char *sequence = NULL;
    if (choice && choice->finish == PL_FINISH_STOP && choice->answer.stop_index >= 0 &&
        (size_t)choice->answer.stop_index < asked->n_stop)
        sequence = asked->stop[choice->answer.stop_index];
    pl_json_put_string(json, "stop_reason", choice ? stop_reason(call, choice) : NULL);
    pl_json_put_string(json, "stop_sequence", sequence);
}

/* Tokens that were reused are not among input_tokens. */
static void put_usage(int64_t prompt, int64_t reused, int64_t answer, pl_json *json)
{
    pl_json_key_object(json, "usage");
    pl_json_put_int(json, "input_tokens", prompt - reused);
    pl_json_put_int(json, "cache_creation_input_tokens", 0);
    pl_json_put_int(json, "cache_read_input_tokens", reused);
    pl_json_put_int(json, "output_tokens", answer);
    pl_json_end_object(json);
}

static void put_head(const pl_call *call, pl_json *json)
{
    char id[64];
    snprintf(id, sizeof id, "msg_%s", pl_call_id(call));
    pl_json_put_string(json, "id", id);
    pl_json_put_string(json, "type", "message");
    pl_json_put_string(json, "role", "assistant");
    pl_json_put_string(json, "model", pl_call_model(call));
}

/* The arguments of a call, on one line. Those that were cut off by a limit are no JSON: then there are none. */
static void put_input(const pl_strbuf *arguments, pl_json *json)
{
    json_t *input = arguments->n ? json_loadb(arguments->data, arguments->n, 0, NULL) : NULL;
    if (arguments->n && !input) /* integers beyond 64 bits */
        input = json_loadb(arguments->data, arguments->n, JSON_DECODE_INT_AS_REAL, NULL);
    char *text = json_is_object(input) ? json_dumps(input, JSON_COMPACT) : NULL;
    pl_json_key(json, "input");
    pl_json_raw(json, text ? text : "{}", text ? strlen(text) : 2);
    free(text);
    json_decref(input);
}

static void put_tool(const char *id, const char *name, const pl_strbuf *arguments, pl_json *json)
{
    pl_json_begin_object(json);
    pl_json_put_string(json, "type", "tool_use");
    pl_json_put_string(json, "id", id);
    pl_json_put_string(json, "name", name);
    put_input(arguments, json);
    pl_json_end_object(json);
}

static void put_text(const char *text, size_t n, pl_json *json)
{
    pl_json_begin_object(json);
    pl_json_put_string(json, "type", "text");
    pl_json_key(json, "text");
    pl_json_text(json, text ? text : "", n);
    pl_json_end_object(json);
}

static void whole(pl_call *call, pl_json *json)
{
    const pl_call_choice *choice = pl_call_choice_at(call, 0);
    const pl_call_usage usage = pl_call_count(call);
    pl_json_begin_object(json);
    put_head(call, json);
    pl_json_key_array(json, "content");
    if (choice->text.n)
        put_text(choice->text.data, choice->text.n, json);
    for (size_t i = 0; i < choice->n_tools; i++) {
        const pl_tool_call *tool = &choice->tools[i];
        put_tool(tool->id, tool->name.data ? tool->name.data : "", &tool->arguments, json);
    }
    pl_json_end_array(json);
    put_stop(call, choice, json);
    put_usage(usage.prompt, usage.reused, usage.answer, json);
    pl_call_put_served(call, 0, json);
    pl_json_end_object(json);
}

/* ---- streamed ---------------------------------------------------------------------------------- */

static pl_json begin_event(const char *type)
{
    pl_json json = pl_json_to_buffer();
    pl_json_begin_object(&json);
    pl_json_put_string(&json, "type", type);
    return json;
}

static void end_event(pl_json *json, const char *type, pl_strbuf *out)
{
    pl_json_end_object(json);
    pl_call_event(out, type, json);
}

static pl_json begin_block_event(const char *type, int32_t index)
{
    pl_json json = begin_event(type);
    pl_json_put_int(&json, "index", index);
    return json;
}

static void close_block(message_stream *stream, pl_strbuf *out)
{
    if (!stream->open)
        return;
    pl_json json = begin_block_event("content_block_stop", stream->n_blocks - 1);
    end_event(&json, "content_block_stop", out);
    stream->open = false;
}

/* Begins the event of a new block, up to the block itself. */
static pl_json open_block(message_stream *stream, bool text, pl_strbuf *out)
{
    close_block(stream, out);
    stream->open = true;
    stream->text = text;
    pl_json json = begin_block_event("content_block_start", stream->n_blocks++);
    pl_json_key(&json, "content_block");
    return json;
}

static void put_delta(const char *type, const char *key, const char *text, size_t n, int32_t index, pl_strbuf *out)
{
    pl_json json = begin_block_event("content_block_delta", index);
    pl_json_key_object(&json, "delta");
    pl_json_put_string(&json, "type", type);
    pl_json_key(&json, key);
    pl_json_text(&json, text, n);
    pl_json_end_object(&json);
    end_event(&json, "content_block_delta", out);
}

static void begin(pl_call *call, pl_strbuf *out)
{
    pl_json json = begin_event("message_start");
    pl_json_key_object(&json, "message");
    put_head(call, &json);
    pl_json_key_array(&json, "content");
    pl_json_end_array(&json);
    put_stop(call, NULL, &json);
    put_usage((int64_t)pl_call_asked(call)->prompts[0].n, 0, 0, &json);
    pl_json_end_object(&json);
    end_event(&json, "message_start", out);
    json = begin_event("ping");
    end_event(&json, "ping", out);
}

static void piece(pl_call *call, int32_t choice, const pl_call_piece *piece, pl_strbuf *out)
{
    message_stream *stream = pl_call_asked(call)->format_data;
    (void)choice;
    if (!piece->n_bytes)
        return;
    if (!stream->open || !stream->text) {
        pl_json json = open_block(stream, true, out);
        put_text("", 0, &json);
        end_event(&json, "content_block_start", out);
    }
    put_delta("text_delta", "text", piece->text, piece->n_bytes, stream->n_blocks - 1, out);
}

static void tool(pl_call *call, int32_t choice, const pl_tool_piece *piece, pl_strbuf *out)
{
    message_stream *stream = pl_call_asked(call)->format_data;
    (void)choice;
    if (piece->begin) {
        pl_json json = open_block(stream, false, out);
        put_tool(piece->id, piece->name, &(pl_strbuf){0}, &json);
        end_event(&json, "content_block_start", out);
    }
    if (piece->n_bytes)
        put_delta("input_json_delta", "partial_json", piece->arguments, piece->n_bytes, stream->n_blocks - 1, out);
    if (piece->end)
        close_block(stream, out);
}

static void choice_done(pl_call *call, int32_t i, pl_strbuf *out)
{
    const pl_call_usage usage = pl_call_count(call);
    close_block(pl_call_asked(call)->format_data, out);
    pl_json json = begin_event("message_delta");
    pl_json_key_object(&json, "delta");
    put_stop(call, pl_call_choice_at(call, i), &json);
    pl_json_end_object(&json);
    put_usage(usage.prompt, usage.reused, usage.answer, &json);
    pl_call_put_served(call, i, &json);
    end_event(&json, "message_delta", out);
    json = begin_event("message_stop");
    end_event(&json, "message_stop", out);
}

static void fail(pl_call *call, const pl_api_error *error, pl_strbuf *out)
{
    pl_json json = pl_json_to_buffer();
    (void)call;
    pl_json_begin_object(&json);
    pl_api_put_anthropic_error(&json, error);
    pl_json_end_object(&json);
    pl_call_event(out, "error", &json);
}

void pl_api_messages(void *user, pl_exchange *x)
{
    static const pl_call_format format = {
        .read = read_body,
        .begin = begin,
        .piece = piece,
        .tool = tool,
        .choice_done = choice_done,
        .fail = fail,
        .whole = whole,
    };
    pl_call_start(user, x, &format);
}

/* ---- counting ---------------------------------------------------------------------------------- */

static bool read_count(pl_call *call, json_t *body, pl_call_spec *spec, pl_api_error *error)
{
    pl_fields f = pl_fields_of(body, error, "%s", "");
    pl_tool_offer offer = {0};
    if (!pl_call_converse(call, &f, spec))
        return false;
    spec->count = true;
    spec->prompt_field = "messages";
    pl_field_ignore(&f, "model");
    pl_field_ignore(&f, "output_config");
    pl_messages_read(&f, spec->conversation, &offer);
    if (offer.tools && offer.choice != PL_TOOLS_NONE)
        pl_conversation_offer(spec->conversation, offer.tools, offer.parallel);
    json_decref(offer.tools);
    return pl_fields_done(&f);
}

static void whole_count(pl_call *call, pl_json *json)
{
    pl_json_begin_object(json);
    pl_json_put_int(json, "input_tokens", pl_call_count(call).prompt);
    pl_json_end_object(json);
}

static const pl_call_format count_format = {.read = read_count, .whole = whole_count};

void pl_api_count_tokens(void *user, pl_exchange *x)
{
    pl_call_start(user, x, &count_format);
}
