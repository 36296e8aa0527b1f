#include "host/serve/chat_messages.h"

#include <string.h>

enum { ROLE_SYSTEM, ROLE_DEVELOPER, ROLE_USER, ROLE_ASSISTANT, ROLE_TOOL, ROLE_FUNCTION };

/* ---- contents ---------------------------------------------------------------------------------- */

/* What a message says, as its content is read. */
typedef struct said {
    pl_strbuf text;
    pl_conversation *show; /* a user's: gets text and what is shown in their order; NULL: nothing can be shown */
    bool shown;            /* something was */
} said;

static void end_text(said *s)
{
    if (s->text.n)
        pl_conversation_say(s->show, PL_SPEAKER_USER, s->text.data, s->text.n);
    pl_strbuf_clear(&s->text);
}

static void read_text(pl_fields *part, const char *name, said *s)
{
    if (s->text.n)
        pl_strbuf_add_text(&s->text, "\n");
    pl_strbuf_add_text(&s->text, pl_field_required_text(part, name));
}

static bool read_image(pl_fields *image, pl_media_part *out)
{
    static const pl_media_kind kind = PL_MEDIA_IMAGE;
    int32_t side = pl_media_read_detail(image);
    bool read = pl_media_read_url(image, "url", &kind, out);
    out->side = side;
    return read;
}

/* {"type": NAME, NAME: {...}} */
static void read_shown(pl_fields *part, const char *name, bool (*read)(pl_fields *f, pl_media_part *out), said *s)
{
    pl_media_part shown = {0};
    if (!s->show)
        pl_field_fail(
            part, "type", "unsupported_value",
            "Unsupported value: '%s'. Only messages of the role 'user' can hold images, audio, video and files.", name);
    pl_field_require(part, name);
    pl_fields object = pl_fields_of(pl_field_object(part, name), part->error, "%s.%s", part->where, name);
    if (!pl_fields_failed(part) && read(&object, &shown) && pl_fields_done(&object)) {
        end_text(s);
        pl_conversation_show(s->show, &shown);
        s->shown = true;
    } else {
        pl_media_part_free(&shown);
    }
}

static void read_part(pl_fields *f, json_t *value, size_t index, said *s)
{
    static const char *const types[] = {"text", "refusal", "image_url", "input_audio", "file", "video_url", NULL};
    pl_fields part = pl_fields_of(value, f->error, "%s.content[%zu]", f->where, index);
    pl_field_require(&part, "type");
    int type = pl_field_choice(&part, "type", 0, types);
    if (pl_fields_failed(&part))
        return;
    switch (type) {
    case 2: read_shown(&part, types[type], read_image, s); break;
    case 3: read_shown(&part, types[type], pl_media_read_input_audio, s); break;
    case 4: read_shown(&part, types[type], pl_media_read_file, s); break;
    case 5: read_shown(&part, types[type], pl_media_read_video, s); break;
    default: read_text(&part, types[type], s); break;
    }
    pl_field_ignore(&part, "cache_control");
    pl_field_ignore(&part, "prompt_cache_breakpoint");
    pl_fields_done(&part);
}

/* A string, or parts. */
static void read_content(pl_fields *f, bool required, said *s)
{
    if (required)
        pl_field_require(f, "content");
    json_t *content = pl_field_any(f, "content"), *part;
    size_t i;
    if (json_is_array(content)) {
        json_array_foreach(content, i, part)
        {
            read_part(f, part, i, s);
        }
    } else if (json_is_string(content)) {
        pl_strbuf_add_text(&s->text, pl_field_text(f, "content", ""));
    } else if (content) {
        pl_field_fail_type(f, "content", "a string or an array of parts", content);
    }
}

/* What there was no memory for is not passed over. */
static bool is_whole(pl_fields *f, const pl_strbuf *text)
{
    if (text->failed)
        pl_field_fail_of(f, "content", &(pl_error){PL_ERR_MEMORY, "out of memory"});
    return !pl_fields_failed(f);
}

/* ---- messages ---------------------------------------------------------------------------------- */

/* {"name", "arguments"}, where arguments is the text of a JSON object. */
static void read_function(pl_fields *function, const char *id, pl_conversation *c)
{
    const char *name = pl_field_required_text(function, "name");
    const char *arguments = pl_field_text(function, "arguments", "");
    pl_field_ignore(function, "parsed_arguments");
    if (pl_fields_done(function))
        pl_conversation_call(c, id, name, arguments, strlen(arguments));
}

static void read_calls(pl_fields *f, json_t *calls, pl_conversation *c)
{
    static const char *const types[] = {"function", NULL};
    size_t i;
    json_t *value;
    json_array_foreach(calls, i, value)
    {
        pl_fields call = pl_fields_of(value, f->error, "%s.tool_calls[%zu]", f->where, i);
        const char *id = pl_field_required_text(&call, "id");
        pl_field_choice(&call, "type", 0, types);
        pl_field_ignore(&call, "index");
        pl_field_require(&call, "function");
        pl_fields function = pl_fields_of(pl_field_object(&call, "function"), f->error, "%s.function", call.where);
        pl_fields_done(&call);
        read_function(&function, id, c);
    }
}

static void read_assistant(pl_fields *f, pl_conversation *c)
{
    json_t *calls = pl_field_array(f, "tool_calls", PL_CHAT_MESSAGES);
    json_t *function = pl_field_object(f, "function_call");
    const char *refusal = pl_field_text(f, "refusal", NULL);
    said s = {0};
    bool alone = !calls && !function && !refusal;
    read_content(f, alone, &s);
    if (refusal)
        pl_strbuf_add_text(&s.text, refusal);
    if (is_whole(f, &s.text) && (s.text.n || alone))
        pl_conversation_say(c, PL_SPEAKER_MODEL, s.text.data ? s.text.data : "", s.text.n);
    pl_strbuf_free(&s.text);
    read_calls(f, calls, c);
    if (function) {
        pl_fields legacy = pl_fields_of(function, f->error, "%s.function_call", f->where);
        read_function(&legacy, NULL, c);
    }
    pl_field_ignore(f, "audio");
    pl_field_ignore(f, "annotations");
    pl_field_ignore(f, "parsed"); /* what OpenAI's client makes of an answer, and sends back with it */
    pl_field_ignore(f, "reasoning_content");
}

static void read_result(pl_fields *f, int role, pl_conversation *c)
{
    bool legacy = role == ROLE_FUNCTION;
    const char *id = legacy ? NULL : pl_field_required_text(f, "tool_call_id");
    const char *name = legacy ? pl_field_required_text(f, "name") : NULL;
    said s = {0};
    pl_field_ignore(f, "name");
    read_content(f, !legacy, &s);
    if (is_whole(f, &s.text) && !pl_conversation_result(c, id, name, s.text.data ? s.text.data : "", s.text.n))
        pl_field_fail(f, "tool_call_id", "invalid_value",
                      "Invalid parameter: messages with role 'tool' must be a response to a preceding message with "
                      "'tool_calls'; there is no call '%.80s'.",
                      id);
    pl_strbuf_free(&s.text);
}

static void read_plain(pl_fields *f, pl_speaker speaker, pl_conversation *c)
{
    said s = {.show = speaker == PL_SPEAKER_USER ? c : NULL};
    read_content(f, true, &s);
    if (is_whole(f, &s.text) && (s.text.n || !s.shown))
        pl_conversation_say(c, speaker, s.text.data ? s.text.data : "", s.text.n);
    pl_strbuf_free(&s.text);
}

static void read_message(json_t *value, size_t index, pl_api_error *error, pl_conversation *c)
{
    static const char *const roles[] = {"system", "developer", "user", "assistant", "tool", "function", NULL};
    pl_fields f = pl_fields_of(value, error, "messages[%zu]", index);
    pl_field_require(&f, "role");
    int role = pl_field_choice(&f, "role", ROLE_USER, roles);
    if (pl_fields_failed(&f))
        return;
    switch (role) {
    case ROLE_ASSISTANT: read_assistant(&f, c); break;
    case ROLE_TOOL:
    case ROLE_FUNCTION: read_result(&f, role, c); break;
    default: read_plain(&f, role == ROLE_USER ? PL_SPEAKER_USER : PL_SPEAKER_SYSTEM, c); break;
    }
    pl_field_text(&f, "name", NULL);
    pl_fields_done(&f);
}

void pl_chat_messages_read(pl_fields *f, pl_conversation *c)
{
    size_t i;
    json_t *message;
    pl_field_require(f, "messages");
    json_t *messages = pl_field_array(f, "messages", PL_CHAT_MESSAGES);
    if (messages && json_array_size(messages) == 0)
        pl_field_fail(
            f, "messages", "empty_array",
            "Invalid 'messages': empty array. Expected an array with minimum length 1, but got an empty array "
            "instead.");
    json_array_foreach(messages, i, message)
    {
        if (pl_fields_failed(f))
            break;
        read_message(message, i, f->error, c);
    }
}
