/* POST /v1/completions */
#ifndef PL_SERVE_API_COMPLETIONS_H
#define PL_SERVE_API_COMPLETIONS_H

#include "host/serve/http.h"

void pl_api_completions(void *user, pl_exchange *x); /* user: the service */

#endif
