/* What the server says of itself:
 *   GET /health   200 as long as it lives
 *   GET /ready    200, or 503 while the queue is full
 *   GET /props    the model, its paths, presets and limits */
#ifndef PL_SERVE_API_HEALTH_H
#define PL_SERVE_API_HEALTH_H

#include "host/serve/http.h"

/* user: the service. */
void pl_api_health(void *user, pl_exchange *x);
void pl_api_ready(void *user, pl_exchange *x);
void pl_api_props(void *user, pl_exchange *x);

#endif
