/* Log probabilities as chat completions and responses tell them. */
#ifndef PL_SERVE_LOGPROBS_H
#define PL_SERVE_LOGPROBS_H

#include "host/serve/call.h"

/* {"token", "logprob", "bytes", "top_logprobs": [{"token", "logprob", "bytes"}]} */
void pl_put_logprob(const pl_model *model, const pl_call_piece *piece, pl_json *json);

#endif
