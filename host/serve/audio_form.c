#include "host/serve/audio_form.h"

#include <stdio.h>
#include <string.h>

#define PARTS 64

static bool fail(pl_api_error *error, const char *name, const char *code, const char *message)
{
    *error = (pl_api_error){.status = 400};
    snprintf(error->param, sizeof error->param, "%.100s", name);
    snprintf(error->code, sizeof error->code, "%s", code);
    snprintf(error->message, sizeof error->message, "Invalid '%.100s': %s", name, message);
    return false;
}

static bool fail_memory(pl_api_error *error)
{
    pl_error err;
    pl_fail_memory(&err, 0, "a form");
    *error = pl_api_error_of(&err);
    return false;
}

/* Fields that are no texts; what cannot be read as JSON stays one, for whoever reads the field to refuse. */
static json_t *value_of(const pl_multipart_part *part)
{
    static const char *const typed[] = {"temperature", "top_p", "top_k", "stream", "priority", "seed", "max_tokens"};
    for (size_t i = 0; i < sizeof typed / sizeof typed[0]; i++) {
        json_t *value = strcmp(typed[i], part->name) == 0 ? json_loadb(part->data, part->n, JSON_DECODE_ANY, NULL)
                                                          : NULL;
        if (json_is_number(value) || json_is_boolean(value))
            return value;
        json_decref(value);
    }
    return json_stringn_nocheck(part->data, part->n);
}

static bool is_utf8(const pl_multipart_part *part)
{
    json_t *text = json_stringn(part->data, part->n);
    json_decref(text);
    return text != NULL;
}

static bool add_element(json_t *fields, char *name, size_t n, json_t *value)
{
    name[n - 2] = '\0';
    json_t *list = json_object_get(fields, name);
    if (!list && json_object_set_new_nocheck(fields, name, json_array()) == 0)
        list = json_object_get(fields, name);
    return json_array_append_new(list, value) == 0;
}

static bool add_field(json_t *fields, pl_multipart_part *part, pl_api_error *error)
{
    size_t n = strlen(part->name);
    if (n == 0 || part->is_file)
        return fail(error, part->name, "invalid_value", "only the field 'file' can hold a file.");
    if (!is_utf8(part) || json_object_get(fields, part->name))
        return fail(error, part->name, "invalid_value", "it must be given once, in UTF-8.");
    if (n > 2 && strcmp(part->name + n - 2, "[]") == 0)
        return add_element(fields, part->name, n, value_of(part)) || fail_memory(error);
    return json_object_set_new_nocheck(fields, part->name, value_of(part)) == 0 || fail_memory(error);
}

static bool add_part(json_t *fields, pl_multipart_part *part, pl_multipart_part *file, pl_api_error *error)
{
    if (strcmp(part->name, "file") != 0)
        return add_field(fields, part, error);
    if (file->data || part->n == 0)
        return fail(error, "file", "invalid_value", file->data ? "it must be given once." : "it is empty.");
    *file = *part;
    return true;
}

json_t *pl_audio_form_read(const char *content_type, const char *body, size_t n, pl_multipart_part *file,
                           pl_api_error *error)
{
    pl_multipart_part parts[PARTS];
    size_t n_parts;
    pl_error err;
    *file = (pl_multipart_part){.name = ""};
    if (pl_multipart_read(content_type, body, n, parts, PARTS, &n_parts, &err) != PL_OK) {
        *error = pl_api_error_of(&err);
        error->status = err.status == PL_ERR_UNSUPPORTED ? 415 : 400;
        return NULL;
    }
    json_t *fields = json_object();
    bool done = fields || fail_memory(error);
    for (size_t i = 0; i < n_parts && done; i++)
        done = add_part(fields, &parts[i], file, error);
    if (!done)
        json_decref(fields);
    return done ? fields : NULL;
}
