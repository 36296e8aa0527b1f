/* What the HTTP loop does not put up with: strangers, slow clients, too many of them; and how it ends. */
#include <criterion/criterion.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "tests/serve/http_fixture.h"
#include "tests/serve/raw_client.h"

#define HOST "Host: localhost\r\n"
#define SHORT_S 0.1

static http_fixture f;

static void expect_header(const char *text, const char *name, const char *value)
{
    raw_response r = http_fixture_ask(&f, text);
    const char *got = raw_header(&r, name);
    cr_assert_str_eq(got ? got : "(none)", value ? value : "(none)", "%s", text);
    raw_free(&r);
}

static bool wait_for_stat(uint64_t (*read)(void), uint64_t n)
{
    for (int i = 0; i < 1000 * RAW_PATIENCE_S; i++) {
        if (read() >= n)
            return true;
        nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
    }
    return false;
}

static uint64_t timed_out(void)
{
    return pl_http_count(f.http).timed_out;
}

static uint64_t closed_connections(void)
{
    return 1000 - (uint64_t)pl_http_count(f.http).connections;
}

/* ---- who may ask ---- */

Test(http_limits, keys)
{
    static const char *const keys[] = {"first-key", "second"};
    http_fixture_start(&f, (pl_http_params){.keys = keys, .n_keys = 2});
    http_fixture_expect(&f, "GET /hello HTTP/1.1\r\n" HOST "\r\n", 401, "invalid_api_key");
    expect_header("GET /hello HTTP/1.1\r\n" HOST "\r\n", "www-authenticate", "Bearer");
    http_fixture_expect(&f, "GET /hello HTTP/1.1\r\n" HOST "Authorization: Bearer first-key\r\n\r\n", 200, "hello");
    http_fixture_expect(&f, "GET /hello HTTP/1.1\r\n" HOST "authorization: bearer  second\r\n\r\n", 200, "hello");
    http_fixture_expect(&f, "GET /hello HTTP/1.1\r\n" HOST "X-Api-Key: second\r\n\r\n", 200, "hello");
    http_fixture_expect(&f, "GET /hello HTTP/1.1\r\n" HOST "Authorization: Basic second\r\n\r\n", 401, "");
    http_fixture_expect(&f, "GET /hello HTTP/1.1\r\n" HOST "Authorization: Bearer\r\n\r\n", 401, "");
    http_fixture_expect(&f, "GET /hello HTTP/1.1\r\n" HOST "Authorization: Bearer secon\r\n\r\n", 401, "");
    http_fixture_expect(&f, "GET /hello HTTP/1.1\r\n" HOST "Authorization: Bearer second2\r\n\r\n", 401, "");
    http_fixture_expect(&f, "GET /hello HTTP/1.1\r\n" HOST "Authorization: Bearer first-key second\r\n\r\n", 401, "");
    http_fixture_expect(&f, "POST /v1/messages HTTP/1.1\r\n" HOST "X-Api-Key: x\r\n\r\n", 401, "authentication_error");
    http_fixture_expect(&f, "GET /open HTTP/1.1\r\n" HOST "\r\n", 200, "hello");
    http_fixture_expect(&f, "GET /nowhere HTTP/1.1\r\n" HOST "\r\n", 404, "");
    raw_response one = http_fixture_ask(&f, "GET /client HTTP/1.1\r\n" HOST "X-Api-Key: second\r\n\r\n");
    raw_response same = http_fixture_ask(&f, "GET /client HTTP/1.1\r\n" HOST "Authorization: Bearer second\r\n\r\n");
    raw_response other = http_fixture_ask(&f, "GET /client HTTP/1.1\r\n" HOST "X-Api-Key: first-key\r\n\r\n");
    cr_assert_str_eq(raw_body(&one), raw_body(&same));
    cr_assert_str_neq(raw_body(&one), raw_body(&other));
    raw_free(&one);
    raw_free(&same);
    raw_free(&other);
    http_fixture_stop(&f);
}

Test(http_limits, on_loopback_only_its_own_names)
{
    static const char *const good[] = {"localhost", "LOCALHOST:80", "127.0.0.1",  "127.0.0.1:8080",
                                       "127.1.2.3", "[::1]",        "[::1]:8080", "a.localhost"};
    static const char *const bad[] = {"example.org",  "localhost.example.org", "127.0.0.1.example.org", "[::2]", "[::1",
                                      "10.0.0.1",     "notlocalhost",          "localhost:x",           "",      "[",
                                      "127.0.0.1@x.y"};
    char text[256];
    http_fixture_start(&f, (pl_http_params){.host = NULL});
    for (size_t i = 0; i < sizeof good / sizeof good[0]; i++) {
        snprintf(text, sizeof text, "GET /hello HTTP/1.1\r\nHost: %s\r\n\r\n", good[i]);
        http_fixture_expect(&f, text, 200, "hello");
    }
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        snprintf(text, sizeof text, "GET /open HTTP/1.1\r\nHost: %s\r\n\r\n", bad[i]);
        http_fixture_expect(&f, text, 403, "host_not_allowed");
    }
    http_fixture_expect(&f, "GET http://example.org/hello HTTP/1.1\r\n" HOST "\r\n", 403, "");
    http_fixture_stop(&f);
    http_fixture_start(&f, (pl_http_params){.host = "0.0.0.0"});
    cr_assert_not(pl_http_is_local(f.http));
    http_fixture_expect(&f, "GET /hello HTTP/1.1\r\nHost: example.org\r\n\r\n", 200, "hello");
    http_fixture_stop(&f);
}

#define FROM(origin) "GET /hello HTTP/1.1\r\nHost: localhost:1\r\nOrigin: " origin "\r\n\r\n"
#define PREFLIGHT(origin)                                                                                              \
    "OPTIONS /echo HTTP/1.1\r\n" HOST "Origin: " origin                                                                \
    "\r\nAccess-Control-Request-Method: POST\r\nAccess-Control-Request-Headers: authorization,x-y\r\n\r\n"

Test(http_limits, pages_of_others)
{
    static const char *const origins[] = {"https://good.example"};
    static const char *const any[] = {"*"};
    http_fixture_start(&f, (pl_http_params){.origins = origins, .n_origins = 1});
    http_fixture_expect(&f, FROM("http://evil.example"), 403, "origin_not_allowed");
    http_fixture_expect(&f, FROM("https://good.example.evil.example"), 403, "origin_not_allowed");
    http_fixture_expect(&f, FROM("null"), 403, "origin_not_allowed");
    http_fixture_expect(&f, FROM("http://localhost:2"), 403, "origin_not_allowed");
    http_fixture_expect(&f, FROM("http://localhost:1"), 200, "hello");
    expect_header(FROM("http://localhost:1"), "access-control-allow-origin", NULL);
    http_fixture_expect(&f, FROM("https://good.example"), 200, "hello");
    expect_header(FROM("https://good.example"), "access-control-allow-origin", "https://good.example");
    expect_header(FROM("https://good.example"), "vary", "Origin");
    http_fixture_expect(&f, PREFLIGHT("http://evil.example"), 403, "");
    http_fixture_expect(&f, PREFLIGHT("https://good.example"), 204, "");
    expect_header(PREFLIGHT("https://good.example"), "access-control-allow-methods", "POST, OPTIONS");
    expect_header(PREFLIGHT("https://good.example"), "access-control-allow-headers", "authorization,x-y");
    expect_header("GET /nowhere HTTP/1.1\r\n" HOST "Origin: https://good.example\r\n\r\n",
                  "access-control-allow-origin", "https://good.example");
    http_fixture_stop(&f);
    http_fixture_start(&f, (pl_http_params){.origins = any, .n_origins = 1});
    expect_header(FROM("http://who.example"), "access-control-allow-origin", "http://who.example");
    http_fixture_stop(&f);
}

Test(http_limits, a_preflight_needs_no_key)
{
    static const char *const keys[] = {"k"}, *const any[] = {"*"};
    http_fixture_start(&f, (pl_http_params){.keys = keys, .n_keys = 1, .origins = any, .n_origins = 1});
    http_fixture_expect(&f, PREFLIGHT("https://good.example"), 204, "");
    expect_header("POST /echo HTTP/1.1\r\n" HOST "Origin: https://good.example\r\nContent-Length: 1\r\n\r\na",
                  "access-control-allow-origin", "https://good.example"); /* the page may see the 401 */
    http_fixture_stop(&f);
}

/* ---- sizes ---- */

Test(http_limits, bodies)
{
    http_fixture_start(&f, (pl_http_params){.max_body_bytes = 10});
    http_fixture_expect(&f, "POST /echo HTTP/1.1\r\n" HOST "Content-Length: 10\r\n\r\n0123456789", 200, "0123456789");
    http_fixture_expect(&f, "POST /echo HTTP/1.1\r\n" HOST "Content-Length: 11\r\n\r\n0123456789a", 413, "too large");
    http_fixture_expect(&f, "POST /v1/messages HTTP/1.1\r\n" HOST "Content-Length: 11\r\n\r\n0123456789a", 413,
                        "request_too_large");
    http_fixture_expect(&f, "POST /echo HTTP/1.1\r\n" HOST "Transfer-Encoding: chunked\r\n\r\n8\r\n01234567\r\n3\r\n",
                        413, "");
    http_fixture_stop(&f);
}

Test(http_limits, a_refusal_reaches_who_still_sends)
{
    size_t n = (size_t)30 << 20;
    char *body = calloc(1, n), head[128];
    http_fixture_start(&f, (pl_http_params){.max_body_bytes = 10});
    int fd = http_fixture_connect(&f);
    snprintf(head, sizeof head, "POST /echo HTTP/1.1\r\n" HOST "Content-Length: %zu\r\n\r\n", n);
    cr_assert_eq(raw_send(fd, head), 0);
    cr_assert_eq(raw_send_bytes(fd, body, n), 0);
    raw_response r = raw_read(fd, false);
    cr_assert_eq(r.status, 413);
    raw_free(&r);
    close(fd);
    free(body);
    http_fixture_stop(&f);
}

Test(http_limits, a_large_body_comes_whole)
{
    size_t n = (size_t)5 << 20;
    char *body = malloc(n), head[128];
    http_fixture_start(&f, (pl_http_params){.host = NULL});
    for (size_t i = 0; i < n; i++)
        body[i] = (char)('a' + i % 23);
    int fd = http_fixture_connect(&f);
    snprintf(head, sizeof head, "POST /echo HTTP/1.1\r\n" HOST "Content-Length: %zu\r\n\r\n", n);
    raw_send(fd, head);
    raw_send_bytes(fd, body, n);
    raw_response r = raw_read(fd, false);
    cr_assert_eq(r.body.n, n);
    cr_assert_eq(memcmp(r.body.data, body, n), 0);
    raw_free(&r);
    close(fd);
    free(body);
    http_fixture_stop(&f);
}

Test(http_limits, connections)
{
    http_fixture_start(&f, (pl_http_params){.max_connections = 2});
    int first = http_fixture_connect(&f), second = http_fixture_connect(&f);
    raw_response r = raw_ask(first, "GET /hello HTTP/1.1\r\n" HOST "\r\n");
    raw_free(&r);
    r = raw_ask(second, "GET /hello HTTP/1.1\r\n" HOST "\r\n");
    raw_free(&r);
    int third = http_fixture_connect(&f);
    r = raw_read(third, false);
    cr_assert_eq(r.status, 503);
    cr_assert_eq(r.body.n, strtoul(raw_header(&r, "content-length"), NULL, 10));
    cr_assert_eq(raw_body(&r)[r.body.n - 1], '\n');
    cr_assert_eq(raw_read_end(third), 0);
    cr_assert_eq(pl_http_count(f.http).refused, 1);
    raw_free(&r);
    close(third);
    close(first);
    cr_assert(wait_for_stat(closed_connections, 999));
    http_fixture_expect(&f, "GET /hello HTTP/1.1\r\n" HOST "\r\n", 200, "hello");
    close(second);
    http_fixture_stop(&f);
}

/* ---- slow clients ---- */

Test(http_limits, slow_requests)
{
    static const char *const parts[] = {"GET /hello HT", "POST /echo HTTP/1.1\r\n" HOST "Content-Length: 5\r\n\r\nab",
                                        "POST /echo HTTP/1.1\r\n" HOST "Transfer-Encoding: chunked\r\n\r\n5\r\nab"};
    int clients[3];
    http_fixture_open(&f, (pl_http_params){.read_timeout_s = SHORT_S});
    for (int i = 0; i < 3; i++) {
        clients[i] = http_fixture_connect(&f);
        raw_send(clients[i], parts[i]);
    }
    http_fixture_run(&f);
    for (int i = 0; i < 3; i++) {
        raw_response r = raw_read(clients[i], false);
        cr_assert_eq(r.status, 408, "%s: %d", parts[i], r.status);
        cr_assert_eq(raw_read_end(clients[i]), 0);
        raw_free(&r);
        close(clients[i]);
    }
    cr_assert_eq(timed_out(), 3);
    int idle = http_fixture_connect(&f); /* one that asks nothing is only closed */
    cr_assert_eq(raw_read_end(idle), 0);
    close(idle);
    cr_assert_eq(timed_out(), 3);
    http_fixture_stop(&f);
}

Test(http_limits, bytes_now_and_then_are_no_progress)
{
    http_fixture_open(&f, (pl_http_params){.read_timeout_s = SHORT_S});
    int fd = http_fixture_connect(&f);
    raw_send(fd, "GET /hello HTTP/1.1\r\n");
    http_fixture_run(&f);
    for (int i = 0; i < 100 * RAW_PATIENCE_S && timed_out() == 0; i++) {
        raw_send(fd, "X: y\r\n");
        nanosleep(&(struct timespec){.tv_nsec = 10000000}, NULL);
    }
    cr_assert_eq(timed_out(), 1);
    close(fd);
    http_fixture_stop(&f);
}

Test(http_limits, an_exchange_may_take_its_time)
{
    http_fixture_open(&f, (pl_http_params){.read_timeout_s = SHORT_S / 4, .write_timeout_s = SHORT_S / 4});
    int fd = http_fixture_connect(&f);
    raw_send(fd, "GET /stream HTTP/1.1\r\n" HOST "\r\n");
    http_fixture_run(&f);
    cr_assert(http_fixture_wait(&f.n_held, 1));
    nanosleep(&(struct timespec){.tv_nsec = 150000000}, NULL);
    http_fixture_release(&f, "data: late\n\n", true);
    raw_response r = raw_read(fd, false);
    cr_assert_str_eq(raw_body(&r), "data: late\n\n");
    raw_free(&r);
    close(fd);
    http_fixture_stop(&f);
}

/* With small buffers in the kernel. */
static int open_small_client(void)
{
    int fd = http_fixture_connect(&f), bytes = 4096;
    setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &bytes, sizeof bytes);
    return fd;
}

Test(http_limits, slow_readers_of_a_stream_are_dropped)
{
    http_fixture_start(&f, (pl_http_params){.max_unsent_bytes = 100000});
    int fd = open_small_client();
    raw_send(fd, "GET /flood HTTP/1.1\r\n" HOST "\r\n");
    cr_assert(http_fixture_wait(&f.n_gone, 1));
    cr_assert_eq(pl_http_count(f.http).dropped, 1);
    close(fd);
    http_fixture_stop(&f);
}

Test(http_limits, slow_readers_of_a_response_are_dropped)
{
    http_fixture_start(&f, (pl_http_params){.write_timeout_s = SHORT_S});
    int fd = open_small_client();
    size_t n = (size_t)16 << 20;
    char *body = calloc(1, n), head[128];
    snprintf(head, sizeof head, "POST /echo HTTP/1.1\r\n" HOST "Content-Length: %zu\r\n\r\n", n);
    raw_send(fd, head);
    raw_send_bytes(fd, body, n);
    cr_assert(wait_for_stat(timed_out, 1));
    cr_assert(wait_for_stat(closed_connections, 1000));
    free(body);
    close(fd);
    http_fixture_stop(&f);
}

/* ---- the end ---- */

Test(http_limits, drains)
{
    http_fixture_start(&f, (pl_http_params){.host = NULL});
    int held = http_fixture_connect(&f), idle = http_fixture_connect(&f);
    raw_response r = raw_ask(idle, "GET /hello HTTP/1.1\r\n" HOST "\r\n");
    raw_free(&r);
    raw_send(held, "GET /hold HTTP/1.1\r\n" HOST "\r\n");
    cr_assert(http_fixture_wait(&f.n_held, 1));
    pl_http_stop(f.http);
    cr_assert_eq(raw_read_end(idle), 0);
    int late = socket(AF_INET, SOCK_STREAM, 0);
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    to.sin_port = htons((uint16_t)atoi(strrchr(pl_http_address(f.http), ':') + 1));
    cr_assert_neq(connect(late, (struct sockaddr *)&to, sizeof to), 0);
    close(late);
    http_fixture_release(&f, "answer", true);
    r = raw_read(held, false);
    cr_assert_str_eq(raw_body(&r), "answer");
    cr_assert_str_eq(raw_header(&r, "connection"), "close");
    raw_free(&r);
    close(held);
    close(idle);
    pthread_join(f.thread, NULL);
    cr_assert_eq(atomic_load(&f.n_gone), 0);
    pl_http_free(f.http);
}

/* stops: 1, then the time for it is short; or 2. */
static void end_with_a_stream_open(int stops, double drain_s)
{
    http_fixture_start_drained(&f, (pl_http_params){.host = NULL}, drain_s);
    int fd = http_fixture_connect(&f);
    raw_send(fd, "GET /stream HTTP/1.1\r\n" HOST "\r\n");
    cr_assert(http_fixture_wait(&f.n_held, 1));
    for (int i = 0; i < stops; i++)
        pl_http_stop(f.http);
    pthread_join(f.thread, NULL);
    cr_assert_eq(atomic_load(&f.n_gone), 1);
    raw_response r = raw_read(fd, false);
    cr_assert(r.cut);
    raw_free(&r);
    close(fd);
    pl_http_free(f.http);
}

Test(http_limits, a_drain_ends)
{
    end_with_a_stream_open(1, SHORT_S);
    end_with_a_stream_open(2, 1000);
}

/* Of many streams not all events are written at once: some of these are in the middle of it. */
Test(http_limits, many_streams_end_at_once)
{
    int clients[40];
    http_fixture_start(&f, (pl_http_params){.host = NULL});
    for (int i = 0; i < 40; i++) {
        clients[i] = http_fixture_connect(&f);
        raw_send(clients[i], "GET /stream HTTP/1.1\r\n" HOST "\r\n");
    }
    cr_assert(http_fixture_wait(&f.n_held, 40));
    for (int i = 0; i < 3; i++)
        http_fixture_release(&f, "data: x\n\n", false);
    http_fixture_stop(&f);
    cr_assert_eq(atomic_load(&f.n_gone), 40);
    for (int i = 0; i < 40; i++) {
        raw_response r = raw_read(clients[i], false);
        cr_assert(r.cut || r.status == 0);
        raw_free(&r);
        close(clients[i]);
    }
}

/* ---- sockets ---- */

Test(http_limits, unix_sockets)
{
    char path[64], host[80];
    pl_error err = {.status = PL_OK};
    static const pl_http_route none = {.method = NULL};
    pl_http *other = NULL;
    snprintf(path, sizeof path, "/tmp/pleiad-test-%d.sock", (int)getpid());
    snprintf(host, sizeof host, "unix:%s", path);
    http_fixture_start(&f, (pl_http_params){.host = host});
    cr_assert_str_eq(pl_http_address(f.http), host);
    cr_assert(pl_http_is_local(f.http));
    http_fixture_expect(&f, "GET /hello HTTP/1.1\r\nHost: anything\r\n\r\n", 200, "hello");
    pl_http_params same = {.host = path};
    cr_assert_eq(pl_http_create(&same, &none, NULL, &other, &err), PL_ERR_IO);
    cr_assert_not_null(strstr(err.message, path));
    http_fixture_expect(&f, "GET /hello HTTP/1.1\r\nHost: anything\r\n\r\n", 200, "hello");
    http_fixture_stop(&f);
    cr_assert_neq(access(path, F_OK), 0);
}

Test(http_limits, addresses_that_cannot_be_had)
{
    static const pl_http_route none = {.method = NULL};
    pl_error err = {.status = PL_OK};
    pl_http *http = NULL;
    char long_path[200];
    http_fixture_start(&f, (pl_http_params){.host = NULL});
    int32_t port = atoi(strrchr(pl_http_address(f.http), ':') + 1);
    pl_http_params taken = {.host = "127.0.0.1", .port = port};
    cr_assert_eq(pl_http_create(&taken, &none, NULL, &http, &err), PL_ERR_IO);
    cr_assert_not_null(strstr(err.message, "127.0.0.1"));
    http_fixture_stop(&f);
    pl_http_params elsewhere = {.host = "192.0.2.1"};
    cr_assert_eq(pl_http_create(&elsewhere, &none, NULL, &http, &err), PL_ERR_IO);
    memset(long_path, 'a', sizeof long_path - 1);
    long_path[0] = '/';
    long_path[sizeof long_path - 1] = '\0';
    pl_http_params too_long = {.host = long_path};
    cr_assert_eq(pl_http_create(&too_long, &none, NULL, &http, &err), PL_ERR_ARGUMENT);
    pl_http_params missing = {.host = "/nonexistent/folder/socket"};
    cr_assert_eq(pl_http_create(&missing, &none, NULL, &http, &err), PL_ERR_IO);
}
