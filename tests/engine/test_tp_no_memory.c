/* An engine of ranks from its making to the end of an answer, with each allocation made to fail in turn. */
#include "tests/unit/fail_alloc.h"

#include <criterion/criterion.h>

static pl_status answer(pl_engine *engine, pl_error *err)
{
    int32_t prompt[] = {2, 600, 700, 800};
    pl_session *session = NULL;
    PL_TRY(pl_session_create(engine, &session, err));
    pl_generation params = pl_generation_default();
    params.max_tokens = 2;
    pl_status status = pl_generate(session, prompt, 4, &params, NULL, err);
    pl_session_free(session);
    return status;
}

static pl_status run(void *ctx, pl_error *err)
{
    pl_engine *engine = NULL;
    pl_engine_params params = {.tp = 2, .threads = 2, .context = 64, .batch_rows = 8, .sessions = 1, .no_pin = true};
    PL_TRY(pl_engine_create(ctx, &params, &engine, err));
    pl_status status = answer(engine, err);
    pl_engine_free(engine);
    return status;
}

Test(tp_no_memory, every_allocation)
{
    static char folder[] = PL_TEST_DATA "/golden/text/e2b";
    pl_model *model = NULL;
    pl_error err;
    cr_assert_eq(pl_model_open(folder, &model, &err), PL_OK, "%s", err.message);
    cr_assert_geq(fail_alloc_each(run, model), 60);
    pl_model_close(model);
}
