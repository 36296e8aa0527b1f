/* Cards that share a model (`--tp`), over NCCL: what one card computes, or an error that ends it. */
#include "tests/cuda/card.h"
#include "tests/engine/goldens.h"

#include <criterion/criterion.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static pl_engine_params params_of(int ranks, int batch_rows, pl_ple_placement ple)
{
    return (pl_engine_params){.backend = PL_BACKEND_CUDA,
                              .tp = ranks,
                              .ple = ple,
                              .sessions = 1,
                              .threads = 1,
                              .context = 64,
                              .batch_rows = batch_rows,
                              .no_pin = true};
}

static void insert_cards(int n, card_mode mode, uint64_t seed)
{
    card_insert(mode, seed);
    card_insert_more(n - 1);
}

/* ---- recorded runs ---- */

static void check_logits(const float *got, const float *want, int64_t n, const char *what)
{
    for (int64_t i = 0; i < n; i++)
        cr_assert(fabsf(got[i] - want[i]) <= GOLDEN_LOGITS_BOUND, "%s: %g, expected %g", what, (double)got[i],
                  (double)want[i]);
}

/* The first n rows of a recorded prompt are what the CPU computes; returns them. */
static float *check_beginning(const golden_variant *v, int ranks, int batch_rows, pl_ple_placement ple, int64_t n)
{
    pl_engine_params params = params_of(ranks, batch_rows, ple);
    fixture f = fixture_open_with(v->checkpoint, &params);
    fixture one = fixture_open(v->checkpoint, 1, 0);
    char name[64];
    fixture_path(&f, v->path);
    fixture_path(&one, v->path);
    snprintf(name, sizeof name, "%s.p0", v->name);
    golden g = golden_open(name);
    int64_t all, vocab = pl_model_vocab_size(f.model);
    const int32_t *ids = golden_i32(&g, "input_ids", &all);
    cr_assert_leq(n, all);
    float *got = fixture_logits(&f, ids, n, false), *want = fixture_logits(&one, ids, n, false);
    check_logits(got, want, n * vocab, name);
    free(want);
    golden_close(&g);
    fixture_close(&f);
    fixture_close(&one);
    cr_assert_eq(card_leftovers(), 0);
    return got;
}

/* Few rows a step go through ops that do several things at once, others through single ones; the third step of a shape is a
 * recording. */
Test(tp_card, every_path)
{
    static const struct {
        int variant, ranks, rows;
        pl_ple_placement ple;
        int64_t n;
    } table[] = {
        {0, 2, 1, PL_PLE_VRAM, 3}, {3, 4, 2, PL_PLE_PINNED, 4}, {5, 4, 3, PL_PLE_HOST, 6}, {6, 2, 17, PL_PLE_DISK, 17}};
    for (size_t i = 0; i < sizeof table / sizeof *table; i++) {
        insert_cards(table[i].ranks, CARD_ASKED, i);
        free(check_beginning(&golden_variants[table[i].variant], table[i].ranks, table[i].rows, table[i].ple,
                             table[i].n));
    }
}

/* Whenever the cards' work runs, and in whatever chunks rows come. */
Test(tp_card, same_bits_in_any_order)
{
    enum { N = 2, VOCAB = 1088 };
    float *first = NULL;
    for (int mode = 0; mode < CARD_MODES; mode++) {
        insert_cards(2, (card_mode)mode, (uint64_t)mode);
        float *logits = check_beginning(&golden_variants[5], 2, 1 + mode % N, PL_PLE_PINNED, N);
        if (!first)
            first = logits;
        cr_assert_eq(memcmp(first, logits, N * VOCAB * sizeof *logits), 0, "mode %d", mode);
        if (first != logits)
            free(logits);
    }
    free(first);
}

/* Steps that differ in widths alone are recorded apart. */
Test(tp_card, recordings_of_other_widths)
{
    enum { N = 3 };
    static const char *const paths[] = {"e4b", "mix:widths=96"};
    static const int32_t ids[N] = {2, 700, 800};
    pl_engine_params params = params_of(2, 1, PL_PLE_PINNED);
    insert_cards(2, CARD_ASKED, 9);
    fixture f = fixture_open_with("e4b", &params), one = fixture_open("e4b", 1, 0);
    for (int i = 0; i < 2; i++) {
        fixture_path(&f, paths[i]);
        fixture_path(&one, paths[i]);
        float *got = fixture_logits(&f, ids, N, false), *want = fixture_logits(&one, ids, N, false);
        check_logits(got, want, N * (int64_t)pl_model_vocab_size(f.model), paths[i]);
        free(got);
        free(want);
    }
    fixture_close(&f);
    fixture_close(&one);
}

/* ---- errors ---- */

static void refused(const pl_engine_params *params, pl_status status, const char *why)
{
    pl_model *model;
    pl_engine *engine;
    pl_error err = {0};
    cr_assert_eq(pl_model_open(PL_TEST_DATA "/golden/text/e4b", &model, &err), PL_OK, "%s", err.message);
    cr_assert_eq(pl_engine_create(model, params, &engine, &err), status, "%s", err.message);
    cr_assert(strstr(err.message, why), "%s", err.message);
    pl_model_close(model);
    cr_assert_eq(card_leftovers(), 0);
}

Test(tp_card, cards_that_cannot_share)
{
    pl_engine_params params = params_of(4, 0, PL_PLE_PINNED);
    insert_cards(3, CARD_EAGER, 0);
    refused(&params, PL_ERR_ARGUMENT, "4 cards from 0 on: this machine has 3");
    params.tp = 2;
    params.device = 2;
    refused(&params, PL_ERR_ARGUMENT, "2 cards from 2 on: this machine has 3");
    params.device = 0;
    card_set_nccl(0);
    refused(&params, PL_ERR_UNSUPPORTED, "NCCL");
}

/* One call of NCCL fails, whichever: a clear error, the same from then on, and nothing is left. */
Test(tp_card, a_lost_connection_ends_the_engine)
{
    int32_t ids[] = {2, 700, 800};
    pl_engine_params params = params_of(2, 0, PL_PLE_PINNED);
    for (unsigned nth = 1; nth < 60; nth += 19) {
        pl_model *model;
        pl_engine *engine;
        pl_session *session;
        pl_error err = {0};
        insert_cards(2, CARD_ASKED, nth);
        cr_assert_eq(pl_model_open(PL_TEST_DATA "/golden/text/e4b", &model, &err), PL_OK, "%s", err.message);
        float *logits = calloc(3 * (size_t)pl_model_vocab_size(model), sizeof *logits);
        cr_assert_not_null(logits);
        card_fail_nccl(nth);
        pl_status status = pl_engine_create(model, &params, &engine, &err);
        if (status == PL_OK) {
            cr_assert_eq(pl_session_create(engine, &session, &err), PL_OK, "%s", err.message);
            status = pl_logits(session, ids, 3, false, logits, &err);
            cr_assert_eq(status, PL_ERR_DEVICE, "call %u: %s", nth, err.message);
            cr_assert_eq(pl_logits(session, ids, 3, false, logits, &err), PL_ERR_DEVICE);
            pl_session_free(session);
            pl_engine_free(engine);
        }
        cr_assert_neq(status, PL_OK, "call %u", nth);
        cr_assert_neq(err.message[0], '\0');
        free(logits);
        pl_model_close(model);
        cr_assert_eq(card_leftovers(), 0);
    }
}
