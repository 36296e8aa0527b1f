/* The scheduler: what it answers, whom it serves when, what it refuses, and what it leaves behind. */
#include "tests/engine/served.h"

#include <criterion/criterion.h>
#include <math.h>
#include <regex.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>

static double stopped_at; /* what the clock always says; 0: it goes */

double __real_pl_clock_seconds(void);
double __wrap_pl_clock_seconds(void);
double __wrap_pl_clock_seconds(void)
{
    return stopped_at > 0 ? stopped_at : __real_pl_clock_seconds();
}

static pl_tokens chat(const bench *b, const char *question)
{
    const pl_message turn = {"user", question};
    pl_tokens tokens;
    pl_error err;
    cr_assert_eq(pl_tokenize_chat(b->alone.model, &turn, 1, true, &tokens, &err), PL_OK, "%s", err.message);
    return tokens;
}

Test(scheduler, answers_a_question)
{
    const pl_engine_params engine = {.sessions = 4};
    bench b = bench_open(&engine, NULL);
    pl_tokens prompt = chat(&b, "What is the capital of France?");
    served s;
    heard alone;
    served_init(&s, &b.crowd, prompt.ids, prompt.n, 40);
    s.request.generation.ignore_eos = false;
    served_submit(&s, b.scheduler);
    crowd_wait(&b.crowd, 1);
    answer_alone(b.alone.session, &s, NULL, &alone);
    expect_same(&s, &alone, "one request");
    cr_assert(strstr(s.heard.text, "Paris"), "%s", s.heard.text);
    cr_assert_eq(s.outcome.answer.finish, PL_FINISH_EOS);
    cr_assert_eq(s.outcome.answer.n_prompt, prompt.n);
    cr_assert_str_eq(s.path, "e4b");
    cr_assert_str_eq(s.reason, "asked for");
    pl_tokens_free(&prompt);
    bench_close(&b);
}

/* Whatever the model would say: the text matches, beside others and alone. */
Test(scheduler, answers_are_what_a_grammar_allows)
{
    enum { N = 6 };
    static const char pattern[] = "(yes|no|perhaps), because [a-z ]{5,12}!";
    const pl_engine_params engine = {.sessions = 4};
    bench b = bench_open(&engine, NULL);
    pl_grammar *grammar;
    pl_error err = {0};
    static served of[N];
    regex_t whole;
    pl_tokens prompt = chat(&b, "Is it so?");
    cr_assert_eq(regcomp(&whole, "^(yes|no|perhaps), because [a-z ]{5,12}!$", REG_EXTENDED | REG_NOSUB), 0);
    cr_assert_eq(pl_grammar_compile(b.alone.model, PL_GRAMMAR_REGEX, pattern, sizeof pattern - 1, &grammar, &err),
                 PL_OK, "%s", err.message);
    for (int i = 0; i < N; i++) {
        served_init(&of[i], &b.crowd, prompt.ids, prompt.n, -1);
        if (i > 0)
            of[i].request.generation.sampling = pl_sampling_default();
        of[i].request.generation.sampling.seed = (uint64_t)i;
        of[i].request.generation.grammar = i < N - 1 ? grammar : NULL;
        of[i].request.generation.max_tokens = 100;
        of[i].request.generation.n_logprobs = 1;
        served_submit(&of[i], b.scheduler);
    }
    crowd_wait(&b.crowd, N);
    for (int i = 0; i < N; i++) {
        heard alone;
        answer_alone(b.alone.session, &of[i], NULL, &alone);
        expect_same(&of[i], &alone, "with a grammar");
        cr_assert_eq(regexec(&whole, of[i].heard.text, 0, NULL, 0), i < N - 1 ? 0 : REG_NOMATCH, "%s",
                     of[i].heard.text);
        cr_assert_eq(of[i].outcome.answer.finish, i < N - 1 ? PL_FINISH_EOS : PL_FINISH_LENGTH);
    }
    pl_grammar_free(grammar);
    regfree(&whole);
    pl_tokens_free(&prompt);
    bench_close(&b);
}

/* ---- refused ----------------------------------------------------------------------------------- */

static void ignore_done(void *user, const pl_outcome *outcome)
{
    (void)user;
    (void)outcome;
}

static void expect_refused(pl_scheduler *scheduler, const pl_request *request, pl_status status, const char *words)
{
    pl_error err = {0};
    uint64_t id = 77;
    cr_assert_eq(pl_scheduler_submit(scheduler, request, &id, &err), status, "%s", err.message);
    cr_assert(strstr(err.message, words), "'%s' does not say '%s'", err.message, words);
    cr_assert_eq(id, 77);
}

Test(scheduler, what_can_never_be_right_is_refused)
{
    const pl_engine_params engine = {.sessions = 1, .context = 64};
    bench b = bench_open(&engine, NULL);
    int32_t ids[65];
    fill_ids(ids, 65, 0);
    pl_request good = pl_request_default(), r = good;
    good.prompt = ids;
    good.n_prompt = 10;
    good.on_done = ignore_done;
    r = good;
    r.n_prompt = 0;
    expect_refused(b.scheduler, &r, PL_ERR_ARGUMENT, "empty");
    r.n_prompt = 65;
    expect_refused(b.scheduler, &r, PL_ERR_CONTEXT, "65 tokens");
    r = good;
    ids[3] = 4096;
    expect_refused(b.scheduler, &r, PL_ERR_ARGUMENT, "prompt token 3 is 4096");
    ids[3] = 5;
    r.on_done = NULL;
    expect_refused(b.scheduler, &r, PL_ERR_ARGUMENT, "on_done");
    r = good;
    r.path = "e3b";
    expect_refused(b.scheduler, &r, PL_ERR_ARGUMENT, "path 'e3b'");
    r = good;
    r.priority = 101;
    expect_refused(b.scheduler, &r, PL_ERR_ARGUMENT, "priority is 101");
    r = good;
    r.first_token_s = NAN;
    expect_refused(b.scheduler, &r, PL_ERR_ARGUMENT, "wished time");
    r = good;
    r.generation.sampling.top_p = 2;
    expect_refused(b.scheduler, &r, PL_ERR_ARGUMENT, "top_p is 2");
    r = good;
    r.generation.max_tokens = -2;
    expect_refused(b.scheduler, &r, PL_ERR_ARGUMENT, "max_tokens");
    pl_scheduler_stats stats;
    pl_scheduler_count(b.scheduler, &stats);
    cr_assert_eq(stats.submitted + stats.refused, 0, "neither taken nor for want of room");
    bench_close(&b);
}

/* Submits a request that runs until served_go_on(). */
static void occupy(bench *b, served *s, int max_tokens)
{
    static int32_t ids[4] = {2, 700, 800, 900};
    served_init(s, &b->crowd, ids, 4, max_tokens);
    s->request.priority = 1;
    s->hold_from = 3;
    served_submit(s, b->scheduler);
    served_wait_held(s);
}

Test(scheduler, a_full_queue_is_busy)
{
    const pl_engine_params engine = {.sessions = 2};
    const pl_scheduler_params params = {.max_waiting = 2, .max_running = 1};
    bench b = bench_open(&engine, &params);
    served long_one, waiting[2];
    int32_t ids[5] = {2, 5, 6, 7, 8};
    occupy(&b, &long_one, 250);
    for (int i = 0; i < 2; i++) {
        served_init(&waiting[i], &b.crowd, ids, 5, 2);
        served_submit(&waiting[i], b.scheduler);
    }
    expect_refused(b.scheduler, &waiting[0].request, PL_ERR_BUSY, "2 requests wait");
    pl_scheduler_stats stats;
    pl_scheduler_count(b.scheduler, &stats);
    cr_assert_eq(stats.waiting, 2);
    cr_assert_eq(stats.refused, 1);
    cr_assert_gt(stats.retry_after_s, 0);
    pl_scheduler_cancel(b.scheduler, long_one.id);
    served_go_on(&long_one, false);
    crowd_wait(&b.crowd, 3);
    pl_scheduler_count(b.scheduler, &stats);
    cr_assert_eq(stats.retry_after_s, 0);
    cr_assert_eq(stats.done, 2);
    cr_assert_eq(stats.cancelled, 1);
    bench_close(&b);
}

/* ---- who is served when ------------------------------------------------------------------------ */

Test(scheduler, a_client_with_many_requests_does_not_hold_up_another)
{
    enum { MANY = 50, FEW = 3 };
    const pl_engine_params engine = {.sessions = 2};
    bench b = bench_open(&engine, NULL);
    static served of[MANY + FEW];
    int32_t ids[40];
    fill_ids(ids, 40, 0);
    for (int i = 0; i < MANY + FEW; i++) {
        served_init(&of[i], &b.crowd, ids, 30 + i % 10, 20);
        of[i].request.client = i < MANY ? 1 : 2;
        served_submit(&of[i], b.scheduler);
    }
    pthread_mutex_lock(&b.crowd.lock);
    int before = b.crowd.done;
    pthread_mutex_unlock(&b.crowd.lock);
    crowd_wait(&b.crowd, MANY + FEW);
    for (int i = MANY; i < MANY + FEW; i++)
        cr_assert_leq(of[i].order, before + 4 * FEW, "request %d of the other was done after %d", i, of[i].order);
    bench_close(&b);
}

/* All wait behind one that runs; the k-th of them is the first afterwards. */
static void expect_first(const pl_request *usual, const pl_request *urgent)
{
    enum { N = 6, URGENT = 4 };
    const pl_engine_params engine = {.sessions = 2};
    const pl_scheduler_params params = {.max_running = 1};
    bench b = bench_open(&engine, &params);
    served long_one, of[N];
    int32_t ids[5] = {2, 5, 6, 7, 8};
    occupy(&b, &long_one, 250);
    for (int i = 0; i < N; i++) {
        const pl_request *like = i == URGENT ? urgent : usual;
        served_init(&of[i], &b.crowd, ids, 5, 3);
        of[i].request.priority = like->priority;
        of[i].request.first_token_s = like->first_token_s;
        served_submit(&of[i], b.scheduler);
    }
    pl_scheduler_cancel(b.scheduler, long_one.id);
    served_go_on(&long_one, false);
    crowd_wait(&b.crowd, N + 1);
    cr_assert_eq(of[URGENT].order, 1, "it was done after %d", of[URGENT].order);
    cr_assert_eq(of[0].order, 2, "the first to come was done after %d", of[0].order);
    cr_assert_eq(of[N - 1].order, N, "the last to come was done after %d", of[N - 1].order);
    bench_close(&b);
}

Test(scheduler, priority_goes_first)
{
    const pl_request usual = {.priority = 0}, urgent = {.priority = 1};
    expect_first(&usual, &urgent);
}

/* Time stands still, so that the deadline stays near. */
Test(scheduler, a_near_deadline_goes_first)
{
    const pl_request usual = {.priority = 0}, urgent = {.priority = 0, .first_token_s = 0.5};
    stopped_at = __real_pl_clock_seconds();
    expect_first(&usual, &urgent);
}

/* ---- ends -------------------------------------------------------------------------------------- */

Test(scheduler, who_leaves_gives_back_the_pages_at_once)
{
    const pl_engine_params engine = {.sessions = 2};
    const pl_scheduler_params params = {.no_prefixes = true};
    bench b = bench_open(&engine, &params);
    served s;
    pl_scheduler_stats stats;
    occupy(&b, &s, 250);
    pl_scheduler_count(b.scheduler, &stats);
    cr_assert_gt(stats.kv_used, 0);
    pl_scheduler_cancel(b.scheduler, s.id);
    served_go_on(&s, false);
    crowd_wait(&b.crowd, 1);
    pl_scheduler_count(b.scheduler, &stats);
    cr_assert_eq(stats.kv_used, 0);
    cr_assert_eq(stats.running, 0);
    cr_assert_eq(s.status, PL_ERR_CANCELLED);
    cr_assert_eq(s.outcome.answer.finish, PL_FINISH_CANCEL);
    cr_assert_lt(s.heard.n, 250);
    pl_scheduler_cancel(b.scheduler, s.id);
    pl_scheduler_cancel(b.scheduler, 12345);
    bench_close(&b);
}

typedef struct last_one {
    served *s;
    pl_scheduler *scheduler;
} last_one;

static void *go_on_at_the_end(void *arg)
{
    last_one *last = arg;
    for (bool ends = false; !ends; sched_yield()) {
        pthread_mutex_lock(&last->scheduler->lock);
        ends = last->scheduler->stop;
        pthread_mutex_unlock(&last->scheduler->lock);
    }
    served_go_on(last->s, false);
    return NULL;
}

/* The first stands still until the scheduler has been told to end. */
Test(scheduler, its_end_is_the_end_of_all)
{
    enum { N = 20 };
    const pl_engine_params engine = {.sessions = 3};
    bench b = bench_open(&engine, NULL);
    static served of[N];
    last_one first = {&of[0], b.scheduler};
    pthread_t thread;
    int32_t ids[40];
    fill_ids(ids, 40, 0);
    for (int i = 0; i < N; i++) {
        served_init(&of[i], &b.crowd, ids, 40, 250);
        of[i].hold_from = i == 0 ? 3 : 0;
        served_submit(&of[i], b.scheduler);
    }
    served_wait_held(&of[0]);
    cr_assert_eq(pthread_create(&thread, NULL, go_on_at_the_end, &first), 0);
    pl_scheduler_free(b.scheduler);
    pthread_join(thread, NULL);
    b.scheduler = NULL;
    for (int i = 0; i < N; i++) {
        cr_assert_eq(of[i].n_done, 1);
        cr_assert_eq(of[i].after_done, 0);
        cr_assert_eq(of[i].status, PL_ERR_CANCELLED);
    }
    bench_close(&b);
}

/* on_done may ask for more. */
typedef struct chain {
    pl_scheduler *scheduler;
    pl_request request;
    crowd *crowd;
    int left;
} chain;

static void submit_next(void *user, const pl_outcome *outcome)
{
    chain *c = user;
    cr_assert_eq(outcome->status, PL_OK);
    if (--c->left > 0)
        cr_assert_eq(pl_scheduler_submit(c->scheduler, &c->request, NULL, NULL), PL_OK);
    pthread_mutex_lock(&c->crowd->lock);
    c->crowd->done++;
    pthread_cond_broadcast(&c->crowd->change);
    pthread_mutex_unlock(&c->crowd->lock);
}

Test(scheduler, a_callback_may_submit)
{
    const pl_engine_params engine = {.sessions = 1};
    bench b = bench_open(&engine, NULL);
    int32_t ids[3] = {2, 7, 8};
    chain c = {.scheduler = b.scheduler, .request = pl_request_default(), .crowd = &b.crowd, .left = 5};
    c.request.prompt = ids;
    c.request.n_prompt = 3;
    c.request.generation.max_tokens = 2;
    c.request.on_done = submit_next;
    c.request.user = &c;
    cr_assert_eq(pl_scheduler_submit(b.scheduler, &c.request, NULL, NULL), PL_OK);
    crowd_wait(&b.crowd, 5);
    bench_close(&b);
}

static pl_status no_card(pl_stream *s, uint64_t mark, pl_error *err)
{
    (void)s;
    (void)mark;
    return pl_fail(err, PL_ERR_DEVICE, "the card is lost");
}

Test(scheduler, a_lost_device_ends_all_and_takes_no_more)
{
    const pl_engine_params engine = {.sessions = 2};
    bench b = bench_open(&engine, NULL);
    served of[3];
    int32_t ids[5] = {2, 5, 6, 7, 8};
    pl_engine_lock(b.served.engine);
    b.served.engine->backend->wait_for = no_card;
    pl_engine_unlock(b.served.engine);
    for (int i = 0; i < 3; i++) {
        served_init(&of[i], &b.crowd, ids, 5, 10);
        of[i].request.generation.on_token = NULL;
        pl_error err;
        if (i == 0)
            served_submit(&of[i], b.scheduler);
        else if (i == 1)
            crowd_wait(&b.crowd, 1);
        if (i > 0)
            cr_assert_eq(pl_scheduler_submit(b.scheduler, &of[0].request, NULL, &err), PL_ERR_DEVICE);
    }
    cr_assert_eq(of[0].status, PL_ERR_DEVICE);
    cr_assert_str_eq(of[0].message, "the card is lost");
    bench_close(&b);
}
