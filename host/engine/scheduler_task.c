#include "host/engine/scheduler_parts.h"

#include "host/base/clock.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

pl_request pl_request_default(void)
{
    return (pl_request){.generation = pl_generation_default()};
}

/* ---- lanes ------------------------------------------------------------------------------------- */

static bool same_path(const pl_path *a, const pl_path *b)
{
    return strcmp(a->name, b->name) == 0; /* of one checkpoint: a name says all */
}

pl_status pl_lane_take(pl_scheduler *s, const pl_path *path, pl_lane **out, pl_error *err)
{
    pl_lane *lane = s->lanes;
    while (lane && !same_path(&lane->path, path))
        lane = lane->next;
    if (!lane) {
        lane = calloc(1, sizeof *lane);
        if (!lane)
            return pl_fail_memory(err, sizeof *lane, "a path");
        lane->path = *path;
        lane->weight = (double)pl_path_bytes(s->engine->model->checkpoint, path) / s->whole_bytes;
        lane->counts = -1;
        lane->next = s->lanes;
        s->lanes = lane;
    }
    lane->users++;
    *out = lane;
    return PL_OK;
}

void pl_lane_drop(pl_scheduler *s, pl_lane *lane)
{
    if (!lane || --lane->users > 0)
        return;
    pl_lane **at = &s->lanes;
    while (*at != lane)
        at = &(*at)->next;
    *at = lane->next;
    free(lane);
}

pl_lane *pl_task_lane(const pl_task *task, int32_t position)
{
    int32_t i = task->n_stretches - 1;
    while (i > 0 && task->stretch[i].from > position)
        i--;
    return task->stretch[i].lane;
}

/* ---- clients ----------------------------------------------------------------------------------- */

/* The clock of the live client that has been served least: who comes, or comes back, starts from there. */
static double present_clock(const pl_scheduler *s)
{
    double least = INFINITY;
    for (const pl_client *c = s->clients; c; c = c->next)
        if (c->live > 0 && c->served < least)
            least = c->served;
    return least;
}

/* Those whose clock is not ahead of the present are as good as unknown. */
static void forget_clients(pl_scheduler *s, double now)
{
    for (pl_client **at = &s->clients; *at;) {
        pl_client *c = *at;
        if (c->live == 0 && c->served <= now) {
            *at = c->next;
            free(c);
        } else {
            at = &c->next;
        }
    }
}

pl_status pl_task_join(pl_scheduler *s, pl_task *task, pl_error *err)
{
    double now = present_clock(s);
    forget_clients(s, now);
    pl_client *c = s->clients;
    while (c && c->id != task->asked.client)
        c = c->next;
    if (!c) {
        c = calloc(1, sizeof *c);
        if (!c)
            return pl_fail_memory(err, sizeof *c, "a client");
        c->id = task->asked.client;
        c->served = isfinite(now) ? now : 0;
        c->next = s->clients;
        s->clients = c;
    } else if (c->live == 0 && c->served < now) {
        c->served = now;
    }
    c->live++;
    task->client = c;
    return PL_OK;
}

void pl_task_leave(pl_scheduler *s, pl_task *task)
{
    if (task->client)
        task->client->live--;
    pl_lane_drop(s, task->own_lane);
    pl_lane_drop(s, task->draft_lane);
    task->own_lane = task->draft_lane = NULL;
}

/* ---- life -------------------------------------------------------------------------------------- */

static bool wishes(double seconds)
{
    return isfinite(seconds) && seconds >= 0;
}

static pl_status check(const pl_scheduler *s, const pl_request *r, pl_error *err)
{
    const pl_engine *e = s->engine;
    PL_TRY(pl_reply_check(e->config, e->context, r->n_prompt, &r->generation, err));
    if (!r->on_done)
        return pl_fail(err, PL_ERR_ARGUMENT, "a request needs on_done");
    if (r->priority < -100 || r->priority > 100)
        return pl_fail(err, PL_ERR_ARGUMENT, "priority is %d, expected -100 to 100", r->priority);
    if (!wishes(r->first_token_s) || !wishes(r->token_s))
        return pl_fail(err, PL_ERR_ARGUMENT, "a wished time is %g s, expected 0 (none) or more",
                       wishes(r->token_s) ? r->first_token_s : r->token_s);
    if ((int)r->wish < PL_WISH_BALANCED || (int)r->wish > PL_WISH_SPEED || (int)r->moves < PL_MOVES_NONE ||
        (int)r->moves > PL_MOVES_FAST)
        return pl_fail(err, PL_ERR_ARGUMENT, "wish %d and moves %d: no such thing", (int)r->wish, (int)r->moves);
    return PL_OK;
}

/* All tokens that it may ever have. */
static size_t most_tokens(const pl_scheduler *s, const pl_request *r)
{
    size_t all = (size_t)s->engine->context + 1, answer = (size_t)r->generation.max_tokens;
    if (r->embed)
        return r->n_prompt;
    return r->generation.max_tokens < 0 || answer > all - r->n_prompt ? all : r->n_prompt + answer;
}

static pl_status fill(pl_scheduler *s, pl_task *t, const pl_request *r, pl_error *err)
{
    size_t room = most_tokens(s, r);
    PL_TRY(pl_engine_hold_ids(s->engine, r->prompt, r->n_prompt, "prompt token", &t->holds, err));
    t->tokens = malloc(room * sizeof *t->tokens);
    if (!t->tokens)
        return pl_fail_memory(err, room * sizeof *t->tokens, "a request's tokens");
    memcpy(t->tokens, r->prompt, r->n_prompt * sizeof *t->tokens);
    t->n_prompt = t->n_tokens = (int32_t)r->n_prompt;
    if (!r->embed) {
        PL_TRY(pl_reply_create(s->engine->model, s->engine->context, r->prompt, r->n_prompt, &r->generation, false,
                               &t->reply, err));
        t->drawn = s->engine->draws && pl_reply_can_be_drawn(t->reply);
        return s->engine->draws
                   ? PL_OK
                   : pl_draft_create(&r->generation.draft, (int32_t)room, s->engine->config->vocab, &t->draft, err);
    }
    size_t hidden = (size_t)s->engine->config->hidden;
    t->sum = calloc(hidden, sizeof *t->sum);
    t->mean = calloc(hidden, sizeof *t->mean);
    return t->sum && t->mean ? PL_OK : pl_fail_memory(err, hidden * sizeof *t->sum, "a request's states");
}

static pl_status take_lane(pl_scheduler *s, const char *name, pl_lane **out, pl_error *err)
{
    pl_path path;
    PL_TRY(pl_path_parse(s->engine->model->checkpoint, name, &path, err));
    pthread_mutex_lock(&s->lock);
    pl_status status = pl_lane_take(s, &path, out, err);
    pthread_mutex_unlock(&s->lock);
    return status;
}

/* The path asked for, "auto" for none; that of its drafts. */
static pl_status take_paths(pl_scheduler *s, pl_task *t, const pl_request *r, pl_error *err)
{
    const char *name = r->path ? r->path : pl_path_default(s->engine->model->checkpoint);
    if (r->generation.draft.path && t->draft)
        PL_TRY(take_lane(s, r->generation.draft.path, &t->draft_lane, err));
    if (strcmp(name, "auto") == 0)
        return PL_OK;
    PL_TRY(take_lane(s, name, &t->own_lane, err));
    t->stretch[0] = (pl_stretch){0, t->own_lane};
    t->n_stretches = 1;
    t->reason = "asked for";
    return PL_OK;
}

/* A task that nobody has seen. */
static void drop(pl_scheduler *s, pl_task *t)
{
    pthread_mutex_lock(&s->lock);
    pl_task_leave(s, t);
    pthread_mutex_unlock(&s->lock);
    pl_task_free(t);
}

pl_status pl_task_create(pl_scheduler *s, const pl_request *request, pl_task **out, pl_error *err)
{
    PL_TRY(check(s, request, err));
    pl_task *t = calloc(1, sizeof *t);
    if (!t)
        return pl_fail_memory(err, sizeof *t, "a request");
    t->asked = *request;
    t->sequence = -1;
    t->reason = "";
    t->arrived_s = pl_clock_seconds();
    pl_status status = fill(s, t, request, err);
    if (status == PL_OK)
        status = take_paths(s, t, request, err);
    t->asked.prompt = NULL;
    t->asked.path = NULL;
    t->asked.generation = (pl_generation){.max_tokens = request->generation.max_tokens};
    if (status != PL_OK)
        drop(s, t);
    else
        *out = t;
    return status;
}

void pl_task_free(pl_task *task)
{
    if (!task)
        return;
    pl_reply_free(task->reply);
    pl_draft_free(task->draft);
    pl_soft_holds_free(&task->holds);
    free(task->tokens);
    free(task->sum);
    free(task->mean);
    free(task);
}

void pl_task_end(pl_task *task, pl_status status, const pl_error *why)
{
    task->ended = true;
    task->status = status;
    if (why && why != &task->failure)
        task->failure = *why;
}

static pl_generated answer_of(const pl_task *t)
{
    pl_generated answer = {.n_prompt = (size_t)t->n_prompt, .n_prompt_reused = (size_t)t->reused, .stop_index = -1};
    if (t->reply) {
        answer.stop_index = pl_reply_stopped_by(t->reply);
        answer.n_tokens = pl_reply_tokens(t->reply);
        answer.finish = t->status == PL_OK ? pl_reply_finish(t->reply) : PL_FINISH_CANCEL;
    }
    if (t->draft)
        answer.drafts = t->draft->counts;
    if (t->first_s > 0) {
        answer.prompt_s = t->first_s - t->started_s;
        answer.generate_s = t->last_s - t->first_s;
    }
    return answer;
}

static const float *mean_state(const pl_scheduler *s, const pl_task *t)
{
    for (int i = 0; i < s->engine->config->hidden; i++)
        t->mean[i] = (float)(t->sum[i] / t->n_prompt);
    return t->mean;
}

void pl_task_report(const pl_scheduler *s, const pl_task *t)
{
    bool embedded = t->sum && t->status == PL_OK;
    const pl_lane *lane = pl_task_last_lane(t);
    double begun = t->started_s > 0 ? t->started_s : pl_clock_seconds();
    pl_outcome outcome = {
        .status = t->status,
        .message = t->status == PL_OK ? "" : t->failure.message,
        .answer = answer_of(t),
        .queued_s = begun - t->arrived_s,
        .path = lane ? lane->path.name : "auto",
        .reason = t->reason,
        .preempted = t->preempted,
        .moved = t->moved,
        .state = embedded ? mean_state(s, t) : NULL,
        .n_state = embedded ? (size_t)s->engine->config->hidden : 0,
    };
    t->asked.on_done(t->asked.user, &outcome);
}
