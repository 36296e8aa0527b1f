#include "host/engine/reply.h"

#include "host/engine/card_draw.h"
#include "host/engine/stop.h"
#include "host/grammar/grammar.h"
#include "host/text/detokenizer.h"

#include <math.h>
#include <stdlib.h>

struct pl_reply {
    const pl_config *config;
    int32_t max_tokens, n_logprobs;
    bool ignore_eos;
    pl_token_fn on_token;
    void *user;
    pl_sampler *sampler;     /* NULL: drawn elsewhere */
    pl_grammar_place *place; /* NULL: anything may come */
    pl_stop *stop;
    pl_detokenizer detokenizer;
    pl_detokenizer single; /* for token_text() */
    pl_status text_status; /* of token_text(), which has no way to say it */
    pl_logprob *top;       /* [n_logprobs] */
    float logprob;
    int32_t history; /* tokens that penalties can look back on */
    int32_t next;    /* the token just chosen */
    size_t room;     /* tokens that the context has for the answer */
    size_t tokens;   /* shown so far */
    pl_finish finish;
    int32_t stopped_by; /* stop string, or -1 */
};

pl_generation pl_generation_default(void)
{
    return (pl_generation){.max_tokens = -1, .sampling = pl_sampling_default(), .n_logprobs = -1};
}

/* ---- life -------------------------------------------------------------------------------------- */

pl_status pl_reply_check(const pl_config *config, int32_t context, const int32_t *prompt, size_t n,
                         const pl_generation *params, pl_error *err)
{
    if (n == 0)
        return pl_fail(err, PL_ERR_ARGUMENT, "the prompt is empty");
    if (n > (size_t)context)
        return pl_fail(err, PL_ERR_CONTEXT, "the prompt has %zu tokens, the context holds %d", n, context);
    for (size_t i = 0; i < n; i++)
        if (prompt[i] < 0 || prompt[i] >= config->vocab)
            return pl_fail(err, PL_ERR_ARGUMENT, "prompt token %zu is %d, expected 0 to %d", i, prompt[i],
                           config->vocab - 1);
    if (params->max_tokens < -1)
        return pl_fail(err, PL_ERR_ARGUMENT, "max_tokens is %d, expected -1 or more", params->max_tokens);
    if (params->n_logprobs < -1 || params->n_logprobs > config->vocab)
        return pl_fail(err, PL_ERR_ARGUMENT, "n_logprobs is %d, expected -1 to %d", params->n_logprobs, config->vocab);
    return PL_OK;
}

/* A lone token's text comes at once, or, for a piece that is a byte, when nothing can follow. */
static const char *token_text(void *user, int32_t id, size_t *n)
{
    pl_reply *r = user;
    const char *text = NULL;
    *n = 0;
    pl_status status = pl_detokenizer_push(&r->single, id, &text, n, NULL);
    if (status == PL_OK && *n == 0)
        status = pl_detokenizer_finish(&r->single, &text, n, NULL);
    if (status != PL_OK) {
        r->text_status = status;
        *n = 0;
    }
    return text;
}

static pl_status check_text(const pl_reply *r, int32_t token, pl_error *err)
{
    return r->text_status == PL_OK ? PL_OK : pl_fail(err, r->text_status, "out of memory: the text of token %d", token);
}

static pl_status accept(pl_reply *r, int32_t token, pl_error *err)
{
    pl_sampler_accept(r->sampler, token);
    return check_text(r, token, err);
}

static pl_status create_sampler(pl_reply *r, const pl_generation *params, const int32_t *prompt, size_t n,
                                pl_error *err)
{
    PL_TRY(pl_detokenizer_reserve(&r->single, err));
    PL_TRY(pl_sampler_create(&params->sampling, r->config->vocab, r->history, token_text, r, &r->sampler, err));
    for (size_t i = 0; i < n; i++)
        PL_TRY(accept(r, prompt[i], err));
    return PL_OK;
}

static pl_status create_parts(pl_reply *r, const pl_generation *params, pl_error *err)
{
    PL_TRY(pl_detokenizer_reserve(&r->detokenizer, err));
    PL_TRY(pl_stop_create(params->stop, params->n_stop, &r->stop, err));
    if (params->grammar)
        PL_TRY(pl_grammar_begin(params->grammar, &r->place, err));
    if (params->n_logprobs > 0) {
        r->top = calloc((size_t)params->n_logprobs, sizeof *r->top);
        if (!r->top)
            return pl_fail_memory(err, (size_t)params->n_logprobs * sizeof *r->top, "log probabilities");
    }
    return PL_OK;
}

pl_status pl_reply_create(const pl_model *model, int32_t context, const int32_t *prompt, size_t n,
                          const pl_generation *params, bool drawn, pl_reply **out, pl_error *err)
{
    pl_reply *r = calloc(1, sizeof *r);
    if (!r)
        return pl_fail_memory(err, sizeof *r, "an answer");
    r->config = pl_checkpoint_config(model->checkpoint);
    r->max_tokens = params->max_tokens;
    r->n_logprobs = params->n_logprobs;
    r->ignore_eos = params->ignore_eos;
    r->on_token = params->on_token;
    r->user = params->user;
    r->logprob = NAN;
    r->history = context + 1;
    r->room = (size_t)context + 1 - n;
    r->finish = PL_FINISH_LENGTH;
    r->stopped_by = -1;
    pl_detokenizer_init(&r->detokenizer, model->tokenizer, true);
    pl_detokenizer_init(&r->single, model->tokenizer, true);
    pl_status status = create_parts(r, params, err);
    if (status == PL_OK && !drawn)
        status = create_sampler(r, params, prompt, n, err);
    if (status != PL_OK)
        pl_reply_free(r);
    else
        *out = r;
    return status;
}

void pl_reply_free(pl_reply *r)
{
    if (!r)
        return;
    pl_sampler_free(r->sampler);
    pl_grammar_place_free(r->place);
    pl_stop_free(r->stop);
    pl_detokenizer_free(&r->detokenizer);
    pl_detokenizer_free(&r->single);
    free(r->top);
    free(r);
}

/* ---- choosing ---------------------------------------------------------------------------------- */

pl_status pl_reply_choose(pl_reply *r, pl_candidates *room, const float *logits, pl_error *err)
{
    const uint32_t *mask = NULL;
    if (r->place)
        PL_TRY(pl_grammar_mask(r->place, &mask, err));
    PL_TRY(pl_sampler_sample(r->sampler, room, logits, mask, &r->next, err));
    if (r->place)
        PL_TRY(pl_grammar_accept(r->place, r->next, err));
    PL_TRY(accept(r, r->next, err));
    if (r->n_logprobs < 0)
        return PL_OK;
    return pl_sampler_logprobs(logits, r->config->vocab, r->next, &r->logprob, r->top, (size_t)r->n_logprobs, err);
}

bool pl_reply_can_be_drawn(const pl_reply *r)
{
    return !r->place && r->n_logprobs < 0 && r->sampler && pl_card_draw_fits(pl_sampler_params(r->sampler), r->history);
}

pl_status pl_reply_copy_sampler(const pl_reply *r, const int32_t *tokens, size_t n, pl_draw *out, pl_error *err)
{
    return pl_card_draw_copy(r->sampler, r->config->vocab, r->history, tokens, n, out, err);
}

pl_status pl_reply_take(pl_reply *r, int32_t token, pl_error *err)
{
    PL_TRY(pl_card_draw_check(token, r->config->vocab, err));
    r->next = token;
    if (r->sampler)
        pl_sampler_follow(r->sampler, token);
    return check_text(r, token, err);
}

int32_t pl_reply_token(const pl_reply *r)
{
    return r->next;
}

/* ---- showing ----------------------------------------------------------------------------------- */

static bool emit(const pl_reply *r, int32_t id, const char *text, size_t n)
{
    if (!r->on_token)
        return true;
    pl_token_event event = {id, text, n, r->logprob, r->top, r->n_logprobs > 0 ? (size_t)r->n_logprobs : 0};
    return r->on_token(r->user, &event);
}

/* Where a grammar rules, only it says when an answer may end, and then nothing can follow. */
static bool ends_answer(const pl_reply *r)
{
    if (r->ignore_eos && !r->place)
        return false;
    for (int i = 0; i < r->config->n_eos; i++)
        if (r->next == r->config->eos[i])
            return true;
    return false;
}

/* Shows the chosen token; *done and r->finish say whether that was the last. */
static pl_status show_token(pl_reply *r, bool *done, pl_error *err)
{
    const char *text = NULL;
    size_t n = 0;
    *done = true;
    if (ends_answer(r)) {
        r->finish = PL_FINISH_EOS;
        return PL_OK;
    }
    PL_TRY(pl_detokenizer_push(&r->detokenizer, r->next, &text, &n, err));
    PL_TRY(pl_stop_feed(r->stop, text, n, &text, &n, &r->stopped_by, err));
    if (!emit(r, r->next, text, n)) {
        r->finish = PL_FINISH_CANCEL;
        return pl_fail(err, PL_ERR_CANCELLED, "the caller stopped the answer after %zu tokens", r->tokens);
    }
    if (r->stopped_by >= 0)
        r->finish = PL_FINISH_STOP;
    else
        *done = (r->max_tokens >= 0 && r->tokens >= (size_t)r->max_tokens) || r->tokens >= r->room;
    return PL_OK;
}

/* What was held back in case more came. It may complete a stop string after all. */
static pl_status show_rest(pl_reply *r, pl_error *err)
{
    const char *text = NULL;
    size_t n = 0;
    if (r->finish == PL_FINISH_STOP)
        return PL_OK;
    PL_TRY(pl_detokenizer_finish(&r->detokenizer, &text, &n, err));
    PL_TRY(pl_stop_feed(r->stop, text, n, &text, &n, &r->stopped_by, err));
    if (n > 0)
        emit(r, -1, text, n);
    if (r->stopped_by >= 0)
        r->finish = PL_FINISH_STOP;
    pl_stop_finish(r->stop, &text, &n);
    if (n > 0)
        emit(r, -1, text, n);
    return PL_OK;
}

pl_status pl_reply_show(pl_reply *r, bool *done, pl_error *err)
{
    r->tokens++;
    PL_TRY(show_token(r, done, err));
    return *done ? show_rest(r, err) : PL_OK;
}

size_t pl_reply_tokens(const pl_reply *r)
{
    return r->tokens;
}

pl_finish pl_reply_finish(const pl_reply *r)
{
    return r->finish;
}

int32_t pl_reply_stopped_by(const pl_reply *r)
{
    return r->stopped_by;
}
