/* The HTTP loop over real sockets. */
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "tests/serve/http_fixture.h"
#include "tests/serve/raw_client.h"

#define HOST "Host: localhost\r\n"

static http_fixture f;

static void start(void)
{
    http_fixture_start(&f, (pl_http_params){.host = NULL});
}

static void stop(void)
{
    http_fixture_stop(&f);
}

static void expect_header(const char *text, int status, const char *name, const char *value)
{
    raw_response r = http_fixture_ask(&f, text);
    const char *got = raw_header(&r, name);
    cr_assert_eq(r.status, status, "%d for: %s", r.status, text);
    if (value)
        cr_assert_str_eq(got ? got : "(none)", value);
    else
        cr_assert_null(got, "%s: %s", name, got);
    raw_free(&r);
}

TestSuite(http, .init = start, .fini = stop);

Test(http, answers_and_keeps_the_connection)
{
    int fd = http_fixture_connect(&f);
    for (int i = 0; i < 3; i++) {
        raw_response r = raw_ask(fd, "GET /hello HTTP/1.1\r\n" HOST "\r\n");
        cr_assert_eq(r.status, 200);
        cr_assert_str_eq(raw_body(&r), "hello");
        cr_assert_str_eq(raw_header(&r, "content-type"), "text/plain");
        cr_assert_str_eq(raw_header(&r, "x-content-type-options"), "nosniff");
        cr_assert_str_eq(raw_header(&r, "cache-control"), "no-store");
        cr_assert_not_null(raw_header(&r, "x-request-id"));
        cr_assert_not_null(raw_header(&r, "date"));
        cr_assert_null(raw_header(&r, "connection"));
        raw_free(&r);
    }
    raw_response last = raw_ask(fd, "GET /hello HTTP/1.1\r\n" HOST "Connection: foo, Close\r\n\r\n");
    cr_assert_str_eq(raw_header(&last, "connection"), "close");
    cr_assert_eq(raw_read_end(fd), 0);
    raw_free(&last);
    close(fd);
    cr_assert_eq(pl_http_count(f.http).requests, 4);
}

Test(http, old_clients_get_what_they_understand)
{
    int fd = http_fixture_connect(&f);
    raw_response r = raw_ask(fd, "GET /hello HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
    cr_assert_str_eq(raw_header(&r, "connection"), "keep-alive");
    raw_free(&r);
    raw_send(fd, "GET /stream HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
    cr_assert(http_fixture_wait(&f.n_held, 1));
    http_fixture_release(&f, "data: x\n\n", true);
    r = raw_read(fd, false);
    cr_assert_not(r.chunked);
    cr_assert_str_eq(raw_header(&r, "connection"), "close");
    cr_assert_str_eq(raw_body(&r), "data: x\n\n");
    raw_free(&r);
    close(fd);
}

Test(http, takes_requests_byte_by_byte_and_many_at_once)
{
    static const char text[] = "POST /echo HTTP/1.1\r\n" HOST "Content-Length: 3\r\n\r\nabc";
    int fd = http_fixture_connect(&f);
    for (size_t i = 0; i < sizeof text - 1; i++)
        raw_send_bytes(fd, text + i, 1);
    raw_response r = raw_read(fd, false);
    cr_assert_str_eq(raw_body(&r), "abc");
    raw_free(&r);
    pl_strbuf many = {.data = NULL};
    for (int i = 0; i < 500; i++)
        pl_strbuf_printf(&many, "\r\nPOST /echo HTTP/1.1\r\n" HOST "Content-Length: 4\r\n\r\n%04d", i);
    raw_send_bytes(fd, many.data, many.n);
    for (int i = 0; i < 500; i++) {
        r = raw_read(fd, false);
        cr_assert_eq(r.status, 200);
        cr_assert_eq(atoi(raw_body(&r)), i);
        raw_free(&r);
    }
    pl_strbuf_free(&many);
    close(fd);
}

Test(http, next_request_waits_for_the_one_before)
{
    int fd = http_fixture_connect(&f);
    raw_send(fd, "GET /hold HTTP/1.1\r\n" HOST "\r\nGET /hello HTTP/1.1\r\n" HOST "\r\n");
    cr_assert(http_fixture_wait(&f.n_held, 1));
    http_fixture_release(&f, "first", true);
    raw_response r = raw_read(fd, false);
    cr_assert_str_eq(raw_body(&r), "first");
    raw_free(&r);
    r = raw_read(fd, false);
    cr_assert_str_eq(raw_body(&r), "hello");
    raw_free(&r);
    close(fd);
}

Test(http, reads_bodies_in_chunks)
{
#define CHUNKED "POST /echo HTTP/1.1\r\n" HOST "Transfer-Encoding: chunked\r\n\r\n"
    http_fixture_expect(&f, CHUNKED "3\r\nabc\r\n0\r\n\r\n", 200, "abc");
    http_fixture_expect(&f, CHUNKED "A;x=\"y\"\r\n0123456789\r\n01\r\n!\r\n000\r\nTrailer: yes\r\nAnother: one\r\n\r\n",
                        200, "0123456789!");
    expect_header(CHUNKED "0\r\n\r\n", 200, "content-length", "0");
    static const char *const bad[] = {
        "\r\n",           "x\r\n",      "-1\r\n",         "3\r\nabcd\r\n",        "3 x\nabc", "3\rabc", "3\nabc\n",
        "0x3\r\nabc\r\n", ";a\r\n\r\n", "1\r\na\r\n\r\n", "fffffffffffffffff\r\n"};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        char text[256];
        snprintf(text, sizeof text, CHUNKED "%s", bad[i]);
        http_fixture_expect(&f, text, 400, "invalid_request_error");
    }
    http_fixture_expect(&f, CHUNKED "fffffffffffffff\r\n", 413, "too large");
    int fd = http_fixture_connect(&f); /* after a whole body the connection goes on */
    raw_response r = raw_ask(fd, CHUNKED "1\r\na\r\n0\r\n\r\nGET /hello HTTP/1.1\r\n" HOST "\r\n");
    cr_assert_str_eq(raw_body(&r), "a");
    raw_free(&r);
    r = raw_read(fd, false);
    cr_assert_str_eq(raw_body(&r), "hello");
    raw_free(&r);
    close(fd);
}

Test(http, refuses_what_is_no_request)
{
    static const struct {
        int status;
        const char *text;
    } cases[] = {
        {400, "GET\r\n\r\n"},
        {400, "GET /hello\r\n\r\n"},
        {400, " GET /hello HTTP/1.1\r\n" HOST "\r\n"},
        {400, "GET  /hello HTTP/1.1\r\n" HOST "\r\n"},
        {400, "GET /hello  HTTP/1.1\r\n" HOST "\r\n"},
        {400, "GET /hello http/1.1\r\n" HOST "\r\n"},
        {400, "GET /hello HTTP/1.10\r\n" HOST "\r\n"},
        {505, "GET /hello HTTP/2.0\r\n" HOST "\r\n"},
        {400, "G@T /hello HTTP/1.1\r\n" HOST "\r\n"},
        {400, "GET hello HTTP/1.1\r\n" HOST "\r\n"},
        {400, "GET /hel\xc3\xa4 HTTP/1.1\r\n" HOST "\r\n"},
        {400, "GET /hello#x HTTP/1.1\r\n" HOST "\r\n"},
        {400, "GET /hello%0 HTTP/1.1\r\n" HOST "\r\n"},
        {400, "GET /hello%zz HTTP/1.1\r\n" HOST "\r\n"},
        {400, "GET /hello%00 HTTP/1.1\r\n" HOST "\r\n"},
        {400, "CONNECT localhost:1 HTTP/1.1\r\n" HOST "\r\n"},
        {400, "GET /hello HTTP/1.1\r\n\r\n"},
        {400, "GET /hello HTTP/1.1\r\n" HOST HOST "\r\n"},
        {400, "GET /hello HTTP/1.1\n" HOST "\r\n"},
        {400, "GET /hello HTTP/1.1\r\nHost: localhost\n\r\n"},
        {400, "GET /hello HTTP/1.1\nHost: localhost\n\n"},
        {400, "GET /hello HTTP/1.1\r\n" HOST "X : y\r\n\r\n"},
        {400, "GET /hello HTTP/1.1\r\n" HOST ": y\r\n\r\n"},
        {400, "GET /hello HTTP/1.1\r\n" HOST "X\r\n\r\n"},
        {400, "GET /hello HTTP/1.1\r\n" HOST "X: a\r\n b\r\n\r\n"},
        {400, "GET /hello HTTP/1.1\r\n" HOST "X: a\rb\r\n\r\n"},
        {400, "GET /hello HTTP/1.1\r\n" HOST "X: \x01\r\n\r\n"},
        {400, "POST /echo HTTP/1.1\r\n" HOST "Content-Length: x\r\n\r\n"},
        {400, "POST /echo HTTP/1.1\r\n" HOST "Content-Length: -1\r\n\r\n"},
        {400, "POST /echo HTTP/1.1\r\n" HOST "Content-Length: +1\r\n\r\na"},
        {400, "POST /echo HTTP/1.1\r\n" HOST "Content-Length:\r\n\r\n"},
        {400, "POST /echo HTTP/1.1\r\n" HOST "Content-Length: 1\r\nContent-Length: 1\r\n\r\na"},
        {400, "POST /echo HTTP/1.1\r\n" HOST "Content-Length: 1, 1\r\n\r\na"},
        {400, "POST /echo HTTP/1.1\r\n" HOST "Content-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"},
        {400, "POST /echo HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"},
        {501, "POST /echo HTTP/1.1\r\n" HOST "Transfer-Encoding: gzip, chunked\r\n\r\n"},
        {413, "POST /echo HTTP/1.1\r\n" HOST "Content-Length: 99999999999\r\n\r\n"},
        {400, "POST /echo HTTP/1.1\r\n" HOST "Content-Length: 99999999999999999999\r\n\r\n"},
        {415, "POST /echo HTTP/1.1\r\n" HOST "Content-Encoding: gzip\r\nContent-Length: 1\r\n\r\na"},
        {417, "POST /echo HTTP/1.1\r\n" HOST "Expect: miracles\r\nContent-Length: 1\r\n\r\na"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        int fd = http_fixture_connect(&f);
        raw_response r = raw_ask(fd, cases[i].text);
        cr_assert_eq(r.status, cases[i].status, "%d instead of %d for: %s", r.status, cases[i].status, cases[i].text);
        cr_assert_str_eq(raw_header(&r, "content-type"), "application/json");
        cr_assert_str_eq(raw_header(&r, "connection"), "close");
        cr_assert_not_null(strstr(raw_body(&r), "{\"error\":{\"message\":"));
        cr_assert_eq(raw_read_end(fd), 0);
        raw_free(&r);
        close(fd);
    }
    http_fixture_expect(&f, "GET /hello HTTP/1.1\r\n" HOST "\r\n", 200, "hello");
}

Test(http, a_zero_byte_in_the_head_is_refused)
{
    int fd = http_fixture_connect(&f);
    static const char text[] = "GET /hello HTTP/1.1\r\n" HOST "X: a\0b\r\n\r\n";
    raw_send_bytes(fd, text, sizeof text - 1);
    raw_response r = raw_read(fd, false);
    cr_assert_eq(r.status, 400);
    raw_free(&r);
    close(fd);
}

/* before, n times filler, after. */
static char *long_request(const char *before, const char *filler, int n, const char *after)
{
    pl_strbuf text = {.data = NULL};
    pl_strbuf_add_text(&text, before);
    for (int i = 0; i < n; i++)
        pl_strbuf_add_text(&text, filler);
    pl_strbuf_add_text(&text, after);
    return text.data;
}

Test(http, limits_of_the_head)
{
    static const struct {
        int status;
        const char *before, *filler;
        int n;
        const char *after;
    } cases[] = {
        {200, "GET /hello?", "a", 8000, " HTTP/1.1\r\n" HOST "\r\n"},
        {414, "GET /hello?", "a", 9000, " HTTP/1.1\r\n" HOST "\r\n"},
        {414, "GET /", "a", 200000, ""},
        {200, "GET /hello HTTP/1.1\r\n" HOST "X: ", "a", 60000, "\r\n\r\n"},
        {431, "GET /hello HTTP/1.1\r\n" HOST "X: ", "a", 66000, "\r\n\r\n"},
        {431, "GET /hello HTTP/1.1\r\n" HOST "X: ", "a", 65536, ""},
        {200, "GET /hello HTTP/1.1\r\n" HOST, "X: y\r\n", 99, "\r\n"},
        {431, "GET /hello HTTP/1.1\r\n" HOST, "X: y\r\n", 100, "\r\n"},
        {400, "GET /hello?", "a=b&", 33, " HTTP/1.1\r\n" HOST "\r\n"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char *text = long_request(cases[i].before, cases[i].filler, cases[i].n, cases[i].after);
        raw_response r = http_fixture_ask(&f, text);
        cr_assert_eq(r.status, cases[i].status, "case %zu: %d", i, r.status);
        raw_free(&r);
        free(text);
    }
}

Test(http, waits_with_the_body_where_the_client_asks_first)
{
    int fd = http_fixture_connect(&f);
    raw_response r = raw_ask(fd, "POST /echo HTTP/1.1\r\n" HOST "Content-Length: 2\r\nExpect: 100-continue\r\n\r\n");
    cr_assert_eq(r.status, 100);
    raw_free(&r);
    r = raw_ask(fd, "ok");
    cr_assert_str_eq(raw_body(&r), "ok");
    raw_free(&r);
    r = raw_ask(fd, "POST /nowhere HTTP/1.1\r\n" HOST "Content-Length: 2\r\nExpect: 100-continue\r\n\r\n");
    cr_assert_eq(r.status, 404);
    raw_free(&r);
    close(fd);
}

Test(http, finds_the_route)
{
    http_fixture_expect(&f, "GET /nowhere HTTP/1.1\r\n" HOST "\r\n", 404, "Unknown request URL: GET /nowhere.");
    http_fixture_expect(&f, "GET /hello/ HTTP/1.1\r\n" HOST "\r\n", 404, "");
    http_fixture_expect(&f, "GET /../hello HTTP/1.1\r\n" HOST "\r\n", 404, "");
    http_fixture_expect(&f, "GET /v1/messages/x HTTP/1.1\r\n" HOST "\r\n", 404,
                        "{\"type\":\"error\",\"error\":{\"type\":\"not_found_error\"");
    http_fixture_expect(&f, "GET /things/a%2Fb:c HTTP/1.1\r\n" HOST "\r\n", 200, "/things/a/b:c");
    http_fixture_expect(&f, "GET /things/ HTTP/1.1\r\n" HOST "\r\n", 404, "");
    http_fixture_expect(&f, "GET http://localhost/hello HTTP/1.1\r\n" HOST "\r\n", 200, "hello");
    expect_header("POST /hello HTTP/1.1\r\n" HOST "\r\n", 405, "allow", "GET, HEAD, OPTIONS");
    expect_header("DELETE /echo HTTP/1.1\r\n" HOST "\r\n", 405, "allow", "POST, OPTIONS");
    expect_header("OPTIONS /echo HTTP/1.1\r\n" HOST "\r\n", 204, "allow", "POST, OPTIONS");
    expect_header("OPTIONS * HTTP/1.1\r\n" HOST "\r\n", 204, "content-length", NULL);
    http_fixture_expect(&f, "GET /query?a=1&q=x+y%21&q=z HTTP/1.1\r\n" HOST "\r\n", 200, "x y!");
    http_fixture_expect(&f, "GET /query?qq=1 HTTP/1.1\r\n" HOST "\r\n", 200, "none");
    http_fixture_expect(&f, "GET /query?q HTTP/1.1\r\n" HOST "\r\n", 200, "");
}

Test(http, the_body_of_a_refused_request_is_no_request)
{
    static const char *const refused[] = {"POST /nowhere HTTP/1.1\r\n", "DELETE /hello HTTP/1.1\r\n",
                                          "OPTIONS /echo HTTP/1.1\r\n"};
    for (int i = 0; i < 3; i++) {
        int fd = http_fixture_connect(&f);
        raw_send(fd, refused[i]);
        raw_response r = raw_ask(fd, HOST "Content-Length: 42\r\n\r\nGET /hello HTTP/1.1\r\nHost: localhost\r\n\r\n");
        cr_assert_str_eq(raw_header(&r, "connection"), "close");
        cr_assert_eq(raw_read_end(fd), 0);
        raw_free(&r);
        close(fd);
    }
}

Test(http, head_is_get_without_content)
{
    int fd = http_fixture_connect(&f);
    raw_response r = raw_ask(fd, "HEAD /hello HTTP/1.1\r\n" HOST "\r\n");
    cr_assert_eq(r.status, 200);
    cr_assert_str_eq(raw_header(&r, "content-length"), "5");
    raw_free(&r);
    raw_send(fd, "HEAD /stream HTTP/1.1\r\n" HOST "\r\n");
    cr_assert(http_fixture_wait(&f.n_held, 1));
    http_fixture_release(&f, "data: x\n\n", true);
    r = raw_read(fd, true);
    raw_free(&r);
    r = raw_ask(fd, "GET /hello HTTP/1.1\r\n" HOST "\r\n"); /* nothing stood between */
    cr_assert_str_eq(raw_body(&r), "hello");
    raw_free(&r);
    close(fd);
}

Test(http, streams_as_it_comes)
{
    int fd = http_fixture_connect(&f);
    char block[256];
    raw_send(fd, "GET /stream HTTP/1.1\r\n" HOST "\r\n");
    cr_assert(http_fixture_wait(&f.n_held, 1));
    ssize_t n = recv(fd, block, sizeof block, MSG_PEEK); /* the head comes before any event */
    cr_assert_gt(n, 12);
    http_fixture_release(&f, "data: 1\n\n", false);
    http_fixture_release(&f, "data: 2\n\n", false);
    http_fixture_release(&f, "data: 3\n\n", true);
    raw_response r = raw_read(fd, false);
    cr_assert(r.chunked && !r.cut);
    cr_assert_str_eq(raw_header(&r, "content-type"), "text/event-stream");
    cr_assert_str_eq(raw_body(&r), "data: 1\n\ndata: 2\n\ndata: 3\n\n");
    raw_free(&r);
    r = raw_ask(fd, "GET /hello HTTP/1.1\r\n" HOST "\r\n");
    cr_assert_str_eq(raw_body(&r), "hello");
    raw_free(&r);
    close(fd);
}

Test(http, sees_a_client_leave)
{
    int closed = http_fixture_connect(&f), reset = http_fixture_connect(&f), streaming = http_fixture_connect(&f),
        stays = http_fixture_connect(&f);
    raw_send(closed, "GET /hold HTTP/1.1\r\n" HOST "\r\n");
    raw_send(reset, "GET /hold HTTP/1.1\r\n" HOST "\r\n");
    raw_send(streaming, "GET /stream HTTP/1.1\r\n" HOST "\r\n");
    raw_send(stays, "GET /hold HTTP/1.1\r\n" HOST "\r\n");
    cr_assert(http_fixture_wait(&f.n_held, 4));
    struct linger at_once = {.l_onoff = 1};
    setsockopt(reset, SOL_SOCKET, SO_LINGER, &at_once, sizeof at_once);
    close(closed);
    close(reset);
    close(streaming);
    cr_assert(http_fixture_wait(&f.n_gone, 3));
    cr_assert(http_fixture_wait(&f.n_logged, 3));
    http_fixture_release(&f, "done", true);
    raw_response r = raw_read(stays, false);
    cr_assert_str_eq(raw_body(&r), "done");
    cr_assert_eq(atomic_load(&f.n_gone), 3);
    raw_free(&r);
    close(stays);
}

Test(http, drops_a_client_that_sends_too_much_ahead)
{
    int fd = http_fixture_connect(&f);
    char *ahead = long_request("GET /hold HTTP/1.1\r\n" HOST "\r\n", "GET /hello HTTP/1.1\r\n" HOST "\r\n", 10000, "");
    raw_send(fd, ahead);
    cr_assert(http_fixture_wait(&f.n_gone, 1));
    cr_assert_eq(pl_http_count(f.http).dropped, 1);
    close(fd);
    free(ahead);
}

Test(http, a_client_that_closes_its_side_still_gets_what_is_ready)
{
    int fd = http_fixture_connect(&f);
    raw_send(fd, "GET /hello HTTP/1.1\r\n" HOST "\r\n");
    shutdown(fd, SHUT_WR);
    raw_response r = raw_read(fd, false);
    cr_assert_str_eq(raw_body(&r), "hello");
    raw_free(&r);
    cr_assert_eq(raw_read_end(fd), 0);
    close(fd);
}

Test(http, logs_what_was_asked)
{
    http_fixture_expect(&f, "GET /note HTTP/1.1\r\n" HOST "\r\n", 200, "hello");
    cr_assert(http_fixture_wait(&f.n_logged, 1));
    cr_assert_str_eq(f.last_note, "noted");
    cr_assert_eq(f.last_status, 200);
    int fd = http_fixture_connect(&f);
    raw_send(fd, "GET /hold HTTP/1.1\r\n" HOST "\r\n");
    cr_assert(http_fixture_wait(&f.n_held, 1));
    close(fd);
    cr_assert(http_fixture_wait(&f.n_logged, 2));
    cr_assert_eq(f.last_status, 499);
}

static void *ask_often(void *arg)
{
    int fd = http_fixture_connect(&f);
    for (int i = 0; i < 200; i++) {
        char text[128], body[32];
        snprintf(body, sizeof body, "%p %d", arg, i);
        snprintf(text, sizeof text, "POST /echo HTTP/1.1\r\n" HOST "Content-Length: %zu\r\n\r\n%s", strlen(body), body);
        raw_response r = raw_ask(fd, text);
        cr_assert_str_eq(raw_body(&r), body);
        raw_free(&r);
    }
    close(fd);
    return NULL;
}

Test(http, serves_many_at_once)
{
    pthread_t threads[8];
    for (int i = 0; i < 8; i++)
        pthread_create(&threads[i], NULL, ask_often, &threads[i]);
    for (int i = 0; i < 8; i++)
        pthread_join(threads[i], NULL);
    cr_assert_eq(pl_http_count(f.http).requests, 1600);
}

static void *post_often(void *unused)
{
    (void)unused;
    for (int i = 0; i < 50; i++)
        http_fixture_release(&f, "data: event\n\n", false);
    return NULL;
}

Test(http, streams_to_200_clients_from_4_threads)
{
    static int clients[200];
    pthread_t threads[4];
    for (int i = 0; i < 200; i++) {
        clients[i] = http_fixture_connect(&f);
        raw_send(clients[i], "GET /stream HTTP/1.1\r\n" HOST "\r\n");
    }
    cr_assert(http_fixture_wait(&f.n_held, 200));
    cr_assert_eq(pl_http_count(f.http).exchanges, 200);
    for (int i = 0; i < 4; i++)
        pthread_create(&threads[i], NULL, post_often, NULL);
    for (int i = 0; i < 4; i++)
        pthread_join(threads[i], NULL);
    http_fixture_release(&f, "data: end\n\n", true);
    for (int i = 0; i < 200; i++) {
        raw_response r = raw_read(clients[i], false);
        cr_assert_not(r.cut);
        cr_assert_eq(r.body.n, 200 * strlen("data: event\n\n") + strlen("data: end\n\n"));
        raw_free(&r);
        close(clients[i]);
    }
    cr_assert_eq(atomic_load(&f.n_gone), 0);
}
