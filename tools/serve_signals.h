/* SIGINT and SIGTERM of a server: a thread waits for them. */
#ifndef PL_TOOLS_SERVE_SIGNALS_H
#define PL_TOOLS_SERVE_SIGNALS_H

#include "host/serve/http.h"

typedef struct pl_serve_signals pl_serve_signals;

/* To be called before any other thread starts. Until there is a server, the signals end the program as ever. */
pl_status pl_serve_signals_begin(pl_serve_signals **out, pl_error *err);

/* From now on each is a pl_http_stop(); NULL: there is no server any more. */
void pl_serve_signals_set(pl_serve_signals *signals, pl_http *http);
void pl_serve_signals_end(pl_serve_signals *signals);

#endif
