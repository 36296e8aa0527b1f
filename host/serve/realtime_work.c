/* A session's messages, one after another, on media threads. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "host/serve/base64.h"
#include "host/serve/realtime_parts.h"

#define MOST_ENTRIES 4096
#define MOST_PARTS 64 /* of an item */

/* ---- what is kept ------------------------------------------------------------------------------ */

static void free_entry(realtime_entry *e)
{
    pl_strbuf_free(&e->text);
    pl_media_part_free(&e->part);
}

void realtime_forget(realtime *rt)
{
    for (size_t i = 0; i < rt->n_entries; i++)
        free_entry(&rt->entries[i]);
    free(rt->entries);
    free(rt->settings.instructions);
    pl_hearing_clear(&rt->hearing);
}

/* NULL: there are too many, or no memory. */
static realtime_entry *add_entry(realtime *rt, const char *id, pl_speaker speaker, pl_fields *f)
{
    if (rt->n_entries == MOST_ENTRIES) {
        pl_field_fail(f, "", "conversation_too_long", "A conversation holds at most %d parts.", MOST_ENTRIES);
        return NULL;
    }
    if (rt->n_entries == rt->entries_room) {
        size_t room = rt->entries_room ? 2 * rt->entries_room : 8;
        realtime_entry *grown = realloc(rt->entries, room * sizeof *grown);
        pl_error err;
        if (!grown) {
            pl_fail_memory(&err, room * sizeof *grown, "a conversation");
            pl_field_fail_of(f, "", &err);
            return NULL;
        }
        rt->entries = grown;
        rt->entries_room = room;
    }
    realtime_entry *e = &rt->entries[rt->n_entries++];
    *e = (realtime_entry){.speaker = speaker};
    snprintf(e->id, sizeof e->id, "%s", id);
    return e;
}

static void drop_entries(realtime *rt, size_t n)
{
    while (rt->n_entries > n)
        free_entry(&rt->entries[--rt->n_entries]);
}

static const char *last_id(const realtime *rt, size_t n)
{
    return n ? rt->entries[n - 1].id : "";
}

/* Adds what was put as the work's. */
static void say(realtime *rt, pl_strbuf *out)
{
    pthread_mutex_lock(&rt->lock);
    pl_strbuf_add(&rt->out, out->data, out->n);
    rt->out.failed = rt->out.failed || out->failed;
    pthread_mutex_unlock(&rt->lock);
    pl_strbuf_free(out);
    realtime_tell(rt);
}

/* ---- settings ---------------------------------------------------------------------------------- */

static void refuse(pl_fields *f, const char *name, const char *what)
{
    if (pl_field_given(f, name))
        pl_field_fail(f, name, "unsupported_parameter", "Unsupported parameter: '%s'. %s", name, what);
}

static void read_modalities(pl_fields *f, const char *name)
{
    json_t *list = pl_field_array(f, name, 2);
    for (size_t i = 0; i < json_array_size(list); i++)
        if (strcmp(pl_field_text_at(f, name, list, i), "text") != 0)
            pl_field_fail(f, name, "unsupported_value", "Unsupported value: this server answers with \"text\" only.");
}

static void read_max_tokens(realtime *rt, pl_fields *f, const char *name, realtime_settings *s)
{
    const pl_service_params *params = pl_service_parameters(rt->service);
    json_t *value = pl_field_any(f, name);
    if (!value)
        return;
    if (json_is_string(value) && strcmp(json_string_value(value), "inf") == 0)
        s->max_tokens = 0;
    else
        s->max_tokens = (int32_t)pl_field_int(f, name, 0, 1, params->max_tokens > 0 ? params->max_tokens : INT32_MAX);
}

/* What a session and a response may both set. */
static void read_common(realtime *rt, pl_fields *f, realtime_settings *s, const char **instructions)
{
    static const char *const ignored[] = {
        "voice",  "speed", "output_audio_format", "tool_choice", "metadata", "tracing", "include",
        "object", "id",    "expires_at"};
    *instructions = pl_field_text(f, "instructions", *instructions);
    read_modalities(f, "modalities");
    read_modalities(f, "output_modalities");
    read_max_tokens(rt, f, "max_output_tokens", s);
    read_max_tokens(rt, f, "max_response_output_tokens", s);
    s->temperature = (float)pl_field_number(f, "temperature", (double)s->temperature, 0, 2);
    if (json_array_size(pl_field_array(f, "tools", 1)))
        pl_field_fail(f, "tools", "unsupported_parameter", "Unsupported parameter: 'tools'. Nothing is called here.");
    for (size_t i = 0; i < sizeof ignored / sizeof *ignored; i++)
        pl_field_ignore(f, ignored[i]);
}

static void read_format(realtime *rt, json_t *object, pl_api_error *error, double *rate)
{
    pl_fields f = pl_fields_of(object, error, "session.audio.input.format");
    static const char *const types[] = {"audio/pcm", NULL};
    pl_field_choice(&f, "type", 0, types);
    int64_t asked = pl_field_int(&f, "rate", 24000, 16000, 24000);
    if (asked != 16000 && asked != 24000)
        pl_field_fail(&f, "rate", "unsupported_value", "Unsupported value: 'rate' is 24000 or 16000.");
    else if (rt->hearing.resampler && (double)asked != *rate)
        pl_field_fail(&f, "rate", "input_audio_buffer_not_empty", "The rate changes while sound waits.");
    if (pl_fields_done(&f))
        *rate = (double)asked;
}

static void read_turns(pl_fields *f)
{
    refuse(f, "turn_detection", "Turns are ended by input_audio_buffer.commit: set it to null.");
}

static void read_audio(realtime *rt, json_t *object, pl_api_error *error, double *rate)
{
    pl_fields audio = pl_fields_of(object, error, "session.audio");
    json_t *in = pl_field_object(&audio, "input");
    pl_field_ignore(&audio, "output");
    if (in) {
        pl_fields f = pl_fields_of(in, error, "session.audio.input");
        json_t *format = pl_field_object(&f, "format");
        if (format)
            read_format(rt, format, error, rate);
        read_turns(&f);
        refuse(&f, "transcription", "Speech is not transcribed by the way.");
        pl_field_ignore(&f, "noise_reduction");
        pl_fields_done(&f);
    }
    pl_fields_done(&audio);
}

bool realtime_read_response(realtime *rt, pl_fields *event, realtime_settings *s, const char **instructions)
{
    static const char *const conversations[] = {"auto", NULL};
    json_t *object = pl_field_object(event, "response");
    if (object) {
        pl_fields f = pl_fields_of(object, event->error, "response");
        read_common(rt, &f, s, instructions);
        pl_field_choice(&f, "conversation", 0, conversations);
        refuse(&f, "input", "Create items of the conversation.");
        pl_field_ignore(&f, "audio");
        pl_fields_done(&f);
    }
    return pl_fields_done(event);
}

static bool set_instructions(realtime_settings *s, const char *text, pl_fields *f)
{
    pl_error err;
    char *copy = text ? strdup(text) : NULL;
    if (text && !copy) {
        pl_fail_memory(&err, strlen(text), "instructions");
        pl_field_fail_of(f, "", &err);
        return false;
    }
    s->instructions = copy;
    return true;
}

/* All of it or nothing. */
static void on_session_update(realtime *rt, pl_fields *event)
{
    static const char *const formats[] = {"pcm16", NULL}, *const types[] = {"realtime", NULL};
    realtime_settings s = rt->settings;
    const char *instructions = s.instructions;
    pl_field_require(event, "session");
    pl_fields f = pl_fields_of(pl_field_object(event, "session"), event->error, "session");
    if (pl_fields_failed(event))
        return;
    read_common(rt, &f, &s, &instructions);
    pl_field_choice(&f, "type", 0, types);
    pl_field_choice(&f, "input_audio_format", 0, formats);
    read_turns(&f);
    refuse(&f, "input_audio_transcription", "Speech is not transcribed by the way.");
    pl_field_ignore(&f, "input_audio_noise_reduction");
    pl_field_ignore(&f, "model");
    json_t *audio = pl_field_object(&f, "audio");
    if (audio)
        read_audio(rt, audio, event->error, &s.rate);
    if (!pl_fields_done(&f) || !pl_fields_done(event) || !set_instructions(&s, instructions, event))
        return;
    free(rt->settings.instructions);
    rt->settings = s;
    pl_strbuf out = {0};
    realtime_put_session(rt, "session.updated", &out);
    say(rt, &out);
}

/* ---- sound ------------------------------------------------------------------------------------- */

static bool hear(realtime *rt, pl_hearing *h, const char *name, pl_fields *f)
{
    unsigned char *bytes;
    size_t n;
    pl_error err = {.message = ""};
    const char *text = pl_field_required_text(f, name);
    if (!pl_fields_done(f))
        return false;
    if (pl_base64_decode(text, strlen(text), &bytes, &n, &err) != PL_OK) {
        pl_field_fail(f, name, "invalid_base64", "%s", err.message);
        return false;
    }
    pl_status status = pl_hearing_add(h, rt->settings.rate, bytes, n, &err);
    free(bytes);
    if (status != PL_OK)
        pl_field_fail_of(f, name, &err);
    return status == PL_OK;
}

/* The speech, which has n samples, as an entry. */
static bool keep_speech(realtime *rt, pl_hearing *h, const char *id, const char *name, pl_fields *f)
{
    pl_media_part part = {0};
    pl_error err = {.message = ""};
    size_t n = h->n;
    pl_status status = PL_OK;
    if ((double)(rt->heard + n) > PL_MEDIA_SOUND_MOST_S * PL_SOUND_RATE)
        status = pl_fail(&err, PL_ERR_CONTEXT, "more than %g seconds of sound", PL_MEDIA_SOUND_MOST_S);
    if (status == PL_OK)
        status = pl_hearing_end(h, &part, &err);
    if (status != PL_OK) {
        pl_hearing_clear(h);
        pl_field_fail_of(f, name, &err);
        return false;
    }
    realtime_entry *e = add_entry(rt, id, PL_SPEAKER_USER, f);
    if (!e) {
        pl_media_part_free(&part);
        return false;
    }
    e->part = part;
    rt->heard += n;
    return true;
}

static void on_append(realtime *rt, pl_fields *event)
{
    hear(rt, &rt->hearing, "audio", event);
}

static void on_clear(realtime *rt, pl_fields *event)
{
    pl_strbuf out = {0};
    if (!pl_fields_done(event))
        return;
    pl_hearing_clear(&rt->hearing);
    pl_json json = realtime_event(rt, "input_audio_buffer.cleared");
    realtime_add(&out, &json);
    say(rt, &out);
}

static void on_commit(realtime *rt, pl_fields *event)
{
    char id[REALTIME_ID], previous[REALTIME_ID];
    pl_strbuf out = {0};
    if (!pl_fields_done(event))
        return;
    if (rt->hearing.n == 0 && !rt->hearing.resampler) {
        pl_field_fail(event, "", "input_audio_buffer_commit_empty", "The buffer is empty.");
        return;
    }
    realtime_name(rt, "item", id);
    snprintf(previous, sizeof previous, "%s", last_id(rt, rt->n_entries));
    if (!keep_speech(rt, &rt->hearing, id, "", event))
        return;
    pl_json json = realtime_event(rt, "input_audio_buffer.committed");
    pl_json_put_string(&json, "previous_item_id", previous[0] ? previous : NULL);
    pl_json_put_string(&json, "item_id", id);
    realtime_add(&out, &json);
    realtime_put_item(rt, &rt->entries[rt->n_entries - 1], 1, previous, &out);
    say(rt, &out);
}

/* ---- items ------------------------------------------------------------------------------------- */

static void read_speech(realtime *rt, const char *id, pl_fields *f)
{
    pl_hearing h = {.service = rt->service, .stop = rt->hearing.stop};
    pl_field_ignore(f, "transcript");
    if (hear(rt, &h, "audio", f))
        keep_speech(rt, &h, id, "audio", f);
    pl_hearing_clear(&h);
}

static void read_part(realtime *rt, const char *id, pl_speaker speaker, json_t *value, size_t i, pl_api_error *error)
{
    static const char *const types[] = {"input_text", "text", "output_text", "input_audio", NULL};
    pl_fields f = pl_fields_of(value, error, "item.content[%zu]", i);
    pl_field_require(&f, "type");
    int type = pl_field_choice(&f, "type", 0, types);
    if (pl_fields_failed(&f))
        return;
    if (type == 3 && speaker == PL_SPEAKER_USER) {
        read_speech(rt, id, &f);
        return;
    }
    if (type == 3)
        pl_field_fail(&f, "type", "unsupported_value", "Unsupported value: only the user speaks.");
    const char *text = pl_field_required_text(&f, "text");
    realtime_entry *e = pl_fields_done(&f) ? add_entry(rt, id, speaker, &f) : NULL;
    if (e)
        pl_strbuf_add_text(&e->text, text);
}

static bool read_item(realtime *rt, json_t *object, pl_api_error *error)
{
    static const char *const roles[] = {"system", "user", "assistant", NULL}, *const types[] = {"message", NULL};
    static const pl_speaker speakers[] = {PL_SPEAKER_SYSTEM, PL_SPEAKER_USER, PL_SPEAKER_MODEL};
    char id[REALTIME_ID];
    pl_fields f = pl_fields_of(object, error, "item");
    realtime_name(rt, "item", id);
    pl_field_require(&f, "role");
    pl_field_require(&f, "content");
    pl_field_choice(&f, "type", 0, types);
    int role = pl_field_choice(&f, "role", 1, roles);
    const char *named = pl_field_text(&f, "id", id);
    json_t *content = pl_field_array(&f, "content", MOST_PARTS);
    pl_field_ignore(&f, "object");
    pl_field_ignore(&f, "status");
    if (strlen(named) >= REALTIME_ID)
        pl_field_fail(&f, "id", "string_above_max_length", "An id has at most %d characters.", REALTIME_ID - 1);
    if (content && json_array_size(content) == 0)
        pl_field_fail(&f, "content", "empty_array", "An item says something.");
    if (!pl_fields_done(&f))
        return false;
    for (size_t i = 0; i < json_array_size(content) && !error->status; i++)
        read_part(rt, named, speakers[role], json_array_get(content, i), i, error);
    return !error->status;
}

static void on_item_create(realtime *rt, pl_fields *event)
{
    size_t before = rt->n_entries;
    char previous[REALTIME_ID];
    snprintf(previous, sizeof previous, "%s", last_id(rt, before));
    const char *after = pl_field_text(event, "previous_item_id", previous);
    pl_field_require(event, "item");
    json_t *object = pl_field_object(event, "item");
    if (strcmp(after, previous) != 0)
        pl_field_fail(event, "previous_item_id", "unsupported_value", "Items are added at the end only.");
    if (!pl_fields_done(event))
        return;
    if (!read_item(rt, object, event->error)) {
        drop_entries(rt, before);
        return;
    }
    pl_strbuf out = {0};
    realtime_put_item(rt, &rt->entries[before], rt->n_entries - before, previous, &out);
    say(rt, &out);
}

/* ---- answers ----------------------------------------------------------------------------------- */

static void on_cancel(realtime *rt, pl_fields *event)
{
    pl_field_ignore(event, "response_id");
    if (!pl_fields_done(event))
        return;
    pthread_mutex_lock(&rt->lock);
    uint64_t request = rt->active ? rt->request : 0;
    pthread_mutex_unlock(&rt->lock);
    if (request)
        pl_scheduler_cancel(pl_service_scheduler(rt->service), request);
    else
        pl_field_fail(event, "", "response_cancel_not_active", "No response is being made.");
}

static void on_respond(realtime *rt, pl_fields *event)
{
    realtime_respond(rt, event, event->error);
}

/* What was answered is part of what is asked next. */
static void keep_answer(realtime *rt, const realtime_message *m)
{
    pl_api_error error = {0};
    pl_fields f = {.error = &error};
    realtime_entry *e = m->n ? add_entry(rt, rt->response.item, PL_SPEAKER_MODEL, &f) : NULL;
    if (e)
        pl_strbuf_add(&e->text, m->text, m->n);
    pthread_mutex_lock(&rt->lock);
    rt->active = false;
    if (error.status || (e && e->text.failed))
        rt->close_code = PL_WEBSOCKET_FAILED;
    pthread_mutex_unlock(&rt->lock);
    realtime_tell(rt);
}

/* ---- messages ---------------------------------------------------------------------------------- */

static const struct {
    const char *type;
    void (*fn)(realtime *rt, pl_fields *event);
} events[] = {
    {"session.update", on_session_update},
    {"input_audio_buffer.append", on_append},
    {"input_audio_buffer.commit", on_commit},
    {"input_audio_buffer.clear", on_clear},
    {"conversation.item.create", on_item_create},
    {"response.create", on_respond},
    {"response.cancel", on_cancel},
};

static void obey(realtime *rt, json_t *root, pl_api_error *error)
{
    pl_fields f = pl_fields_of(root, error, "%s", "");
    pl_field_ignore(&f, "event_id");
    const char *type = pl_field_required_text(&f, "type");
    for (size_t i = 0; i < sizeof events / sizeof *events && !error->status; i++)
        if (strcmp(events[i].type, type) == 0) {
            events[i].fn(rt, &f);
            return;
        }
    pl_field_fail(&f, "type", "invalid_value", "There is no event '%.100s'.", type);
}

static void read_message(realtime *rt, const realtime_message *m)
{
    pl_api_error error = {0};
    json_t *root = pl_fields_parse(m->text, m->n, &error);
    if (root)
        obey(rt, root, &error);
    if (error.status) {
        pl_strbuf out = {0};
        realtime_put_error(rt, &error, json_string_value(json_object_get(root, "event_id")), &out);
        say(rt, &out);
    }
    json_decref(root);
}

/* NULL: none is left, or nobody wants it, and the work has ended. */
static realtime_message *next_message(realtime *rt)
{
    pthread_mutex_lock(&rt->lock);
    realtime_message *m = rt->gone ? NULL : rt->first;
    if (m) {
        rt->first = m->next;
        rt->last = rt->first ? rt->last : &rt->first;
        rt->waiting -= m->n + REALTIME_COST;
    }
    rt->works = m != NULL;
    pthread_mutex_unlock(&rt->lock);
    return m;
}

void realtime_work(void *user)
{
    realtime *rt = user;
    realtime_message *m = next_message(rt);
    if (m && m->answer)
        keep_answer(rt, m);
    else if (m)
        read_message(rt, m);
    free(m);
    if (m && pl_service_work_media(rt->service, realtime_work, rt, NULL) == PL_OK)
        return;
    if (m) {
        pthread_mutex_lock(&rt->lock);
        rt->works = false;
        rt->close_code = PL_WEBSOCKET_BUSY;
        pthread_mutex_unlock(&rt->lock);
    }
    realtime_tell(rt);
    realtime_release(rt);
}
