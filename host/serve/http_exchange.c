#include <assert.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

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
    return x->http;
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

void pl_exchange_set_header(pl_exchange *x, const char *name, const char *value)
{
    if (strpbrk(value, "\r\n"))
        return;
    if (strcasecmp(name, "Cache-Control") == 0)
        x->says_caching = true;
    pl_strbuf_printf(&x->headers, "%s: %s\r\n", name, value);
}

void pl_exchange_respond(pl_exchange *x, int status, const char *content_type, const char *body, size_t n)
{
    x->status = status;
    x->sink->respond(x, content_type, body, n);
    pl_exchange_over(x, true);
}

void pl_exchange_begin(pl_exchange *x, int status, const char *content_type)
{
    x->status = status;
    x->sink->begin(x, content_type);
}

bool pl_exchange_send(pl_exchange *x, const char *data, size_t n)
{
    return n == 0 || x->head_only || x->sink->send(x, data, n);
}

void pl_exchange_end(pl_exchange *x)
{
    x->sink->end(x);
    pl_exchange_over(x, true);
}

void pl_exchange_upgrade(pl_exchange *x, const char *protocol, pl_http_input input, void *user)
{
    assert(x->sink->upgrade);
    x->status = 101;
    x->input = input;
    x->input_user = user;
    x->sink->upgrade(x, protocol);
}

void pl_exchange_drop(pl_exchange *x)
{
    x->sink->drop(x);
}

/* ---- its beginning and its end ---- */

void pl_exchange_name(const pl_exchange *x, char name[static PL_EXCHANGE_NAME])
{
    snprintf(name, PL_EXCHANGE_NAME, "req-%08llx-%llx", (unsigned long long)x->http->id_prefix,
             (unsigned long long)x->id);
}

void pl_exchange_open(pl_exchange *x, double since)
{
    x->id = ++x->http->last_id;
    x->since = since;
    x->open = true;
    atomic_fetch_add(&x->http->n_exchanges, 1);
    atomic_fetch_add(&x->http->n_requests, 1);
}

static void tell_log(const pl_exchange *x, bool whole)
{
    const pl_http_params *params = &x->http->params;
    if (!params->log)
        return;
    pl_http_entry entry = {
        .client = x->peer,
        .method = pl_exchange_method(x),
        .path = pl_exchange_path(x),
        .status = x->status ? x->status : 499,
        .whole = whole,
        .seconds = pl_clock_seconds() - x->since,
        .note = x->note,
    };
    params->log(params->log_user, &entry);
}

void pl_exchange_clear(pl_exchange *x)
{
    x->http->bodies -= x->body.n;
    pl_http_request_clear(&x->request);
    pl_strbuf_free(&x->body);
    pl_strbuf_free(&x->headers);
    *x = (pl_exchange){.http = x->http, .sink = x->sink, .peer = x->peer};
}

void pl_exchange_over(pl_exchange *x, bool whole)
{
    tell_log(x, whole);
    atomic_fetch_sub(&x->http->n_exchanges, 1);
    x->sink->over(x);
}

void pl_exchange_leave(pl_exchange *x)
{
    if (x->gone)
        x->gone(x->gone_user);
    if (x->open)
        pl_exchange_over(x, false);
}
