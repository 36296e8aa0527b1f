#include "host/engine/step_parts.h"

#include <string.h>

void pl_step_watch(pl_step *t, pl_watch_fn watch, void *user)
{
    t->show.watch = watch;
    t->show.watch_user = user;
}

static bool same_rows(const pl_rows *a, const pl_rows *b)
{
    return a->n == b->n && memcmp(a->slot, b->slot, (size_t)a->n * sizeof *a->slot) == 0;
}

static bool all_distinct(const int32_t *sequence, int n)
{
    for (int i = 1; i < n; i++)
        for (int j = 0; j < i; j++)
            if (sequence[i] == sequence[j])
                return false;
    return true;
}

/* Whether a head that only finds the largest logits serves all wanted rows. */
static void choose_head(pl_step *t, const pl_step_row *rows)
{
    int wanted = 0;
    t->only_top = t->ops->head_top && t->wanted <= PL_HEAD_ROWS && t->draws == 0 && !pl_step_shown(&t->show);
    for (int i = 0; i < t->n && t->only_top; i++) {
        if (!rows[i].wanted)
            continue;
        t->only_top = rows[i].top != 0;
        t->top[wanted++] = rows[i].top;
    }
}

/* How the present step can be run. */
static void choose_form(pl_step *t, const pl_step_row *rows)
{
    t->takes = false;
    t->draws = 0;
    t->act.rounded = t->backend->rounds != NULL;
    for (int i = 0; i < t->n; i++) {
        t->act.rounded &= rows[i].prompt;
        t->takes |= rows[i].drawn;
        t->draws += rows[i].draw;
    }
    bool shown = pl_step_shown(&t->show);
    t->fused = !shown && t->backend->fused && t->n <= t->backend->fused->most_rows ? t->backend->fused : NULL;
    t->distinct = !shown && t->n <= PL_FUSED_ROWS && all_distinct(pl_step_input_host(t->input).sequence, t->n);
    t->logits_rows = t->wanted <= PL_STEP_LOGITS && !pl_step_shown(&t->show) ? t->wanted : 0;
    choose_head(t, rows);
    memset(t->chained, 0, sizeof t->chained);
    pl_layer_view last = {{0}, NULL};
    for (int layer = 0; t->fused && layer < t->config->n_layers; layer++) {
        pl_layer_view view = pl_step_input_layer_host(t->input, layer);
        if (view.rows.n == 0)
            continue;
        t->chained[layer / 64] |= (uint64_t)same_rows(&view.rows, &last.rows) << layer % 64;
        last = view;
    }
}

/* All that decides which ops run and how they are launched. */
typedef struct step_key {
    int16_t n, wanted, draws, logits_rows;
    bool distinct, takes;
    uint64_t chained[2];
    int16_t rows[PL_MAX_LAYERS];
    int32_t widest[PL_MAX_LAYERS]; /* negative where all rows are as wide as the layer */
} step_key;

_Static_assert(sizeof(step_key) <= PL_KEY_BYTES, "a key is too long");
_Static_assert(PL_STEP_REPORTS <= PL_INPUT_REPORT_INTS, "a report is too long");

static void make_key(const pl_step *t, step_key *key)
{
    memset(key, 0, sizeof *key);
    key->n = (int16_t)t->n;
    key->wanted = (int16_t)t->wanted;
    key->logits_rows = (int16_t)t->logits_rows;
    key->distinct = t->distinct;
    key->takes = t->takes;
    key->draws = (int16_t)t->draws;
    memcpy(key->chained, t->chained, sizeof key->chained);
    for (int layer = 0; layer < t->config->n_layers; layer++) {
        pl_layer_view view = pl_step_input_layer_host(t->input, layer);
        int n = view.rows.n;
        key->rows[layer] = (int16_t)n;
        if (n > 0 && (!t->fused || t->comm))
            key->widest[layer] = view.width[n - 1] == t->config->ffn[layer] ? -1 : view.width[0];
    }
}

/* How many of tokens[0..n) ascend by one. */
static int32_t run_length(const int32_t *tokens, int32_t n)
{
    int32_t length = 1;
    while (length < n && tokens[length] == tokens[0] + length)
        length++;
    return length;
}

/* Brings the rows that some tokens stand for to the ops; the tokens become their places there. */
static void bring_soft(pl_step *t)
{
    int32_t *token = pl_step_input_host(t->input).token, place = 0;
    int64_t hidden = t->config->hidden;
    for (int32_t i = 0, n = 0; i < t->n && t->soft_source; i += n) {
        n = 1;
        if (token[i] < pl_soft_rows_first(t->soft_source))
            continue;
        const float *rows = pl_soft_rows_at(t->soft_source, token[i], &n);
        int32_t run = run_length(token + i, t->n - i);
        n = n < run ? n : run;
        t->backend->upload(t->stream, t->soft + place * hidden, rows, (size_t)(n * hidden) * sizeof *rows);
        for (int32_t k = 0; k < n; k++)
            token[i + k] = -1 - place++;
    }
}

static pl_status request_rows(pl_step *t, pl_error *err)
{
    pl_step_slots host = pl_step_input_host(t->input);
    for (int i = 0; i < t->n; i++) {
        int32_t from = host.drawn[i];
        t->wants[i] = (pl_ple_want){.id = host.token[i]};
        if (from >= 0)
            t->wants[i] = (pl_ple_want){.drawn = pl_draws_drawn(t->samplers, from),
                                        .count = pl_draws_queued(t->samplers, from)};
    }
    return pl_ple_request(t->ple_source, t->wants, t->n, host.ticket, err);
}

/* Behind request_rows: the draws that a row takes are those queued before this step. */
static void place_draws(pl_step *t)
{
    pl_step_slots host = pl_step_input_host(t->input);
    for (int i = 0; i < t->draws; i++) {
        host.draws[i] = pl_draws_sampler(t->samplers, host.sequence[i]);
        host.drawns[i] = pl_draws_drawn(t->samplers, host.sequence[i]);
        pl_draws_queue(t->samplers, host.sequence[i]);
    }
}

static void walk_or_replay(pl_step *t)
{
    if (pl_step_shown(&t->show)) {
        pl_step_walk(t);
        return;
    }
    step_key key;
    make_key(t, &key);
    if (t->backend->begin(t->stream, &key, sizeof key))
        pl_step_walk(t);
    t->backend->end(t->stream);
}

static void keep_result(pl_step *t, pl_step_result *r)
{
    pl_step_slots host = pl_step_input_host(t->input);
    memcpy(r->token, host.token, (size_t)t->n * sizeof *r->token);
    memcpy(r->position, host.position, (size_t)t->n * sizeof *r->position);
    t->backend->download(t->stream, r->report, t->slots.report, PL_STEP_REPORTS * sizeof *r->report);
    for (int i = 0; i < t->draws; i++)
        t->backend->download(t->stream, &r->drawn[i], &host.draws[i]->token, sizeof *r->drawn);
    r->mark = t->backend->mark(t->stream);
}

static void plan(pl_step *t, const pl_step_row *rows, int n)
{
    t->n = n;
    t->wanted = pl_step_input_fill(t->input, rows, n);
    t->slots = pl_step_input_ops(t->input);
    bring_soft(t);
    t->streams.rows = t->pred.rows = n;
    choose_form(t, rows);
}

static void queue_walk(pl_step *t)
{
    pl_step_input_upload(t->input);
    walk_or_replay(t);
}

/* ---- ranks ---- */

void pl_step_share(pl_step *t, pl_comm *comm, pl_team *team, pl_step *const *others)
{
    t->comm = comm;
    t->team = team;
    t->others = others;
}

typedef struct shared_step {
    const pl_step *first;
    const pl_step_row *rows;
    int n;
} shared_step;

static pl_status queue_other(void *ctx, int rank, pl_error *err)
{
    const shared_step *s = ctx;
    pl_step *t = s->first->others[rank - 1];
    (void)err;
    plan(t, s->rows, s->n);
    *pl_step_input_host(t->input).ticket = *pl_step_input_host(s->first->input).ticket;
    queue_walk(t);
    t->marked = t->backend->mark(t->stream);
    return PL_OK;
}

static pl_status wait_for_other(void *ctx, int rank, pl_error *err)
{
    pl_step *t = ((const pl_step *)ctx)->others[rank - 1];
    return t->backend->wait_for(t->stream, t->marked, err);
}

static pl_status queue_all(pl_step *t, const pl_step_row *rows, pl_step_result *result, pl_error *err)
{
    shared_step shared = {t, rows, t->n};
    pl_team_begin(t->team, queue_other, &shared);
    queue_walk(t);
    keep_result(t, result);
    return pl_team_end(t->team, err);
}

static pl_status wait_for_all(pl_step *t, uint64_t mark, pl_error *err)
{
    pl_error failure;
    pl_team_begin(t->team, wait_for_other, t);
    if (t->backend->wait_for(t->stream, mark, &failure) != PL_OK)
        pl_team_fail(t->team, &failure);
    return pl_team_end(t->team, err);
}

/* ---- steps ---- */

pl_status pl_step_queue(pl_step *t, const pl_step_row *rows, int n, pl_step_result *result, pl_error *err)
{
    plan(t, rows, n);
    PL_TRY(request_rows(t, err));
    place_draws(t);
    pl_kv_upload(t->kv);
    if (t->team)
        return queue_all(t, rows, result, err);
    queue_walk(t);
    keep_result(t, result);
    return PL_OK;
}

pl_status pl_step_wait(pl_step_result *r, pl_error *err)
{
    pl_step *t = r->step;
    if (t->team)
        PL_TRY(wait_for_all(t, r->mark, err));
    else
        PL_TRY(t->backend->wait_for(t->stream, r->mark, err));
    int ple = r->report[PL_REPORT_PLE], output = r->report[PL_REPORT_OUTPUT];
    if (ple > 0) {
        const pl_ple_rows *table = t->ple_rows;
        int32_t id = r->token[ple - 1], row = id >= 0 && id < table->vocab ? id : 0;
        return pl_fail(err, PL_ERR_NUMERIC, "tensor %s, row %d: a value is not finite", table->name, row);
    }
    if (output > 0)
        return pl_fail(err, PL_ERR_NUMERIC, "the model's output at position %d is not finite", r->position[output - 1]);
    return PL_OK;
}

int32_t pl_step_drawn(const pl_step_result *r, int i)
{
    return r->drawn[i];
}

pl_status pl_step_run(pl_step *t, const pl_step_row *rows, int n, pl_trace_fn trace, void *trace_user, pl_error *err)
{
    if (t->team && (trace || t->show.watch))
        return pl_fail(err, PL_ERR_UNSUPPORTED,
                       "what a step computes cannot be shown where ranks share the model: none of them has all of it");
    t->show.trace = trace;
    t->show.trace_user = trace_user;
    t->show.n = n;
    t->show.path = rows[0].path;
    t->show.status = PL_OK;
    t->show.err = err;
    PL_TRY(pl_step_queue(t, rows, n, t->own, err));
    t->show.trace = NULL;
    PL_TRY(t->show.status);
    return pl_step_wait(t->own, err);
}

pl_status pl_step_logits(pl_step *t, int first, int n, const float **logits, pl_error *err)
{
    const pl_config *c = t->config;
    if (first < 0 || n < 1 || n > PL_STEP_LOGITS || first + n > t->wanted)
        return pl_fail(err, PL_ERR_ARGUMENT, "logits of rows %d to %d of %d", first, first + n - 1, t->wanted);
    const float *from = t->logits + (int64_t)first * c->vocab;
    if (first + n > t->logits_rows) {
        pl_step_walk_head(t, first, n);
        from = t->logits;
    }
    const void *seen = NULL;
    PL_TRY(t->backend->fetch(t->stream, from, (size_t)n * (size_t)c->vocab * sizeof *from, &seen, err));
    *logits = seen;
    return PL_OK;
}

pl_status pl_step_hidden(pl_step *t, int first, int n, const float **states, pl_error *err)
{
    int64_t hidden = t->config->hidden;
    if (first < 0 || n < 1 || first + n > t->wanted)
        return pl_fail(err, PL_ERR_ARGUMENT, "states of rows %d to %d of %d", first, first + n - 1, t->wanted);
    const void *seen = NULL;
    PL_TRY(
        t->backend->fetch(t->stream, t->hidden + first * hidden, (size_t)(n * hidden) * sizeof *t->hidden, &seen, err));
    *states = seen;
    return PL_OK;
}
