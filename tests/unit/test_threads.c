#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif

#include <criterion/criterion.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "host/base/threads.h"

#define MAX_ITEMS 5000

typedef struct tally {
    int threads;
    int64_t n, grain;
    int counts[MAX_ITEMS]; /* plain: an item that two threads get is a race that TSan sees */
    atomic_int calls;
} tally;

static void count(void *ctx, int64_t begin, int64_t end, int thread)
{
    tally *t = ctx;
    cr_assert(begin >= 0 && begin < end && end <= t->n && end - begin <= t->grain);
    cr_assert(thread >= 0 && thread < t->threads);
    for (int64_t i = begin; i < end; i++)
        t->counts[i]++;
    atomic_fetch_add_explicit(&t->calls, 1, memory_order_relaxed);
}

static pl_pool *pool_of(int n)
{
    pl_pool *pool;
    pl_error err = {0};
    cr_assert_eq(pl_pool_create(n, NULL, &pool, &err), PL_OK, "%s", err.message);
    cr_assert_eq(pl_pool_threads(pool), n);
    return pool;
}

static void every_item_once(pl_pool *pool, tally *t, int64_t n, int64_t grain)
{
    memset(t->counts, 0, sizeof t->counts);
    t->n = n;
    t->grain = grain < 1 ? 1 : grain;
    t->threads = pl_pool_threads(pool);
    atomic_store(&t->calls, 0);
    pl_pool_for(pool, n, grain, count, t);
    for (int64_t i = 0; i < MAX_ITEMS; i++)
        cr_assert_eq(t->counts[i], i < n, "n %ld, grain %ld: item %ld", (long)n, (long)grain, (long)i);
    cr_assert_eq(atomic_load(&t->calls), n > 0 ? (n - 1) / t->grain + 1 : 0);
}

Test(threads, every_item_once)
{
    static const int64_t sizes[] = {-1, 0, 1, 2, 3, 7, 64, 1000, MAX_ITEMS};
    static const int64_t grains[] = {-5, 0, 1, 2, 3, 16, 999, MAX_ITEMS, INT64_MAX};
    tally *t = calloc(1, sizeof *t);
    for (int threads = 1; threads <= 9; threads += threads < 4 ? 1 : 5) {
        pl_pool *pool = pool_of(threads);
        for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++)
            for (size_t j = 0; j < sizeof grains / sizeof *grains; j++)
                every_item_once(pool, t, sizes[i], grains[j]);
        pl_pool_free(pool);
    }
    free(t);
}

static void add_one(void *ctx, int64_t begin, int64_t end, int thread)
{
    (void)thread;
    for (int64_t i = begin; i < end; i++)
        ((int64_t *)ctx)[i]++;
}

/* What a loop wrote is there when the next one starts, whoever runs it, awake or asleep. */
Test(threads, loops_follow_each_other)
{
    int64_t values[37] = {0};
    pl_pool *pool = pool_of(4);
    int rounds = 20000;
    for (int i = 0; i < rounds; i++) {
        pl_pool_for(pool, 37, 3, add_one, values);
        if (i % 5000 == 0)
            usleep(2000); /* long enough to fall asleep */
    }
    for (int i = 0; i < 37; i++)
        cr_assert_eq(values[i], rounds);
    pl_pool_free(pool);
}

Test(threads, more_threads_than_processors)
{
    int64_t values[64] = {0};
    pl_pool *pool = pool_of(16);
    for (int i = 0; i < 2000; i++)
        pl_pool_for(pool, 64, 1, add_one, values);
    for (int i = 0; i < 64; i++)
        cr_assert_eq(values[i], 2000);
    pl_pool_free(pool);
}

typedef struct nest {
    pl_pool *pool;
    atomic_int inner;
} nest;

static void in_the_same_thread(void *ctx, int64_t begin, int64_t end, int thread)
{
    nest *n = ctx;
    cr_assert(begin == 0 && end == 10 && thread == 0);
    atomic_fetch_add(&n->inner, 1);
}

static void one_piece(void *ctx, int64_t begin, int64_t end, int thread)
{
    nest *n = ctx;
    (void)begin;
    (void)end;
    (void)thread;
    pl_pool_for(n->pool, 10, 10, in_the_same_thread, n);
}

/* A loop of one piece touches nothing of the pool: it would even run within another loop. */
Test(threads, one_piece_stays_with_the_caller)
{
    nest n = {.pool = pool_of(4)};
    for (int i = 0; i < 100; i++)
        pl_pool_for(n.pool, 8, 1, one_piece, &n);
    cr_assert_eq(atomic_load(&n.inner), 800);
    pl_pool_free(n.pool);
}

typedef struct meeting {
    atomic_int arrived;
    int expected;
    int cpus[8];
} meeting;

/* Returns only when as many threads as expected are in it: nobody gets two pieces. */
static void meet(void *ctx, int64_t begin, int64_t end, int thread)
{
    meeting *m = ctx;
    (void)begin;
    (void)end;
    m->cpus[thread] = sched_getcpu();
    atomic_fetch_add(&m->arrived, 1);
    while (atomic_load(&m->arrived) < m->expected)
        sched_yield();
}

Test(threads, all_threads_help)
{
    meeting m = {.expected = 4};
    pl_pool *pool = pool_of(4);
    for (int i = 0; i < 50; i++) {
        atomic_store(&m.arrived, 0);
        pl_pool_for(pool, 4, 1, meet, &m);
        if (i % 10 == 0)
            usleep(1000);
    }
    pl_pool_free(pool);
}

Test(threads, pinned)
{
    cpu_set_t allowed;
    int cpus[4], n = 0;
    cr_assert_eq(sched_getaffinity(0, sizeof allowed, &allowed), 0);
    for (int cpu = 0; cpu < CPU_SETSIZE && n < 4; cpu++)
        if (CPU_ISSET(cpu, &allowed))
            cpus[n++] = cpu;
    for (int i = n; i < 4; i++)
        cpus[i] = cpus[0];
    pl_pool *pool;
    cr_assert_eq(pl_pool_create(4, cpus, &pool, NULL), PL_OK);
    meeting m = {.expected = 4};
    pl_pool_for(pool, 4, 1, meet, &m);
    for (int i = 1; i < 4; i++)
        cr_assert_eq(m.cpus[i], cpus[i], "thread %d", i);
    pl_pool_free(pool);
}

Test(threads, cannot_be_created)
{
    pl_pool *pool = NULL;
    pl_error err;
    cr_assert_eq(pl_pool_create(0, NULL, &pool, &err), PL_ERR_ARGUMENT);
    cr_assert_eq(pl_pool_create(5000, NULL, &pool, &err), PL_ERR_ARGUMENT);
    cpu_set_t allowed;
    cr_assert_eq(sched_getaffinity(0, sizeof allowed, &allowed), 0);
    int cpu = 0;
    while (!CPU_ISSET(cpu, &allowed))
        cpu++;
    /* The third thread fails when two are running already. */
    cr_assert_eq(pl_pool_create(4, (int[]){cpu, cpu, cpu, 100000}, &pool, &err), PL_ERR_IO);
    cr_assert_str_eq(err.message, "cannot start thread 3 of 4 on processor 100000: Invalid argument");
    cr_assert_eq(pl_pool_create(2, (int[]){cpu, -1}, &pool, &err), PL_ERR_IO);
    cr_assert_null(pool);
    pl_pool_free(NULL);
}

/* Also for the threads that it starts; none of its processors is there: refused, and nothing changes. */
Test(threads, binds_the_caller)
{
    cpu_set_t before, after;
    pl_error err;
    pl_pool *pool;
    cr_assert_eq(sched_getaffinity(0, sizeof before, &before), 0);
    int last = -1;
    for (int cpu = 0; cpu < CPU_SETSIZE; cpu++)
        last = CPU_ISSET(cpu, &before) ? cpu : last;
    cr_assert_eq(pl_thread_bind((int[]){100000}, 1, &err), PL_ERR_IO);
    cr_assert_str_eq(err.message, "a thread cannot run on its 1 processors: Invalid argument");
    cr_assert_eq(sched_getaffinity(0, sizeof after, &after), 0);
    cr_assert(CPU_EQUAL(&before, &after));
    cr_assert_eq(pl_thread_bind((int[]){last, 100000}, 2, &err), PL_OK, "%s", err.message);
    cr_assert_eq(sched_getaffinity(0, sizeof after, &after), 0);
    cr_assert(CPU_COUNT(&after) == 1 && CPU_ISSET(last, &after));
    cr_assert_eq(pl_pool_create(4, NULL, &pool, &err), PL_OK, "%s", err.message);
    meeting m = {.expected = 4};
    pl_pool_for(pool, 4, 1, meet, &m);
    for (int i = 1; i < 4; i++)
        cr_assert_eq(m.cpus[i], last, "thread %d", i);
    pl_pool_free(pool);
}
