/* OpenAI's POST /v1/responses. Nothing is stored: a conversation is sent whole each time. */
#ifndef PL_SERVE_API_RESPONSES_H
#define PL_SERVE_API_RESPONSES_H

#include "host/serve/http.h"

void pl_api_responses(void *user, pl_exchange *x); /* user: the service */

#endif
