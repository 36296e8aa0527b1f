/* GET /metrics: counts for Prometheus, in its text format 0.0.4. */
#ifndef PL_SERVE_METRICS_H
#define PL_SERVE_METRICS_H

#include "host/base/strbuf.h"
#include "host/serve/http.h"

void pl_metrics_print(pl_strbuf *out, const pl_scheduler_stats *scheduler, const pl_engine_info *engine,
                      const pl_tower_stats *towers, const pl_http_stats *http);

void pl_api_metrics(void *user, pl_exchange *x); /* user: the service */

#endif
