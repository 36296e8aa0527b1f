/* From opening a model to the end of an answer, with each allocation made to fail in turn. */
#include "tests/unit/fail_alloc.h"

#include <criterion/criterion.h>

/* The tokenizer's cache swallows failures on purpose, so the model is opened outside. */
typedef struct work {
    pl_model *model;
} work;

static pl_status answer(pl_engine *engine, pl_error *err)
{
    static const char *const stop[] = {"\n\n"};
    int32_t prompt[] = {2, 600, 700, 800};
    pl_session *session = NULL;
    PL_TRY(pl_session_create(engine, &session, err));
    pl_generation params = pl_generation_default();
    params.max_tokens = 3;
    params.stop = stop;
    params.n_stop = 1;
    params.n_logprobs = 2;
    params.sampling.repeat_penalty = 1.1f;
    params.sampling.dry_multiplier = 0.5f;
    pl_status status = pl_generate(session, prompt, 4, &params, NULL, err);
    pl_session_free(session);
    return status;
}

static pl_status run(void *ctx, pl_error *err)
{
    work *w = ctx;
    pl_engine *engine = NULL;
    pl_engine_params params = {.threads = 2, .context = 64, .batch_rows = 8, .no_pin = true};
    PL_TRY(pl_engine_create(w->model, &params, &engine, err));
    pl_status status = answer(engine, err);
    pl_engine_free(engine);
    return status;
}

static pl_status run_two(void *ctx, pl_error *err)
{
    work *w = ctx;
    pl_engine *engines[2];
    pl_engine_params params = {.backend = PL_BACKEND_CPU, .threads = 1, .context = 64, .batch_rows = 8};
    PL_TRY(pl_engines_create(w->model, &params, NULL, 2, engines, err));
    for (int i = 0; i < 2; i++)
        pl_engine_free(engines[i]);
    return PL_OK;
}

static void check(fail_alloc_fn what)
{
    static char folder[] = PL_TEST_DATA "/golden/text/e2b";
    work w = {0};
    pl_error err;
    cr_assert_eq(pl_model_open(folder, &w.model, &err), PL_OK, "%s", err.message);
    cr_assert_geq(fail_alloc_each(what, &w), 20);
    pl_model_close(w.model);
}

Test(engine_no_memory, every_allocation)
{
    check(run);
}

Test(engine_no_memory, engines_made_side_by_side)
{
    check(run_two);
}
