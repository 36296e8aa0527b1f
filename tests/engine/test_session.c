/* Sessions: what is reused, forgotten, cancelled, refused; K/V windows; and that decoding allocates nothing. */
#include "tests/engine/goldens.h"

#include "host/base/cpu.h"
#include "host/cpu/matmul.h"
#include "host/engine/engine.h"
#include "host/engine/session.h"

#include <criterion/criterion.h>
#include <math.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

static void fill_ids(int32_t *ids, int n)
{
    for (int i = 0; i < n; i++)
        ids[i] = 2 + (i * 37 + i / 11) % 1000;
}

/* The last position's logits after reading ids. */
static float *last_logits(fixture *f, const int32_t *ids, int n)
{
    size_t vocab = (size_t)pl_model_vocab_size(f->model);
    pl_error err;
    float *all = malloc((size_t)n * vocab * sizeof *all);
    cr_assert_not_null(all);
    cr_assert_eq(pl_logits(f->session, ids, (size_t)n, false, all, &err), PL_OK, "%s", err.message);
    memmove(all, all + (size_t)(n - 1) * vocab, vocab * sizeof *all);
    return all;
}

/* 900 tokens: the window of 16 and its slack of 256 slide many pages. */
Test(session, long_sequences_in_any_chunks)
{
    enum { N = 900 };
    static const int chunks[] = {512, 1, 64, 100};
    int32_t ids[N];
    fill_ids(ids, N);
    float *first = NULL;
    for (size_t c = 0; c < sizeof chunks / sizeof *chunks; c++) {
        fixture f = fixture_open("e2b", 2, chunks[c]);
        float *logits = last_logits(&f, ids, N);
        if (!first)
            first = logits;
        else {
            cr_assert_eq(memcmp(first, logits, (size_t)pl_model_vocab_size(f.model) * sizeof *logits), 0,
                         "chunks of %d", chunks[c]);
            free(logits);
        }
        fixture_close(&f);
    }
    free(first);
}

static fixture open_narrow(pl_cache_type cache, int chunk)
{
    pl_engine_params params = {.backend = PL_BACKEND_CPU,
                               .cache = cache,
                               .threads = 2,
                               .sessions = 2,
                               .context = 1024,
                               .batch_rows = chunk,
                               .no_pin = true};
    return fixture_open_with(DEMO_MODEL, &params);
}

static double mean_distance(const float *a, const float *b, size_t n)
{
    double sum = 0;
    for (size_t i = 0; i < n; i++)
        sum += fabs((double)a[i] - b[i]);
    return sum / (double)n;
}

/* Of any type the logits do not depend on chunks; the narrower, the further from those of f32, but not far. */
Test(session, narrow_kv_in_any_chunks)
{
    enum { N = 300 };
    static const int chunks[] = {300, 1, 70};
    int32_t ids[N];
    float *logits[PL_CACHE_Q8_0 + 1] = {NULL};
    double off[PL_CACHE_Q8_0 + 1];
    size_t vocab = 0;
    fill_ids(ids, N);
    for (pl_cache_type type = PL_CACHE_F32; type <= PL_CACHE_Q8_0; type++) {
        for (size_t c = 0; c < sizeof chunks / sizeof *chunks; c++) {
            fixture f = open_narrow(type, chunks[c]);
            pl_engine_info info;
            pl_engine_describe(f.engine, &info);
            cr_assert_eq(info.cache, type);
            vocab = (size_t)pl_model_vocab_size(f.model);
            float *got = last_logits(&f, ids, N);
            if (logits[type]) {
                cr_assert_eq(memcmp(logits[type], got, vocab * sizeof *got), 0, "%s, chunks of %d",
                             pl_cache_type_name(type), chunks[c]);
                free(got);
            } else {
                logits[type] = got;
            }
            fixture_close(&f);
        }
        off[type] = mean_distance(logits[PL_CACHE_F32], logits[type], vocab);
    }
    cr_assert(off[PL_CACHE_F16] > 0 && off[PL_CACHE_F16] < off[PL_CACHE_Q8_0] / 2, "f16 %g, q8_0 %g", off[PL_CACHE_F16],
              off[PL_CACHE_Q8_0]);
    cr_assert_lt(off[PL_CACHE_Q8_0], 0.1);
    for (pl_cache_type type = PL_CACHE_F32; type <= PL_CACHE_Q8_0; type++)
        free(logits[type]);
}

/* Steps of 64 rows and more are rounded to eight bits, all others are as without it; where the processor has nothing
 * faster for the model's Q8_0, so are those. */
Test(session, fast_prompts_round_long_steps_alone)
{
    enum { N = 300 };
    int32_t ids[N];
    float *logits[3];
    size_t vocab = 0;
    const bool rounds = pl_matmul_select(pl_cpu_features(PL_CPU_ALL))->rounded_bits >= 8;
    fill_ids(ids, N);
    for (int i = 0; i < 3; i++) { /* as ever, in steps that are too short, in long ones */
        pl_engine_params params = {.backend = PL_BACKEND_CPU,
                                   .threads = 2,
                                   .sessions = 1,
                                   .context = 1024,
                                   .batch_rows = i == 1 ? 63 : N,
                                   .fast_prompts = i > 0,
                                   .no_pin = true};
        fixture f = fixture_open_with(DEMO_MODEL, &params);
        vocab = (size_t)pl_model_vocab_size(f.model);
        logits[i] = last_logits(&f, ids, N);
        fixture_close(&f);
    }
    cr_assert_arr_eq(logits[0], logits[1], vocab * sizeof(float));
    cr_assert_eq(memcmp(logits[0], logits[2], vocab * sizeof(float)) != 0, rounds);
    double size = 0;
    for (size_t i = 0; i < vocab; i++)
        size += fabs((double)logits[0][i]) / (double)vocab;
    cr_assert_lt(mean_distance(logits[0], logits[2], vocab), size / 64);
    for (int i = 0; i < 3; i++)
        free(logits[i]);
}

typedef struct collected {
    int32_t ids[64];
    int n, stop_after;
    char text[1024];
} collected;

static bool collect(void *user, const pl_token_event *event)
{
    collected *c = user;
    if (event->id >= 0 && c->n < 64)
        c->ids[c->n++] = event->id;
    strncat(c->text, event->text, event->n_bytes);
    return c->stop_after == 0 || c->n < c->stop_after;
}

static pl_generation greedy(collected *c, int max_tokens)
{
    pl_generation g = pl_generation_default();
    g.sampling.temperature = 0;
    g.max_tokens = max_tokens;
    g.ignore_eos = true;
    g.on_token = collect;
    g.user = c;
    return g;
}

Test(session, a_longer_prompt_reuses_the_shorter)
{
    int32_t ids[60];
    fill_ids(ids, 60);
    fixture f = fixture_open("e2b", 2, 0);
    collected a = {0}, b = {0};
    pl_generation g = greedy(&a, 10);
    pl_generated out;
    cr_assert_eq(pl_generate(f.session, ids, 50, &g, &out, NULL), PL_OK);
    cr_assert_eq(out.n_prompt_reused, 0);
    cr_assert_eq(out.n_tokens, 10);
    cr_assert_eq(pl_session_length(f.session), 60);
    memcpy(ids + 50, a.ids, 10 * sizeof *ids);
    g = greedy(&b, 5);
    cr_assert_eq(pl_generate(f.session, ids, 60, &g, &out, NULL), PL_OK);
    cr_assert_eq(out.n_prompt_reused, 59, "all but the last token, whose logits are needed");
    fixture_close(&f);

    fixture fresh = fixture_open("e2b", 2, 0);
    collected c = {0};
    g = greedy(&c, 5);
    cr_assert_eq(pl_generate(fresh.session, ids, 60, &g, &out, NULL), PL_OK);
    cr_assert_eq(memcmp(b.ids, c.ids, 5 * sizeof *b.ids), 0);
    fixture_close(&fresh);
}

/* Taking back more than the window's slack means reading again; the answer is the same. */
Test(session, truncation_beyond_the_window)
{
    enum { N = 700 };
    int32_t ids[N];
    fill_ids(ids, N);
    fixture f = fixture_open("e2b", 2, 0);
    float *want = last_logits(&f, ids, 100);
    free(last_logits(&f, ids, N));
    cr_assert_eq(pl_session_truncate(f.session, 100, NULL), PL_OK);
    cr_assert_eq(pl_session_length(f.session), 100);
    cr_assert_eq(pl_kv_length(f.engine->kv, f.session->sequence), 0, "the window behind 100 is gone");
    collected c = {0};
    pl_generation g = greedy(&c, 1);
    cr_assert_eq(pl_generate(f.session, ids, 100, &g, NULL, NULL), PL_OK);
    int best = 0;
    for (int i = 0; i < pl_model_vocab_size(f.model); i++)
        best = want[i] > want[best] ? i : best;
    cr_assert_eq(c.ids[0], best);
    free(want);
    fixture_close(&f);
}

Test(session, truncation_within_the_slack_keeps_the_rest)
{
    enum { N = 700 };
    int32_t ids[N];
    fill_ids(ids, N);
    fixture f = fixture_open("e2b", 2, 0);
    free(last_logits(&f, ids, N));
    cr_assert_eq(pl_session_truncate(f.session, N - 100, NULL), PL_OK);
    cr_assert_eq(pl_kv_length(f.engine->kv, f.session->sequence), N - 100);
    fixture_close(&f);
}

Test(session, a_callback_and_cancel_stop_the_answer)
{
    int32_t ids[8];
    fill_ids(ids, 8);
    fixture f = fixture_open("e2b", 1, 0);
    collected c = {.stop_after = 3};
    pl_generation g = greedy(&c, 20);
    pl_generated out = {0};
    cr_assert_eq(pl_generate(f.session, ids, 8, &g, &out, NULL), PL_ERR_CANCELLED);
    cr_assert_eq(out.finish, PL_FINISH_CANCEL);
    cr_assert_eq(out.n_tokens, 3);
    cr_assert_eq(pl_session_length(f.session), 11, "what was said stays");
    fixture_close(&f);
}

static bool cancel_self(void *user, const pl_token_event *event)
{
    (void)event;
    pl_session_cancel(user);
    return true;
}

Test(session, cancel_takes_effect_before_the_next_step)
{
    int32_t ids[8];
    fill_ids(ids, 8);
    fixture f = fixture_open("e2b", 1, 0);
    pl_generation g = pl_generation_default();
    g.on_token = cancel_self;
    g.user = f.session;
    g.ignore_eos = true;
    pl_generated out = {0};
    cr_assert_eq(pl_generate(f.session, ids, 8, &g, &out, NULL), PL_ERR_CANCELLED);
    cr_assert_eq(out.n_tokens, 1);
    fixture_close(&f);
}

static void refuse(fixture *f, const int32_t *ids, size_t n, pl_generation g, pl_status want, const char *says)
{
    pl_error err = {0};
    cr_assert_eq(pl_generate(f->session, ids, n, &g, NULL, &err), want);
    cr_assert(strstr(err.message, says), "message '%s' does not say '%s'", err.message, says);
}

Test(session, wrong_requests_are_named)
{
    static int32_t ids[3000];
    fill_ids(ids, 3000);
    fixture f = fixture_open("e2b", 1, 0);
    pl_generation g = pl_generation_default();
    refuse(&f, ids, 0, g, PL_ERR_ARGUMENT, "empty");
    refuse(&f, ids, 3000, g, PL_ERR_CONTEXT, "the prompt has 3000 tokens, the context holds 2048");
    int32_t bad[3] = {2, 5, 1088};
    refuse(&f, bad, 3, g, PL_ERR_ARGUMENT, "prompt token 2 is 1088, expected 0 to 1087");
    bad[2] = -1;
    refuse(&f, bad, 3, g, PL_ERR_ARGUMENT, "prompt token 2 is -1");
    g.sampling.top_p = NAN;
    refuse(&f, ids, 3, g, PL_ERR_ARGUMENT, "top_p");
    pl_error err;
    cr_assert_eq(pl_session_set_path(f.session, "e9b", PL_SWITCH_FAST, &err), PL_ERR_ARGUMENT);
    cr_assert(strstr(err.message, "e9b"));
    fixture_close(&f);
}

Test(session, the_context_ends_the_answer)
{
    static int32_t ids[2046];
    fill_ids(ids, 2046);
    fixture f = fixture_open("e2b", 2, 0);
    collected c = {0};
    pl_generation g = greedy(&c, -1);
    pl_generated out = {0};
    pl_error err;
    cr_assert_eq(pl_generate(f.session, ids, 2046, &g, &out, &err), PL_OK, "%s", err.message);
    cr_assert_eq(out.finish, PL_FINISH_LENGTH);
    cr_assert_eq(out.n_tokens, 3, "two more fit, and the last needs no place");
    fixture_close(&f);
}

/* ---- allocation ---- */

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

Test(session, decoding_allocates_nothing)
{
    int32_t ids[8];
    fill_ids(ids, 8);
    fixture f = fixture_open("e4b", 2, 0);
    count c = {0};
    pl_generation g = pl_generation_default();
    g.on_token = count_allocations;
    g.user = &c;
    g.max_tokens = 200;
    g.ignore_eos = true;
    g.n_logprobs = 5;
    g.sampling.repeat_penalty = 1.1f;
    g.sampling.penalty_last_n = 64;
    cr_assert_eq(pl_generate(f.session, ids, 8, &g, NULL, NULL), PL_OK);
    cr_assert_gt(c.tokens, 190);
    cr_assert_gt(c.at_first, 0, "the counter counts");
    cr_assert_eq(c.at_last, c.at_first);
    fixture_close(&f);
}

/* ---- several sessions ---- */

typedef struct talker {
    pl_engine *engine;
    int32_t ids[20];
    collected answer;
    pl_status status;
} talker;

static void *talk(void *ctx)
{
    talker *t = ctx;
    pl_session *session = NULL;
    t->status = pl_session_create(t->engine, &session, NULL);
    pl_generation g = greedy(&t->answer, 30);
    if (t->status == PL_OK)
        t->status = pl_generate(session, t->ids, 20, &g, NULL, NULL);
    pl_session_free(session);
    return NULL;
}

Test(session, threads_take_turns)
{
    fixture f = fixture_open("e2b", 2, 0);
    talker alone[3] = {0}, together[3] = {0};
    pthread_t threads[3];
    for (int i = 0; i < 3; i++) {
        alone[i].engine = together[i].engine = f.engine;
        for (int t = 0; t < 20; t++)
            alone[i].ids[t] = together[i].ids[t] = 100 + i * 31 + t * 7;
        talk(&alone[i]);
    }
    for (int i = 0; i < 3; i++)
        cr_assert_eq(pthread_create(&threads[i], NULL, talk, &together[i]), 0);
    for (int i = 0; i < 3; i++) {
        pthread_join(threads[i], NULL);
        cr_assert_eq(together[i].status, PL_OK);
        cr_assert_eq(memcmp(alone[i].answer.ids, together[i].answer.ids, sizeof alone[i].answer.ids), 0);
    }
    fixture_close(&f);
}

/* ---- the per-layer table ---- */

static float *logits_with(pl_ple_placement ple, int batch_rows, const int32_t *ids, size_t n)
{
    pl_engine_params params = {.threads = 2, .batch_rows = batch_rows, .ple = ple, .backend = PL_BACKEND_CPU};
    fixture f = fixture_open_with(DEMO_MODEL, &params);
    pl_engine_info info;
    pl_error err;
    float *logits = calloc(n * (size_t)pl_model_vocab_size(f.model), sizeof *logits);
    cr_assert_not_null(logits);
    cr_assert_eq(pl_logits(f.session, ids, n, false, logits, &err), PL_OK, "%s", err.message);
    pl_engine_describe(f.engine, &info);
    cr_assert_eq(info.ple, ple);
    cr_assert_eq(info.ple_rows, ple == PL_PLE_DISK ? n : 0);
    fixture_close(&f);
    return logits;
}

Test(session, a_table_on_disk_changes_no_bit)
{
    int32_t ids[50];
    for (int i = 0; i < 50; i++)
        ids[i] = 5 + i * 37 % 1999;
    float *mapped = logits_with(PL_PLE_AUTO, 0, ids, 50);
    for (int rows = 1; rows < 100; rows *= 7) {
        float *disk = logits_with(PL_PLE_DISK, rows, ids, 50);
        cr_assert_arr_eq(disk, mapped, 50 * 2048 * sizeof *disk, "%d rows a step", rows);
        free(disk);
    }
    free(mapped);
}
