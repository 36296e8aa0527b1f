/* Ranks on the CPU: sums in the order of the ranks, the same on all; an abort ends every wait. */
#include "host/base/cpu.h"
#include "host/base/rng.h"
#include "host/ops/comm.h"
#include "tests/unit/fail_alloc.h"

#include <criterion/criterion.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#define MOST 5

static const pl_backend_shape shape = {.max_rows = 1, .max_context = 64, .heads = {2, 1, 16}, .vocab = 8};

typedef struct ranks {
    int n;
    pl_backend *backend[MOST];
    pl_comm *comm[MOST];
} ranks;

typedef struct rank_work {
    ranks *of;
    int rank;
    void (*run)(struct rank_work *w);
    size_t n;
    float *floats;
    double *doubles;
    int rounds;
} rank_work;

static ranks open_ranks(int n, int threads)
{
    ranks r = {.n = n};
    pl_error err;
    for (int i = 0; i < n; i++)
        cr_assert_eq(pl_backend_cpu(&shape, threads, NULL, PL_CPU_ALL, &r.backend[i], &err), PL_OK, "%s", err.message);
    cr_assert_eq(pl_comm_create(r.backend, n, r.comm, &err), PL_OK, "%s", err.message);
    for (int i = 0; i < n; i++)
        cr_assert(r.comm[i]->rank == i && r.comm[i]->size == n);
    return r;
}

static void close_ranks(ranks *r)
{
    for (int i = 0; i < r->n; i++)
        pl_comm_free(r->comm[i]);
    for (int i = 0; i < r->n; i++)
        pl_backend_free(r->backend[i]);
}

static void *run_rank(void *arg)
{
    rank_work *w = arg;
    w->run(w);
    return NULL;
}

static void run_all(rank_work *work, int n)
{
    pthread_t thread[MOST];
    for (int i = 0; i < n; i++)
        cr_assert_eq(pthread_create(&thread[i], NULL, run_rank, &work[i]), 0);
    for (int i = 0; i < n; i++)
        pthread_join(thread[i], NULL);
}

/* ---- results ---- */

static void sum_and_broadcast(rank_work *w)
{
    pl_comm *c = w->of->comm[w->rank];
    pl_stream *s = w->of->backend[w->rank]->stream;
    for (int round = 0; round < w->rounds; round++) {
        c->sum_f32(c, s, w->floats, w->n);
        c->sum_f64(c, s, w->doubles, w->n);
        if (w->rank != round % c->size)
            memset(w->floats, 0xff, w->n * sizeof *w->floats);
        c->broadcast(c, s, w->floats, w->n * sizeof *w->floats, round % c->size);
    }
}

static void check_sums(int n, int threads, size_t values, int rounds)
{
    ranks r = open_ranks(n, threads);
    rank_work work[MOST];
    float *floats = calloc((size_t)(n + 1) * values + 1, sizeof *floats), *sum = floats + (size_t)n * values;
    double *doubles = calloc((size_t)(n + 1) * values + 1, sizeof *doubles), *double_sum = doubles + (size_t)n * values;
    pl_rng rng;
    pl_rng_seed(&rng, values + (size_t)n);
    cr_assert(floats && doubles);
    for (size_t i = 0; i < (size_t)n * values; i++)
        doubles[i] = floats[i] = (float)(pl_rng_uniform(&rng) - 0.5);
    for (int i = 0; i < n; i++)
        work[i] = (rank_work){
            &r, i, sum_and_broadcast, values, floats + (size_t)i * values, doubles + (size_t)i * values, rounds};
    for (size_t i = 0; i < values; i++) {
        sum[i] = floats[i];
        double_sum[i] = doubles[i];
        for (int k = 1; k < n; k++) {
            sum[i] += floats[(size_t)k * values + i];
            double_sum[i] += doubles[(size_t)k * values + i];
        }
        for (int round = 1; round < rounds; round++) {
            float same = sum[i];
            double same_double = double_sum[i];
            for (int k = 1; k < n; k++) {
                sum[i] += same;
                double_sum[i] += same_double;
            }
        }
    }
    run_all(work, n);
    for (int i = 0; i < n; i++) {
        cr_assert_arr_eq(work[i].floats, sum, values * sizeof *sum, "rank %d of %d, %zu values", i, n, values);
        cr_assert_arr_eq(work[i].doubles, double_sum, values * sizeof *double_sum, "rank %d of %d", i, n);
    }
    free(floats);
    free(doubles);
    close_ranks(&r);
}

Test(comm, sums_in_the_order_of_ranks_on_all)
{
    static const size_t values[] = {0, 1, 15, 16, 17, 100, 4097, 100003};
    for (int n = 1; n <= MOST; n++)
        for (size_t i = 0; i < sizeof values / sizeof *values; i++)
            check_sums(n, 1 + n % 2, values[i], 1);
}

Test(comm, many_meetings)
{
    check_sums(2, 1, 40, 2000);
    check_sums(MOST, 1, 40, 60);
}

/* ---- the end ---- */

static void sum_until_lost(rank_work *w)
{
    pl_comm *c = w->of->comm[w->rank];
    pl_backend *b = w->of->backend[w->rank];
    pl_error err;
    for (int round = 0; w->rank > 0 || round < w->rounds; round++) {
        c->sum_f32(c, b->stream, w->floats, w->n);
        if (b->wait_for(b->stream, b->mark(b->stream), &err) != PL_OK)
            return;
    }
    c->abort(c);
}

Test(comm, abort_ends_all_that_wait)
{
    float data[MOST][64] = {{0}};
    for (int n = 2; n <= MOST; n++)
        for (int rounds = 0; rounds < 3; rounds++) {
            ranks r = open_ranks(n, 1);
            rank_work work[MOST];
            for (int i = 0; i < n; i++)
                work[i] = (rank_work){&r, i, sum_until_lost, 64, data[i], NULL, rounds};
            run_all(work, n);
            for (int i = 0; i < n; i++) {
                pl_backend *b = r.backend[i];
                pl_error err;
                cr_assert_eq(b->wait_for(b->stream, 1, &err), PL_ERR_DEVICE);
                cr_assert_str_eq(err.message, "another rank of this engine has failed");
                cr_assert_eq(b->fetch(b->stream, NULL, 0, NULL, &err), PL_ERR_DEVICE);
            }
            close_ranks(&r);
        }
}

/* ---- refusals ---- */

Test(comm, refuses_what_cannot_work_together)
{
    pl_error err;
    pl_backend *b[2] = {NULL, NULL};
    pl_comm *comm[PL_COMM_MOST + 1];
    for (int i = 0; i < 2; i++)
        cr_assert_eq(pl_backend_cpu(&shape, 1, NULL, PL_CPU_ALL, &b[i], &err), PL_OK, "%s", err.message);
    cr_assert_eq(pl_comm_create(b, 0, comm, &err), PL_ERR_ARGUMENT);
    cr_assert_eq(pl_comm_create(b, PL_COMM_MOST + 1, comm, &err), PL_ERR_ARGUMENT);
    pl_backend other = *b[1];
    other.comm_create = NULL;
    pl_backend *mixed[2] = {b[0], &other}, *none[2] = {&other, &other};
    cr_assert_eq(pl_comm_create(mixed, 2, comm, &err), PL_ERR_UNSUPPORTED);
    cr_assert_eq(pl_comm_create(none, 2, comm, &err), PL_ERR_UNSUPPORTED);
    for (int i = 0; i < 2; i++)
        pl_backend_free(b[i]);
}

static pl_status create_and_free(void *ctx, pl_error *err)
{
    ranks *r = ctx;
    PL_TRY(pl_comm_create(r->backend, r->n, r->comm, err));
    for (int i = 0; i < r->n; i++)
        pl_comm_free(r->comm[i]);
    return PL_OK;
}

Test(comm, every_allocation_may_fail)
{
    ranks r = open_ranks(3, 1), again = r;
    cr_assert_eq(fail_alloc_each(create_and_free, &again), 1);
    close_ranks(&r);
}
