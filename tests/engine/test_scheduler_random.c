/* Whatever is asked for at once, in whatever room and steps: each answer is the one that pl_generate() gives alone. */
#include "tests/engine/goldens.h"
#include "tests/engine/served.h"

#include "host/base/rng.h"
#include "host/engine/engine.h"

#include <criterion/criterion.h>
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum { REQUESTS = 20, CONTEXT = 512, LONGEST = 400 };

typedef struct round {
    pl_rng rng;
    fixture fixture;
    pl_scheduler *scheduler;
    crowd crowd;
    served of[REQUESTS];
    int32_t prompt[REQUESTS][LONGEST];
    bool cancel[REQUESTS];
    pl_grammar *grammar;
} round_;

static int below(pl_rng *rng, int n)
{
    return (int)(pl_rng_next(rng) % (uint64_t)n);
}

/* Beginnings are shared by many, and end anywhere, also inside of pages. */
static size_t random_prompt(round_ *r, int32_t *ids)
{
    int shared = below(&r->rng, 3) * 100 + below(&r->rng, 70), own = 1 + below(&r->rng, below(&r->rng, 4) ? 20 : 130);
    int salt = below(&r->rng, 2);
    for (int i = 0; i < shared; i++)
        ids[i] = 10 + (i * 37 + i / 11 + salt * 71) % 1900;
    for (int i = 0; i < own; i++)
        ids[shared + i] = 10 + below(&r->rng, 1900);
    return (size_t)(shared + own);
}

static const char *const stops[2] = {"e", " a"};
static const pl_logit_bias bias[2] = {{700, 3.0f}, {20, -INFINITY}};

static void random_sampling(pl_rng *rng, pl_generation *g)
{
    g->sampling = pl_sampling_default();
    g->sampling.seed = pl_rng_next(rng);
    if (below(rng, 2))
        g->sampling.temperature = 0;
    if (below(rng, 3) == 0)
        g->sampling.repeat_penalty = 1.2f;
    if (below(rng, 5) == 0)
        g->sampling.dry_multiplier = 0.8f;
    if (below(rng, 5) == 0) {
        g->sampling.bias = bias;
        g->sampling.n_bias = 2;
    }
    if (below(rng, 3) == 0)
        g->n_logprobs = below(rng, SERVED_TOP + 1);
    if (below(rng, 4) == 0) {
        g->stop = stops;
        g->n_stop = 2;
    }
    g->ignore_eos = below(rng, 2);
}

static void random_request(round_ *r, int i)
{
    static const char *const paths[6] = {NULL, "e4b", "e2b", "mix", "auto", "mix:widths=128"};
    pl_rng *rng = &r->rng;
    served *s = &r->of[i];
    size_t n = random_prompt(r, r->prompt[i]);
    served_init(s, &r->crowd, r->prompt[i], n, below(rng, 8) ? 1 + below(rng, 50) : below(rng, 2));
    random_sampling(rng, &s->request.generation);
    s->request.path = paths[below(rng, 6)];
    s->request.generation.grammar = below(rng, 5) ? NULL : r->grammar;
    s->request.priority = below(rng, 3) - 1;
    s->request.client = (uint64_t)below(rng, 4);
    s->request.first_token_s = below(rng, 3) ? 0 : 0.01 * below(rng, 30);
    s->request.token_s = below(rng, 6) ? 0 : 0.001 * below(rng, 30);
    s->heard.stop_after = below(rng, 8) ? 0 : 1 + below(rng, 8);
    r->cancel[i] = below(rng, 6) == 0;
}

static void open_round(round_ *r, uint64_t seed)
{
    static const int chunk[4] = {8, 20, 64, 512};
    static const double step_s[3] = {1e-6, 0.003, 10};
    pl_rng_seed(&r->rng, seed);
    pl_engine_params engine = {.backend = PL_BACKEND_CPU, .threads = 2, .no_pin = true, .context = CONTEXT};
    engine.sessions = 2 + below(&r->rng, 6);
    engine.batch_rows = chunk[below(&r->rng, 4)];
    engine.kv_tokens = below(&r->rng, 4) ? CONTEXT + 32 * below(&r->rng, 16) : 0;
    pl_scheduler_params params = {.step_s = step_s[below(&r->rng, 3)], .no_prefixes = below(&r->rng, 4) == 0};
    pl_error err = {0};
    r->fixture = fixture_open_with(DEMO_MODEL, &engine);
    pl_session_free(r->fixture.session);
    r->fixture.session = NULL;
    r->crowd = crowd_open();
    cr_assert_eq(pl_scheduler_create(r->fixture.engine, &params, &r->scheduler, &err), PL_OK, "%s", err.message);
}

static void submit_all(round_ *r)
{
    for (int i = 0; i < REQUESTS; i++) {
        random_request(r, i);
        if (i == 0) {
            served_be_first(&r->of[0]);
            r->cancel[0] = false;
        }
        served_submit(&r->of[i], r->scheduler);
        if (i == 0)
            served_wait_held(&r->of[0]);
        else if (i == REQUESTS / 2)
            served_go_on(&r->of[0], false);
        if (below(&r->rng, 3) == 0)
            usleep((useconds_t)below(&r->rng, 20000));
        int other = below(&r->rng, i + 1);
        if (r->cancel[other])
            pl_scheduler_cancel(r->scheduler, r->of[other].id);
    }
    crowd_wait(&r->crowd, REQUESTS);
}

static void check_stats(const round_ *r, const pl_scheduler_stats *stats)
{
    uint64_t prompt = 0, answer = 0, queued = 0, done = 0;
    for (int i = 0; i < REQUESTS; i++) {
        prompt += r->of[i].status == PL_OK ? r->of[i].request.n_prompt : 0;
        answer += r->of[i].outcome.answer.n_tokens;
        done += r->of[i].status == PL_OK;
    }
    for (int i = 0; i <= PL_HISTOGRAM_BUCKETS; i++)
        queued += stats->queued_s.count[i];
    cr_assert_eq(stats->submitted, REQUESTS);
    cr_assert_eq(stats->done, done);
    cr_assert_eq(stats->done + stats->cancelled, REQUESTS);
    cr_assert_eq(stats->failed + stats->refused, 0);
    cr_assert_eq(stats->waiting, 0);
    cr_assert_eq(stats->running, 0);
    cr_assert_eq(stats->kv_used, 0, "%lld tokens are held", (long long)stats->kv_used);
    cr_assert_eq(stats->answer_tokens, answer);
    cr_assert_geq(stats->prompt_tokens + stats->reused_tokens, prompt);
    cr_assert(queued >= done && queued <= REQUESTS);
}

static void check_answers(round_ *r, fixture *alone, uint64_t seed)
{
    for (int i = 0; i < REQUESTS; i++) {
        char what[64];
        heard expected;
        snprintf(what, sizeof what, "seed %d, request %d on %s", (int)seed, i, r->of[i].path);
        answer_alone(alone->session, &r->of[i], strcmp(r->of[i].path, "auto") ? r->of[i].path : "e4b", &expected);
        expect_same(&r->of[i], &expected, what);
        cr_assert(r->cancel[i] || r->of[i].heard.stop_after || r->of[i].status == PL_OK, "%s", what);
        served_free(&r->of[i]);
    }
}

static void play(uint64_t first, uint64_t last, pl_scheduler_stats *sum)
{
    static round_ r;
    pl_engine_params params = {
        .backend = PL_BACKEND_CPU, .threads = 2, .no_pin = true, .sessions = 1, .context = CONTEXT};
    static const char list[] = "([0-9]{1,3}, ){3,9}[A-Z][a-z]+";
    fixture alone = fixture_open_with(DEMO_MODEL, &params);
    cr_assert_eq(pl_grammar_compile(alone.model, PL_GRAMMAR_REGEX, list, sizeof list - 1, &r.grammar, NULL), PL_OK);
    for (uint64_t seed = first; seed <= last; seed++) {
        pl_scheduler_stats stats;
        open_round(&r, seed);
        submit_all(&r);
        pl_scheduler_count(r.scheduler, &stats);
        check_stats(&r, &stats);
        check_answers(&r, &alone, seed);
        sum->preemptions += stats.preemptions;
        sum->reused_tokens += stats.reused_tokens;
        sum->cancelled += stats.cancelled;
        pl_scheduler_free(r.scheduler);
        cr_assert_eq(pl_kv_count(r.fixture.engine->kv).used, 0, "seed %d: pages are lost", (int)seed);
        fixture_close(&r.fixture);
    }
    pl_grammar_free(r.grammar);
    fixture_close(&alone);
}

Test(scheduler_random, every_answer_is_the_one_alone)
{
    pl_scheduler_stats sum = {0};
    play(1, 2, &sum);
    cr_assert_gt(sum.preemptions, 0, "nobody was preempted");
    cr_assert_gt(sum.reused_tokens, 500, "little was reused");
    cr_assert_gt(sum.cancelled, 0, "nobody was cancelled");
}
