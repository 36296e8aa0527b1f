#ifndef _GNU_SOURCE
#define _GNU_SOURCE /* names of threads */
#endif

#include "host/batch/station.h"

#include <string.h>

#define MOST_WAITING 16384 /* choices and inputs of all lines under way */
#define STEP_S 60          /* nobody waits for a first token: steps as large as they can be */
#define TRY_AGAIN_S 0.05

/* ---- life -------------------------------------------------------------------------------------- */

pl_status pl_station_open(pl_station *s, const pl_station_params *params, pl_error *err)
{
    const pl_scheduler_params scheduling = {.max_waiting = MOST_WAITING, .step_s = STEP_S};
    const pl_http_params http = {.host = NULL};
    s->params = *params;
    s->refused_end = &s->refused;
    pthread_mutex_init(&s->lock, NULL);
    pthread_cond_init(&s->change, NULL);
    PL_TRY(pl_scheduler_create(params->engine, &scheduling, &s->scheduler, err));
    PL_TRY(pl_service_create(params->model, params->engine, s->scheduler, params->service, &s->service, err));
    PL_TRY(pl_http_create(&http, pl_service_routes(s->service), s->service, &s->http, err));
    return pl_http_every(s->http, TRY_AGAIN_S, pl_station_try_again, s, err);
}

/* What the scheduler has counted stays. */
static void take_down(pl_station *s)
{
    pl_worker_stats last = {0};
    pl_station_count(s, &last);
    pthread_mutex_lock(&s->lock);
    pl_http *http = s->http;
    pl_scheduler *scheduler = s->scheduler;
    s->http = NULL;
    s->scheduler = NULL;
    s->count.prompt_tokens = last.prompt_tokens;
    s->count.reused_tokens = last.reused_tokens;
    s->count.answer_tokens = last.answer_tokens;
    pthread_mutex_unlock(&s->lock);
    if (s->service)
        pl_service_end(s->service);
    pl_scheduler_free(scheduler);
    pl_http_free(http);
    pl_service_free(s->service);
    s->service = NULL;
}

void pl_station_close(pl_station *s)
{
    if (!s->refused_end)
        return;
    take_down(s);
    pthread_cond_destroy(&s->change);
    pthread_mutex_destroy(&s->lock);
}

/* ---- the threads ------------------------------------------------------------------------------- */

/* Waits until there is room for one more line. False: no more are to be taken. */
static bool has_room(pl_station *s)
{
    pthread_mutex_lock(&s->lock);
    while (!s->ended && (s->lines >= s->params.window || s->bytes >= s->params.bytes || s->careful > 0))
        pthread_cond_wait(&s->change, &s->lock);
    bool has = !s->ended;
    pthread_mutex_unlock(&s->lock);
    return has;
}

static void wait_for_all(pl_station *s)
{
    pthread_mutex_lock(&s->lock);
    while (!s->ended && s->lines > 0)
        pthread_cond_wait(&s->change, &s->lock);
    pthread_mutex_unlock(&s->lock);
}

static void *feed(void *arg)
{
    pl_station *s = arg;
    const pl_work_source *source = s->params.source;
    pl_work work;
    pthread_setname_np(pthread_self(), "pleiad-feeder");
    while (has_room(s) && source->take(source->user, &work))
        pl_station_take(s, &work);
    wait_for_all(s);
    pl_http_stop(s->http);
    return NULL;
}

static void *answer(void *arg)
{
    pl_station *s = arg;
    pl_error err;
    pthread_setname_np(pthread_self(), "pleiad-answers");
    if (pl_http_serve(s->http, 0, &err) != PL_OK)
        s->params.fail(s->params.user, &err);
    pl_station_give_back_refused(s);
    return NULL;
}

pl_status pl_station_start(pl_station *s, pl_error *err)
{
    int failed = pthread_create(&s->loop, NULL, answer, s);
    if (failed)
        return pl_fail(err, PL_ERR_MEMORY, "cannot start a thread: %s", strerror(failed));
    failed = pthread_create(&s->feeder, NULL, feed, s);
    if (failed) {
        pl_station_stop(s);
        pthread_join(s->loop, NULL);
        return pl_fail(err, PL_ERR_MEMORY, "cannot start a thread: %s", strerror(failed));
    }
    s->started = true;
    return PL_OK;
}

void pl_station_stop(pl_station *s)
{
    pthread_mutex_lock(&s->lock);
    s->ended = true;
    pthread_cond_broadcast(&s->change);
    if (s->http)
        pl_http_stop(s->http);
    pthread_mutex_unlock(&s->lock);
}

void pl_station_finish(pl_station *s)
{
    if (s->started) {
        pthread_join(s->feeder, NULL);
        pthread_join(s->loop, NULL);
        s->started = false;
    }
    take_down(s);
}

/* ---- counting ---------------------------------------------------------------------------------- */

void pl_station_count(pl_station *s, pl_worker_stats *sum)
{
    pl_scheduler_stats steps = {0};
    pthread_mutex_lock(&s->lock);
    const pl_worker_stats *c = &s->count;
    if (s->scheduler)
        pl_scheduler_count(s->scheduler, &steps);
    sum->given += c->given;
    sum->failed += c->failed;
    sum->given_back += c->given_back;
    sum->tried_again += c->tried_again;
    sum->under_way += s->lines;
    sum->engines += s->lost.status == PL_OK;
    sum->prompt_tokens += c->prompt_tokens + (int64_t)steps.prompt_tokens;
    sum->reused_tokens += c->reused_tokens + (int64_t)steps.reused_tokens;
    sum->answer_tokens += c->answer_tokens + (int64_t)steps.answer_tokens;
    pthread_mutex_unlock(&s->lock);
}
