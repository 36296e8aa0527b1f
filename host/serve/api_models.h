/* GET /v1/models and /v1/models/{id}: an entry for each path of the model. */
#ifndef PL_SERVE_API_MODELS_H
#define PL_SERVE_API_MODELS_H

#include "host/serve/http.h"

/* user: the service. */
void pl_api_models(void *user, pl_exchange *x);
void pl_api_model(void *user, pl_exchange *x);

#endif
