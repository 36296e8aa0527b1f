/* The body of /v1/responses. */
#ifndef PL_SERVE_API_RESPONSES_READ_H
#define PL_SERVE_API_RESPONSES_READ_H

#include "host/serve/call.h"

/* What a response repeats of its request: JSON, in the call's memory. */
typedef struct pl_responses_echo {
    const char *instructions, *metadata, *tools, *tool_choice, *text;
    int64_t max_output_tokens; /* 0: not given */
    bool parallel;
} pl_responses_echo;

/* Reads all of the body into the spec (its n_logprobs too, where `include` asks for them) and echo. */
bool pl_responses_read(pl_call *call, json_t *body, pl_call_spec *spec, pl_responses_echo *echo, pl_api_error *error);

#endif
