/* The demo model's sparse layers: a step of few rows reads of them what it needs and gives the logits of one that is
 * looked at, which computes everything. */
#include "tests/engine/goldens.h"

#include "host/base/rng.h"
#include "host/engine/engine.h"

#include <criterion/criterion.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#define STEPS 12
#define MOST_ROWS 64

static void look(void *user, const pl_trace_tensor *tensor)
{
    *(int *)user += tensor->rows > 0;
}

/* STEPS steps of n tokens of a new sequence; seen NULL: nobody looks. */
static void run(const fixture *f, const pl_path *path, int n, int *seen, float *logits)
{
    pl_engine *e = f->engine;
    pl_error err;
    pl_rng rng;
    int32_t id;
    size_t vocab = (size_t)e->config->vocab;
    pl_rng_seed(&rng, 5);
    cr_assert_eq(pl_kv_open(e->kv, &id, &err), PL_OK, "%s", err.message);
    for (int step = 0; step < STEPS; step++) {
        pl_step_row rows[MOST_ROWS];
        for (int i = 0; i < n; i++)
            rows[i] = (pl_step_row){.token = (int32_t)(pl_rng_next(&rng) % vocab),
                                    .position = step * n + i,
                                    .sequence = id,
                                    .path = path,
                                    .wanted = true};
        cr_assert_eq(pl_kv_extend(e->kv, id, n, &err), PL_OK, "%s", err.message);
        cr_assert_eq(pl_step_run(e->step, rows, n, seen ? look : NULL, seen, &err), PL_OK, "%s", err.message);
        for (int i = 0; i < n; i++, logits += vocab) {
            const float *row;
            cr_assert_eq(pl_step_logits(e->step, i, 1, &row, &err), PL_OK);
            memcpy(logits, row, vocab * sizeof *row);
        }
    }
    pl_kv_close(e->kv, id);
}

static void check(const fixture *f, const char *name, int n)
{
    pl_error err;
    pl_path path;
    const pl_backend *b = f->engine->backend;
    size_t values = (size_t)(STEPS * n) * (size_t)f->engine->config->vocab;
    float *alone = malloc(values * sizeof *alone), *shown = malloc(values * sizeof *shown);
    cr_assert(alone && shown);
    cr_assert_eq(pl_path_parse(f->engine->model->checkpoint, name, &path, &err), PL_OK, "%s", err.message);
    int seen = 0;
    pl_skipped before = b->skipped(b);
    run(f, &path, n, &seen, shown);
    cr_assert(seen > 0);
    cr_assert_eq(b->skipped(b).products, before.products, "%s: something was left out of a step that is looked at",
                 name);
    run(f, &path, n, NULL, alone);
    if (n <= PL_SPARSE_ROWS || b->ops->ffn_sparse_many)
        cr_assert_gt(b->skipped(b).products, before.products, "%s, %d rows: nothing was left out", name, n);
    else
        cr_assert_eq(b->skipped(b).products, before.products, "%s, %d rows", name, n);
    cr_assert_eq(memcmp(alone, shown, values * sizeof *alone), 0, "%s, %d rows", name, n);
    free(alone);
    free(shown);
}

Test(sparse, logits_are_those_of_the_whole_product)
{
    static const char *const paths[] = {"e4b", "mix", "e2b"};
    static const int rows[] = {1, 3, PL_SPARSE_ROWS, PL_SPARSE_ROWS + 1, 20, 40, MOST_ROWS};
    for (int threads = 1; threads <= 3; threads += 2) {
        fixture f = fixture_open(DEMO_MODEL, threads, MOST_ROWS);
        pl_session_free(f.session); /* its place is needed */
        f.session = NULL;
        for (int p = 0; p < 3; p++)
            for (int r = 0; r < 7; r++)
                check(&f, paths[p], rows[r]);
        fixture_close(&f);
    }
}
