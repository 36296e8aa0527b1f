/* Requests that draft beside others that do not, in little room: each answer is the one without drafts, alone. */
#include "tests/engine/drafts.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum { REQUESTS = 16, CONTEXT = 384, LONGEST = 200, ROUNDS = 3 };

typedef struct round {
    pl_rng rng;
    bench bench;
    served of[REQUESTS];
    heard truth[REQUESTS];
    liar liar[REQUESTS];
    int32_t prompt[REQUESTS][LONGEST];
    bool cancel[REQUESTS];
    pl_grammar *grammar;
} round_;

static int below(pl_rng *rng, int n)
{
    return (int)(pl_rng_next(rng) % (uint64_t)n);
}

static size_t random_prompt(round_ *r, int32_t *ids)
{
    int shared = below(&r->rng, 3) * 40 + below(&r->rng, 30), own = 1 + below(&r->rng, 60);
    fill_ids(ids, shared, 1);
    for (int i = shared; i < shared + own; i++)
        ids[i] = i > 8 && below(&r->rng, 2) ? ids[i - 7] : 10 + below(&r->rng, 1900);
    return (size_t)(shared + own);
}

/* What the request is, its answer by itself, and only then its drafts. */
static void random_request(round_ *r, int i)
{
    static const char *const paths[4] = {NULL, "e4b", "e2b", "mix"};
    static const char *const draft_paths[3] = {NULL, "e2b", "mix"};
    pl_rng *rng = &r->rng;
    served *s = &r->of[i];
    pl_generation *g = &s->request.generation;
    size_t n = random_prompt(r, r->prompt[i]);
    served_init(s, &r->bench.crowd, r->prompt[i], n, below(rng, 8) ? 1 + below(rng, 50) : below(rng, 2));
    drafts_form(g, below(rng, DRAFTS_FORMS), r->grammar, pl_rng_next(rng));
    s->request.path = paths[below(rng, 4)];
    s->request.priority = below(rng, 3) - 1;
    s->request.client = (uint64_t)below(rng, 3);
    s->heard.stop_after = below(rng, 8) ? 0 : 1 + below(rng, 8);
    r->cancel[i] = below(rng, 8) == 0 && i > 0;
    if (i == 0)
        served_be_first(s);
    answer_alone(r->bench.alone.session, s, NULL, &r->truth[i]);
    r->liar[i] = liar_of(&r->truth[i], n, below(rng, 3), pl_rng_next(rng));
    g->draft = (pl_drafting){.most = below(rng, 4) ? 1 + below(rng, 15) : -below(rng, 2),
                             .path = draft_paths[below(rng, 3)]};
    if (below(rng, 3)) {
        g->draft.propose = liar_propose;
        g->draft.user = &r->liar[i];
    }
}

static void open_round(round_ *r, uint64_t seed)
{
    static const int chunk[3] = {8, 20, 512};
    static const char list[] = "([0-9]{1,3}, ){3,9}[A-Z][a-z]+";
    pl_rng_seed(&r->rng, seed);
    pl_engine_params engine = {.context = CONTEXT};
    engine.sessions = 2 + below(&r->rng, 6);
    engine.batch_rows = chunk[seed % 3];
    engine.kv_tokens = CONTEXT + 32 * below(&r->rng, 8);
    r->bench = bench_open(&engine, &(pl_scheduler_params){.no_prefixes = seed % 4 == 3});
    cr_assert_eq(pl_grammar_compile(r->bench.alone.model, PL_GRAMMAR_REGEX, list, sizeof list - 1, &r->grammar, NULL),
                 PL_OK);
    for (int i = 0; i < REQUESTS; i++)
        random_request(r, i);
}

static void submit_all(round_ *r)
{
    for (int i = 0; i < REQUESTS; i++) {
        served_submit(&r->of[i], r->bench.scheduler);
        if (i == 0)
            served_wait_held(&r->of[0]);
        else if (i == REQUESTS / 2)
            served_go_on(&r->of[0], false);
        if (below(&r->rng, 3) == 0)
            usleep((useconds_t)below(&r->rng, 10000));
        int other = below(&r->rng, i + 1);
        if (r->cancel[other])
            pl_scheduler_cancel(r->bench.scheduler, r->of[other].id);
    }
    crowd_wait(&r->bench.crowd, REQUESTS);
}

static void check(round_ *r, uint64_t seed, const pl_scheduler_stats *stats)
{
    pl_draft_counts sum = {{0}, {0}};
    for (int i = 0; i < REQUESTS; i++) {
        char what[64];
        snprintf(what, sizeof what, "seed %d, request %d on %s", (int)seed, i, r->of[i].path);
        expect_same(&r->of[i], &r->truth[i], what);
        for (int k = 0; k < PL_DRAFT_SOURCES; k++) {
            sum.drafted[k] += r->of[i].outcome.answer.drafts.drafted[k];
            sum.accepted[k] += r->of[i].outcome.answer.drafts.accepted[k];
        }
        served_free(&r->of[i]);
    }
    cr_assert_eq(memcmp(&sum, &stats->drafts, sizeof sum), 0, "seed %d: the scheduler counts other drafts", (int)seed);
}

Test(draft_scheduler, every_answer_is_the_one_alone_without_drafts)
{
    static round_ r;
    uint64_t accepted[PL_DRAFT_SOURCES] = {0}, preempted = 0, reused = 0;
    for (uint64_t seed = 0; seed < ROUNDS; seed++) {
        pl_scheduler_stats stats;
        open_round(&r, seed);
        submit_all(&r);
        pl_scheduler_count(r.bench.scheduler, &stats);
        check(&r, seed, &stats);
        preempted += stats.preemptions;
        reused += stats.reused_tokens;
        for (int k = 0; k < PL_DRAFT_SOURCES; k++)
            accepted[k] += stats.drafts.accepted[k];
        pl_grammar_free(r.grammar);
        bench_close(&r.bench);
    }
    cr_assert_gt(accepted[PL_DRAFT_GIVEN], 100);
    cr_assert_gt(accepted[PL_DRAFT_NGRAM], 0);
    cr_assert_gt(accepted[PL_DRAFT_PATH], 0);
    cr_assert_gt(preempted, 0, "nobody was preempted");
    cr_assert_gt(reused, 100, "little was reused");
}

/* What others kept behind drafts is what they said: the same prompt and answer again, taken over from the tree. */
Test(draft_scheduler, nothing_but_what_was_said_is_kept)
{
    bench b = bench_open(&(pl_engine_params){.context = CONTEXT, .sessions = 2}, NULL);
    int32_t ids[CONTEXT];
    heard truth, next;
    served first, second;
    enum { SAID = 120 };
    fill_ids(ids, 40, 9);
    served_init(&first, &b.crowd, ids, 40, SAID);
    answer_alone(b.alone.session, &first, NULL, &truth);
    liar l = liar_of(&truth, 40, 2, 1);
    first.request.generation.draft = (pl_drafting){.most = 12, .propose = liar_propose, .user = &l};
    served_submit(&first, b.scheduler);
    crowd_wait(&b.crowd, 1);
    expect_same(&first, &truth, "first");
    cr_assert_gt(first.outcome.answer.drafts.drafted[PL_DRAFT_GIVEN],
                 first.outcome.answer.drafts.accepted[PL_DRAFT_GIVEN], "no lie was told");
    memcpy(ids + 40, truth.ids, SAID * sizeof *ids);
    fill_ids(ids + 40 + SAID, 5, 3);
    served_init(&second, &b.crowd, ids, 40 + SAID + 5, 20);
    second.request.generation.n_logprobs = SERVED_TOP;
    answer_alone(b.alone.session, &second, NULL, &next);
    served_submit(&second, b.scheduler);
    crowd_wait(&b.crowd, 2);
    expect_same(&second, &next, "second");
    cr_assert_geq(second.outcome.answer.n_prompt_reused, 40 + SAID - 1);
    served_free(&first);
    served_free(&second);
    bench_close(&b);
}

static void nobody(void *user, const pl_outcome *outcome)
{
    (void)user;
    (void)outcome;
}

Test(draft_scheduler, what_cannot_be_is_refused)
{
    bench b = bench_open(&(pl_engine_params){.context = CONTEXT, .sessions = 2}, NULL);
    int32_t ids[8];
    pl_error err;
    served s;
    fill_ids(ids, 8, 0);
    served_init(&s, &b.crowd, ids, 8, 4);
    s.request.on_done = nobody;
    s.request.path = "e2b";
    s.request.generation.draft = (pl_drafting){.most = 4, .path = "e9b"};
    cr_assert_eq(pl_scheduler_submit(b.scheduler, &s.request, NULL, &err), PL_ERR_ARGUMENT);
    s.request.generation.draft = (pl_drafting){.most = -2};
    cr_assert_eq(pl_scheduler_submit(b.scheduler, &s.request, NULL, &err), PL_ERR_ARGUMENT);
    s.request.path = "e9b";
    s.request.generation.draft = (pl_drafting){.most = 4, .path = "e2b"};
    cr_assert_eq(pl_scheduler_submit(b.scheduler, &s.request, NULL, &err), PL_ERR_ARGUMENT);
    cr_assert_eq(b.scheduler->lanes->users, 1, "only the scheduler's own use of paths is left");
    bench_close(&b);
}
