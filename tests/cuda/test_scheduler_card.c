/* The scheduler where the ops draw: each answer is the one that pl_generate() gives alone on the same card, whoever else is
 * served, and wherever tokens are chosen. Steps have at most 16 rows, so that all go through the same kernels: a row's bits
 * depend on nothing but its sequence then. */
#include "tests/cuda/card.h"
#include "tests/engine/served.h"

#include <criterion/criterion.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

enum { CONTEXT = 192, ROWS = 16 };

static fixture open_card(int sessions, int64_t kv_tokens, int batch_rows, pl_ple_placement ple)
{
    const pl_engine_params params = {.backend = PL_BACKEND_CUDA,
                                     .ple = ple,
                                     .sessions = sessions,
                                     .kv_tokens = kv_tokens,
                                     .threads = 2,
                                     .context = CONTEXT,
                                     .batch_rows = batch_rows,
                                     .no_pin = true};
    return fixture_open_with(DEMO_MODEL, &params);
}

typedef struct service {
    fixture fixture;
    pl_scheduler *scheduler;
} service;

static service open_service(int sessions, int64_t kv_tokens, int batch_rows, pl_ple_placement ple)
{
    service s;
    const pl_scheduler_params params = {.step_s = 10};
    pl_error err = {0};
    s.fixture = open_card(sessions, kv_tokens, batch_rows, ple);
    pl_session_free(s.fixture.session);
    s.fixture.session = NULL;
    cr_assert_eq(pl_scheduler_create(s.fixture.engine, &params, &s.scheduler, &err), PL_OK, "%s", err.message);
    return s;
}

static void close_service(service *s)
{
    pl_scheduler_free(s->scheduler);
    cr_assert_eq(pl_kv_count(s->fixture.engine->kv).used, 0, "pages are lost");
    fixture_close(&s->fixture);
    cr_assert_eq(card_leftovers(), 0);
}

/* A request that is watched, and may do something, when its tokens come. */
typedef struct watched {
    served served;
    const service *server;
    int ahead;              /* tokens that came while the next step was queued */
    int cancel_at;          /* with which token it is cancelled; 0: never */
    struct watched *urgent; /* submitted with its second token */
} watched;

static bool watch_token(void *user, const pl_token_event *event);
static void watch_done(void *user, const pl_outcome *outcome);

static void submit(watched *w, const service *server)
{
    pl_request *r = &w->served.request;
    pl_error err = {0};
    w->server = server;
    r->generation.on_token = watch_token;
    r->on_done = watch_done;
    r->user = r->generation.user = w;
    cr_assert_eq(pl_scheduler_submit(server->scheduler, r, &w->served.id, &err), PL_OK, "%s", err.message);
}

/* On the scheduler's thread, as what it looks at. */
static bool watch_token(void *user, const pl_token_event *event)
{
    watched *w = user;
    heard *h = &w->served.heard;
    w->ahead += w->server->scheduler->n_ahead > 0;
    if (event->id >= 0 && h->n + 1 == w->cancel_at)
        pl_scheduler_cancel(w->server->scheduler, w->served.id);
    if (event->id >= 0 && h->n == 1 && w->urgent)
        submit(w->urgent, w->server);
    return hear_alone(h, event);
}

static void watch_done(void *user, const pl_outcome *outcome)
{
    watched *w = user;
    crowd *c = w->served.crowd;
    w->served.status = outcome->status;
    w->served.outcome = *outcome;
    pthread_mutex_lock(&c->lock);
    w->served.n_done++;
    c->done++;
    pthread_cond_broadcast(&c->change);
    pthread_mutex_unlock(&c->lock);
}

static void submit_at_once(const service *s, watched *of, int n)
{
    pl_engine_lock(s->fixture.engine);
    for (int i = 0; i < n; i++)
        submit(&of[i], s);
    pl_engine_unlock(s->fixture.engine);
}

/* What each is answered alone; cancelled or not. */
static void answer_each(const watched *of, int n, heard *alone)
{
    card_insert(CARD_EAGER, 0);
    fixture f = open_card(1, 0, ROWS, PL_PLE_VRAM);
    for (int i = 0; i < n; i++)
        answer_alone(f.session, &of[i].served, NULL, &alone[i]);
    fixture_close(&f);
}

static void expect_alone(const watched *of, int n, const heard *alone, const char *what)
{
    for (int i = 0; i < n; i++) {
        char which[64];
        snprintf(which, sizeof which, "%s, request %d", what, i);
        expect_same(&of[i].served, &alone[i], which);
        cr_assert_eq(of[i].served.status, of[i].cancel_at || of[i].served.heard.stop_after ? PL_ERR_CANCELLED : PL_OK,
                     "%s", which);
    }
}

/* ---- a mix ------------------------------------------------------------------------------------- */

enum { MIX = 9, URGENT = 8, LONGEST = 20 };

static const pl_logit_bias bias[2] = {{700, 3.0f}, {20, -INFINITY}};
static const char *const stops[2] = {"e", " a"};

/* The host chooses for 2, 4 and 6. */
static void vary(pl_generation *g, int i, pl_grammar *grammar)
{
    if (i > 0)
        g->sampling = pl_sampling_default();
    g->sampling.seed = (uint64_t)i;
    if (i == 1 || i == URGENT) {
        g->sampling.repeat_penalty = 1.3f;
        g->sampling.presence_penalty = 0.2f;
    } else if (i == 3) {
        g->sampling.bias = bias;
        g->sampling.n_bias = 2;
    } else if (i == 2) {
        g->n_logprobs = 2;
    } else if (i == 4) {
        g->grammar = grammar;
    } else if (i == 6) {
        g->sampling.dry_multiplier = 0.8f;
    }
}

static void make_mix(watched *of, crowd *c, pl_grammar *grammar)
{
    static const char *const paths[3] = {"e4b", "e2b", "mix"};
    static int32_t ids[MIX][LONGEST];
    for (int i = 0; i < MIX; i++) {
        int n = 4 + i * 2;
        fill_ids(ids[i], n, i % 3);
        of[i] = (watched){.urgent = i < 2 ? &of[URGENT - i] : NULL};
        served_init(&of[i].served, c, ids[i], (size_t)n, 4 + i % 3);
        of[i].served.request.path = paths[i % 3];
        of[i].served.request.priority = i > 6;
        vary(&of[i].served.request.generation, i, grammar);
    }
    of[3].served.heard.stop_after = 3;
}

/* Six pages of K/V: room for two, which two urgent ones take from them when they have had two tokens each; they go on in
 * sequences that others have drawn in. */
static void play(card_mode mode, pl_ple_placement ple, pl_grammar *grammar, const heard *alone)
{
    static watched of[MIX];
    crowd c = crowd_open();
    card_insert(mode, 1);
    service s = open_service(3, CONTEXT, ROWS, ple);
    make_mix(of, &c, grammar);
    submit_at_once(&s, of, 7);
    crowd_wait(&c, MIX);
    cr_assert_geq(of[1].served.outcome.preempted, 1, "nobody was preempted");
    expect_alone(of, MIX, alone, "a mix");
    close_service(&s);
}

Test(scheduler_card, every_answer_is_the_one_alone)
{
    static const char pattern[] = "([0-9]{1,3}, ){3,9}[A-Z][a-z]+";
    static watched of[MIX];
    static heard alone[MIX];
    pl_model *model;
    pl_grammar *grammar;
    cr_assert_eq(pl_model_open(PL_TEST_DATA "/" DEMO_MODEL, &model, NULL), PL_OK);
    cr_assert_eq(pl_grammar_compile(model, PL_GRAMMAR_REGEX, pattern, sizeof pattern - 1, &grammar, NULL), PL_OK);
    make_mix(of, NULL, grammar);
    answer_each(of, MIX, alone);
    play(CARD_STARVE, PL_PLE_HOST, grammar, alone);
    pl_grammar_free(grammar);
    pl_model_close(model);
}

/* ---- ahead ------------------------------------------------------------------------------------- */

enum { ENDS = 3, ENDS_PROMPT = 12 };

/* By length, by a stop string and by being cancelled, all of them while the next step is queued. */
static void make_ends(watched *of, crowd *c)
{
    static int32_t ids[ENDS][ENDS_PROMPT];
    for (int i = 0; i < ENDS; i++) {
        fill_ids(ids[i], ENDS_PROMPT, i);
        of[i] = (watched){.cancel_at = i == 2 ? 6 : 0};
        served_init(&of[i].served, c, ids[i], ENDS_PROMPT, 10);
    }
    pl_generation *g = &of[1].served.request.generation;
    g->sampling = pl_sampling_default();
    g->stop = stops;
    g->n_stop = 2;
}

Test(scheduler_card, the_next_step_is_queued_before_the_tokens_are_seen)
{
    static watched of[ENDS];
    static heard alone[ENDS];
    static const card_mode modes[2] = {CARD_THREADED, CARD_ASKED};
    make_ends(of, NULL);
    answer_each(of, ENDS, alone);
    cr_assert_lt(alone[1].n, 10, "nothing stops the second one");
    for (int i = 0; i < 2; i++) {
        crowd c = crowd_open();
        card_insert(modes[i], (uint64_t)i);
        service s = open_service(ENDS, 0, ROWS, i ? PL_PLE_PINNED : PL_PLE_DISK);
        make_ends(of, &c);
        submit_at_once(&s, of, ENDS);
        crowd_wait(&c, ENDS);
        expect_alone(of, ENDS, alone, "ahead");
        cr_assert_geq(of[0].ahead, 4, "%d tokens came ahead", of[0].ahead);
        cr_assert_eq(of[2].served.heard.n, 6);
        close_service(&s);
    }
}

/* ---- many -------------------------------------------------------------------------------------- */

enum { MANY = 18, FEW_TOKENS = 2 };

static void answer_many(watched *of, int n, bool on_host)
{
    static int32_t ids[MANY][2];
    crowd c = crowd_open();
    service s = open_service(n, 0, 48, PL_PLE_PINNED);
    for (int i = 0; i < n; i++) {
        fill_ids(ids[i], 2, i);
        of[i] = (watched){.ahead = 0};
        served_init(&of[i].served, &c, ids[i], 2, FEW_TOKENS);
        pl_generation *g = &of[i].served.request.generation;
        if (i % 2)
            g->sampling = pl_sampling_default();
        g->sampling.seed = (uint64_t)i;
        g->n_logprobs = on_host || i == 3 ? 0 : -1;
    }
    submit_at_once(&s, of, n);
    crowd_wait(&c, n);
    close_service(&s);
}

/* The same tokens whether all but one are drawn or all are chosen by the host, which takes a wish for log probabilities. */
static void expect_same_choices(int n)
{
    static watched of[2][MANY];
    for (int on_host = 0; on_host < 2; on_host++)
        answer_many(of[on_host], n, on_host);
    for (int i = 0; i < n; i++) {
        const heard *drawn = &of[0][i].served.heard, *chosen = &of[1][i].served.heard;
        cr_assert_eq(drawn->n, FEW_TOKENS);
        cr_assert_eq(memcmp(drawn->ids, chosen->ids, sizeof drawn->ids), 0, "request %d", i);
    }
}

Test(scheduler_card, the_host_chooses_beside_draws)
{
    card_insert(CARD_ANY, 1);
    expect_same_choices(5);
}

/* More rows than logits are held of at once. */
Test(scheduler_card, steps_of_many_draws)
{
    card_insert(CARD_ANY, 2);
    expect_same_choices(MANY);
}

/* The card goes while two steps are queued: all end, and say why. */
Test(scheduler_card, a_lost_card)
{
    static watched of[ENDS];
    crowd c = crowd_open();
    card_insert(CARD_ASKED, 3);
    service s = open_service(ENDS, 0, ROWS, PL_PLE_DISK);
    make_ends(of, &c);
    card_lose(700);
    submit_at_once(&s, of, ENDS);
    crowd_wait(&c, ENDS);
    for (int i = 0; i < ENDS; i++)
        cr_assert_eq(of[i].served.status, PL_ERR_DEVICE, "request %d", i);
    close_service(&s);
}
