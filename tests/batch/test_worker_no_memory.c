/* A worker, and a request from within, when allocations fail. */
#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

#include "host/batch/worker.h"
#include "tests/unit/fail_alloc.h"

/* ---- a request --------------------------------------------------------------------------------- */

static const pl_http_route no_routes[] = {{.method = NULL}};

static void count(void *user, int status, const char *request_id, const char *body, size_t n)
{
    cr_assert(status == 0 && n == 0 && *body == '\0' && strncmp(request_id, "req-", 4) == 0);
    ++*(int *)user;
}

/* The body is the caller's until the request is taken. */
static pl_status ask(void *ctx, pl_error *err)
{
    const pl_http_params params = {.host = NULL};
    pl_http *http = NULL;
    int times = 0;
    (void)ctx;
    PL_TRY(pl_http_create(&params, no_routes, NULL, &http, err));
    char *body = strdup("body");
    pl_status status = body ? pl_http_request_inside(http, "POST", "/echo", body, 4, count, &times, err)
                            : pl_fail_memory(err, 5, "a body");
    if (status != PL_OK)
        free(body);
    pl_http_free(http);
    cr_assert_eq(times, status == PL_OK);
    return status;
}

Test(worker_no_memory, a_request_from_within)
{
    cr_assert_geq(fail_alloc_each(ask, NULL), 7);
}

/* ---- a worker ---------------------------------------------------------------------------------- */

static pl_model *model;
static pl_engine *engines[2];

static pl_status create(void *ctx, pl_error *err)
{
    pl_worker *worker = NULL;
    const pl_worker_params params = {.model = model,
                                     .engines = engines,
                                     .n_engines = 2,
                                     .service = {.name = "demo", .path = "e4b", .sampling = pl_sampling_default()}};
    (void)ctx;
    PL_TRY(pl_worker_create(&params, &worker, err));
    pl_worker_free(worker);
    return PL_OK;
}

Test(worker_no_memory, a_worker)
{
    const pl_engine_params params = {
        .backend = PL_BACKEND_CPU, .sessions = 2, .threads = 1, .context = 128, .no_pin = true};
    cr_assert_eq(pl_model_open(PL_TEST_DATA "/../tools/demo_model/demo.gguf", &model, NULL), PL_OK);
    for (int i = 0; i < 2; i++)
        cr_assert_eq(pl_engine_create(model, &params, &engines[i], NULL), PL_OK);
    cr_assert_gt(fail_alloc_each(create, NULL), 40);
    for (int i = 0; i < 2; i++)
        pl_engine_free(engines[i]);
    pl_model_close(model);
}
