/* The whole engine on the card: every op, the backend, the PLE service and the draws together, against the CPU's. */
#include "tests/cuda/card.h"
#include "tests/engine/goldens.h"

#include "host/engine/session.h"

#include <criterion/criterion.h>
#include <cuda_runtime_api.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#define MAX_IDS 64

static pl_engine_params params_of(pl_backend_kind backend, int batch_rows, pl_ple_placement ple)
{
    return (pl_engine_params){.backend = backend,
                              .ple = ple,
                              .sessions = 2,
                              .threads = 1,
                              .context = 256,
                              .batch_rows = batch_rows,
                              .no_pin = true};
}

static fixture open_card(const char *model, int batch_rows, pl_ple_placement ple)
{
    pl_engine_params params = params_of(PL_BACKEND_CUDA, batch_rows, ple);
    return fixture_open_with(model, &params);
}

/* Logits of n ids, on `path`. */
static float *logits_of(fixture *f, const char *path, int n)
{
    int32_t ids[MAX_IDS], vocab = pl_model_vocab_size(f->model);
    pl_error err;
    for (int i = 0; i < n; i++)
        ids[i] = 2 + (i * 37 + i / 11) % (vocab - 2);
    float *logits = calloc((size_t)n * (size_t)vocab, sizeof *logits);
    cr_assert_not_null(logits);
    if (path)
        cr_assert_eq(pl_session_set_path(f->session, path, PL_SWITCH_EXACT, &err), PL_OK, "%s", err.message);
    cr_assert_eq(pl_logits(f->session, ids, (size_t)n, false, logits, &err), PL_OK, "%s", err.message);
    return logits;
}

static float farthest(const float *a, const float *b, size_t n)
{
    float most = 0;
    for (size_t i = 0; i < n; i++)
        if (!(fabsf(a[i] - b[i]) <= most))
            most = fabsf(a[i] - b[i]);
    return most;
}

static void check_path(const char *model, const char *path, int n, int batch_rows)
{
    fixture cpu = fixture_open(model, 1, batch_rows), card = open_card(model, batch_rows, PL_PLE_PINNED);
    float *want = logits_of(&cpu, path, n), *got = logits_of(&card, path, n);
    float off = farthest(want, got, (size_t)n * (size_t)pl_model_vocab_size(cpu.model));
    cr_assert_leq(off, GOLDEN_LOGITS_BOUND, "%s, path %s, %d rows a step: %g", model, path ? path : "", batch_rows,
                  (double)off);
    free(want);
    free(got);
    fixture_close(&cpu);
    fixture_close(&card);
}

Test(card_engine, logits_as_on_the_cpu)
{
    static const char *const paths[] = {"e4b", "mix", "e2b"};
    for (int i = 0; i < 3; i++) {
        card_insert(CARD_ASKED, (uint64_t)i);
        check_path(DEMO_MODEL, paths[i], 24, i == 0 ? 1 : i == 1 ? 5 : 24);
    }
}

/* ---- nothing but the values decides the bits ---- */

static void expect_same_bits(fixture *f, const float *want, int n, const char *what)
{
    float *got = logits_of(f, "e4b", n);
    size_t bytes = (size_t)n * (size_t)pl_model_vocab_size(f->model) * sizeof *got;
    cr_assert_eq(memcmp(want, got, bytes), 0, "%s", what);
    free(got);
}

Test(card_engine, same_bits_wherever_the_table_is_and_whenever_work_runs)
{
    static const char *const names[] = {"", "vram", "pinned", "host", "disk"};
    enum { N = 6 };
    float *first = NULL;
    for (int ple = PL_PLE_VRAM; ple <= PL_PLE_DISK; ple++)
        for (int mode = 0; mode < CARD_MODES; mode++) {
            card_insert((card_mode)mode, (uint64_t)(10 * ple + mode));
            fixture f = open_card(DEMO_MODEL, 2, (pl_ple_placement)ple);
            if (!first)
                first = logits_of(&f, "e4b", N);
            expect_same_bits(&f, first, N, names[ple]);
            fixture_close(&f);
            cr_assert_eq(card_leftovers(), 0);
        }
    free(first);
}

/* The third time a step of one shape is queued it is a recording that runs. */
Test(card_engine, a_recorded_step_is_the_step)
{
    enum { N = 5 };
    card_insert(CARD_ANY, 3);
    fixture f = open_card(DEMO_MODEL, 1, PL_PLE_PINNED);
    float *first = logits_of(&f, "e4b", N);
    for (int i = 0; i < 3; i++)
        expect_same_bits(&f, first, N, "read again");
    free(first);
    fixture_close(&f);
}

/* ---- answers ---- */

typedef struct said {
    int32_t ids[32];
    int n;
} said;

static bool collect(void *user, const pl_token_event *event)
{
    said *s = user;
    if (event->id >= 0 && s->n < 32)
        s->ids[s->n++] = event->id;
    return true;
}

static said answer(fixture *f, const char *path, float temperature, int max_tokens)
{
    said s = {.n = 0};
    pl_error err;
    pl_tokens prompt;
    pl_message turn = {"user", "What is the capital of France?"};
    pl_generation params = pl_generation_default();
    params.sampling.temperature = temperature;
    params.sampling.seed = 7;
    params.max_tokens = max_tokens;
    params.on_token = collect;
    params.user = &s;
    cr_assert_eq(pl_session_set_path(f->session, path, PL_SWITCH_EXACT, &err), PL_OK, "%s", err.message);
    cr_assert_eq(pl_tokenize_chat(f->model, &turn, 1, true, &prompt, &err), PL_OK, "%s", err.message);
    cr_assert_eq(pl_generate(f->session, prompt.ids, prompt.n, &params, NULL, &err), PL_OK, "%s", err.message);
    pl_tokens_free(&prompt);
    return s;
}

static void expect_same_answer(fixture *cpu, fixture *card, const char *path, float temperature, int max_tokens)
{
    said want = answer(cpu, path, temperature, max_tokens), got = answer(card, path, temperature, max_tokens);
    cr_assert_eq(got.n, want.n, "%s at %g: %d tokens, expected %d", path, (double)temperature, got.n, want.n);
    cr_assert_eq(memcmp(got.ids, want.ids, (size_t)want.n * sizeof *want.ids), 0);
    cr_assert_leq(pl_session_length(card->session), 256);
}

/* Tokens are drawn on the card, and each step is queued before the token that it reads is known: to the host, and to
 * the thread that brings its row of the table. */
Test(card_engine, the_same_answers_as_on_the_cpu)
{
    static const pl_ple_placement placements[] = {PL_PLE_VRAM, PL_PLE_DISK, PL_PLE_HOST};
    static const card_mode modes[] = {CARD_STARVE, CARD_THREADED, CARD_ASKED};
    for (int i = 0; i < 3; i++) {
        card_insert(modes[i], (uint64_t)i);
        fixture cpu = fixture_open(DEMO_MODEL, 1, 0), card = open_card(DEMO_MODEL, 16, placements[i]);
        expect_same_answer(&cpu, &card, "e4b", 0, -1);
        expect_same_answer(&cpu, &card, "e2b", 1, -1);
        expect_same_answer(&cpu, &card, "mix", 0.7f, 3);
        fixture_close(&cpu);
        fixture_close(&card);
        cr_assert_eq(card_leftovers(), 0);
    }
}

/* ---- what goes wrong ---- */

/* Opens, reads and answers with a card on which something fails; whatever came of it. */
static pl_status try_all(pl_error *err)
{
    pl_model *model = NULL;
    pl_engine *engine = NULL;
    pl_session *session = NULL;
    pl_generation params = pl_generation_default();
    pl_engine_params how = params_of(PL_BACKEND_CUDA, 4, PL_PLE_HOST);
    static const int32_t prompt[] = {2, 10, 11, 12, 13, 14};
    params.max_tokens = 3;
    pl_status status = pl_model_open(PL_TEST_DATA "/" DEMO_MODEL, &model, err);
    if (status == PL_OK)
        status = pl_engine_create(model, &how, &engine, err);
    if (status == PL_OK)
        status = pl_session_create(engine, &session, err);
    if (status == PL_OK)
        status = pl_generate(session, prompt, 6, &params, NULL, err);
    pl_session_free(session);
    pl_engine_free(engine);
    pl_model_close(model);
    return status;
}

Test(card_engine, every_allocation_may_fail)
{
    pl_error err;
    card_insert(CARD_EAGER, 0);
    cr_assert_eq(try_all(&err), PL_OK, "%s", err.message);
    unsigned long long n = card_allocs();
    for (unsigned i = 1; i <= n; i++) {
        card_insert(CARD_EAGER, i);
        card_fail_alloc(i);
        pl_status status = try_all(&err);
        cr_assert_eq(status, PL_ERR_MEMORY, "allocation %u: %s: %s", i, pl_status_name(status), err.message);
        cr_assert_eq(card_leftovers(), 0, "allocation %u", i);
    }
}

Test(card_engine, any_launch_may_fail)
{
    pl_error err;
    card_insert(CARD_EAGER, 0);
    cr_assert_eq(try_all(&err), PL_OK, "%s", err.message);
    unsigned long long n = card_launches();
    for (unsigned i = 1; i <= n; i += 61) {
        card_insert(CARD_ASKED, i);
        card_fail_launch(i);
        pl_status status = try_all(&err);
        cr_assert_eq(status, PL_ERR_DEVICE, "launch %u: %s: %s", i, pl_status_name(status), err.message);
        cr_assert_eq(card_leftovers(), 0, "launch %u", i);
    }
}

/* The card goes while it works; what runs on the CPU does not notice. */
Test(card_engine, a_lost_card)
{
    pl_error err;
    fixture cpu = fixture_open(DEMO_MODEL, 1, 0);
    said before = answer(&cpu, "e4b", 0, 4);
    unsigned i = 1;
    for (pl_status status = PL_ERR_DEVICE; status != PL_OK; i += 97) {
        card_insert(i % 2 ? CARD_THREADED : CARD_ANY, i);
        card_lose(i);
        status = try_all(&err);
        cr_assert(status == PL_ERR_DEVICE || (status == PL_OK && i > 500), "piece of work %u: %s: %s", i,
                  pl_status_name(status), err.message);
        cr_assert_eq(card_leftovers(), 0, "piece of work %u", i);
    }
    said after = answer(&cpu, "e4b", 0, 4);
    cr_assert_eq(memcmp(&before, &after, sizeof before), 0);
    fixture_close(&cpu);
}

/* ---- what the plan said ---- */

Test(card_engine, takes_no_more_memory_than_was_planned)
{
    for (int ple = PL_PLE_VRAM; ple <= PL_PLE_DISK; ple++) {
        size_t before = 0, after = 0, all = 0;
        card_insert(CARD_EAGER, 0);
        cr_assert_eq(cudaMemGetInfo(&before, &all), cudaSuccess);
        fixture f = open_card(DEMO_MODEL, 16, (pl_ple_placement)ple);
        cr_assert_eq(cudaMemGetInfo(&after, &all), cudaSuccess);
        const pl_card_memory *plan = &f.engine->placement.memory;
        size_t planned = pl_card_memory_total(plan) - plan->reserve, taken = before - after;
        cr_assert_leq(taken, planned, "%zu bytes of %zu", taken, planned);
        cr_assert_geq(taken, planned / 10 * 9, "%zu bytes of %zu", taken, planned);
        fixture_close(&f);
    }
}

/* ---- how many launches ---- */

static unsigned long long launches_of_a_step(fixture *f, int32_t position)
{
    pl_session *s = f->session;
    pl_step_row row = {.token = 9, .position = position, .sequence = s->sequence, .path = &s->path, .wanted = true};
    pl_error err;
    unsigned long long before = card_launches();
    cr_assert_eq(pl_kv_extend(s->engine->kv, s->sequence, 1, &err), PL_OK, "%s", err.message);
    cr_assert_eq(pl_step_run(s->engine->step, &row, 1, NULL, NULL, &err), PL_OK, "%s", err.message);
    return card_launches() - before;
}

Test(card_engine, ten_launches_a_layer_at_most)
{
    enum { AROUND = 25 }; /* embedding, lookup, the way out and the head */
    card_insert(CARD_EAGER, 0);
    fixture f = open_card(DEMO_MODEL, 1, PL_PLE_PINNED);
    const pl_config *c = f.session->engine->config;
    unsigned long long n = launches_of_a_step(&f, 0), want = AROUND;
    for (int l = 0; l < c->n_layers; l++)
        want += isinf(c->sparsity_z[l]) ? 9 : 10; /* the cut needs the statistics of all gates */
    cr_assert_eq(n, want, "%llu launches, expected %llu", n, want);
    fixture_close(&f);
}
