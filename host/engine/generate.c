/* One answer on a session: read the prompt, then choose, show, read, until something ends it. A step may read proposals
 * behind the last token (draft.h). Where the ops draw, each step is queued before the token that it reads is known. */
#include "host/base/clock.h"
#include "host/engine/card_draw.h"
#include "host/engine/draft_path.h"
#include "host/engine/reply.h"
#include "host/engine/session.h"

#include <stdlib.h>
#include <string.h>

typedef struct answer {
    pl_session *session;
    pl_reply *reply;
    pl_soft_holds holds; /* of the prompt, until the session has it */
    pl_candidates room;  /* for choosing on the host */
    int32_t max_tokens;
    pl_draft *draft;    /* NULL: nothing is proposed */
    pl_path draft_path; /* with draft->by_path */
    double draft_share; /* of what a row of the session's path costs */
    int32_t proposed;   /* tokens behind the session's that the step at hand reads */
    int32_t n_rows;     /* logits of the step at hand that have been seen */
} answer;

static bool ops_draw(const pl_session *s, const pl_generation *params)
{
    return s->engine->draws && params->max_tokens != 0 && !s->trace && !s->watch && params->n_logprobs < 0 &&
           !params->grammar && pl_card_draw_fits(&params->sampling, s->engine->context + 1);
}

/* The sampler's description to where the ops are. */
static pl_status start_draws(pl_session *s, const pl_generation *params, const int32_t *prompt, size_t n, pl_error *err)
{
    pl_engine *e = s->engine;
    pl_draw *sampler = calloc(1, sizeof *sampler);
    if (!sampler)
        return pl_fail_memory(err, sizeof *sampler, "sampler");
    pl_status status = pl_card_draw_start(&params->sampling, e->config->vocab, e->context + 1, prompt, n, sampler, err);
    pl_engine_lock(e);
    if (status == PL_OK)
        pl_draws_start(e->draws, s->sequence, sampler);
    pl_engine_unlock(e);
    free(sampler);
    return status;
}

static pl_status prepare_draft(answer *a, const pl_drafting *asked, pl_error *err)
{
    const pl_session *s = a->session;
    const pl_checkpoint *checkpoint = s->engine->model->checkpoint;
    PL_TRY(pl_draft_create(asked, s->engine->context + 1, s->engine->config->vocab, &a->draft, err));
    if (!a->draft || !asked->path)
        return PL_OK;
    PL_TRY(pl_path_parse(checkpoint, asked->path, &a->draft_path, err));
    a->draft_share = (double)pl_path_bytes(checkpoint, &a->draft_path) / (double)pl_path_bytes(checkpoint, &s->path);
    a->draft->by_path = a->draft_share < 1;
    return PL_OK;
}

static pl_status prepare(answer *a, const int32_t *prompt, size_t n, const pl_generation *params, bool drawn,
                         pl_error *err)
{
    const pl_engine *e = a->session->engine;
    PL_TRY(pl_reply_create(e->model, e->context, prompt, n, params, drawn, &a->reply, err));
    if (!drawn && !e->draws && !a->session->trace && !a->session->watch)
        PL_TRY(prepare_draft(a, &params->draft, err));
    return drawn ? start_draws(a->session, params, prompt, n, err)
                 : pl_candidates_init(&a->room, e->config->vocab, err);
}

/* The sink of pl_session_read(): tokens are chosen where the logits are. */
static pl_status choose(void *user, int32_t first, int32_t n, const float *logits, pl_error *err)
{
    (void)first;
    answer *a = user;
    a->n_rows = n;
    return pl_reply_choose(a->reply, &a->room, logits, a->session->tokens + a->session->n_tokens, n - 1, err);
}

/* Keeps a chosen token as the session's, then shows it. */
static pl_status take_token(answer *a, bool *done, pl_error *err)
{
    pl_session *s = a->session;
    s->tokens[s->n_tokens++] = pl_reply_token(a->reply);
    return pl_reply_show(a->reply, done, err);
}

/* ---- proposals ---- */

static void propose_by_path(answer *a, int steps)
{
    pl_session *s = a->session;
    int32_t held = s->n_tokens - 1;
    pl_draft_by_path by = {.draft = a->draft,
                           .reply = a->reply,
                           .path = &a->draft_path,
                           .sequence = s->sequence,
                           .held = held,
                           .last = s->tokens[held]};
    pl_engine_lock(s->engine);
    pl_draft_by_path_run(s->engine, &s->sense, &a->room, &by, 1, steps, s->rows);
    pl_engine_unlock(s->engine);
}

/* Puts what pays behind the session's tokens. */
static void propose(answer *a)
{
    const pl_session *s = a->session;
    pl_draft *d = a->draft;
    a->proposed = 0;
    if (!d)
        return;
    int32_t most = s->engine->context - s->n_tokens, rows = s->engine->batch_rows - 1;
    int32_t left = a->max_tokens < 0 ? most : a->max_tokens - (int32_t)pl_reply_tokens(a->reply) - 1;
    most = most < left ? most : left;
    most = most < rows ? most : rows;
    pl_draft_find(d, &a->session->sense, s->tokens, s->n_tokens, most);
    int limit = most < PL_DRAFT_AUTO || d->asked.most > 0 ? most : PL_DRAFT_AUTO;
    int steps = pl_drafts_choose(&a->session->sense, &d, 1, 1, 1, most, limit, a->draft_share);
    if (steps > 0 && !atomic_load(&s->cancelled))
        propose_by_path(a, steps);
    memcpy(s->tokens + s->n_tokens, d->token, (size_t)d->item.n * sizeof *d->token);
    a->proposed = d->item.n;
}

static void keep_kv(pl_session *s, int32_t n)
{
    pl_engine_lock(s->engine);
    pl_kv_truncate(s->engine->kv, s->sequence, n);
    pl_engine_unlock(s->engine);
}

/* Forgets what was proposed and not chosen. */
static void settle(answer *a, double seconds)
{
    pl_session *s = a->session;
    if (!a->draft)
        return;
    pl_draft_cost_learn(&s->sense.cost, a->n_rows, seconds);
    if (a->proposed == 0)
        return;
    int32_t accepted = pl_reply_chosen(a->reply) - 1;
    keep_kv(s, s->n_tokens + accepted);
    pl_draft_settle(a->draft, &s->sense, accepted);
}

/* The step behind the last token shown. Where it fails with proposals that may be their fault, so it is made again
 * without. */
static pl_status read_on(answer *a, pl_error *err)
{
    pl_session *s = a->session;
    propose(a);
    double begin = pl_clock_seconds();
    a->n_rows = 0;
    s->top = pl_reply_top(a->reply);
    pl_status status = pl_session_read(s, s->n_tokens + a->proposed, true, choose, a, err);
    if (status != PL_OK && status != PL_ERR_CANCELLED && a->proposed > 0 && a->n_rows == 0) {
        a->proposed = 0;
        status = pl_session_read(s, s->n_tokens, true, choose, a, err);
    }
    s->top = 0;
    PL_TRY(status);
    settle(a, pl_clock_seconds() - begin);
    return PL_OK;
}

static pl_status answer_on_host(answer *a, bool done, pl_generated *out, double start, pl_error *err)
{
    pl_session *s = a->session;
    PL_TRY(pl_session_read(s, s->n_tokens, false, choose, a, err));
    double first = pl_clock_seconds();
    out->prompt_s = first - start;
    while (!done) {
        while (!done && pl_reply_chosen(a->reply) > 0)
            PL_TRY(take_token(a, &done, err));
        if (!done)
            PL_TRY(read_on(a, err));
        out->generate_s = pl_clock_seconds() - first;
    }
    return PL_OK;
}

/* Whether a token may come behind the one that is being drawn. */
static bool may_follow(const answer *a, int32_t max)
{
    return a->session->n_tokens < a->session->engine->context &&
           (max < 0 || pl_reply_tokens(a->reply) + 1 < (size_t)max) && !atomic_load(&a->session->cancelled);
}

static pl_status take_drawn(answer *a, int32_t token, bool *done, pl_error *err)
{
    if (atomic_load(&a->session->cancelled))
        return pl_fail(err, PL_ERR_CANCELLED, "cancelled at token %d", a->session->n_tokens);
    PL_TRY(pl_reply_take(a->reply, token, err));
    return take_token(a, done, err);
}

/* While one step draws a token, the next one, which reads it, is queued behind it. */
static pl_status answer_on_card(answer *a, int32_t max, pl_generated *out, double start, pl_error *err)
{
    pl_session *s = a->session;
    pl_step_result *drawing = s->result[0], *next = s->result[1];
    PL_TRY(pl_session_queue_read(s, s->n_tokens, drawing, err));
    pl_status status = PL_OK;
    double first = 0;
    for (bool done = false; status == PL_OK && !done;) {
        int32_t token = 0;
        bool ahead = may_follow(a, max);
        pl_status queued = ahead ? pl_session_queue_drawn(s, next, err) : PL_OK;
        status = pl_session_wait_drawn(s, drawing, &token, err);
        if (first == 0) {
            first = pl_clock_seconds();
            out->prompt_s = first - start;
        }
        if (status == PL_OK)
            status = queued == PL_OK ? take_drawn(a, token, &done, err) : queued;
        out->generate_s = pl_clock_seconds() - first;
        if (ahead && queued == PL_OK && (done || status != PL_OK))
            pl_step_wait(next, NULL); /* nobody wants its token any more */
        pl_step_result *spare = drawing;
        drawing = next;
        next = spare;
    }
    pl_session_truncate(s, (size_t)s->n_tokens, NULL);
    return status;
}

static pl_status run(answer *a, const int32_t *prompt, size_t n, const pl_generation *params, pl_generated *out,
                     pl_error *err)
{
    bool drawn = ops_draw(a->session, params);
    a->max_tokens = params->max_tokens;
    PL_TRY(prepare(a, prompt, n, params, drawn, err));
    *out = (pl_generated){.n_prompt = n,
                          .n_prompt_reused = (size_t)pl_session_adopt(a->session, prompt, (int32_t)n, &a->holds)};
    a->holds = (pl_soft_holds){0};
    double start = pl_clock_seconds();
    pl_status status = drawn ? answer_on_card(a, params->max_tokens, out, start, err)
                             : answer_on_host(a, params->max_tokens == 0, out, start, err);
    out->finish = status == PL_ERR_CANCELLED ? PL_FINISH_CANCEL : pl_reply_finish(a->reply);
    out->n_tokens = pl_reply_tokens(a->reply);
    if (a->draft) {
        keep_kv(a->session, a->session->n_tokens); /* of tokens chosen behind the answer's end */
        out->drafts = a->draft->counts;
    }
    out->stop_index = pl_reply_stopped_by(a->reply);
    return status;
}

pl_status pl_generate(pl_session *s, const int32_t *prompt, size_t n, const pl_generation *params, pl_generated *out,
                      pl_error *err)
{
    pl_generated result = {0};
    PL_TRY(pl_reply_check(s->engine->config, s->engine->context, n, params, err));
    answer a = {.session = s};
    PL_TRY(pl_engine_hold_ids(s->engine, prompt, n, "prompt token", &a.holds, err));
    atomic_store(&s->cancelled, false);
    pl_status status = run(&a, prompt, n, params, &result, err);
    pl_soft_holds_free(&a.holds);
    pl_reply_free(a.reply);
    pl_candidates_free(&a.room);
    pl_draft_free(a.draft);
    if (out && (status == PL_OK || status == PL_ERR_CANCELLED))
        *out = result;
    return status;
}
