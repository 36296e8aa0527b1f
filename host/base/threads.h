/* A pool of threads that work on one loop at a time.
 *
 * The caller is thread 0 and works too. Between loops the others spin for a short while, then sleep, so
 * that back-to-back loops start within a microsecond and an idle engine costs nothing. */
#ifndef PL_BASE_THREADS_H
#define PL_BASE_THREADS_H

#include <pthread.h>

#include "host/base/status.h"

typedef struct pl_pool pl_pool;

/* cpus: the processor for each thread, or NULL to leave them unpinned (see topology.h). The caller is not
 * ours to pin: cpus[0] is only kept free for it. Fails when a thread cannot run on its processor. */
pl_status pl_pool_create(int n_threads, const int *cpus, pl_pool **out, pl_error *err);
void pl_pool_free(pl_pool *pool);
int pl_pool_threads(const pl_pool *pool);

/* Lets the calling thread, and threads that it starts from now on, run only on these processors. */
pl_status pl_thread_bind(const int *cpus, int n, pl_error *err);

/* The same for a thread that is yet to be started. Returns 0, or an errno. */
int pl_thread_bind_new(pthread_attr_t *attr, const int *cpus, int n);

/* Whether the calling thread may use as many processors: only then do waiting threads spin. */
bool pl_threads_have_room(int n);

/* Works on items [begin, end); thread in [0, pl_pool_threads()). */
typedef void (*pl_pool_fn)(void *ctx, int64_t begin, int64_t end, int thread);

/* Calls fn over [0, n) in pieces of at most `grain` items, each item exactly once, handed out by demand;
 * returns when all are done. One caller at a time. Never allocates. */
void pl_pool_for(pl_pool *pool, int64_t n, int64_t grain, pl_pool_fn fn, void *ctx);

#endif
