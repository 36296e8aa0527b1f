/* What the files of the HTTP loop share.
 *
 * An exchange belongs to a connection (http_connection.c) or to somebody within the process (http_inside.c); a table of
 * functions tells where its response goes. Of a connection's states:
 *
 *     HEAD   a request may come, or has begun to
 *     BODY   its head is checked, its body comes
 *     BUSY   it is with its handler, or with whom this one gave it to
 *     LINGER the last response is written; then the client has a moment to read it and close
 *     CLOSED until the end of the turn, when the memory is freed
 *
 * Whatever happens to a connection puts it on the list of work, and at the end of the loop's turn it is settled: what has
 * come is processed, what is to go is sent, in one write. So handlers are never called from within an exchange's functions. */
#ifndef PL_SERVE_HTTP_PARTS_H
#define PL_SERVE_HTTP_PARTS_H

#include <pthread.h>
#include <stdatomic.h>

#include "host/serve/http.h"
#include "host/serve/http_keys.h"
#include "host/serve/http_request.h"

#define PL_HTTP_LISTENERS 8
#define PL_HTTP_PENDING_BYTES (2 * PL_HTTP_HEAD_BYTES) /* that a client may send ahead */

typedef struct pl_connection pl_connection;
typedef struct pl_inside pl_inside;

typedef enum pl_connection_state {
    PL_CONNECTION_HEAD,
    PL_CONNECTION_BODY,
    PL_CONNECTION_BUSY,
    PL_CONNECTION_LINGER,
    PL_CONNECTION_CLOSED,
} pl_connection_state;

/* Where a response goes. The status is noted before, the exchange is over after respond, end and drop. */
typedef struct pl_exchange_sink {
    void (*respond)(pl_exchange *x, const char *content_type, const char *body, size_t n);
    void (*begin)(pl_exchange *x, const char *content_type);
    bool (*send)(pl_exchange *x, const char *data, size_t n);
    void (*end)(pl_exchange *x);
    void (*upgrade)(pl_exchange *x, const char *protocol); /* NULL: no request asks for it */
    void (*drop)(pl_exchange *x);
    void (*over)(pl_exchange *x); /* it has been logged: clears it, and goes on */
} pl_exchange_sink;

struct pl_exchange {
    pl_http *http;
    const pl_exchange_sink *sink;
    const char *peer; /* for the log */
    pl_http_request request;
    pl_strbuf body;
    const pl_http_route *route;
    uint64_t id, client;
    double since;
    void (*gone)(void *user);
    void *gone_user;
    pl_http_input input; /* after an upgrade */
    void *input_user;
    pl_strbuf headers; /* of the response, as they will be written */
    int status;        /* 0: no response has begun */
    bool open;         /* from its head until it is over */
    bool head_only;    /* HEAD: no content */
    bool says_caching; /* the handler gave Cache-Control */
    char note[121];
};

struct pl_connection {
    pl_http *http;
    pl_connection *previous, *next; /* of all */
    pl_connection *next_work, *next_later, *next_dead;
    int fd;
    pl_connection_state state;
    uint32_t watched; /* what epoll looks for */
    bool has_work, is_later, last, peer_ended, write_ended, blocked, in_chunks;
    double since;      /* of the state; of HEAD: since the first byte of a request, or the end of the last response */
    double written_at; /* when something was taken, or nothing waited */
    pl_strbuf in, out;
    size_t in_at, out_at; /* of which so much is done with */
    size_t head_seen;
    pl_http_chunks chunks;
    char peer[64];
    uint64_t peer_hash;
    pl_exchange exchange;
};

typedef struct pl_posted {
    void (*fn)(void *user);
    void *user;
} pl_posted;

typedef struct pl_every {
    void (*fn)(void *user);
    void *user;
    double seconds, next;
} pl_every;

struct pl_http {
    pl_http_params params;
    char **origins;
    const pl_http_route *routes;
    void *user;
    pl_http_keys keys;
    char address[512], unix_path[128];
    bool loopback;

    int epoll, wake, spare; /* spare: a descriptor to give up when there are no others */
    int listeners[PL_HTTP_LISTENERS];
    int n_listeners;
    _Atomic int stops;
    bool draining;
    double now, drain_until, next_sweep, later_at;
    pl_connection *all, *work, *later, *dead; /* later: streams that have been written to a moment ago */
    pl_inside *inside;                        /* all open requests from within */
    pl_every *every;
    size_t n_every;
    size_t bodies; /* bytes of all requests' bodies */
    uint64_t last_id, id_prefix;
    char date[48];
    int64_t date_at;
    char *scratch; /* for reading */

    pthread_mutex_t lock; /* of the three below */
    pl_posted *posted;
    size_t n_posted, posted_room;

    _Atomic int32_t n_connections, n_exchanges;
    _Atomic uint64_t n_requests, bytes_in, bytes_out, n_refused, n_dropped, n_timed_out;
};

/* http_listen.c: fills listeners, address, unix_path, loopback. */
pl_status pl_http_listen(pl_http *http, pl_error *err);
void pl_http_unlisten(pl_http *http);
void pl_http_accept(pl_http *http, int listener);

/* http_connection.c */
void pl_connection_open(pl_http *http, int fd, const char *peer, uint64_t peer_hash); /* takes fd */
void pl_connection_event(pl_connection *c, uint32_t events);
void pl_connection_settle(pl_connection *c);            /* the work at the end of a turn */
void pl_connection_sweep(pl_connection *c, double now); /* drops it where it was too slow until then */
void pl_connection_drain(pl_connection *c);             /* no request may begin any more */
void pl_connection_drop(pl_connection *c);              /* at once; calls gone */
void pl_connection_work(pl_connection *c);
void pl_connection_free(pl_connection *c);
size_t pl_connection_unsent(const pl_connection *c);
bool pl_connection_send(pl_connection *c); /* what waits, as far as the socket takes it; false: dropped */

/* http_exchange.c */
void pl_exchange_open(pl_exchange *x, double since);
void pl_exchange_over(pl_exchange *x, bool whole); /* logs; x is not open any more */
void pl_exchange_leave(pl_exchange *x);            /* nobody waits for its end: calls gone, and it is over */
void pl_exchange_clear(pl_exchange *x);

#define PL_EXCHANGE_NAME 40
void pl_exchange_name(const pl_exchange *x, char name[static PL_EXCHANGE_NAME]); /* "req-..." */

/* http_write.c */
extern const pl_exchange_sink pl_http_writer; /* of the exchanges in connections */

/* http_inside.c */
void pl_inside_drop(pl_inside *inside);

/* http_check.c: decide on a request whose head is there. False: it has been responded. */
bool pl_http_check(pl_exchange *x); /* sender, route and key */
bool pl_http_find_route(pl_exchange *x);

#endif
