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

static bool reads(const pl_task *t)
{
    return t->held + t->rows <= t->n_prompt;
}

/* Only steps of prompts alone are computed fast: where there are as many rows as that takes, such steps and those of
 * answers take turns. */
static void take_turns(pl_scheduler *s, int32_t n)
{
    int32_t prompts = 0, others = 0;
    if (!s->engine->backend->rounds)
        return;
    for (int32_t k = 0; k < n; k++) {
        const pl_task *t = s->task[s->order[k]];
        *(reads(t) ? &prompts : &others) += t->rows;
    }
    bool both = prompts >= PL_ROUNDED_ROWS && others > 0;
    s->read_last = both && !s->read_last;
    for (int32_t k = 0; k < n && both; k++) {
        pl_task *t = s->task[s->order[k]];
        if (reads(t) != s->read_last)
            t->rows = 0;
    }
}

/* By where the logits go: those that the ops draw from come first (pl_step_row), of the rest those that the host chooses
 * from, so that they come in few groups. */
static int kind_of(const pl_task *t)
{
    return t->drawn ? 0 : t->reply ? 1 : 2;
}

/* Who has room goes into picked[], by kind. */
static void pick(pl_scheduler *s)
{
    int32_t n = sort_planned(s);
    take_turns(s, n);
    for (int32_t k = 0; k < n; k++)
        if (s->task[s->order[k]]->rows > 0 && !pl_room_extend(s, s->order[k]))
            s->task[s->order[k]]->rows = 0;
    s->n_picked = 0;
    for (int kind = 0; kind < 3; kind++)
        for (int32_t k = 0; k < n; k++) {
            pl_task *t = s->task[s->order[k]];
            if (t->rows > 0 && kind_of(t) == kind)
                s->picked[s->n_picked++] = t;
        }
}

/* ---- what came of it --------------------------------------------------------------------------- */

/* Weighted rows of the step, for what steps cost and for whose turn it is. */
static double charge(pl_scheduler *s)
{
    double all = 0;
    for (int32_t i = 0; i < s->n_picked; i++) {
        pl_task *t = s->picked[i];
        int32_t chosen = t->chosen ? 1 + t->proposed : 0;
        for (int32_t p = t->held - t->rows; p < t->held; p++) {
            pl_lane *lane = pl_task_lane(t, p);
            bool wanted = t->sum || p >= t->held - chosen;
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

static void show_chosen(pl_scheduler *s, pl_task *t, double now)
{
    while (!t->ended && pl_reply_chosen(t->reply) > 0)
        show(s, t, now);
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
        show_chosen(s, t, now);
    }
}

static void count_room(pl_scheduler *s)
{
    pl_kv_room room = pl_kv_count(s->engine->kv);
    s->count.kv_tokens = room.tokens;
    s->count.kv_used = room.used;
    s->count.kv_kept = room.kept;
}

/* Ids that begin again stand for something else than in what is kept. */
static void forget_old_ids(pl_scheduler *s)
{
    uint64_t laps = s->engine->soft ? pl_soft_rows_laps(s->engine->soft) : 0;
    if (s->prefixes && laps != s->laps)
        pl_prefixes_forget(s->prefixes);
    s->laps = laps;
}

/* Runs a step with the engine's lock held; returns whether there was one. */
static bool run_step(pl_scheduler *s)
{
    double begin = s->last_end_s, proposed = begin;
    if (!pl_run_take_ahead(s)) {
        double now = pl_clock_seconds();
        forget_old_ids(s);
        pl_lanes_follow(s, now);
        pl_room_describe(s);
        plan_and_admit(s, now);
        pick(s);
        if (s->n_picked == 0)
            return false;
        begin = pl_clock_seconds();
        pl_proposals_add(s);
        proposed = pl_clock_seconds();
    }
    pl_run_picked(s);
    s->last_end_s = pl_clock_seconds();
    double rows = charge(s);
    if (rows > 0) {
        pl_step_cost_learn(&s->cost, rows, s->last_end_s - proposed);
        pl_draft_cost_learn(&s->sense.cost, s->equal_rows, s->last_end_s - proposed);
    }
    pl_stats_add(&s->count.step_s, s->last_end_s - begin);
    s->count.steps++;
    s->step++;
    for (int32_t i = 0; i < s->n_picked; i++) {
        pl_proposals_settle(s, s->picked[i]);
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

/* Takes those that have ended off the list, into picked[], but that a step is queued ahead; returns how many. The rest of
 * the lists' news is told too. */
static int32_t take_off(pl_scheduler *s)
{
    int32_t left = 0, n = 0;
    pthread_mutex_lock(&s->lock);
    for (int32_t i = 0; i < s->n_tasks; i++) {
        pl_task *t = s->task[i];
        t->client->served += t->charge;
        t->charge = 0;
        if (!t->ended || s->n_ahead > 0) {
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
    if (why) {
        pl_engine_lock(s->engine);
        pl_run_drop_ahead(s);
        pl_engine_unlock(s->engine);
    }
    for (int32_t i = 0; i < s->n_tasks; i++)
        if (!s->task[i]->ended && (why || atomic_load(&s->task[i]->cancelled)))
            pl_task_end(s->task[i], why ? why->status : PL_ERR_CANCELLED, why ? why : &cancelled);
    if (s->n_ahead == 0 && any_ended(s))
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
