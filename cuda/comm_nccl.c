#include "cuda/comm_nccl.h"

#include "cuda/kernels.h"
#include "cuda/nccl.h"
#include "cuda/recordings.h"
#include "host/ops/devices.h"

#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#define LET_GO_S 2
#define GATHERED_BYTES ((size_t)1 << 20) /* of each rank at once */

/* One card's. */
struct pl_cuda_end {
    pl_comm base;
    struct team *team;
    pl_backend *backend;
    pthread_mutex_t lock;       /* held in NCCL's functions */
    _Atomic(pl_nccl_comm) comm; /* NULL: aborted */
    pthread_t aborter;
    bool aborts;    /* aborter is there */
    void *gathered; /* [size] of GATHERED_BYTES; NULL of up to two ranks */
};

typedef struct team {
    pl_nccl nccl;
    atomic_bool aborted;
    atomic_int left; /* ends that are not destroyed */
    pl_cuda_end ends[PL_COMM_MOST];
} team;

static pl_cuda_end *inside(pl_comm *c)
{
    return (pl_cuda_end *)c;
}

/* ---- giving up ---- */

/* A call that connects cards for the first time returns only when all have come to it, or when it is aborted. */
static bool lock_for_a_while(pthread_mutex_t *lock)
{
    struct timespec until;
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += LET_GO_S;
    return pthread_mutex_timedlock(lock, &until) == 0;
}

/* NCCL stops the work at once, but comes back only when no recording holds any of it. */
static void *abort_one(void *arg)
{
    pl_cuda_end *e = arg;
    bool locked = lock_for_a_while(&e->lock);
    pl_nccl_comm comm = atomic_exchange(&e->comm, NULL);
    if (locked)
        pthread_mutex_unlock(&e->lock);
    e->team->nccl.CommAbort(comm);
    return NULL;
}

static void abort_all(team *t)
{
    sigset_t all, before;
    if (atomic_exchange(&t->aborted, true))
        return;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    for (int i = 0; i < t->ends[0].base.size; i++) {
        pl_cuda_end *e = &t->ends[i];
        e->aborts = pthread_create(&e->aborter, NULL, abort_one, e) == 0;
        if (!e->aborts)
            abort_one(e);
    }
    pthread_sigmask(SIG_SETMASK, &before, NULL);
}

static void abort_op(pl_comm *c)
{
    abort_all(inside(c)->team);
}

void pl_cuda_comm_look(pl_stream *s)
{
    pl_cuda_end *e = s->comm;
    team *t = e->team;
    int result = PL_NCCL_SUCCESS;
    pthread_mutex_lock(&e->lock);
    if (e->comm && t->nccl.CommGetAsyncError(e->comm, &result) == PL_NCCL_SUCCESS && result == PL_NCCL_IN_PROGRESS)
        result = PL_NCCL_SUCCESS;
    pthread_mutex_unlock(&e->lock);
    if (atomic_load(&t->aborted)) {
        pl_card_fail(s->card, "work with other cards", "given up, since one of them has failed");
    } else if (result != PL_NCCL_SUCCESS) {
        pl_card_fail(s->card, "work with other cards", t->nccl.GetErrorString(result));
        abort_all(t);
    }
}

/* ---- work ---- */

static bool enter(pl_cuda_end *e, pl_stream *s)
{
    if (!pl_card_ready(s->card))
        return false;
    pthread_mutex_lock(&e->lock);
    if (!atomic_load(&e->team->aborted))
        return true;
    pthread_mutex_unlock(&e->lock);
    return false;
}

static void leave(pl_cuda_end *e, pl_stream *s, const char *call, int result)
{
    pthread_mutex_unlock(&e->lock);
    if (result != PL_NCCL_SUCCESS && result != PL_NCCL_IN_PROGRESS)
        pl_card_fail(s->card, call, e->team->nccl.GetErrorString(result));
}

static void reduce(pl_cuda_end *e, pl_stream *s, void *data, size_t n, int type)
{
    if (n && enter(e, s))
        leave(e, s, "ncclAllReduce", e->team->nccl.AllReduce(data, data, n, type, PL_NCCL_SUM, e->comm, s->queue));
}

static bool gather(pl_cuda_end *e, pl_stream *s, const void *data, size_t n, int type)
{
    if (!enter(e, s))
        return false;
    leave(e, s, "ncclAllGather", e->team->nccl.AllGather(data, e->gathered, n, type, e->comm, s->queue));
    return pl_card_ready(s->card);
}

static size_t smaller(size_t a, size_t b)
{
    return a < b ? a : b;
}

/* The order in which NCCL adds up a value depends on where it stands, and so would a row's bits on the rows beside it; of two
 * there is only one order. */
static void sum_f32(pl_comm *c, pl_stream *s, float *data, size_t n)
{
    pl_cuda_end *e = inside(c);
    if (!e->gathered)
        reduce(e, s, data, n, PL_NCCL_FLOAT32);
    for (size_t k, done = 0; e->gathered && done < n; done += k) {
        k = smaller(n - done, GATHERED_BYTES / sizeof *data);
        if (!gather(e, s, data + done, k, PL_NCCL_FLOAT32))
            return;
        pl_card_note(s->card, pl_cuda_sum_ranks_f32(s->queue, data + done, e->gathered, k, c->size), "sum of ranks");
    }
}

static void sum_f64(pl_comm *c, pl_stream *s, double *data, size_t n)
{
    pl_cuda_end *e = inside(c);
    if (!e->gathered)
        reduce(e, s, data, n, PL_NCCL_FLOAT64);
    for (size_t k, done = 0; e->gathered && done < n; done += k) {
        k = smaller(n - done, GATHERED_BYTES / sizeof *data);
        if (!gather(e, s, data + done, k, PL_NCCL_FLOAT64))
            return;
        pl_card_note(s->card, pl_cuda_sum_ranks_f64(s->queue, data + done, e->gathered, k, c->size), "sum of ranks");
    }
}

static void broadcast(pl_comm *c, pl_stream *s, void *data, size_t bytes, int root)
{
    pl_cuda_end *e = inside(c);
    if (bytes && enter(e, s))
        leave(e, s, "ncclBroadcast", e->team->nccl.Broadcast(data, data, bytes, PL_NCCL_INT8, root, e->comm, s->queue));
}

/* ---- from create to destroy ---- */

static void watch(pl_backend *b, pl_cuda_end *e)
{
    b->stream->comm = e;
    b->side->comm = e;
}

static void destroy(pl_comm *c)
{
    pl_cuda_end *e = inside(c);
    team *t = e->team;
    watch(e->backend, NULL);
    pl_recordings_drop(e->backend->stream);
    pl_recordings_drop(e->backend->side);
    if (e->aborts)
        pthread_join(e->aborter, NULL);
    pl_nccl_comm comm = atomic_load(&e->comm);
    if (comm)
        t->nccl.CommDestroy(comm);
    e->backend->memory_give(e->backend, e->gathered, (size_t)c->size * GATHERED_BYTES);
    pthread_mutex_destroy(&e->lock);
    if (atomic_fetch_sub(&t->left, 1) == 1)
        free(t);
}

static pl_status check_cards(pl_backend *const *backends, int n, int *devices, pl_error *err)
{
    for (int i = 0; i < n; i++) {
        devices[i] = backends[i]->stream->card->index;
        for (int j = 0; j < i; j++)
            if (devices[j] == devices[i])
                return pl_fail(err, PL_ERR_UNSUPPORTED, "card %d twice among those that work together", devices[i]);
    }
    return PL_OK;
}

static pl_status take_room(team *t, int n, pl_error *err)
{
    size_t bytes = (size_t)n * GATHERED_BYTES;
    for (int i = 0; i < n && n > 2; i++) {
        pl_cuda_end *e = &t->ends[i];
        e->gathered = e->backend->memory_take(e->backend, bytes);
        if (!e->gathered)
            return pl_backend_fail_memory(e->backend, bytes, "sums over cards", err);
    }
    return PL_OK;
}

static pl_status connect(team *t, int n, const int *devices, pl_nccl_comm *comms, pl_error *err)
{
    char why[256];
    if (!pl_nccl_load(&t->nccl, why, sizeof why))
        return pl_fail(err, PL_ERR_UNSUPPORTED, "cards work together only with NCCL: %s", why);
    int result = t->nccl.CommInitAll(comms, n, devices);
    if (result == PL_NCCL_SUCCESS)
        return PL_OK;
    return pl_fail(err, PL_ERR_DEVICE, "%d cards cannot work together: ncclCommInitAll: %s", n,
                   t->nccl.GetErrorString(result));
}

static void open_ends(team *t, pl_backend *const *backends, int n, const pl_nccl_comm *comms)
{
    t->left = n;
    for (int i = 0; i < n; i++) {
        pl_cuda_end *e = &t->ends[i];
        e->base = (pl_comm){.rank = i,
                            .size = n,
                            .sum_f32 = sum_f32,
                            .sum_f64 = sum_f64,
                            .broadcast = broadcast,
                            .abort = abort_op,
                            .destroy = destroy};
        e->team = t;
        e->backend = backends[i];
        e->comm = comms[i];
        pthread_mutex_init(&e->lock, NULL);
        watch(e->backend, e);
    }
}

pl_status pl_cuda_comm_create(pl_backend *const *backends, int n, pl_comm **out, pl_error *err)
{
    int devices[PL_COMM_MOST];
    pl_nccl_comm comms[PL_COMM_MOST];
    PL_TRY(check_cards(backends, n, devices, err));
    team *t = calloc(1, sizeof *t);
    if (!t)
        return pl_fail_memory(err, sizeof *t, "cards that work together");
    pl_status status = connect(t, n, devices, comms, err);
    if (status != PL_OK) {
        free(t);
        return status;
    }
    open_ends(t, backends, n, comms);
    status = take_room(t, n, err);
    for (int i = 0; i < n; i++)
        if (status == PL_OK)
            out[i] = &t->ends[i].base;
        else
            destroy(&t->ends[i].base);
    return status;
}

bool pl_devices_nccl(char *out, size_t room)
{
    pl_nccl nccl;
    int version = 0;
    if (!pl_nccl_load(&nccl, out, room))
        return false;
    nccl.GetVersion(&version);
    snprintf(out, room, "%d.%d.%d", version / 10000, version / 100 % 100, version % 100);
    return true;
}
