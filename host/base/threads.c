/* Fork and join over one shared counter.
 *
 * A loop is open while its caller may still need help. Workers enter an open loop (`gate` counts those
 * inside), take pieces until none are left, and go. The caller works too, then shuts the gate and waits
 * for those inside only: a worker that was asleep or not scheduled in time is not waited for, which is
 * what keeps loops short on a machine that others use as well.
 *
 * Waiting is a spin of SPIN_NS, then a futex: workers sleep on `epoch`, which counts loops; the caller
 * sleeps on `gate`. There is no spinning when there are more threads than processors for them. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif

#include "host/base/threads.h"

#include <assert.h>
#include <errno.h>
#include <limits.h>
#include <linux/futex.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define SPIN_NS 50000
#define LINE 64
#define MAX_THREADS 4096

#define GATE_OPEN (1u << 31)
#define GATE_CALLER_SLEEPS (1u << 30)
#define GATE_INSIDE (GATE_CALLER_SLEEPS - 1)

typedef struct worker {
    pl_pool *pool;
    pthread_t thread;
    int index;
} worker;

struct pl_pool {
    int n_threads;
    int n_started; /* workers[1..n_started] run */
    int64_t spin_ns;
    worker *workers; /* [n_threads]; 0 is the caller and has no thread */

    /* The loop. Written by the caller while the gate is shut and nobody is inside. */
    pl_pool_fn fn;
    void *ctx;
    int64_t n, grain, n_pieces;

    _Alignas(LINE) atomic_int_least64_t next_piece;
    _Alignas(LINE) _Atomic uint32_t gate;
    _Alignas(LINE) _Atomic uint32_t epoch;
    _Alignas(LINE) atomic_int sleepers; /* workers that sleep on epoch, or are about to */
    atomic_bool stop;
};

static void futex_wait(_Atomic uint32_t *word, uint32_t expected)
{
    syscall(SYS_futex, word, FUTEX_WAIT_PRIVATE, expected, NULL, NULL, 0);
}

static void futex_wake(_Atomic uint32_t *word, int n)
{
    syscall(SYS_futex, word, FUTEX_WAKE_PRIVATE, n, NULL, NULL, 0);
}

static void relax(void)
{
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#endif
}

static int64_t now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

static void work(pl_pool *pool, int thread)
{
    for (;;) {
        int64_t piece = atomic_fetch_add_explicit(&pool->next_piece, 1, memory_order_relaxed);
        if (piece >= pool->n_pieces)
            return;
        int64_t begin = piece * pool->grain;
        int64_t end = pool->n - begin > pool->grain ? begin + pool->grain : pool->n;
        pool->fn(pool->ctx, begin, end, thread);
    }
}

/* ---- workers ------------------------------------------------------------------------------------ */

static uint32_t wait_for_epoch(pl_pool *pool, uint32_t seen)
{
    uint32_t epoch;
    if (pool->spin_ns) {
        int64_t until = now_ns() + pool->spin_ns;
        do {
            for (int i = 0; i < 32; i++) {
                epoch = atomic_load_explicit(&pool->epoch, memory_order_acquire);
                if (epoch != seen)
                    return epoch;
                relax();
            }
        } while (now_ns() < until);
    }
    /* Either the caller's look at `sleepers` finds this worker, or the kernel's look at `epoch` finds the
     * new loop: both sides write first and then read, in one total order. */
    atomic_fetch_add(&pool->sleepers, 1);
    while ((epoch = atomic_load(&pool->epoch)) == seen)
        futex_wait(&pool->epoch, seen);
    atomic_fetch_sub(&pool->sleepers, 1);
    return epoch;
}

static bool enter(pl_pool *pool)
{
    uint32_t gate = atomic_load_explicit(&pool->gate, memory_order_relaxed);
    while (gate & GATE_OPEN)
        if (atomic_compare_exchange_weak_explicit(&pool->gate, &gate, gate + 1, memory_order_acquire,
                                                  memory_order_relaxed))
            return true;
    return false;
}

static void leave(pl_pool *pool)
{
    uint32_t before = atomic_fetch_sub_explicit(&pool->gate, 1, memory_order_release);
    if ((before & GATE_INSIDE) == 1 && before & GATE_CALLER_SLEEPS)
        futex_wake(&pool->gate, 1);
}

static void *run_worker(void *arg)
{
    const worker *self = arg;
    pl_pool *pool = self->pool;
    char name[16];
    snprintf(name, sizeof name, "pleiad-%d", self->index);
    pthread_setname_np(pthread_self(), name);
    for (uint32_t epoch = 0;;) {
        epoch = wait_for_epoch(pool, epoch);
        if (atomic_load_explicit(&pool->stop, memory_order_relaxed))
            return NULL;
        if (enter(pool)) {
            work(pool, self->index);
            leave(pool);
        }
    }
}

/* ---- the caller --------------------------------------------------------------------------------- */

static void begin_epoch(pl_pool *pool, int64_t helpers)
{
    atomic_fetch_add(&pool->epoch, 1);
    if (atomic_load(&pool->sleepers) > 0)
        futex_wake(&pool->epoch, helpers < INT_MAX ? (int)helpers : INT_MAX);
}

static void wait_until_empty(pl_pool *pool)
{
    if (pool->spin_ns) {
        int64_t until = now_ns() + pool->spin_ns;
        do {
            for (int i = 0; i < 32; i++) {
                if (!(atomic_load_explicit(&pool->gate, memory_order_acquire) & GATE_INSIDE))
                    return;
                relax();
            }
        } while (now_ns() < until);
    }
    uint32_t gate = atomic_fetch_or(&pool->gate, GATE_CALLER_SLEEPS) | GATE_CALLER_SLEEPS;
    while (gate & GATE_INSIDE) {
        futex_wait(&pool->gate, gate);
        gate = atomic_load_explicit(&pool->gate, memory_order_acquire);
    }
}

void pl_pool_for(pl_pool *pool, int64_t n, int64_t grain, pl_pool_fn fn, void *ctx)
{
    if (n <= 0)
        return;
    if (grain < 1)
        grain = 1;
    if (n <= grain) {
        fn(ctx, 0, n, 0);
        return;
    }
    assert(atomic_load_explicit(&pool->gate, memory_order_relaxed) == 0);
    pool->fn = fn;
    pool->ctx = ctx;
    pool->n = n;
    pool->grain = grain;
    pool->n_pieces = (n - 1) / grain + 1;
    atomic_store_explicit(&pool->next_piece, 0, memory_order_relaxed);
    atomic_store_explicit(&pool->gate, GATE_OPEN, memory_order_release);
    if (pool->n_threads > 1)
        begin_epoch(pool, pool->n_pieces - 1);
    work(pool, 0);
    uint32_t before = atomic_fetch_and_explicit(&pool->gate, ~GATE_OPEN, memory_order_acquire);
    if (before & GATE_INSIDE)
        wait_until_empty(pool);
    atomic_store_explicit(&pool->gate, 0, memory_order_relaxed);
}

/* ---- life --------------------------------------------------------------------------------------- */

static bool all_different(int n, const int *cpus)
{
    for (int i = 0; i < n; i++)
        for (int j = 0; j < i; j++)
            if (cpus[i] == cpus[j])
                return false;
    return true;
}

bool pl_threads_have_room(int n)
{
    long online = sysconf(_SC_NPROCESSORS_ONLN);
    cpu_set_t allowed;
    if (sched_getaffinity(0, sizeof allowed, &allowed) == 0)
        online = CPU_COUNT(&allowed);
    return n <= online;
}

static int start_on(worker *w, pthread_attr_t *attr, const int *cpu)
{
    int error = cpu ? pl_thread_bind_new(attr, cpu, 1) : 0;
    return error ? error : pthread_create(&w->thread, attr, run_worker, w);
}

static pl_status start_workers(pl_pool *pool, const int *cpus, pl_error *err)
{
    for (int i = 1; i < pool->n_threads; i++) {
        pthread_attr_t attr;
        int error = pthread_attr_init(&attr);
        if (!error) {
            pool->workers[i] = (worker){.pool = pool, .index = i};
            error = start_on(&pool->workers[i], &attr, cpus ? &cpus[i] : NULL);
            pthread_attr_destroy(&attr);
        }
        if (error && cpus)
            return pl_fail(err, PL_ERR_IO, "cannot start thread %d of %d on processor %d: %s", i, pool->n_threads,
                           cpus[i], strerror(error));
        if (error)
            return pl_fail(err, PL_ERR_IO, "cannot start thread %d of %d: %s", i, pool->n_threads, strerror(error));
        pool->n_started = i;
    }
    return PL_OK;
}

pl_status pl_pool_create(int n_threads, const int *cpus, pl_pool **out, pl_error *err)
{
    if (n_threads < 1 || n_threads > MAX_THREADS)
        return pl_fail(err, PL_ERR_ARGUMENT, "%d threads: from 1 to %d are possible", n_threads, MAX_THREADS);
    pl_pool *pool = aligned_alloc(LINE, sizeof *pool);
    if (!pool)
        return pl_fail_memory(err, sizeof *pool, "threads");
    memset(pool, 0, sizeof *pool);
    pool->n_threads = n_threads;
    bool alone = !cpus || all_different(n_threads, cpus);
    pool->spin_ns = alone && pl_threads_have_room(n_threads) ? SPIN_NS : 0;
    pool->workers = calloc((size_t)n_threads, sizeof *pool->workers);
    if (!pool->workers) {
        free(pool);
        return pl_fail_memory(err, (size_t)n_threads * sizeof *pool->workers, "threads");
    }
    /* Signals are for the program's own threads. */
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    pl_status status = start_workers(pool, cpus, err);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (status != PL_OK) {
        pl_pool_free(pool);
        return status;
    }
    *out = pool;
    return PL_OK;
}

void pl_pool_free(pl_pool *pool)
{
    if (!pool)
        return;
    atomic_store_explicit(&pool->stop, true, memory_order_relaxed);
    begin_epoch(pool, INT_MAX);
    for (int i = 1; i <= pool->n_started; i++)
        pthread_join(pool->workers[i].thread, NULL);
    free(pool->workers);
    free(pool);
}

/* NULL: no memory, or (errno) a number that is none. CPU_FREE(). */
static cpu_set_t *make_set(const int *cpus, int n, size_t *bytes)
{
    int most = 0;
    for (int i = 0; i < n; i++) {
        if (cpus[i] < 0) {
            errno = EINVAL;
            return NULL;
        }
        most = cpus[i] > most ? cpus[i] : most;
    }
    cpu_set_t *set = CPU_ALLOC((size_t)most + 1);
    *bytes = CPU_ALLOC_SIZE((size_t)most + 1);
    if (!set)
        return NULL;
    CPU_ZERO_S(*bytes, set);
    for (int i = 0; i < n; i++)
        CPU_SET_S((size_t)cpus[i], *bytes, set);
    return set;
}

int pl_thread_bind_new(pthread_attr_t *attr, const int *cpus, int n)
{
    size_t bytes;
    errno = ENOMEM;
    cpu_set_t *set = make_set(cpus, n, &bytes);
    if (!set)
        return errno;
    int error = pthread_attr_setaffinity_np(attr, bytes, set);
    CPU_FREE(set);
    return error;
}

pl_status pl_thread_bind(const int *cpus, int n, pl_error *err)
{
    size_t bytes;
    errno = ENOMEM;
    cpu_set_t *set = make_set(cpus, n, &bytes);
    int error = set && sched_setaffinity(0, bytes, set) == 0 ? 0 : errno;
    if (set)
        CPU_FREE(set);
    return error ? pl_fail(err, error == ENOMEM ? PL_ERR_MEMORY : PL_ERR_IO,
                           "a thread cannot run on its %d processors: %s", n, strerror(error))
                 : PL_OK;
}

int pl_pool_threads(const pl_pool *pool)
{
    return pool->n_threads;
}
