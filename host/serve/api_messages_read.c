#include "host/serve/api_messages_read.h"

#include <stdlib.h>
#include <string.h>

#define MAX_MESSAGES 100000
#define MAX_BLOCKS 10000
#define MAX_TOOLS 1024

/* The text of a block {"type": "text"}. Marks for caching mean nothing here: all prompts are kept. */
static const char *read_text_block(pl_fields *block)
{
    pl_field_ignore(block, "cache_control");
    pl_field_ignore(block, "citations");
    return pl_field_required_text(block, "text");
}

static void refuse_block(pl_fields *block, const char *type)
{
    pl_field_fail(block, "type", "unsupported_value", "%s: blocks of type '%.60s' are not supported here.",
                  block->where, type);
}

/* {"type": "image", "source": {"type": "base64", "media_type", "data"} or {"type": "url", "url"}} */
static void read_image(pl_fields *block, pl_conversation *c)
{
    static const char *const types[] = {"base64", "url", NULL};
    static const pl_media_kind image = PL_MEDIA_IMAGE;
    pl_media_part part = {0};
    pl_media_kind kind = image;
    pl_field_ignore(block, "cache_control");
    pl_field_require(block, "source");
    pl_fields source = pl_fields_of(pl_field_object(block, "source"), block->error, "%s.source", block->where);
    pl_field_require(&source, "type");
    if (pl_field_choice(&source, "type", 0, types) == 0) {
        const char *type = pl_field_required_text(&source, "media_type");
        if (!pl_fields_failed(block) && (!pl_media_kind_of_type(type, strlen(type), &kind) || kind != image))
            pl_field_fail(&source, "media_type", "invalid_value", "%s.media_type: '%.60s' is no type of images.",
                          source.where, type);
        pl_media_read_base64(&source, "data", image, &part);
    } else {
        pl_media_read_url(&source, "url", &image, &part);
    }
    pl_fields_done(&source);
    if (pl_fields_done(block))
        pl_conversation_show(c, &part);
    else
        pl_media_part_free(&part);
}

/* ---- content of a message ---- */

/* What a function gave back: a text, or blocks of text, put together in out. Images among them are shown after it. */
static void read_result_text(pl_fields *block, pl_strbuf *out)
{
    json_t *content = pl_field_any(block, "content"), *item;
    size_t i;
    if (!content || json_is_string(content)) {
        pl_strbuf_add_text(out, pl_field_text(block, "content", ""));
        return;
    }
    content = pl_field_array(block, "content", MAX_BLOCKS);
    json_array_foreach(content, i, item)
    {
        pl_fields part = pl_fields_of(item, block->error, "%s.content[%zu]", block->where, i);
        const char *type = pl_field_required_text(&part, "type");
        if (strcmp(type, "image") == 0)
            continue;
        if (strcmp(type, "text") != 0)
            refuse_block(&part, type);
        if (out->n)
            pl_strbuf_add_text(out, "\n");
        pl_strbuf_add_text(out, read_text_block(&part));
        if (!pl_fields_done(&part))
            return;
    }
}

static void read_result_images(pl_fields *block, pl_conversation *c)
{
    json_t *content = json_object_get(block->object, "content"), *item;
    size_t i;
    json_array_foreach(content, i, item)
    {
        pl_fields part = pl_fields_of(item, block->error, "%s.content[%zu]", block->where, i);
        if (!pl_fields_failed(block) && strcmp(pl_field_required_text(&part, "type"), "image") == 0)
            read_image(&part, c);
    }
}

static void fail_memory(pl_fields *f, const char *name)
{
    pl_error err;
    pl_fail_memory(&err, 0, "a request");
    pl_field_fail_of(f, name, &err);
}

static void read_result(pl_fields *block, pl_conversation *c)
{
    const char *id = pl_field_required_text(block, "tool_use_id");
    pl_strbuf text = {0};
    if (pl_field_bool(block, "is_error", false))
        pl_strbuf_add_text(&text, "Error: ");
    read_result_text(block, &text);
    pl_field_ignore(block, "cache_control");
    pl_field_ignore(block, "toolset_name");
    if (text.failed)
        fail_memory(block, "content");
    else if (pl_fields_done(block) && !pl_conversation_result(c, id, NULL, text.data ? text.data : "", text.n))
        pl_field_fail(block, "tool_use_id", "invalid_value", "%s: no tool_use block before has the id '%.100s'.",
                      block->where, id);
    else
        read_result_images(block, c);
    pl_strbuf_free(&text);
}

static void read_use(pl_fields *block, pl_conversation *c)
{
    const char *id = pl_field_required_text(block, "id"), *name = pl_field_required_text(block, "name");
    json_t *input = pl_field_object(block, "input");
    pl_field_ignore(block, "cache_control");
    pl_field_ignore(block, "caller");
    pl_field_ignore(block, "toolset_name");
    if (!pl_fields_done(block))
        return;
    char *text = input ? json_dumps(input, JSON_COMPACT) : NULL;
    if (input && !text)
        fail_memory(block, "input");
    else
        pl_conversation_call(c, id, name, text ? text : "", text ? strlen(text) : 0);
    free(text);
}

static void read_block(pl_fields *block, pl_speaker speaker, pl_conversation *c)
{
    const char *type = pl_field_required_text(block, "type");
    if (strcmp(type, "text") == 0) {
        const char *text = read_text_block(block);
        if (pl_fields_done(block))
            pl_conversation_say(c, speaker, text, strlen(text));
    } else if (strcmp(type, "image") == 0 && speaker == PL_SPEAKER_USER) {
        read_image(block, c);
    } else if (strcmp(type, "tool_use") == 0 && speaker == PL_SPEAKER_MODEL) {
        read_use(block, c);
    } else if (strcmp(type, "tool_result") == 0 && speaker == PL_SPEAKER_USER) {
        read_result(block, c);
    } else {
        refuse_block(block, type);
    }
}

/* A string or an array of blocks, in the field `name`. */
static void read_content(pl_fields *f, const char *name, pl_speaker speaker, pl_conversation *c)
{
    json_t *content = pl_field_any(f, name), *item;
    size_t i;
    if (json_is_string(content)) {
        const char *text = pl_field_text(f, name, "");
        pl_conversation_say(c, speaker, text, strlen(text));
        return;
    }
    content = pl_field_array(f, name, MAX_BLOCKS);
    json_array_foreach(content, i, item)
    {
        pl_fields block = pl_fields_of(item, f->error, "%s%s%s[%zu]", f->where, f->where[0] ? "." : "", name, i);
        read_block(&block, speaker, c);
        if (pl_fields_failed(f))
            return;
    }
}

static void read_messages(pl_fields *f, pl_conversation *c)
{
    static const char *const roles[] = {"user", "assistant", "system", NULL};
    static const pl_speaker speakers[] = {PL_SPEAKER_USER, PL_SPEAKER_MODEL, PL_SPEAKER_SYSTEM};
    pl_field_require(f, "messages");
    json_t *messages = pl_field_array(f, "messages", MAX_MESSAGES), *item;
    size_t i;
    if (messages && json_array_size(messages) == 0)
        pl_field_fail(f, "messages", "invalid_value", "messages: at least one message is required");
    json_array_foreach(messages, i, item)
    {
        pl_fields message = pl_fields_of(item, f->error, "messages[%zu]", i);
        pl_field_require(&message, "role");
        pl_field_require(&message, "content");
        read_content(&message, "content", speakers[pl_field_choice(&message, "role", 0, roles)], c);
        if (!pl_fields_done(&message))
            return;
    }
}

/* ---- tools ---- */

static void read_tool(pl_fields *f, pl_fields *tool, pl_tool_offer *offer)
{
    static const char *const ignored[] = {"cache_control",         "allowed_callers", "defer_loading",
                                          "eager_input_streaming", "input_examples",  NULL};
    const char *type = pl_field_text(tool, "type", "custom");
    if (strcmp(type, "custom") != 0)
        pl_field_fail(tool, "type", "unsupported_value",
                      "%s: tools of type '%.60s' are not supported: only 'custom' is.", tool->where, type);
    for (int i = 0; ignored[i]; i++)
        pl_field_ignore(tool, ignored[i]);
    const char *name = pl_field_required_text(tool, "name");
    const char *description = pl_field_text(tool, "description", NULL);
    pl_field_require(tool, "input_schema");
    json_t *schema = pl_field_object(tool, "input_schema");
    const json_t *strict = pl_tool_read_strict(tool);
    if (pl_fields_done(tool))
        pl_tool_offer_add(offer, f, tool->where, name, description, schema, strict);
}

static void read_tool_choice(pl_fields *f, pl_tool_offer *offer)
{
    static const char *const words[] = {"auto", "any", "tool", "none", NULL};
    static const pl_tool_choice choices[] = {PL_TOOLS_AUTO, PL_TOOLS_REQUIRED, PL_TOOLS_NAMED, PL_TOOLS_NONE};
    json_t *object = pl_field_object(f, "tool_choice");
    pl_fields choice = pl_fields_of(object, f->error, "tool_choice");
    if (object)
        pl_field_require(&choice, "type");
    offer->choice = choices[pl_field_choice(&choice, "type", 0, words)];
    offer->parallel = !pl_field_bool(&choice, "disable_parallel_tool_use", false);
    if (offer->choice == PL_TOOLS_NAMED)
        offer->name = pl_field_required_text(&choice, "name");
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
    read_tool_choice(f, offer);
}

static void read_thinking(pl_fields *f)
{
    json_t *object = pl_field_object(f, "thinking");
    pl_fields thinking = pl_fields_of(object, f->error, "thinking");
    if (object)
        pl_field_require(&thinking, "type");
    const char *type = pl_field_text(&thinking, "type", "disabled");
    bool adaptive = strcmp(type, "adaptive") == 0; /* as much as the model likes: not at all */
    if (adaptive)
        pl_field_ignore(&thinking, "display");
    else if (strcmp(type, "disabled") != 0)
        pl_field_fail(&thinking, "type", "unsupported_value",
                      "thinking: this model does not think: only 'disabled' and 'adaptive' are supported.");
    pl_fields_done(&thinking);
}

void pl_messages_read(pl_fields *f, pl_conversation *c, pl_tool_offer *offer)
{
    static const char *const ignored[] = {
        "cache_control", "container",       "context_management", "diagnostics", "inference_geo", "metadata", "speed",
        "service_tier",  "user_profile_id", "workspace_id",       NULL};
    for (int i = 0; ignored[i]; i++)
        pl_field_ignore(f, ignored[i]);
    read_content(f, "system", PL_SPEAKER_SYSTEM, c);
    read_messages(f, c);
    read_tools(f, offer);
    read_thinking(f);
}
