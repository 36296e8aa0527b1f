/* Events for the client, as OpenAI's clients read them. */
#include "host/serve/realtime_parts.h"

#include <stdlib.h>
#include <string.h>

pl_json realtime_event(realtime *rt, const char *type)
{
    char id[REALTIME_ID];
    pl_json json = pl_json_to_buffer();
    realtime_name(rt, "event", id);
    pl_json_begin_object(&json);
    pl_json_put_string(&json, "type", type);
    pl_json_put_string(&json, "event_id", id);
    return json;
}

void realtime_add(pl_strbuf *out, pl_json *json)
{
    char *text;
    size_t n;
    pl_json_end_object(json);
    if (pl_json_take(json, &text, &n, NULL) != PL_OK) {
        out->failed = true;
        return;
    }
    pl_websocket_put_text(out, text, n);
    free(text);
}

/* ---- the session ------------------------------------------------------------------------------- */

static void put_modalities(const realtime *rt, pl_json *json)
{
    pl_json_key_array(json, rt->beta ? "modalities" : "output_modalities");
    pl_json_string(json, "text");
    pl_json_end_array(json);
}

static void put_max_tokens(const realtime *rt, pl_json *json)
{
    const char *name = rt->beta ? "max_response_output_tokens" : "max_output_tokens";
    if (rt->settings.max_tokens)
        pl_json_put_int(json, name, rt->settings.max_tokens);
    else
        pl_json_put_string(json, name, "inf");
}

static void put_input(const realtime *rt, pl_json *json)
{
    pl_json_key_object(json, "audio");
    pl_json_key_object(json, "input");
    pl_json_key_object(json, "format");
    pl_json_put_string(json, "type", "audio/pcm");
    pl_json_put_int(json, "rate", (int64_t)rt->settings.rate);
    pl_json_end_object(json);
    pl_json_put_string(json, "turn_detection", NULL);
    pl_json_end_object(json);
    pl_json_end_object(json);
}

void realtime_put_session(realtime *rt, const char *type, pl_strbuf *out)
{
    pl_json json = realtime_event(rt, type);
    pl_json_key_object(&json, "session");
    pl_json_put_string(&json, "id", rt->id);
    pl_json_put_string(&json, "object", "realtime.session");
    if (!rt->beta)
        pl_json_put_string(&json, "type", "realtime");
    pl_json_put_string(&json, "model", pl_service_parameters(rt->service)->name);
    pl_json_put_string(&json, "instructions", rt->settings.instructions ? rt->settings.instructions : "");
    put_modalities(rt, &json);
    put_input(rt, &json);
    if (rt->beta) {
        pl_json_put_string(&json, "input_audio_format", "pcm16");
        pl_json_put_string(&json, "turn_detection", NULL);
    }
    pl_json_key(&json, "temperature");
    pl_json_float(&json, rt->settings.temperature);
    put_max_tokens(rt, &json);
    pl_json_end_object(&json);
    realtime_add(out, &json);
}

void realtime_put_error(realtime *rt, const pl_api_error *error, const char *event_id, pl_strbuf *out)
{
    pl_json json = realtime_event(rt, "error");
    pl_json_key_object(&json, "error");
    pl_json_put_string(&json, "type", error->status >= 500 ? "server_error" : "invalid_request_error");
    pl_json_put_string(&json, "code", error->code[0] ? error->code : NULL);
    pl_json_put_string(&json, "message", error->message);
    pl_json_put_string(&json, "param", error->param[0] ? error->param : NULL);
    pl_json_put_string(&json, "event_id", event_id);
    pl_json_end_object(&json);
    realtime_add(out, &json);
}

/* ---- items ------------------------------------------------------------------------------------- */

static const char *role_of(pl_speaker speaker)
{
    return speaker == PL_SPEAKER_USER ? "user" : speaker == PL_SPEAKER_MODEL ? "assistant" : "system";
}

static const char *text_type(const realtime *rt, pl_speaker speaker)
{
    return speaker != PL_SPEAKER_MODEL ? "input_text" : rt->beta ? "text" : "output_text";
}

/* A message's members up to its content. */
static void begin_item(const char *id, const char *status, pl_speaker speaker, pl_json *json)
{
    pl_json_key_object(json, "item");
    pl_json_put_string(json, "id", id);
    pl_json_put_string(json, "object", "realtime.item");
    pl_json_put_string(json, "type", "message");
    pl_json_put_string(json, "status", status);
    pl_json_put_string(json, "role", role_of(speaker));
    pl_json_key_array(json, "content");
}

static void put_text_part(const realtime *rt, pl_speaker speaker, const pl_strbuf *text, pl_json *json)
{
    pl_json_begin_object(json);
    pl_json_put_string(json, "type", text_type(rt, speaker));
    pl_json_key(json, "text");
    pl_json_text(json, text->data ? text->data : "", text->n);
    pl_json_end_object(json);
}

static void put_entries(const realtime *rt, const realtime_entry *entries, size_t n, pl_json *json)
{
    for (size_t i = 0; i < n; i++) {
        if (!entries[i].part.n_rows) {
            put_text_part(rt, entries[i].speaker, &entries[i].text, json);
            continue;
        }
        pl_json_begin_object(json);
        pl_json_put_string(json, "type", "input_audio");
        pl_json_put_string(json, "transcript", NULL);
        pl_json_end_object(json);
    }
}

/* Twice, where there are two events for it. */
void realtime_put_item(realtime *rt, const realtime_entry *entries, size_t n, const char *previous, pl_strbuf *out)
{
    for (int done = 0; done <= !rt->beta; done++) {
        pl_json json = realtime_event(rt, rt->beta ? "conversation.item.created"
                                          : done   ? "conversation.item.done"
                                                   : "conversation.item.added");
        pl_json_put_string(&json, "previous_item_id", previous[0] ? previous : NULL);
        begin_item(entries[0].id, "completed", entries[0].speaker, &json);
        put_entries(rt, entries, n, &json);
        pl_json_end_array(&json);
        pl_json_end_object(&json);
        realtime_add(out, &json);
    }
}

/* ---- the response ------------------------------------------------------------------------------ */

static const char *status_of(const pl_outcome *o)
{
    if (o->status == PL_OK)
        return o->answer.finish == PL_FINISH_LENGTH ? "incomplete" : "completed";
    return o->status == PL_ERR_CANCELLED ? "cancelled" : "failed";
}

static pl_json response_event(realtime *rt, const char *type)
{
    pl_json json = realtime_event(rt, type);
    pl_json_put_string(&json, "response_id", rt->response.id);
    return json;
}

/* An event about the text, the only part of the only item. */
static pl_json part_event(realtime *rt, const char *type)
{
    pl_json json = response_event(rt, type);
    pl_json_put_string(&json, "item_id", rt->response.item);
    pl_json_put_int(&json, "output_index", 0);
    pl_json_put_int(&json, "content_index", 0);
    return json;
}

static void add_part(realtime *rt, const char *type, pl_strbuf *out)
{
    pl_json json = part_event(rt, type);
    pl_json_key_object(&json, "part");
    pl_json_put_string(&json, "type", "text");
    pl_json_key(&json, "text");
    pl_json_text(&json, rt->answer.data ? rt->answer.data : "", rt->answer.n);
    pl_json_end_object(&json);
    realtime_add(out, &json);
}

static void put_own_item(realtime *rt, const char *status, bool whole, pl_json *json)
{
    begin_item(rt->response.item, status, PL_SPEAKER_MODEL, json);
    if (whole)
        put_text_part(rt, PL_SPEAKER_MODEL, &rt->answer, json);
    pl_json_end_array(json);
    pl_json_end_object(json);
}

static void add_output_item(realtime *rt, const char *type, const char *status, bool whole, pl_strbuf *out)
{
    pl_json json = response_event(rt, type);
    pl_json_put_int(&json, "output_index", 0);
    put_own_item(rt, status, whole, &json);
    realtime_add(out, &json);
}

static void add_own_item(realtime *rt, const char *type, const char *status, bool whole, pl_strbuf *out)
{
    pl_json json = realtime_event(rt, type);
    pl_json_put_string(&json, "previous_item_id", rt->response.previous[0] ? rt->response.previous : NULL);
    put_own_item(rt, status, whole, &json);
    realtime_add(out, &json);
}

static void put_usage(const realtime_response *r, pl_json *json)
{
    const pl_generated *a = &r->outcome.answer;
    int64_t prompt = (int64_t)a->n_prompt, answer = (int64_t)a->n_tokens;
    pl_json_key_object(json, "usage");
    pl_json_put_int(json, "total_tokens", prompt + answer);
    pl_json_put_int(json, "input_tokens", prompt);
    pl_json_put_int(json, "output_tokens", answer);
    pl_json_key_object(json, "input_token_details");
    pl_json_put_int(json, "text_tokens", prompt - r->audio_tokens);
    pl_json_put_int(json, "audio_tokens", r->audio_tokens);
    pl_json_put_int(json, "cached_tokens", (int64_t)a->n_prompt_reused);
    pl_json_end_object(json);
    pl_json_key_object(json, "output_token_details");
    pl_json_put_int(json, "text_tokens", answer);
    pl_json_put_int(json, "audio_tokens", 0);
    pl_json_end_object(json);
    pl_json_end_object(json);
}

static void put_status_details(const realtime_response *r, pl_json *json)
{
    const char *status = status_of(&r->outcome);
    if (strcmp(status, "completed") == 0) {
        pl_json_put_string(json, "status_details", NULL);
        return;
    }
    pl_json_key_object(json, "status_details");
    pl_json_put_string(json, "type", status);
    if (r->outcome.status == PL_OK) {
        pl_json_put_string(json, "reason", "max_output_tokens");
    } else if (r->outcome.status == PL_ERR_CANCELLED) {
        pl_json_put_string(json, "reason", "client_cancelled");
    } else {
        pl_api_error error = pl_api_error_of(&r->error);
        pl_json_key_object(json, "error");
        pl_json_put_string(json, "type", "server_error");
        pl_json_put_string(json, "code", error.code);
        pl_json_put_string(json, "message", error.message);
        pl_json_end_object(json);
    }
    pl_json_end_object(json);
}

static void add_response(realtime *rt, const char *type, bool done, pl_strbuf *out)
{
    const realtime_response *r = &rt->response;
    const char *status = done ? status_of(&r->outcome) : "in_progress";
    pl_json json = realtime_event(rt, type);
    pl_json_key_object(&json, "response");
    pl_json_put_string(&json, "id", r->id);
    pl_json_put_string(&json, "object", "realtime.response");
    pl_json_put_string(&json, "status", status);
    if (done)
        put_status_details(r, &json);
    else
        pl_json_put_string(&json, "status_details", NULL);
    put_modalities(rt, &json);
    pl_json_key_array(&json, "output");
    if (done) {
        pl_json_begin_object(&json);
        pl_json_put_string(&json, "id", r->item);
        pl_json_put_string(&json, "object", "realtime.item");
        pl_json_put_string(&json, "type", "message");
        pl_json_put_string(&json, "status", strcmp(status, "completed") == 0 ? status : "incomplete");
        pl_json_put_string(&json, "role", "assistant");
        pl_json_key_array(&json, "content");
        put_text_part(rt, PL_SPEAKER_MODEL, &rt->answer, &json);
        pl_json_end_array(&json);
        pl_json_end_object(&json);
    }
    pl_json_end_array(&json);
    if (done)
        put_usage(r, &json);
    else
        pl_json_put_string(&json, "usage", NULL);
    pl_json_end_object(&json);
    realtime_add(out, &json);
}

void realtime_put_begin(realtime *rt, pl_strbuf *out)
{
    add_response(rt, "response.created", false, out);
    add_output_item(rt, "response.output_item.added", "in_progress", false, out);
    add_own_item(rt, rt->beta ? "conversation.item.created" : "conversation.item.added", "in_progress", false, out);
    add_part(rt, "response.content_part.added", out);
}

void realtime_put_delta(realtime *rt, const char *text, size_t n, pl_strbuf *out)
{
    pl_json json = part_event(rt, rt->beta ? "response.text.delta" : "response.output_text.delta");
    pl_json_key(&json, "delta");
    pl_json_text(&json, text, n);
    realtime_add(out, &json);
}

void realtime_put_end(realtime *rt, pl_strbuf *out)
{
    const char *status = strcmp(status_of(&rt->response.outcome), "completed") == 0 ? "completed" : "incomplete";
    pl_json json = part_event(rt, rt->beta ? "response.text.done" : "response.output_text.done");
    pl_json_key(&json, "text");
    pl_json_text(&json, rt->answer.data ? rt->answer.data : "", rt->answer.n);
    realtime_add(out, &json);
    add_part(rt, "response.content_part.done", out);
    add_output_item(rt, "response.output_item.done", status, true, out);
    if (!rt->beta)
        add_own_item(rt, "conversation.item.done", status, true, out);
    add_response(rt, "response.done", true, out);
}
