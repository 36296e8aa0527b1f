#include "host/engine/reply.h"

#include "host/engine/card_draw.h"
#include "host/engine/draft.h"
#include "host/engine/stop.h"
#include "host/grammar/grammar.h"
#include "host/text/detokenizer.h"

#include <math.h>
#include <stdlib.h>

/* A token and what is to be reported with it. */
typedef struct chosen {
    int32_t id;
    float logprob;
    pl_logprob *top; /* [n_logprobs] */
} chosen;

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
    pl_logprob *top;       /* of all of chosen[] */
    int32_t history;       /* tokens that penalties can look back on */
    chosen chosen[PL_DRAFT_MOST + 1];
    int32_t n_chosen, n_shown; /* of chosen[] */
    size_t room;               /* tokens that the context has for the answer */
    size_t tokens;             /* shown so far */
    pl_finish finish;
    int32_t stopped_by; /* stop string, or -1 */
};

pl_generation pl_generation_default(void)
{
    return (pl_generation){.max_tokens = -1, .sampling = pl_sampling_default(), .n_logprobs = -1};
}

/* ---- life -------------------------------------------------------------------------------------- */

pl_status pl_reply_check(const pl_config *config, int32_t context, size_t n, const pl_generation *params, pl_error *err)
{
    if (n == 0)
        return pl_fail(err, PL_ERR_ARGUMENT, "the prompt is empty");
    if (n > (size_t)context)
        return pl_fail(err, PL_ERR_CONTEXT, "the prompt has %zu tokens, the context holds %d", n, context);
    if (params->max_tokens < -1)
        return pl_fail(err, PL_ERR_ARGUMENT, "max_tokens is %d, expected -1 or more", params->max_tokens);
    if (params->n_logprobs < -1 || params->n_logprobs > config->vocab)
        return pl_fail(err, PL_ERR_ARGUMENT, "n_logprobs is %d, expected -1 to %d", params->n_logprobs, config->vocab);
    return pl_drafting_check(&params->draft, err);
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

/* What stands beyond the vocabulary is no token, and nothing is repeated across it. */
static pl_status accept(pl_reply *r, int32_t token, pl_error *err)
{
    if (token >= r->config->vocab)
        pl_sampler_break(r->sampler);
    else
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

static pl_status create_top(pl_reply *r, const pl_generation *params, pl_error *err)
{
    int32_t most = params->draft.most < 0 ? PL_DRAFT_AUTO : params->draft.most;
    size_t n = (size_t)params->n_logprobs, all = n * (size_t)(most + 1);
    r->top = calloc(all, sizeof *r->top);
    if (!r->top)
        return pl_fail_memory(err, all * sizeof *r->top, "log probabilities");
    for (int32_t i = 0; i <= most; i++)
        r->chosen[i].top = r->top + n * (size_t)i;
    return PL_OK;
}

static pl_status create_parts(pl_reply *r, const pl_generation *params, pl_error *err)
{
    PL_TRY(pl_detokenizer_reserve(&r->detokenizer, err));
    PL_TRY(pl_stop_create(params->stop, params->n_stop, &r->stop, err));
    if (params->grammar)
        PL_TRY(pl_grammar_begin(params->grammar, &r->place, err));
    return params->n_logprobs > 0 ? create_top(r, params, err) : PL_OK;
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

/* Where a grammar rules, only it says when an answer may end, and then nothing can follow. */
static bool ends_answer(const pl_reply *r, int32_t token)
{
    if (r->ignore_eos && !r->place)
        return false;
    for (int i = 0; i < r->config->n_eos; i++)
        if (token == r->config->eos[i])
            return true;
    return false;
}

static pl_status choose_next(pl_reply *r, pl_candidates *room, const float *logits, pl_error *err)
{
    chosen *c = &r->chosen[r->n_chosen];
    const uint32_t *mask = NULL;
    if (r->place)
        PL_TRY(pl_grammar_mask(r->place, &mask, err));
    PL_TRY(pl_sampler_sample(r->sampler, room, logits, mask, &c->id, err));
    if (r->place)
        PL_TRY(pl_grammar_accept(r->place, c->id, err));
    PL_TRY(accept(r, c->id, err));
    r->n_chosen++;
    c->logprob = NAN;
    if (r->n_logprobs < 0)
        return PL_OK;
    return pl_sampler_logprobs(logits, r->config->vocab, c->id, &c->logprob, c->top, (size_t)r->n_logprobs, err);
}

/* Whether a token behind the one chosen last is asked for, as far as is known before its text. */
static bool goes_on(const pl_reply *r)
{
    size_t tokens = r->tokens + (size_t)r->n_chosen;
    return !ends_answer(r, r->chosen[r->n_chosen - 1].id) && tokens < r->room &&
           (r->max_tokens < 0 || tokens < (size_t)r->max_tokens);
}

pl_status pl_reply_choose(pl_reply *r, pl_candidates *room, const float *logits, const int32_t *drafts,
                          int32_t n_drafts, pl_error *err)
{
    r->n_chosen = r->n_shown = 0;
    PL_TRY(choose_next(r, room, logits, err));
    for (int32_t i = 0; i < n_drafts && r->chosen[i].id == drafts[i] && goes_on(r); i++) {
        pl_status status = choose_next(r, room, logits + (int64_t)(i + 1) * r->config->vocab, err);
        if (status == PL_ERR_MEMORY)
            return status;
        if (status != PL_OK)
            break;
    }
    return PL_OK;
}

pl_status pl_reply_guess(const pl_reply *r, pl_candidates *room, const float *logits, int ahead, int32_t *token,
                         pl_error *err)
{
    const uint32_t *mask = NULL;
    if (r->place && ahead == 0)
        PL_TRY(pl_grammar_mask(r->place, &mask, err));
    return pl_sampler_guess(r->sampler, room, logits, mask, ahead, token, err);
}

bool pl_reply_can_be_drawn(const pl_reply *r)
{
    return !r->place && r->n_logprobs < 0 && r->sampler && pl_card_draw_fits(pl_sampler_params(r->sampler), r->history);
}

int32_t pl_reply_top(const pl_reply *r)
{
    return r->place || r->n_logprobs >= 0 || !r->sampler ? 0 : pl_sampler_top(r->sampler, PL_HEAD_TOP);
}

pl_status pl_reply_copy_sampler(const pl_reply *r, const int32_t *tokens, size_t n, pl_draw *out, pl_error *err)
{
    return pl_card_draw_copy(r->sampler, r->config->vocab, r->history, tokens, n, out, err);
}

pl_status pl_reply_take(pl_reply *r, int32_t token, pl_error *err)
{
    PL_TRY(pl_card_draw_check(token, r->config->vocab, err));
    r->chosen[0] = (chosen){.id = token, .logprob = NAN, .top = r->top};
    r->n_chosen = 1;
    r->n_shown = 0;
    if (r->sampler)
        pl_sampler_follow(r->sampler, token);
    return check_text(r, token, err);
}

int32_t pl_reply_chosen(const pl_reply *r)
{
    return r->n_chosen - r->n_shown;
}

int32_t pl_reply_token(const pl_reply *r)
{
    return r->chosen[r->n_shown].id;
}

/* ---- showing ----------------------------------------------------------------------------------- */

static bool emit(const pl_reply *r, const chosen *c, const char *text, size_t n)
{
    if (!r->on_token)
        return true;
    pl_token_event event = {c->id, text, n, c->logprob, c->top, r->n_logprobs > 0 ? (size_t)r->n_logprobs : 0};
    return r->on_token(r->user, &event);
}

/* Shows a chosen token; *done and r->finish say whether that was the last. */
static pl_status show_token(pl_reply *r, const chosen *c, bool *done, pl_error *err)
{
    const char *text = NULL;
    size_t n = 0;
    *done = true;
    if (ends_answer(r, c->id)) {
        r->finish = PL_FINISH_EOS;
        return PL_OK;
    }
    PL_TRY(pl_detokenizer_push(&r->detokenizer, c->id, &text, &n, err));
    PL_TRY(pl_stop_feed(r->stop, text, n, &text, &n, &r->stopped_by, err));
    if (!emit(r, c, text, n)) {
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
static pl_status show_rest(pl_reply *r, const chosen *last, pl_error *err)
{
    chosen none = *last;
    none.id = -1;
    const char *text = NULL;
    size_t n = 0;
    if (r->finish == PL_FINISH_STOP)
        return PL_OK;
    PL_TRY(pl_detokenizer_finish(&r->detokenizer, &text, &n, err));
    PL_TRY(pl_stop_feed(r->stop, text, n, &text, &n, &r->stopped_by, err));
    if (n > 0)
        emit(r, &none, text, n);
    if (r->stopped_by >= 0)
        r->finish = PL_FINISH_STOP;
    pl_stop_finish(r->stop, &text, &n);
    if (n > 0)
        emit(r, &none, text, n);
    return PL_OK;
}

pl_status pl_reply_show(pl_reply *r, bool *done, pl_error *err)
{
    const chosen *c = &r->chosen[r->n_shown++];
    r->tokens++;
    PL_TRY(show_token(r, c, done, err));
    return *done ? show_rest(r, c, err) : PL_OK;
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
