#include <string.h>
#include <strings.h>
#include <time.h>

#include "host/base/clock.h"
#include "host/serve/http_parts.h"

/* ---- the request ---- */

const char *pl_exchange_method(const pl_exchange *x)
{
    return x->request.method ? x->request.method : "";
}

const char *pl_exchange_path(const pl_exchange *x)
{
    return x->request.path ? x->request.path : "";
}

const char *pl_exchange_query(const pl_exchange *x, const char *name)
{
    for (size_t i = 0; i < x->request.n_queries; i++)
        if (strcmp(x->request.queries[i].name, name) == 0)
            return x->request.queries[i].value;
    return NULL;
}

const char *pl_exchange_header(const pl_exchange *x, const char *name)
{
    return pl_http_request_header(&x->request, name);
}

const char *pl_exchange_body(const pl_exchange *x, size_t *n)
{
    *n = x->body.n;
    return x->body.data ? x->body.data : "";
}

uint64_t pl_exchange_client(const pl_exchange *x)
{
    return x->client;
}

uint64_t pl_exchange_id(const pl_exchange *x)
{
    return x->id;
}

pl_http *pl_exchange_http(const pl_exchange *x)
{
    return x->connection->http;
}

void pl_exchange_on_gone(pl_exchange *x, void (*fn)(void *user), void *user)
{
    x->gone = fn;
    x->gone_user = user;
}

void pl_exchange_note(pl_exchange *x, const char *text)
{
    strncpy(x->note, text, sizeof x->note - 1);
}

/* ---- the response ---- */

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

void pl_exchange_set_header(pl_exchange *x, const char *name, const char *value)
{
    if (strpbrk(value, "\r\n"))
        return;
    if (strcasecmp(name, "Cache-Control") == 0)
        x->says_caching = true;
    pl_strbuf_printf(&x->headers, "%s: %s\r\n", name, value);
}

/* The line and headers of every response; the caller ends them. */
static void put_head(pl_exchange *x, int status, const char *content_type)
{
    pl_connection *c = x->connection;
    pl_http *http = c->http;
    x->status = status;
    pl_strbuf_printf(&c->out, "HTTP/1.1 %d %s\r\nDate: %s\r\nX-Request-Id: req-%08llx-%llx\r\n", status, reason(status),
                     date(http), (unsigned long long)http->id_prefix, (unsigned long long)x->id);
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

void pl_exchange_respond(pl_exchange *x, int status, const char *content_type, const char *body, size_t n)
{
    pl_connection *c = x->connection;
    bool bare = status == 204 || status == 304;
    put_head(x, status, bare ? NULL : content_type);
    if (!bare)
        pl_strbuf_printf(&c->out, "Content-Length: %zu\r\n", n);
    pl_strbuf_add_text(&c->out, "\r\n");
    if (!bare && !x->head_only)
        pl_strbuf_add(&c->out, body, n);
    pl_exchange_over(x, true);
}

void pl_exchange_begin(pl_exchange *x, int status, const char *content_type)
{
    pl_connection *c = x->connection;
    x->in_chunks = x->request.minor > 0;
    c->last = c->last || !x->in_chunks;
    put_head(x, status, content_type);
    pl_strbuf_add_text(&c->out, "X-Accel-Buffering: no\r\n"); /* nginx shall pass it on as it comes */
    pl_strbuf_add_text(&c->out, x->in_chunks ? "Transfer-Encoding: chunked\r\n\r\n" : "\r\n");
    pl_connection_work(c);
}

void pl_exchange_upgrade(pl_exchange *x, const char *protocol, pl_http_input input, void *user)
{
    pl_connection *c = x->connection;
    c->last = false; /* the connection is Upgrade, now */
    pl_exchange_set_header(x, "Connection", "Upgrade");
    pl_exchange_set_header(x, "Upgrade", protocol);
    put_head(x, 101, NULL);
    pl_strbuf_add_text(&c->out, "\r\n");
    c->last = true;
    x->in_chunks = false;
    x->input = input;
    x->input_user = user;
    pl_connection_work(c);
}

bool pl_exchange_send(pl_exchange *x, const char *data, size_t n)
{
    pl_connection *c = x->connection;
    if (n == 0 || x->head_only)
        return true;
    if (x->in_chunks)
        pl_strbuf_printf(&c->out, "%zx\r\n", n);
    pl_strbuf_add(&c->out, data, n);
    if (x->in_chunks)
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

void pl_exchange_end(pl_exchange *x)
{
    if (x->in_chunks && !x->head_only)
        pl_strbuf_add_text(&x->connection->out, "0\r\n\r\n");
    pl_exchange_over(x, true);
}

void pl_exchange_drop(pl_exchange *x)
{
    pl_connection_drop(x->connection);
}

/* ---- its end ---- */

static void tell_log(const pl_exchange *x, bool whole)
{
    pl_connection *c = x->connection;
    if (!c->http->params.log)
        return;
    pl_http_entry entry = {
        .client = c->peer,
        .method = pl_exchange_method(x),
        .path = pl_exchange_path(x),
        .status = x->status ? x->status : 499,
        .whole = whole,
        .seconds = pl_clock_seconds() - x->since,
        .note = x->note,
    };
    c->http->params.log(c->http->params.log_user, &entry);
}

void pl_exchange_clear(pl_exchange *x)
{
    pl_connection *c = x->connection;
    c->http->bodies -= x->body.n;
    pl_http_request_clear(&x->request);
    pl_strbuf_free(&x->body);
    pl_strbuf_free(&x->headers);
    *x = (pl_exchange){.connection = c};
}

void pl_exchange_over(pl_exchange *x, bool whole)
{
    pl_connection *c = x->connection;
    tell_log(x, whole);
    atomic_fetch_sub(&c->http->n_exchanges, 1);
    pl_exchange_clear(x);
    if (c->state == PL_CONNECTION_CLOSED)
        return;
    c->state = c->last ? PL_CONNECTION_LINGER : PL_CONNECTION_HEAD;
    c->since = c->http->now;
    pl_connection_work(c);
}
