#include "tests/engine/goldens.h"

#include <criterion/criterion.h>
#include <stdio.h>
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
