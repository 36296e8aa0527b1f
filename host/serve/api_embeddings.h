/* POST /v1/embeddings: the mean over a text's tokens of the final states, which the head reads, at length 1. The model
 * was made to write, not to find texts: such vectors serve for rough likeness. */
#ifndef PL_SERVE_API_EMBEDDINGS_H
#define PL_SERVE_API_EMBEDDINGS_H

#include "host/serve/http.h"

void pl_api_embeddings(void *user, pl_exchange *x); /* user: the service */

#endif
