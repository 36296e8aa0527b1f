/* A row's bits do not depend on its company: sequences on different paths, cut into random steps together,
 * give what each gives alone, one token at a time. */
#include "tests/engine/goldens.h"

#include "host/base/rng.h"
#include "host/engine/engine.h"

#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

#define SEQUENCES 4
#define TOKENS 90 /* some windows long: the recorded model's is 16 */
#define MAX_ROWS 48

/* One sequence of the test: its tokens, its path, and the logits that it should give. */
typedef struct story {
    int32_t id, tokens[TOKENS], done;
    pl_path path;
    float *expected; /* [TOKENS][vocab] */
} story;

static const char *const golden_paths[SEQUENCES] = {"e4b", GOLDEN_E2B, GOLDEN_MNM, GOLDEN_TAIL};
static const char *const demo_paths[SEQUENCES] = {"e4b", "e2b", "mix", "e4b"};

static void begin(story *s, const pl_engine *e, const char *path, pl_rng *rng)
{
    pl_error err;
    *s = (story){0};
    cr_assert_eq(pl_path_parse(e->model->checkpoint, path, &s->path, &err), PL_OK, "%s", err.message);
    for (int i = 0; i < TOKENS; i++)
        s->tokens[i] = (int32_t)(pl_rng_next(rng) % (uint64_t)e->config->vocab);
    s->expected = malloc((size_t)TOKENS * (size_t)e->config->vocab * sizeof *s->expected);
    cr_assert_not_null(s->expected);
}

static void run_alone(story *s, pl_engine *e)
{
    pl_error err;
    cr_assert_eq(pl_kv_open(e->kv, &s->id, &err), PL_OK, "%s", err.message);
    for (int i = 0; i < TOKENS; i++) {
        const float *logits;
        pl_step_row row = {.token = s->tokens[i], .position = i, .sequence = s->id, .path = &s->path, .wanted = true};
        cr_assert_eq(pl_kv_extend(e->kv, s->id, 1, &err), PL_OK);
        cr_assert_eq(pl_step_run(e->step, &row, 1, NULL, NULL, &err), PL_OK, "%s", err.message);
        cr_assert_eq(pl_step_logits(e->step, 0, 1, &logits, &err), PL_OK);
        memcpy(s->expected + (size_t)i * (size_t)e->config->vocab, logits, (size_t)e->config->vocab * sizeof *logits);
    }
    pl_kv_close(e->kv, s->id);
}

/* Up to `room` next tokens of s as rows, each wanted with a chance of one half. */
static int add_rows(story *s, pl_engine *e, pl_step_row *rows, int room, pl_rng *rng)
{
    pl_error err;
    int n = (int)(pl_rng_next(rng) % 20);
    n = n < room ? n : room;
    n = n < TOKENS - s->done ? n : TOKENS - s->done;
    if (n == 0)
        return 0;
    cr_assert_eq(pl_kv_extend(e->kv, s->id, n, &err), PL_OK, "%s", err.message);
    for (int i = 0; i < n; i++, s->done++)
        rows[i] = (pl_step_row){.token = s->tokens[s->done],
                                .position = s->done,
                                .sequence = s->id,
                                .path = &s->path,
                                .wanted = pl_rng_next(rng) & 1};
    return n;
}

static const story *owner(const story *stories, int32_t sequence)
{
    for (int i = 0; i < SEQUENCES; i++)
        if (stories[i].id == sequence)
            return &stories[i];
    return NULL;
}

static int check_step(const story *stories, pl_engine *e, const pl_step_row *rows, int n)
{
    pl_error err;
    size_t vocab = (size_t)e->config->vocab;
    cr_assert_eq(pl_step_run(e->step, rows, n, NULL, NULL, &err), PL_OK, "%s", err.message);
    int wanted = 0;
    for (int i = 0; i < n; i++) {
        if (!rows[i].wanted)
            continue;
        const float *logits, *expected = owner(stories, rows[i].sequence)->expected + (size_t)rows[i].position * vocab;
        cr_assert_eq(pl_step_logits(e->step, wanted++, 1, &logits, &err), PL_OK);
        cr_assert_eq(memcmp(logits, expected, vocab * sizeof *logits), 0,
                     "sequence %d, position %d differs in a step of %d rows", rows[i].sequence, rows[i].position, n);
    }
    return wanted;
}

static void check_schedule(pl_engine *e, story *stories, uint64_t seed)
{
    pl_error err;
    pl_rng rng;
    pl_rng_seed(&rng, seed);
    for (int i = 0; i < SEQUENCES; i++) {
        stories[i].done = 0;
        cr_assert_eq(pl_kv_open(e->kv, &stories[i].id, &err), PL_OK, "%s", err.message);
    }
    int checked = 0, left = 1;
    while (left) {
        pl_step_row rows[MAX_ROWS];
        int n = 0;
        left = 0;
        for (int i = 0; i < SEQUENCES; i++) {
            n += add_rows(&stories[i], e, rows + n, MAX_ROWS - n, &rng);
            left += TOKENS - stories[i].done;
        }
        if (n > 0)
            checked += check_step(stories, e, rows, n);
    }
    cr_assert_gt(checked, SEQUENCES * TOKENS / 4);
    for (int i = 0; i < SEQUENCES; i++)
        pl_kv_close(e->kv, stories[i].id);
}

static void check_checkpoint(const char *name, const char *const *paths, int threads)
{
    fixture f = fixture_open(name, threads, MAX_ROWS);
    pl_session_free(f.session); /* its place is needed */
    f.session = NULL;
    story stories[SEQUENCES];
    pl_rng rng;
    pl_rng_seed(&rng, 11);
    for (int i = 0; i < SEQUENCES; i++) {
        begin(&stories[i], f.engine, paths[i], &rng);
        run_alone(&stories[i], f.engine);
    }
    for (uint64_t seed = 1; seed <= 5; seed++)
        check_schedule(f.engine, stories, seed);
    for (int i = 0; i < SEQUENCES; i++)
        free(stories[i].expected);
    fixture_close(&f);
}

Test(step, company_changes_no_bit)
{
    check_checkpoint("e4b", golden_paths, 1);
    check_checkpoint("e4b", golden_paths, 3);
}

Test(step, company_changes_no_bit_of_quantised_weights)
{
    check_checkpoint(DEMO_MODEL, demo_paths, 1);
    check_checkpoint(DEMO_MODEL, demo_paths, 3);
}

/* The nested path gives the bits of the checkpoint that was cut out: the same sums in the same order. */
Test(step, nested_path_equals_the_slice)
{
    fixture whole = fixture_open("e4b", 2, 32), slice = fixture_open("e2b", 2, 32);
    fixture_path(&whole, GOLDEN_E2B);
    enum { N = 50 };
    int32_t ids[N];
    for (int i = 0; i < N; i++)
        ids[i] = 2 + i * 17 % 1000;
    size_t bytes = (size_t)N * (size_t)pl_model_vocab_size(whole.model) * sizeof(float);
    float *a = malloc(bytes), *b = malloc(bytes);
    cr_assert(a && b);
    cr_assert_eq(pl_logits(whole.session, ids, N, false, a, NULL), PL_OK);
    cr_assert_eq(pl_logits(slice.session, ids, N, false, b, NULL), PL_OK);
    cr_assert_eq(memcmp(a, b, bytes), 0);
    free(a);
    free(b);
    fixture_close(&whole);
    fixture_close(&slice);
}
