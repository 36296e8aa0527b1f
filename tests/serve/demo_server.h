/* The whole server with the demo model, on a thread of its own. */
#ifndef PL_TESTS_SERVE_DEMO_SERVER_H
#define PL_TESTS_SERVE_DEMO_SERVER_H

#include <jansson.h>
#include <pthread.h>

#include "host/serve/http.h"
#include "host/serve/service.h"
#include "tests/serve/raw_client.h"

typedef struct demo_server {
    pl_model *model;
    pl_engine *engine;
    pl_scheduler *scheduler;
    pl_service *service;
    pl_http *http;
    pthread_t thread;
} demo_server;

/* The model is "demo", greedy unless a request says otherwise, on e4b unless it names a path. */
void demo_start(demo_server *s);
void demo_start_with(demo_server *s, const char *model, bool media_urls); /* another model under that name */
void demo_stop(demo_server *s);

/* One request on a connection of its own; body NULL: none. raw_free() */
raw_response demo_ask(const demo_server *s, const char *method, const char *path, const char *body);

/* The JSON of a response that must have this status; json_decref(). body: printf's. */
json_t *demo_get(const demo_server *s, int status, const char *path);
json_t *demo_post(const demo_server *s, int status, const char *path, const char *body, ...)
    __attribute__((format(printf, 4, 5)));

/* Events of a stream: an array of {"event": name or null, "data": JSON or text}. */
json_t *demo_stream(const demo_server *s, const char *path, const char *body, ...)
    __attribute__((format(printf, 3, 4)));

/* A text within: "choices.0.message.content"; "" when it is not there. */
const char *json_text_at(const json_t *root, const char *path);
const json_t *json_at(const json_t *root, const char *path);
int64_t json_int_at(const json_t *root, const char *path); /* -1 when it is not there */

#endif
