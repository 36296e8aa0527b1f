#include "host/engine/scheduler_parts.h"

#include "host/base/timeline.h"

#include <stdlib.h>

pl_status pl_run_start(pl_scheduler *s, pl_error *err)
{
    PL_TRY(pl_step_result_create(s->engine->step, &s->result, err));
    if (!s->engine->draws)
        return PL_OK;
    PL_TRY(pl_step_result_create(s->engine->step, &s->next_result, err));
    s->ahead = calloc((size_t)s->capacity, sizeof *s->ahead);
    s->sampler = calloc(1, sizeof *s->sampler);
    return s->ahead && s->sampler ? PL_OK : pl_fail_memory(err, sizeof *s->sampler, "a scheduler");
}

void pl_run_stop(pl_scheduler *s)
{
    pl_step_result_free(s->result);
    pl_step_result_free(s->next_result);
    free(s->ahead);
    free(s->sampler);
}

/* ---- queueing ---------------------------------------------------------------------------------- */

/* The rows of some tasks; returns how many. */
static int32_t fill_rows(pl_scheduler *s, pl_task *const *task, int32_t n)
{
    int32_t rows = 0, wanted = 0;
    for (int32_t i = 0; i < n; i++) {
        pl_task *t = task[i];
        int32_t top = t->reply ? pl_reply_top(t->reply) : 0;
        t->wanted = wanted;
        for (int32_t p = t->held; p < t->held + t->rows; p++) {
            pl_step_row row = {.token = t->tokens[p],
                               .position = p,
                               .sequence = t->sequence,
                               .path = &pl_task_lane(t, p)->path,
                               .prompt = p < t->n_prompt,
                               .wanted = t->sum || p >= t->n_tokens - 1,
                               .top = top};
            row.draw = row.wanted && t->drawn;
            wanted += row.wanted;
            s->row[rows++] = row;
        }
    }
    return rows;
}

/* Brings a sampler to where it is drawn, unless it is there. */
static pl_status start_sampler(pl_scheduler *s, pl_task *t, pl_error *err)
{
    if (t->sampling)
        return PL_OK;
    PL_TRY(pl_reply_copy_sampler(t->reply, t->tokens, (size_t)t->n_tokens, s->sampler, err));
    pl_draws_start(s->engine->draws, t->sequence, s->sampler);
    t->sampling = true;
    return PL_OK;
}

static pl_status queue(pl_scheduler *s, pl_task *const *task, int32_t n, pl_error *err)
{
    for (int32_t i = 0; i < n; i++)
        if (task[i]->drawn && pl_task_chooses(task[i]))
            PL_TRY(start_sampler(s, task[i], err));
    int32_t rows = fill_rows(s, task, n);
    pl_step_watch(s->engine->step, NULL, NULL);
    return pl_step_queue(s->engine->step, s->row, rows, s->result, err);
}

/* ---- ahead ------------------------------------------------------------------------------------- */

/* Whether the step behind the one at hand is known already, but for its tokens: the same answers get another each. A step
 * that reads prompts is none such: what it fills is kept for others, by the length of its sequences. */
static bool may_go_on(const pl_scheduler *s, const pl_task *t)
{
    bool length = t->asked.generation.max_tokens >= 0 &&
                  pl_reply_tokens(t->reply) + 1 >= (size_t)t->asked.generation.max_tokens;
    bool moves = !t->own_lane && t->asked.moves != PL_MOVES_NONE;
    return t->drawn && t->rows == 1 && pl_task_chooses(t) && !t->ended && !length && !moves &&
           t->n_tokens < s->engine->context && !atomic_load(&t->cancelled);
}

/* Whether nobody who waits can have a place before somebody gives his up. */
static bool others_wait(const pl_scheduler *s)
{
    int32_t least = INT32_MAX, most = INT32_MIN;
    for (int32_t i = 0; i < s->n_tasks; i++) {
        const pl_task *t = s->task[i];
        if (t->sequence >= 0 && t->asked.priority < least)
            least = t->asked.priority;
        if (t->sequence < 0 && t->asked.priority > most)
            most = t->asked.priority;
    }
    return s->n_tasks == s->n_running || (s->n_running == s->max_running && most <= least);
}

static bool may_queue_ahead(const pl_scheduler *s)
{
    if (!s->sampler || s->n_picked < s->n_running || !others_wait(s))
        return false;
    for (int32_t i = 0; i < s->n_picked; i++)
        if (!may_go_on(s, s->picked[i]))
            return false;
    return true;
}

/* Room for one more token of each; all or none. */
static bool extend_all(pl_scheduler *s)
{
    pl_kv *kv = s->engine->kv;
    int32_t n = 0;
    while (n < s->n_picked && pl_kv_fits(kv, s->picked[n]->sequence, 1) &&
           pl_kv_extend(kv, s->picked[n]->sequence, 1, NULL) == PL_OK)
        n++;
    if (n == s->n_picked)
        return true;
    while (n-- > 0)
        pl_kv_truncate(kv, s->picked[n]->sequence, s->picked[n]->n_tokens);
    return false;
}

/* Queues it, so that what draws does not wait for the host in between. An answer that turns out to have ended has a row
 * too many, whose token nobody sees. */
static void queue_ahead(pl_scheduler *s)
{
    if (!may_queue_ahead(s) || !extend_all(s))
        return;
    for (int32_t i = 0; i < s->n_picked; i++) {
        pl_task *t = s->ahead[i] = s->picked[i];
        s->row[i] = (pl_step_row){.position = t->n_tokens,
                                  .sequence = t->sequence,
                                  .path = &pl_task_last_lane(t)->path,
                                  .wanted = true,
                                  .drawn = true,
                                  .draw = true};
    }
    s->n_ahead = s->n_picked;
    if (pl_step_queue(s->engine->step, s->row, s->n_ahead, s->next_result, NULL) != PL_OK) {
        for (int32_t i = 0; i < s->n_ahead; i++)
            pl_kv_truncate(s->engine->kv, s->ahead[i]->sequence, s->ahead[i]->n_tokens);
        s->n_ahead = 0;
    }
}

/* The tokens from `held` on are not there any more; what the ops drew behind them may be wrong. */
static void take_back(pl_scheduler *s, pl_task *t)
{
    t->held = pl_kv_truncate(s->engine->kv, t->sequence, t->held);
    t->chosen = t->sampling = false;
}

bool pl_run_take_ahead(pl_scheduler *s)
{
    if (s->n_ahead == 0)
        return false;
    s->n_picked = 0;
    for (int32_t i = 0; i < s->n_ahead; i++) {
        pl_task *t = s->ahead[i];
        t->wanted = i;
        t->rows = 1;
        if (t->ended)
            take_back(s, t);
        else
            s->picked[s->n_picked++] = t;
    }
    pl_step_result *result = s->result;
    s->result = s->next_result;
    s->next_result = result;
    return true;
}

void pl_run_drop_ahead(pl_scheduler *s)
{
    if (s->n_ahead == 0)
        return;
    pl_step_wait(s->next_result, NULL);
    for (int32_t i = 0; i < s->n_ahead; i++)
        take_back(s, s->ahead[i]);
    s->n_ahead = 0;
}

/* ---- what comes of it -------------------------------------------------------------------------- */

static void take_drawn(pl_scheduler *s, pl_task *const *task, int32_t n)
{
    for (int32_t i = 0; i < n; i++) {
        pl_task *t = task[i];
        if (!t->drawn || !pl_task_chooses(t))
            continue;
        t->chosen = true;
        t->status = pl_reply_take(t->reply, pl_step_drawn(s->result, t->wanted), &t->failure);
    }
}

typedef struct chooser {
    pl_scheduler *s;
    pl_task *const *task; /* of the logits' rows */
    int32_t first;        /* wanted row of them */
    const float *logits;
} chooser;

static void choose_some(void *ctx, int64_t begin, int64_t end, int thread)
{
    const chooser *c = ctx;
    int64_t vocab = c->s->engine->config->vocab;
    for (int64_t i = begin; i < end; i++) {
        pl_task *t = c->task[i];
        t->chosen = true;
        t->status = pl_reply_choose(t->reply, &c->s->room[thread], c->logits + (t->wanted - c->first) * vocab,
                                    t->tokens + t->n_tokens, t->proposed, &t->failure);
    }
}

/* Tokens for some whose wanted rows stand behind each other. */
static pl_status choose_group(pl_scheduler *s, pl_task *const *task, int32_t n, int32_t rows, pl_error *err)
{
    chooser c = {.s = s, .task = task, .first = task[0]->wanted};
    PL_TRY(pl_step_logits(s->engine->step, c.first, rows, &c.logits, err));
    pl_pool_for(s->engine->backend->pool, n, 1, choose_some, &c);
    return PL_OK;
}

/* Tokens for those whom the host chooses for, logits as they come. */
static pl_status choose(pl_scheduler *s, pl_task *const *task, int32_t n, pl_error *err)
{
    pl_task *group[PL_STEP_LOGITS];
    int32_t in_group = 0, rows = 0;
    for (int32_t i = 0; i < n; i++) {
        if (task[i]->drawn || !pl_task_chooses(task[i]))
            continue;
        int32_t more = 1 + task[i]->proposed;
        if (in_group > 0 && rows + more > PL_STEP_LOGITS) {
            PL_TRY(choose_group(s, group, in_group, rows, err));
            in_group = rows = 0;
        }
        group[in_group++] = task[i];
        rows += more;
    }
    return in_group > 0 ? choose_group(s, group, in_group, rows, err) : PL_OK;
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

/* Waits for the step and takes its tokens and states. */
static pl_status finish(pl_scheduler *s, pl_task *const *task, int32_t n, pl_error *err)
{
    PL_TRY(pl_step_wait(s->result, err));
    PL_TRY(choose(s, task, n, err));
    for (int32_t i = 0; i < n; i++)
        if (task[i]->sum)
            PL_TRY(sum_states(s, task[i], err));
    take_drawn(s, task, n);
    for (int32_t i = 0; i < n; i++)
        task[i]->held += task[i]->rows;
    return PL_OK;
}

/* ---- running ----------------------------------------------------------------------------------- */

/* Some row's values are not finite: each by itself, and without what was proposed, so that only whose they are fails. */
static void run_each(pl_scheduler *s)
{
    for (int32_t i = 0; i < s->n_picked; i++) {
        pl_task *t = s->picked[i];
        pl_proposals_drop(t);
        pl_status status = pl_kv_extend(s->engine->kv, t->sequence, t->rows, &t->failure);
        if (status == PL_OK)
            status = queue(s, &t, 1, &t->failure);
        if (status == PL_OK)
            status = finish(s, &t, 1, &t->failure);
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

static pl_status run(pl_scheduler *s, bool queued, pl_error *err)
{
    if (!queued)
        PL_TRY(queue(s, s->picked, s->n_picked, err));
    queue_ahead(s);
    return finish(s, s->picked, s->n_picked, err);
}

/* A step that fails for all is taken back. */
void pl_run_picked(pl_scheduler *s)
{
    pl_error err;
    bool queued = s->n_ahead > 0;
    s->n_ahead = 0;
    double begin = pl_timeline_now(s->engine->timeline);
    pl_status status = run(s, queued, &err);
    pl_timeline_end(s->engine->timeline, PL_TIMELINE_MAIN, "serve a step", begin);
    if (status == PL_OK)
        return;
    pl_run_drop_ahead(s);
    for (int32_t i = 0; i < s->n_picked; i++)
        take_back(s, s->picked[i]);
    if (status == PL_ERR_DEVICE) {
        lose(s, &err);
        s->n_picked = 0;
    } else {
        run_each(s);
    }
}
