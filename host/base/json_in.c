#include "host/base/json_in.h"

#include <jansson.h>
#include <stdlib.h>
#include <string.h>

static pl_status parse(const char *json, size_t n, const char *where, json_t **out, pl_error *err)
{
    json_error_t error;
    *out = json_loadb(json, n, JSON_DECODE_ANY | JSON_ALLOW_NUL, &error);
    if (*out)
        return PL_OK;
    if (json_error_code(&error) == json_error_out_of_memory)
        return pl_fail_memory(err, n, where);
    return pl_fail(err, PL_ERR_FORMAT, "%s: cannot be read as JSON: line %d, column %d: %s", where, error.line,
                   error.column, error.text);
}

static const char *type_name(const json_t *value)
{
    switch (json_typeof(value)) {
    case JSON_OBJECT: return "an object";
    case JSON_ARRAY: return "an array";
    case JSON_STRING: return "a string";
    case JSON_INTEGER: return "a whole number";
    case JSON_REAL: return "a number with a fraction or exponent";
    case JSON_TRUE: return "true";
    case JSON_FALSE: return "false";
    case JSON_NULL: break;
    }
    return "null";
}

/* ---- token ids ---------------------------------------------------------------------------------- */

static pl_status read_id(const json_t *value, size_t index, const char *where, int32_t limit, int32_t *out,
                         pl_error *err)
{
    if (!json_is_integer(value))
        return pl_fail(err, PL_ERR_FORMAT, "%s: element %zu is %s, not a token id", where, index, type_name(value));
    json_int_t id = json_integer_value(value);
    if (id < 0 || id >= limit)
        return pl_fail(err, PL_ERR_FORMAT, "%s: element %zu is %lld; token ids of this model are 0 to %d", where, index,
                       (long long)id, limit - 1);
    *out = (int32_t)id;
    return PL_OK;
}

pl_status pl_json_read_ids(const char *json, size_t n, const char *where, int32_t limit, pl_tokens *out, pl_error *err)
{
    json_t *root;
    PL_TRY(parse(json, n, where, &root, err));
    pl_status status = PL_OK;
    int32_t *ids = NULL;
    if (!json_is_array(root)) {
        status = pl_fail(err, PL_ERR_FORMAT, "%s: holds %s, expected an array of token ids", where, type_name(root));
        goto fail;
    }
    size_t count = json_array_size(root);
    ids = malloc(count * sizeof *ids + 1);
    if (!ids) {
        status = pl_fail_memory(err, count * sizeof *ids, where);
        goto fail;
    }
    for (size_t i = 0; i < count; i++)
        PL_TRY_GOTO(read_id(json_array_get(root, i), i, where, limit, &ids[i], err));
    *out = (pl_tokens){.ids = ids, .n = count};
    ids = NULL;
fail:
    free(ids);
    json_decref(root);
    return status;
}

/* ---- chats -------------------------------------------------------------------------------------- */

static pl_status text_field(const json_t *message, const char *key, size_t index, const char *where, const char **out,
                            pl_error *err)
{
    const json_t *value = json_object_get(message, key);
    if (!value)
        return pl_fail(err, PL_ERR_FORMAT, "%s: message %zu has no \"%s\"", where, index, key);
    if (!json_is_string(value))
        return pl_fail(err, PL_ERR_FORMAT, "%s: \"%s\" of message %zu is %s, expected a string", where, key, index,
                       type_name(value));
    *out = json_string_value(value);
    if (strlen(*out) != json_string_length(value))
        return pl_fail(err, PL_ERR_FORMAT, "%s: \"%s\" of message %zu holds a zero byte", where, key, index);
    return PL_OK;
}

static pl_status read_message(const json_t *message, size_t index, const char *where, pl_json_message_fn fn, void *user,
                              pl_error *err)
{
    const char *role, *content;
    if (!json_is_object(message))
        return pl_fail(err, PL_ERR_FORMAT, "%s: message %zu is %s, expected an object", where, index,
                       type_name(message));
    PL_TRY(text_field(message, "role", index, where, &role, err));
    PL_TRY(text_field(message, "content", index, where, &content, err));
    pl_status status = fn(user, role, content, err);
    return status == PL_OK ? PL_OK : pl_fail_within(err, status, "%s: message %zu", where, index);
}

static const json_t *messages_of(const json_t *root)
{
    return json_is_object(root) ? json_object_get(root, "messages") : root;
}

pl_status pl_json_read_messages(const char *json, size_t n, const char *where, pl_json_message_fn fn, void *user,
                                pl_error *err)
{
    json_t *root;
    PL_TRY(parse(json, n, where, &root, err));
    pl_status status = PL_OK;
    const json_t *messages = messages_of(root);
    if (!json_is_array(messages)) {
        status = pl_fail(err, PL_ERR_FORMAT, "%s: expected an array of messages, or an object with \"messages\"",
                         where);
        goto fail;
    }
    for (size_t i = 0; i < json_array_size(messages); i++)
        PL_TRY_GOTO(read_message(json_array_get(messages, i), i, where, fn, user, err));
fail:
    json_decref(root);
    return status;
}

bool pl_json_awaits_reply(const char *json, size_t n)
{
    json_t *root;
    if (parse(json, n, "", &root, NULL) != PL_OK)
        return false;
    const json_t *messages = messages_of(root);
    size_t count = json_array_size(messages);
    const json_t *last = count ? json_array_get(messages, count - 1) : NULL;
    const char *role = json_string_value(json_object_get(last, "role"));
    bool awaits = role && strcmp(role, "user") == 0;
    json_decref(root);
    return awaits;
}
