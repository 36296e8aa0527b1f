#include "tests/serve/http_fixture.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static void respond_text(pl_exchange *x, const char *text)
{
    pl_exchange_respond(x, 200, "text/plain", text, strlen(text));
}

static void hello(void *user, pl_exchange *x)
{
    (void)user;
    respond_text(x, "hello");
}

static void note(void *user, pl_exchange *x)
{
    (void)user;
    pl_exchange_note(x, "noted");
    respond_text(x, "hello");
}

static void echo(void *user, pl_exchange *x)
{
    (void)user;
    size_t n;
    const char *body = pl_exchange_body(x, &n);
    pl_exchange_respond(x, 200, "text/plain", body, n);
}

static void query(void *user, pl_exchange *x)
{
    (void)user;
    const char *q = pl_exchange_query(x, "q");
    respond_text(x, q ? q : "none");
}

static void client(void *user, pl_exchange *x)
{
    (void)user;
    char text[32];
    snprintf(text, sizeof text, "%llu", (unsigned long long)pl_exchange_client(x));
    respond_text(x, text);
}

static void things(void *user, pl_exchange *x)
{
    (void)user;
    respond_text(x, pl_exchange_path(x));
}

/* ---- held exchanges ---- */

static void gone(void *user)
{
    http_held *held = user;
    held->x = NULL;
    atomic_fetch_add(&held->f->n_gone, 1);
}

static void hold(void *user, pl_exchange *x)
{
    http_fixture *f = user;
    http_held *held = &f->held[atomic_load(&f->n_held)];
    *held = (http_held){f, x};
    if (strcmp(pl_exchange_path(x), "/stream") == 0)
        pl_exchange_begin(x, 200, "text/event-stream");
    pl_exchange_on_gone(x, gone, held);
    atomic_fetch_add(&f->n_held, 1);
}

typedef struct release {
    http_fixture *f;
    bool end;
    char text[];
} release;

static void release_on_loop(void *user)
{
    release *r = user;
    for (int i = 0; i < atomic_load(&r->f->n_held); i++) {
        pl_exchange *x = r->f->held[i].x;
        if (!x)
            continue;
        if (strcmp(pl_exchange_path(x), "/hold") == 0) {
            respond_text(x, r->text);
            r->f->held[i].x = NULL;
        } else if (pl_exchange_send(x, r->text, strlen(r->text)) && r->end) {
            pl_exchange_end(x);
            r->f->held[i].x = NULL;
        }
    }
    free(r);
}

void http_fixture_release(http_fixture *f, const char *text, bool end)
{
    release *r = malloc(sizeof *r + strlen(text) + 1);
    r->f = f;
    r->end = end;
    strcpy(r->text, text);
    cr_assert_eq(pl_http_post(f->http, release_on_loop, r, NULL), PL_OK);
}

static void flood_gone(void *user)
{
    http_fixture *f = user;
    atomic_fetch_add(&f->n_gone, 1);
}

static void flood(void *user, pl_exchange *x)
{
    char block[65536];
    memset(block, 'x', sizeof block);
    pl_exchange_on_gone(x, flood_gone, user);
    pl_exchange_begin(x, 200, "text/plain");
    while (pl_exchange_send(x, block, sizeof block))
        continue;
}

/* ---- the server ---- */

static const pl_http_route routes[] = {
    {"GET", "/hello", hello, false},    {"GET", "/note", note, false},          {"POST", "/echo", echo, false},
    {"GET", "/query", query, false},    {"GET", "/client", client, false},      {"GET", "/open", hello, true},
    {"GET", "/hold", hold, false},      {"GET", "/stream", hold, false},        {"GET", "/flood", flood, false},
    {"GET", "/things/", things, false}, {"POST", "/v1/messages", hello, false}, {.method = NULL},
};

static void log_entry(void *user, const pl_http_entry *entry)
{
    http_fixture *f = user;
    snprintf(f->last_note, sizeof f->last_note, "%s", entry->note);
    atomic_store(&f->last_status, entry->status);
    atomic_fetch_add(&f->n_logged, 1);
}

static void *serve(void *user)
{
    http_fixture *f = user;
    pl_error err = {.status = PL_OK};
    pl_status status = pl_http_serve(f->http, f->drain_s, &err);
    cr_assert_eq(status, PL_OK, "%s", err.message);
    return NULL;
}

void http_fixture_start(http_fixture *f, pl_http_params params)
{
    http_fixture_start_drained(f, params, 100);
}

void http_fixture_start_drained(http_fixture *f, pl_http_params params, double drain_s)
{
    http_fixture_open(f, params);
    f->drain_s = drain_s;
    http_fixture_run(f);
}

void http_fixture_open(http_fixture *f, pl_http_params params)
{
    pl_error err = {.status = PL_OK};
    memset(f, 0, sizeof *f);
    f->drain_s = 100;
    if (!params.host)
        params.host = "127.0.0.1";
    params.linger_s = RAW_PATIENCE_S; /* who still sends is not cut off, however long it is held up */
    params.log = log_entry;
    params.log_user = f;
    cr_assert_eq(pl_http_create(&params, routes, f, &f->http, &err), PL_OK, "%s", err.message);
}

void http_fixture_run(http_fixture *f)
{
    pthread_create(&f->thread, NULL, serve, f);
}

void http_fixture_stop(http_fixture *f)
{
    pl_http_stop(f->http);
    pl_http_stop(f->http);
    pthread_join(f->thread, NULL);
    pl_http_free(f->http);
}

bool http_fixture_wait(_Atomic int *counter, int n)
{
    for (int i = 0; i < 60000; i++) {
        if (atomic_load(counter) >= n)
            return true;
        nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
    }
    return false;
}

int http_fixture_connect(const http_fixture *f)
{
    return raw_connect(pl_http_address(f->http));
}

raw_response http_fixture_ask(const http_fixture *f, const char *text)
{
    int fd = http_fixture_connect(f);
    raw_response response = raw_ask(fd, text);
    close(fd);
    return response;
}

void http_fixture_expect(const http_fixture *f, const char *text, int status, const char *body)
{
    raw_response r = http_fixture_ask(f, text);
    cr_assert_eq(r.status, status, "%d instead of %d for: %s", r.status, status, text);
    cr_assert_not_null(strstr(raw_body(&r), body), "%s", raw_body(&r));
    raw_free(&r);
}
