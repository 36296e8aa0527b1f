#include "host/batch/deadline.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

#define SPARE_TO_STAY 0.1
#define SPARE_TO_WIDEN 0.2
#define DEFAULT_LINE_S 10
#define KNOWN 8    /* lines that must be done before what is learned counts */
#define TRUST 16   /* lines on a path that weigh as much as the guess from the others */
#define MEMORY 256 /* lines that are remembered, beside those under way */
#define WAITS UINT8_MAX
#define DONE (UINT8_MAX - 1)

struct pl_deadline {
    pl_deadline_path paths[PL_DEADLINE_PATHS];
    int32_t n;
    int64_t lines;
    double end_s, guess_s;
    pthread_mutex_t lock; /* of what follows */
    uint8_t *state;       /* [lines] the path of a line under way; WAITS, DONE */
    int64_t left;         /* that wait */
    int64_t under_way[PL_DEADLINE_PATHS];
    double seconds[PL_DEADLINE_PATHS], done[PL_DEADLINE_PATHS]; /* of lines on each, those long ago count less */
    double last_s;                                              /* when a line was done, or the beginning */
    int32_t present;
};

/* ---- paths ------------------------------------------------------------------------------------- */

/* Keeps the list sorted; false: there is one as wide. */
static bool insert(pl_deadline_path *list, int32_t n, const pl_deadline_path *path)
{
    int32_t at = n;
    for (int32_t i = 0; i < n; i++)
        if (list[i].cost == path->cost)
            return false;
    for (; at > 0 && list[at - 1].cost < path->cost; at--)
        list[at] = list[at - 1];
    list[at] = *path;
    return true;
}

pl_status pl_deadline_find_paths(const pl_model *model, pl_engine *engine, pl_deadline_path out[PL_DEADLINE_PATHS],
                                 int32_t *n, pl_error *err)
{
    pl_session *session;
    pl_status status = PL_OK;
    const char *name;
    *n = 0;
    PL_TRY(pl_session_create(engine, &session, err));
    for (size_t i = 0; *n < PL_DEADLINE_PATHS && (name = pl_model_path(model, i)); i++) {
        pl_deadline_path path;
        PL_TRY_GOTO(pl_session_set_path(session, name, PL_SWITCH_FAST, err));
        snprintf(path.name, sizeof path.name, "%s", name);
        path.cost = (double)pl_session_token_bytes(session);
        *n += insert(out, *n, &path);
    }
    for (int32_t i = *n - 1; i >= 0; i--)
        out[i].cost /= out[0].cost;
fail:
    pl_session_free(session);
    return status;
}

/* ---- the choice -------------------------------------------------------------------------------- */

int32_t pl_deadline_plan(const double *line_s, int32_t n, int32_t present, const pl_deadline_left *left)
{
    for (int32_t i = 0; i < n - 1; i++) {
        double spare = i < present ? SPARE_TO_WIDEN : SPARE_TO_STAY;
        double needed = (double)left->lines * line_s[i] + left->under_way_s;
        if (needed <= (1 - spare) * left->seconds)
            return i;
    }
    return n - 1;
}

/* ---- what is known ----------------------------------------------------------------------------- */

/* Seconds a line on each path. */
static void expect_lines(const pl_deadline *d, double line_s[PL_DEADLINE_PATHS])
{
    double seconds = 0, done = 0, costs = 0;
    for (int32_t i = 0; i < d->n; i++) {
        seconds += d->seconds[i];
        done += d->done[i];
        costs += d->done[i] * d->paths[i].cost;
    }
    bool known = done >= KNOWN;
    double unit = known ? seconds / costs : d->guess_s;
    for (int32_t i = 0; i < d->n; i++) {
        line_s[i] = unit * d->paths[i].cost;
        if (known)
            line_s[i] = (TRUST * line_s[i] + d->seconds[i]) / (TRUST + d->done[i]);
    }
}

static double expect_under_way(const pl_deadline *d, const double *line_s)
{
    double seconds = 0;
    for (int32_t i = 0; i < d->n; i++)
        seconds += (double)d->under_way[i] * line_s[i];
    return seconds;
}

/* The time since the last line was done is what this one took, since the lines of a job share its engines. */
static void learn(pl_deadline *d, int32_t path, double now_s)
{
    int64_t under_way = 0;
    for (int32_t i = 0; i < d->n; i++)
        under_way += d->under_way[i];
    double keep = 1 - 1 / (MEMORY + 2 * (double)under_way);
    for (int32_t i = 0; i < d->n; i++) {
        d->seconds[i] *= keep;
        d->done[i] *= keep;
    }
    d->seconds[path] += now_s - d->last_s;
    d->done[path] += 1;
    d->last_s = now_s;
}

/* ---- a job ------------------------------------------------------------------------------------- */

pl_status pl_deadline_create(const pl_deadline_params *params, pl_deadline **out, pl_error *err)
{
    if (params->n_paths < 1 || params->n_paths > PL_DEADLINE_PATHS)
        return pl_fail(err, PL_ERR_ARGUMENT, "%d paths to choose from, expected 1 to %d", params->n_paths,
                       PL_DEADLINE_PATHS);
    pl_deadline *d = calloc(1, sizeof *d);
    uint8_t *state = malloc((size_t)params->lines + 1);
    if (!d || !state) {
        free(d);
        free(state);
        return pl_fail_memory(err, (size_t)params->lines + sizeof *d, "the paths of lines");
    }
    for (int64_t i = 0; i < params->lines; i++)
        state[i] = WAITS;
    *d = (pl_deadline){.n = params->n_paths,
                       .lines = params->lines,
                       .end_s = params->end_s,
                       .guess_s = params->line_s > 0 ? params->line_s : DEFAULT_LINE_S,
                       .state = state,
                       .left = params->left,
                       .last_s = params->now_s,
                       .present = -1};
    for (int32_t i = 0; i < d->n; i++)
        d->paths[i] = params->paths[i];
    pthread_mutex_init(&d->lock, NULL);
    *out = d;
    return PL_OK;
}

void pl_deadline_free(pl_deadline *d)
{
    if (!d)
        return;
    pthread_mutex_destroy(&d->lock);
    free(d->state);
    free(d);
}

const char *pl_deadline_choose(pl_deadline *d, int64_t line, double now_s)
{
    double line_s[PL_DEADLINE_PATHS];
    pthread_mutex_lock(&d->lock);
    uint8_t *state = &d->state[line];
    if (*state < DONE) { /* it has come back */
        d->under_way[*state]--;
        d->left++;
    }
    expect_lines(d, line_s);
    const pl_deadline_left left = {d->left, expect_under_way(d, line_s), d->end_s - now_s};
    int32_t path = d->present = pl_deadline_plan(line_s, d->n, d->present, &left);
    *state = (uint8_t)path;
    d->under_way[path]++;
    d->left -= d->left > 0;
    pthread_mutex_unlock(&d->lock);
    return d->paths[path].name;
}

void pl_deadline_done(pl_deadline *d, int64_t line, double now_s)
{
    pthread_mutex_lock(&d->lock);
    uint8_t *state = &d->state[line];
    if (*state < DONE) {
        d->under_way[*state]--;
        learn(d, *state, now_s);
    } else if (*state == WAITS) {
        d->left -= d->left > 0;
    }
    *state = DONE;
    pthread_mutex_unlock(&d->lock);
}

double pl_deadline_expect(pl_deadline *d)
{
    double line_s[PL_DEADLINE_PATHS];
    pthread_mutex_lock(&d->lock);
    expect_lines(d, line_s);
    int32_t path = d->present >= 0 ? d->present : d->n - 1;
    double seconds = (double)d->left * line_s[path] + expect_under_way(d, line_s);
    pthread_mutex_unlock(&d->lock);
    return seconds;
}
