#include "host/engine/row_cache.h"

#include "host/base/rng.h"
#include "tests/unit/fail_alloc.h"

#include <criterion/criterion.h>
#include <string.h>

#define IDS 50
#define ROW 13

static void write_row(void *row, int32_t id)
{
    memset(row, id + 1, ROW);
}

static void expect_row(const void *row, int32_t id)
{
    unsigned char want[ROW];
    write_row(want, id);
    cr_assert_eq(memcmp(row, want, ROW), 0, "row %d", id);
}

static bool use(pl_row_cache *cache, int32_t id)
{
    cr_assert_eq(pl_row_cache_has(cache, id), pl_row_cache_find(cache, id) != NULL);
    const void *row = pl_row_cache_find(cache, id);
    if (row)
        expect_row(row, id);
    else
        write_row(pl_row_cache_put(cache, id), id);
    return row != NULL;
}

static pl_row_cache *cache_of(size_t bytes)
{
    pl_row_cache *cache = NULL;
    cr_assert_eq(pl_row_cache_create(IDS, ROW, bytes, &cache, NULL), PL_OK);
    return cache;
}

/* The plainest cache there is: ids from the one used last to the one used longest ago. */
typedef struct model {
    int32_t id[IDS];
    int n, most;
} model;

static bool model_use(model *m, int32_t id)
{
    int at = 0;
    while (at < m->n && m->id[at] != id)
        at++;
    bool there = at < m->n;
    if (!there && m->n < m->most)
        m->n++;
    if (!there)
        at = m->n - 1;
    memmove(m->id + 1, m->id, (size_t)at * sizeof *m->id);
    m->id[0] = id;
    return there;
}

Test(row_cache, keeps_what_was_used_last)
{
    static const int sizes[] = {1, 2, 3, 7, IDS - 1, IDS};
    for (size_t s = 0; s < sizeof sizes / sizeof *sizes; s++) {
        pl_row_cache *cache = cache_of((size_t)sizes[s] * ROW + ROW - 1);
        model m = {.most = sizes[s]};
        pl_rng rng;
        pl_rng_seed(&rng, s);
        for (int i = 0; i < 5000; i++) {
            double u = pl_rng_uniform(&rng);
            int32_t id = (int32_t)(u * u * IDS);
            cr_assert_eq(use(cache, id), model_use(&m, id), "%d places, use %d: %d", sizes[s], i, id);
        }
        pl_row_cache_free(cache);
    }
}

Test(row_cache, the_oldest_goes)
{
    pl_row_cache *cache = cache_of(3 * ROW);
    for (int32_t id = 0; id < 3; id++)
        cr_assert_not(use(cache, id));
    cr_assert(use(cache, 0));
    cr_assert_not(use(cache, 3));
    cr_assert(pl_row_cache_has(cache, 0) && pl_row_cache_has(cache, 2) && pl_row_cache_has(cache, 3));
    cr_assert_not(pl_row_cache_has(cache, 1));
    cr_assert(use(cache, 2) && use(cache, 0) && use(cache, 3));
    pl_row_cache_free(cache);
}

/* No more rows than there are, however much memory; and one at least. */
Test(row_cache, sizes)
{
    pl_row_cache *all = cache_of(SIZE_MAX), *one = cache_of(0);
    for (int round = 0; round < 2; round++)
        for (int32_t id = 0; id < IDS; id++) {
            cr_assert_eq(use(all, id), round == 1);
            cr_assert_not(use(one, id));
            cr_assert(use(one, id));
        }
    pl_row_cache_free(all);
    pl_row_cache_free(one);
    pl_row_cache_free(NULL);
}

static pl_status create(void *ctx, pl_error *err)
{
    (void)ctx;
    pl_row_cache *cache;
    PL_TRY(pl_row_cache_create(IDS, ROW, 1000, &cache, err));
    pl_row_cache_free(cache);
    return PL_OK;
}

Test(row_cache, no_memory)
{
    cr_assert_eq(fail_alloc_each(create, NULL), 4);
}
