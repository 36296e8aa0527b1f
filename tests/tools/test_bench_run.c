/* What a run of `pleiad bench` counts is what it names: sequences side by side, a row of each in every step. */
#include "tests/engine/goldens.h"
#include "tools/bench_run.h"

#include <criterion/criterion.h>
#include <stdlib.h>

enum { BATCH = 16 };

typedef struct machine {
    fixture fixture;
    pl_bench_machine bench;
    pl_op_timer *timer;
    int32_t *tokens;
} machine;

static machine open_machine(const pl_bench_case *c, int32_t batch_rows, int32_t context)
{
    pl_engine_params params = {.backend = PL_BACKEND_CPU,
                               .threads = 1,
                               .no_pin = true,
                               .sessions = c->parallel + 1,
                               .context = context,
                               .batch_rows = batch_rows};
    machine m = {.fixture = fixture_open_with(DEMO_MODEL, &params),
                 .tokens = calloc((size_t)pl_bench_tokens(c), sizeof *m.tokens)};
    cr_assert_not_null(m.tokens);
    for (int32_t i = 0; i < pl_bench_tokens(c); i++)
        m.tokens[i] = 200 + 7 * i % 500;
    cr_assert_eq(pl_op_timer_create(m.fixture.engine, &m.timer, NULL), PL_OK);
    m.bench = (pl_bench_machine){m.fixture.engine, m.fixture.session, m.tokens, m.timer};
    return m;
}

static void close_machine(machine *m)
{
    pl_op_timer_free(m->timer);
    free(m->tokens);
    fixture_close(&m->fixture);
}

/* Each step that counts has a row of every sequence, wherever the others stood when the last began. */
static void check_rows(const pl_bench_case *c, int32_t batch_rows)
{
    machine m = open_machine(c, batch_rows, pl_bench_context(c, batch_rows));
    for (int run = 0; run < 2; run++) {
        double rate = 0;
        pl_error err = {0};
        pl_op_timer_clear(m.timer);
        cr_assert_eq(pl_bench_run(&m.bench, c, &rate, &err), PL_OK, "%d x %d behind %d: %s", c->parallel, c->n_gen,
                     c->depth, err.message);
        pl_op_times t = pl_op_timer_read(m.timer);
        cr_assert_gt(rate, 0);
        cr_assert_eq(t.steps, c->n_gen, "%d x %d behind %d: %lld steps", c->parallel, c->n_gen, c->depth,
                     (long long)t.steps);
        cr_assert_eq(t.rows, t.steps * c->parallel, "%d x %d behind %d: %lld rows in %lld steps", c->parallel, c->n_gen,
                     c->depth, (long long)t.rows, (long long)t.steps);
    }
    close_machine(&m);
}

Test(bench_run, all_sequences_are_under_way_while_the_clock_runs)
{
    static const pl_bench_case cases[] = {
        {.n_gen = 5, .parallel = 2},
        {.n_gen = 6, .parallel = 16},
        {.n_gen = 16, .depth = 24, .parallel = 4},
        {.n_gen = 3, .depth = 40, .parallel = 8},
        {.n_gen = 3, .depth = 150, .parallel = 2},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        for (int32_t batch_rows = BATCH; batch_rows <= 8 * BATCH; batch_rows *= 8)
            check_rows(&cases[i], batch_rows);
}

Test(bench_run, sequences_that_cannot_run_side_by_side_are_no_measurement)
{
    static const pl_bench_case c = {.n_gen = 16, .depth = 40, .parallel = 4};
    double rate = 0;
    pl_error err;
    machine m = open_machine(&c, BATCH, c.depth + 4);
    cr_assert_eq(pl_bench_run(&m.bench, &c, &rate, &err), PL_ERR_CONTEXT);
    cr_assert_str_eq(err.message, "4 sequences did not run side by side for 16 tokens");
    close_machine(&m);
}
