/* HTTP for the API: a loop that reads requests, checks them, hands them to handlers and writes what these have to say.
 * Nothing else of the server sees a socket.
 *
 * An exchange is a request and its response. It is used on the loop's thread only, from its handler on until it is over:
 * responded, or the stream ended, or the client gone. Other threads reach the loop by pl_http_post().
 *
 * Before a handler is called: the sizes of line, headers and body, the method, the path (404, 405 with Allow), the API
 * key where the route wants one (401), on loopback the Host header (against DNS rebinding; 403), and an Origin, which must be
 * the server's own or one of those allowed (against other pages of a browser; 403). Errors that the loop itself answers are
 * JSON in the API's form (pl_api_fail). CORS headers only for origins that were allowed. HEAD is served where GET is.
 *
 * A client that closes its side of the connection has left: half-closed connections are not waited on. */
#ifndef PL_SERVE_HTTP_H
#define PL_SERVE_HTTP_H

#include "host/base/status.h"

typedef struct pl_http pl_http;
typedef struct pl_exchange pl_exchange;

/* An exchange as a log has it. */
typedef struct pl_http_entry {
    const char *client; /* address */
    const char *method, *path;
    int status; /* 499: the client left before a response had begun */
    bool whole; /* false: the client left, or was dropped, before the end */
    double seconds;
    const char *note; /* pl_exchange_note(); "" */
} pl_http_entry;

typedef struct pl_http_params {
    const char *host;        /* address or name to bind to; a path beginning with '/' or "unix:" is a Unix socket; NULL:
                                nothing is bound, requests come from within the process alone */
    int32_t port;            /* 0: any free one */
    const char *const *keys; /* [n_keys] API keys; none: everybody may */
    size_t n_keys;
    const char *const *origins; /* [n_origins] for CORS; "*": any */
    size_t n_origins;
    size_t max_body_bytes;   /* 0: 32 MiB */
    int32_t max_connections; /* 0: 4096; more are closed at once with 503 */
    double read_timeout_s;   /* a request must have arrived; 0: 30 */
    double write_timeout_s;  /* a client must have taken something of what waits for it; 0: 30 */
    double linger_s;         /* a client to which all is said must have closed its side; 0: 2 */
    size_t max_unsent_bytes; /* of one stream; a client that falls further behind is dropped; 0: 4 MiB */
    void (*log)(void *user, const pl_http_entry *entry); /* of each exchange that is over; NULL: none */
    void *log_user;
} pl_http_params;

typedef void (*pl_http_handler)(void *user, pl_exchange *exchange);

typedef struct pl_http_route {
    const char *method; /* "GET", "POST", "DELETE" */
    const char *path;   /* "/v1/models/" with a slash at the end matches all that begins so */
    pl_http_handler handler;
    bool open; /* no API key needed */
} pl_http_route;

/* Binds and listens; the message of a failure names address and port. routes: borrowed, ends with an entry without method. */
pl_status pl_http_create(const pl_http_params *params, const pl_http_route *routes, void *user, pl_http **out,
                         pl_error *err);

/* Calls what was posted and not yet called. Nothing may be posted any more. */
void pl_http_free(pl_http *http);

/* What was bound: "http://127.0.0.1:8080"; lives as long as http. */
const char *pl_http_address(const pl_http *http);
bool pl_http_is_local(const pl_http *http); /* only this machine reaches it */

/* Serves on the calling thread until pl_http_stop(), which any thread and any signal handler may call. A stop is a drain: no connection is
 * accepted and none kept alive any more, what is under way goes on until it is over, at most drain_s; a second call, or
 * the end of that time, drops what is left. */
pl_status pl_http_serve(pl_http *http, double drain_s, pl_error *err);
void pl_http_stop(pl_http *http);

/* Calls fn(user) on the loop's thread, in the order of the calls; from any thread. PL_ERR_MEMORY: not queued. */
pl_status pl_http_post(pl_http *http, void (*fn)(void *user), void *user, pl_error *err);

/* Calls fn(user) on the loop's thread every `seconds`; from the loop's thread, or before pl_http_serve(). */
pl_status pl_http_every(pl_http *http, double seconds, void (*fn)(void *user), void *user, pl_error *err);

/* What came of a request from within: called once, on the loop's thread or by pl_http_free(). status 0: nothing, as the
 * loop ends or the response could not go on. Else the whole body, of a stream all that was sent. */
typedef void (*pl_http_done)(void *user, int status, const char *request_id, const char *body, size_t n);

/* A request from within the process, from any thread: the route's handler is called on the loop as for any other. path:
 * decoded, without query; copied. body: its end is free(), unless this fails; NULL: none. There are no headers and no limits,
 * nobody is asked for a key, and its client is 0. */
pl_status pl_http_request_inside(pl_http *http, const char *method, const char *path, char *body, size_t n,
                                 pl_http_done done, void *user, pl_error *err);

typedef struct pl_http_stats {
    int32_t connections, exchanges; /* open now */
    uint64_t requests, bytes_in, bytes_out;
    uint64_t refused, dropped, timed_out; /* connections */
} pl_http_stats;

pl_http_stats pl_http_count(const pl_http *http); /* any thread */

/* ---- an exchange ---- */

const char *pl_exchange_method(const pl_exchange *x);
const char *pl_exchange_path(const pl_exchange *x);                     /* without the query; decoded */
const char *pl_exchange_query(const pl_exchange *x, const char *name);  /* decoded; NULL: not there */
const char *pl_exchange_header(const pl_exchange *x, const char *name); /* NULL: not there */
const char *pl_exchange_body(const pl_exchange *x, size_t *n);
uint64_t pl_exchange_client(const pl_exchange *x); /* by API key, else by address: for fair shares */
uint64_t pl_exchange_id(const pl_exchange *x);     /* unique in this process */
pl_http *pl_exchange_http(const pl_exchange *x);

/* Called once if the client leaves (or is dropped) before the exchange is over: x is gone when fn returns. */
void pl_exchange_on_gone(pl_exchange *x, void (*fn)(void *user), void *user);

/* Something for the log: tokens, path of the model. Cut at 120 bytes. */
void pl_exchange_note(pl_exchange *x, const char *text);

/* A header of the response; before it begins. */
void pl_exchange_set_header(pl_exchange *x, const char *name, const char *value);

/* The whole response; the exchange is over. body is copied. */
void pl_exchange_respond(pl_exchange *x, int status, const char *content_type, const char *body, size_t n);

/* A response in parts, each of which is on its way when the loop's turn ends. send returns false, once gone was called,
 * when the client has fallen too far behind. */
void pl_exchange_begin(pl_exchange *x, int status, const char *content_type);
bool pl_exchange_send(pl_exchange *x, const char *data, size_t n);
void pl_exchange_end(pl_exchange *x); /* over */

/* Instead of a response: 101, and from here on the connection speaks `protocol` ("websocket"); what is sent goes as it is. input is
 * called with what comes, and once with n = 0 when the server drains: end soon. It may end or drop the exchange, after which
 * the connection is closed. */
typedef void (*pl_http_input)(void *user, const char *bytes, size_t n);
void pl_exchange_upgrade(pl_exchange *x, const char *protocol, pl_http_input input, void *user);

/* Closes the connection in the middle, where a response cannot go on: gone is called, and the client sees it cut off. */
void pl_exchange_drop(pl_exchange *x);

#endif
