/* Responses as HTTP/1.1, into what a connection has to send. */
#include <stddef.h>
#include <time.h>

#include "host/serve/http_parts.h"

static pl_connection *connection_of(pl_exchange *x)
{
    return (pl_connection *)(void *)((char *)x - offsetof(pl_connection, exchange));
}

static const char *reason(int status)
{
    switch (status) {
    case 101: return "Switching Protocols";
    case 200: return "OK";
    case 204: return "No Content";
    case 304: return "Not Modified";
    case 400: return "Bad Request";
    case 401: return "Unauthorized";
    case 403: return "Forbidden";
    case 404: return "Not Found";
    case 405: return "Method Not Allowed";
    case 408: return "Request Timeout";
    case 413: return "Content Too Large";
    case 414: return "URI Too Long";
    case 415: return "Unsupported Media Type";
    case 417: return "Expectation Failed";
    case 422: return "Unprocessable Content";
    case 429: return "Too Many Requests";
    case 431: return "Request Header Fields Too Large";
    case 500: return "Internal Server Error";
    case 501: return "Not Implemented";
    case 503: return "Service Unavailable";
    case 505: return "HTTP Version Not Supported";
    case 529: return "Overloaded";
    default: return "-";
    }
}

static const char *date(pl_http *http)
{
    time_t now = time(NULL);
    struct tm utc;
    if ((int64_t)now != http->date_at && gmtime_r(&now, &utc)) {
        strftime(http->date, sizeof http->date, "%a, %d %b %Y %H:%M:%S GMT", &utc);
        http->date_at = (int64_t)now;
    }
    return http->date;
}

/* The line and headers of every response; the caller ends them. */
static void put_head(const pl_exchange *x, pl_connection *c, const char *content_type)
{
    char name[PL_EXCHANGE_NAME];
    pl_exchange_name(x, name);
    pl_strbuf_printf(&c->out, "HTTP/1.1 %d %s\r\nDate: %s\r\nX-Request-Id: %s\r\n", x->status, reason(x->status),
                     date(c->http), name);
    if (content_type)
        pl_strbuf_printf(&c->out, "Content-Type: %s\r\nX-Content-Type-Options: nosniff\r\n", content_type);
    if (!x->says_caching)
        pl_strbuf_add_text(&c->out, "Cache-Control: no-store\r\n");
    if (x->headers.n)
        pl_strbuf_add(&c->out, x->headers.data, x->headers.n);
    if (x->headers.failed)
        c->out.failed = true;
    if (c->last)
        pl_strbuf_add_text(&c->out, "Connection: close\r\n");
    else if (x->request.minor == 0)
        pl_strbuf_add_text(&c->out, "Connection: keep-alive\r\n");
}

static void respond(pl_exchange *x, const char *content_type, const char *body, size_t n)
{
    pl_connection *c = connection_of(x);
    bool bare = x->status == 204 || x->status == 304;
    put_head(x, c, bare ? NULL : content_type);
    if (!bare)
        pl_strbuf_printf(&c->out, "Content-Length: %zu\r\n", n);
    pl_strbuf_add_text(&c->out, "\r\n");
    if (!bare && !x->head_only)
        pl_strbuf_add(&c->out, body, n);
}

static void begin(pl_exchange *x, const char *content_type)
{
    pl_connection *c = connection_of(x);
    c->in_chunks = x->request.minor > 0;
    c->last = c->last || !c->in_chunks;
    put_head(x, c, content_type);
    pl_strbuf_add_text(&c->out, "X-Accel-Buffering: no\r\n"); /* nginx shall pass it on as it comes */
    pl_strbuf_add_text(&c->out, c->in_chunks ? "Transfer-Encoding: chunked\r\n\r\n" : "\r\n");
    pl_connection_work(c);
}

static bool send_part(pl_exchange *x, const char *data, size_t n)
{
    pl_connection *c = connection_of(x);
    if (c->in_chunks)
        pl_strbuf_printf(&c->out, "%zx\r\n", n);
    pl_strbuf_add(&c->out, data, n);
    if (c->in_chunks)
        pl_strbuf_add(&c->out, "\r\n", 2);
    if (pl_connection_unsent(c) > c->http->params.max_unsent_bytes) {
        if (!pl_connection_send(c))
            return false;
        if (pl_connection_unsent(c) > c->http->params.max_unsent_bytes) {
            atomic_fetch_add(&c->http->n_dropped, 1);
            pl_connection_drop(c);
            return false;
        }
    }
    pl_connection_work(c);
    return true;
}

static void end(pl_exchange *x)
{
    pl_connection *c = connection_of(x);
    if (c->in_chunks && !x->head_only)
        pl_strbuf_add_text(&c->out, "0\r\n\r\n");
}

static void upgrade(pl_exchange *x, const char *protocol)
{
    pl_connection *c = connection_of(x);
    c->last = false; /* the connection is Upgrade, now */
    pl_exchange_set_header(x, "Connection", "Upgrade");
    pl_exchange_set_header(x, "Upgrade", protocol);
    put_head(x, c, NULL);
    pl_strbuf_add_text(&c->out, "\r\n");
    c->last = true;
    c->in_chunks = false;
    pl_connection_work(c);
}

static void drop(pl_exchange *x)
{
    pl_connection_drop(connection_of(x));
}

/* The connection goes on. */
static void over(pl_exchange *x)
{
    pl_connection *c = connection_of(x);
    pl_exchange_clear(x);
    if (c->state == PL_CONNECTION_CLOSED)
        return;
    c->state = c->last ? PL_CONNECTION_LINGER : PL_CONNECTION_HEAD;
    c->since = c->http->now;
    pl_connection_work(c);
}

const pl_exchange_sink pl_http_writer = {
    .respond = respond,
    .begin = begin,
    .send = send_part,
    .end = end,
    .upgrade = upgrade,
    .drop = drop,
    .over = over,
};
