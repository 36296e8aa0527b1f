/* One answer: read the prompt, then sample, show, read, until something ends it. Where the ops draw, each step is queued
 * before the token that it reads is known. */
#include "host/base/clock.h"
#include "host/engine/card_draw.h"
#include "host/engine/sampler.h"
#include "host/engine/session.h"
#include "host/engine/stop.h"
#include "host/text/detokenizer.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

typedef struct answer {
    pl_session *session;
    const pl_generation *params;
    pl_sampler *sampler; /* NULL: the ops draw */
    pl_stop *stop;
    pl_detokenizer detokenizer;
    pl_logprob *top;       /* [n_logprobs] */
    pl_detokenizer single; /* for token_text() */
    pl_status text_status; /* of token_text(), which has no way to say it */
    int32_t next;          /* the token just sampled */
    float logprob;
} answer;

pl_generation pl_generation_default(void)
{
    return (pl_generation){.max_tokens = -1, .sampling = pl_sampling_default(), .n_logprobs = -1};
}

/* A lone token's text comes at once, or, for a piece that is a byte, when nothing can follow. */
static const char *token_text(void *user, int32_t id, size_t *n)
{
    answer *a = user;
    const char *text = NULL;
    *n = 0;
    pl_status status = pl_detokenizer_push(&a->single, id, &text, n, NULL);
    if (status == PL_OK && *n == 0)
        status = pl_detokenizer_finish(&a->single, &text, n, NULL);
    if (status != PL_OK) {
        a->text_status = status;
        *n = 0;
    }
    return text;
}

static pl_status accept(answer *a, int32_t token, pl_error *err)
{
    if (!a->sampler)
        return PL_OK;
    pl_sampler_accept(a->sampler, token);
    return a->text_status == PL_OK ? PL_OK : pl_fail(err, a->text_status, "out of memory: the text of token %d", token);
}

static pl_status check_prompt(const pl_session *s, const int32_t *prompt, size_t n, const pl_generation *params,
                              pl_error *err)
{
    const pl_engine *e = s->engine;
    if (n == 0)
        return pl_fail(err, PL_ERR_ARGUMENT, "the prompt is empty");
    if (n > (size_t)e->context)
        return pl_fail(err, PL_ERR_CONTEXT, "the prompt has %zu tokens, the context holds %d", n, e->context);
    PL_TRY(pl_session_check_ids(s, prompt, n, "prompt token", err));
    if (params->max_tokens < -1)
        return pl_fail(err, PL_ERR_ARGUMENT, "max_tokens is %d, expected -1 or more", params->max_tokens);
    if (params->n_logprobs < -1 || params->n_logprobs > e->config->vocab)
        return pl_fail(err, PL_ERR_ARGUMENT, "n_logprobs is %d, expected -1 to %d", params->n_logprobs,
                       e->config->vocab);
    return PL_OK;
}

static bool ops_draw(const answer *a)
{
    const pl_session *s = a->session;
    return s->engine->draws && a->params->max_tokens != 0 && !s->trace && !s->watch && a->params->n_logprobs < 0 &&
           pl_card_draw_fits(&a->params->sampling, s->engine->context + 1);
}

/* The sampler's description to where the ops are. */
static pl_status start_draws(answer *a, const int32_t *prompt, size_t n, pl_error *err)
{
    pl_engine *e = a->session->engine;
    pl_draw *sampler = calloc(1, sizeof *sampler);
    if (!sampler)
        return pl_fail_memory(err, sizeof *sampler, "sampler");
    pl_status status = pl_card_draw_start(&a->params->sampling, e->config->vocab, e->context + 1, prompt, n, sampler,
                                          err);
    pthread_mutex_lock(&e->lock);
    if (status == PL_OK)
        pl_draws_start(e->draws, a->session->sequence, sampler);
    pthread_mutex_unlock(&e->lock);
    free(sampler);
    return status;
}

static pl_status start_sampler(answer *a, const int32_t *prompt, size_t n, pl_error *err)
{
    const pl_engine *e = a->session->engine;
    PL_TRY(pl_sampling_check(&a->params->sampling, e->config->vocab, err));
    if (ops_draw(a))
        return start_draws(a, prompt, n, err);
    PL_TRY(pl_sampler_create(&a->params->sampling, e->config->vocab, e->context + 1, token_text, a, &a->sampler, err));
    for (size_t i = 0; i < n; i++)
        PL_TRY(accept(a, prompt[i], err));
    return PL_OK;
}

static pl_status prepare(answer *a, const int32_t *prompt, size_t n, pl_error *err)
{
    const pl_engine *e = a->session->engine;
    pl_detokenizer_init(&a->detokenizer, e->model->tokenizer, true);
    pl_detokenizer_init(&a->single, e->model->tokenizer, true);
    PL_TRY(pl_detokenizer_reserve(&a->detokenizer, err));
    PL_TRY(pl_detokenizer_reserve(&a->single, err));
    PL_TRY(pl_stop_create(a->params->stop, a->params->n_stop, &a->stop, err));
    if (a->params->n_logprobs > 0) {
        a->top = calloc((size_t)a->params->n_logprobs, sizeof *a->top);
        if (!a->top)
            return pl_fail_memory(err, (size_t)a->params->n_logprobs * sizeof *a->top, "log probabilities");
    }
    return start_sampler(a, prompt, n, err);
}

static void tidy(answer *a)
{
    pl_sampler_free(a->sampler);
    pl_stop_free(a->stop);
    pl_detokenizer_free(&a->detokenizer);
    pl_detokenizer_free(&a->single);
    free(a->top);
}

/* The sink of pl_session_read(): logits are sampled where they are. */
static pl_status sample(void *user, int32_t first, int32_t n, const float *logits, pl_error *err)
{
    (void)first;
    (void)n;
    answer *a = user;
    PL_TRY(pl_sampler_sample(a->sampler, logits, &a->next, err));
    if (a->params->n_logprobs < 0)
        return PL_OK;
    return pl_sampler_logprobs(logits, a->session->engine->config->vocab, a->next, &a->logprob, a->top,
                               (size_t)a->params->n_logprobs, err);
}

static bool emit(const answer *a, int32_t id, const char *text, size_t n)
{
    if (!a->params->on_token)
        return true;
    pl_token_event event = {id,         text,   n,
                            a->logprob, a->top, a->params->n_logprobs > 0 ? (size_t)a->params->n_logprobs : 0};
    return a->params->on_token(a->params->user, &event);
}

static bool ends_answer(const answer *a)
{
    const pl_config *c = a->session->engine->config;
    for (int i = 0; !a->params->ignore_eos && i < c->n_eos; i++)
        if (a->next == c->eos[i])
            return true;
    return false;
}

/* Shows the sampled token; *done and *finish say whether that was the last. */
static pl_status show_token(answer *a, bool *done, pl_finish *finish, pl_error *err)
{
    const char *text = NULL;
    size_t n = 0;
    int32_t matched = -1;
    if (ends_answer(a)) {
        *done = true;
        *finish = PL_FINISH_EOS;
        return PL_OK;
    }
    PL_TRY(pl_detokenizer_push(&a->detokenizer, a->next, &text, &n, err));
    PL_TRY(pl_stop_feed(a->stop, text, n, &text, &n, &matched, err));
    if (!emit(a, a->next, text, n)) {
        *done = true;
        *finish = PL_FINISH_CANCEL;
    } else if (matched >= 0) {
        *done = true;
        *finish = PL_FINISH_STOP;
    }
    return PL_OK;
}

/* What was held back in case more came. It may complete a stop string after all. */
static pl_status show_rest(answer *a, pl_finish *finish, pl_error *err)
{
    const char *text = NULL;
    size_t n = 0;
    int32_t matched = -1;
    if (*finish == PL_FINISH_STOP)
        return PL_OK;
    PL_TRY(pl_detokenizer_finish(&a->detokenizer, &text, &n, err));
    PL_TRY(pl_stop_feed(a->stop, text, n, &text, &n, &matched, err));
    if (n > 0)
        emit(a, -1, text, n);
    if (matched >= 0)
        *finish = PL_FINISH_STOP;
    pl_stop_finish(a->stop, &text, &n);
    if (n > 0)
        emit(a, -1, text, n);
    return PL_OK;
}

/* Keeps the sampled token as the session's, then shows it. */
static pl_status take_token(answer *a, pl_generated *out, bool *done, pl_error *err)
{
    pl_session *s = a->session;
    s->tokens[s->n_tokens++] = a->next;
    out->n_tokens++;
    PL_TRY(accept(a, a->next, err));
    PL_TRY(show_token(a, done, &out->finish, err));
    int32_t max = a->params->max_tokens;
    if (!*done && ((max >= 0 && out->n_tokens >= (size_t)max) || s->n_tokens > s->engine->context)) {
        *done = true;
        out->finish = PL_FINISH_LENGTH;
    }
    return PL_OK;
}

static pl_status answer_on_host(answer *a, pl_generated *out, double start, pl_error *err)
{
    pl_session *s = a->session;
    PL_TRY(pl_session_read(s, s->n_tokens, false, sample, a, err));
    double first = pl_clock_seconds();
    out->prompt_s = first - start;
    bool done = a->params->max_tokens == 0;
    while (!done) {
        PL_TRY(take_token(a, out, &done, err));
        if (!done)
            PL_TRY(pl_session_read(s, s->n_tokens, false, sample, a, err));
        out->generate_s = pl_clock_seconds() - first;
    }
    return PL_OK;
}

/* Whether a token may come behind the one that is being drawn. */
static bool may_follow(const answer *a, const pl_generated *out)
{
    int32_t max = a->params->max_tokens;
    return a->session->n_tokens < a->session->engine->context && (max < 0 || out->n_tokens + 1 < (size_t)max) &&
           !atomic_load(&a->session->cancelled);
}

static pl_status take_drawn(answer *a, pl_generated *out, bool *done, pl_error *err)
{
    if (atomic_load(&a->session->cancelled))
        return pl_fail(err, PL_ERR_CANCELLED, "cancelled at token %d", a->session->n_tokens);
    return take_token(a, out, done, err);
}

/* While one step draws a token, the next one, which reads it, is queued behind it. */
static pl_status answer_on_card(answer *a, pl_generated *out, double start, pl_error *err)
{
    pl_session *s = a->session;
    pl_step_result *drawing = s->result[0], *next = s->result[1];
    PL_TRY(pl_session_queue_read(s, s->n_tokens, drawing, err));
    pl_status status = PL_OK;
    double first = 0;
    for (bool done = false; status == PL_OK && !done;) {
        bool ahead = may_follow(a, out);
        pl_status queued = ahead ? pl_session_queue_drawn(s, next, err) : PL_OK;
        status = pl_session_wait_drawn(s, drawing, &a->next, err);
        if (first == 0) {
            first = pl_clock_seconds();
            out->prompt_s = first - start;
        }
        if (status == PL_OK)
            status = queued == PL_OK ? take_drawn(a, out, &done, err) : queued;
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

static pl_status run(answer *a, pl_generated *out, pl_error *err)
{
    double start = pl_clock_seconds();
    out->finish = PL_FINISH_LENGTH;
    if (a->sampler)
        PL_TRY(answer_on_host(a, out, start, err));
    else
        PL_TRY(answer_on_card(a, out, start, err));
    if (out->finish == PL_FINISH_CANCEL)
        return pl_fail(err, PL_ERR_CANCELLED, "the caller stopped the answer after %zu tokens", out->n_tokens);
    return show_rest(a, &out->finish, err);
}

pl_status pl_generate(pl_session *s, const int32_t *prompt, size_t n, const pl_generation *params, pl_generated *out,
                      pl_error *err)
{
    pl_generated result = {0};
    PL_TRY(check_prompt(s, prompt, n, params, err));
    answer a = {.session = s, .params = params, .logprob = NAN};
    atomic_store(&s->cancelled, false);
    pl_status status = prepare(&a, prompt, n, err);
    if (status == PL_OK) {
        result.n_prompt = n;
        result.n_prompt_reused = (size_t)pl_session_adopt(s, prompt, (int32_t)n);
        status = run(&a, &result, err);
    }
    if (status == PL_ERR_CANCELLED)
        result.finish = PL_FINISH_CANCEL;
    tidy(&a);
    if (out && (status == PL_OK || status == PL_ERR_CANCELLED))
        *out = result;
    return status;
}
