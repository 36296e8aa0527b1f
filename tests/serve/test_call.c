/* Calls between real clients and a scheduler that is made up: what it is asked for says how it behaves. */
#include <criterion/criterion.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "host/serve/call.h"
#include "tests/serve/raw_client.h"

/* ---- the scheduler ----------------------------------------------------------------------------- */

#define REQUESTS 65536

typedef struct made_up {
    pl_request request;
    int32_t tokens, status, shown; /* status: after the tokens */
    uint64_t id;
    bool cancelled;
} made_up;

static struct {
    pthread_mutex_t lock;
    pthread_t thread;
    made_up list[1024];
    int n;
    uint64_t last_id;
    int room;     /* requests it still takes */
    bool at_once; /* all is over before submit returns */
    bool quick;   /* streams say soon that they are there */
    bool stop;
    _Atomic int held;       /* steps wait while it is set */
    _Atomic int keeps_open; /* nothing fails while it is set */
    _Atomic int submitted, done, cancelled, wrong;
    unsigned char n_done[REQUESTS]; /* by id */
} fake;

static bool show(const made_up *m)
{
    char text[32];
    pl_token_event event = {.id = m->shown, .text = text, .logprob = -0.5f};
    event.n_bytes = (size_t)snprintf(text, sizeof text, "w%d ", m->shown);
    return m->request.generation.on_token(m->request.generation.user, &event);
}

static void finish(const made_up *m, pl_status status)
{
    pl_outcome outcome = {.status = status,
                          .message = status == PL_OK ? "" : "made up",
                          .answer = {.finish = PL_FINISH_EOS, .n_prompt = 2, .n_tokens = (size_t)m->shown},
                          .path = "e4b",
                          .reason = "asked for"};
    fake.n_done[m->id]++;
    if (status == PL_ERR_CANCELLED)
        atomic_fetch_add(&fake.cancelled, 1);
    m->request.on_done(m->request.user, &outcome);
    atomic_fetch_add(&fake.done, 1);
}

/* One token, or the end; true: over. */
static bool advance(made_up *m)
{
    if (m->cancelled) {
        finish(m, PL_ERR_CANCELLED);
        return true;
    }
    if (m->shown == m->tokens && m->status != PL_OK && atomic_load(&fake.keeps_open))
        return false;
    if (m->shown == m->tokens) {
        finish(m, (pl_status)m->status);
        return true;
    }
    if (!show(m))
        m->cancelled = true;
    m->shown++;
    return false;
}

static void step(void)
{
    for (int i = 0; i < fake.n; i++)
        if (advance(&fake.list[i]))
            fake.list[i--] = fake.list[--fake.n];
}

static void *run(void *user)
{
    (void)user;
    for (bool stop = false; !stop;) {
        pthread_mutex_lock(&fake.lock);
        stop = fake.stop;
        for (int i = 0; stop && i < fake.n; i++)
            fake.list[i].cancelled = true;
        if (stop || !atomic_load(&fake.held))
            step();
        stop = stop && fake.n == 0;
        pthread_mutex_unlock(&fake.lock);
        nanosleep(&(struct timespec){.tv_nsec = 100000}, NULL);
    }
    return NULL;
}

pl_status __wrap_pl_scheduler_submit(pl_scheduler *scheduler, const pl_request *request, uint64_t *id, pl_error *err);
pl_status __wrap_pl_scheduler_submit(pl_scheduler *scheduler, const pl_request *request, uint64_t *id, pl_error *err)
{
    (void)scheduler;
    pthread_mutex_lock(&fake.lock);
    if (fake.room-- <= 0) {
        pthread_mutex_unlock(&fake.lock);
        return pl_fail(err, PL_ERR_BUSY, "no room");
    }
    made_up m = {*request, request->prompt[0], request->prompt[1], 0, ++fake.last_id, false};
    *id = m.id;
    atomic_fetch_add(&fake.submitted, 1);
    if (!fake.at_once)
        fake.list[fake.n++] = m;
    while (fake.at_once && !advance(&m))
        continue;
    pthread_mutex_unlock(&fake.lock);
    return PL_OK;
}

void __wrap_pl_scheduler_cancel(pl_scheduler *scheduler, uint64_t id);
void __wrap_pl_scheduler_cancel(pl_scheduler *scheduler, uint64_t id)
{
    (void)scheduler;
    pthread_mutex_lock(&fake.lock);
    for (int i = 0; i < fake.n; i++)
        if (fake.list[i].id == id)
            fake.list[i].cancelled = true;
    pthread_mutex_unlock(&fake.lock);
}

void __wrap_pl_scheduler_count(pl_scheduler *scheduler, pl_scheduler_stats *out);
void __wrap_pl_scheduler_count(pl_scheduler *scheduler, pl_scheduler_stats *out)
{
    (void)scheduler;
    *out = (pl_scheduler_stats){.retry_after_s = 7};
}

/* So that nobody waits for a stream's comments where they are looked for. */
pl_status __real_pl_http_every(pl_http *http, double seconds, void (*fn)(void *user), void *user, pl_error *err);
pl_status __wrap_pl_http_every(pl_http *http, double seconds, void (*fn)(void *user), void *user, pl_error *err);
pl_status __wrap_pl_http_every(pl_http *http, double seconds, void (*fn)(void *user), void *user, pl_error *err)
{
    return __real_pl_http_every(http, fake.quick ? seconds / 1000 : seconds, fn, user, err);
}

/* ---- a format: {"tokens", "n", "stream", "status"} ----------------------------------------------- */

static bool read_body(pl_call *call, json_t *body, pl_call_spec *spec, pl_api_error *error)
{
    pl_fields f = pl_fields_of(body, error, "%s", "");
    int32_t *ids = malloc(2 * sizeof *ids);
    cr_assert_not_null(ids);
    spec->prompts = pl_call_keep(call, sizeof *spec->prompts);
    spec->prompts[0] = (pl_tokens){ids, 2};
    spec->n_prompts = 1;
    ids[0] = (int32_t)pl_field_int(&f, "tokens", 3, 0, 1000000000);
    ids[1] = (int32_t)pl_field_int(&f, "status", 0, 0, 20);
    spec->n = (int32_t)pl_field_int(&f, "n", 1, 1, PL_CALL_CHOICES);
    spec->stream = pl_field_bool(&f, "stream", false);
    return pl_fields_done(&f);
}

static void stream_begin(pl_call *call, pl_strbuf *out)
{
    pl_strbuf_printf(out, "begin %d\n", pl_call_choices(call));
}

static void stream_piece(pl_call *call, int32_t choice, const pl_call_piece *piece, pl_strbuf *out)
{
    (void)call;
    pl_strbuf_printf(out, "%d: %.*s\n", choice, (int)piece->n_bytes, piece->text);
}

static void stream_choice_done(pl_call *call, int32_t choice, pl_strbuf *out)
{
    pl_strbuf_printf(out, "%d done: %s\n", choice, pl_call_choice_at(call, choice)->text.data);
}

static void stream_end(pl_call *call, pl_strbuf *out)
{
    (void)call;
    pl_strbuf_add_text(out, "end\n");
}

static void stream_fail(pl_call *call, const pl_api_error *error, pl_strbuf *out)
{
    (void)call;
    pl_strbuf_printf(out, "error %d\n", error->status);
}

static void whole(pl_call *call, pl_json *json)
{
    pl_json_begin_array(json);
    for (int32_t i = 0; i < pl_call_choices(call); i++)
        pl_json_string(json, pl_call_choice_at(call, i)->text.data);
    pl_json_end_array(json);
}

static const pl_call_format format = {.read = read_body,
                                      .begin = stream_begin,
                                      .piece = stream_piece,
                                      .choice_done = stream_choice_done,
                                      .end = stream_end,
                                      .fail = stream_fail,
                                      .whole = whole};

/* ---- the server -------------------------------------------------------------------------------- */

static struct {
    pl_model *model;
    pl_service *service;
    pl_http *http;
    pthread_t thread;
} server;

static void handle(void *user, pl_exchange *x)
{
    (void)user;
    pl_call_start(server.service, x, &format);
}

static void *serve(void *user)
{
    (void)user;
    pl_http_serve(server.http, 10, NULL);
    return NULL;
}

static void start(void)
{
    static const pl_http_route routes[] = {{"POST", "/call", handle, true}, {.method = NULL}};
    const pl_service_params params = {.name = "m", .path = "e4b", .max_tokens = -1, .sampling = pl_sampling_default()};
    const pl_http_params http = {.host = "127.0.0.1"};
    pl_error err = {.message = ""};
    memset(&fake, 0, sizeof fake);
    pthread_mutex_init(&fake.lock, NULL);
    fake.room = REQUESTS - 1;
    cr_assert_eq(pl_model_open_text(PL_TEST_DATA "/../tools/demo_model/demo.gguf", &server.model, &err), PL_OK, "%s",
                 err.message);
    cr_assert_eq(pl_service_create(server.model, NULL, NULL, &params, &server.service, &err), PL_OK, "%s", err.message);
    cr_assert_eq(pl_http_create(&http, routes, NULL, &server.http, &err), PL_OK, "%s", err.message);
    pthread_create(&fake.thread, NULL, run, NULL);
    pthread_create(&server.thread, NULL, serve, NULL);
}

/* As the program does it; then everything taken must have been ended once. */
static void stop(void)
{
    pl_http_stop(server.http);
    pl_http_stop(server.http);
    pthread_join(server.thread, NULL);
    pl_service_end(server.service);
    pthread_mutex_lock(&fake.lock);
    fake.stop = true;
    pthread_mutex_unlock(&fake.lock);
    pthread_join(fake.thread, NULL);
    pl_http_free(server.http);
    pl_service_free(server.service);
    pl_model_close(server.model);
    cr_assert_eq(atomic_load(&fake.done), atomic_load(&fake.submitted));
    for (uint64_t id = 1; id <= fake.last_id; id++)
        cr_assert_eq(fake.n_done[id], 1);
    pthread_mutex_destroy(&fake.lock);
}

static int ask(const char *body)
{
    char text[1024];
    int fd = raw_connect(pl_http_address(server.http));
    snprintf(text, sizeof text, "POST /call HTTP/1.1\r\nHost: localhost\r\nContent-Length: %zu\r\n\r\n%s", strlen(body),
             body);
    raw_send(fd, text);
    return fd;
}

static void expect(const char *body, int status, const char *expected)
{
    int fd = ask(body);
    raw_response r = raw_read(fd, false);
    cr_assert_eq(r.status, status, "%s: %d: %s", body, r.status, raw_body(&r));
    cr_assert_not_null(strstr(raw_body(&r), expected), "%s: %s", body, raw_body(&r));
    raw_free(&r);
    close(fd);
}

static bool wait_for(_Atomic int *counter, int n)
{
    for (int i = 0; i < 1000 * RAW_PATIENCE_S; i++) {
        if (atomic_load(counter) >= n)
            return true;
        nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
    }
    return false;
}

/* Reads until the text is there; the connection stays open. */
static void read_until(int fd, const char *expected)
{
    char text[8192] = "";
    for (size_t n = 0; !strstr(text, expected);) {
        ssize_t k = read(fd, text + n, sizeof text - 1 - n);
        cr_assert_gt(k, 0, "%s", text);
        n += (size_t)k;
        text[n] = '\0';
    }
}

TestSuite(call, .init = start, .fini = stop, .timeout = 300);

/* ---- tests ------------------------------------------------------------------------------------- */

Test(call, whole_answers)
{
    expect("{}", 200, "[\"w0 w1 w2 \"]");
    expect("{\"tokens\": 1, \"n\": 3}", 200, "[\"w0 \",\"w0 \",\"w0 \"]");
    expect("{\"tokens\": 0}", 200, "[");
}

Test(call, streams)
{
    expect("{\"stream\": true}", 200, "begin 1\n0: w0 \n0: w1 \n0: w2 \n0 done: w0 w1 w2 \nend\n");
    expect("{\"stream\": true, \"tokens\": 1, \"n\": 2}", 200, "begin 2\n");
}

Test(call, what_is_over_before_it_was_submitted)
{
    fake.at_once = true;
    expect("{\"n\": 2}", 200, "[\"w0 w1 w2 \",\"w0 w1 w2 \"]");
    expect("{\"stream\": true}", 200, "begin 1\n0: w0 \n0: w1 \n0: w2 \n0 done: w0 w1 w2 \nend\n");
    expect("{\"status\": 8}", 500, "made up");
}

Test(call, bodies_that_are_wrong)
{
    expect("{", 400, "parse the JSON");
    expect("{\"tokens\": \"3\"}", 400, "\"param\":\"tokens\"");
    expect("{\"x\": 3}", 400, "Unrecognized request argument supplied: x");
    cr_assert_eq(atomic_load(&fake.submitted), 0);
}

Test(call, a_full_queue_ends_all_choices)
{
    fake.room = 2;
    atomic_store(&fake.held, 1);
    int fd = ask("{\"n\": 4, \"tokens\": 1000000000, \"stream\": true}");
    raw_response r = raw_read(fd, false);
    cr_assert_eq(r.status, 429, "%d", r.status);
    cr_assert_str_eq(raw_header(&r, "Retry-After"), "7");
    raw_free(&r);
    close(fd);
    atomic_store(&fake.held, 0);
    cr_assert(wait_for(&fake.done, 2));
    cr_assert_eq(atomic_load(&fake.cancelled), 2);
}

Test(call, failures_of_the_engine)
{
    expect("{\"status\": 8}", 500, "made up");                                  /* PL_ERR_NUMERIC */
    expect("{\"status\": 9}", 503, "made up");                                  /* PL_ERR_DEVICE */
    expect("{\"status\": 9, \"stream\": true, \"tokens\": 0}", 503, "made up"); /* before a token */
    atomic_store(&fake.keeps_open, 1);
    int fd = ask("{\"status\": 9, \"stream\": true}");
    read_until(fd, "0: w2 \n");
    atomic_store(&fake.keeps_open, 0);
    read_until(fd, "error 503\n");
    close(fd);
}

Test(call, one_failing_choice_ends_the_others)
{
    expect("{\"status\": 8, \"n\": 3}", 500, "made up");
}

Test(call, a_client_that_leaves_ends_its_requests)
{
    static const char *const bodies[] = {"{\"tokens\": 1000000000, \"n\": 5}",
                                         "{\"tokens\": 1000000000, \"n\": 5, \"stream\": true}"};
    for (int i = 0; i < 2; i++) {
        int fd = ask(bodies[i]);
        cr_assert(wait_for(&fake.submitted, 5 * (i + 1)));
        close(fd);
        cr_assert(wait_for(&fake.done, 5 * (i + 1)));
        cr_assert_eq(atomic_load(&fake.cancelled), 5 * (i + 1));
    }
}

Test(call, a_stream_comes_while_the_answer_goes_on)
{
    int fd = ask("{\"stream\": true, \"tokens\": 1000000000}");
    read_until(fd, "0: w5 \n");
    cr_assert_eq(atomic_load(&fake.done), 0);
    close(fd);
}

Test(call, a_quiet_stream_says_that_it_is_there)
{
    fake.quick = true;
    atomic_store(&fake.held, 1);
    int fd = ask("{\"stream\": true}"), other = ask("{}");
    read_until(fd, "begin 1\n: \n\n");
    atomic_store(&fake.held, 0);
    raw_response r = raw_read(other, false);
    cr_assert_str_eq(raw_body(&r), "[\"w0 w1 w2 \"]", "a whole answer has no comments");
    raw_free(&r);
    close(fd);
    close(other);
}

Test(call, the_server_ends_with_calls_open)
{
    int fd[20];
    for (int i = 0; i < 20; i++)
        fd[i] = ask(i % 2 ? "{\"tokens\": 1000000000}" : "{\"tokens\": 1000000000, \"stream\": true, \"n\": 2}");
    cr_assert(wait_for(&fake.submitted, 30));
    stop();
    for (int i = 0; i < 20; i++)
        close(fd[i]);
    start();
}

/* ---- many at once ------------------------------------------------------------------------------ */

static bool has_words(const char *text, int tokens)
{
    char expected[1024] = "begin 1\n";
    for (int i = 0; i < tokens; i++)
        snprintf(expected + strlen(expected), sizeof expected - strlen(expected), "0: w%d \n", i);
    return strncmp(text, expected, strlen(expected)) == 0 && strstr(text, "\nend\n");
}

static void *visit(void *user)
{
    unsigned random = *(unsigned *)user * 2654435761u + 1;
    for (int i = 0; i < 40; i++) {
        char body[128];
        random = random * 1103515245 + 12345;
        int tokens = 1 + (int)(random >> 8) % 20, kind = (int)(random >> 16) % 5;
        snprintf(body, sizeof body, "{\"tokens\": %d, \"stream\": %s, \"status\": %d}", tokens,
                 kind == 4 ? "false" : "true", kind == 3 ? 8 : 0);
        int fd = ask(body);
        if (kind < 3 && random >> 20 & 1) {
            nanosleep(&(struct timespec){.tv_nsec = (random >> 8) % 2000000}, NULL);
            close(fd);
            continue;
        }
        raw_response r = raw_read(fd, false);
        bool right = kind == 3 ? r.status == 200 || r.status == 500 : r.status == 200;
        if (!right || (kind < 3 && !has_words(raw_body(&r), tokens)))
            atomic_fetch_add(&fake.wrong, 1);
        raw_free(&r);
        close(fd);
    }
    return NULL;
}

Test(call, many_clients_that_come_and_go)
{
    pthread_t threads[32];
    unsigned seeds[32];
    for (unsigned i = 0; i < 32; i++) {
        seeds[i] = i;
        pthread_create(&threads[i], NULL, visit, &seeds[i]);
    }
    for (size_t i = 0; i < 32; i++)
        pthread_join(threads[i], NULL);
    cr_assert_eq(atomic_load(&fake.wrong), 0);
}
