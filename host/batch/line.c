#include "host/batch/line.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <xxhash.h>

#define SHOWN_BYTES 100 /* of the user's texts in messages */

static const char *const urls[] = {
    "/v1/chat/completions", "/v1/completions", "/v1/embeddings", "/v1/responses", "/v1/messages",
};

static pl_status fail(pl_line_fault *fault, const char *code, const char *param, const char *fmt, ...) PL_PRINTF(4, 5);

static pl_status(fail)(pl_line_fault *fault, const char *code, const char *param, const char *fmt, ...)
{
    fault->code = code;
    fault->param = param;
    va_list args;
    va_start(args, fmt);
    vsnprintf(fault->message, sizeof fault->message, fmt, args);
    va_end(args);
    return PL_ERR_FORMAT;
}

/* Never PL_OK, which analysers do not see by themselves. */
#define fail(...) pl_failed(fail(__VA_ARGS__))

static const char *type_name(const json_t *value)
{
    switch (json_typeof(value)) {
    case JSON_OBJECT: return "an object";
    case JSON_ARRAY: return "an array";
    case JSON_STRING: return "a string";
    case JSON_INTEGER: return "an integer";
    case JSON_REAL: return "a number";
    case JSON_TRUE:
    case JSON_FALSE: return "a boolean";
    case JSON_NULL: break;
    }
    return "null";
}

static pl_status parse_json(const char *text, size_t n, json_t **out, pl_line_fault *fault, pl_error *err)
{
    json_error_t error;
    *out = json_loadb(text, n, JSON_DECODE_ANY | JSON_ALLOW_NUL, &error);
    if (*out)
        return PL_OK;
    if (json_error_code(&error) == json_error_out_of_memory || !*error.text)
        return pl_fail_memory(err, n, "a line of the input");
    return fail(fault, "invalid_json_line", NULL, "The line is not valid JSON: up to byte %d: %s", error.position,
                error.text);
}

/* A member that must be there and be a string without NUL characters. */
static pl_status take_text(const json_t *root, const char *name, const char **out, pl_line_fault *fault)
{
    const json_t *value = json_object_get(root, name);
    if (!value || json_is_null(value))
        return fail(fault, "missing_required_parameter", name, "Missing required parameter: '%s'.", name);
    if (!json_is_string(value))
        return fail(fault, "invalid_type", name, "Invalid type for '%s': expected a string, but got %s instead.", name,
                    type_name(value));
    if (strlen(json_string_value(value)) != json_string_length(value))
        return fail(fault, "invalid_value", name, "'%s' holds a NUL character.", name);
    *out = json_string_value(value);
    return PL_OK;
}

static pl_status take_id(pl_batch_line *line, pl_line_fault *fault)
{
    const char *id;
    PL_TRY(take_text(line->root, "custom_id", &id, fault));
    if (!*id)
        return fail(fault, "invalid_value", "custom_id", "'custom_id' is empty.");
    if (strlen(id) > PL_LINE_ID_BYTES)
        return fail(fault, "invalid_value", "custom_id", "'custom_id' has %zu bytes, at most %d are allowed.",
                    strlen(id), PL_LINE_ID_BYTES);
    line->custom_id = id;
    return PL_OK;
}

static pl_status take_url(pl_batch_line *line, pl_line_fault *fault)
{
    const char *method, *url;
    PL_TRY(take_text(line->root, "method", &method, fault));
    if (strcmp(method, "POST") != 0)
        return fail(fault, "unsupported_value", "method", "Unsupported value: 'method' is '%.*s', expected 'POST'.",
                    SHOWN_BYTES, method);
    PL_TRY(take_text(line->root, "url", &url, fault));
    for (size_t i = 0; i < sizeof urls / sizeof *urls; i++)
        if (strcmp(url, urls[i]) == 0)
            line->url = urls[i];
    if (!line->url)
        return fail(fault, "invalid_url", "url",
                    "Unknown endpoint: 'url' is '%.*s', expected one of %s, %s, %s, %s, %s.", SHOWN_BYTES, url, urls[0],
                    urls[1], urls[2], urls[3], urls[4]);
    return PL_OK;
}

static pl_status take_body(pl_batch_line *line, pl_line_fault *fault)
{
    line->body = json_object_get(line->root, "body");
    if (!line->body || json_is_null(line->body))
        return fail(fault, "missing_required_parameter", "body", "Missing required parameter: 'body'.");
    if (!json_is_object(line->body))
        return fail(fault, "invalid_type", "body", "Invalid type for 'body': expected an object, but got %s instead.",
                    type_name(line->body));
    if (json_is_true(json_object_get(line->body, "stream")))
        return fail(fault, "unsupported_value", "body.stream",
                    "Unsupported value: 'stream' cannot be true, the answers of a batch are not streamed.");
    return PL_OK;
}

pl_status pl_batch_line_parse(const char *text, size_t n, pl_batch_line *out, pl_line_fault *fault, pl_error *err)
{
    *out = (pl_batch_line){0};
    PL_TRY(parse_json(text, n, &out->root, fault, err));
    if (!json_is_object(out->root))
        return fail(fault, "invalid_json_line", NULL, "The line holds %s, expected an object.", type_name(out->root));
    PL_TRY(take_id(out, fault));
    PL_TRY(take_url(out, fault));
    return take_body(out, fault);
}

void pl_batch_line_free(pl_batch_line *line)
{
    if (line)
        json_decref(line->root);
}

uint64_t pl_line_id_hash(const char *custom_id)
{
    uint64_t hash = XXH3_64bits(custom_id, strlen(custom_id));
    return hash ? hash : 1;
}
