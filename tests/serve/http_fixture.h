/* A server of a test, with routes that do simple things, on a thread of its own. */
#ifndef PL_TESTS_SERVE_HTTP_FIXTURE_H
#define PL_TESTS_SERVE_HTTP_FIXTURE_H

#include <pthread.h>
#include <stdatomic.h>

#include "host/serve/http.h"
#include "tests/serve/raw_client.h"

typedef struct http_fixture http_fixture;

typedef struct http_held {
    http_fixture *f;
    pl_exchange *x; /* NULL: over */
} http_held;

struct http_fixture {
    pl_http *http;
    pthread_t thread;
    double drain_s;
    http_held held[256]; /* of /hold and /stream; the loop's */
    _Atomic int n_held, n_gone, n_logged, last_status;
    char last_note[128];
};

/* params may be zero: loopback and any port. Routes:
 *   GET  /hello        "hello"            GET /note      the same, with a note for the log
 *   POST /echo         the body           GET /query     what ?q= says, or "none"
 *   GET  /client       its number         GET /open      "open", without a key
 *   GET  /hold         waits for http_fixture_release() or the client to leave
 *   GET  /stream       as /hold, but begins an event stream
 *   GET  /flood        sends until the client is dropped
 *   GET  /things/...   the path           POST /v1/messages  "ok" */
void http_fixture_start(http_fixture *f, pl_http_params params); /* drains for 100 s */
void http_fixture_start_drained(http_fixture *f, pl_http_params params, double drain_s);

/* The same in two steps: what clients send between them is there when they are let in, however short they are waited for. */
void http_fixture_open(http_fixture *f, pl_http_params params);
void http_fixture_run(http_fixture *f);

/* Sends text to all that are held, and ends them if `end`; from any thread. */
void http_fixture_release(http_fixture *f, const char *text, bool end);

/* Stops, waits for the loop to end and frees. */
void http_fixture_stop(http_fixture *f);

/* Waits until the counter is at least n, a minute at most; false: it never was. */
bool http_fixture_wait(_Atomic int *counter, int n);

/* A connection; one request on a connection of its own; the same, held against status and part of the body. */
int http_fixture_connect(const http_fixture *f);
raw_response http_fixture_ask(const http_fixture *f, const char *text);
void http_fixture_expect(const http_fixture *f, const char *text, int status, const char *body);

#endif
