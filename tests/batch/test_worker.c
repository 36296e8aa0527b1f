/* Lines through engines: each answered once, whatever happens. */
#include <criterion/criterion.h>
#include <jansson.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "host/base/strbuf.h"
#include "host/batch/worker.h"

#define DEMO PL_TEST_DATA "/../tools/demo_model/demo.gguf"
#define LINES 80
#define TOKENS 6

/* ---- what the schedulers are made to do -------------------------------------------------------- */

static struct {
    int room;              /* of each scheduler, in requests; 0: its own */
    int32_t refuse_tokens; /* those that ask for so many never have a place; 0: none */
    _Atomic int n;
    int lose_after; /* submissions, until the scheduler of the last is lost; 0: never */
    _Atomic(pl_scheduler *) lost;
    bool lose_all;
    int hold_after; /* answers; then schedulers stand still until the worker is stopped; 0: never */
    int ahead;      /* submissions; an answer waits until so many more are made than answers given */
    _Atomic int answers;
    atomic_bool stopped;
} wrapped;

/* ---- a source ---------------------------------------------------------------------------------- */

/* What became of a line. */
typedef struct fate {
    char *text, *record;
    const char *path;
    int taken, given, back;
    bool waits, failed;
    int64_t prompt_tokens, answer_tokens;
} fate;

/* As a dealer: who takes waits until there is a line, or none can come back any more. */
typedef struct list {
    pthread_mutex_t lock;
    pthread_cond_t change;
    fate lines[LINES];
    int n;
    bool ended;
    int end_after;  /* taken lines; 0: never */
    int stop_after; /* given lines: the worker is stopped; 0: never */
    bool waits_on;  /* it ends not even then */
    int fail_at;    /* given lines: the disk is full; 0: never */
    int given, under_way, most_under_way;
    pl_worker *worker;
} list;

static list *new_list(void)
{
    list *l = calloc(1, sizeof *l);
    cr_assert(l);
    pthread_mutex_init(&l->lock, NULL);
    pthread_cond_init(&l->change, NULL);
    return l;
}

static void free_list(list *l)
{
    for (int i = 0; i < l->n; i++) {
        free(l->lines[i].text);
        free(l->lines[i].record);
    }
    pthread_cond_destroy(&l->change);
    pthread_mutex_destroy(&l->lock);
    free(l);
}

/* body: printf's. */
static int add_line(list *l, const char *url, const char *body, ...) __attribute__((format(printf, 3, 4)));
static int add_line(list *l, const char *url, const char *body, ...)
{
    pl_strbuf text = {0};
    char made[1024];
    va_list args;
    va_start(args, body);
    vsnprintf(made, sizeof made, body, args);
    va_end(args);
    pl_strbuf_printf(&text, "{\"custom_id\": \"line-%d\", \"method\": \"POST\", \"url\": \"%s\", \"body\": %s}", l->n,
                     url, made);
    l->lines[l->n] = (fate){.text = text.data, .waits = true, .path = ""};
    return l->n++;
}

static int find_waiting(const list *l)
{
    for (int i = 0; i < l->n; i++)
        if (l->lines[i].waits)
            return i;
    return -1;
}

static bool take(void *user, pl_work *out)
{
    list *l = user;
    pthread_mutex_lock(&l->lock);
    int i;
    while ((i = find_waiting(l)) < 0 && l->under_way > 0 && !l->ended)
        pthread_cond_wait(&l->change, &l->lock);
    bool ok = i >= 0 && !l->ended;
    if (ok) {
        fate *f = &l->lines[i];
        f->waits = false;
        f->taken++;
        if (++l->under_way > l->most_under_way)
            l->most_under_way = l->under_way;
        *out = (pl_work){.line = i, .text = strdup(f->text), .n = strlen(f->text)};
        snprintf(out->path, sizeof out->path, "%s", f->path);
        l->ended = l->end_after > 0 && --l->end_after == 0;
    }
    pthread_mutex_unlock(&l->lock);
    return ok;
}

static void *stop_worker(void *user)
{
    pl_worker_stop(user);
    atomic_store(&wrapped.stopped, true);
    return NULL;
}

static pl_status give(void *user, const pl_work_result *result, pl_error *err)
{
    list *l = user;
    pthread_mutex_lock(&l->lock);
    fate *f = &l->lines[result->line];
    l->under_way--;
    bool full = l->fail_at > 0 && ++l->given >= l->fail_at;
    l->ended = l->ended || full;
    if (!full) {
        f->given++;
        f->failed = result->failed;
        f->prompt_tokens = result->prompt_tokens;
        f->answer_tokens = result->answer_tokens;
        f->record = strndup(result->record, result->n);
    }
    bool stop = l->stop_after > 0 && --l->stop_after == 0;
    l->ended = l->ended || (stop && !l->waits_on);
    pthread_cond_broadcast(&l->change);
    pthread_mutex_unlock(&l->lock);
    pthread_t thread;
    if (stop && pthread_create(&thread, NULL, stop_worker, l->worker) == 0)
        pthread_join(thread, NULL);
    return full ? pl_fail(err, PL_ERR_IO, "the disk is full") : PL_OK;
}

static void give_back(void *user, pl_work *work)
{
    list *l = user;
    pthread_mutex_lock(&l->lock);
    fate *f = &l->lines[work->line];
    f->back++;
    f->waits = true;
    l->under_way--;
    pthread_cond_broadcast(&l->change);
    pthread_mutex_unlock(&l->lock);
    free(work->text);
}

static int count_given(const list *l)
{
    int n = 0;
    for (int i = 0; i < l->n; i++) {
        cr_assert_leq(l->lines[i].given, 1, "line %d", i);
        cr_assert_eq(l->lines[i].taken, l->lines[i].given + l->lines[i].back, "line %d", i);
        n += l->lines[i].given;
    }
    return n;
}

/* ---- engines ----------------------------------------------------------------------------------- */

static pl_model *model;
static pl_engine *engines[2];

static void start(void)
{
    pl_error err = {.message = ""};
    memset(&wrapped, 0, sizeof wrapped);
    cr_assert_eq(pl_model_open(DEMO, &model, &err), PL_OK, "%s", err.message);
    for (int i = 0; i < 2; i++) {
        const pl_engine_params params = {
            .backend = PL_BACKEND_CPU, .sessions = i ? 8 : 3, .threads = 1, .context = 1024, .no_pin = true};
        cr_assert_eq(pl_engine_create(model, &params, &engines[i], &err), PL_OK, "%s", err.message);
    }
}

static void stop(void)
{
    pl_engine_free(engines[0]);
    pl_engine_free(engines[1]);
    pl_model_close(model);
}

TestSuite(worker, .init = start, .fini = stop);

static pl_worker_params params_of(list *l, int n_engines)
{
    pl_worker_params params = {.model = model,
                               .engines = engines,
                               .n_engines = n_engines,
                               .service = {.name = "demo", .path = "e4b", .max_tokens = -1, .any_model = true},
                               .source = {take, give, give_back, l}};
    params.service.sampling = pl_sampling_default();
    params.service.sampling.temperature = 0;
    return params;
}

static pl_status run(list *l, const pl_worker_params *params, pl_worker_stats *stats, pl_error *err)
{
    cr_assert_eq(pl_worker_create(params, &l->worker, err), PL_OK, "%s", err->message);
    pl_status status = pl_worker_run(l->worker, err);
    *stats = pl_worker_count(l->worker);
    cr_assert_eq(stats->under_way, 0);
    cr_assert_eq(l->under_way, 0);
    pl_worker_free(l->worker);
    return status;
}

/* All lines, to the end. */
static pl_worker_stats run_all(list *l, int n_engines)
{
    pl_worker_stats stats;
    pl_error err = {.message = ""};
    const pl_worker_params params = params_of(l, n_engines);
    cr_assert_eq(run(l, &params, &stats, &err), PL_OK, "%s", err.message);
    cr_assert_eq(count_given(l), l->n);
    cr_assert_eq(stats.given, l->n);
    return stats;
}

/* ---- what answers must be ---------------------------------------------------------------------- */

static bool hear(void *user, const pl_token_event *event)
{
    pl_strbuf_add(user, event->text, event->n_bytes);
    return true;
}

/* The greedy answer of a session by itself; free() */
static char *answer_alone(const pl_tokens *prompt, const char *path)
{
    pl_session *session;
    pl_strbuf text = {0};
    pl_generation g = pl_generation_default();
    g.max_tokens = TOKENS;
    g.sampling.temperature = 0;
    g.on_token = hear;
    g.user = &text;
    pl_strbuf_add_text(&text, "");
    cr_assert_eq(pl_session_create(engines[0], &session, NULL), PL_OK);
    cr_assert_eq(pl_session_set_path(session, path, PL_SWITCH_EXACT, NULL), PL_OK);
    cr_assert_eq(pl_generate(session, prompt->ids, prompt->n, &g, NULL, NULL), PL_OK);
    pl_session_free(session);
    return text.data;
}

static char *chat_alone(const char *content, const char *path)
{
    pl_tokens prompt;
    const pl_message message = {"user", content};
    cr_assert_eq(pl_tokenize_chat(model, &message, 1, true, &prompt, NULL), PL_OK);
    char *text = answer_alone(&prompt, path);
    pl_tokens_free(&prompt);
    return text;
}

static char *completion_alone(const char *content, const char *path)
{
    pl_tokens prompt;
    cr_assert_eq(pl_tokenize(model, content, strlen(content), PL_TOKENIZE_BOS, &prompt, NULL), PL_OK);
    char *text = answer_alone(&prompt, path);
    pl_tokens_free(&prompt);
    return text;
}

/* The record of line i; json_decref() */
static json_t *record_of(const list *l, int i)
{
    const fate *f = &l->lines[i];
    char id[32];
    cr_assert_eq(f->given, 1, "line %d", i);
    cr_assert_eq(strchr(f->record, '\n'), f->record + strlen(f->record) - 1);
    json_t *root = json_loads(f->record, 0, NULL);
    cr_assert(root, "%s", f->record);
    snprintf(id, sizeof id, "line-%d", i);
    if (f->text[0] == '{')
        cr_assert_str_eq(json_string_value(json_object_get(root, "custom_id")), id);
    return root;
}

static void expect_status(const list *l, int i, int status)
{
    json_t *root = record_of(l, i), *body;
    int is = 0;
    cr_assert_eq(json_unpack(root, "{s:{s:i,s:o}}", "response", "status_code", &is, "body", &body), 0);
    cr_assert_eq(is, status, "%s", l->lines[i].record);
    cr_assert_eq(l->lines[i].failed, status != 200);
    cr_assert(status == 200 || json_object_get(body, "error"), "%s", l->lines[i].record);
    json_decref(root);
}

static void expect_answer(const list *l, int i, char *alone, const char *path)
{
    const char *text, *is_path, *name;
    json_t *root = record_of(l, i), *choice, *body;
    expect_status(l, i, 200);
    cr_assert_eq(json_unpack(root, "{s:{s:o}}", "response", "body", &body), 0);
    cr_assert_eq(
        json_unpack(body, "{s:[o],s:s,s:{s:s}}", "choices", &choice, "model", &name, "pleiad", "path", &is_path), 0,
        "%s", l->lines[i].record);
    const json_t *message = json_object_get(choice, "message");
    text = json_string_value(message ? json_object_get(message, "content") : json_object_get(choice, "text"));
    cr_assert_str_eq(text, alone, "line %d", i);
    cr_assert_str_eq(is_path, path);
    cr_assert_str_eq(name, "demo");
    cr_assert_gt(l->lines[i].prompt_tokens, 0);
    cr_assert(l->lines[i].answer_tokens > 0 && l->lines[i].answer_tokens <= TOKENS);
    json_decref(root);
    free(alone);
}

static void expect_embedded(const list *l, int i, const char *path)
{
    const char *is_path;
    json_t *root = record_of(l, i), *first, *second;
    expect_status(l, i, 200);
    cr_assert_eq(json_unpack(root, "{s:{s:{s:[o,o],s:{s:s}}}}", "response", "body", "data", &first, &second, "pleiad",
                             "path", &is_path),
                 0);
    cr_assert_eq(json_array_size(json_object_get(second, "embedding")), (size_t)pl_model_hidden_size(model));
    cr_assert_str_eq(is_path, path);
    json_decref(root);
}

/* ---- the tests --------------------------------------------------------------------------------- */

/* Lines in eight kinds; the source's path is e2b for every other one. */
static list *mixed_list(void)
{
    static const char chat[] = "{\"messages\": [{\"role\": \"user\", \"content\": \"Say %d\"}], \"max_tokens\": %d%s}";
    static const char *const urls[] = {"/v1/chat/completions", "/v1/completions", "/v1/embeddings"};
    list *l = new_list();
    for (int i = 0; i < LINES; i++) {
        switch (i % 8) {
        case 0: add_line(l, urls[0], chat, i, TOKENS, ""); break;
        case 1: add_line(l, urls[1], "{\"prompt\": \"The number %d\", \"max_tokens\": %d}", i, TOKENS); break;
        case 2: add_line(l, urls[2], "{\"input\": [\"one %d\", \"two\"], \"quality\": \"quality\"}", i); break;
        case 3: add_line(l, urls[0], chat, i, TOKENS, ", \"path\": \"e4b\""); break;
        case 4: add_line(l, urls[0], chat, i, TOKENS, ", \"model\": \"other-4:e4b\""); break;
        case 5: add_line(l, urls[0], "{\"max_tokens\": %d}", TOKENS); break;
        case 6: add_line(l, urls[1], "{\"prompt\": 5.5, \"max_tokens\": %d}", TOKENS); break;
        default: add_line(l, urls[0], "{}"); l->lines[i].text[0] = '?'; /* no JSON */
        }
        l->lines[i].path = i % 16 < 8 ? "" : "e2b";
    }
    return l;
}

static void expect_mixed(const list *l, int i)
{
    const char *given = i % 16 < 8 ? "e4b" : "e2b", *path = i % 8 > 1 ? "e4b" : given;
    char text[64];
    snprintf(text, sizeof text, i % 8 == 1 ? "The number %d" : "Say %d", i);
    switch (i % 8) {
    case 1: expect_answer(l, i, completion_alone(text, path), path); break;
    case 2: expect_embedded(l, i, path); break;
    case 5:
    case 6: expect_status(l, i, 400); break;
    case 7: cr_assert(l->lines[i].failed && strstr(l->lines[i].record, "invalid_json_line")); break;
    default: expect_answer(l, i, chat_alone(text, path), path); break;
    }
}

Test(worker, answers_each_line_once_and_as_a_session_would)
{
    list *l = mixed_list();
    pl_worker_stats stats = run_all(l, 2);
    cr_assert_eq(stats.failed, 3 * LINES / 8);
    cr_assert_eq(stats.given_back, 0);
    cr_assert_eq(stats.engines, 2);
    cr_assert_leq(l->most_under_way, 2 * (3 + 8));
    int64_t answered = 0;
    for (int i = 0; i < LINES; i++) {
        expect_mixed(l, i);
        answered += l->lines[i].answer_tokens;
    }
    cr_assert_eq(stats.answer_tokens, answered);
    free_list(l);
}

static list *plain_list(int n)
{
    list *l = new_list();
    for (int i = 0; i < n; i++)
        add_line(l, "/v1/completions", "{\"prompt\": \"Line %d\", \"max_tokens\": %d, \"ignore_eos\": true}", i,
                 TOKENS);
    return l;
}

Test(worker, takes_no_more_than_its_window)
{
    list *l = plain_list(20);
    pl_worker_stats stats;
    pl_error err;
    pl_worker_params params = params_of(l, 1);
    params.window = 3;
    cr_assert_eq(run(l, &params, &stats, &err), PL_OK);
    cr_assert_eq(l->most_under_way, 3);
    cr_assert_eq(count_given(l), 20);
    free_list(l);
    l = plain_list(20);
    params = params_of(l, 1);
    params.bytes = 1;
    cr_assert_eq(run(l, &params, &stats, &err), PL_OK);
    cr_assert_eq(l->most_under_way, 1);
    cr_assert_eq(count_given(l), 20);
    free_list(l);
}

Test(worker, a_source_that_ends_early)
{
    static const int after[] = {1, 7};
    for (size_t k = 0; k < 2; k++) {
        list *l = plain_list(20);
        pl_worker_stats stats;
        pl_error err;
        const pl_worker_params params = params_of(l, 2);
        l->end_after = after[k];
        cr_assert_eq(run(l, &params, &stats, &err), PL_OK);
        cr_assert_eq(count_given(l), after[k]);
        free_list(l);
    }
    list *l = new_list();
    run_all(l, 2);
    free_list(l);
}

Test(worker, stopped_in_the_middle)
{
    for (int after = 1; after < 40; after += 13) {
        list *l = plain_list(60);
        pl_worker_stats stats;
        pl_error err;
        const pl_worker_params params = params_of(l, 2);
        l->stop_after = after;
        memset(&wrapped, 0, sizeof wrapped);
        wrapped.hold_after = after;
        wrapped.ahead = 1;
        cr_assert_eq(run(l, &params, &stats, &err), PL_ERR_CANCELLED);
        int given = count_given(l);
        cr_assert(given >= after && given < 60, "%d", given);
        cr_assert_eq(stats.given, given);
        cr_assert_gt(stats.given_back, 0);
        free_list(l);
    }
}

/* The source waits for lines that are under way: they come back to it. */
Test(worker, stopped_while_the_source_waits)
{
    list *l = plain_list(1);
    for (int i = 0; i < 4; i++)
        add_line(l, "/v1/completions", "{\"prompt\": \"Line\", \"max_tokens\": 1000, \"ignore_eos\": true}");
    pl_worker_stats stats;
    pl_error err;
    const pl_worker_params params = params_of(l, 1);
    l->stop_after = 1;
    l->waits_on = true;
    wrapped.hold_after = 1;
    wrapped.ahead = 4;
    cr_assert_eq(run(l, &params, &stats, &err), PL_ERR_CANCELLED);
    cr_assert_eq(count_given(l), 1);
    cr_assert_geq(stats.given_back, 4);
    free_list(l);
}

Test(worker, stopped_while_lines_wait_to_be_tried_again)
{
    list *l = plain_list(20);
    pl_worker_stats stats;
    pl_error err;
    const pl_worker_params params = params_of(l, 2);
    wrapped.room = 1;
    l->stop_after = 3;
    cr_assert_eq(run(l, &params, &stats, &err), PL_ERR_CANCELLED);
    cr_assert_lt(count_given(l), 20);
    cr_assert_gt(stats.tried_again, 0);
    free_list(l);
}

Test(worker, stopped_before_it_begins)
{
    list *l = plain_list(5);
    pl_error err;
    const pl_worker_params params = params_of(l, 2);
    cr_assert_eq(pl_worker_create(&params, &l->worker, &err), PL_OK);
    pl_worker_stop(l->worker);
    cr_assert_eq(pl_worker_run(l->worker, &err), PL_ERR_CANCELLED);
    pl_worker_stop(l->worker); /* late */
    cr_assert_eq(count_given(l), 0);
    pl_worker_free(l->worker);
    free_list(l);
}

Test(worker, a_give_that_fails_ends_the_work)
{
    list *l = plain_list(60);
    pl_worker_stats stats;
    pl_error err;
    const pl_worker_params params = params_of(l, 2);
    l->fail_at = 10;
    cr_assert_eq(run(l, &params, &stats, &err), PL_ERR_IO);
    cr_assert_str_eq(err.message, "the disk is full");
    int given = 0;
    for (int i = 0; i < l->n; i++) {
        cr_assert_leq(l->lines[i].given, 1);
        given += l->lines[i].given;
    }
    cr_assert_eq(given, 9);
    cr_assert_eq(stats.given, 9);
    free_list(l);
}

/* ---- refusals and lost cards ------------------------------------------------------------------- */

pl_status __real_pl_scheduler_submit(pl_scheduler *scheduler, const pl_request *request, uint64_t *id, pl_error *err);
pl_status __wrap_pl_scheduler_submit(pl_scheduler *scheduler, const pl_request *request, uint64_t *id, pl_error *err);

static bool is_full(pl_scheduler *scheduler, const pl_request *request)
{
    pl_scheduler_stats stats;
    pl_scheduler_count(scheduler, &stats);
    return (wrapped.room && stats.waiting + stats.running >= wrapped.room) ||
           (wrapped.refuse_tokens && request->generation.max_tokens == wrapped.refuse_tokens);
}

/* A request of a scheduler that may be lost before the answer is there. */
typedef struct hope {
    pl_scheduler *scheduler;
    pl_done_fn on_done;
    void *user;
} hope;

static void hope_ends(void *user, const pl_outcome *outcome)
{
    hope *h = user;
    const pl_outcome lost = {.status = PL_ERR_DEVICE, .message = "the card fell off the bus"};
    bool is_lost = wrapped.lost && (wrapped.lose_all || wrapped.lost == h->scheduler);
    int answer = atomic_fetch_add(&wrapped.answers, 1) + 1;
    while (answer <= wrapped.hold_after && atomic_load(&wrapped.n) < answer + wrapped.ahead)
        sched_yield();
    h->on_done(h->user, is_lost ? &lost : outcome);
    free(h);
    while (wrapped.hold_after && answer >= wrapped.hold_after && !atomic_load(&wrapped.stopped))
        sched_yield();
}

static pl_status submit_in_hope(pl_scheduler *scheduler, const pl_request *request, uint64_t *id, pl_error *err)
{
    pl_request r = *request;
    hope *h = malloc(sizeof *h);
    cr_assert(h);
    *h = (hope){scheduler, r.on_done, r.user};
    r.on_done = hope_ends;
    r.user = h;
    pl_status status = __real_pl_scheduler_submit(scheduler, &r, id, err);
    if (status != PL_OK)
        free(h);
    return status;
}

pl_status __wrap_pl_scheduler_submit(pl_scheduler *scheduler, const pl_request *request, uint64_t *id, pl_error *err)
{
    int n = atomic_fetch_add(&wrapped.n, 1) + 1;
    if (n == wrapped.lose_after)
        wrapped.lost = scheduler;
    if (wrapped.lost == scheduler || (wrapped.lose_all && wrapped.lost))
        return pl_fail(err, PL_ERR_DEVICE, "the card fell off the bus");
    if (is_full(scheduler, request))
        return pl_fail(err, PL_ERR_BUSY, "requests wait, no more are taken");
    return submit_in_hope(scheduler, request, id, err);
}

Test(worker, full_queues_are_nobodys_error)
{
    list *l = plain_list(60);
    wrapped.room = 2;
    pl_worker_stats stats = run_all(l, 2);
    cr_assert_gt(stats.tried_again, 0);
    cr_assert_eq(stats.failed, 0);
    free_list(l);
}

Test(worker, a_line_that_is_refused_even_alone_is_told_so)
{
    list *l = plain_list(30);
    add_line(l, "/v1/completions", "{\"prompt\": \"x\", \"max_tokens\": 7}");
    add_line(l, "/v1/messages", "{\"messages\": [{\"role\": \"user\", \"content\": \"x\"}], \"max_tokens\": 7}");
    for (int i = 0; i < 30; i++)
        add_line(l, "/v1/completions", "{\"prompt\": \"Line %d\", \"max_tokens\": %d}", i, TOKENS);
    wrapped.refuse_tokens = 7;
    pl_worker_stats stats = run_all(l, 2);
    cr_assert_eq(stats.failed, 2);
    expect_status(l, 30, 429);
    expect_status(l, 31, 429);
    free_list(l);
}

Test(worker, lines_of_a_lost_card_go_to_others)
{
    list *l = plain_list(60);
    wrapped.lose_after = 20;
    pl_worker_stats stats = run_all(l, 2);
    cr_assert_eq(stats.failed, 0);
    cr_assert_eq(stats.engines, 1);
    cr_assert_gt(stats.given_back, 0);
    free_list(l);
}

Test(worker, without_any_card_it_fails)
{
    list *l = plain_list(60);
    pl_worker_stats stats;
    pl_error err;
    const pl_worker_params params = params_of(l, 2);
    wrapped.lose_after = 20;
    wrapped.lose_all = true;
    cr_assert_eq(run(l, &params, &stats, &err), PL_ERR_DEVICE);
    cr_assert(strstr(err.message, "fell off the bus"), "%s", err.message);
    cr_assert_eq(stats.failed, 0);
    cr_assert_eq(stats.engines, 0);
    cr_assert_lt(count_given(l), 60);
    free_list(l);
}
