#include "host/engine/scheduler_parts.h"

#define EXPECTED_TOKENS 256 /* of an answer without a bound of its own */

pl_status pl_lanes_start(pl_scheduler *s, pl_error *err)
{
    const pl_model *model = s->engine->model;
    const char *name;
    for (size_t i = 0; i < PL_ELASTIC_PATHS && (name = pl_model_path(model, i)); i++) {
        pl_path path;
        PL_TRY(pl_path_parse(model->checkpoint, name, &path, err));
        PL_TRY(pl_lane_take(s, &path, &s->elastic_lane[s->n_elastic], err));
        s->n_elastic++;
    }
    return PL_OK;
}

/* Weighted rows of answers under way, and how many they are. */
static double answering_rows(const pl_scheduler *s, int32_t *n)
{
    double weighted = 0;
    *n = 0;
    for (int32_t i = 0; i < s->n_tasks; i++) {
        const pl_task *t = s->task[i];
        if (t->sequence < 0 || t->n_stretches == 0 || !t->reply || t->n_tokens - t->held > 1)
            continue;
        weighted += pl_task_last_lane(t)->weight;
        ++*n;
    }
    return weighted;
}

/* What each path costs now; `alike`: were all answers on it. */
static void price(const pl_scheduler *s, bool alike, pl_elastic_path *paths)
{
    int32_t n;
    double rows = answering_rows(s, &n), chunk = s->engine->batch_rows;
    for (int32_t i = 0; i < s->n_elastic; i++) {
        double weight = s->elastic_lane[i]->weight;
        double tokens = alike ? (n + 1) * weight : rows + weight;
        paths[i] = (pl_elastic_path){
            .cost = weight,
            .prompt_token_s = pl_step_cost_expect(&s->cost, chunk * weight * s->prompt_weight) / chunk,
            .token_s = pl_step_cost_expect(&s->cost, tokens),
        };
    }
}

static int32_t left_tokens(const pl_scheduler *s, const pl_task *t)
{
    int32_t room = s->engine->context + 1 - t->n_tokens, max = t->asked.generation.max_tokens;
    int32_t left = max < 0 ? EXPECTED_TOKENS : max - (int32_t)pl_reply_tokens(t->reply);
    return left < room ? left : room;
}

static pl_elastic_ask ask_of(const pl_scheduler *s, const pl_task *t, double now)
{
    return (pl_elastic_ask){
        .wish = t->asked.wish,
        .first_token_s = t->asked.first_token_s,
        .token_s = t->asked.token_s,
        .waited_s = now - t->arrived_s,
        .prompt_tokens = t->n_prompt,
        .answer_tokens = t->reply ? left_tokens(s, t) : 0,
    };
}

static int32_t kept_for(const pl_scheduler *s, const pl_task *t, const pl_lane *lane)
{
    return s->prefixes && !t->sum ? pl_prefixes_match(s->prefixes, &lane->path, t->tokens, t->n_tokens) : 0;
}

void pl_lanes_choose(pl_scheduler *s, pl_task *t, double now)
{
    pl_elastic_path paths[PL_ELASTIC_PATHS];
    price(s, false, paths);
    for (int32_t i = 0; i < s->n_elastic; i++)
        paths[i].reusable = kept_for(s, t, s->elastic_lane[i]);
    pl_elastic_ask ask = ask_of(s, t, now);
    pl_elastic_choice choice = pl_elastic_choose(&s->elastic, paths, s->n_elastic, &ask);
    t->stretch[0] = (pl_stretch){0, s->elastic_lane[choice.path]};
    t->n_stretches = 1;
    t->reason = choice.reason;
}

/* ---- moves ------------------------------------------------------------------------------------- */

static bool same_kv(const pl_scheduler *s, const pl_lane *a, const pl_lane *b)
{
    return pl_path_same_kv(s->engine->config, &a->path, &b->path);
}

static bool may_move(const pl_task *t)
{
    return !t->own_lane && t->asked.moves != PL_MOVES_NONE && t->sequence >= 0 && !t->ended && t->reply &&
           pl_reply_tokens(t->reply) > 0 && t->n_tokens - t->held == 1;
}

static int32_t lane_index(const pl_scheduler *s, const pl_lane *lane)
{
    int32_t i = 0;
    while (s->elastic_lane[i] != lane)
        i++;
    return i;
}

/* Tokens that must be read again to go on there. */
static int32_t tokens_again(const pl_scheduler *s, const pl_task *t, const pl_lane *to)
{
    if (t->asked.moves == PL_MOVES_FAST || same_kv(s, pl_task_last_lane(t), to))
        return 0;
    return t->held - kept_for(s, t, to);
}

/* From the next token on. What has been read stays where it serves, or where it may; else it is read again. */
static bool move(pl_scheduler *s, pl_task *t, pl_lane *to)
{
    pl_stretch *last = &t->stretch[t->n_stretches - 1];
    if (same_kv(s, last->lane, to) || last->from == t->held) {
        last->lane = to;
        return true;
    }
    if (t->asked.moves == PL_MOVES_FAST) {
        if (t->n_stretches == PL_TASK_STRETCHES)
            return false;
        pl_room_keep(s, t, false);
        t->stretch[t->n_stretches++] = (pl_stretch){t->held, to};
        return true;
    }
    pl_room_keep(s, t, true);
    pl_kv_truncate(s->engine->kv, t->sequence, 0);
    t->held = 0;
    t->stretch[0] = (pl_stretch){0, to};
    pl_room_adopt(s, t);
    return true;
}

static void consider(pl_scheduler *s, pl_task *t, const pl_elastic_path *paths, double now)
{
    int32_t present = lane_index(s, pl_task_last_lane(t)), left = left_tokens(s, t);
    pl_elastic_ask ask = ask_of(s, t, now);
    pl_elastic_choice choice = pl_elastic_move(&s->elastic, paths, s->n_elastic, &ask, present, 0, left);
    if (choice.path == present)
        return;
    int32_t again = tokens_again(s, t, s->elastic_lane[choice.path]);
    if (again > 0)
        choice = pl_elastic_move(&s->elastic, paths, s->n_elastic, &ask, present, again, left);
    if (choice.path == present || !move(s, t, s->elastic_lane[choice.path]))
        return;
    t->reason = choice.reason;
    t->moved++;
    s->count.moves++;
}

static pl_elastic_load load_of(const pl_scheduler *s, double now)
{
    pl_kv_room room = pl_kv_count(s->engine->kv);
    pl_elastic_load load = {.running = s->n_running,
                            .waiting = s->n_tasks - s->n_running,
                            .max_running = s->max_running,
                            .kv_share = room.tokens > 0 ? (double)room.used / (double)room.tokens : 0,
                            .now_s = now};
    for (int32_t i = 0; i < s->n_tasks; i++) {
        const pl_task *t = s->task[i];
        int32_t unread = t->n_tokens - t->held;
        load.waiting_tokens += unread > 1 ? unread : 0;
        if (t->first_s == 0 && now - t->arrived_s > load.longest_wait_s)
            load.longest_wait_s = now - t->arrived_s;
    }
    return load;
}

void pl_lanes_follow(pl_scheduler *s, double now)
{
    pl_elastic_path paths[PL_ELASTIC_PATHS];
    pl_elastic_load load = load_of(s, now);
    price(s, true, paths);
    pl_elastic_follow(&s->elastic, paths, s->n_elastic, &load);
    price(s, false, paths);
    for (int32_t i = 0; i < s->n_tasks; i++)
        if (may_move(s->task[i]))
            consider(s, s->task[i], paths, now);
}
