/* The timer of ops: it changes no bit, misses no op, and counts what the shapes say. */
#include "tests/engine/goldens.h"

#include "host/engine/session.h"
#include "host/engine/step_parts.h"
#include "host/measure/op_timer.h"

#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

#define TOKENS 24

static const int32_t ids[TOKENS] = {2,  9,  33, 71, 5,  18, 44, 90, 3,   12,  7,  55,
                                    21, 60, 8,  14, 99, 31, 6,  77, 101, 250, 17, 40};

static float *logits_of(fixture *f, size_t n)
{
    pl_error err;
    float *logits = malloc(n * (size_t)f->engine->config->vocab * sizeof *logits);
    cr_assert_not_null(logits);
    cr_assert_eq(pl_logits(f->session, ids, n, false, logits, &err), PL_OK, "%s", err.message);
    return logits;
}

static pl_op_timer *timer_of(fixture *f)
{
    pl_op_timer *timer;
    pl_error err;
    cr_assert_eq(pl_op_timer_create(f->engine, &timer, &err), PL_OK, "%s", err.message);
    return timer;
}

static const pl_counted *find(const pl_op_times *t, const char *op)
{
    for (int i = 0; i < t->counts->n; i++)
        if (!strcmp(t->counts->op[i].op, op))
            return &t->counts->op[i];
    return NULL;
}

static double stored_bytes(const pl_op_times *t)
{
    double sum = 0;
    for (int i = 0; i < t->counts->n; i++)
        sum += t->counts->op[i].stored_bytes;
    return sum;
}

/* Many rows and one at a time, which may go through other ops. */
Test(op_timer, changes_nothing)
{
    fixture f = fixture_open(DEMO_MODEL, 2, 0);
    size_t vocab = (size_t)f.engine->config->vocab;
    float *expected = logits_of(&f, TOKENS), *alone = logits_of(&f, 1);
    pl_op_timer *timer = timer_of(&f);
    for (int on = 0; on < 2; on++) {
        if (on)
            pl_op_timer_start(timer);
        float *found = logits_of(&f, TOKENS), *found_alone = logits_of(&f, 1);
        cr_assert_arr_eq(found, expected, TOKENS * vocab * sizeof *found);
        cr_assert_arr_eq(found_alone, alone, vocab * sizeof *alone);
        free(found);
        free(found_alone);
    }
    pl_op_timer_free(timer);
    float *found = logits_of(&f, TOKENS);
    cr_assert_arr_eq(found, expected, TOKENS * vocab * sizeof *found);
    free(found);
    free(expected);
    free(alone);
    fixture_close(&f);
}

static void compare_tables(const void *real, const void *timed, size_t bytes, const char *table)
{
    static const char nothing[sizeof(void (*)(void))];
    for (size_t at = 0; at < bytes; at += sizeof nothing) {
        bool there = memcmp((const char *)real + at, nothing, sizeof nothing) != 0;
        bool seen = memcmp((const char *)timed + at, nothing, sizeof nothing) != 0;
        cr_assert_eq(there, seen, "%s op %zu", table, at / sizeof nothing);
    }
}

Test(op_timer, offers_what_the_backend_does)
{
    fixture f = fixture_open(DEMO_MODEL, 1, 0);
    pl_op_timer *timer = timer_of(&f);
    const pl_backend *real = f.engine->backend, *timed = f.engine->step->backend;
    cr_assert_neq(timed, real);
    compare_tables(real->ops, timed->ops, sizeof *real->ops, "single");
    cr_assert_eq(real->fused != NULL, timed->fused != NULL);
    if (real->fused)
        compare_tables(real->fused, timed->fused, sizeof *real->fused, "fused");
    pl_op_timer_free(timer);
    cr_assert_eq(f.engine->step->backend, real);
    cr_assert_eq(f.engine->step->ops, real->ops);
    fixture_close(&f);
}

/* The whole path reads each packed weight once a step; one token more has one key more to read in each layer. */
Test(op_timer, counts_what_shapes_say)
{
    fixture f = fixture_open(DEMO_MODEL, 2, 0);
    const pl_config *c = f.engine->config;
    pl_op_timer *timer = timer_of(&f);
    pl_op_timer_start(timer);
    free(logits_of(&f, 1));
    pl_op_timer_stop(timer);
    free(logits_of(&f, TOKENS)); /* not counted */
    pl_op_times t = pl_op_timer_read(timer);
    cr_assert_eq(t.steps, 1);
    cr_assert_eq(t.rows, 1);
    cr_assert_gt(t.seconds, 0);
    double weights = (double)pl_session_token_bytes(f.session), least = 0.5 * weights;
    double keys = 2.0 * c->n_layers * c->n_kv_heads * (double)pl_kv_head_bytes(PL_CACHE_F32, c->head_dim) / PL_KV_PAGE;
    cr_assert_leq(stored_bytes(&t), weights + keys);
    cr_assert_geq(stored_bytes(&t), least);
    const pl_counted *head = find(&t, "matmul token_embd");
    cr_assert_not_null(head);
    cr_assert_eq(head->calls, 1);
    cr_assert_eq(head->int_ops, 2.0 * c->vocab * c->hidden);

    double inside = 0;
    for (int i = 0; i < t.counts->n; i++)
        inside += t.counts->op[i].seconds;
    cr_assert_leq(inside, t.seconds);
    pl_op_timer_clear(timer);
    cr_assert_eq(pl_op_timer_read(timer).steps, 0);
    cr_assert_eq(pl_op_timer_read(timer).counts->n, 0);
    pl_op_timer_free(timer);
    fixture_close(&f);
}
