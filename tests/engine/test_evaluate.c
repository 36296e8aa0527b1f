/* The demo model measured: against itself, one path against another, in pieces and at once. */
#include <criterion/criterion.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "host/measure/evaluate.h"
#include "tests/engine/goldens.h"
#include "tests/unit/fail_alloc.h"
#include "tests/unit/scratch.h"

#define LENGTH 150 /* more than PL_EVALUATE_ROWS are scored */
#define PASSAGES 3

typedef struct bench {
    fixture model, reference;
    pl_passages passages;
    pl_evaluator *evaluator;
    int tokens_left; /* on_tokens() stops after so many calls */
} bench;

static bench bench_open(int threads)
{
    bench b = {.tokens_left = INT32_MAX};
    pl_error err;
    size_t n;
    char *text = read_file(PL_TEST_DATA "/../tools/demo_model/README.md", &n);
    b.model = fixture_open(DEMO_MODEL, threads, 0);
    b.reference = fixture_open(DEMO_MODEL, threads, 0);
    cr_assert_eq(pl_passages_cut(b.model.model, text, n, LENGTH, PASSAGES, "README.md", &b.passages, &err), PL_OK, "%s",
                 err.message);
    cr_assert_eq(b.passages.n, PASSAGES);
    int32_t vocab = pl_model_vocab_size(b.model.model);
    cr_assert_eq(pl_evaluator_create(vocab, threads, &b.evaluator, &err), PL_OK, "%s", err.message);
    free(text);
    return b;
}

static void bench_close(bench *b)
{
    pl_evaluator_free(b->evaluator);
    pl_passages_free(&b->passages);
    fixture_close(&b->model);
    fixture_close(&b->reference);
}

static void set_paths(bench *b, const char *model, const char *reference)
{
    cr_assert_eq(pl_session_set_path(b->model.session, model, PL_SWITCH_EXACT, NULL), PL_OK);
    cr_assert_eq(pl_session_set_path(b->reference.session, reference, PL_SWITCH_EXACT, NULL), PL_OK);
}

static bool on_tokens(void *user, int32_t tokens)
{
    bench *b = user;
    cr_expect(tokens > 0 && tokens < LENGTH);
    return --b->tokens_left > 0;
}

static pl_quality run(bench *b, bool with_reference)
{
    pl_error err;
    int32_t done = 0;
    pl_quality q = {0};
    pl_evaluation what = {.session = b->model.session,
                          .reference = with_reference ? b->reference.session : NULL,
                          .passages = &b->passages};
    cr_assert_eq(pl_evaluate(b->evaluator, &what, &done, &q, &err), PL_OK, "%s", err.message);
    cr_assert_eq(done, PASSAGES);
    cr_assert_eq(q.n, pl_passages_scored(&b->passages, PASSAGES));
    cr_assert_eq(q.n_compared, with_reference ? q.n : 0);
    return q;
}

static void expect_same(const pl_quality *got, const pl_quality *want, const char *what)
{
    cr_expect_eq(memcmp(got, want, sizeof *want), 0, "%s: nll %.17g, expected %.17g; kl %.17g, expected %.17g", what,
                 got->nll, want->nll, got->kl, want->kl);
}

Test(evaluate, a_model_does_not_differ_from_itself)
{
    bench b = bench_open(2);
    static const char *const paths[] = {"e4b", "e2b"};
    for (int i = 0; i < 2; i++) {
        set_paths(&b, paths[i], paths[i]);
        pl_quality q = run(&b, true);
        cr_expect(q.kl == 0 && q.kl_max == 0 && q.dp2 == 0 && q.nll == q.ref_nll);
        cr_expect_eq(q.same_top, q.n);
    }
    bench_close(&b);
}

Test(evaluate, paths_differ)
{
    bench b = bench_open(2);
    set_paths(&b, "e4b", "e4b");
    pl_quality e4b = run(&b, false);
    set_paths(&b, "e2b", "e4b");
    pl_quality q = run(&b, true);
    cr_expect(q.kl > 1e-3 * (double)q.n, "kl %g", q.kl);
    cr_expect_lt(q.same_top, q.n);
    cr_expect_eq(q.ref_nll, e4b.nll); /* to the bit: the same rows in the same order */
    cr_expect_neq(q.nll, q.ref_nll);
    bench_close(&b);
}

/* Written out: all logits of a passage at once. */
static void expect_written_out(bench *b)
{
    size_t vocab = (size_t)pl_model_vocab_size(b->model.model);
    float *logits = malloc(LENGTH * vocab * sizeof *logits);
    double nll = 0;
    for (int p = 0; p < PASSAGES; p++) {
        const int32_t *ids = b->passages.ids + p * LENGTH;
        cr_assert_eq(pl_logits(b->model.session, ids, LENGTH, false, logits, NULL), PL_OK);
        for (int i = 0; i < LENGTH - 1; i++) {
            double sum = 0;
            if (b->passages.scored ? !b->passages.scored[p * LENGTH + i] : i < LENGTH / 2)
                continue;
            for (size_t k = 0; k < vocab; k++)
                sum += exp(logits[(size_t)i * vocab + k]);
            nll += log(sum) - logits[(size_t)i * vocab + (size_t)ids[i + 1]];
        }
    }
    pl_quality q = run(b, false);
    cr_expect_float_eq(q.nll, nll, 5e-7 * (double)q.n);
    free(logits);
}

Test(evaluate, the_second_half_is_scored)
{
    bench b = bench_open(2);
    expect_written_out(&b);
    bench_close(&b);
}

Test(evaluate, only_what_is_marked_is_scored)
{
    bench b = bench_open(2);
    b.passages.scored = calloc(PASSAGES * LENGTH, sizeof *b.passages.scored);
    /* nothing in the second passage */
    b.passages.scored[0] = b.passages.scored[3] = b.passages.scored[90] = true;
    for (int i = 60; i < LENGTH - 1; i++)
        b.passages.scored[2 * LENGTH + i] = i % 5 != 0;
    expect_written_out(&b);
    cr_expect_eq(run(&b, true).kl, 0);
    bench_close(&b);
}

Test(evaluate, threads_change_nothing)
{
    bench one = bench_open(1), three = bench_open(3);
    set_paths(&one, "e2b", "e4b");
    set_paths(&three, "e2b", "e4b");
    pl_quality a = run(&one, true), b = run(&three, true);
    expect_same(&b, &a, "three threads");
    bench_close(&one);
    bench_close(&three);
}

typedef struct passage_count {
    int calls;
    pl_status status;
} passage_count;

static pl_status on_passage(void *user, pl_error *err)
{
    passage_count *c = user;
    c->calls++;
    return c->status == PL_OK ? PL_OK : pl_fail(err, c->status, "no more");
}

/* Stopped at every place where it can be, and taken up again. */
Test(evaluate, interruptions_change_nothing)
{
    bench b = bench_open(2);
    set_paths(&b, "e2b", "e4b");
    pl_quality whole = run(&b, true), q = {0};
    pl_evaluation what = {.session = b.model.session,
                          .reference = b.reference.session,
                          .passages = &b.passages,
                          .on_tokens = on_tokens,
                          .user = &b};
    int32_t done = 0, stops = 0;
    pl_error err;
    for (int calls = 1; done < PASSAGES; calls++) {
        int32_t before = done;
        pl_quality kept = q;
        b.tokens_left = calls;
        pl_status status = pl_evaluate(b.evaluator, &what, &done, &q, &err);
        cr_assert(status == PL_OK || status == PL_ERR_CANCELLED, "%s", err.message);
        stops += status != PL_OK;
        if (done == before)
            expect_same(&q, &kept, "nothing but whole passages counts");
    }
    cr_expect_geq(stops, 4);
    expect_same(&q, &whole, "after interruptions");

    passage_count c = {.status = PL_ERR_IO};
    what = (pl_evaluation){.session = b.model.session, .passages = &b.passages, .on_passage = on_passage, .user = &c};
    done = 0;
    q = (pl_quality){0};
    cr_expect_eq(pl_evaluate(b.evaluator, &what, &done, &q, &err), PL_ERR_IO);
    cr_expect(c.calls == 1 && done == 1 && q.n == pl_passage_scored(LENGTH));
    c.status = PL_OK;
    cr_expect_eq(pl_evaluate(b.evaluator, &what, &done, &q, &err), PL_OK, "%s", err.message);
    cr_expect_eq(c.calls, PASSAGES);
    bench_close(&b);
}

/* Logits go through a file with 16 bits each: what comes back is nearly the reference itself. */
Test(evaluate, a_file_of_logits_as_reference)
{
    bench b = bench_open(2);
    scratch s;
    scratch_open(&s);
    pl_error err;
    pl_logits_writer w;
    pl_logits_file file;
    int32_t done = 0, vocab = pl_model_vocab_size(b.model.model);
    const char *path = scratch_path(&s, "logits");
    set_paths(&b, "e4b", "e4b");
    pl_quality saved = {0}, plain = run(&b, false);
    cr_assert_eq(pl_logits_writer_open(path, &b.passages, vocab, &w, &err), PL_OK, "%s", err.message);
    pl_evaluation what = {.session = b.model.session, .passages = &b.passages, .save = &w};
    cr_assert_eq(pl_evaluate(b.evaluator, &what, &done, &saved, &err), PL_OK, "%s", err.message);
    cr_assert_eq(pl_logits_writer_commit(&w, &err), PL_OK, "%s", err.message);
    expect_same(&saved, &plain, "writing");
    cr_assert_eq(pl_logits_file_open(path, &file, &err), PL_OK, "%s", err.message);
    cr_assert_eq(pl_logits_file_check(&file, &b.passages, vocab, &err), PL_OK, "%s", err.message);

    set_paths(&b, "e2b", "e4b");
    pl_quality by_model = run(&b, true), by_file = {0};
    what = (pl_evaluation){.session = b.model.session, .reference_file = &file, .passages = &b.passages};
    done = 0;
    cr_assert_eq(pl_evaluate(b.evaluator, &what, &done, &by_file, &err), PL_OK, "%s", err.message);
    cr_expect_eq(by_file.nll, by_model.nll);
    cr_expect_float_eq(by_file.kl / by_model.kl, 1, 1e-2, "kl %g, %g", by_file.kl, by_model.kl);
    cr_expect_leq(llabs(by_file.same_top - by_model.same_top), 1);
    pl_logits_file_close(&file);
    scratch_close(&s);
    bench_close(&b);
}

Test(evaluate, what_cannot_be_measured)
{
    pl_error err;
    bench b = bench_open(1);
    int32_t done = 0;
    pl_quality q = {0};
    pl_passages short_ones = {.ids = b.passages.ids, .n = PASSAGES, .length = 2};
    pl_evaluation what = {.session = b.model.session, .passages = &short_ones};
    cr_expect_eq(pl_evaluate(b.evaluator, &what, &done, &q, &err), PL_ERR_ARGUMENT);
    cr_expect(done == 0 && q.n == 0);
    pl_evaluator_free(NULL);
    cr_expect_eq(pl_evaluate_check_path(b.model.model, "e2b", &err), PL_OK);
    cr_expect_eq(pl_evaluate_check_path(b.model.model, "nonsense", &err), PL_ERR_ARGUMENT);
    cr_expect_str_eq(pl_evaluate_default_path(b.model.model), pl_session_path(b.model.session));
    bench_close(&b);
}

static pl_status make_evaluator(void *ctx, pl_error *err)
{
    (void)ctx;
    pl_evaluator *e;
    PL_TRY(pl_evaluator_create(100, 2, &e, err));
    pl_evaluator_free(e);
    return PL_OK;
}

Test(evaluate, no_memory)
{
    cr_expect_geq(fail_alloc_each(make_evaluator, NULL), 4);
}
