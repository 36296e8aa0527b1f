#include "host/engine/scheduler_parts.h"

#include "host/base/clock.h"
#include "host/base/timeline.h"

#include <string.h>

#define LEAST_STEP_S 0.001

/* ---- what the step does ------------------------------------------------------------------------ */

/* A wished time per token holds for the steps of all while its answer is under way. */
static double step_seconds(const pl_scheduler *s)
{
    double least = s->step_s;
    for (int32_t i = 0; i < s->n_tasks; i++) {
        double wish = s->task[i]->asked.token_s;
        if (s->item[i].running && s->item[i].answering && wish > 0 && wish < least)
            least = wish;
    }
    return least > LEAST_STEP_S ? least : LEAST_STEP_S;
}

static void plan(pl_scheduler *s, int32_t sequences, double now)
{
    const pl_engine *e = s->engine;
    pl_plan_limits limits = {.rows = e->batch_rows,
                             .wanted = e->batch_rows,
                             .sequences = sequences,
                             .step_s = step_seconds(s),
                             .now_s = now};
    pl_plan out;
    pl_plan_step(s->item, s->n_tasks, s->order, &s->cost, s->prompt_weight, &limits, &out);
}

/* Sequences that can be begun; one more where somebody urgent may take another's place. */
static int32_t free_places(const pl_scheduler *s)
{
    int32_t least = INT32_MAX, most = INT32_MIN;
    for (int32_t i = 0; i < s->n_tasks; i++) {
        const pl_plan_item *item = &s->item[i];
        if (item->running && item->priority < least)
            least = item->priority;
        if (!item->running && item->ready && item->priority > most)
            most = item->priority;
    }
    int32_t free = s->max_running - s->n_running;
    return free == 0 && most > least ? 1 : free;
}

/* Gives a sequence to those that the plan begins. Afterwards they have less to read than it thought where something was
 * kept for them, so it is made again, until it begins nobody. */
static void plan_and_admit(pl_scheduler *s, double now)
{
    int32_t sequences = free_places(s);
    for (bool again = true; again;) {
        again = false;
        plan(s, sequences, now);
        for (int32_t i = 0; i < s->n_tasks; i++) {
            if (s->item[i].rows == 0 || s->item[i].running)
                continue;
            again = true;
            if (sequences > 0 && pl_room_admit(s, i, now))
                sequences = free_places(s);
            else
                sequences = 0;
        }
    }
}

/* Whether task a finds room before task b: whoever gives way for another comes behind it. */
static bool first_served(const pl_scheduler *s, int32_t a, int32_t b)
{
    const pl_plan_item *x = &s->item[a], *y = &s->item[b];
    return x->priority != y->priority ? x->priority > y->priority : x->arrived_s < y->arrived_s;
}

/* The tasks with rows by first_served(), into order[]. */
static int32_t sort_planned(pl_scheduler *s)
{
    int32_t n = 0;
    for (int32_t i = 0; i < s->n_tasks; i++) {
        s->task[i]->rows = s->item[i].rows;
        if (s->item[i].rows == 0)
            continue;
        int32_t at = n++;
        for (; at > 0 && first_served(s, i, s->order[at - 1]); at--)
            s->order[at] = s->order[at - 1];
        s->order[at] = i;
    }
    return n;
}

/* Who has room goes into picked[]; those to embed last, so that others' logits come in few groups. */
static void pick(pl_scheduler *s)
{
    int32_t n = sort_planned(s);
    for (int32_t k = 0; k < n; k++)
        if (s->task[s->order[k]]->rows > 0 && !pl_room_extend(s, s->order[k]))
            s->task[s->order[k]]->rows = 0;
    s->n_picked = 0;
    for (int embeds = 0; embeds < 2; embeds++)
        for (int32_t k = 0; k < n; k++) {
            pl_task *t = s->task[s->order[k]];
            if (t->rows > 0 && (t->sum != NULL) == (embeds == 1))
                s->picked[s->n_picked++] = t;
        }
}

/* ---- running it -------------------------------------------------------------------------------- */

/* The rows of some tasks; returns how many. */
static int32_t fill_rows(pl_scheduler *s, pl_task *const *task, int32_t n)
{
    int32_t rows = 0, wanted = 0;
    for (int32_t i = 0; i < n; i++) {
        pl_task *t = task[i];
        t->wanted = wanted;
        for (int32_t p = t->held; p < t->held + t->rows; p++) {
            pl_step_row row = {.token = t->tokens[p],
                               .position = p,
                               .sequence = t->sequence,
                               .path = &pl_task_lane(t, p)->path,
                               .wanted = t->sum || p == t->n_tokens - 1};
            wanted += row.wanted;
            s->row[rows++] = row;
        }
    }
    return rows;
}

typedef struct chooser {
    pl_scheduler *s;
    pl_task *const *task; /* of the logits' rows */
    const float *logits;
} chooser;

static void choose_some(void *ctx, int64_t begin, int64_t end, int thread)
{
    const chooser *c = ctx;
    int64_t vocab = c->s->engine->config->vocab;
    for (int64_t i = begin; i < end; i++) {
        pl_task *t = c->task[i];
        t->chosen = true;
        t->status = pl_reply_choose(t->reply, &c->s->room[thread], c->logits + i * vocab, &t->failure);
    }
}

/* Tokens for those of the tasks whose last row was wanted, logits as they come. */
static pl_status choose(pl_scheduler *s, pl_task *const *task, int32_t n, pl_error *err)
{
    pl_task *group[PL_STEP_LOGITS];
    chooser c = {.s = s, .task = group};
    for (int32_t i = 0, in_group = 0, first = 0; i < n; i++) {
        if (task[i]->reply && task[i]->held + task[i]->rows == task[i]->n_tokens)
            group[in_group++] = task[i];
        bool last = i == n - 1 || !task[i + 1]->reply;
        if (in_group > 0 && (last || in_group == PL_STEP_LOGITS)) {
            PL_TRY(pl_step_logits(s->engine->step, first, in_group, &c.logits, err));
            pl_pool_for(s->engine->backend->pool, in_group, 1, choose_some, &c);
            first += in_group;
            in_group = 0;
        }
    }
    return PL_OK;
}

static pl_status sum_states(pl_scheduler *s, pl_task *t, pl_error *err)
{
    const float *states = NULL;
    int hidden = s->engine->config->hidden;
    PL_TRY(pl_step_hidden(s->engine->step, t->wanted, t->rows, &states, err));
    for (int32_t row = 0; row < t->rows; row++)
        for (int i = 0; i < hidden; i++)
            t->sum[i] += (double)states[(int64_t)row * hidden + i];
    return PL_OK;
}

/* One run of the model for tasks that have room. */
static pl_status run(pl_scheduler *s, pl_task *const *task, int32_t n, pl_error *err)
{
    pl_step *step = s->engine->step;
    int32_t rows = fill_rows(s, task, n);
    pl_step_watch(step, NULL, NULL);
    double begin = pl_timeline_now(s->engine->timeline);
    pl_status status = pl_step_run(step, s->row, rows, NULL, NULL, err);
    pl_timeline_end(s->engine->timeline, PL_TIMELINE_MAIN, "serve a step", begin);
    PL_TRY(status);
    PL_TRY(choose(s, task, n, err));
    for (int32_t i = 0; i < n; i++)
        if (task[i]->sum)
            PL_TRY(sum_states(s, task[i], err));
    for (int32_t i = 0; i < n; i++)
        task[i]->held += task[i]->rows;
    return PL_OK;
}

static void take_back(pl_scheduler *s, pl_task *t)
{
    t->held = pl_kv_truncate(s->engine->kv, t->sequence, t->held);
    t->chosen = false;
}

/* Some row's values are not finite: each by itself, so that only whose they are fails. */
static void run_each(pl_scheduler *s)
{
    for (int32_t i = 0; i < s->n_picked; i++) {
        pl_task *t = s->picked[i];
        pl_status status = pl_kv_extend(s->engine->kv, t->sequence, t->rows, &t->failure);
        if (status == PL_OK)
            status = run(s, &t, 1, &t->failure);
        if (status == PL_OK)
            continue;
        take_back(s, t);
        t->rows = 0;
        pl_task_end(t, status, &t->failure);
    }
}

static void lose(pl_scheduler *s, const pl_error *why)
{
    pthread_mutex_lock(&s->lock);
    s->lost = *why;
    pthread_mutex_unlock(&s->lock);
    for (int32_t i = 0; i < s->n_tasks; i++)
        pl_task_end(s->task[i], why->status, why);
}

/* Runs what has been picked. A step that fails for all is taken back. */
static void run_picked(pl_scheduler *s)
{
    pl_error err;
    pl_status status = run(s, s->picked, s->n_picked, &err);
    if (status == PL_OK)
        return;
    for (int32_t i = 0; i < s->n_picked; i++)
        take_back(s, s->picked[i]);
    if (status == PL_ERR_DEVICE) {
        lose(s, &err);
        s->n_picked = 0;
    } else {
        run_each(s);
    }
}

/* ---- what came of it --------------------------------------------------------------------------- */

/* Weighted rows of the step, for what steps cost and for whose turn it is. */
static double charge(pl_scheduler *s)
{
    double all = 0;
    for (int32_t i = 0; i < s->n_picked; i++) {
        pl_task *t = s->picked[i];
        for (int32_t p = t->held - t->rows; p < t->held; p++) {
            pl_lane *lane = pl_task_lane(t, p);
            bool wanted = t->sum || (t->chosen && p == t->held - 1);
            all += lane->weight * (wanted ? 1 : s->prompt_weight);
            t->charge += lane->weight;
            s->count.paths[pl_stats_lane(s, lane)].rows++;
        }
    }
    return all;
}

static void count_read(pl_scheduler *s, pl_task *t)
{
    int32_t to = t->held < t->n_prompt ? t->held : t->n_prompt;
    if (to > t->furthest)
        s->count.prompt_tokens += (uint64_t)(to - t->furthest);
    if (t->held > t->furthest)
        t->furthest = t->held;
}

/* Others may have the same beginning: what has been read is kept as soon as a page is whole. */
static void keep_read(pl_scheduler *s, pl_task *t)
{
    if (t->held / PL_KV_PAGE > (t->held - t->rows) / PL_KV_PAGE)
        pl_room_keep(s, t, false);
}

static void will_need(pl_scheduler *s, const pl_task *t)
{
    int32_t left = t->n_tokens - t->held, rows = s->engine->batch_rows;
    if (left > 1)
        pl_ple_will_need(s->engine->ple, t->tokens + t->held, (size_t)(left < rows ? left : rows));
}

static void show(pl_scheduler *s, pl_task *t, double now)
{
    if (pl_reply_tokens(t->reply) > 0)
        pl_stats_add(&s->count.token_s, now - t->last_s);
    else
        pl_stats_add(&s->count.first_token_s, now - t->arrived_s);
    if (t->first_s == 0)
        t->first_s = now;
    t->last_s = now;
    t->tokens[t->n_tokens++] = pl_reply_token(t->reply);
    s->count.answer_tokens++;
    bool done = false;
    pl_status status = pl_reply_show(t->reply, &done, &t->failure);
    if (status != PL_OK || done)
        pl_task_end(t, status, &t->failure);
}

static void deliver(pl_scheduler *s, pl_task *t, double now)
{
    will_need(s, t);
    t->last_step = s->step;
    if (t->sum && t->held == t->n_tokens) {
        t->first_s = t->last_s = now;
        pl_task_end(t, PL_OK, NULL);
    }
    if (!t->chosen)
        return;
    t->chosen = false;
    if (t->status != PL_OK || t->asked.generation.max_tokens == 0) {
        t->first_s = t->last_s = now;
        pl_task_end(t, t->status, &t->failure);
    } else {
        show(s, t, now);
    }
}

static void count_room(pl_scheduler *s)
{
    pl_kv_room room = pl_kv_count(s->engine->kv);
    s->count.kv_tokens = room.tokens;
    s->count.kv_used = room.used;
    s->count.kv_kept = room.kept;
}

/* Runs a step with the engine's lock held; returns whether there was one. */
static bool run_step(pl_scheduler *s)
{
    double now = pl_clock_seconds();
    pl_lanes_follow(s, now);
    pl_room_describe(s);
    plan_and_admit(s, now);
    pick(s);
    if (s->n_picked == 0)
        return false;
    double begin = pl_clock_seconds();
    run_picked(s);
    double took = pl_clock_seconds() - begin;
    double rows = charge(s);
    if (rows > 0)
        pl_step_cost_learn(&s->cost, rows, took);
    pl_stats_add(&s->count.step_s, took);
    s->count.steps++;
    s->step++;
    for (int32_t i = 0; i < s->n_picked; i++) {
        count_read(s, s->picked[i]);
        keep_read(s, s->picked[i]);
    }
    count_room(s);
    return true;
}

/* ---- ends -------------------------------------------------------------------------------------- */

static void count_end(pl_scheduler *s, const pl_task *t)
{
    if (t->status == PL_OK)
        s->count.done++;
    else if (t->status == PL_ERR_CANCELLED)
        s->count.cancelled++;
    else
        s->count.failed++;
}

/* Takes back the sequences of those that have ended. What they have read is kept unless it may be bad. */
static void close_ended(pl_scheduler *s)
{
    pl_engine_lock(s->engine);
    for (int32_t i = 0; i < s->n_tasks; i++) {
        pl_task *t = s->task[i];
        if (!t->ended || t->sequence < 0)
            continue;
        if (t->status == PL_OK || t->status == PL_ERR_CANCELLED)
            pl_room_keep(s, t, true);
        pl_room_close(s, t);
    }
    count_room(s);
    pl_engine_unlock(s->engine);
}

/* Takes those that have ended off the list, into picked[]; returns how many. The rest of the lists' news is told too. */
static int32_t take_off(pl_scheduler *s)
{
    int32_t left = 0, n = 0;
    pthread_mutex_lock(&s->lock);
    for (int32_t i = 0; i < s->n_tasks; i++) {
        pl_task *t = s->task[i];
        t->client->served += t->charge;
        t->charge = 0;
        if (!t->ended) {
            s->task[left++] = t;
            continue;
        }
        count_end(s, t);
        s->picked[n++] = t;
    }
    s->n_tasks = left;
    s->n_live -= n;
    pl_stats_show(s);
    pthread_mutex_unlock(&s->lock);
    return n;
}

static bool any_ended(const pl_scheduler *s)
{
    for (int32_t i = 0; i < s->n_tasks; i++)
        if (s->task[i]->ended)
            return true;
    return false;
}

void pl_scheduler_sweep(pl_scheduler *s, const pl_error *why)
{
    static const pl_error cancelled = {PL_ERR_CANCELLED, "the request was cancelled"};
    for (int32_t i = 0; i < s->n_tasks; i++)
        if (!s->task[i]->ended && (why || atomic_load(&s->task[i]->cancelled)))
            pl_task_end(s->task[i], why ? why->status : PL_ERR_CANCELLED, why ? why : &cancelled);
    if (any_ended(s))
        close_ended(s);
    int32_t n = take_off(s);
    for (int32_t i = 0; i < n; i++) {
        pl_task_report(s, s->picked[i]);
        pthread_mutex_lock(&s->lock);
        pl_task_leave(s, s->picked[i]);
        pthread_mutex_unlock(&s->lock);
        pl_task_free(s->picked[i]);
    }
}

bool pl_scheduler_step(pl_scheduler *s)
{
    pl_scheduler_sweep(s, NULL);
    pl_engine_lock(s->engine);
    bool ran = run_step(s);
    pl_engine_unlock(s->engine);
    double now = pl_clock_seconds();
    for (int32_t i = 0; ran && i < s->n_picked; i++)
        if (!s->picked[i]->ended)
            deliver(s, s->picked[i], now);
    pl_scheduler_sweep(s, NULL);
    return ran;
}
