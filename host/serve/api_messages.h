/* Anthropic's API: POST /v1/messages and /v1/messages/count_tokens. */
#ifndef PL_SERVE_API_MESSAGES_H
#define PL_SERVE_API_MESSAGES_H

#include "host/serve/http.h"

/* user: the service. */
void pl_api_messages(void *user, pl_exchange *x);
void pl_api_count_tokens(void *user, pl_exchange *x);

#endif
