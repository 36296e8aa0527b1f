#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif

#include "host/engine/ple_service.h"

#include "host/base/clock.h"
#include "host/base/timeline.h"

#include <assert.h>
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <time.h>
#include <unistd.h>

#define SPINS 2000
#define SLEEP_NS 20000

typedef struct request {
    int n;
    pl_ple_want *rows; /* [max_rows] */
} request;

struct pl_ple_service {
    pl_ple_service_params params;
    pthread_t thread;
    request requests[PL_PLE_SLOTS];
    pl_ple_want *wants; /* of all requests */
    int32_t *ids;       /* [max_rows] of the request in work; the thread's own */
    int track;          /* of the timeline */
    atomic_bool stop;

    pthread_mutex_t lock; /* of what follows */
    pthread_cond_t asked_more, served_more;
    uint32_t asked, served; /* the last ticket given, and done with */
    pl_ple_stats stats;
};

int pl_ple_advise(const void *p, size_t bytes, int advice)
{
    uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE), start = (uintptr_t)p & ~(page - 1);
    return madvise((void *)start, (uintptr_t)p + bytes - start, advice) == 0 ? 0 : errno;
}

/* ---- the thread ---- */

static void relax(int turn)
{
    if (turn >= SPINS)
        nanosleep(&(struct timespec){.tv_nsec = SLEEP_NS}, NULL);
#if defined(__x86_64__) || defined(__i386__)
    else
        __builtin_ia32_pause();
#endif
}

/* The id of a row once it is known; false: the thread is to stop. */
static bool resolve(pl_ple_service *s, const pl_ple_want *want, int32_t *id)
{
    *id = want->id;
    for (int turn = 0; want->drawn; turn += turn < SPINS) {
        pl_drawn now = {.both = __atomic_load_n(&want->drawn->both, __ATOMIC_ACQUIRE)};
        *id = now.token;
        if ((int32_t)(now.count - want->count) >= 0)
            break;
        if (atomic_load_explicit(&s->stop, memory_order_relaxed))
            return false;
        relax(turn);
    }
    if (*id < 0 || *id >= s->params.vocab)
        *id = 0;
    return true;
}

static const char *table_row(const pl_ple_service *s, int32_t id)
{
    return s->params.rows + (size_t)id * s->params.row_bytes;
}

/* So that the file's pages come side by side and not one after the other. */
static void ask_for_all(const pl_ple_service *s, int n)
{
    for (int i = 0; i < n; i++)
        if (!s->params.cache || !pl_row_cache_has(s->params.cache, s->ids[i]))
            pl_ple_advise(table_row(s, s->ids[i]), s->params.row_bytes, MADV_WILLNEED);
}

static void gather(pl_ple_service *s, uint32_t ticket, int n, pl_ple_stats *stats)
{
    const pl_ple_service_params *p = &s->params;
    char *out = p->ring + ticket % PL_PLE_SLOTS * (size_t)p->max_rows * p->row_stride;
    if (p->read_ahead && n > 1)
        ask_for_all(s, n);
    for (int i = 0; i < n; i++, out += p->row_stride) {
        const void *row = p->cache ? pl_row_cache_find(p->cache, s->ids[i]) : NULL;
        stats->hits += row != NULL;
        if (!row) {
            stats->bytes += p->row_bytes;
            row = table_row(s, s->ids[i]);
            if (p->cache)
                row = memcpy(pl_row_cache_put(p->cache, s->ids[i]), row, p->row_bytes);
        }
        memcpy(out, row, p->row_bytes);
    }
    stats->rows += (uint64_t)n;
}

static bool serve(pl_ple_service *s, uint32_t ticket, pl_ple_stats *stats)
{
    const request *r = &s->requests[ticket % PL_PLE_SLOTS];
    double start = pl_clock_seconds();
    for (int i = 0; i < r->n; i++)
        if (!resolve(s, &r->rows[i], &s->ids[i]))
            return false;
    double known = pl_clock_seconds();
    gather(s, ticket, r->n, stats);
    __atomic_store_n(s->params.ready, ticket, __ATOMIC_RELEASE);
    double done = pl_clock_seconds();
    stats->wait_s += known - start;
    stats->gather_s += done - known;
    pl_timeline_span(s->params.timeline, s->track, "wait for ids", start, known);
    pl_timeline_span(s->params.timeline, s->track, "bring rows", known, done);
    return true;
}

static void *run(void *arg)
{
    pl_ple_service *s = arg;
    pl_ple_stats stats = {0};
    s->track = pl_timeline_track(s->params.timeline, "per-layer embeddings");
    pthread_setname_np(pthread_self(), "pleiad-ple");
    prctl(PR_SET_TIMERSLACK, 1000UL); /* the default makes short sleeps long */
    pthread_mutex_lock(&s->lock);
    for (uint32_t ticket = 1;; ticket++) {
        while (s->asked == s->served && !atomic_load(&s->stop))
            pthread_cond_wait(&s->asked_more, &s->lock);
        if (atomic_load(&s->stop))
            break;
        pthread_mutex_unlock(&s->lock);
        bool done = serve(s, ticket, &stats);
        pthread_mutex_lock(&s->lock);
        if (!done)
            break;
        s->served = ticket;
        s->stats = stats;
        pthread_cond_signal(&s->served_more);
    }
    __atomic_store_n(s->params.ready, s->asked, __ATOMIC_RELEASE);
    pthread_mutex_unlock(&s->lock);
    return NULL;
}

/* ---- the callers ---- */

uint32_t pl_ple_service_ask(pl_ple_service *s, const pl_ple_want *rows, int n)
{
    assert(n >= 0 && n <= s->params.max_rows);
    pthread_mutex_lock(&s->lock);
    while (s->asked - s->served >= PL_PLE_SLOTS)
        pthread_cond_wait(&s->served_more, &s->lock);
    uint32_t ticket = ++s->asked;
    request *r = &s->requests[ticket % PL_PLE_SLOTS];
    r->n = n;
    memcpy(r->rows, rows, (size_t)n * sizeof *rows);
    pthread_cond_signal(&s->asked_more);
    pthread_mutex_unlock(&s->lock);
    return ticket;
}

pl_ple_stats pl_ple_service_stats(pl_ple_service *s)
{
    pthread_mutex_lock(&s->lock);
    pl_ple_stats stats = s->stats;
    pthread_mutex_unlock(&s->lock);
    return stats;
}

/* ---- life ---- */

/* Signals are for the program's own threads. */
static int start_thread(pl_ple_service *s)
{
    sigset_t all, before;
    pthread_attr_t attr;
    int error = pthread_attr_init(&attr);
    if (error)
        return error;
    if (s->params.n_cpus > 0)
        error = pl_thread_bind_new(&attr, s->params.cpus, s->params.n_cpus);
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    if (!error)
        error = pthread_create(&s->thread, &attr, run, s);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    pthread_attr_destroy(&attr);
    return error;
}

static void release(pl_ple_service *s)
{
    pthread_cond_destroy(&s->asked_more);
    pthread_cond_destroy(&s->served_more);
    pthread_mutex_destroy(&s->lock);
    free(s->wants);
    free(s->ids);
    free(s);
}

pl_status pl_ple_service_start(const pl_ple_service_params *params, pl_ple_service **out, pl_error *err)
{
    pl_ple_service *s = calloc(1, sizeof *s);
    if (!s)
        return pl_fail_memory(err, sizeof *s, "rows of per-layer embeddings");
    s->params = *params;
    pthread_mutex_init(&s->lock, NULL);
    pthread_cond_init(&s->asked_more, NULL);
    pthread_cond_init(&s->served_more, NULL);
    size_t rows = (size_t)params->max_rows;
    s->wants = calloc(rows * PL_PLE_SLOTS, sizeof *s->wants);
    s->ids = calloc(rows, sizeof *s->ids);
    if (!s->wants || !s->ids) {
        release(s);
        return pl_fail_memory(err, rows * PL_PLE_SLOTS * sizeof *s->wants, "rows of per-layer embeddings");
    }
    for (size_t i = 0; i < PL_PLE_SLOTS; i++)
        s->requests[i].rows = s->wants + i * rows;
    int error = start_thread(s);
    if (error) {
        release(s);
        return pl_fail(err, PL_ERR_IO, "cannot start the thread for rows of per-layer embeddings: %s", strerror(error));
    }
    *out = s;
    return PL_OK;
}

void pl_ple_service_stop(pl_ple_service *s)
{
    if (!s)
        return;
    pthread_mutex_lock(&s->lock);
    atomic_store(&s->stop, true);
    pthread_cond_signal(&s->asked_more);
    pthread_mutex_unlock(&s->lock);
    pthread_join(s->thread, NULL);
    release(s);
}
