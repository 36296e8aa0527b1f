#include "host/serve/api_health.h"

#include <stdlib.h>

#include "host/base/json_out.h"
#include "host/serve/api_error.h"
#include "host/serve/job.h"
#include "host/serve/service.h"

static void respond_status(pl_exchange *x, const char *word)
{
    pl_json json = pl_json_to_buffer();
    pl_json_begin_object(&json);
    pl_json_put_string(&json, "status", word);
    pl_json_end_object(&json);
    pl_respond_json(x, 200, &json);
}

void pl_api_health(void *user, pl_exchange *x)
{
    (void)user;
    respond_status(x, "ok");
}

void pl_api_ready(void *user, pl_exchange *x)
{
    pl_scheduler_stats stats;
    pl_scheduler_count(pl_service_scheduler(user), &stats);
    if (stats.retry_after_s <= 0) {
        respond_status(x, "ready");
        return;
    }
    pl_api_error error = {.status = 503, .code = "queue_full", .message = "The queue is full."};
    pl_api_fail(x, &error, stats.retry_after_s);
}

static void put_paths(pl_json *json, const pl_model *model)
{
    pl_json_key_array(json, "paths");
    pl_json_string(json, "auto");
    for (size_t i = 0; pl_model_path(model, i); i++)
        pl_json_string(json, pl_model_path(model, i));
    pl_json_end_array(json);
}

/* As llama.cpp's /props has them. */
static void put_modalities(pl_json *json, const pl_model *model)
{
    pl_json_key_object(json, "modalities");
    pl_json_put_bool(json, "vision", pl_model_takes(model, PL_MEDIA_IMAGE));
    pl_json_put_bool(json, "audio", pl_model_takes(model, PL_MEDIA_AUDIO));
    pl_json_end_object(json);
}

static void put_sampling(pl_json *json, const pl_sampling *sampling)
{
    pl_json_key_object(json, "sampling");
    pl_json_key(json, "temperature");
    pl_json_float(json, sampling->temperature);
    pl_json_put_int(json, "top_k", sampling->top_k);
    pl_json_key(json, "top_p");
    pl_json_float(json, sampling->top_p);
    pl_json_key(json, "min_p");
    pl_json_float(json, sampling->min_p);
    pl_json_key(json, "typical_p");
    pl_json_float(json, sampling->typical_p);
    pl_json_key(json, "repeat_penalty");
    pl_json_float(json, sampling->repeat_penalty);
    pl_json_key(json, "presence_penalty");
    pl_json_float(json, sampling->presence_penalty);
    pl_json_key(json, "frequency_penalty");
    pl_json_float(json, sampling->frequency_penalty);
    pl_json_end_object(json);
}

void pl_api_props(void *user, pl_exchange *x)
{
    const pl_service_params *params = pl_service_parameters(user);
    const pl_model *model = pl_service_model(user);
    pl_engine_info info;
    pl_engine_describe(pl_service_engine(user), &info);
    pl_json json = pl_json_to_buffer();
    pl_json_begin_object(&json);
    pl_json_put_string(&json, "model", params->name);
    pl_json_put_string(&json, "version", PL_VERSION);
    pl_json_put_string(&json, "backend", info.backend);
    put_paths(&json, model);
    pl_json_put_string(&json, "path", params->path);
    pl_json_put_int(&json, "context", info.context);
    pl_json_put_int(&json, "max_tokens", params->max_tokens < 0 ? info.context : params->max_tokens);
    pl_json_put_int(&json, "vocab_size", pl_model_vocab_size(model));
    pl_json_put_int(&json, "hidden_size", pl_model_hidden_size(model));
    pl_json_put_int(&json, "parallel", info.sessions);
    pl_json_put_int(&json, "threads", info.threads);
    put_modalities(&json, model);
    put_sampling(&json, &params->sampling);
    pl_json_end_object(&json);
    pl_respond_json(x, 200, &json);
}
