#include "host/serve/openai_put.h"

#include <stdio.h>

void pl_openai_fingerprint(const pl_call *call, char out[PL_OPENAI_FINGERPRINT])
{
    pl_engine_info info;
    pl_engine_describe(pl_service_engine(pl_call_service(call)), &info);
    const char *parts[] = {PL_VERSION, info.backend, pl_service_parameters(pl_call_service(call))->name};
    uint64_t hash = 0xcbf29ce484222325; /* FNV-1a */
    for (size_t i = 0; i < sizeof parts / sizeof parts[0]; i++)
        for (const char *s = parts[i]; *s; s++)
            hash = (hash ^ (unsigned char)*s) * 0x100000001b3;
    snprintf(out, PL_OPENAI_FINGERPRINT, "fp_%010llx", (unsigned long long)hash >> 24);
}

void pl_openai_begin(const pl_call *call, const char *prefix, const char *object, const char *fingerprint,
                     pl_json *json)
{
    char id[64];
    snprintf(id, sizeof id, "%s%s", prefix, pl_call_id(call));
    pl_json_begin_object(json);
    pl_json_put_string(json, "id", id);
    pl_json_put_string(json, "object", object);
    pl_json_put_int(json, "created", pl_call_created(call));
    pl_json_put_string(json, "model", pl_call_model(call));
    pl_json_put_string(json, "system_fingerprint", fingerprint);
}

void pl_openai_put_usage(const pl_call *call, pl_json *json)
{
    pl_call_usage usage = pl_call_count(call);
    pl_json_key_object(json, "usage");
    pl_json_put_int(json, "prompt_tokens", usage.prompt);
    pl_json_put_int(json, "completion_tokens", usage.answer);
    pl_json_put_int(json, "total_tokens", usage.prompt + usage.answer);
    pl_json_key_object(json, "prompt_tokens_details");
    pl_json_put_int(json, "cached_tokens", usage.reused);
    pl_json_put_int(json, "audio_tokens", usage.audio);
    pl_json_end_object(json);
    pl_json_key_object(json, "completion_tokens_details");
    pl_json_put_int(json, "reasoning_tokens", 0);
    pl_json_put_int(json, "audio_tokens", 0);
    pl_json_put_int(json, "accepted_prediction_tokens", 0);
    pl_json_put_int(json, "rejected_prediction_tokens", 0);
    pl_json_end_object(json);
    pl_json_end_object(json);
}

bool pl_openai_read_stream_options(pl_fields *f, bool stream)
{
    json_t *object = pl_field_object(f, "stream_options");
    if (object && !stream)
        pl_field_fail(f, "stream_options", "invalid_value",
                      "The 'stream_options' parameter is only allowed when 'stream' is enabled.");
    pl_fields options = pl_fields_of(object, f->error, "stream_options");
    bool usage = pl_field_bool(&options, "include_usage", false);
    pl_field_ignore(&options, "include_obfuscation");
    pl_fields_done(&options);
    return usage;
}

void pl_openai_fail(pl_call *call, const pl_api_error *error, pl_strbuf *out)
{
    (void)call;
    pl_json json = pl_json_to_buffer();
    pl_json_begin_object(&json);
    pl_api_put_error(&json, error);
    pl_json_end_object(&json);
    pl_call_event(out, NULL, &json);
}

void pl_openai_done(pl_strbuf *out)
{
    pl_strbuf_add_text(out, "data: [DONE]\n\n");
}

/* Where there are several, each says how it was served. */
static void put_choice(const pl_call *call, int32_t i, pl_openai_choice_fn put, pl_json *json)
{
    pl_json_begin_object(json);
    pl_json_put_int(json, "index", i);
    put(call, i, json);
    if (pl_call_choices(call) > 1)
        pl_call_put_served(call, i, json);
    pl_json_end_object(json);
}

void pl_openai_put_choices(const pl_call *call, pl_openai_choice_fn put, pl_json *json)
{
    pl_json_key_array(json, "choices");
    for (int32_t i = 0; i < pl_call_choices(call); i++)
        put_choice(call, i, put, json);
    pl_json_end_array(json);
    pl_openai_put_usage(call, json);
    if (pl_call_choices(call) == 1)
        pl_call_put_served(call, 0, json);
    pl_json_end_object(json);
}
