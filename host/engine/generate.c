/* One answer: read the prompt, then sample, show, read, until something ends it. */
#include "host/base/clock.h"
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
    pl_sampler *sampler;
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

static pl_status prepare(answer *a, const int32_t *prompt, size_t n, pl_error *err)
{
    const pl_engine *e = a->session->engine;
    pl_detokenizer_init(&a->detokenizer, e->model->tokenizer, true);
    pl_detokenizer_init(&a->single, e->model->tokenizer, true);
    PL_TRY(pl_detokenizer_reserve(&a->detokenizer, err));
    PL_TRY(pl_detokenizer_reserve(&a->single, err));
    PL_TRY(pl_sampler_create(&a->params->sampling, e->config->vocab, e->context + 1, token_text, a, &a->sampler, err));
    PL_TRY(pl_stop_create(a->params->stop, a->params->n_stop, &a->stop, err));
    if (a->params->n_logprobs > 0) {
        a->top = calloc((size_t)a->params->n_logprobs, sizeof *a->top);
        if (!a->top)
            return pl_fail_memory(err, (size_t)a->params->n_logprobs * sizeof *a->top, "log probabilities");
    }
    for (size_t i = 0; i < n; i++)
        PL_TRY(accept(a, prompt[i], err));
    return PL_OK;
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

static pl_status run(answer *a, pl_generated *out, pl_error *err)
{
    pl_session *s = a->session;
    double start = pl_clock_seconds();
    PL_TRY(pl_session_read(s, s->n_tokens, false, sample, a, err));
    double first = pl_clock_seconds();
    out->prompt_s = first - start;
    out->finish = PL_FINISH_LENGTH;
    bool done = a->params->max_tokens == 0;
    while (!done) {
        PL_TRY(take_token(a, out, &done, err));
        if (!done)
            PL_TRY(pl_session_read(s, s->n_tokens, false, sample, a, err));
        out->generate_s = pl_clock_seconds() - first;
    }
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
