#include "host/batch/crew.h"

#include <stdlib.h>
#include <time.h>

#include "host/base/clock.h"
#include "host/batch/crew_parts.h"

#define LOST_AFTER_S 60
#define PAUSE_LEAST_S 1e-4 /* between two looks for messages, while some come */
#define PAUSE_MOST_S 2e-3
#define TAKER_S 0.1 /* after which a taker looks again: shares change with time */

/* ---- waiting ---- */

static struct timespec moment_after(double seconds)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    int64_t ns = t.tv_nsec + (int64_t)(seconds * 1e9);
    return (struct timespec){t.tv_sec + ns / 1000000000, ns % 1000000000};
}

static void wait_for(pl_crew *c, pthread_cond_t *what, double seconds)
{
    struct timespec until = moment_after(seconds);
    pthread_cond_timedwait(what, &c->lock, &until);
}

void pl_crew_poke(pl_crew *c)
{
    c->poked = true;
    pthread_cond_signal(&c->wake);
}

void pl_crew_over(pl_crew *c, const pl_error *outcome)
{
    if (c->over)
        return;
    c->over = true;
    c->outcome = *outcome;
    pthread_cond_broadcast(&c->changed);
    if (outcome->status != PL_OK && c->params.stop)
        c->params.stop(c->params.user);
}

void pl_crew_finish(pl_crew *c, bool broken)
{
    c->finished = true;
    c->broken = broken;
    pthread_cond_broadcast(&c->changed);
}

/* ---- the thread ---- */

pl_status pl_crew_send(pl_crew *c, int to, pl_crew_kind kind, pl_strbuf *buf, pl_error *err)
{
    pl_crew_seal(buf, kind);
    pl_status status = buf->failed ? pl_fail_memory(err, buf->n, "a message to another rank")
                                   : c->params.ranks->send(c->params.ranks, to, kind, buf->data, buf->n, err);
    pl_strbuf_clear(buf);
    return status;
}

/* All that has arrived. */
static pl_status hear(pl_crew *c, bool *any, pl_error *err)
{
    pl_ranks *ranks = c->params.ranks;
    for (*any = false;; *any = true) {
        int from, kind;
        void *data;
        size_t n;
        PL_TRY(ranks->poll(ranks, &from, &kind, &data, &n, err));
        if (from < 0)
            return PL_OK;
        pl_status status = c->role->hear(c, from, kind, data, n, pl_clock_seconds(), err);
        free(data);
        PL_TRY(status);
    }
}

static void fall_apart(pl_crew *c, const pl_error *why)
{
    if (c->desk.fail)
        c->desk.fail(c->desk.user, why);
    pthread_mutex_lock(&c->lock);
    pl_crew_over(c, why);
    pl_crew_finish(c, true);
    pthread_mutex_unlock(&c->lock);
}

/* The time is that before messages are read: nobody who was heard of in time is lost because this thread was held up. */
static void *run(void *arg)
{
    pl_crew *c = arg;
    double pause = PAUSE_LEAST_S;
    for (;;) {
        bool any = false;
        pl_error err;
        double now = pl_clock_seconds();
        pl_status status = hear(c, &any, &err);
        if (status == PL_OK)
            status = c->role->turn(c, now, &err);
        if (status != PL_OK)
            fall_apart(c, &err);
        pthread_mutex_lock(&c->lock);
        if (!c->poked && !any && !c->finished)
            wait_for(c, &c->wake, pause);
        pause = c->poked || any ? PAUSE_LEAST_S : pause * 2 < PAUSE_MOST_S ? pause * 2 : PAUSE_MOST_S;
        c->poked = false;
        bool finished = c->finished;
        pthread_mutex_unlock(&c->lock);
        if (finished)
            return NULL;
    }
}

/* ---- the workers' side ---- */

static bool take(void *user, pl_work *out)
{
    pl_crew *c = user;
    bool got = false;
    pthread_mutex_lock(&c->lock);
    while (!c->over && !c->unable && !(got = c->role->take(c, out))) {
        c->waiting++;
        pl_crew_poke(c);
        wait_for(c, &c->changed, TAKER_S);
        c->waiting--;
    }
    pthread_mutex_unlock(&c->lock);
    return got;
}

static pl_status give(void *user, const pl_work_result *result, pl_error *err)
{
    pl_crew *c = user;
    return c->role->give(c, result, err);
}

static void give_back(void *user, pl_work *work)
{
    pl_crew *c = user;
    pthread_mutex_lock(&c->lock);
    c->role->give_back(c, work);
    pl_crew_poke(c);
    pthread_mutex_unlock(&c->lock);
    free(work->text);
    work->text = NULL;
}

pl_work_source pl_crew_source(pl_crew *crew)
{
    return (pl_work_source){.take = take, .give = give, .give_back = give_back, .user = crew};
}

void pl_crew_cannot_work(pl_crew *crew, const pl_error *why)
{
    pthread_mutex_lock(&crew->lock);
    if (!crew->unable) {
        crew->unable = true;
        crew->why = *why;
    }
    pthread_cond_broadcast(&crew->changed);
    pl_crew_poke(crew);
    pthread_mutex_unlock(&crew->lock);
}

int pl_crew_working(pl_crew *crew)
{
    pthread_mutex_lock(&crew->lock);
    int working = crew->working;
    pthread_mutex_unlock(&crew->lock);
    return working;
}

/* ---- begin and end ---- */

static bool make_waits(pl_crew *c)
{
    pthread_condattr_t monotonic;
    if (pthread_mutex_init(&c->lock, NULL) != 0)
        return false;
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    bool made = pthread_cond_init(&c->wake, &monotonic) == 0 && pthread_cond_init(&c->changed, &monotonic) == 0;
    pthread_condattr_destroy(&monotonic);
    return made;
}

pl_status pl_crew_create(const pl_crew_params *params, pl_crew **out, pl_error *err)
{
    pl_crew *c = calloc(1, sizeof *c);
    if (!c)
        return pl_fail_memory(err, sizeof *c, "a rank's place in the job");
    c->params = *params;
    c->params.lost_after_s = params->lost_after_s > 0 ? params->lost_after_s : LOST_AFTER_S;
    c->role = params->desk ? &pl_crew_serve_role : &pl_crew_join_role;
    if (params->desk)
        c->desk = *params->desk;
    pl_status status = params->desk ? pl_crew_serve_create(c, err) : pl_crew_join_create(c, err);
    if (status == PL_OK && (!make_waits(c) || pthread_create(&c->thread, NULL, run, c) != 0))
        status = pl_fail(err, PL_ERR_MEMORY, "a thread for messages between ranks could not be started");
    if (status != PL_OK) {
        c->role->free(c->state);
        free(c);
        return status;
    }
    c->started = true;
    *out = c;
    return PL_OK;
}

pl_status pl_crew_end(pl_crew *crew, bool *broken, pl_error *err)
{
    pthread_mutex_lock(&crew->lock);
    while (!crew->finished)
        pthread_cond_wait(&crew->changed, &crew->lock);
    pthread_mutex_unlock(&crew->lock);
    if (crew->started)
        pthread_join(crew->thread, NULL);
    crew->started = false;
    *broken = crew->broken;
    if (crew->outcome.status == PL_OK)
        return PL_OK;
    return pl_fail(err, crew->outcome.status, "%s", crew->outcome.message);
}

void pl_crew_free(pl_crew *crew)
{
    if (!crew)
        return;
    crew->role->free(crew->state);
    pthread_cond_destroy(&crew->changed);
    pthread_cond_destroy(&crew->wake);
    pthread_mutex_destroy(&crew->lock);
    free(crew);
}
