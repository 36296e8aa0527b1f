/* Requests from within the process: an exchange without a connection. */
#include <stdlib.h>
#include <string.h>

#include "host/base/clock.h"
#include "host/serve/http_parts.h"

struct pl_inside {
    pl_exchange exchange; /* first */
    pl_inside *previous, *next;
    pl_strbuf sent; /* of a stream */
    pl_http_done done;
    void *user;
};

static pl_inside *inside_of(pl_exchange *x)
{
    return (pl_inside *)x;
}

/* ---- the response ---- */

static void tell(pl_inside *in, int status, const char *body, size_t n)
{
    char name[PL_EXCHANGE_NAME];
    pl_exchange_name(&in->exchange, name);
    in->done(in->user, status, name, body, n);
    in->done = NULL;
}

static void respond(pl_exchange *x, const char *content_type, const char *body, size_t n)
{
    (void)content_type;
    tell(inside_of(x), x->status, body, n);
}

static void begin(pl_exchange *x, const char *content_type)
{
    (void)x;
    (void)content_type;
}

static bool collect(pl_exchange *x, const char *data, size_t n)
{
    pl_strbuf_add(&inside_of(x)->sent, data, n);
    return true;
}

static void end(pl_exchange *x)
{
    pl_inside *in = inside_of(x);
    tell(in, in->sent.failed ? 0 : x->status, in->sent.data ? in->sent.data : "", in->sent.n);
}

static void drop(pl_exchange *x)
{
    pl_exchange_leave(x);
}

static void unlink_inside(pl_inside *in)
{
    if (in->previous)
        in->previous->next = in->next;
    else
        in->exchange.http->inside = in->next;
    if (in->next)
        in->next->previous = in->previous;
}

static void over(pl_exchange *x)
{
    pl_inside *in = inside_of(x);
    if (in->done)
        tell(in, 0, "", 0);
    unlink_inside(in);
    pl_exchange_clear(x);
    pl_strbuf_free(&in->sent);
    free(in);
}

static const pl_exchange_sink collector = {
    .respond = respond,
    .begin = begin,
    .send = collect,
    .end = end,
    .drop = drop,
    .over = over,
};

void pl_inside_drop(pl_inside *in)
{
    pl_exchange_leave(&in->exchange);
}

/* ---- the request ---- */

/* On the loop. */
static void arrive(void *user)
{
    pl_inside *in = user;
    pl_exchange *x = &in->exchange;
    pl_http *http = x->http;
    in->next = http->inside;
    if (in->next)
        in->next->previous = in;
    http->inside = in;
    http->bodies += x->body.n;
    pl_exchange_open(x, pl_clock_seconds());
    if (http->draining || atomic_load(&http->stops) > 0)
        pl_inside_drop(in);
    else if (pl_http_find_route(x))
        x->route->handler(http->user, x);
}

/* Both as pl_http_request_parse() leaves them: pieces of one text. */
static bool copy_head(pl_http_request *request, const char *method, const char *path)
{
    size_t n_method = strlen(method) + 1, n_path = strlen(path) + 1;
    request->text = malloc(n_method + n_path);
    if (!request->text)
        return false;
    request->method = memcpy(request->text, method, n_method);
    request->path = memcpy(request->text + n_method, path, n_path);
    return true;
}

pl_status pl_http_request_inside(pl_http *http, const char *method, const char *path, char *body, size_t n,
                                 pl_http_done done, void *user, pl_error *err)
{
    pl_inside *in = calloc(1, sizeof *in);
    if (!in || !copy_head(&in->exchange.request, method, path)) {
        free(in);
        return pl_fail_memory(err, sizeof *in, "a request");
    }
    in->exchange.http = http;
    in->exchange.sink = &collector;
    in->exchange.peer = "inside";
    in->exchange.body = (pl_strbuf){.data = body, .n = n, .capacity = n};
    in->done = done;
    in->user = user;
    pl_status status = pl_http_post(http, arrive, in, err);
    if (status != PL_OK) {
        free(in->exchange.request.text);
        free(in);
    }
    return status;
}
