/* Engines on several cards, made side by side: each computes the same bits as one alone, whether its weights came from the
 * file or from another card, and where one fails there are none. */
#include "tests/cuda/card.h"
#include "tests/engine/goldens.h"

#include "host/engine/session.h"

#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

#define MOST 4
#define N_IDS 1

static pl_engine_params params_of(pl_ple_placement ple)
{
    return (pl_engine_params){.backend = PL_BACKEND_CUDA,
                              .ple = ple,
                              .sessions = 2,
                              .threads = 1,
                              .context = 256,
                              .batch_rows = 2,
                              .no_pin = true};
}

static pl_model *open_model(void)
{
    pl_model *model;
    pl_error err;
    cr_assert_eq(pl_model_open(PL_TEST_DATA "/" DEMO_MODEL, &model, &err), PL_OK, "%s", err.message);
    return model;
}

static void insert(card_mode mode, uint64_t seed, int n)
{
    card_insert(mode, seed);
    card_insert_more(n - 1);
}

static float *logits_of(pl_engine *engine, int32_t vocab)
{
    int32_t ids[N_IDS];
    pl_session *session;
    pl_error err;
    float *logits = calloc((size_t)vocab, N_IDS * sizeof *logits);
    cr_assert_not_null(logits);
    for (int i = 0; i < N_IDS; i++)
        ids[i] = 2 + (i * 37) % (vocab - 2);
    cr_assert_eq(pl_session_create(engine, &session, &err), PL_OK, "%s", err.message);
    cr_assert_eq(pl_logits(session, ids, N_IDS, false, logits, &err), PL_OK, "%s", err.message);
    pl_session_free(session);
    return logits;
}

/* Of one engine, alone on its card. */
static float *logits_alone(pl_model *model)
{
    pl_engine_params params = params_of(PL_PLE_PINNED);
    pl_engine *engine;
    pl_error err;
    card_insert(CARD_EAGER, 0);
    cr_assert_eq(pl_engine_create(model, &params, &engine, &err), PL_OK, "%s", err.message);
    float *logits = logits_of(engine, pl_model_vocab_size(model));
    pl_engine_free(engine);
    return logits;
}

static void create(pl_model *model, const pl_engine_params *params, const int *devices, int n, pl_engine **engines)
{
    pl_error err;
    cr_assert_eq(pl_engines_create(model, params, devices, n, engines, &err), PL_OK, "%s", err.message);
}

static void expect_logits(pl_model *model, pl_engine **engines, int n, const float *want)
{
    int32_t vocab = pl_model_vocab_size(model);
    for (int i = 0; i < n; i++) {
        float *got = logits_of(engines[i], vocab);
        cr_assert_eq(memcmp(got, want, (size_t)vocab * N_IDS * sizeof *got), 0, "engine %d of %d", i, n);
        free(got);
    }
}

static void free_all(pl_engine **engines, int n)
{
    for (int i = 0; i < n; i++)
        pl_engine_free(engines[i]);
    cr_assert_eq(card_leftovers(), 0);
}

static unsigned long long uploaded(int card)
{
    card_choose(card);
    return card_uploaded();
}

/* ---- the same bits ---- */

Test(card_engines, the_same_bits_on_each_card)
{
    static const pl_ple_placement placements[] = {PL_PLE_PINNED, PL_PLE_VRAM, PL_PLE_HOST, PL_PLE_VRAM, PL_PLE_DISK};
    pl_model *model = open_model();
    float *want = logits_alone(model);
    for (int mode = 0; mode < CARD_MODES; mode++) {
        pl_engine *engines[MOST];
        pl_engine_params params = params_of(placements[mode]);
        int n = mode == CARD_STARVE ? 4 : 2;
        insert((card_mode)mode, (uint64_t)mode, n);
        create(model, &params, NULL, n, engines);
        expect_logits(model, engines, n, want);
        free_all(engines, n);
    }
    free(want);
    pl_model_close(model);
}

/* What goes over the bus: all of it once, else only vectors and rope's frequencies. */
Test(card_engines, weights_are_read_once_where_cards_can_give_them_on)
{
    static const pl_ple_placement placements[] = {PL_PLE_VRAM, PL_PLE_PINNED};
    pl_model *model = open_model();
    for (int i = 0; i < 2; i++)
        for (int with = 0; with < 2; with++) {
            pl_engine *engines[2];
            pl_engine_info info;
            pl_engine_params params = params_of(placements[i]);
            insert(CARD_ANY, 5, 2);
            card_set_nccl(with);
            create(model, &params, NULL, 2, engines);
            pl_engine_describe(engines[1], &info);
            unsigned long long first = uploaded(0), second = uploaded(1);
            const char *from = with ? "weights from card 0"
                                    : "weights from the file: cards work together only with NCCL: lib";
            cr_assert_not_null(strstr(info.placement, from), "%s", info.placement);
            cr_assert_geq(first, info.weight_bytes);
            if (with)
                cr_assert_leq(second, first / 10, "%llu of %llu bytes", second, first);
            else
                cr_assert_eq(second, first);
            free_all(engines, 2);
        }
    pl_model_close(model);
}

Test(card_engines, any_cards_in_any_order)
{
    pl_model *model = open_model();
    float *want = logits_alone(model);
    pl_engine *engines[2];
    pl_engine_params params = params_of(PL_PLE_HOST);
    insert(CARD_THREADED, 2, 4);
    create(model, &params, (int[]){3, 1}, 2, engines);
    cr_assert(engines[0]->placement.device == 3 && engines[1]->placement.device == 1);
    expect_logits(model, engines, 2, want);
    free_all(engines, 2);
    free(want);
    pl_model_close(model);
}

/* Cards that differ in what they have room for: their tables are where each one's placement says. */
Test(card_engines, cards_of_different_sizes)
{
    pl_model *model = open_model();
    float *want = logits_alone(model);
    pl_engine *engines[2];
    pl_engine_params params = params_of(PL_PLE_AUTO);
    insert(CARD_ANY, 2, 2);
    card_choose(1);
    card_set_bytes((size_t)2 << 30);
    create(model, &params, NULL, 2, engines);
    cr_assert_eq(engines[0]->placement.ple, PL_PLE_PINNED);
    cr_assert_eq(engines[1]->placement.ple, PL_PLE_VRAM);
    expect_logits(model, engines, 2, want);
    free_all(engines, 2);
    free(want);
    pl_model_close(model);
}

/* Engines that are split over two cards each: the bits of one such. */
Test(card_engines, several_that_are_split)
{
    pl_model *model = open_model();
    pl_engine *engines[2], *alone;
    pl_engine_params params = params_of(PL_PLE_PINNED);
    pl_error err;
    params.tp = 2;
    insert(CARD_THREADED, 1, 4);
    cr_assert_eq(pl_engine_create(model, &params, &alone, &err), PL_OK, "%s", err.message);
    float *want = logits_of(alone, pl_model_vocab_size(model));
    pl_engine_free(alone);
    create(model, &params, (int[]){0, 2}, 2, engines);
    expect_logits(model, engines, 2, want);
    free_all(engines, 2);
    cr_assert_eq(pl_engines_create(model, &params, (int[]){0, 1}, 2, engines, &err), PL_ERR_ARGUMENT);
    cr_assert_not_null(strstr(err.message, "card 1 is to have two engines"), "%s", err.message);
    free(want);
    pl_model_close(model);
}

/* Each has its part of the processors. */
Test(card_engines, several_on_the_cpu)
{
    pl_model *model = open_model();
    pl_engine *engines[3], *alone;
    pl_engine_params params = {.backend = PL_BACKEND_CPU, .context = 256, .sessions = 2};
    pl_error err;
    cr_assert_eq(pl_engine_create(model, &params, &alone, &err), PL_OK, "%s", err.message);
    float *want = logits_of(alone, pl_model_vocab_size(model));
    create(model, &params, NULL, 3, engines);
    int threads = 0;
    for (int i = 0; i < 3; i++) {
        pl_engine_info info;
        pl_engine_describe(engines[i], &info);
        cr_assert_eq(info.kind, PL_BACKEND_CPU);
        threads += info.threads;
    }
    pl_engine_info whole;
    pl_engine_describe(alone, &whole);
    cr_assert_eq(threads, whole.threads > 3 ? whole.threads : 3);
    expect_logits(model, engines, 3, want);
    free_all(engines, 3);
    pl_engine_free(alone);
    free(want);
    pl_model_close(model);
}

/* ---- what goes wrong ---- */

static void expect_failure(pl_model *model, int n, pl_status want, const char *says, const char *when, unsigned at)
{
    pl_engine *engines[MOST];
    pl_engine_params params = params_of(PL_PLE_VRAM);
    pl_error err;
    pl_status status = pl_engines_create(model, &params, NULL, n, engines, &err);
    cr_assert_eq(status, want, "%s %u: %s: %s", when, at, pl_status_name(status), err.message);
    cr_assert_not_null(strstr(err.message, says), "%s %u: '%s' does not say '%s'", when, at, err.message, says);
    cr_assert_eq(card_leftovers(), 0, "%s %u", when, at);
}

Test(card_engines, an_allocation_may_fail_on_any_card)
{
    pl_model *model = open_model();
    pl_engine *engines[2];
    pl_engine_params params = params_of(PL_PLE_VRAM);
    insert(CARD_ANY, 0, 2);
    create(model, &params, NULL, 2, engines);
    unsigned n[2];
    for (int card = 0; card < 2; card++) {
        card_choose(card);
        n[card] = (unsigned)card_allocs();
    }
    free_all(engines, 2);
    for (int card = 0; card < 2; card++)
        for (unsigned i = 1; i <= n[card]; i += 3) {
            insert((card_mode)(i % CARD_MODES), i, 2);
            card_choose(card);
            card_fail_alloc(i);
            expect_failure(model, 2, PL_ERR_MEMORY, card ? "engine on card 1" : "engine on card 0", "allocation", i);
        }
    pl_model_close(model);
}

Test(card_engines, a_lost_card)
{
    pl_model *model = open_model();
    for (unsigned i = 1; i < 60; i += 6) {
        insert((card_mode)(i / 6 % CARD_MODES), i, 3);
        card_choose((int)(i / 6 % 3));
        card_lose(i);
        expect_failure(model, 3, PL_ERR_DEVICE, "engine on card", "piece of work", i);
    }
    pl_model_close(model);
}

/* Without NCCL, or with one that fails before it begins, each loads for itself; one that fails in the middle is told. */
Test(card_engines, nccl_may_fail)
{
    pl_model *model = open_model();
    float *want = logits_alone(model);
    pl_engine *engines[2];
    pl_engine_params params = params_of(PL_PLE_VRAM);
    insert(CARD_ASKED, 1, 2);
    card_fail_nccl(1);
    create(model, &params, NULL, 2, engines);
    expect_logits(model, engines, 2, want);
    free_all(engines, 2);
    for (unsigned i = 2; i <= 5; i++) {
        insert(CARD_THREADED, i, 2);
        card_fail_nccl(i);
        expect_failure(model, 2, PL_ERR_DEVICE, "ncclBroadcast: unhandled system error", "call", i);
    }
    free(want);
    pl_model_close(model);
}

static void refused(pl_model *model, const int *devices, int n, const char *says)
{
    pl_engine *engines[MOST];
    pl_engine_params params = params_of(PL_PLE_VRAM);
    pl_error err;
    insert(CARD_EAGER, 1, 2);
    cr_assert_eq(pl_engines_create(model, &params, devices, n, engines, &err), PL_ERR_ARGUMENT);
    cr_assert_not_null(strstr(err.message, says), "'%s' does not say '%s'", err.message, says);
    cr_assert_eq(card_leftovers(), 0);
}

Test(card_engines, what_cannot_be)
{
    pl_model *model = open_model();
    refused(model, NULL, 0, "0 engines, expected 1 to 16");
    refused(model, NULL, 17, "17 engines, expected 1 to 16");
    refused(model, (int[]){1, 1}, 2, "card 1 is to have two engines");
    refused(model, (int[]){0, 2}, 2, "engine on card 2: device 2: this machine has 2 cards");
    refused(model, (int[]){0, -1}, 2, "engine on card -1: device -1");
    pl_model_close(model);
}
