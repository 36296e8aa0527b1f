#include "host/batch/worker.h"

#include <stdlib.h>

#include "host/batch/station.h"

#define MOST_WINDOW 512 /* half of what a service lets wait to be read */
#define SPARE 4         /* lines that wait, beside a quarter of those in steps: what was taken goes nowhere else */
#define DEFAULT_BYTES ((size_t)256 << 20)

struct pl_worker {
    pl_worker_params params;
    pl_station *stations; /* [n_engines] */
    pthread_mutex_t lock; /* of what follows */
    pl_error failure;     /* the first */
    bool stopped;
};

/* ---- its end ----------------------------------------------------------------------------------- */

static void stop_all(pl_worker *w)
{
    for (int32_t i = 0; i < w->params.n_engines; i++)
        pl_station_stop(&w->stations[i]);
}

static void fail(void *user, const pl_error *why)
{
    pl_worker *w = user;
    pthread_mutex_lock(&w->lock);
    if (w->failure.status == PL_OK)
        w->failure = *why;
    pthread_mutex_unlock(&w->lock);
    stop_all(w);
}

void pl_worker_stop(pl_worker *w)
{
    pthread_mutex_lock(&w->lock);
    w->stopped = true;
    pthread_mutex_unlock(&w->lock);
    stop_all(w);
}

/* ---- life -------------------------------------------------------------------------------------- */

static int32_t choose_window(const pl_worker *w, const pl_engine *engine)
{
    pl_engine_info info;
    pl_engine_describe(engine, &info);
    int32_t window = w->params.window > 0 ? w->params.window : info.sessions + info.sessions / 4 + SPARE;
    return window < MOST_WINDOW ? window : MOST_WINDOW;
}

static pl_status open_stations(pl_worker *w, pl_error *err)
{
    const pl_worker_params *p = &w->params;
    for (int32_t i = 0; i < p->n_engines; i++) {
        const pl_station_params params = {.model = p->model,
                                          .engine = p->engines[i],
                                          .service = &p->service,
                                          .source = &p->source,
                                          .seed = p->seed,
                                          .window = choose_window(w, p->engines[i]),
                                          .bytes = p->bytes ? p->bytes : DEFAULT_BYTES,
                                          .fail = fail,
                                          .user = w};
        PL_TRY(pl_station_open(&w->stations[i], &params, err));
    }
    return PL_OK;
}

pl_status pl_worker_create(const pl_worker_params *params, pl_worker **out, pl_error *err)
{
    pl_worker *w = calloc(1, sizeof *w);
    if (!w)
        return pl_fail_memory(err, sizeof *w, "a worker");
    w->params = *params;
    pthread_mutex_init(&w->lock, NULL);
    w->stations = calloc((size_t)params->n_engines, sizeof *w->stations);
    pl_status status = w->stations ? open_stations(w, err) : pl_fail_memory(err, sizeof *w->stations, "a worker");
    if (status != PL_OK) {
        pl_worker_free(w);
        return status;
    }
    *out = w;
    return PL_OK;
}

void pl_worker_free(pl_worker *w)
{
    if (!w)
        return;
    for (int32_t i = 0; w->stations && i < w->params.n_engines; i++)
        pl_station_close(&w->stations[i]);
    pthread_mutex_destroy(&w->lock);
    free(w->stations);
    free(w);
}

/* ---- working ----------------------------------------------------------------------------------- */

static pl_status check_engines(pl_worker *w, pl_error *err)
{
    const pl_station *lost = NULL;
    for (int32_t i = 0; i < w->params.n_engines; i++) {
        if (w->stations[i].lost.status == PL_OK)
            return PL_OK;
        lost = &w->stations[i];
    }
    return lost ? pl_fail(err, PL_ERR_DEVICE, "no engine is left: %s", lost->lost.message) : PL_OK;
}

static pl_status outcome(pl_worker *w, pl_error *err)
{
    pthread_mutex_lock(&w->lock);
    bool stopped = w->stopped;
    pl_error failure = w->failure;
    pthread_mutex_unlock(&w->lock);
    if (failure.status != PL_OK)
        return pl_fail(err, failure.status, "%s", failure.message);
    if (stopped)
        return pl_fail(err, PL_ERR_CANCELLED, "it was stopped");
    return check_engines(w, err);
}

pl_status pl_worker_run(pl_worker *w, pl_error *err)
{
    for (int32_t i = 0; i < w->params.n_engines; i++) {
        pl_error why;
        if (pl_station_start(&w->stations[i], &why) != PL_OK)
            fail(w, &why);
    }
    for (int32_t i = 0; i < w->params.n_engines; i++)
        pl_station_finish(&w->stations[i]);
    return outcome(w, err);
}

pl_worker_stats pl_worker_count(pl_worker *w)
{
    pl_worker_stats sum = {0};
    for (int32_t i = 0; i < w->params.n_engines; i++)
        pl_station_count(&w->stations[i], &sum);
    return sum;
}

const char *pl_worker_lost(const pl_worker *w, int32_t engine)
{
    const pl_error *lost = &w->stations[engine].lost;
    return lost->status == PL_OK ? "" : lost->message;
}
