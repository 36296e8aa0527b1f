#include "host/engine/scheduler_parts.h"

/* It found no room, and none has been given up since. */
static bool is_blocked(const pl_scheduler *s, const pl_task *t)
{
    return t->sequence < 0 && s->n_running > 0 && s->releases < t->not_before;
}

static void describe(pl_scheduler *s, int32_t i)
{
    const pl_task *t = s->task[i];
    const pl_lane *lane = pl_task_last_lane(t);
    bool answering = t->reply && pl_reply_tokens(t->reply) > 0;
    s->item[i] = (pl_plan_item){
        .to_read = t->n_tokens - t->held,
        .answering = answering,
        .running = t->sequence >= 0,
        .ready = !t->ended,
        .priority = t->asked.priority,
        .weight = lane ? lane->weight : 1,
        .client_served = t->client->served + t->charge,
        .arrived_s = t->arrived_s,
        .due_s = t->asked.first_token_s > 0 && !answering ? t->arrived_s + t->asked.first_token_s : 0,
        .last_step = t->last_step,
    };
}

/* Who is blocked is waited for by all that are not more urgent: else a large one would never find room. */
void pl_room_describe(pl_scheduler *s)
{
    int32_t blocked = INT32_MIN;
    for (int32_t i = 0; i < s->n_tasks; i++) {
        describe(s, i);
        if (is_blocked(s, s->task[i]) && s->item[i].priority > blocked)
            blocked = s->item[i].priority;
    }
    for (int32_t i = 0; i < s->n_tasks; i++)
        if (!s->item[i].running && s->item[i].priority <= blocked)
            s->item[i].ready = false;
}

/* ---- what is kept ------------------------------------------------------------------------------ */

static bool shares(const pl_scheduler *s, const pl_task *t)
{
    return s->prefixes && !t->sum;
}

void pl_room_keep(pl_scheduler *s, pl_task *t, bool all)
{
    if (shares(s, t) && pl_task_pure(t) && t->held > 0)
        pl_prefixes_keep(s->prefixes, t->sequence, &t->stretch[0].lane->path, t->tokens, all);
}

void pl_room_adopt(pl_scheduler *s, pl_task *t)
{
    if (!shares(s, t))
        return;
    int32_t n = pl_task_pure(t) ? t->n_tokens : t->stretch[1].from + 1;
    t->held = pl_prefixes_adopt(s->prefixes, t->sequence, &t->stretch[0].lane->path, t->tokens, n);
}

/* ---- sequences --------------------------------------------------------------------------------- */

static void close_sequence(pl_scheduler *s, pl_task *t)
{
    pl_kv_close(s->engine->kv, t->sequence);
    t->sequence = -1;
    t->held = t->rows = 0;
    t->sampling = false;
    s->n_running--;
}

void pl_room_close(pl_scheduler *s, pl_task *t)
{
    if (t->sequence < 0)
        return;
    close_sequence(s, t);
    s->releases++;
}

/* It goes back to those who wait, and will be read again: prompt and answer so far. */
static void preempt(pl_scheduler *s, int32_t i)
{
    pl_task *t = s->task[i];
    pl_room_keep(s, t, false);
    pl_room_close(s, t);
    for (int h = 0; t->sum && h < s->engine->config->hidden; h++)
        t->sum[h] = 0;
    t->not_before = s->releases + 1;
    t->preempted++;
    s->count.preemptions++;
    s->item[i].running = s->item[i].ready = false;
}

/* All that it still has to read, and some for the answers under way, so that it is not sent back at once. */
static bool fits_for_long(const pl_scheduler *s, const pl_task *t)
{
    pl_kv_room room = pl_kv_count(s->engine->kv);
    int64_t want = (int64_t)t->n_tokens - t->held + (int64_t)s->n_running * PL_KV_PAGE;
    return s->n_running == 1 || want <= room.tokens - room.used;
}

/* Whose place a newcomer may take: only that of a lower priority. */
static bool take_place(pl_scheduler *s, int32_t i)
{
    int32_t victim = pl_plan_victim(s->item, s->n_tasks, i);
    if (victim < 0 || s->item[victim].priority >= s->item[i].priority)
        return false;
    preempt(s, victim);
    return true;
}

static void begin(pl_scheduler *s, pl_task *t, double now)
{
    t->started_s = now;
    t->reused = t->furthest = t->held;
    s->count.reused_tokens += (uint64_t)t->held;
    pl_stats_add(&s->count.queued_s, now - t->arrived_s);
    double pace = now - s->last_start_s;
    s->start_pace_s = s->last_start_s > 0 ? 0.8 * s->start_pace_s + 0.2 * pace : 0;
    s->last_start_s = now;
    s->count.paths[pl_stats_lane(s, pl_task_last_lane(t))].requests++;
}

bool pl_room_admit(pl_scheduler *s, int32_t i, double now)
{
    pl_task *t = s->task[i];
    while (s->n_running == s->max_running || pl_kv_open(s->engine->kv, &t->sequence, NULL) != PL_OK)
        if (!take_place(s, i))
            return false;
    s->n_running++;
    if (t->n_stretches == 0)
        pl_lanes_choose(s, t, now);
    pl_room_adopt(s, t);
    while (!fits_for_long(s, t))
        if (!take_place(s, i)) {
            close_sequence(s, t);
            t->not_before = s->releases + 1;
            if (t->started_s == 0 && !t->own_lane)
                t->n_stretches = 0; /* the path is chosen again by then */
            return false;
        }
    if (t->started_s == 0)
        begin(s, t, now);
    s->item[i].running = true;
    s->item[i].to_read = t->n_tokens - t->held;
    return true;
}

/* ---- room for a step --------------------------------------------------------------------------- */

/* Alone, it does not fit: it never will. */
static void give_up(pl_scheduler *s, pl_task *t)
{
    pl_kv_room room = pl_kv_count(s->engine->kv);
    pl_error why;
    pl_fail(&why, PL_ERR_CONTEXT, "token %d of the request finds no K/V room: there is room for %lld tokens%s", t->held,
            (long long)room.tokens, room.used > t->held + PL_KV_PAGE ? ", some held by sessions beside it" : "");
    pl_task_end(t, PL_ERR_CONTEXT, &why);
}

bool pl_room_extend(pl_scheduler *s, int32_t i)
{
    pl_task *t = s->task[i];
    pl_kv *kv = s->engine->kv;
    while (!pl_kv_fits(kv, t->sequence, t->rows)) {
        int32_t victim = pl_plan_victim(s->item, s->n_tasks, i);
        if (victim < 0 && s->n_running == 1)
            give_up(s, t);
        else
            preempt(s, victim < 0 ? i : victim);
        if (victim < 0)
            return false;
    }
    if (pl_kv_extend(kv, t->sequence, t->rows, &t->failure) == PL_OK)
        return true;
    pl_task_end(t, t->failure.status, &t->failure);
    return false;
}
