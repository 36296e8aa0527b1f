#include "host/serve/api_responses.h"

#include "host/serve/api_responses_read.h"
#include "host/serve/logprobs.h"

#include <stdio.h>
#include <string.h>

/* A response and how far its stream has come. The output is a message, or calls of functions. */
typedef struct responses_data {
    pl_responses_echo echo;
    int64_t n_events;
    int32_t n_items; /* of the output, begun */
    bool open;       /* the last item is a message that may go on */
    bool tool_open;  /* or a call of a function */
    size_t begin;    /* where the message's text begins in the choice's */
} responses_data;

typedef enum item_state { ITEM_IN_PROGRESS, ITEM_COMPLETED, ITEM_INCOMPLETE } item_state;

static const char *const state_names[] = {"in_progress", "completed", "incomplete"};

static bool read_body(pl_call *call, json_t *body, pl_call_spec *spec, pl_api_error *error)
{
    responses_data *data = pl_call_keep(call, sizeof *data);
    spec->format_data = data;
    if (!data) {
        *error = pl_api_error_of(&(pl_error){PL_ERR_MEMORY, "out of memory"});
        return false;
    }
    return pl_responses_read(call, body, spec, &data->echo, error);
}

/* ---- items of the output ----------------------------------------------------------------------- */

typedef struct item_id {
    char text[64];
} item_id;

static item_id message_id(const pl_call *call)
{
    item_id id;
    snprintf(id.text, sizeof id.text, "msg_%s", pl_call_id(call));
    return id;
}

/* From "call_...". */
static item_id tool_item_id(const char *call_id)
{
    const char *under = strchr(call_id, '_');
    item_id id;
    snprintf(id.text, sizeof id.text, "fc_%s", under ? under + 1 : call_id);
    return id;
}

static void put_logprobs(const pl_call *call, pl_json *json)
{
    const pl_call_choice *choice = pl_call_choice_at(call, 0);
    pl_json_key_array(json, "logprobs");
    for (size_t i = 0; i < choice->n_pieces; i++)
        pl_put_logprob(pl_service_model(pl_call_service(call)), &choice->pieces[i], json);
    pl_json_end_array(json);
}

static void put_part(const pl_call *call, const char *text, size_t n, pl_json *json)
{
    pl_json_begin_object(json);
    pl_json_put_string(json, "type", "output_text");
    pl_json_key_array(json, "annotations");
    pl_json_end_array(json);
    put_logprobs(call, json);
    pl_json_key(json, "text");
    pl_json_text(json, text ? text : "", n);
    pl_json_end_object(json);
}

/* An item in progress has no part yet. */
static void put_message(const pl_call *call, item_state state, size_t begin, pl_json *json)
{
    const pl_strbuf *text = &pl_call_choice_at(call, 0)->text;
    pl_json_begin_object(json);
    pl_json_put_string(json, "id", message_id(call).text);
    pl_json_put_string(json, "type", "message");
    pl_json_put_string(json, "status", state_names[state]);
    pl_json_put_string(json, "role", "assistant");
    pl_json_key_array(json, "content");
    if (state != ITEM_IN_PROGRESS)
        put_part(call, text->data ? text->data + begin : "", text->n - begin, json);
    pl_json_end_array(json);
    pl_json_end_object(json);
}

static void put_tool(const char *id, const char *name, const char *arguments, size_t n, item_state state, pl_json *json)
{
    pl_json_begin_object(json);
    pl_json_put_string(json, "id", tool_item_id(id).text);
    pl_json_put_string(json, "type", "function_call");
    pl_json_put_string(json, "status", state_names[state]);
    pl_json_put_string(json, "call_id", id);
    pl_json_put_string(json, "name", name);
    pl_json_key(json, "arguments");
    pl_json_text(json, arguments ? arguments : "", n);
    pl_json_end_object(json);
}

static void put_whole_tool(const pl_tool_call *tool, item_state state, pl_json *json)
{
    put_tool(tool->id, tool->name.data, tool->arguments.data, tool->arguments.n, state, json);
}

static item_state end_state(const pl_call *call)
{
    return pl_call_choice_at(call, 0)->finish == PL_FINISH_LENGTH ? ITEM_INCOMPLETE : ITEM_COMPLETED;
}

/* A limit cuts off the last item only. */
static void put_output(const pl_call *call, pl_json *json)
{
    const pl_call_choice *choice = pl_call_choice_at(call, 0);
    item_state last = end_state(call);
    if (choice->text.n || !choice->n_tools)
        put_message(call, choice->n_tools ? ITEM_COMPLETED : last, 0, json);
    for (size_t i = 0; i < choice->n_tools; i++)
        put_whole_tool(&choice->tools[i], i + 1 < choice->n_tools ? ITEM_COMPLETED : last, json);
}

/* ---- the response object ----------------------------------------------------------------------- */

static void put_raw(pl_json *json, const char *key, const char *value)
{
    pl_json_key(json, key);
    pl_json_raw(json, value, strlen(value));
}

static void put_echo(const pl_call *call, pl_json *json)
{
    const responses_data *data = pl_call_asked(call)->format_data;
    const pl_generation *asked = &pl_call_asked(call)->request.generation;
    put_raw(json, "instructions", data->echo.instructions);
    put_raw(json, "metadata", data->echo.metadata);
    put_raw(json, "tools", data->echo.tools);
    put_raw(json, "tool_choice", data->echo.tool_choice);
    put_raw(json, "text", data->echo.text);
    put_raw(json, "reasoning", "{\"effort\":null,\"summary\":null}");
    pl_json_put_bool(json, "parallel_tool_calls", data->echo.parallel);
    pl_json_key(json, "max_output_tokens");
    if (data->echo.max_output_tokens)
        pl_json_int(json, data->echo.max_output_tokens);
    else
        pl_json_null(json);
    pl_json_key(json, "temperature");
    pl_json_float(json, asked->sampling.temperature);
    pl_json_key(json, "top_p");
    pl_json_float(json, asked->sampling.top_p);
    pl_json_put_int(json, "top_logprobs", asked->n_logprobs > 0 ? asked->n_logprobs : 0);
    pl_json_put_string(json, "truncation", "disabled");
    pl_json_put_string(json, "service_tier", "default");
    pl_json_put_string(json, "previous_response_id", NULL);
    pl_json_put_bool(json, "background", false);
    pl_json_put_bool(json, "store", false);
}

static void put_usage(const pl_call *call, pl_json *json)
{
    const pl_call_usage usage = pl_call_count(call);
    pl_json_key_object(json, "usage");
    pl_json_put_int(json, "input_tokens", usage.prompt);
    pl_json_key_object(json, "input_tokens_details");
    pl_json_put_int(json, "cached_tokens", usage.reused);
    pl_json_put_int(json, "cache_write_tokens", 0);
    pl_json_end_object(json);
    pl_json_put_int(json, "output_tokens", usage.answer);
    pl_json_key_object(json, "output_tokens_details");
    pl_json_put_int(json, "reasoning_tokens", 0);
    pl_json_end_object(json);
    pl_json_put_int(json, "total_tokens", usage.prompt + usage.answer);
    pl_json_end_object(json);
}

/* Why the answer is cut off, and why there is none. */
static void put_troubles(bool incomplete, const pl_api_error *error, pl_json *json)
{
    pl_json_key(json, "incomplete_details");
    if (incomplete) {
        pl_json_begin_object(json);
        pl_json_put_string(json, "reason", "max_output_tokens");
        pl_json_end_object(json);
    } else {
        pl_json_null(json);
    }
    pl_json_key(json, "error");
    if (error) {
        pl_json_begin_object(json);
        pl_json_put_string(json, "code", error->status == 429 ? "rate_limit_exceeded" : "server_error");
        pl_json_put_string(json, "message", error->message);
        pl_json_end_object(json);
    } else {
        pl_json_null(json);
    }
}

/* status: "in_progress", "completed", "incomplete" or "failed"; of those in the middle the output is there. */
static void put_response(const pl_call *call, const char *status, const pl_api_error *error, pl_json *json)
{
    bool over = strcmp(status, "completed") == 0 || strcmp(status, "incomplete") == 0;
    char id[64];
    snprintf(id, sizeof id, "resp_%s", pl_call_id(call));
    pl_json_begin_object(json);
    pl_json_put_string(json, "id", id);
    pl_json_put_string(json, "object", "response");
    pl_json_put_int(json, "created_at", pl_call_created(call));
    pl_json_put_string(json, "status", status);
    pl_json_put_string(json, "model", pl_call_model(call));
    pl_json_key_array(json, "output");
    if (over)
        put_output(call, json);
    pl_json_end_array(json);
    put_troubles(strcmp(status, "incomplete") == 0, error, json);
    put_echo(call, json);
    if (over) {
        put_usage(call, json);
        pl_call_put_served(call, 0, json);
    }
    pl_json_end_object(json);
}

static void whole(pl_call *call, pl_json *json)
{
    put_response(call, state_names[end_state(call)], NULL, json);
}

/* ---- streamed ---------------------------------------------------------------------------------- */

static pl_json begin_event(const pl_call *call, const char *type)
{
    responses_data *data = pl_call_asked(call)->format_data;
    pl_json json = pl_json_to_buffer();
    pl_json_begin_object(&json);
    pl_json_put_string(&json, "type", type);
    pl_json_put_int(&json, "sequence_number", data->n_events++);
    return json;
}

static void end_event(pl_json *json, const char *type, pl_strbuf *out)
{
    pl_json_end_object(json);
    pl_call_event(out, type, json);
}

static void put_response_event(const pl_call *call, const char *type, const char *status, const pl_api_error *error,
                               pl_strbuf *out)
{
    pl_json json = begin_event(call, type);
    pl_json_key(&json, "response");
    put_response(call, status, error, &json);
    end_event(&json, type, out);
}

/* An event about the last item, up to what is particular to it. */
static pl_json begin_item_event(const pl_call *call, const char *type, const char *id)
{
    const responses_data *data = pl_call_asked(call)->format_data;
    pl_json json = begin_event(call, type);
    if (id)
        pl_json_put_string(&json, "item_id", id);
    pl_json_put_int(&json, "output_index", data->n_items - 1);
    return json;
}

static pl_json begin_part_event(const pl_call *call, const char *type)
{
    pl_json json = begin_item_event(call, type, message_id(call).text);
    pl_json_put_int(&json, "content_index", 0);
    return json;
}

static void put_message_event(const pl_call *call, const char *type, item_state state, pl_strbuf *out)
{
    const responses_data *data = pl_call_asked(call)->format_data;
    pl_json json = begin_item_event(call, type, NULL);
    pl_json_key(&json, "item");
    put_message(call, state, data->begin, &json);
    end_event(&json, type, out);
}

static void put_part_event(const pl_call *call, const char *type, const char *text, size_t n, pl_strbuf *out)
{
    pl_json json = begin_part_event(call, type);
    pl_json_key(&json, "part");
    put_part(call, text, n, &json);
    end_event(&json, type, out);
}

static void open_message(const pl_call *call, size_t text_begin, pl_strbuf *out)
{
    responses_data *data = pl_call_asked(call)->format_data;
    data->open = true;
    data->begin = text_begin;
    data->n_items++;
    put_message_event(call, "response.output_item.added", ITEM_IN_PROGRESS, out);
    put_part_event(call, "response.content_part.added", "", 0, out);
}

static void close_message(const pl_call *call, item_state state, pl_strbuf *out)
{
    responses_data *data = pl_call_asked(call)->format_data;
    const pl_strbuf *all = &pl_call_choice_at(call, 0)->text;
    const char *text = all->data ? all->data + data->begin : "";
    if (!data->open)
        return;
    pl_json json = begin_part_event(call, "response.output_text.done");
    pl_json_key(&json, "text");
    pl_json_text(&json, text, all->n - data->begin);
    put_logprobs(call, &json);
    end_event(&json, "response.output_text.done", out);
    put_part_event(call, "response.content_part.done", text, all->n - data->begin, out);
    put_message_event(call, "response.output_item.done", state, out);
    data->open = false;
}

static void begin(pl_call *call, pl_strbuf *out)
{
    put_response_event(call, "response.created", "in_progress", NULL, out);
    put_response_event(call, "response.in_progress", "in_progress", NULL, out);
}

static void piece(pl_call *call, int32_t choice, const pl_call_piece *piece, pl_strbuf *out)
{
    const responses_data *data = pl_call_asked(call)->format_data;
    if (!data->open)
        open_message(call, pl_call_choice_at(call, choice)->text.n - piece->n_bytes, out);
    pl_json json = begin_part_event(call, "response.output_text.delta");
    pl_json_key(&json, "delta");
    pl_json_text(&json, piece->text, piece->n_bytes);
    pl_json_key_array(&json, "logprobs");
    if (piece->id >= 0 && pl_call_asked(call)->request.generation.n_logprobs >= 0)
        pl_put_logprob(pl_service_model(pl_call_service(call)), piece, &json);
    pl_json_end_array(&json);
    end_event(&json, "response.output_text.delta", out);
}

static void put_tool_event(const pl_call *call, const pl_tool_piece *piece, const char *type, item_state state,
                           pl_strbuf *out)
{
    const pl_strbuf *all = &pl_call_choice_at(call, 0)->tools[piece->index].arguments;
    bool begun = state == ITEM_IN_PROGRESS;
    pl_json json = begin_item_event(call, type, NULL);
    pl_json_key(&json, "item");
    put_tool(piece->id, piece->name, begun ? "" : all->data, begun ? 0 : all->n, state, &json);
    end_event(&json, type, out);
}

static void end_tool(const pl_call *call, const pl_tool_piece *piece, item_state state, pl_strbuf *out)
{
    responses_data *data = pl_call_asked(call)->format_data;
    const pl_strbuf *all = &pl_call_choice_at(call, 0)->tools[piece->index].arguments;
    pl_json json = begin_item_event(call, "response.function_call_arguments.done", tool_item_id(piece->id).text);
    pl_json_put_string(&json, "name", piece->name);
    pl_json_key(&json, "arguments");
    pl_json_text(&json, all->data ? all->data : "", all->n);
    end_event(&json, "response.function_call_arguments.done", out);
    put_tool_event(call, piece, "response.output_item.done", state, out);
    data->tool_open = false;
}

static void tool(pl_call *call, int32_t choice, const pl_tool_piece *piece, pl_strbuf *out)
{
    responses_data *data = pl_call_asked(call)->format_data;
    (void)choice;
    if (piece->begin) {
        close_message(call, ITEM_COMPLETED, out);
        data->n_items++;
        data->tool_open = true;
        put_tool_event(call, piece, "response.output_item.added", ITEM_IN_PROGRESS, out);
    }
    if (piece->n_bytes) {
        pl_json json = begin_item_event(call, "response.function_call_arguments.delta", tool_item_id(piece->id).text);
        pl_json_key(&json, "delta");
        pl_json_text(&json, piece->arguments, piece->n_bytes);
        end_event(&json, "response.function_call_arguments.delta", out);
    }
    if (piece->end)
        end_tool(call, piece, ITEM_COMPLETED, out);
}

static void choice_done(pl_call *call, int32_t i, pl_strbuf *out)
{
    const responses_data *data = pl_call_asked(call)->format_data;
    const pl_call_choice *choice = pl_call_choice_at(call, i);
    item_state state = end_state(call);
    if (data->n_items == 0)
        open_message(call, 0, out);
    close_message(call, state, out);
    if (data->tool_open) {
        const pl_tool_call *last = &choice->tools[choice->n_tools - 1];
        const pl_tool_piece cut = {.index = (int32_t)choice->n_tools - 1, .id = last->id, .name = last->name.data};
        end_tool(call, &cut, ITEM_INCOMPLETE, out);
    }
    put_response_event(call, state == ITEM_INCOMPLETE ? "response.incomplete" : "response.completed",
                       state_names[state], NULL, out);
}

static void fail(pl_call *call, const pl_api_error *error, pl_strbuf *out)
{
    put_response_event(call, "response.failed", "failed", error, out);
}

void pl_api_responses(void *user, pl_exchange *x)
{
    static const pl_call_format format = {
        .read = read_body,
        .begin = begin,
        .piece = piece,
        .tool = tool,
        .choice_done = choice_done,
        .fail = fail,
        .whole = whole,
        .repeats = true,
    };
    pl_call_start(user, x, &format);
}
