#include "host/text/chat.h"

#include <jansson.h>
#include <stdlib.h>
#include <string.h>

typedef struct chat {
    pl_turn *turn;
    pl_part *part; /* of all turns, one after another */
    size_t n_parts;
} chat;

static void set_text(pl_part *part, const json_t *text)
{
    *part = (pl_part){.kind = PL_PART_TEXT, .text = json_string_value(text), .n = json_string_length(text)};
}

/* Whether the part stands for something; *part is set then. */
static pl_status read_part(const json_t *value, size_t i, size_t k, pl_part *part, bool *there, pl_error *err)
{
    const char *type = json_string_value(json_object_get(value, "type"));
    const json_t *text = json_object_get(value, "text");
    *there = true;
    if (!type)
        return pl_fail(err, PL_ERR_FORMAT, "messages[%zu].content[%zu].type is missing or not a string", i, k);
    if (strcmp(type, "text") == 0) {
        if (!json_is_string(text))
            return pl_fail(err, PL_ERR_FORMAT, "messages[%zu].content[%zu].text is missing or not a string", i, k);
        set_text(part, text);
    } else if (strcmp(type, "image") == 0) {
        *part = (pl_part){.kind = PL_PART_IMAGE};
    } else if (strcmp(type, "audio") == 0) {
        *part = (pl_part){.kind = PL_PART_AUDIO};
    } else {
        *there = false;
    }
    return PL_OK;
}

static pl_status read_parts(chat *c, const json_t *content, size_t i, pl_error *err)
{
    for (size_t k = 0; k < json_array_size(content); k++) {
        bool there;
        PL_TRY(read_part(json_array_get(content, k), i, k, &c->part[c->n_parts], &there, err));
        if (!there && i == 0 && k == 0 && strcmp(c->turn[i].role, "system") == 0)
            return pl_fail(err, PL_ERR_ARGUMENT, "messages[0]: a system message must start with text");
        c->n_parts += there;
    }
    return PL_OK;
}

static pl_status read_turn(chat *c, const json_t *message, size_t i, pl_error *err)
{
    const json_t *role = json_object_get(message, "role"), *content = json_object_get(message, "content");
    size_t first = c->n_parts;
    if (!json_is_string(role))
        return pl_fail(err, PL_ERR_FORMAT, "messages[%zu].role is missing or not a string", i);
    if (strlen(json_string_value(role)) != json_string_length(role))
        return pl_fail(err, PL_ERR_FORMAT, "messages[%zu].role holds a NUL character", i);
    c->turn[i].role = json_string_value(role);
    if (json_is_string(content))
        set_text(&c->part[c->n_parts++], content);
    else if (json_is_array(content))
        PL_TRY(read_parts(c, content, i, err));
    else
        return pl_fail(err, PL_ERR_FORMAT, "messages[%zu].content is missing or neither a string nor an array", i);
    c->turn[i].parts = c->part + first;
    c->turn[i].n_parts = c->n_parts - first;
    return PL_OK;
}

static pl_status read_chat(const json_t *messages, chat *c, pl_error *err)
{
    size_t n = json_array_size(messages), n_parts = 0;
    for (size_t i = 0; i < n; i++) {
        size_t k = json_array_size(json_object_get(json_array_get(messages, i), "content"));
        n_parts += k ? k : 1;
    }
    c->turn = calloc(n + 1, sizeof *c->turn);
    c->part = calloc(n_parts + 1, sizeof *c->part);
    if (!c->turn || !c->part)
        return pl_fail_memory(err, n_parts * sizeof *c->part, "a chat");
    for (size_t i = 0; i < n; i++)
        PL_TRY(read_turn(c, json_array_get(messages, i), i, err));
    return PL_OK;
}

static pl_status render(const json_t *root, bool reply, char **text, size_t *n_bytes, pl_error *err)
{
    const json_t *messages = root;
    if (json_is_object(root)) {
        messages = json_object_get(root, "messages");
        const json_t *prompt = json_object_get(root, "add_generation_prompt");
        if (prompt && !json_is_boolean(prompt))
            return pl_fail(err, PL_ERR_FORMAT, "add_generation_prompt is not a boolean");
        if (prompt)
            reply = json_is_true(prompt);
    }
    if (!json_is_array(messages))
        return pl_fail(err, PL_ERR_FORMAT, "a chat is an array of messages, or an object with \"messages\"");
    chat c = {0};
    pl_status status = read_chat(messages, &c, err);
    if (status == PL_OK)
        status = pl_chat_render(c.turn, json_array_size(messages), reply, text, n_bytes, err);
    free(c.turn);
    free(c.part);
    return status;
}

pl_status pl_chat_render_json(const char *json, size_t n, bool reply, char **text, size_t *n_bytes, pl_error *err)
{
    json_error_t why;
    json_t *root = json_loadb(json ? json : "", n, JSON_REJECT_DUPLICATES | JSON_ALLOW_NUL, &why);
    if (!root && json_error_code(&why) == json_error_out_of_memory)
        return pl_fail_memory(err, n, "a chat");
    if (!root)
        return pl_fail(err, PL_ERR_FORMAT, "the chat is not JSON: line %d, column %d: %s", why.line, why.column,
                       why.text);
    pl_status status = render(root, reply, text, n_bytes, err);
    json_decref(root);
    return status;
}
