#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "host/serve/api_error.h"
#include "host/serve/http_parts.h"

#define SCRATCH_BYTES 65536
#define KEPT_BYTES 16384 /* of a buffer that is empty */
#define PACE_S 0.0001
#define PACED 20 /* fewer streams than that are never too many */
#define BODIES 8 /* largest bodies whose bytes may be there at once */

/* ---- life ---- */

void pl_connection_open(pl_http *http, int fd, const char *peer, uint64_t peer_hash)
{
    pl_connection *c = calloc(1, sizeof *c);
    if (!c) {
        close(fd);
        return;
    }
    c->http = http;
    c->fd = fd;
    c->exchange = (pl_exchange){.http = http, .sink = &pl_http_writer, .peer = c->peer};
    c->peer_hash = peer_hash;
    c->since = c->written_at = http->now;
    strncpy(c->peer, peer, sizeof c->peer - 1);
    c->watched = EPOLLIN;
    struct epoll_event event = {.events = c->watched, .data.ptr = c};
    if (epoll_ctl(http->epoll, EPOLL_CTL_ADD, fd, &event) != 0) {
        close(fd);
        free(c);
        return;
    }
    c->next = http->all;
    if (c->next)
        c->next->previous = c;
    http->all = c;
    atomic_fetch_add(&http->n_connections, 1);
}

void pl_connection_free(pl_connection *c)
{
    pl_exchange_clear(&c->exchange);
    pl_strbuf_free(&c->in);
    pl_strbuf_free(&c->out);
    free(c);
}

void pl_connection_work(pl_connection *c)
{
    if (c->has_work || c->state == PL_CONNECTION_CLOSED)
        return;
    c->has_work = true;
    c->next_work = c->http->work;
    c->http->work = c;
}

void pl_connection_drop(pl_connection *c)
{
    pl_http *http = c->http;
    if (c->state == PL_CONNECTION_CLOSED)
        return;
    c->state = PL_CONNECTION_CLOSED;
    close(c->fd);
    if (c->previous)
        c->previous->next = c->next;
    else
        http->all = c->next;
    if (c->next)
        c->next->previous = c->previous;
    c->next_dead = http->dead;
    http->dead = c;
    atomic_fetch_sub(&http->n_connections, 1);
    pl_exchange_leave(&c->exchange);
}

static void drop_counted(pl_connection *c, _Atomic uint64_t *counter)
{
    atomic_fetch_add(counter, 1);
    pl_connection_drop(c);
}

/* ---- out ---- */

size_t pl_connection_unsent(const pl_connection *c)
{
    return c->out.n - c->out_at;
}

/* Empty: its memory is kept while it is small. */
static void empty_buffer(pl_strbuf *buf, size_t *at)
{
    *at = 0;
    if (buf->capacity > KEPT_BYTES)
        pl_strbuf_free(buf);
    else
        pl_strbuf_clear(buf);
}

bool pl_connection_send(pl_connection *c)
{
    if (c->out.failed) {
        pl_connection_drop(c);
        return false;
    }
    while (pl_connection_unsent(c) > 0 && !c->blocked) {
        ssize_t n = send(c->fd, c->out.data + c->out_at, pl_connection_unsent(c), MSG_NOSIGNAL | MSG_DONTWAIT);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0 && errno != EAGAIN) {
            pl_connection_drop(c);
            return false;
        }
        c->blocked = n < 0 || (size_t)n < pl_connection_unsent(c);
        c->written_at = c->http->now; /* only those who have room again, or had it all along, are tried */
        if (n > 0) {
            c->out_at += (size_t)n;
            atomic_fetch_add(&c->http->bytes_out, (uint64_t)n);
        }
    }
    if (pl_connection_unsent(c) == 0) {
        empty_buffer(&c->out, &c->out_at);
    } else if (c->out_at > c->out.n / 2) {
        memmove(c->out.data, c->out.data + c->out_at, pl_connection_unsent(c));
        c->out.n -= c->out_at;
        c->out_at = 0;
    }
    return true;
}

/* ---- in ---- */

static size_t pending(const pl_connection *c)
{
    return c->in.n - c->in_at;
}

static void taken(pl_connection *c, size_t n)
{
    c->in_at += n;
    if (pending(c) == 0)
        empty_buffer(&c->in, &c->in_at);
}

/* The client says no more; what it is still to hear, it hears. */
static void end_of_input(pl_connection *c)
{
    c->peer_ended = true;
    if (c->state == PL_CONNECTION_BUSY || pl_connection_unsent(c) == 0) {
        pl_connection_drop(c);
    } else if (c->state != PL_CONNECTION_LINGER) {
        c->state = PL_CONNECTION_LINGER;
        c->since = c->http->now;
    }
}

static void receive(pl_connection *c)
{
    pl_http *http = c->http;
    ssize_t n = recv(c->fd, http->scratch, SCRATCH_BYTES, MSG_DONTWAIT);
    if (n == 0) {
        end_of_input(c);
    } else if (n < 0 && errno != EAGAIN && errno != EINTR) {
        pl_connection_drop(c);
    } else if (n > 0) {
        atomic_fetch_add(&http->bytes_in, (uint64_t)n);
        if (c->state == PL_CONNECTION_LINGER)
            return;
        if (c->state == PL_CONNECTION_HEAD && pending(c) == 0)
            c->since = http->now;
        if (c->in_at) { /* what was sent ahead */
            memmove(c->in.data, c->in.data + c->in_at, pending(c));
            c->in.n -= c->in_at;
            c->in_at = 0;
        }
        pl_strbuf_add(&c->in, http->scratch, (size_t)n);
        if (c->in.failed)
            pl_connection_drop(c);
        else if (c->state == PL_CONNECTION_BUSY && pending(c) > PL_HTTP_PENDING_BYTES)
            drop_counted(c, &http->n_dropped); /* unread, it would hide that the client leaves */
    }
}

void pl_connection_event(pl_connection *c, uint32_t events)
{
    if (c->state == PL_CONNECTION_CLOSED)
        return;
    if (events & EPOLLOUT)
        c->blocked = false;
    if (events & (EPOLLERR | EPOLLHUP))
        pl_connection_drop(c);
    else if (events & EPOLLIN)
        receive(c);
    else if (events & EPOLLRDHUP)
        end_of_input(c);
    pl_connection_work(c);
}

/* ---- requests ---- */

static void begin_exchange(pl_connection *c)
{
    pl_exchange_open(&c->exchange, c->since);
    c->exchange.client = c->peer_hash;
    c->state = PL_CONNECTION_BUSY;
}

/* Answers what could not be read as a request; after it nothing can. */
static void refuse(pl_connection *c, pl_http_fault fault)
{
    if (!c->exchange.open)
        begin_exchange(c);
    c->state = PL_CONNECTION_BUSY;
    c->last = true;
    pl_api_error error = {.status = fault.status};
    strncpy(error.message, fault.message, sizeof error.message - 1);
    pl_api_fail(&c->exchange, &error, fault.status == 503 ? 1 : 0);
}

static void begin_body(pl_connection *c)
{
    pl_exchange *x = &c->exchange;
    c->state = PL_CONNECTION_BODY;
    c->chunks = (pl_http_chunks){.left = 0};
    bool waits = x->request.expects_continue && (x->request.chunked || x->request.length) && pending(c) == 0;
    if (waits)
        pl_strbuf_add_text(&c->out, "HTTP/1.1 100 Continue\r\n\r\n");
}

/* False: more of it must come. */
static bool take_head(pl_connection *c)
{
    pl_exchange *x = &c->exchange;
    pl_http_fault fault = {0};
    while (c->head_seen == 0 && pending(c) >= 2 && memcmp(c->in.data + c->in_at, "\r\n", 2) == 0)
        taken(c, 2);
    if (pending(c) == 0)
        return false;
    const char *head = c->in.data + c->in_at;
    size_t n = pl_http_head_length(head, pending(c), &c->head_seen, &fault);
    if (n == 0 && !fault.status)
        return false;
    c->head_seen = 0;
    begin_exchange(c);
    if (!fault.status)
        fault = pl_http_request_parse(&x->request, head, n);
    if (!fault.status && x->request.length > c->http->params.max_body_bytes)
        fault = (pl_http_fault){413, "The request's body is too large."};
    c->last = !x->request.keep_alive || c->http->draining;
    if (fault.status) {
        refuse(c, fault);
        return true;
    }
    taken(c, n);
    x->head_only = strcmp(x->request.method, "HEAD") == 0;
    bool has_body = x->request.chunked || x->request.length;
    bool last = c->last;
    c->last = last || has_body; /* of a refusal, which does not read the body */
    if (pl_http_check(x)) {
        c->last = last;
        begin_body(c);
    }
    return true;
}

/* False: more of it must come. */
static bool take_body(pl_connection *c)
{
    pl_exchange *x = &c->exchange;
    pl_http *http = c->http;
    pl_http_fault fault = {0};
    size_t n = pending(c), before = x->body.n;
    bool whole;
    if (x->request.chunked && n == 0)
        return false;
    if (x->request.chunked) {
        n = pl_http_chunks_feed(&c->chunks, c->in.data + c->in_at, n, &x->body, http->params.max_body_bytes, &fault);
        whole = c->chunks.state == PL_CHUNKS_DONE;
    } else {
        if (n > x->request.length - x->body.n)
            n = (size_t)x->request.length - x->body.n;
        pl_strbuf_add(&x->body, n ? c->in.data + c->in_at : "", n);
        whole = x->body.n == x->request.length;
    }
    http->bodies += x->body.n - before;
    taken(c, n);
    if (x->body.failed || http->bodies / BODIES > http->params.max_body_bytes)
        fault = (pl_http_fault){503, "Too many large requests come at once."};
    if (fault.status) {
        refuse(c, fault);
        return true;
    }
    if (!whole)
        return false;
    c->state = PL_CONNECTION_BUSY;
    c->since = http->now;
    x->route->handler(http->user, x);
    return true;
}

/* Of an upgraded connection. False: there is nothing. */
static bool take_input(pl_connection *c)
{
    pl_exchange *x = &c->exchange;
    pl_strbuf bytes = c->in; /* what comes of it may end the connection */
    size_t from = c->in_at;
    if (!x->input || pending(c) == 0)
        return false;
    c->in = (pl_strbuf){0};
    c->in_at = 0;
    x->input(x->input_user, bytes.data + from, bytes.n - from);
    pl_strbuf_free(&bytes);
    return true;
}

static void process(pl_connection *c)
{
    for (;;) {
        bool goes_on = false;
        if (c->state == PL_CONNECTION_HEAD)
            goes_on = pl_connection_unsent(c) <= c->http->params.max_unsent_bytes && take_head(c);
        else if (c->state == PL_CONNECTION_BODY)
            goes_on = take_body(c);
        else if (c->state == PL_CONNECTION_BUSY)
            goes_on = take_input(c);
        if (!goes_on)
            return;
    }
}

/* ---- the end of a turn ---- */

static void watch(pl_connection *c)
{
    uint32_t wanted = c->blocked ? EPOLLOUT : 0;
    bool reads = pending(c) < PL_HTTP_PENDING_BYTES;
    if (!c->peer_ended)
        wanted |= reads ? EPOLLIN : EPOLLRDHUP;
    if (wanted == c->watched)
        return;
    struct epoll_event event = {.events = wanted, .data.ptr = c};
    if (epoll_ctl(c->http->epoll, EPOLL_CTL_MOD, c->fd, &event) != 0)
        pl_connection_drop(c);
    else
        c->watched = wanted;
}

static void finish(pl_connection *c)
{
    if (pl_connection_unsent(c) > 0)
        return;
    if (c->peer_ended) {
        pl_connection_drop(c);
    } else if (!c->write_ended) {
        shutdown(c->fd, SHUT_WR);
        c->write_ended = true;
        c->since = c->http->now;
    }
}

/* However many events there are for however many streams, the loop makes at most 1 / PACE_S writes to them a second. What
 * comes faster is written together. */
static bool waits_for_more(pl_connection *c)
{
    pl_http *http = c->http;
    int32_t n = atomic_load(&http->n_exchanges);
    double pace = PACE_S * n;
    bool streams = c->state == PL_CONNECTION_BUSY && c->exchange.status && !c->blocked;
    if (!streams || n < PACED || pl_connection_unsent(c) == 0 || http->now > c->written_at + 0.9 * pace)
        return false;
    if (!http->later)
        http->later_at = http->now + pace / 8;
    if (!c->is_later) {
        c->next_later = http->later;
        http->later = c;
        c->is_later = true;
    }
    return true;
}

void pl_connection_settle(pl_connection *c)
{
    process(c);
    if (waits_for_more(c))
        return;
    if (c->state == PL_CONNECTION_CLOSED || !pl_connection_send(c))
        return;
    if (c->state == PL_CONNECTION_LINGER) {
        taken(c, pending(c));
        finish(c);
    }
    if (c->state != PL_CONNECTION_CLOSED)
        watch(c);
}

void pl_connection_drain(pl_connection *c)
{
    c->last = true;
    if (c->state == PL_CONNECTION_HEAD && pending(c) == 0) {
        c->state = PL_CONNECTION_LINGER;
        c->since = c->http->now;
        pl_connection_work(c);
    }
    if (c->state == PL_CONNECTION_BUSY && c->exchange.input)
        c->exchange.input(c->exchange.input_user, "", 0);
}

void pl_connection_sweep(pl_connection *c, double now)
{
    pl_http *http = c->http;
    bool arriving = c->state == PL_CONNECTION_BODY || (c->state == PL_CONNECTION_HEAD && pending(c) > 0);
    double waited = now - c->since;
    if (pl_connection_unsent(c) > 0) {
        if (now - c->written_at <= http->params.write_timeout_s)
            return;
        drop_counted(c, &http->n_timed_out);
    } else if (arriving && waited > http->params.read_timeout_s) {
        atomic_fetch_add(&http->n_timed_out, 1);
        refuse(c, (pl_http_fault){408, "The request took too long to arrive."});
    } else if ((c->state == PL_CONNECTION_HEAD && waited > http->params.read_timeout_s) ||
               (c->state == PL_CONNECTION_LINGER && waited > http->params.linger_s)) {
        pl_connection_drop(c);
    }
}
