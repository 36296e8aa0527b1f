/* POST /v1/chat/completions */
#ifndef PL_SERVE_API_CHAT_H
#define PL_SERVE_API_CHAT_H

#include "host/serve/http.h"

void pl_api_chat(void *user, pl_exchange *x); /* user: the service */

#endif
