/* What happens when memory runs out, at every allocation of the base in turn. */
#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

#include "host/base/arena.h"
#include "host/base/json_out.h"
#include "host/base/options.h"
#include "host/base/threads.h"
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

Test(no_memory, every_allocation)
{
    setenv("HOME", "/home/someone", 1);
    cr_assert_geq(fail_alloc_each(use_arena, NULL), 10);
    cr_assert_geq(fail_alloc_each(use_json, NULL), 4);
    cr_assert_geq(fail_alloc_each(use_options, NULL), 11);
    cr_assert_eq(fail_alloc_each(use_cache_dir, NULL), 1);
    cr_assert_eq(fail_alloc_each(use_topology, NULL), 3);
    cr_assert_eq(fail_alloc_each(use_pool, NULL), 2);
}
