#include "host/serve/api_models.h"

#include "host/serve/job.h"

#include <string.h>

#define ID_BYTES 1024
#define MODELS_PATH "/v1/models/"

/* The day on which Google published Gemma 3n. */
#define PUBLISHED 1750896000
#define PUBLISHED_TEXT "2025-06-26T00:00:00Z"

/* The i-th entry's path: the preset one, "auto", then those of the file; NULL after the last. */
static const char *entry_path(const pl_service *s, size_t i)
{
    if (i == 0)
        return pl_service_parameters(s)->path;
    return i == 1 ? "auto" : pl_model_path(pl_service_model(s), i - 2);
}

static void write_id(const pl_service *s, size_t i, char id[ID_BYTES])
{
    snprintf(id, ID_BYTES, "%s%s%s", pl_service_parameters(s)->name, i ? ":" : "", i ? entry_path(s, i) : "");
}

/* What OpenAI's and Anthropic's clients look for, in one object. */
static void put_entry(const pl_service *s, size_t i, const char *id, pl_json *json)
{
    pl_engine_info info;
    pl_engine_describe(pl_service_engine(s), &info);
    pl_json_put_string(json, "id", id);
    pl_json_put_string(json, "object", "model");
    pl_json_put_int(json, "created", PUBLISHED);
    pl_json_put_string(json, "owned_by", "google");
    pl_json_put_string(json, "type", "model");
    pl_json_put_string(json, "display_name", id);
    pl_json_put_string(json, "created_at", PUBLISHED_TEXT);
    pl_json_put_string(json, "lifecycle", "active");
    pl_json_put_int(json, "max_input_tokens", info.context);
    pl_json_put_int(json, "max_tokens", info.context);
    pl_json_key_object(json, "pleiad");
    pl_json_put_string(json, "path", entry_path(s, i));
    pl_json_put_int(json, "context", info.context);
    pl_json_put_int(json, "model_context", pl_model_context(pl_service_model(s)));
    pl_json_put_int(json, "vocabulary", pl_model_vocab_size(pl_service_model(s)));
    pl_json_put_int(json, "embedding", pl_model_hidden_size(pl_service_model(s)));
    pl_json_key_array(json, "input");
    pl_json_string(json, "text");
    for (pl_media_kind kind = PL_MEDIA_IMAGE; kind <= PL_MEDIA_AUDIO; kind++)
        if (pl_model_takes(pl_service_model(s), kind))
            pl_json_string(json, pl_media_kind_name(kind));
    pl_json_end_array(json);
    pl_json_end_object(json);
}

void pl_api_models(void *user, pl_exchange *x)
{
    const pl_service *s = user;
    pl_json json = pl_json_to_buffer();
    char id[ID_BYTES] = "";
    pl_json_begin_object(&json);
    pl_json_put_string(&json, "object", "list");
    pl_json_key_array(&json, "data");
    for (size_t i = 0; entry_path(s, i); i++) {
        write_id(s, i, id);
        pl_json_begin_object(&json);
        put_entry(s, i, id, &json);
        pl_json_end_object(&json);
    }
    pl_json_end_array(&json);
    pl_json_put_bool(&json, "has_more", false);
    pl_json_put_string(&json, "first_id", pl_service_parameters(s)->name);
    pl_json_put_string(&json, "last_id", id);
    pl_json_end_object(&json);
    pl_respond_json(x, 200, &json);
}

void pl_api_model(void *user, pl_exchange *x)
{
    const pl_service *s = user;
    const char *asked = pl_exchange_path(x) + strlen(MODELS_PATH);
    char id[ID_BYTES];
    for (size_t i = 0; entry_path(s, i); i++) {
        write_id(s, i, id);
        if (strcmp(id, asked) != 0)
            continue;
        pl_json json = pl_json_to_buffer();
        pl_json_begin_object(&json);
        put_entry(s, i, id, &json);
        pl_json_end_object(&json);
        pl_respond_json(x, 200, &json);
        return;
    }
    pl_api_error error = {.status = 404, .param = "model", .code = "model_not_found"};
    snprintf(error.message, sizeof error.message, "The model '%.200s' does not exist", asked);
    pl_api_fail(x, &error, 0);
}
