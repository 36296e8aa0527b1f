/* GET /v1/realtime, a WebSocket: OpenAI's realtime events, of speech and text, answered with text. */
#ifndef PL_SERVE_API_REALTIME_H
#define PL_SERVE_API_REALTIME_H

#include "host/serve/http.h"

/* user: the service. */
void pl_api_realtime(void *user, pl_exchange *x);

#endif
