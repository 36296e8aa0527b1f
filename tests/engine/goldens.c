#include "tests/engine/goldens.h"

#include <criterion/criterion.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

golden golden_open(const char *name)
{
    golden g;
    pl_error err;
    char path[512];
    snprintf(path, sizeof path, "%s/golden/text/golden/%s.safetensors", PL_TEST_DATA, name);
    cr_assert_eq(pl_safetensors_open(path, &g.file, &err), PL_OK, "%s", err.message);
    return g;
}

void golden_close(golden *g)
{
    pl_safetensors_close(&g->file);
}

const pl_entry *golden_find(const golden *g, const char *name)
{
    return pl_tensor_list_find(&g->file.tensors, name);
}

static const void *values(const golden *g, const char *name, int64_t *n)
{
    const pl_entry *e = golden_find(g, name);
    cr_assert_not_null(e, "no recorded tensor %s", name);
    *n = 1;
    for (int d = 0; d < e->n_dims; d++)
        *n *= e->dims[d];
    cr_assert_eq((uintptr_t)e->data % 4, 0, "%s is not aligned", name);
    return e->data;
}

const float *golden_f32(const golden *g, const char *name, int64_t *n)
{
    return values(g, name, n);
}

const int32_t *golden_i32(const golden *g, const char *name, int64_t *n)
{
    return values(g, name, n);
}

fixture fixture_open(const char *name, int threads, int batch_rows)
{
    pl_engine_params params = {.backend = PL_BACKEND_CPU, .threads = threads, .batch_rows = batch_rows, .no_pin = true};
    return fixture_open_with(name, &params);
}

fixture fixture_open_with(const char *name, const pl_engine_params *params)
{
    fixture f = {0};
    pl_error err;
    char path[512];
    snprintf(path, sizeof path, "%s/%s%s", PL_TEST_DATA, strcmp(name, DEMO_MODEL) ? "golden/text/" : "", name);
    cr_assert_eq(pl_model_open(path, &f.model, &err), PL_OK, "%s", err.message);
    cr_assert_eq(pl_engine_create(f.model, params, &f.engine, &err), PL_OK, "%s", err.message);
    cr_assert_eq(pl_session_create(f.engine, &f.session, &err), PL_OK, "%s", err.message);
    return f;
}

void fixture_close(fixture *f)
{
    pl_session_free(f->session);
    pl_engine_free(f->engine);
    pl_model_close(f->model);
}

void fixture_path(fixture *f, const char *path)
{
    pl_error err;
    if (path)
        cr_assert_eq(pl_session_set_path(f->session, path, PL_SWITCH_FAST, &err), PL_OK, "%s", err.message);
}

const golden_variant golden_variants[GOLDEN_VARIANTS] = {
    {"e4b", "e4b", NULL},       {"e4b", "e4b", "e4b"},      {"e2b", "e2b", NULL},         {"e2b", "e4b", "e2b"},
    {"e2b", "e4b", GOLDEN_E2B}, {"mnm", "e4b", GOLDEN_MNM}, {"tail", "e4b", GOLDEN_TAIL},
};

float *fixture_logits(fixture *f, const int32_t *ids, int64_t n, bool keep)
{
    pl_error err;
    float *logits = malloc((size_t)n * (size_t)pl_model_vocab_size(f->model) * sizeof *logits);
    cr_assert_not_null(logits);
    cr_assert_eq(pl_logits(f->session, ids, (size_t)n, keep, logits, &err), PL_OK, "%s", err.message);
    return logits;
}

void golden_check_logits(const golden *g, const float *got, int64_t from, int64_t vocab, const char *what)
{
    int64_t n, one;
    const float *want = golden_f32(g, "logits", &n);
    int64_t first = *golden_i32(g, "logits_from", &one);
    for (int64_t i = 0; i < n; i++) {
        int64_t at = first - from + i / vocab;
        if (at < 0)
            continue;
        float a = got[at * vocab + i % vocab];
        cr_assert(fabsf(a - want[i]) <= GOLDEN_LOGITS_BOUND, "%s: position %ld, id %ld: %g, expected %g", what,
                  (long)(first + i / vocab), (long)(i % vocab), (double)a, (double)want[i]);
    }
}

typedef struct greedy {
    const int32_t *want;
    int64_t n, at;
} greedy;

static bool expect_token(void *user, const pl_token_event *event)
{
    greedy *g = user;
    if (event->id < 0)
        return true;
    cr_assert_eq(event->id, g->want[g->at], "token %ld: %d, expected %d", (long)g->at, event->id, g->want[g->at]);
    g->at++;
    return true;
}

void golden_check_greedy(fixture *f, const golden *g, const int32_t *ids, int64_t n)
{
    greedy expected = {0};
    expected.want = golden_i32(g, "greedy_ids", &expected.n);
    pl_generation params = pl_generation_default();
    params.sampling.temperature = 0;
    params.max_tokens = (int32_t)expected.n;
    params.ignore_eos = true;
    params.on_token = expect_token;
    params.user = &expected;
    pl_error err;
    cr_assert_eq(pl_generate(f->session, ids, (size_t)n, &params, NULL, &err), PL_OK, "%s", err.message);
    cr_assert_eq(expected.at, expected.n);
}

const char *golden_path(const char *name)
{
    return !strcmp(name, "e2b")    ? GOLDEN_E2B
           : !strcmp(name, "tail") ? GOLDEN_TAIL
           : !strcmp(name, "mnm")  ? GOLDEN_MNM
                                   : "e4b";
}
