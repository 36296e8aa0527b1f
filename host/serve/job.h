/* A request that one piece of work answers, done on a thread of the service: JSON in, JSON out. */
#ifndef PL_SERVE_JOB_H
#define PL_SERVE_JOB_H

#include "host/base/json_out.h"
#include "host/serve/fields.h"
#include "host/serve/service.h"

/* What is wrong goes to *error, and is responded; out is then dropped. */
typedef void (*pl_job_fn)(pl_service *service, json_t *body, pl_json *out, pl_api_error *error);

/* Takes the exchange. */
void pl_job_start(pl_service *service, pl_exchange *x, pl_job_fn fn);

/* Responds with what was written to json, and takes it. On the loop. */
void pl_respond_json(pl_exchange *x, int status, pl_json *json);

#endif
