/* Cards that work together: sums and broadcasts are there on all of them whenever each gets to its work, also from
 * recordings, and nobody waits for ever for a card that is lost. */
#include "cuda/comm_nccl.h"
#include "cuda/nccl.h"
#include "host/base/rng.h"
#include "host/ops/comm.h"
#include "host/ops/devices.h"
#include "tests/cuda/card.h"

#include <criterion/criterion.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#if __has_include(<nccl.h>)
#include <nccl.h>
#define NCCL_IS(name, value) _Static_assert((int)(name) == (int)(value), #name)
NCCL_IS(ncclSuccess, PL_NCCL_SUCCESS);
NCCL_IS(ncclInProgress, PL_NCCL_IN_PROGRESS);
NCCL_IS(ncclInt8, PL_NCCL_INT8);
NCCL_IS(ncclFloat32, PL_NCCL_FLOAT32);
NCCL_IS(ncclFloat64, PL_NCCL_FLOAT64);
NCCL_IS(ncclSum, PL_NCCL_SUM);
#define SAME_FUNCTION(name, ...)                                                                                       \
    _Static_assert(_Generic(&nccl##name, ncclResult_t(*)(__VA_ARGS__) : 1, default : 0), "nccl" #name)
SAME_FUNCTION(GetVersion, int *);
SAME_FUNCTION(CommInitAll, ncclComm_t *, int, const int *);
SAME_FUNCTION(CommDestroy, ncclComm_t);
SAME_FUNCTION(CommAbort, ncclComm_t);
SAME_FUNCTION(CommGetAsyncError, ncclComm_t, ncclResult_t *);
SAME_FUNCTION(AllReduce, const void *, void *, size_t, ncclDataType_t, ncclRedOp_t, ncclComm_t, cudaStream_t);
SAME_FUNCTION(AllGather, const void *, void *, size_t, ncclDataType_t, ncclComm_t, cudaStream_t);
SAME_FUNCTION(Broadcast, const void *, void *, size_t, ncclDataType_t, int, ncclComm_t, cudaStream_t);
#endif

#define MOST 4
#define VALUES 1000 /* no multiple of the ranks */

static const pl_backend_shape shape = {.max_rows = 4, .max_context = 64, .heads = {2, 1, 64}};

#define ROUNDS 4 /* as it is, recorded, and twice from the recording */

typedef struct values {
    float f[VALUES];
    double d[VALUES];
    char bytes[VALUES];
} values;

typedef struct one one;

struct one {
    pl_backend *b;
    pl_comm *comm;
    void (*work)(one *r);
    values got[ROUNDS];
    pl_status status;
    pl_error err;
};

typedef struct cards {
    int n;
    one rank[MOST];
    pl_backend *b[MOST];
    pl_comm *comm[MOST];
} cards;

static void open_backends(cards *c, card_mode mode, uint64_t seed, int n)
{
    pl_error err;
    card_insert(mode, seed);
    card_insert_more(n - 1);
    memset(c, 0, sizeof *c);
    c->n = n;
    for (int i = 0; i < n; i++)
        cr_assert_eq(pl_backend_cuda(&shape, i, 1, NULL, &c->b[i], &err), PL_OK, "%s", err.message);
}

static void open_cards(cards *c, card_mode mode, uint64_t seed, int n)
{
    pl_error err;
    open_backends(c, mode, seed, n);
    cr_assert_eq(pl_comm_create(c->b, n, c->comm, &err), PL_OK, "%s", err.message);
    for (int i = 0; i < n; i++)
        c->rank[i] = (one){.b = c->b[i], .comm = c->comm[i]};
}

static void close_cards(cards *c)
{
    for (int i = 0; i < c->n; i++)
        pl_comm_free(c->comm[i]);
    for (int i = 0; i < c->n; i++)
        pl_backend_free(c->b[i]);
    cr_assert_eq(card_leftovers(), 0);
}

static void *run_rank(void *arg)
{
    one *r = arg;
    r->work(r);
    return NULL;
}

/* Each rank in a thread of its own. */
static void run_all(cards *c, void (*work)(one *r))
{
    pthread_t threads[MOST];
    for (int i = 0; i < c->n; i++) {
        c->rank[i].work = work;
        c->rank[i].status = PL_OK;
        cr_assert_eq(pthread_create(&threads[i], NULL, run_rank, &c->rank[i]), 0);
    }
    for (int i = 0; i < c->n; i++)
        pthread_join(threads[i], NULL);
}

static void expect_all_well(cards *c)
{
    for (int i = 0; i < c->n; i++)
        cr_assert_eq(c->rank[i].status, PL_OK, "rank %d: %s", i, c->rank[i].err.message);
}

/* ---- what comes of it ---- */

static void fill(values *v, int rank, int round)
{
    pl_rng rng;
    pl_rng_seed(&rng, (uint64_t)(100 * round + rank));
    for (int i = 0; i < VALUES; i++) {
        v->f[i] = (float)pl_rng_uniform(&rng) - 0.5f;
        v->d[i] = pl_rng_uniform(&rng) - 0.5;
        v->bytes[i] = (char)pl_rng_next(&rng);
    }
}

static pl_status fetch(pl_backend *b, const values *on_card, values *out, pl_error *err)
{
    const void *got;
    PL_TRY(b->fetch(b->stream, on_card, sizeof *out, &got, err));
    memcpy(out, got, sizeof *out);
    return PL_OK;
}

static pl_status do_rounds(one *r)
{
    pl_backend *b = r->b;
    pl_comm *c = r->comm;
    values own, *on_card = b->memory_take(b, sizeof *on_card);
    for (int round = 0; round < ROUNDS; round++) {
        fill(&own, c->rank, round);
        b->upload(b->stream, on_card, &own, sizeof own);
        if (b->begin(b->stream, "sums", 4)) {
            c->sum_f32(c, b->stream, on_card->f, VALUES);
            c->sum_f64(c, b->stream, on_card->d, VALUES);
            c->broadcast(c, b->stream, on_card->bytes, VALUES, c->size - 1);
            c->sum_f32(c, b->stream, on_card->f, 0);
        }
        b->end(b->stream);
        PL_TRY(fetch(b, on_card, &r->got[round], &r->err));
    }
    b->memory_give(b, on_card, sizeof *on_card);
    return PL_OK;
}

static void rounds(one *r)
{
    r->status = do_rounds(r);
}

/* In the order of the ranks. */
static void expect_sums(const values *got, const values *of, int n)
{
    values sum = of[0];
    for (int rank = 1; rank < n; rank++)
        for (int i = 0; i < VALUES; i++) {
            sum.f[i] += of[rank].f[i];
            sum.d[i] += of[rank].d[i];
        }
    cr_assert_arr_eq(got->f, sum.f, sizeof sum.f);
    cr_assert_arr_eq(got->d, sum.d, sizeof sum.d);
    cr_assert_arr_eq(got->bytes, of[n - 1].bytes, VALUES);
}

static void expect_rounds(const cards *c)
{
    values of[MOST];
    for (int round = 0; round < ROUNDS; round++) {
        for (int i = 0; i < c->n; i++)
            fill(&of[i], i, round);
        for (int i = 0; i < c->n; i++) {
            expect_sums(&c->rank[i].got[round], of, c->n);
            cr_assert_eq(memcmp(&c->rank[i].got[round], &c->rank[0].got[round], sizeof(values)), 0, "rank %d", i);
        }
    }
}

Test(comm, sums_and_broadcasts_of_cards_that_each_work_when_they_like)
{
    static cards c;
    for (int n = 2; n <= MOST; n++)
        for (int mode = 0; mode < CARD_MODES; mode++) {
            open_cards(&c, (card_mode)mode, (uint64_t)n, n);
            run_all(&c, rounds);
            expect_all_well(&c);
            expect_rounds(&c);
            close_cards(&c);
        }
}

/* More than is gathered at once. */
static pl_status sum_much(one *r)
{
    enum { N = 131072 + 77 };
    pl_backend *b = r->b;
    double *v = calloc(N, sizeof *v), *on_card = b->memory_take(b, N * sizeof *v);
    const void *got;
    for (int i = 0; i < N; i++)
        v[i] = i * (r->comm->rank + 1);
    b->upload(b->stream, on_card, v, N * sizeof *v);
    r->comm->sum_f64(r->comm, b->stream, on_card, N);
    pl_status status = b->fetch(b->stream, on_card, N * sizeof *v, &got, &r->err);
    for (int i = 0; status == PL_OK && i < N; i++)
        if (((const double *)got)[i] != i * 6.0)
            status = pl_fail(&r->err, PL_ERR_FORMAT, "value %d is %g", i, ((const double *)got)[i]);
    free(v);
    b->memory_give(b, on_card, N * sizeof *v);
    return status;
}

static void much(one *r)
{
    r->status = sum_much(r);
}

Test(comm, sums_of_many_values)
{
    static cards c;
    open_cards(&c, CARD_ANY, 1, 3);
    run_all(&c, much);
    expect_all_well(&c);
    close_cards(&c);
}

/* ---- who does not come ---- */

static pl_status sum_once(one *r)
{
    pl_backend *b = r->b;
    float *v = b->memory_take(b, sizeof(float));
    r->comm->sum_f32(r->comm, b->stream, v, 1);
    pl_status status = b->wait_for(b->stream, b->mark(b->stream), &r->err);
    b->memory_give(b, v, sizeof(float));
    return status;
}

static void sum_or_give_up(one *r)
{
    r->status = r->comm->rank == r->comm->size - 1 ? PL_OK : sum_once(r);
    r->comm->abort(r->comm);
}

static void expect_given_up(const one *r, int card)
{
    char who[32];
    snprintf(who, sizeof who, "card %d", card);
    cr_assert_eq(r->status, PL_ERR_DEVICE, "rank %d: %s", card, r->err.message);
    cr_assert_not_null(strstr(r->err.message, who), "%s", r->err.message);
    cr_assert_not_null(strstr(r->err.message, "one of them has failed"), "%s", r->err.message);
}

Test(comm, nobody_waits_for_ever_for_one_that_never_comes)
{
    static cards c;
    for (int mode = 0; mode < CARD_MODES; mode++) {
        open_cards(&c, (card_mode)mode, 1, 3);
        run_all(&c, sum_or_give_up);
        expect_given_up(&c.rank[0], 0);
        expect_given_up(&c.rank[1], 1);
        cr_assert_eq(c.rank[2].status, PL_OK);
        /* what follows fails as well, also on the card that did not come */
        pl_error err;
        for (int i = 0; i < 3; i++)
            cr_assert_eq(c.b[i]->fetch(c.b[i]->stream, NULL, 0, NULL, &err), PL_ERR_DEVICE);
        close_cards(&c);
    }
}

static void sum_or_break(one *r)
{
    r->status = PL_OK;
    if (r->comm->rank == 0)
        r->status = sum_once(r);
    else
        card_break_nccl();
}

/* NCCL knows of it by itself, and nobody else does. */
Test(comm, work_that_nccl_gives_up_ends)
{
    static cards c;
    for (int mode = 0; mode < CARD_MODES; mode++) {
        open_cards(&c, (card_mode)mode, 1, 2);
        run_all(&c, sum_or_break);
        cr_assert_eq(c.rank[0].status, PL_ERR_DEVICE);
        cr_assert_not_null(strstr(c.rank[0].err.message, "unhandled system error"), "%s", c.rank[0].err.message);
        close_cards(&c);
    }
}

/* From the third on from a recording, which holds NCCL's work. */
static void sum_until_lost(one *r)
{
    pl_backend *b = r->b;
    float *v = b->memory_take(b, sizeof *v);
    for (r->status = PL_OK; r->status == PL_OK;) {
        if (b->begin(b->stream, "sum", 3))
            r->comm->sum_f32(r->comm, b->stream, v, 1);
        b->end(b->stream);
        r->status = b->fetch(b->stream, NULL, 0, NULL, &r->err);
    }
    r->comm->abort(r->comm);
    b->memory_give(b, v, sizeof *v);
}

Test(comm, a_lost_card_ends_the_work_of_all)
{
    static cards c;
    for (unsigned i = 0; i < 20; i++) {
        open_cards(&c, (card_mode)(i % CARD_MODES), i, 3);
        card_choose(1);
        card_lose(1 + i);
        run_all(&c, sum_until_lost);
        for (int j = 0; j < 3; j++)
            cr_assert_eq(c.rank[j].status, PL_ERR_DEVICE, "rank %d: %s", j, c.rank[j].err.message);
        const char *why = c.rank[1].err.message; /* and not that another one has failed */
        cr_assert(strstr(why, "unspecified launch failure") || strstr(why, "unhandled cuda error"), "%s", why);
        close_cards(&c);
    }
}

/* ---- where there is no such thing ---- */

static void expect_none(cards *c, pl_status want, const char *says)
{
    pl_error err;
    pl_status status = pl_comm_create(c->b, c->n, c->comm, &err);
    cr_assert_eq(status, want, "%s: %s", pl_status_name(status), err.message);
    cr_assert_not_null(strstr(err.message, says), "'%s' does not say '%s'", err.message, says);
    c->comm[0] = NULL;
}

Test(comm, what_cannot_be_had_is_told)
{
    static cards c;
    char text[256];
    open_backends(&c, CARD_EAGER, 0, 2);
    cr_assert(pl_devices_nccl(text, sizeof text) && strcmp(text, "2.28.9") == 0, "%s", text);
    card_set_nccl(0);
    cr_assert(!pl_devices_nccl(text, sizeof text) && strstr(text, "cannot open"), "%s", text);
    expect_none(&c, PL_ERR_UNSUPPORTED, "libnccl.so.2: cannot open");
    card_set_nccl(1);
    card_fail_nccl(1);
    expect_none(&c, PL_ERR_DEVICE, "unhandled system error");
    pl_backend *second = c.b[1];
    c.b[1] = c.b[0];
    expect_none(&c, PL_ERR_UNSUPPORTED, "card 0 twice");
    c.b[1] = second;
    close_cards(&c);
}

Test(comm, a_call_that_fails_is_told)
{
    static cards c;
    open_cards(&c, CARD_ANY, 0, 2);
    card_fail_nccl(1);
    run_all(&c, sum_until_lost);
    const char *first = c.rank[0].err.message, *second = c.rank[1].err.message;
    cr_assert(c.rank[0].status == PL_ERR_DEVICE && c.rank[1].status == PL_ERR_DEVICE);
    cr_assert(strstr(first, "ncclAllReduce: unhandled system error") ||
                  strstr(second, "ncclAllReduce: unhandled system error"),
              "%s; %s", first, second);
    close_cards(&c);
}
