/* Ranks over MPI. The waiting functions of MPI spin; what waits here looks, and sleeps in between. */
#include <limits.h>
#include <mpi.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "host/base/clock.h"
#include "host/batch/ranks.h"

#define MOST_RECEIVING 64
#define PIECE_BYTES (8u << 20) /* of a broadcast */
#define ABORT_S 10
#define PAUSE_LEAST_NS 20000
#define PAUSE_MOST_NS 1000000

typedef struct sending {
    struct sending *next;
    MPI_Request request;
    size_t n;
    unsigned char data[];
} sending;

typedef struct receiving {
    struct receiving *next;
    MPI_Request request;
    int from, kind;
    bool here;
    void *data; /* [n] */
    size_t n;
} receiving;

typedef struct mpi_ranks {
    pl_ranks ranks;         /* first */
    MPI_Comm world, firsts; /* firsts: the first ranks of all machines; of others MPI_COMM_NULL */
    sending *sent;
    receiving *received, **last; /* in the order in which they were announced */
    int n_received;
} mpi_ranks;

pl_status pl_ranks_open_mpi(double patience_s, pl_ranks **out, pl_error *err);

static pl_status check(int code, const char *what, pl_error *err)
{
    char text[MPI_MAX_ERROR_STRING] = "";
    int n = 0;
    if (code == MPI_SUCCESS)
        return PL_OK;
    MPI_Error_string(code, text, &n);
    return pl_fail(err, PL_ERR_IO, "MPI: %s: %s", what, text);
}

/* ---- messages ---- */

static pl_status sweep_sent(mpi_ranks *m, pl_error *err)
{
    for (sending **at = &m->sent; *at;) {
        sending *s = *at;
        int done = 0;
        PL_TRY(check(MPI_Test(&s->request, &done, MPI_STATUS_IGNORE), "sending a message", err));
        if (!done) {
            at = &s->next;
            continue;
        }
        *at = s->next;
        m->ranks.unsent -= s->n;
        free(s);
    }
    return PL_OK;
}

static pl_status send_message(pl_ranks *r, int to, int kind, const void *data, size_t n, pl_error *err)
{
    mpi_ranks *m = (mpi_ranks *)r;
    if (n > INT_MAX)
        return pl_fail(err, PL_ERR_UNSUPPORTED, "a message of %zu bytes to rank %d: MPI carries at most %d", n, to,
                       INT_MAX);
    sending *s = malloc(sizeof *s + n);
    if (!s)
        return pl_fail_memory(err, sizeof *s + n, "a message to another rank");
    s->n = n;
    memcpy(s->data, data, n);
    pl_status status = check(MPI_Isend(s->data, (int)n, MPI_BYTE, to, kind, m->world, &s->request), "sending a message",
                             err);
    if (status != PL_OK) {
        free(s);
        return status;
    }
    s->next = m->sent;
    m->sent = s;
    r->unsent += n;
    return PL_OK;
}

/* Begins to receive the next message that is announced, if there is one. */
static pl_status receive_next(mpi_ranks *m, bool *any, pl_error *err)
{
    int there = 0, n = 0;
    MPI_Message message;
    MPI_Status status;
    *any = false;
    PL_TRY(check(MPI_Improbe(MPI_ANY_SOURCE, MPI_ANY_TAG, m->world, &there, &message, &status), "looking for messages",
                 err));
    if (!there)
        return PL_OK;
    MPI_Get_count(&status, MPI_BYTE, &n);
    receiving *v = calloc(1, sizeof *v);
    void *data = malloc((size_t)n + 1);
    if (!v || !data) {
        free(v);
        free(data);
        return pl_fail_memory(err, (size_t)n, "a message from another rank");
    }
    *v = (receiving){.from = status.MPI_SOURCE, .kind = status.MPI_TAG, .data = data, .n = (size_t)n};
    *m->last = v;
    m->last = &v->next;
    m->n_received++;
    *any = true;
    return check(MPI_Imrecv(data, n, MPI_BYTE, &message, &v->request), "receiving a message", err);
}

/* Whether an earlier message of the same rank is still on its way. */
static bool has_earlier(const mpi_ranks *m, const receiving *v)
{
    for (const receiving *e = m->received; e != v; e = e->next)
        if (e->from == v->from)
            return true;
    return false;
}

static void hand_over(mpi_ranks *m, receiving **at, int *from, int *kind, void **data, size_t *n)
{
    receiving *v = *at;
    *at = v->next;
    if (m->last == &v->next)
        m->last = at;
    m->n_received--;
    *from = v->from;
    *kind = v->kind;
    *data = v->data;
    *n = v->n;
    free(v);
}

static pl_status poll_messages(pl_ranks *r, int *from, int *kind, void **data, size_t *n, pl_error *err)
{
    mpi_ranks *m = (mpi_ranks *)r;
    *from = -1;
    PL_TRY(sweep_sent(m, err));
    for (bool any = true; any && m->n_received < MOST_RECEIVING;)
        PL_TRY(receive_next(m, &any, err));
    for (receiving **at = &m->received; *at; at = &(*at)->next) {
        int done = (*at)->here;
        if (!done)
            PL_TRY(check(MPI_Test(&(*at)->request, &done, MPI_STATUS_IGNORE), "receiving a message", err));
        (*at)->here = done;
        if (done && !has_earlier(m, *at)) {
            hand_over(m, at, from, kind, data, n);
            break;
        }
    }
    return PL_OK;
}

/* ---- all together ---- */

static pl_status wait_for(const mpi_ranks *m, MPI_Request *request, const char *what, pl_error *err)
{
    double begun = pl_clock_seconds();
    for (long pause = PAUSE_LEAST_NS;; pause = pause * 5 / 4 < PAUSE_MOST_NS ? pause * 5 / 4 : PAUSE_MOST_NS) {
        int done;
        PL_TRY(check(MPI_Test(request, &done, MPI_STATUS_IGNORE), what, err));
        if (done)
            return PL_OK;
        if (pl_clock_seconds() - begun > m->ranks.patience_s)
            return pl_fail(err, PL_ERR_IO, "%s: not all ranks were heard of within %g seconds", what,
                           m->ranks.patience_s);
        nanosleep(&(struct timespec){0, pause}, NULL);
    }
}

static pl_status broadcast(pl_ranks *r, void *data, size_t n, pl_error *err)
{
    mpi_ranks *m = (mpi_ranks *)r;
    if (m->firsts == MPI_COMM_NULL)
        return PL_OK;
    for (size_t at = 0; at < n; at += PIECE_BYTES) {
        MPI_Request request;
        int piece = n - at < PIECE_BYTES ? (int)(n - at) : (int)PIECE_BYTES;
        PL_TRY(check(MPI_Ibcast((char *)data + at, piece, MPI_BYTE, 0, m->firsts, &request), "a broadcast", err));
        PL_TRY(wait_for(m, &request, "a broadcast", err));
    }
    return PL_OK;
}

static pl_status barrier(pl_ranks *r, pl_error *err)
{
    mpi_ranks *m = (mpi_ranks *)r;
    MPI_Request request;
    PL_TRY(check(MPI_Ibarrier(m->world, &request), "waiting for all ranks", err));
    return wait_for(m, &request, "waiting for all ranks", err);
}

static void end_all(pl_ranks *r, int code)
{
    alarm(ABORT_S); /* it waits for mpirun, which may wait for a machine that has vanished */
    MPI_Abort(((mpi_ranks *)r)->world, code);
    _exit(code);
}

/* ---- begin and end ---- */

static void close_ranks(pl_ranks *r)
{
    mpi_ranks *m = (mpi_ranks *)r;
    if (barrier(r, NULL) == PL_OK && sweep_sent(m, NULL) == PL_OK) {
        if (m->firsts != MPI_COMM_NULL)
            MPI_Comm_free(&m->firsts);
        MPI_Comm_free(&m->world);
        MPI_Finalize();
    }
    while (m->received) {
        receiving *next = m->received->next;
        free(m->received->data);
        free(m->received);
        m->received = next;
    }
    free(m);
}

/* What this rank is among all and on its machine. */
static pl_status find_place(mpi_ranks *m, pl_error *err)
{
    pl_ranks *r = &m->ranks;
    MPI_Comm node;
    PL_TRY(check(MPI_Comm_dup(MPI_COMM_WORLD, &m->world), "joining the other ranks", err));
    MPI_Comm_set_errhandler(m->world, MPI_ERRORS_RETURN);
    MPI_Comm_rank(m->world, &r->rank);
    MPI_Comm_size(m->world, &r->size);
    PL_TRY(check(MPI_Comm_split_type(m->world, MPI_COMM_TYPE_SHARED, r->rank, MPI_INFO_NULL, &node), "finding machines",
                 err));
    MPI_Comm_rank(node, &r->local);
    MPI_Comm_size(node, &r->n_local);
    r->first_of_host = r->local == 0;
    int color = r->first_of_host ? 0 : MPI_UNDEFINED;
    pl_status status = check(MPI_Comm_split(m->world, color, r->rank, &m->firsts), "finding machines", err);
    if (status == PL_OK && r->first_of_host) {
        MPI_Comm_set_errhandler(m->firsts, MPI_ERRORS_RETURN);
        MPI_Comm_rank(m->firsts, &r->host);
    }
    if (status == PL_OK)
        status = check(MPI_Bcast(&r->host, 1, MPI_INT, 0, node), "finding machines", err);
    MPI_Comm_free(&node);
    return status;
}

__attribute__((visibility("default"))) pl_status pl_ranks_open_mpi(double patience_s, pl_ranks **out, pl_error *err)
{
    mpi_ranks *m = calloc(1, sizeof *m);
    int offered;
    if (!m)
        return pl_fail_memory(err, sizeof *m, "the ranks of a job");
    m->last = &m->received;
    m->ranks = (pl_ranks){.patience_s = patience_s,
                          .send = send_message,
                          .poll = poll_messages,
                          .broadcast_to_hosts = broadcast,
                          .barrier = barrier,
                          .abort = end_all,
                          .close = close_ranks};
    pl_status status = check(MPI_Init_thread(NULL, NULL, MPI_THREAD_SERIALIZED, &offered), "starting", err);
    if (status == PL_OK && offered < MPI_THREAD_SERIALIZED)
        status = pl_fail(err, PL_ERR_UNSUPPORTED, "this MPI cannot be called by more than one thread");
    if (status == PL_OK)
        status = find_place(m, err);
    if (status != PL_OK) {
        free(m);
        return status;
    }
    gethostname(m->ranks.name, sizeof m->ranks.name - 1);
    *out = &m->ranks;
    return PL_OK;
}
