/* One answer on a session: read the prompt, then choose, show, read, until something ends it. Where the ops draw, each
 * step is queued before the token that it reads is known. */
#include "host/base/clock.h"
#include "host/engine/card_draw.h"
#include "host/engine/reply.h"
#include "host/engine/session.h"

#include <stdlib.h>

typedef struct answer {
    pl_session *session;
    pl_reply *reply;
    pl_candidates room; /* for choosing on the host */
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

static pl_status prepare(answer *a, const int32_t *prompt, size_t n, const pl_generation *params, bool drawn,
                         pl_error *err)
{
    const pl_engine *e = a->session->engine;
    PL_TRY(pl_reply_create(e->model, e->context, prompt, n, params, drawn, &a->reply, err));
    return drawn ? start_draws(a->session, params, prompt, n, err)
                 : pl_candidates_init(&a->room, e->config->vocab, err);
}

/* The sink of pl_session_read(): tokens are chosen where the logits are. */
static pl_status choose(void *user, int32_t first, int32_t n, const float *logits, pl_error *err)
{
    (void)first;
    (void)n;
    answer *a = user;
    return pl_reply_choose(a->reply, &a->room, logits, err);
}

/* Keeps the chosen token as the session's, then shows it. */
static pl_status take_token(answer *a, bool *done, pl_error *err)
{
    pl_session *s = a->session;
    s->tokens[s->n_tokens++] = pl_reply_token(a->reply);
    return pl_reply_show(a->reply, done, err);
}

static pl_status answer_on_host(answer *a, bool done, pl_generated *out, double start, pl_error *err)
{
    pl_session *s = a->session;
    PL_TRY(pl_session_read(s, s->n_tokens, false, choose, a, err));
    double first = pl_clock_seconds();
    out->prompt_s = first - start;
    while (!done) {
        PL_TRY(take_token(a, &done, err));
        if (!done)
            PL_TRY(pl_session_read(s, s->n_tokens, false, choose, a, err));
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
    PL_TRY(prepare(a, prompt, n, params, drawn, err));
    *out = (pl_generated){.n_prompt = n, .n_prompt_reused = (size_t)pl_session_adopt(a->session, prompt, (int32_t)n)};
    double start = pl_clock_seconds();
    pl_status status = drawn ? answer_on_card(a, params->max_tokens, out, start, err)
                             : answer_on_host(a, params->max_tokens == 0, out, start, err);
    out->finish = status == PL_ERR_CANCELLED ? PL_FINISH_CANCEL : pl_reply_finish(a->reply);
    out->n_tokens = pl_reply_tokens(a->reply);
    out->stop_index = pl_reply_stopped_by(a->reply);
    return status;
}

pl_status pl_generate(pl_session *s, const int32_t *prompt, size_t n, const pl_generation *params, pl_generated *out,
                      pl_error *err)
{
    pl_generated result = {0};
    PL_TRY(pl_reply_check(s->engine->config, s->engine->context, prompt, n, params, err));
    answer a = {.session = s};
    atomic_store(&s->cancelled, false);
    pl_status status = run(&a, prompt, n, params, &result, err);
    pl_reply_free(a.reply);
    pl_candidates_free(&a.room);
    if (out && (status == PL_OK || status == PL_ERR_CANCELLED))
        *out = result;
    return status;
}
