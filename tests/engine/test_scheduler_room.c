/* What the scheduler does with room: who gives way, what is kept, what is summed up, where paths change. */
#include "tests/engine/served.h"

#include "host/engine/session.h"
#include "tests/unit/scratch.h"

#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

static double stopped_at; /* what the clock always says; 0: it goes */

double __real_pl_clock_seconds(void);
double __wrap_pl_clock_seconds(void);
double __wrap_pl_clock_seconds(void)
{
    return stopped_at > 0 ? stopped_at : __real_pl_clock_seconds();
}

/* ---- room -------------------------------------------------------------------------------------- */

Test(scheduler_room, two_that_do_not_fit_together_are_done_one_after_the_other)
{
    enum { PROMPT = 300, ANSWER = 120 };
    const pl_engine_params engine = {.sessions = 2, .context = 512, .kv_tokens = 512};
    bench b = bench_open(&engine, NULL);
    static served of[2];
    int32_t ids[2][PROMPT];
    pl_scheduler_stats stats;
    for (int i = 0; i < 2; i++) {
        fill_ids(ids[i], PROMPT, i);
        served_init(&of[i], &b.crowd, ids[i], i ? 60 : PROMPT, ANSWER + 80 * i);
        of[i].hold_from = i == 0; /* until the other is there */
        served_submit(&of[i], b.scheduler);
    }
    served_wait_held(&of[0]);
    served_go_on(&of[0], false);
    crowd_wait(&b.crowd, 2);
    pl_scheduler_count(b.scheduler, &stats);
    cr_assert_gt(stats.preemptions, 0, "they fitted");
    cr_assert_eq(stats.preemptions, (uint64_t)of[0].outcome.preempted + (uint64_t)of[1].outcome.preempted);
    cr_assert_eq(of[0].outcome.preempted, 0, "who came first never gives way");
    for (int i = 0; i < 2; i++) {
        heard alone;
        answer_alone(b.alone.session, &of[i], NULL, &alone);
        expect_same(&of[i], &alone, i ? "the second" : "the first");
    }
    bench_close(&b);
}

/* Its answer under way is put off, and is the same in the end. */
Test(scheduler_room, the_urgent_takes_the_place_of_another)
{
    const pl_engine_params engine = {.sessions = 1};
    bench b = bench_open(&engine, NULL);
    static served of[2];
    int32_t ids[50];
    fill_ids(ids, 50, 0);
    for (int i = 0; i < 2; i++) {
        served_init(&of[i], &b.crowd, ids, 50, i ? 5 : 200);
        of[i].request.priority = i;
        of[i].hold_from = i == 0 ? 10 : 0;
        served_submit(&of[i], b.scheduler);
        if (i == 0)
            served_wait_held(&of[0]);
    }
    served_go_on(&of[0], false);
    crowd_wait(&b.crowd, 2);
    cr_assert_eq(of[1].order, 0);
    cr_assert_eq(of[0].outcome.preempted, 1);
    for (int i = 0; i < 2; i++) {
        heard alone;
        answer_alone(b.alone.session, &of[i], NULL, &alone);
        expect_same(&of[i], &alone, i ? "the urgent" : "the other");
    }
    bench_close(&b);
}

Test(scheduler_room, what_does_not_fit_beside_a_session_says_so)
{
    const pl_engine_params engine = {.sessions = 2, .context = 512, .kv_tokens = 512};
    bench b = bench_open(&engine, NULL);
    pl_session *session;
    int32_t ids[400];
    fill_ids(ids, 400, 0);
    pl_generation params = pl_generation_default();
    params.max_tokens = 0;
    cr_assert_eq(pl_session_create(b.served.engine, &session, NULL), PL_OK);
    cr_assert_eq(pl_generate(session, ids, 400, &params, NULL, NULL), PL_OK);
    served s;
    served_init(&s, &b.crowd, ids, 200, 10);
    served_submit(&s, b.scheduler);
    crowd_wait(&b.crowd, 1);
    cr_assert_eq(s.status, PL_ERR_CONTEXT);
    cr_assert(strstr(s.message, "512 tokens, some held by sessions"), "%s", s.message);
    pl_session_free(session);
    bench_close(&b);
}

Test(scheduler_room, waits_while_sessions_hold_all_sequences)
{
    const pl_engine_params engine = {.sessions = 1};
    bench b = bench_open(&engine, NULL);
    pl_session *session;
    int32_t ids[5] = {2, 5, 6, 7, 8};
    cr_assert_eq(pl_session_create(b.served.engine, &session, NULL), PL_OK);
    served s;
    served_init(&s, &b.crowd, ids, 5, 2);
    served_submit(&s, b.scheduler);
    pl_scheduler_stats stats;
    pl_scheduler_count(b.scheduler, &stats);
    cr_assert_eq(stats.waiting, 1);
    pl_session_free(session);
    crowd_wait(&b.crowd, 1);
    cr_assert_eq(s.status, PL_OK);
    bench_close(&b);
}

/* ---- states ------------------------------------------------------------------------------------ */

typedef struct states {
    double *sum;
    int64_t width, rows;
} states;

static void add_states(void *user, const pl_trace_tensor *tensor)
{
    states *s = user;
    if (strcmp(tensor->name, "final.hidden") != 0)
        return;
    cr_assert_eq(tensor->width, s->width);
    for (int64_t r = 0; r < tensor->rows; r++)
        for (int64_t i = 0; i < s->width; i++)
            s->sum[i] += (double)tensor->v[r * s->width + i];
    s->rows += tensor->rows;
}

static void expect_mean(bench *b, const served *s)
{
    states want = {.width = pl_model_hidden_size(b->alone.model)};
    size_t n = s->request.n_prompt, vocab = (size_t)pl_model_vocab_size(b->alone.model);
    want.sum = calloc((size_t)want.width, sizeof *want.sum);
    float *logits = malloc(n * vocab * sizeof *logits);
    cr_assert(want.sum && logits);
    pl_error err;
    cr_assert_eq(pl_session_set_path(b->alone.session, s->path, PL_SWITCH_EXACT, &err), PL_OK);
    pl_session_trace(b->alone.session, add_states, &want);
    cr_assert_eq(pl_logits(b->alone.session, s->request.prompt, n, false, logits, &err), PL_OK, "%s", err.message);
    pl_session_trace(b->alone.session, NULL, NULL);
    cr_assert_eq(want.rows, (int64_t)n);
    cr_assert_eq(s->status, PL_OK, "%s", s->message);
    cr_assert_eq((int64_t)s->outcome.n_state, want.width);
    for (int64_t i = 0; i < want.width; i++)
        cr_assert_eq(s->state[i], (float)(want.sum[i] / (double)n), "value %d", (int)i);
    free(want.sum);
    free(logits);
}

/* Beside answers, in chunks, and after the same prompt has been kept. */
Test(scheduler_room, the_mean_of_final_states)
{
    enum { N = 8 };
    const pl_engine_params engine = {.sessions = 4, .context = 512, .kv_tokens = 512, .batch_rows = 40};
    bench b = bench_open(&engine, NULL);
    static served of[N];
    int32_t ids[N][200];
    for (int i = 0; i < N; i++) {
        fill_ids(ids[i], 200, 0);
        served_init(&of[i], &b.crowd, ids[i], (size_t)(i == 2 ? 1 : 60 + 20 * i), 100);
        of[i].request.embed = i % 2 == 0;
        of[i].request.path = i % 3 ? "e4b" : "e2b";
        served_submit(&of[i], b.scheduler);
    }
    crowd_wait(&b.crowd, N);
    for (int i = 0; i < N; i += 2) {
        cr_assert_eq(of[i].heard.n, 0);
        cr_assert_eq(of[i].outcome.answer.n_prompt_reused, 0);
        expect_mean(&b, &of[i]);
        served_free(&of[i]);
    }
    bench_close(&b);
}

/* The scheduler stands still in one of its steps, with the engine's lock held. */
static struct {
    pl_status (*wait_for)(pl_stream *s, uint64_t mark, pl_error *err);
    int steps; /* until then */
    sem_t held, go;
} halt;

static pl_status wait_and_halt(pl_stream *s, uint64_t mark, pl_error *err)
{
    if (--halt.steps == 0) {
        sem_post(&halt.held);
        sem_wait(&halt.go);
    }
    return halt.wait_for(s, mark, err);
}

static void halt_after(bench *b, int steps)
{
    pl_backend *backend = b->served.engine->backend;
    sem_init(&halt.held, 0, 0);
    sem_init(&halt.go, 0, 0);
    halt.steps = steps;
    halt.wait_for = backend->wait_for;
    backend->wait_for = wait_and_halt;
}

Test(scheduler_room, the_mean_of_one_that_gave_way)
{
    const pl_engine_params engine = {.sessions = 2, .context = 512, .kv_tokens = 512, .batch_rows = 8};
    bench b = bench_open(&engine, NULL);
    static served of[2];
    int32_t ids[500];
    fill_ids(ids, 500, 0);
    halt_after(&b, 45);
    for (int i = 0; i < 2; i++) {
        served_init(&of[i], &b.crowd, ids, i ? 200 : 500, 10);
        of[i].request.embed = i == 0;
        of[i].request.priority = i;
        served_submit(&of[i], b.scheduler);
        if (i == 0)
            sem_wait(&halt.held);
    }
    pl_scheduler_stats stats;
    pl_scheduler_count(b.scheduler, &stats);
    cr_assert_eq(stats.prompt_tokens, 44 * 8);
    sem_post(&halt.go);
    crowd_wait(&b.crowd, 2);
    cr_assert_gt(of[0].outcome.preempted, 0);
    cr_assert_eq(of[1].order, 0);
    expect_mean(&b, &of[0]);
    served_free(&of[0]);
    bench_close(&b);
}

/* ---- paths ------------------------------------------------------------------------------------- */

/* The answer when its path changes from `from` to `to` before the k-th token is read. */
static void answer_with_move(bench *b, const served *s, int k, const char *from, const char *to, heard *out)
{
    pl_session *session = b->alone.session;
    int32_t ids[512];
    served first = *s, rest = *s;
    heard begun;
    size_t n = s->request.n_prompt;
    first.request.generation.max_tokens = k;
    answer_alone(session, &first, from, &begun);
    memcpy(ids, s->request.prompt, n * sizeof *ids);
    memcpy(ids + n, begun.ids, (size_t)k * sizeof *ids);
    rest.request.prompt = ids;
    rest.request.n_prompt = n + (size_t)k;
    rest.request.generation.max_tokens -= k;
    pl_generation g = rest.request.generation;
    pl_error err;
    pl_switch how = s->request.moves == PL_MOVES_FAST ? PL_SWITCH_FAST : PL_SWITCH_EXACT;
    memset(out, 0, sizeof *out);
    g.on_token = hear_alone;
    g.user = out;
    cr_assert_eq(pl_session_set_path(session, to, how, &err), PL_OK);
    cr_assert_eq(pl_generate(session, ids, n + (size_t)k, &g, NULL, &err), PL_OK, "%s", err.message);
    memmove(out->ids + k, out->ids, (size_t)out->n * sizeof *out->ids);
    memcpy(out->ids, begun.ids, (size_t)k * sizeof *out->ids);
    memmove(out->logprob + k, out->logprob, (size_t)out->n * sizeof *out->logprob);
    memcpy(out->logprob, begun.logprob, (size_t)k * sizeof *out->logprob);
    out->n += k;
}

/* Answers the same prompt again and expects the same; returns how much of it was not read. */
static size_t ask_again(bench *b, const int32_t *ids, int n, const char *path)
{
    static served s;
    heard alone;
    b->crowd.done = 0;
    served_init(&s, &b->crowd, ids, (size_t)n, 20);
    s.request.path = path;
    s.request.generation.n_logprobs = 0;
    served_submit(&s, b->scheduler);
    crowd_wait(&b->crowd, 1);
    answer_alone(b->alone.session, &s, NULL, &alone);
    expect_same(&s, &alone, path);
    return s.outcome.answer.n_prompt_reused;
}

enum { URGENT = 3 };

/* As many urgent requests as there are sequences. */
static void put_off(bench *b, served *urgent)
{
    static int32_t ids[4] = {2, 700, 800, 900};
    pl_engine_lock(b->served.engine);
    for (int i = 0; i < URGENT; i++) {
        served_init(&urgent[i], &b->crowd, ids, 4, 5);
        urgent[i].request.priority = 1;
        served_submit(&urgent[i], b->scheduler);
    }
    pl_engine_unlock(b->served.engine);
}

/* What steps cost, told so often that this machine's own count for nothing. */
static void pretend(bench *b, double row_s)
{
    pl_engine_lock(b->served.engine);
    b->scheduler->cost = (pl_step_cost){.sum = {2e9, 101e9, 10001e9, 101e9 * row_s, 10001e9 * row_s}, .row_s = row_s};
    pl_engine_unlock(b->served.engine);
}

/* A prompt of one token is all read but for its last as soon as it has a place: it has no path yet then. */
Test(scheduler_room, auto_chooses_for_a_single_token)
{
    const pl_engine_params engine = {.sessions = 2};
    bench b = bench_open(&engine, NULL);
    static served s[4];
    const int32_t id = 2;
    for (int i = 0; i < 4; i++) {
        served_init(&s[i], &b.crowd, &id, 1, 3);
        s[i].request.path = "auto";
        served_submit(&s[i], b.scheduler);
    }
    crowd_wait(&b.crowd, 4);
    for (int i = 0; i < 4; i++) {
        cr_assert_eq(s[i].status, PL_OK);
        cr_assert_str_neq(s[i].path, "");
        served_free(&s[i]);
    }
    bench_close(&b);
}

/* Steps become so slow that an answer under way moves, from e4b to e2b, which writes other K/V. Then it is put off, and read
 * again as it was read before. Time stands still, so that nothing but what is pretended counts as load. */
static void expect_move(pl_moves moves)
{
    enum { PROMPT = 8, ANSWER = 150 };
    const pl_engine_params engine = {.sessions = URGENT};
    stopped_at = __real_pl_clock_seconds();
    bench b = bench_open(&engine, NULL);
    static served s, urgent[URGENT];
    int32_t ids[PROMPT + ANSWER];
    pl_scheduler_stats stats = {0};
    bool found = false;
    fill_ids(ids, PROMPT, 0);
    served_init(&s, &b.crowd, ids, PROMPT, ANSWER);
    s.request.path = "auto";
    s.request.moves = moves;
    s.request.generation.n_logprobs = 0;
    s.hold_from = 5;
    pretend(&b, 1e-5);
    served_submit(&s, b.scheduler);
    served_wait_held(&s);
    pretend(&b, 0.15);
    while (stats.moves == 0 && s.heard.n < ANSWER) {
        served_go_on(&s, true);
        served_wait_held(&s);
        pl_scheduler_count(b.scheduler, &stats);
    }
    put_off(&b, urgent);
    served_go_on(&s, false);
    crowd_wait(&b.crowd, 1 + URGENT);
    cr_assert_eq(s.outcome.moved, 1, "it stayed on %s: %s", s.path, s.reason);
    cr_assert_eq(s.outcome.preempted, 1);
    cr_assert_str_eq(s.path, "e2b");
    cr_assert_str_eq(s.reason, "load");
    for (int k = 1; k < ANSWER && !found; k++) {
        heard alone;
        answer_with_move(&b, &s, k, "e4b", "e2b", &alone);
        found = alone.n == ANSWER && memcmp(alone.ids, s.heard.ids, ANSWER * sizeof *alone.ids) == 0 &&
                memcmp(alone.logprob, s.heard.logprob, ANSWER * sizeof *alone.logprob) == 0;
    }
    cr_assert(found);
    memcpy(ids + PROMPT, s.heard.ids, ANSWER * sizeof *ids);
    ask_again(&b, ids, PROMPT + ANSWER, "e4b");
    ask_again(&b, ids, PROMPT + ANSWER, "e2b");
    bench_close(&b);
}

Test(scheduler_room, a_fast_move_keeps_what_was_read)
{
    expect_move(PL_MOVES_FAST);
}

Test(scheduler_room, an_exact_move_reads_again)
{
    expect_move(PL_MOVES_EXACT);
}

/* ---- kept beginnings --------------------------------------------------------------------------- */

Test(scheduler_room, beginnings_are_kept_for_their_path)
{
    const pl_engine_params engine = {.sessions = 2};
    bench b = bench_open(&engine, NULL);
    pl_scheduler_stats stats;
    int32_t ids[300];
    fill_ids(ids, 300, 0);
    cr_assert_eq(ask_again(&b, ids, 200, "e4b"), 0);
    cr_assert_eq(ask_again(&b, ids, 200, "e4b"), 199, "all but the last token, whose logits are needed");
    cr_assert_eq(ask_again(&b, ids, 150, "e4b"), 149);
    cr_assert_eq(ask_again(&b, ids, 200, "mix"), 199, "it writes the same K/V");
    cr_assert_eq(ask_again(&b, ids, 200, "e2b"), 0, "it writes others");
    cr_assert_eq(ask_again(&b, ids, 300, "e2b"), 200);
    pl_scheduler_count(b.scheduler, &stats);
    cr_assert_eq(stats.reused_tokens, 199 + 149 + 199 + 200);
    cr_assert_eq(stats.prompt_tokens + stats.reused_tokens, 200 + 200 + 150 + 200 + 200 + 300);
    cr_assert_gt(stats.kv_kept, 300);
    cr_assert_eq(stats.kv_used, 0);
    bench_close(&b);
}

/* Somebody else's beginning is there before they are done. */
Test(scheduler_room, what_is_being_read_is_shared_already)
{
    const pl_engine_params engine = {.sessions = 2};
    bench b = bench_open(&engine, NULL);
    static served of[2];
    int32_t ids[200];
    fill_ids(ids, 200, 0);
    for (int i = 0; i < 2; i++) {
        served_init(&of[i], &b.crowd, ids, 200, 200 - 150 * i);
        served_submit(&of[i], b.scheduler);
        pl_scheduler_stats stats = {0};
        while (i == 0 && stats.answer_tokens == 0)
            pl_scheduler_count(b.scheduler, &stats);
    }
    crowd_wait(&b.crowd, 2);
    cr_assert_geq(of[1].outcome.answer.n_prompt_reused, 160);
    for (int i = 0; i < 2; i++) {
        heard alone;
        answer_alone(b.alone.session, &of[i], NULL, &alone);
        expect_same(&of[i], &alone, "one of two");
    }
    bench_close(&b);
}

Test(scheduler_room, kept_beginnings_outlive_the_scheduler_in_a_file)
{
    const pl_engine_params engine = {.sessions = 2};
    scratch files;
    scratch_open(&files);
    const char *path = scratch_path(&files, "prefixes");
    const pl_scheduler_params params = {.prefix_file = path};
    int32_t ids[200];
    fill_ids(ids, 200, 0);
    for (int round = 0; round < 3; round++) {
        bench b = bench_open(&engine, &params);
        cr_assert_eq(ask_again(&b, ids, 200, "e4b"), round == 1 ? 199 : 0, "round %d", round);
        bench_close(&b);
        size_t n;
        char *bytes = read_file(path, &n);
        bytes[n / 2] ^= 1;
        if (round == 1)
            scratch_write(&files, "prefixes", bytes, n);
        free(bytes);
    }
    scratch_close(&files);
}

/* ---- beside it --------------------------------------------------------------------------------- */

Test(scheduler_room, sessions_go_on_beside_it)
{
    enum { N = 8 };
    const pl_engine_params engine = {.sessions = 3, .context = 512, .kv_tokens = 1024};
    bench b = bench_open(&engine, NULL);
    static served of[N], own;
    static heard beside, alone;
    int32_t ids[N + 1][100];
    pl_session *session;
    cr_assert_eq(pl_session_create(b.served.engine, &session, NULL), PL_OK);
    for (int i = 0; i < N; i++) {
        fill_ids(ids[i], 100, i % 3);
        served_init(&of[i], &b.crowd, ids[i], 100, 60);
        served_submit(&of[i], b.scheduler);
    }
    fill_ids(ids[N], 100, 7);
    served_init(&own, &b.crowd, ids[N], 100, 60);
    answer_alone(session, &own, NULL, &beside);
    crowd_wait(&b.crowd, N);
    answer_alone(b.alone.session, &own, NULL, &alone);
    cr_assert_eq(memcmp(alone.ids, beside.ids, sizeof alone.ids), 0);
    for (int i = 0; i < N; i++) {
        answer_alone(b.alone.session, &of[i], NULL, &alone);
        expect_same(&of[i], &alone, "beside a session");
    }
    pl_session_free(session);
    bench_close(&b);
}

/* ---- allocation -------------------------------------------------------------------------------- */

void *__real_malloc(size_t bytes);
void *__wrap_malloc(size_t bytes);
void *__real_calloc(size_t n, size_t size);
void *__wrap_calloc(size_t n, size_t size);
void *__real_realloc(void *p, size_t bytes);
void *__wrap_realloc(void *p, size_t bytes);

static _Atomic long allocations;

void *__wrap_malloc(size_t bytes)
{
    allocations++;
    return __real_malloc(bytes);
}

void *__wrap_calloc(size_t n, size_t size)
{
    allocations++;
    return __real_calloc(n, size);
}

void *__wrap_realloc(void *p, size_t bytes)
{
    allocations++;
    return __real_realloc(p, bytes);
}

typedef struct count {
    long at_first, at_last;
    int tokens;
} count;

static bool count_allocations(void *user, const pl_token_event *event)
{
    (void)event;
    count *c = user;
    c->at_last = allocations;
    if (c->tokens++ == 0)
        c->at_first = c->at_last;
    return true;
}

static void count_done(void *user, const pl_outcome *outcome)
{
    (void)outcome;
    crowd *c = user;
    pthread_mutex_lock(&c->lock);
    c->done++;
    pthread_cond_signal(&c->change);
    pthread_mutex_unlock(&c->lock);
}

Test(scheduler_room, answers_allocate_nothing_once_begun)
{
    enum { N = 20 };
    const pl_engine_params engine = {.sessions = N};
    const pl_scheduler_params params = {.no_prefixes = true};
    bench b = bench_open(&engine, &params);
    count counts[N] = {{0, 0, 0}};
    int32_t ids[8];
    fill_ids(ids, 8, 0);
    pl_engine_lock(b.served.engine); /* until all are there */
    for (int i = 0; i < N; i++) {
        pl_request r = pl_request_default();
        r.prompt = ids;
        r.n_prompt = 8;
        r.generation.max_tokens = 100;
        r.generation.ignore_eos = true;
        r.generation.n_logprobs = 5;
        r.generation.sampling.seed = (uint64_t)i;
        r.generation.sampling.repeat_penalty = 1.1f;
        r.generation.on_token = count_allocations;
        r.generation.user = &counts[i];
        r.on_done = count_done;
        r.user = &b.crowd;
        cr_assert_eq(pl_scheduler_submit(b.scheduler, &r, NULL, NULL), PL_OK);
    }
    pl_engine_unlock(b.served.engine);
    crowd_wait(&b.crowd, N);
    for (int i = 0; i < N; i++) {
        cr_assert_eq(counts[i].tokens, 100);
        cr_assert_gt(counts[i].at_first, 0, "the counter counts");
        cr_assert_eq(counts[i].at_last, counts[i].at_first, "request %d", i);
    }
    bench_close(&b);
}
