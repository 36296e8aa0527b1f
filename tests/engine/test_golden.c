/* The engine against transformers: logits, intermediates, greedy answers, switches between paths. */
#include "tests/engine/goldens.h"

#include "host/engine/trace.h"

#include <criterion/criterion.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void check_variant(const golden_variant *v, int batch_rows)
{
    static const char *const prompts[] = {"p0", "p1", "p2"};
    fixture f = fixture_open(v->checkpoint, 2, batch_rows);
    fixture_path(&f, v->path);
    for (int p = 0; p < 3; p++) {
        char name[64];
        snprintf(name, sizeof name, "%s.%s", v->name, prompts[p]);
        golden g = golden_open(name);
        int64_t n;
        const int32_t *ids = golden_i32(&g, "input_ids", &n);
        float *logits = fixture_logits(&f, ids, n, false);
        golden_check_logits(&g, logits, 0, pl_model_vocab_size(f.model), name);
        free(logits);
        golden_close(&g);
    }
    fixture_close(&f);
}

Test(golden, logits_on_every_path_for_any_chunk)
{
    static const int chunks[] = {1, 3, 16, 17, 512};
    for (size_t i = 0; i < GOLDEN_VARIANTS; i++)
        for (size_t c = 0; c < sizeof chunks / sizeof *chunks; c++)
            check_variant(&golden_variants[i], chunks[c]);
}

/* ---- intermediates ---- */

typedef struct comparison {
    const golden *g;
    int compared;
} comparison;

static void compare(void *user, const pl_trace_tensor *t)
{
    comparison *c = user;
    if (!golden_find(c->g, t->name))
        return;
    int64_t n;
    const float *want = golden_f32(c->g, t->name, &n);
    cr_assert_eq(n, t->streams * t->rows * t->width, "%s: %ld values, expected %ld", t->name,
                 (long)(t->streams * t->rows * t->width), (long)n);
    double square = 0;
    for (int64_t i = 0; i < n; i++)
        square += (double)want[i] * want[i];
    double bound = GOLDEN_TENSOR_BOUND * sqrt(square / (double)n);
    for (int64_t i = 0; i < n; i++)
        cr_assert(fabs((double)t->v[i] - want[i]) <= bound, "%s[%ld]: %g, expected %g (bound %g)", t->name, (long)i,
                  (double)t->v[i], (double)want[i], bound);
    c->compared++;
}

/* All recorded tensors but the ids, the logits and the greedy run. */
static int recorded_tensors(const golden *g)
{
    int n = 0;
    for (size_t i = 0; i < g->file.tensors.n; i++) {
        const char *name = g->file.tensors.items[i].name;
        n += strncmp(name, "greedy", 6) && strncmp(name, "logits", 6) && strcmp(name, "input_ids");
    }
    return n;
}

Test(golden, intermediates_on_every_path)
{
    for (size_t i = 0; i < GOLDEN_VARIANTS; i++) {
        char name[64];
        snprintf(name, sizeof name, "%s.p0", golden_variants[i].name);
        golden g = golden_open(name);
        fixture f = fixture_open(golden_variants[i].checkpoint, 2, 0);
        fixture_path(&f, golden_variants[i].path);
        comparison c = {&g, 0};
        pl_session_trace(f.session, compare, &c);
        int64_t n;
        const int32_t *ids = golden_i32(&g, "input_ids", &n);
        free(fixture_logits(&f, ids, n, false));
        cr_assert_eq(c.compared, recorded_tensors(&g), "%s: %d tensors of %d compared", name, c.compared,
                     recorded_tensors(&g));
        fixture_close(&f);
        golden_close(&g);
    }
}

/* ---- greedy answers ---- */

Test(golden, greedy_answers_on_every_path)
{
    static const char *const prompts[] = {"p0", "p1", "p2"};
    for (size_t i = 0; i < GOLDEN_VARIANTS; i++)
        for (int p = 0; p < 3; p++) {
            char name[64];
            snprintf(name, sizeof name, "%s.%s", golden_variants[i].name, prompts[p]);
            golden g = golden_open(name);
            fixture f = fixture_open(golden_variants[i].checkpoint, 2, 7);
            fixture_path(&f, golden_variants[i].path);
            int64_t n;
            const int32_t *ids = golden_i32(&g, "input_ids", &n);
            golden_check_greedy(&f, &g, ids, n);
            fixture_close(&f);
            golden_close(&g);
        }
}

/* ---- switches in the middle of a sequence ---- */

static void check_switch(const char *from, const char *to, int batch_rows)
{
    char name[64];
    snprintf(name, sizeof name, "switch.%s-%s", from, to);
    golden g = golden_open(name);
    fixture f = fixture_open("e4b", 2, batch_rows);
    int64_t n, one, vocab = pl_model_vocab_size(f.model);
    const int32_t *ids = golden_i32(&g, "input_ids", &n);
    int64_t at = *golden_i32(&g, "switch_at", &one);
    fixture_path(&f, golden_path(from));
    free(fixture_logits(&f, ids, at, false));
    fixture_path(&f, golden_path(to));
    float *logits = fixture_logits(&f, ids + at, n - at, true);
    golden_check_logits(&g, logits, at, vocab, name);
    free(logits);
    golden_check_greedy(&f, &g, ids, n);
    fixture_close(&f);
    golden_close(&g);
}

Test(golden, switches_keep_the_cache)
{
    static const char *const pairs[][2] = {
        {"e2b", "e4b"}, {"e4b", "e2b"}, {"e4b", "tail"}, {"tail", "e4b"}, {"mnm", "e2b"}};
    for (size_t i = 0; i < sizeof pairs / sizeof *pairs; i++) {
        check_switch(pairs[i][0], pairs[i][1], 0);
        check_switch(pairs[i][0], pairs[i][1], 5);
    }
}

/* An exact switch reads the tokens again: as if the new path had read everything. */
Test(golden, exact_switch_equals_a_pure_run)
{
    golden g = golden_open("e2b.p0");
    fixture f = fixture_open("e4b", 2, 0);
    int64_t n;
    const int32_t *ids = golden_i32(&g, "input_ids", &n);
    free(fixture_logits(&f, ids, n - 3, false));
    pl_error err;
    cr_assert_eq(pl_session_set_path(f.session, "e2b", PL_SWITCH_EXACT, &err), PL_OK, "%s", err.message);
    golden_check_greedy(&f, &g, ids, n);
    fixture_close(&f);
    golden_close(&g);
}
