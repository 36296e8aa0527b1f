/* Errors as the APIs tell them.
 *
 *   OpenAI      {"error": {"message", "type", "param", "code"}}
 *   Anthropic   {"type": "error", "error": {"type", "message"}}     on /v1/messages and below */
#ifndef PL_SERVE_API_ERROR_H
#define PL_SERVE_API_ERROR_H

#include "host/base/json_out.h"
#include "host/serve/http.h"

/* What a request's reader found wrong. */
typedef struct pl_api_error {
    int status;      /* HTTP; 0: nothing is wrong */
    char param[128]; /* the field, as "messages[2].content"; "": none */
    char code[64];   /* as OpenAI has it: "invalid_type", "unsupported_value"; "": null */
    char message[PL_ERROR_BYTES];
} pl_api_error;

/* The HTTP status and code for an engine's error. */
pl_api_error pl_api_error_of(const pl_error *err);

/* Members of an object that is open: "error", as OpenAI has it; "type" and "error" of Anthropic's. For streams. */
void pl_api_put_error(pl_json *json, const pl_api_error *error);
void pl_api_put_anthropic_error(pl_json *json, const pl_api_error *error);

/* Responds, in the form of the API that the path belongs to; Retry-After with 429 and 503 where retry_after_s > 0. */
void pl_api_fail(pl_exchange *x, const pl_api_error *error, double retry_after_s);

#endif
