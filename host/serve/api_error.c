#include "host/serve/api_error.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "host/base/json_out.h"

pl_api_error pl_api_error_of(const pl_error *err)
{
    pl_api_error error = {.status = 500};
    const char *code = "";
    switch (err->status) {
    case PL_ERR_ARGUMENT: error.status = 400, code = "invalid_value"; break;
    case PL_ERR_UNSUPPORTED: error.status = 400, code = "unsupported_value"; break;
    case PL_ERR_CONTEXT: error.status = 400, code = "context_length_exceeded"; break;
    case PL_ERR_BUSY: error.status = 429, code = "rate_limit_exceeded"; break;
    case PL_ERR_MEMORY: error.status = 503, code = "out_of_memory"; break;
    case PL_ERR_CANCELLED: error.status = 503, code = "cancelled"; break;
    case PL_ERR_DEVICE: error.status = 503, code = "device_lost"; break;
    default: break;
    }
    snprintf(error.code, sizeof error.code, "%s", code);
    snprintf(error.message, sizeof error.message, "%s", err->message);
    return error;
}

static const char *openai_type(int status)
{
    if (status == 429)
        return "rate_limit_error";
    return status >= 500 ? "server_error" : "invalid_request_error";
}

static const char *anthropic_type(int status)
{
    switch (status) {
    case 401: return "authentication_error";
    case 403: return "permission_error";
    case 404: return "not_found_error";
    case 413: return "request_too_large";
    case 429: return "rate_limit_error";
    case 503: return "overloaded_error";
    default: return status >= 500 ? "api_error" : "invalid_request_error";
    }
}

static const char *or_null(const char *text)
{
    return *text ? text : NULL;
}

void pl_api_put_error(pl_json *json, const pl_api_error *error)
{
    pl_json_key_object(json, "error");
    pl_json_put_string(json, "message", error->message);
    pl_json_put_string(json, "type", openai_type(error->status));
    pl_json_put_string(json, "param", or_null(error->param));
    pl_json_put_string(json, "code", or_null(error->code));
    pl_json_end_object(json);
}

void pl_api_put_anthropic_error(pl_json *json, const pl_api_error *error)
{
    pl_json_put_string(json, "type", "error");
    pl_json_key_object(json, "error");
    pl_json_put_string(json, "type", anthropic_type(error->status));
    pl_json_put_string(json, "message", error->message);
    pl_json_end_object(json);
}

static bool speaks_anthropic(const pl_exchange *x)
{
    static const char messages[] = "/v1/messages";
    const char *path = pl_exchange_path(x);
    size_t n = sizeof messages - 1;
    return strncmp(path, messages, n) == 0 && (path[n] == '\0' || path[n] == '/');
}

void pl_api_fail(pl_exchange *x, const pl_api_error *error, double retry_after_s)
{
    char *body = NULL;
    size_t n = 0;
    bool anthropic = speaks_anthropic(x);
    int status = anthropic && error->status == 503 ? 529 : error->status; /* their own number for it */
    pl_json json = pl_json_to_buffer();
    pl_json_begin_object(&json);
    if (anthropic)
        pl_api_put_anthropic_error(&json, error);
    else
        pl_api_put_error(&json, error);
    pl_json_end_object(&json);
    if (error->status == 429) /* always with a time, even if by now there is room again */
        retry_after_s = fmax(retry_after_s, 1);
    if ((error->status == 429 || error->status == 503) && retry_after_s > 0) {
        char seconds[32];
        snprintf(seconds, sizeof seconds, "%.0f", ceil(fmin(retry_after_s, 3600)));
        pl_exchange_set_header(x, "Retry-After", seconds);
    }
    if (pl_json_take(&json, &body, &n, NULL) == PL_OK)
        pl_exchange_respond(x, status, "application/json", body, n);
    else
        pl_exchange_respond(x, status, NULL, "", 0);
    free(body);
}
