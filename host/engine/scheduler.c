/* Continuous batching: requests come and go between steps, and each step is one walk through the model for all of them. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE /* names of threads */
#endif

#include "host/engine/scheduler_parts.h"

#include "host/base/clock.h"
#include "host/base/log.h"
#include "host/engine/towers.h"
#include "host/model/fingerprint.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define DEFAULT_WAITING 1024
#define MOST_WAITING (1 << 20)
#define DEFAULT_STEP_S 0.1
#define RETRY_S 0.01 /* until the next look where sessions beside hold all sequences */
#define IDLE_S 5     /* until the next look for towers that nobody uses */

/* ---- the thread -------------------------------------------------------------------------------- */

static void wait_for_a_while(pl_scheduler *s, double seconds)
{
    struct timespec until;
    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_sec += (time_t)seconds;
    until.tv_nsec += (long)((seconds - (double)(time_t)seconds) * 1e9);
    until.tv_sec += until.tv_nsec / 1000000000;
    until.tv_nsec %= 1000000000;
    pthread_cond_timedwait(&s->wake, &s->lock, &until);
}

/* Waits for a request; towers that nobody uses go meanwhile. */
static void wait_idle(pl_scheduler *s)
{
    pl_towers *towers = s->engine->towers;
    if (!towers) {
        pthread_cond_wait(&s->wake, &s->lock);
        return;
    }
    pthread_mutex_unlock(&s->lock);
    pl_towers_drop(towers, -1);
    pthread_mutex_lock(&s->lock);
    if (!s->stop && !s->incoming)
        wait_for_a_while(s, IDLE_S);
}

/* Waits for something to do, and takes what has been submitted. False: it is the end. */
static bool collect(pl_scheduler *s, bool stuck)
{
    pthread_mutex_lock(&s->lock);
    if (stuck && !s->stop && !s->incoming && s->n_tasks > 0)
        wait_for_a_while(s, RETRY_S);
    while (!s->stop && !s->incoming && s->n_tasks == 0)
        wait_idle(s);
    for (pl_task *t = s->incoming; t; t = t->next)
        s->task[s->n_tasks++] = t;
    s->incoming = NULL;
    s->incoming_end = &s->incoming;
    bool go_on = !s->stop;
    pthread_mutex_unlock(&s->lock);
    return go_on;
}

static void *serve(void *arg)
{
    pl_scheduler *s = arg;
    pthread_setname_np(pthread_self(), "pleiad-steps");
    static const pl_error end = {PL_ERR_CANCELLED, "the scheduler has ended"};
    bool stuck = false;
    while (collect(s, stuck)) {
        if (s->lost.status != PL_OK)
            pl_scheduler_sweep(s, &s->lost);
        else
            stuck = !pl_scheduler_step(s);
    }
    pl_scheduler_sweep(s, &end);
    return NULL;
}

/* ---- life -------------------------------------------------------------------------------------- */

static pl_status check_params(const pl_scheduler_params *p, pl_error *err)
{
    if (p->max_waiting < 0 || p->max_waiting > MOST_WAITING)
        return pl_fail(err, PL_ERR_ARGUMENT, "max_waiting is %d, expected 0 to %d", p->max_waiting, MOST_WAITING);
    if (p->max_running < 0)
        return pl_fail(err, PL_ERR_ARGUMENT, "max_running is %d, expected 0 or more", p->max_running);
    if (!(p->step_s >= 0 && p->step_s <= 60))
        return pl_fail(err, PL_ERR_ARGUMENT, "step_s is %g, expected 0 to 60", p->step_s);
    return PL_OK;
}

static void warn(const char *what, const pl_error *why)
{
    const pl_log log = {.level = PL_LOG_WARN};
    pl_log_write(&log, PL_LOG_WARN, "%s: %s", what, why->message);
}

static pl_status open_prefixes(pl_scheduler *s, const pl_scheduler_params *p, pl_error *err)
{
    pl_engine *e = s->engine;
    if (p->no_prefixes)
        return PL_OK;
    PL_TRY(pl_prefixes_create(e->config, e->kv, &s->prefixes, err));
    if (!p->prefix_file)
        return PL_OK;
    s->prefix_file = strdup(p->prefix_file);
    if (!s->prefix_file)
        return pl_fail_memory(err, strlen(p->prefix_file), "a path");
    s->fingerprint = pl_checkpoint_fingerprint(e->model->checkpoint);
    if (e->backend->rounds) /* what it keeps is not what others would have computed */
        s->fingerprint = pl_fingerprint(s->fingerprint, e->backend->rounds, strlen(e->backend->rounds));
    pl_error why;
    if (access(s->prefix_file, F_OK) == 0 &&
        pl_prefixes_load(s->prefixes, s->fingerprint, s->prefix_file, &why) != PL_OK)
        warn("kept prefixes are not used", &why);
    return PL_OK;
}

static pl_status allocate(pl_scheduler *s, pl_error *err)
{
    const pl_engine *e = s->engine;
    int32_t threads = pl_pool_threads(e->backend->pool);
    s->capacity = s->max_waiting + s->max_running;
    size_t n = (size_t)s->capacity;
    s->task = calloc(n, sizeof *s->task);
    s->item = calloc(n, sizeof *s->item);
    s->order = calloc(n, sizeof *s->order);
    s->picked = calloc(n, sizeof *s->picked);
    s->row = calloc((size_t)e->batch_rows, sizeof *s->row);
    s->room = calloc((size_t)threads, sizeof *s->room);
    if (!s->task || !s->item || !s->order || !s->picked || !s->row || !s->room)
        return pl_fail_memory(err, n * sizeof *s->item, "a scheduler");
    for (int32_t i = 0; i < threads; i++)
        PL_TRY(pl_candidates_init(&s->room[i], e->config->vocab, err));
    PL_TRY(pl_proposals_start(s, err));
    return pl_run_start(s, err);
}

/* What rows and paths cost, before any step has been timed. */
static pl_status start_costs(pl_scheduler *s, pl_error *err)
{
    const pl_checkpoint *checkpoint = s->engine->model->checkpoint;
    const pl_config *c = s->engine->config;
    pl_path path;
    PL_TRY(pl_path_parse(checkpoint, "full", &path, err));
    s->whole_bytes = (double)pl_path_bytes(checkpoint, &path);
    for (int l = c->n_kv_layers; l < c->n_layers; l++) {
        path.skip[l] = true;
        path.ffn[l] = 0;
    }
    const pl_tensor *head = &pl_checkpoint_weights(checkpoint)->embed; /* as large where it is another tensor */
    double head_bytes = (double)head->rows * (double)pl_dtype_bytes(head->type, head->cols);
    s->prompt_weight = ((double)pl_path_bytes(checkpoint, &path) - head_bytes) / s->whole_bytes;
    s->cost = pl_step_cost_start(s->whole_bytes);
    return PL_OK;
}

static pl_status start_thread(pl_scheduler *s, pl_error *err)
{
    pthread_condattr_t attr;
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_mutex_init(&s->lock, NULL);
    pthread_cond_init(&s->wake, &attr);
    pthread_condattr_destroy(&attr);
    int error = pthread_create(&s->thread, NULL, serve, s);
    if (error) {
        pthread_cond_destroy(&s->wake);
        pthread_mutex_destroy(&s->lock);
        return pl_fail(err, PL_ERR_IO, "cannot start the scheduler's thread: %s", strerror(error));
    }
    s->started = true;
    return PL_OK;
}

static pl_status create(pl_scheduler *s, const pl_scheduler_params *p, pl_error *err)
{
    PL_TRY(check_params(p, err));
    int32_t sequences = pl_kv_sequences(s->engine->kv);
    s->max_waiting = p->max_waiting > 0 ? p->max_waiting : DEFAULT_WAITING;
    s->max_running = p->max_running > 0 && p->max_running < sequences ? p->max_running : sequences;
    s->step_s = p->step_s > 0 ? p->step_s : DEFAULT_STEP_S;
    s->incoming_end = &s->incoming;
    PL_TRY(allocate(s, err));
    PL_TRY(start_costs(s, err));
    PL_TRY(pl_lanes_start(s, err));
    pl_engine_lock(s->engine);
    pl_status status = open_prefixes(s, p, err);
    pl_kv_room room = pl_kv_count(s->engine->kv);
    pl_engine_unlock(s->engine);
    PL_TRY(status);
    s->count.kv_tokens = room.tokens;
    s->count.kv_used = room.used;
    s->count.kv_kept = room.kept;
    s->shown = s->count;
    return start_thread(s, err);
}

pl_status pl_scheduler_create(pl_engine *engine, const pl_scheduler_params *params, pl_scheduler **out, pl_error *err)
{
    static const pl_scheduler_params defaults = {0};
    pl_scheduler *s = calloc(1, sizeof *s);
    if (!s)
        return pl_fail_memory(err, sizeof *s, "a scheduler");
    s->engine = engine;
    pl_status status = create(s, params ? params : &defaults, err);
    if (status != PL_OK) {
        pl_scheduler_free(s);
        return status;
    }
    *out = s;
    return PL_OK;
}

static void stop_thread(pl_scheduler *s)
{
    pthread_mutex_lock(&s->lock);
    s->stop = true;
    pthread_cond_signal(&s->wake);
    pthread_mutex_unlock(&s->lock);
    pthread_join(s->thread, NULL);
    pthread_cond_destroy(&s->wake);
    pthread_mutex_destroy(&s->lock);
}

static void close_prefixes(pl_scheduler *s)
{
    pl_error why;
    pl_engine_lock(s->engine);
    if (s->prefixes && s->started && s->prefix_file && s->lost.status == PL_OK &&
        pl_prefixes_save(s->prefixes, s->fingerprint, s->prefix_file, &why) != PL_OK)
        warn("kept prefixes are not saved", &why);
    pl_prefixes_free(s->prefixes);
    pl_engine_unlock(s->engine);
    free(s->prefix_file);
}

static void free_lists(pl_scheduler *s)
{
    for (pl_client *c = s->clients, *next; c; c = next) {
        next = c->next;
        free(c);
    }
    for (pl_lane *lane = s->lanes, *next; lane; lane = next) {
        next = lane->next;
        free(lane);
    }
    for (int i = 0; s->room && i < pl_pool_threads(s->engine->backend->pool); i++)
        pl_candidates_free(&s->room[i]);
    pl_run_stop(s);
    pl_proposals_stop(s);
    free(s->room);
    free(s->row);
    free(s->picked);
    free(s->order);
    free(s->item);
    free(s->task);
}

void pl_scheduler_free(pl_scheduler *s)
{
    if (!s)
        return;
    if (s->started)
        stop_thread(s);
    close_prefixes(s);
    free_lists(s);
    free(s);
}

/* ---- requests ---------------------------------------------------------------------------------- */

/* Whether one more is taken now; `lock` is held. */
static pl_status may_join(pl_scheduler *s, pl_error *err)
{
    if (s->lost.status != PL_OK)
        return pl_fail(err, s->lost.status, "%s", s->lost.message);
    if (s->stop)
        return pl_fail(err, PL_ERR_CANCELLED, "the scheduler is ending");
    if (s->n_live - s->shown.running >= s->max_waiting) {
        s->refused++;
        return pl_fail(err, PL_ERR_BUSY, "%d requests wait, no more are taken", s->max_waiting);
    }
    return PL_OK;
}

static pl_status join(pl_scheduler *s, pl_task *task, uint64_t *id, pl_error *err)
{
    PL_TRY(may_join(s, err));
    PL_TRY(pl_task_join(s, task, err));
    task->id = ++s->last_id;
    if (id)
        *id = task->id;
    *s->incoming_end = task;
    s->incoming_end = &task->next;
    s->n_live++;
    s->submitted++;
    pthread_cond_signal(&s->wake);
    return PL_OK;
}

pl_status pl_scheduler_submit(pl_scheduler *s, const pl_request *request, uint64_t *id, pl_error *err)
{
    pl_task *task = NULL;
    pthread_mutex_lock(&s->lock);
    pl_status status = may_join(s, err); /* who is refused costs little */
    pthread_mutex_unlock(&s->lock);
    PL_TRY(status);
    PL_TRY(pl_task_create(s, request, &task, err));
    pthread_mutex_lock(&s->lock);
    status = join(s, task, id, err);
    if (status != PL_OK)
        pl_task_leave(s, task);
    pthread_mutex_unlock(&s->lock);
    if (status != PL_OK)
        pl_task_free(task);
    return status;
}

static pl_task *find(const pl_scheduler *s, uint64_t id)
{
    for (pl_task *t = s->incoming; t; t = t->next)
        if (t->id == id)
            return t;
    for (int32_t i = 0; i < s->n_tasks; i++)
        if (s->task[i]->id == id)
            return s->task[i];
    return NULL;
}

void pl_scheduler_cancel(pl_scheduler *s, uint64_t id)
{
    pthread_mutex_lock(&s->lock);
    pl_task *task = find(s, id);
    if (task) {
        atomic_store(&task->cancelled, true);
        pthread_cond_signal(&s->wake);
    }
    pthread_mutex_unlock(&s->lock);
}
