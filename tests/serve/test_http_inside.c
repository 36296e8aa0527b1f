/* Requests from within the process. */
#include <criterion/criterion.h>
#include <semaphore.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tests/serve/http_fixture.h"

static http_fixture f;

/* What came of a request. */
typedef struct answer {
    sem_t there;
    _Atomic int times;
    int status;
    char id[64], body[256];
    size_t n;
} answer;

static void done(void *user, int status, const char *request_id, const char *body, size_t n)
{
    answer *a = user;
    a->status = status;
    a->n = n;
    snprintf(a->id, sizeof a->id, "%s", request_id);
    snprintf(a->body, sizeof a->body, "%.*s", (int)n, body);
    atomic_fetch_add(&a->times, 1);
    sem_post(&a->there);
}

static void ask(pl_http *http, answer *a, const char *method, const char *path, const char *body)
{
    pl_error err = {.status = PL_OK};
    memset(a, 0, sizeof *a);
    sem_init(&a->there, 0, 0);
    cr_assert_eq(
        pl_http_request_inside(http, method, path, body ? strdup(body) : NULL, body ? strlen(body) : 0, done, a, &err),
        PL_OK, "%s", err.message);
}

static void expect(const char *method, const char *path, const char *body, int status, const char *expected)
{
    answer a;
    ask(f.http, &a, method, path, body);
    sem_wait(&a.there);
    cr_assert_eq(a.status, status, "%s %s: %d", method, path, a.status);
    cr_assert_str_eq(a.body, expected);
    cr_assert_eq(strncmp(a.id, "req-", 4), 0);
}

Test(http_inside, all_routes)
{
    http_fixture_start(&f, (pl_http_params){.max_body_bytes = 4});
    expect("GET", "/hello", NULL, 200, "hello");
    expect("POST", "/echo", "more than four bytes", 200, "more than four bytes");
    expect("GET", "/things/a b", NULL, 200, "/things/a b");
    expect("GET", "/query", NULL, 200, "none");
    expect("GET", "/client", NULL, 200, "0");
    cr_assert_eq(pl_http_count(f.http).requests, 5);
    cr_assert_eq(pl_http_count(f.http).connections, 0);
    http_fixture_stop(&f);
}

Test(http_inside, no_key_is_asked_for)
{
    const char *keys[] = {"secret"};
    http_fixture_start(&f, (pl_http_params){.keys = keys, .n_keys = 1});
    expect("GET", "/hello", NULL, 200, "hello");
    http_fixture_expect(&f, "GET /hello HTTP/1.1\r\nHost: localhost\r\n\r\n", 401, "API key");
    http_fixture_stop(&f);
}

/* The same body as over a socket. */
static void expect_same(const char *method, const char *path)
{
    char text[256];
    answer a;
    snprintf(text, sizeof text, "%s %s HTTP/1.1\r\nHost: localhost\r\n\r\n", method, path);
    raw_response r = http_fixture_ask(&f, text);
    ask(f.http, &a, method, path, NULL);
    sem_wait(&a.there);
    cr_assert_eq(a.status, r.status, "%d and %d", a.status, r.status);
    cr_assert_str_eq(a.body, raw_body(&r));
    raw_free(&r);
}

Test(http_inside, refusals_are_those_of_the_socket)
{
    http_fixture_start(&f, (pl_http_params){.port = 0});
    expect_same("GET", "/nothing");
    expect_same("POST", "/v1/messages/nothing");
    expect_same("POST", "/hello");
    expect_same("DELETE", "/echo");
    http_fixture_stop(&f);
}

Test(http_inside, is_logged)
{
    http_fixture_start(&f, (pl_http_params){.port = 0});
    expect("GET", "/note", NULL, 200, "hello");
    cr_assert(http_fixture_wait(&f.n_logged, 1));
    cr_assert_str_eq(f.last_note, "noted");
    cr_assert_eq(f.last_status, 200);
    http_fixture_stop(&f);
}

Test(http_inside, a_stream_comes_whole)
{
    answer a;
    http_fixture_start(&f, (pl_http_params){.port = 0});
    ask(f.http, &a, "GET", "/stream", NULL);
    cr_assert(http_fixture_wait(&f.n_held, 1));
    http_fixture_release(&f, "data: 1\n\n", false);
    http_fixture_release(&f, "data: 2\n\n", false);
    http_fixture_release(&f, "data: 3\n\n", true);
    sem_wait(&a.there);
    cr_assert_eq(a.status, 200);
    cr_assert_str_eq(a.body, "data: 1\n\ndata: 2\n\ndata: 3\n\n");
    http_fixture_stop(&f);
    cr_assert_eq(a.times, 1);
    cr_assert_eq(f.n_gone, 0);
}

/* ---- the end ---- */

Test(http_inside, what_is_held_goes_with_the_loop)
{
    answer held, begun;
    http_fixture_start(&f, (pl_http_params){.port = 0});
    ask(f.http, &held, "GET", "/hold", NULL);
    ask(f.http, &begun, "GET", "/stream", NULL);
    cr_assert(http_fixture_wait(&f.n_held, 2));
    http_fixture_stop(&f);
    cr_assert_eq(f.n_gone, 2);
    cr_assert(held.times == 1 && held.status == 0 && held.n == 0);
    cr_assert(begun.times == 1 && begun.status == 0 && begun.n == 0);
}

Test(http_inside, a_drain_waits_and_lets_nobody_in)
{
    answer held, late;
    http_fixture_start(&f, (pl_http_params){.port = 0});
    ask(f.http, &held, "GET", "/hold", NULL);
    cr_assert(http_fixture_wait(&f.n_held, 1));
    pl_http_stop(f.http);
    ask(f.http, &late, "GET", "/hello", NULL);
    sem_wait(&late.there);
    cr_assert_eq(late.status, 0);
    cr_assert_eq(held.times, 0);
    http_fixture_release(&f, "well", true);
    pthread_join(f.thread, NULL);
    cr_assert_eq(held.status, 200);
    cr_assert_str_eq(held.body, "well");
    pl_http_free(f.http);
    cr_assert(held.times == 1 && late.times == 1);
}

Test(http_inside, a_drain_ends_in_time)
{
    answer held;
    http_fixture_start_drained(&f, (pl_http_params){.port = 0}, 0.01);
    ask(f.http, &held, "GET", "/hold", NULL);
    cr_assert(http_fixture_wait(&f.n_held, 1));
    pl_http_stop(f.http);
    pthread_join(f.thread, NULL);
    cr_assert(held.times == 1 && held.status == 0);
    pl_http_free(f.http);
}

static const pl_http_route no_routes[] = {{.method = NULL}};

Test(http_inside, a_loop_that_never_ran)
{
    answer a[3];
    pl_http *http;
    pl_http_params params = {.host = NULL};
    cr_assert_eq(pl_http_create(&params, no_routes, NULL, &http, NULL), PL_OK);
    cr_assert_str_eq(pl_http_address(http), "");
    cr_assert(pl_http_is_local(http));
    for (int i = 0; i < 3; i++)
        ask(http, &a[i], "POST", "/hello", "body");
    pl_http_free(http);
    for (int i = 0; i < 3; i++)
        cr_assert(a[i].times == 1 && a[i].status == 0);
}

/* ---- threads ---- */

#define THREADS 4
#define EACH 200

static void *ask_often(void *user)
{
    answer *answers = user;
    for (int i = 0; i < EACH; i++)
        ask(f.http, &answers[i], i % 2 ? "GET" : "POST", i % 2 ? "/hello" : "/echo", i % 2 ? NULL : "hello");
    return NULL;
}

Test(http_inside, from_many_threads)
{
    static answer answers[THREADS][EACH];
    pthread_t threads[THREADS];
    http_fixture_start(&f, (pl_http_params){.port = 0});
    for (int t = 0; t < THREADS; t++)
        pthread_create(&threads[t], NULL, ask_often, answers[t]);
    for (int t = 0; t < THREADS; t++)
        pthread_join(threads[t], NULL);
    for (int t = 0; t < THREADS; t++)
        for (int i = 0; i < EACH; i++)
            sem_wait(&answers[t][i].there);
    http_fixture_stop(&f);
    for (int t = 0; t < THREADS; t++)
        for (int i = 0; i < EACH; i++)
            cr_assert(answers[t][i].times == 1 && strcmp(answers[t][i].body, "hello") == 0);
}

/* A request out of another's end, on the loop. */
typedef struct chain {
    sem_t end;
    int left;
} chain;

static void next(void *user, int status, const char *request_id, const char *body, size_t n)
{
    chain *c = user;
    (void)request_id;
    cr_assert(status == 200 && n == 5 && memcmp(body, "hello", 5) == 0);
    if (--c->left == 0)
        sem_post(&c->end);
    else
        cr_assert_eq(pl_http_request_inside(f.http, "GET", "/hello", NULL, 0, next, c, NULL), PL_OK);
}

Test(http_inside, one_out_of_another)
{
    chain c = {.left = 100};
    sem_init(&c.end, 0, 0);
    http_fixture_start(&f, (pl_http_params){.port = 0});
    cr_assert_eq(pl_http_request_inside(f.http, "GET", "/hello", NULL, 0, next, &c, NULL), PL_OK);
    sem_wait(&c.end);
    http_fixture_stop(&f);
}
