/* All that clients can ask for. */
#ifndef PL_SERVE_ROUTES_H
#define PL_SERVE_ROUTES_H

#include "host/serve/http.h"

/* The table of pl_http_create(); free(). */
pl_status pl_routes_make(bool web_page, pl_http_route **out, pl_error *err);

#endif
