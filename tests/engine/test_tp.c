/* Ranks that share a model (`--tp`), on the CPU: what one rank answers, whatever is asked, or an error that ends it. */
#include "tests/engine/goldens.h"
#include "tests/engine/served.h"
#include "tests/engine/tiny_media.h"

#include "host/engine/trace.h"

#include <criterion/criterion.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static pl_engine_params params_of(int ranks, int batch_rows)
{
    return (pl_engine_params){.backend = PL_BACKEND_CPU,
                              .tp = ranks,
                              .threads = 2,
                              .sessions = 4,
                              .context = 256,
                              .batch_rows = batch_rows,
                              .no_pin = true};
}

static fixture open_ranks(const char *name, int ranks, int batch_rows)
{
    pl_engine_params params = params_of(ranks, batch_rows);
    return fixture_open_with(name, &params);
}

/* ---- recorded runs ---- */

static void check_variant(fixture *f, const golden_variant *v, int prompts)
{
    fixture_path(f, v->path);
    for (int p = 0; p < prompts; p++) {
        char name[64];
        snprintf(name, sizeof name, "%s.p%d", v->name, p);
        golden g = golden_open(name);
        int64_t n;
        const int32_t *ids = golden_i32(&g, "input_ids", &n);
        float *logits = fixture_logits(f, ids, n, false);
        golden_check_logits(&g, logits, 0, pl_model_vocab_size(f->model), name);
        free(logits);
        if (p == 0 && prompts > 1)
            golden_check_greedy(f, &g, ids, n);
        golden_close(&g);
    }
}

static void check_checkpoint(const char *checkpoint, int ranks, int batch_rows, int prompts)
{
    fixture f = open_ranks(checkpoint, ranks, batch_rows);
    for (size_t i = 0; i < GOLDEN_VARIANTS; i++)
        if (strcmp(golden_variants[i].checkpoint, checkpoint) == 0)
            check_variant(&f, &golden_variants[i], prompts);
    fixture_close(&f);
}

Test(tp, recorded_runs_on_every_path)
{
    check_checkpoint("e4b", 2, 16, 3);
    check_checkpoint("e4b", 4, 17, 3);
    check_checkpoint("e4b", 8, 64, 1);
    check_checkpoint("e2b", 4, 5, 1);
}

/* ---- answers ---- */

#define MAX_ANSWER 24

typedef struct answer {
    int32_t ids[MAX_ANSWER];
    int n;
} answer;

static bool collect(void *user, const pl_token_event *event)
{
    answer *a = user;
    if (event->id >= 0)
        a->ids[a->n++] = event->id;
    return true;
}

static answer ask(fixture *f, const char *path, const char *question)
{
    answer a = {.n = 0};
    pl_error err;
    pl_tokens prompt;
    pl_message turn = {"user", question};
    pl_generation params = pl_generation_default();
    params.sampling.temperature = 0;
    params.max_tokens = MAX_ANSWER;
    params.on_token = collect;
    params.user = &a;
    cr_assert_eq(pl_session_set_path(f->session, path, PL_SWITCH_EXACT, &err), PL_OK, "%s", err.message);
    cr_assert_eq(pl_tokenize_chat(f->model, &turn, 1, true, &prompt, &err), PL_OK, "%s", err.message);
    cr_assert_eq(pl_generate(f->session, prompt.ids, prompt.n, &params, NULL, &err), PL_OK, "%s", err.message);
    pl_tokens_free(&prompt);
    return a;
}

/* All questions on all paths would be 240 of them; the suite asks some. */
static void check_answers(int ranks, size_t first, size_t step)
{
    static const char *const paths[] = {"e4b", "mix", "e2b", "mix:widths=128"};
    json_t *cases = json_load_file(PL_TEST_DATA "/../tools/demo_model/expected.json", 0, NULL);
    cr_assert_not_null(cases);
    pl_engine_params params = params_of(ranks, 0);
    params.ple = PL_PLE_DISK; /* rows that the first rank reads for all */
    fixture one = open_ranks(DEMO_MODEL, 1, 0), many = fixture_open_with(DEMO_MODEL, &params);
    for (size_t i = first; i < 4 * json_array_size(cases); i += step) {
        const json_t *turns = json_object_get(json_array_get(cases, i / 4), "messages");
        const char *question = json_string_value(json_object_get(json_array_get(turns, 0), "content"));
        answer want = ask(&one, paths[i % 4], question), got = ask(&many, paths[i % 4], question);
        cr_assert(want.n == got.n && memcmp(want.ids, got.ids, (size_t)want.n * sizeof *want.ids) == 0,
                  "%d ranks, path %s: '%s'", ranks, paths[i % 4], question);
    }
    fixture_close(&one);
    fixture_close(&many);
    json_decref(cases);
}

Test(tp, answers_of_one_rank)
{
    check_answers(2, 0, 17);
}

/* Rows of images and sound come to all ranks. */
Test(tp, prompts_with_media)
{
    pl_engine_params params = params_of(2, 0);
    tiny t = tiny_open_with(&params);
    tiny_prompt p = tiny_prompt_of(&t, "image_audio", TINY_ROWS);
    int64_t n;
    const float *expected = tiny_golden(&t, "image_audio", "logits", &n);
    float *logits = fixture_logits(&t.f, p.ids, (int64_t)p.n, false);
    cr_assert_lt(relative_l2(logits, expected, n), 1e-4);
    free(logits);
    tiny_prompt_free(&p);
    tiny_close(&t);
}

/* ---- rows ---- */

/* A row has the bits that it has alone, in whatever chunks. */
Test(tp, rows_do_not_depend_on_their_company)
{
    enum { N = 40 };
    static const int chunks[] = {1, 3, 9, 64};
    int32_t ids[N];
    float *first = NULL;
    fill_ids(ids, N, 3);
    for (size_t i = 0; i < sizeof chunks / sizeof *chunks; i++) {
        fixture f = open_ranks(DEMO_MODEL, 2, chunks[i]);
        size_t bytes = N * (size_t)pl_model_vocab_size(f.model) * sizeof(float);
        float *logits = fixture_logits(&f, ids, N, false);
        if (!first)
            first = logits;
        cr_assert_eq(memcmp(first, logits, bytes), 0, "chunks of %d", chunks[i]);
        if (first != logits)
            free(logits);
        fixture_close(&f);
    }
    free(first);
}

/* Steps of the scheduler mix requests, paths, lengths and drafts. */
Test(tp, scheduler)
{
    enum { REQUESTS = 8 };
    static const char *const paths[4] = {"e4b", "e2b", "mix", "mix:widths=128"};
    static served requests[REQUESTS];
    static int32_t prompt[REQUESTS][80];
    pl_engine_params params = params_of(2, 20);
    fixture served_by = fixture_open_with(DEMO_MODEL, &params), alone = fixture_open_with(DEMO_MODEL, &params);
    pl_scheduler *scheduler;
    crowd waiting = crowd_open();
    pl_error err;
    pl_session_free(served_by.session);
    served_by.session = NULL;
    cr_assert_eq(pl_scheduler_create(served_by.engine, NULL, &scheduler, &err), PL_OK, "%s", err.message);
    for (int i = 0; i < REQUESTS; i++) {
        size_t n = (size_t)(5 + 9 * i);
        fill_ids(prompt[i], (int)n, i / 2);
        served_init(&requests[i], &waiting, prompt[i], n, 20);
        requests[i].request.path = paths[i % 4];
        requests[i].request.generation.n_logprobs = i % 3;
        requests[i].request.generation.draft.most = i % 2 ? 4 : 0;
        served_submit(&requests[i], scheduler);
    }
    crowd_wait(&waiting, REQUESTS);
    for (int i = 0; i < REQUESTS; i++) {
        heard want;
        answer_alone(alone.session, &requests[i], NULL, &want);
        expect_same(&requests[i], &want, paths[i % 4]);
        served_free(&requests[i]);
    }
    pl_scheduler_free(scheduler);
    fixture_close(&served_by);
    fixture_close(&alone);
}

/* ---- kept prefixes ---- */

static served serve_with_file(int ranks, pl_cache_type cache, const char *file, const int32_t *prompt, size_t n,
                              uint64_t *reused)
{
    served s;
    crowd waiting = crowd_open();
    pl_scheduler *scheduler;
    pl_scheduler_stats stats;
    pl_error err;
    pl_engine_params params = params_of(ranks, 0);
    pl_scheduler_params keeping = {.prefix_file = file};
    params.cache = cache;
    fixture f = fixture_open_with(DEMO_MODEL, &params);
    cr_assert_eq(pl_scheduler_create(f.engine, &keeping, &scheduler, &err), PL_OK, "%s", err.message);
    served_init(&s, &waiting, prompt, n, 8);
    served_submit(&s, scheduler);
    crowd_wait(&waiting, 1);
    cr_assert_eq(s.status, PL_OK, "%s", s.message);
    pl_scheduler_count(scheduler, &stats);
    *reused = stats.reused_tokens;
    pl_scheduler_free(scheduler);
    fixture_close(&f);
    s.crowd = NULL;
    return s;
}

/* A file of kept prefixes is the model's, not the ranks': whoever writes it, all read it. */
Test(tp, kept_prefixes_are_read_by_any_number_of_ranks)
{
    enum { N = 150 };
    static const int ranks[] = {4, 1, 2, 4};
    int32_t prompt[N];
    scratch dir;
    scratch_open(&dir);
    fill_ids(prompt, N, 1);
    for (pl_cache_type cache = PL_CACHE_F32; cache <= PL_CACHE_Q8_0; cache += PL_CACHE_Q8_0) {
        const char *file = scratch_path(&dir, cache == PL_CACHE_F32 ? "f32" : "q8_0");
        uint64_t reused;
        served first = serve_with_file(ranks[0], cache, file, prompt, N, &reused);
        cr_assert_eq(reused, 0);
        for (size_t i = 1; i < sizeof ranks / sizeof *ranks; i++) {
            served s = serve_with_file(ranks[i], cache, file, prompt, N, &reused);
            cr_assert_geq(reused, N - 1, "%d ranks: %llu tokens reused", ranks[i], (unsigned long long)reused);
            cr_assert_arr_eq(s.heard.ids, first.heard.ids, 8 * sizeof *s.heard.ids, "%d ranks", ranks[i]);
        }
    }
    scratch_close(&dir);
}

/* ---- errors ---- */

static pl_status generate(fixture *f, pl_token_fn on_token, void *user, int max_tokens, pl_error *err)
{
    int32_t prompt[20];
    pl_generation params = pl_generation_default();
    fill_ids(prompt, 20, 2);
    params.max_tokens = max_tokens;
    params.ignore_eos = true;
    params.on_token = on_token;
    params.user = user;
    return pl_generate(f->session, prompt, 20, &params, NULL, err);
}

static pl_status is_gone(pl_stream *s, uint64_t mark, pl_error *err)
{
    (void)s, (void)mark;
    return pl_fail(err, PL_ERR_DEVICE, "the third rank is gone");
}

static bool lose_a_rank(void *user, const pl_token_event *event)
{
    fixture *f = user;
    (void)event;
    f->engine->ranks->rank[2].backend->wait_for = is_gone;
    return true;
}

Test(tp, a_lost_rank_ends_the_engine)
{
    fixture f = open_ranks(DEMO_MODEL, 4, 0);
    pl_error err = {0};
    cr_assert_eq(generate(&f, lose_a_rank, &f, 50, &err), PL_ERR_DEVICE);
    cr_assert_str_eq(err.message, "the third rank is gone");
    cr_assert_eq(generate(&f, NULL, NULL, 3, &err), PL_ERR_DEVICE);
    fixture_close(&f);
}

typedef struct breaker {
    pl_comm *comm;
    useconds_t after;
} breaker;

static void *break_off(void *arg)
{
    const breaker *b = arg;
    usleep(b->after);
    b->comm->abort(b->comm);
    return NULL;
}

/* At any moment, from any thread. */
Test(tp, an_abort_ends_the_engine)
{
    for (unsigned i = 0; i < 12; i++) {
        fixture f = open_ranks(DEMO_MODEL, 2 + 2 * (int)(i % 2), 0);
        breaker b = {f.engine->ranks->comm[i % 2], 700 * i};
        pthread_t thread;
        pl_error err = {0};
        cr_assert_eq(pthread_create(&thread, NULL, break_off, &b), 0);
        pl_status status = PL_OK;
        for (int round = 0; round < 1000 && status == PL_OK; round++)
            status = generate(&f, NULL, NULL, 100, &err);
        cr_assert_eq(status, PL_ERR_DEVICE, "%s", err.message);
        pthread_join(thread, NULL);
        fixture_close(&f);
    }
}

static void refused(const char *name, int ranks, pl_status status, const char *why)
{
    char path[512];
    pl_model *model;
    pl_engine *engine;
    pl_error err = {0};
    pl_engine_params params = params_of(ranks, 0);
    snprintf(path, sizeof path, "%s/golden/text/%s", PL_TEST_DATA, name);
    cr_assert_eq(pl_model_open(path, &model, &err), PL_OK, "%s", err.message);
    cr_assert_eq(pl_engine_create(model, &params, &engine, &err), status, "%s", err.message);
    cr_assert(strstr(err.message, why), "%s", err.message);
    pl_model_close(model);
}

Test(tp, what_does_not_split_is_refused_by_name)
{
    refused("e4b", 3, PL_ERR_UNSUPPORTED, "3 ranks: the model has 8 query heads");
    refused("e4b", -1, PL_ERR_ARGUMENT, "-1, expected 0 to 16");
    refused("e4b", 17, PL_ERR_ARGUMENT, "17, expected 0 to 16");
}

static void never(void *user, const pl_trace_tensor *tensor)
{
    (void)user, (void)tensor;
    cr_assert(false, "a part was shown as if it were all");
}

Test(tp, nothing_is_shown_of_a_step)
{
    fixture f = open_ranks(DEMO_MODEL, 2, 0);
    int32_t ids[] = {2, 700};
    pl_error err = {0};
    float *logits = malloc(2 * (size_t)pl_model_vocab_size(f.model) * sizeof *logits);
    cr_assert_not_null(logits);
    pl_session_trace(f.session, never, NULL);
    cr_assert_eq(pl_logits(f.session, ids, 2, false, logits, &err), PL_ERR_UNSUPPORTED, "%s", err.message);
    pl_session_trace(f.session, NULL, NULL);
    cr_assert_eq(pl_logits(f.session, ids, 2, false, logits, &err), PL_OK, "%s", err.message);
    free(logits);
    fixture_close(&f);
}
