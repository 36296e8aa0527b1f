/* All ranks say where their data is and meet; each then makes its share of the result, for everyone; they meet again.
 *
 * Whoever comes early spins for a while, then sleeps, like the threads of a pool (host/base/threads.c). */
#include "host/cpu/comm_local.h"

#include "host/base/clock.h"
#include "host/cpu/stream.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#define SPIN_S 50e-6
#define LINE_VALUES 16    /* shares begin at such a multiple, so that no two write the same cache line */
#define PIECE_VALUES 8192 /* of a share, a thread at a time */

typedef struct local_comm {
    pl_comm base;
    struct table *shared;
} local_comm;

/* What the ranks share. */
typedef struct table {
    local_comm end[PL_COMM_MOST];
    int size;
    atomic_int left; /* ends that are not yet destroyed */
    bool spins;
    pl_stream *stream[PL_COMM_MOST];
    void *data[PL_COMM_MOST];

    pthread_mutex_t lock;
    pthread_cond_t all_here;
    atomic_int here;
    _Atomic uint32_t round; /* meetings so far */
    atomic_bool aborted;
} table;

static bool is_over(table *t, uint32_t round)
{
    return atomic_load_explicit(&t->round, memory_order_acquire) != round || atomic_load(&t->aborted);
}

static void relax(void)
{
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#endif
}

static void wait_for_all(table *t, uint32_t round)
{
    double until = t->spins ? pl_clock_seconds() + SPIN_S : 0;
    while (t->spins && pl_clock_seconds() < until)
        for (int i = 0; i < 32; i++, relax())
            if (is_over(t, round))
                return;
    pthread_mutex_lock(&t->lock);
    while (!is_over(t, round))
        pthread_cond_wait(&t->all_here, &t->lock);
    pthread_mutex_unlock(&t->lock);
}

/* False: the comm was aborted. */
static bool meet(table *t)
{
    uint32_t round = atomic_load(&t->round);
    if (atomic_fetch_add(&t->here, 1) + 1 < t->size) {
        wait_for_all(t, round);
    } else {
        atomic_store(&t->here, 0);
        pthread_mutex_lock(&t->lock);
        atomic_store(&t->round, round + 1);
        pthread_cond_broadcast(&t->all_here);
        pthread_mutex_unlock(&t->lock);
    }
    return !atomic_load(&t->aborted);
}

/* ---- sums ---- */

typedef struct sum_job {
    const table *t;
    int64_t first; /* of the share */
} sum_job;

static void sum_floats(void *ctx, int64_t begin, int64_t end, int thread)
{
    (void)thread;
    const sum_job *j = ctx;
    float sum[LINE_VALUES];
    for (int64_t at = begin; at < end; at += LINE_VALUES) {
        int64_t n = end - at < LINE_VALUES ? end - at : LINE_VALUES, from = j->first + at;
        memcpy(sum, (const float *)j->t->data[0] + from, (size_t)n * sizeof *sum);
        for (int r = 1; r < j->t->size; r++)
            for (int64_t i = 0; i < n; i++)
                sum[i] += ((const float *)j->t->data[r])[from + i];
        for (int r = 0; r < j->t->size; r++)
            memcpy((float *)j->t->data[r] + from, sum, (size_t)n * sizeof *sum);
    }
}

static void sum_doubles(void *ctx, int64_t begin, int64_t end, int thread)
{
    (void)thread;
    const sum_job *j = ctx;
    for (int64_t i = j->first + begin; i < j->first + end; i++) {
        double sum = ((const double *)j->t->data[0])[i];
        for (int r = 1; r < j->t->size; r++)
            sum += ((const double *)j->t->data[r])[i];
        for (int r = 0; r < j->t->size; r++)
            ((double *)j->t->data[r])[i] = sum;
    }
}

static void sum(pl_comm *c, pl_stream *s, void *data, size_t n, pl_pool_fn share)
{
    table *t = ((local_comm *)c)->shared;
    size_t lines = (n + LINE_VALUES - 1) / LINE_VALUES, size = (size_t)c->size, rank = (size_t)c->rank;
    size_t first = lines * rank / size * LINE_VALUES, end = lines * (rank + 1) / size * LINE_VALUES;
    t->data[rank] = data;
    if (!meet(t))
        return;
    sum_job job = {t, (int64_t)first};
    pl_pool_for(s->pool, (int64_t)(end < n ? end : n) - (int64_t)first, PIECE_VALUES, share, &job);
    meet(t);
}

static void local_sum_f32(pl_comm *c, pl_stream *s, float *data, size_t n)
{
    sum(c, s, data, n, sum_floats);
}

static void local_sum_f64(pl_comm *c, pl_stream *s, double *data, size_t n)
{
    sum(c, s, data, n, sum_doubles);
}

static void local_broadcast(pl_comm *c, pl_stream *s, void *data, size_t bytes, int root)
{
    (void)s;
    table *t = ((local_comm *)c)->shared;
    t->data[c->rank] = data;
    if (!meet(t))
        return;
    if (c->rank != root)
        memcpy(data, t->data[root], bytes);
    meet(t);
}

/* ---- life ---- */

static void local_abort(pl_comm *c)
{
    table *t = ((local_comm *)c)->shared;
    pthread_mutex_lock(&t->lock);
    atomic_store(&t->aborted, true);
    for (int i = 0; i < t->size; i++)
        atomic_store(&t->stream[i]->lost, true);
    pthread_cond_broadcast(&t->all_here);
    pthread_mutex_unlock(&t->lock);
}

static void local_destroy(pl_comm *c)
{
    table *t = ((local_comm *)c)->shared;
    if (atomic_fetch_sub(&t->left, 1) > 1)
        return;
    pthread_cond_destroy(&t->all_here);
    pthread_mutex_destroy(&t->lock);
    free(t);
}

/* Spinning pays only where every rank's threads have a processor. */
static bool has_room(pl_backend *const *backends, int n)
{
    int threads = 0;
    for (int i = 0; i < n; i++)
        threads += pl_pool_threads(backends[i]->pool);
    return pl_threads_have_room(threads);
}

pl_status pl_comm_create_local(pl_backend *const *backends, int n, pl_comm **out, pl_error *err)
{
    static const pl_comm functions = {.sum_f32 = local_sum_f32,
                                      .sum_f64 = local_sum_f64,
                                      .broadcast = local_broadcast,
                                      .abort = local_abort,
                                      .destroy = local_destroy};
    table *t = calloc(1, sizeof *t);
    if (!t)
        return pl_fail_memory(err, sizeof *t, "ranks");
    t->size = n;
    atomic_init(&t->left, n);
    t->spins = has_room(backends, n);
    pthread_mutex_init(&t->lock, NULL);
    pthread_cond_init(&t->all_here, NULL);
    for (int i = 0; i < n; i++) {
        t->stream[i] = backends[i]->stream;
        t->end[i] = (local_comm){functions, t};
        t->end[i].base.rank = i;
        t->end[i].base.size = n;
        out[i] = &t->end[i].base;
    }
    return PL_OK;
}
