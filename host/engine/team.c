#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif

#include "host/engine/team.h"

#include "host/base/clock.h"

#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SPIN_S 50e-6

typedef struct member {
    pl_team *team;
    pthread_t thread;
    int rank;
} member;

struct pl_team {
    int ranks, started;
    bool spins;
    member members[PL_COMM_MOST];
    pl_comm *comm;

    pl_team_fn fn; /* written between end and begin */
    void *ctx;

    pthread_mutex_t lock;
    pthread_cond_t changed;
    _Atomic uint32_t round; /* begun so far */
    atomic_int busy;        /* members that are not yet done */
    atomic_bool stop;
    pl_error failure; /* under the lock: the first since begin, status PL_OK: none */
};

typedef bool (*condition)(pl_team *team, uint32_t round);

static bool has_begun(pl_team *team, uint32_t round)
{
    return atomic_load_explicit(&team->round, memory_order_acquire) != round;
}

static bool is_done(pl_team *team, uint32_t round)
{
    (void)round;
    return atomic_load_explicit(&team->busy, memory_order_acquire) == 0;
}

static void wait_until(pl_team *team, condition met, uint32_t round)
{
    double until = team->spins ? pl_clock_seconds() + SPIN_S : 0;
    while (team->spins && pl_clock_seconds() < until)
        for (int i = 0; i < 32; i++)
            if (met(team, round))
                return;
    pthread_mutex_lock(&team->lock);
    while (!met(team, round))
        pthread_cond_wait(&team->changed, &team->lock);
    pthread_mutex_unlock(&team->lock);
}

void pl_team_fail(pl_team *team, const pl_error *failure)
{
    pthread_mutex_lock(&team->lock);
    bool first = team->failure.status == PL_OK;
    if (first)
        team->failure = *failure;
    pthread_mutex_unlock(&team->lock);
    if (first && team->comm)
        team->comm->abort(team->comm);
}

static void *run_member(void *arg)
{
    const member *self = arg;
    pl_team *team = self->team;
    char name[16];
    snprintf(name, sizeof name, "pleiad-rank%d", self->rank);
    pthread_setname_np(pthread_self(), name);
    for (uint32_t round = 0;; round++) {
        wait_until(team, has_begun, round);
        if (atomic_load(&team->stop))
            return NULL;
        pl_error failure = {.status = PL_OK};
        if (team->fn(team->ctx, self->rank, &failure) != PL_OK)
            pl_team_fail(team, &failure);
        if (atomic_fetch_sub(&team->busy, 1) > 1)
            continue;
        pthread_mutex_lock(&team->lock);
        pthread_cond_broadcast(&team->changed);
        pthread_mutex_unlock(&team->lock);
    }
}

static void begin_round(pl_team *team)
{
    pthread_mutex_lock(&team->lock);
    atomic_fetch_add(&team->round, 1);
    pthread_cond_broadcast(&team->changed);
    pthread_mutex_unlock(&team->lock);
}

void pl_team_begin(pl_team *team, pl_team_fn fn, void *ctx)
{
    team->fn = fn;
    team->ctx = ctx;
    team->failure.status = PL_OK;
    atomic_store(&team->busy, team->started);
    begin_round(team);
}

pl_status pl_team_end(pl_team *team, pl_error *err)
{
    wait_until(team, is_done, 0);
    if (team->failure.status != PL_OK && err)
        *err = team->failure;
    return team->failure.status;
}

void pl_team_set_comm(pl_team *team, pl_comm *comm)
{
    team->comm = comm;
}

static pl_status start(pl_team *team, pl_error *err)
{
    /* Signals are for the program's own threads. */
    sigset_t all, before;
    int error = 0;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    for (int rank = 1; rank < team->ranks && !error; rank++) {
        member *m = &team->members[rank];
        *m = (member){.team = team, .rank = rank};
        error = pthread_create(&m->thread, NULL, run_member, m);
        team->started += !error;
    }
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return error ? pl_fail(err, PL_ERR_IO, "cannot start the thread of rank %d: %s", team->started + 1, strerror(error))
                 : PL_OK;
}

pl_status pl_team_create(int ranks, bool spins, pl_team **out, pl_error *err)
{
    pl_team *team = calloc(1, sizeof *team);
    if (!team)
        return pl_fail_memory(err, sizeof *team, "ranks");
    team->ranks = ranks;
    team->spins = spins;
    pthread_mutex_init(&team->lock, NULL);
    pthread_cond_init(&team->changed, NULL);
    pl_status status = start(team, err);
    if (status != PL_OK) {
        pl_team_free(team);
        return status;
    }
    *out = team;
    return PL_OK;
}

void pl_team_free(pl_team *team)
{
    if (!team)
        return;
    atomic_store(&team->stop, true);
    begin_round(team);
    for (int rank = 1; rank <= team->started; rank++)
        pthread_join(team->members[rank].thread, NULL);
    pthread_cond_destroy(&team->changed);
    pthread_mutex_destroy(&team->lock);
    free(team);
}
