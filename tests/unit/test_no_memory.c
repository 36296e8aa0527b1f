/* What happens when memory runs out, at every allocation of the base in turn. */
#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

#include "host/base/arena.h"
#include "host/base/json_out.h"
#include "host/base/options.h"
#include "host/base/threads.h"
#include "host/base/timeline.h"
#include "host/base/topology.h"
#include "tests/unit/fail_alloc.h"

static pl_status use_arena(void *ctx, pl_error *err)
{
    pl_arena *arena;
    (void)ctx;
    PL_TRY(pl_arena_create(256, &arena, err));
    bool ok = true;
    for (size_t i = 0; ok && i < 20; i++)
        ok = pl_arena_take(arena, i, 31) != NULL;
    ok = ok && pl_arena_text(arena, "x", 1);
    cr_assert(pl_arena_check(arena));
    pl_arena_free(arena);
    return ok ? PL_OK : pl_fail_memory(err, 0, "block");
}

static pl_status use_json(void *ctx, pl_error *err)
{
    pl_json json = pl_json_to_buffer();
    char *text;
    (void)ctx;
    pl_json_begin_array(&json);
    for (int i = 0; i < 100; i++)
        pl_json_string(&json, "some text");
    pl_json_end_array(&json);
    PL_TRY(pl_json_take(&json, &text, NULL, err));
    free(text);
    return PL_OK;
}

static pl_status use_options(void *ctx, pl_error *err)
{
    static char *argv[] = {
        "pleiad", "run", "-m", "x", "-r", "a", "-r", "b", "-r", "c", "--logit-bias", "1+1", "--dry-sequence-breaker",
        ":",      NULL};
    static char *logits[] = {"pleiad", "debug", "logits", "-m",       "x",     "--ids",
                             "a",      "--out", "b",      "--switch", "1:e2b", NULL};
    pl_options options;
    (void)ctx;
    PL_TRY(pl_options_parse(14, argv, &options, err));
    pl_options_free(&options);
    PL_TRY(pl_options_parse(11, logits, &options, err));
    pl_options_free(&options);
    return PL_OK;
}

static pl_status use_cache_dir(void *ctx, pl_error *err)
{
    char *dir;
    (void)ctx;
    PL_TRY(pl_cache_dir(&dir, err));
    free(dir);
    return PL_OK;
}

static pl_status use_topology(void *ctx, pl_error *err)
{
    pl_topology *topology;
    (void)ctx;
    PL_TRY(pl_topology_open(PL_TEST_DATA "/topology/vm-2.xml", &topology, err));
    pl_topology_close(topology);
    return PL_OK;
}

static pl_status use_pool(void *ctx, pl_error *err)
{
    pl_pool *pool;
    (void)ctx;
    PL_TRY(pl_pool_create(3, NULL, &pool, err));
    pl_pool_free(pool);
    return PL_OK;
}

/* Recording never fails: what cannot be kept is counted as dropped. */
static pl_status use_timeline(void *ctx, pl_error *err)
{
    pl_timeline *t;
    char text[512] = "";
    (void)ctx;
    PL_TRY(pl_timeline_create(5000, &t, err));
    for (int i = 0; i < 5000; i++)
        pl_timeline_instant(t, PL_TIMELINE_MAIN, "event", 0);
    FILE *file = tmpfile();
    cr_assert_not_null(file);
    pl_status status = pl_timeline_print(t, file, "trace", err);
    rewind(file);
    size_t n = fread(text, 1, sizeof text - 1, file);
    cr_assert_eq(n > 0, status == PL_OK);
    fclose(file);
    pl_timeline_free(t);
    if (status == PL_OK && !strstr(text, "\"dropped_events\":0"))
        return pl_fail_memory(err, 0, "events");
    return status;
}

Test(no_memory, every_allocation)
{
    setenv("HOME", "/home/someone", 1);
    cr_assert_geq(fail_alloc_each(use_arena, NULL), 10);
    cr_assert_geq(fail_alloc_each(use_json, NULL), 4);
    cr_assert_geq(fail_alloc_each(use_options, NULL), 11);
    cr_assert_eq(fail_alloc_each(use_cache_dir, NULL), 1);
    cr_assert_eq(fail_alloc_each(use_topology, NULL), 2);
    cr_assert_eq(fail_alloc_each(use_pool, NULL), 2);
    cr_assert_eq(fail_alloc_each(use_timeline, NULL), 5);
}
