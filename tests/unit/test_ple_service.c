/* The thread that brings rows, with the test in the card's place: it waits for tickets and reads the ring. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif

#include "host/engine/ple_service.h"

#include "host/base/clock.h"
#include "host/base/rng.h"
#include "tests/unit/fail_alloc.h"

#include <criterion/criterion.h>
#include <pthread.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

#define VOCAB 100
#define ROW 20
#define STRIDE 32
#define MAX_ROWS 9

typedef struct bench {
    char *table; /* pages of their own, as a mapped file's */
    char ring[PL_PLE_SLOTS][MAX_ROWS][STRIDE];
    uint32_t ready;
    pl_row_cache *cache;
    pl_ple_service *service;
} bench;

static void brief_pause(void)
{
    nanosleep(&(struct timespec){.tv_nsec = 2000000}, NULL);
}

static bench *set_up(size_t cache_rows, bool read_ahead)
{
    bench *b = calloc(1, sizeof *b);
    cr_assert_not_null(b);
    b->table = mmap(NULL, VOCAB * ROW, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    cr_assert_neq(b->table, MAP_FAILED);
    for (int i = 0; i < VOCAB * ROW; i++)
        b->table[i] = (char)(i * 7 + i / ROW);
    if (cache_rows)
        cr_assert_eq(pl_row_cache_create(VOCAB, ROW, cache_rows * ROW, &b->cache, NULL), PL_OK);
    pl_ple_service_params params = {.rows = b->table,
                                    .row_bytes = ROW,
                                    .vocab = VOCAB,
                                    .cache = b->cache,
                                    .read_ahead = read_ahead,
                                    .ring = b->ring[0][0],
                                    .row_stride = STRIDE,
                                    .max_rows = MAX_ROWS,
                                    .ready = &b->ready};
    pl_error err;
    cr_assert_eq(pl_ple_service_start(&params, &b->service, &err), PL_OK, "%s", err.message);
    return b;
}

static void tear_down(bench *b)
{
    pl_ple_service_stop(b->service);
    pl_row_cache_free(b->cache);
    munmap(b->table, VOCAB * ROW);
    free(b);
}

static bool is_ready(bench *b, uint32_t ticket)
{
    return (int32_t)(__atomic_load_n(&b->ready, __ATOMIC_ACQUIRE) - ticket) >= 0;
}

static void expect_rows(bench *b, uint32_t ticket, const int32_t *rows, int n)
{
    while (!is_ready(b, ticket))
        sched_yield();
    for (int i = 0; i < n; i++)
        cr_assert_eq(memcmp(b->ring[ticket % PL_PLE_SLOTS][i], b->table + rows[i] * ROW, ROW), 0, "ticket %u, row %d",
                     ticket, i);
}

static uint32_t ask_ids(bench *b, const int32_t *ids, int n)
{
    pl_ple_want wants[MAX_ROWS];
    for (int i = 0; i < n; i++)
        wants[i] = (pl_ple_want){.id = ids[i]};
    return pl_ple_service_ask(b->service, wants, n);
}

static void random_ids(pl_rng *rng, int32_t *ids, int n)
{
    for (int i = 0; i < n; i++)
        ids[i] = (int32_t)(pl_rng_next(rng) % VOCAB);
}

/* As many steps ahead as the ring has slots; tickets are counted from 1. */
static void stream_of_steps(size_t cache_rows, bool read_ahead)
{
    bench *b = set_up(cache_rows, read_ahead);
    int32_t ids[PL_PLE_SLOTS][MAX_ROWS];
    pl_rng rng;
    pl_rng_seed(&rng, 3);
    for (uint32_t t = 1; t < 400; t++) {
        if (t > PL_PLE_SLOTS)
            expect_rows(b, t - PL_PLE_SLOTS, ids[t % PL_PLE_SLOTS], (int)((t - PL_PLE_SLOTS) % (MAX_ROWS + 1)));
        int n = (int)(t % (MAX_ROWS + 1));
        random_ids(&rng, ids[t % PL_PLE_SLOTS], n);
        cr_assert_eq(ask_ids(b, ids[t % PL_PLE_SLOTS], n), t);
    }
    tear_down(b);
}

Test(ple_service, brings_rows_in_order)
{
    stream_of_steps(0, false);
    stream_of_steps(0, true);
    stream_of_steps(1, true);
    stream_of_steps(10, false);
}

Test(ple_service, ids_outside_the_table_are_row_0)
{
    bench *b = set_up(4, true);
    pl_drawn failed = {.token = -1, .count = 1};
    pl_ple_want wants[] = {{.id = -1}, {.id = VOCAB}, {.id = INT32_MIN}, {.drawn = &failed, .count = 1}};
    expect_rows(b, pl_ple_service_ask(b->service, wants, 4), (int32_t[]){0, 0, 0, 0}, 4);
    tear_down(b);
}

/* ---- drawn ids ---- */

typedef struct drawer {
    pthread_t thread;
    bench *bench;
    pl_drawn drawn[MAX_ROWS];
    int32_t ids[50][MAX_ROWS];
    uint32_t first;
} drawer;

/* Draws a step's ids one by one, and only when the rows of the step before are there, as a card does. */
static void *draw(void *arg)
{
    drawer *d = arg;
    for (uint32_t step = 0; step < 50; step++) {
        if (step > 0)
            expect_rows(d->bench, step, d->ids[step - 1], MAX_ROWS);
        for (int i = 0; i < MAX_ROWS; i++) {
            if (step % 10 == 3 && i == 4)
                brief_pause();
            pl_drawn next = {.token = d->ids[step][i], .count = d->first + step};
            __atomic_store_n(&d->drawn[i].both, next.both, __ATOMIC_RELEASE);
        }
    }
    return NULL;
}

/* The counts pass from 2^32 - 1 to 0. */
Test(ple_service, waits_for_ids_that_are_drawn)
{
    double begun = pl_clock_seconds();
    bench *b = set_up(0, false);
    drawer d = {.bench = b, .first = UINT32_MAX - 20};
    pl_rng rng;
    pl_rng_seed(&rng, 4);
    random_ids(&rng, d.ids[0], 50 * MAX_ROWS);
    for (int i = 0; i < MAX_ROWS; i++)
        d.drawn[i] = (pl_drawn){.token = 77, .count = d.first - 1};
    cr_assert_eq(pthread_create(&d.thread, NULL, draw, &d), 0);
    for (uint32_t step = 0; step < 50; step++) {
        pl_ple_want wants[MAX_ROWS];
        for (int i = 0; i < MAX_ROWS; i++)
            wants[i] = (pl_ple_want){.drawn = &d.drawn[i], .count = d.first + step};
        cr_assert_eq(pl_ple_service_ask(b->service, wants, MAX_ROWS), step + 1);
    }
    expect_rows(b, 50, d.ids[49], MAX_ROWS);
    pthread_join(d.thread, NULL);
    pl_ple_stats stats = pl_ple_service_stats(b->service);
    cr_assert(stats.wait_s > 0 && stats.wait_s < pl_clock_seconds() - begun, "%g s", stats.wait_s);
    tear_down(b);
}

/* Nothing is flagged before all of a step's ids are known, nor the step behind it. */
Test(ple_service, one_late_id_keeps_all_back)
{
    bench *b = set_up(0, false);
    pl_drawn late = {.token = 5, .count = 8};
    pl_ple_want wants[] = {{.id = 1}, {.drawn = &late, .count = 9}, {.id = 2}};
    uint32_t first = pl_ple_service_ask(b->service, wants, 3), second = ask_ids(b, (int32_t[]){3}, 1);
    brief_pause();
    cr_assert_not(is_ready(b, first) || is_ready(b, second));
    pl_drawn now = {.token = 6, .count = 9};
    __atomic_store_n(&late.both, now.both, __ATOMIC_RELEASE);
    expect_rows(b, first, (int32_t[]){1, 6, 2}, 3);
    expect_rows(b, second, (int32_t[]){3}, 1);
    tear_down(b);
}

/* ---- the cache ---- */

Test(ple_service, counts_what_it_does)
{
    bench *b = set_up(3, true);
    static const int32_t rows[][3] = {{1, 2, 3}, {3, 2, 1}, {1, 4, 1}, {2, 3, 3}};
    uint32_t ticket = 0;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        expect_rows(b, ticket = ask_ids(b, rows[i], 3), rows[i], 3);
    expect_rows(b, ask_ids(b, rows[0], 0), rows[0], 0);
    pl_ple_stats stats;
    do
        stats = pl_ple_service_stats(b->service);
    while (stats.rows < 12);
    /* Nothing is there; all is; 4 takes the place of 3; 3 takes that of 4. */
    cr_assert_eq(stats.rows, 12);
    cr_assert_eq(stats.hits, 3 + 2 + 2);
    cr_assert_eq(stats.bytes, 5 * ROW);
    cr_assert(stats.gather_s > 0 && stats.wait_s >= 0);
    tear_down(b);
}

/* ---- the end ---- */

/* Tickets of steps that are queued on the card are all flagged, so that none of them waits for ever. */
Test(ple_service, stops_while_an_id_is_awaited)
{
    bench *b = set_up(2, false);
    pl_drawn never = {.token = 0, .count = 0};
    pl_ple_want wants[] = {{.id = 1}, {.drawn = &never, .count = 1}};
    for (int i = 0; i < PL_PLE_SLOTS; i++)
        pl_ple_service_ask(b->service, wants, 2);
    brief_pause();
    cr_assert_not(is_ready(b, 1));
    pl_ple_service_stop(b->service);
    cr_assert(is_ready(b, PL_PLE_SLOTS));
    b->service = NULL;
    tear_down(b);
}

Test(ple_service, stops_at_once_and_when_idle)
{
    for (int i = 0; i < 20; i++)
        tear_down(set_up(0, false));
    bench *b = set_up(0, false);
    expect_rows(b, ask_ids(b, (int32_t[]){9}, 1), (int32_t[]){9}, 1);
    brief_pause();
    tear_down(b);
    pl_ple_service_stop(NULL);
}

/* ---- the beginning ---- */

static pl_ple_service_params nothing_to_bring(bench *b)
{
    return (pl_ple_service_params){.rows = "",
                                   .row_bytes = 1,
                                   .vocab = 1,
                                   .ring = b->ring[0][0],
                                   .row_stride = 16,
                                   .max_rows = 2,
                                   .ready = &b->ready};
}

Test(ple_service, runs_where_it_is_told)
{
    bench b = {.ready = 0};
    pl_ple_service_params params = nothing_to_bring(&b);
    cpu_set_t allowed;
    int cpus[CPU_SETSIZE], n = 0, absent[] = {CPU_SETSIZE * 3};
    cr_assert_eq(sched_getaffinity(0, sizeof allowed, &allowed), 0);
    for (int cpu = 0; cpu < CPU_SETSIZE; cpu++)
        if (CPU_ISSET(cpu, &allowed))
            cpus[n++] = cpu;
    params.cpus = cpus;
    params.n_cpus = n > 1 ? n - 1 : 1;
    cr_assert_eq(pl_ple_service_start(&params, &b.service, NULL), PL_OK);
    expect_rows(&b, 0, NULL, 0);
    pl_ple_service_stop(b.service);
    pl_error err;
    params.cpus = absent;
    params.n_cpus = 1;
    cr_assert_eq(pl_ple_service_start(&params, &b.service, &err), PL_ERR_IO);
    cr_assert_not_null(strstr(err.message, "cannot start the thread"), "%s", err.message);
}

static pl_status start_and_stop(void *ctx, pl_error *err)
{
    bench *b = ctx;
    pl_ple_service_params params = nothing_to_bring(b);
    PL_TRY(pl_ple_service_start(&params, &b->service, err));
    pl_ple_service_stop(b->service);
    return PL_OK;
}

Test(ple_service, no_memory)
{
    bench b = {.ready = 0};
    cr_assert_eq(fail_alloc_each(start_and_stop, &b), 3);
}
