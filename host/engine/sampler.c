#include "host/engine/sampler.h"

#include <assert.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "host/engine/softmax.h"
#include "host/ops/draw_math.h"

struct pl_sampler {
    pl_sampling params; /* params.bias is `bias`; no dry_breakers */
    pl_logit_bias *bias;
    int32_t vocab;
    pl_repetition *repetition;
    pl_rng rng;
};

/* ---- parameters -------------------------------------------------------------------------------- */

static const char *const step_name[PL_SAMPLER_STEPS] = {"end",     "penalties", "dry",   "top_k",
                                                        "typical", "top_p",     "min_p", "temperature"};

pl_sampling pl_sampling_default(void)
{
    return (pl_sampling){
        .temperature = 1.0f,
        .top_k = 64,
        .top_p = 0.95f,
        .typical_p = 1.0f,
        .repeat_penalty = 1.0f,
        .penalty_last_n = 64,
        .dry_base = 1.75f,
        .dry_allowed_length = 2,
        .dry_last_n = -1,
        .order = {PL_SAMPLER_PENALTIES, PL_SAMPLER_DRY, PL_SAMPLER_TOP_K, PL_SAMPLER_TYPICAL, PL_SAMPLER_TOP_P,
                  PL_SAMPLER_MIN_P, PL_SAMPLER_TEMPERATURE, PL_SAMPLER_END},
    };
}

static pl_status refuse(pl_error *err, const char *field, double value, const char *expected)
{
    return pl_fail(err, PL_ERR_ARGUMENT, "sampling: %s is %g, expected %s", field, value, expected);
}

static pl_status check_truncation(const pl_sampling *p, pl_error *err)
{
    if (!isfinite(p->temperature))
        return refuse(err, "temperature", p->temperature, "a finite number");
    if (p->top_k < 0)
        return refuse(err, "top_k", p->top_k, "0 (off) or more");
    if (!(p->top_p > 0.0f && p->top_p <= 1.0f))
        return refuse(err, "top_p", p->top_p, "more than 0 and at most 1 (off)");
    if (!(p->min_p >= 0.0f && p->min_p <= 1.0f))
        return refuse(err, "min_p", p->min_p, "0 (off) to 1");
    if (!(p->typical_p > 0.0f && p->typical_p <= 1.0f))
        return refuse(err, "typical_p", p->typical_p, "more than 0 and at most 1 (off)");
    return PL_OK;
}

static pl_status check_repetition(const pl_sampling *p, pl_error *err)
{
    if (!(p->repeat_penalty > 0.0f && isfinite(p->repeat_penalty)))
        return refuse(err, "repeat_penalty", p->repeat_penalty, "a finite number above 0 (1: off)");
    if (!isfinite(p->presence_penalty))
        return refuse(err, "presence_penalty", p->presence_penalty, "a finite number");
    if (!isfinite(p->frequency_penalty))
        return refuse(err, "frequency_penalty", p->frequency_penalty, "a finite number");
    if (p->penalty_last_n < -1)
        return refuse(err, "penalty_last_n", p->penalty_last_n, "-1 (all) or more");
    if (!(p->dry_multiplier >= 0.0f && isfinite(p->dry_multiplier)))
        return refuse(err, "dry_multiplier", p->dry_multiplier, "a finite number, 0 (off) or more");
    if (!(p->dry_base >= 1.0f && isfinite(p->dry_base)))
        return refuse(err, "dry_base", p->dry_base, "a finite number, 1 or more");
    if (p->dry_allowed_length < 1)
        return refuse(err, "dry_allowed_length", p->dry_allowed_length, "1 or more");
    if (p->dry_last_n < -1)
        return refuse(err, "dry_last_n", p->dry_last_n, "-1 (all) or more");
    return PL_OK;
}

static pl_status check_lists(const pl_sampling *p, int32_t vocab, pl_error *err)
{
    if (p->n_dry_breakers && !p->dry_breakers)
        return pl_fail(err, PL_ERR_ARGUMENT, "sampling: dry_breakers is NULL, expected %zu strings", p->n_dry_breakers);
    for (size_t i = 0; i < p->n_dry_breakers; i++)
        if (!p->dry_breakers[i] || !p->dry_breakers[i][0])
            return pl_fail(err, PL_ERR_ARGUMENT, "sampling: dry_breakers[%zu] is empty", i);
    if (p->n_bias && !p->bias)
        return pl_fail(err, PL_ERR_ARGUMENT, "sampling: bias is NULL, expected %zu entries", p->n_bias);
    for (size_t i = 0; i < p->n_bias; i++) {
        const pl_logit_bias *b = &p->bias[i];
        if (b->id < 0 || b->id >= vocab)
            return pl_fail(err, PL_ERR_ARGUMENT, "sampling: bias[%zu] is for token %d, expected 0 to %d", i, b->id,
                           vocab - 1);
        if (!isfinite(b->bias) && b->bias != -INFINITY)
            return pl_fail(err, PL_ERR_ARGUMENT,
                           "sampling: bias[%zu] (token %d) is %g, expected a finite number or -inf", i, b->id,
                           (double)b->bias);
    }
    return PL_OK;
}

static pl_status check_order(const pl_sampling *p, pl_error *err)
{
    bool seen[PL_SAMPLER_STEPS] = {false};
    for (size_t i = 0; i < PL_SAMPLER_STEPS; i++) {
        int step = (int)p->order[i];
        if (step == PL_SAMPLER_END)
            return PL_OK;
        if (step < 0 || step >= PL_SAMPLER_STEPS)
            return pl_fail(err, PL_ERR_ARGUMENT, "sampling: order[%zu] is %d, expected a step from 0 to %d", i, step,
                           PL_SAMPLER_STEPS - 1);
        if (seen[step])
            return pl_fail(err, PL_ERR_ARGUMENT, "sampling: order[%zu] is %s for the second time", i, step_name[step]);
        seen[step] = true;
    }
    return pl_fail(err, PL_ERR_ARGUMENT, "sampling: order has no end");
}

pl_status pl_sampling_check(const pl_sampling *params, int32_t vocab, pl_error *err)
{
    PL_TRY(check_truncation(params, err));
    PL_TRY(check_repetition(params, err));
    PL_TRY(check_lists(params, vocab, err));
    return check_order(params, err);
}

/* ---- life -------------------------------------------------------------------------------------- */

static pl_status copy_bias(pl_sampler *s, const pl_sampling *params, pl_error *err)
{
    if (!params->n_bias)
        return PL_OK;
    s->bias = calloc(params->n_bias, sizeof *s->bias);
    if (!s->bias)
        return pl_fail_memory(err, params->n_bias * sizeof *s->bias, "bias");
    memcpy(s->bias, params->bias, params->n_bias * sizeof *s->bias);
    s->params.bias = s->bias;
    return PL_OK;
}

pl_status pl_sampler_create(const pl_sampling *params, int32_t vocab, int32_t history, pl_token_text_fn token_text,
                            void *user, pl_sampler **out, pl_error *err)
{
    if (vocab < 1 || history < 0)
        return pl_fail(err, PL_ERR_ARGUMENT, "sampling: %d tokens and a history of %d, expected 1 and 0 or more", vocab,
                       history);
    PL_TRY(pl_sampling_check(params, vocab, err));
    pl_sampler *s = calloc(1, sizeof *s);
    if (!s)
        return pl_fail_memory(err, sizeof *s, "sampling");
    s->vocab = vocab;
    s->params = *params;
    s->params.bias = NULL;
    s->params.dry_breakers = NULL;
    s->params.n_dry_breakers = 0;
    pl_status status = PL_OK;
    PL_TRY_GOTO(pl_repetition_create(params, vocab, history, token_text, user, &s->repetition, err));
    PL_TRY_GOTO(copy_bias(s, params, err));
    pl_sampler_reset(s);
    *out = s;
    return PL_OK;

fail:
    pl_sampler_free(s);
    return status;
}

void pl_sampler_free(pl_sampler *sampler)
{
    if (!sampler)
        return;
    pl_repetition_free(sampler->repetition);
    free(sampler->bias);
    free(sampler);
}

void pl_sampler_reset(pl_sampler *sampler)
{
    pl_repetition_reset(sampler->repetition);
    pl_rng_seed(&sampler->rng, sampler->params.seed);
}

void pl_sampler_accept(pl_sampler *sampler, int32_t token)
{
    pl_repetition_accept(sampler->repetition, token);
}

void pl_sampler_break(pl_sampler *sampler)
{
    pl_repetition_break(sampler->repetition);
}

void pl_sampler_follow(pl_sampler *sampler, int32_t token)
{
    if (!pl_sampling_is_greedy(&sampler->params))
        pl_rng_next(&sampler->rng);
    pl_sampler_accept(sampler, token);
}

const pl_sampling *pl_sampler_params(const pl_sampler *sampler)
{
    return &sampler->params;
}

pl_rng pl_sampler_rng(const pl_sampler *sampler)
{
    return sampler->rng;
}

/* ---- sampling ---------------------------------------------------------------------------------- */

static pl_status find_best(const float *logits, int32_t vocab, float *best, pl_error *err)
{
    if (pl_max_finite(logits, (size_t)vocab, best))
        return PL_OK;
    int32_t id = 0;
    while (isfinite(logits[id]))
        id++;
    return pl_fail(err, PL_ERR_NUMERIC, "the logit of token %d is %g", id, (double)logits[id]);
}

static void add_bias(const pl_sampler *s, pl_candidates *c)
{
    if (!s->params.n_bias)
        return;
    float *x = pl_candidates_write(c);
    for (size_t i = 0; i < s->params.n_bias; i++) {
        const pl_logit_bias *b = &s->params.bias[i];
        x[b->id] = pl_biased(x[b->id], b->bias);
    }
}

static void apply(const pl_sampler *s, pl_sampler_step step, bool greedy, pl_candidates *c)
{
    const pl_sampling *p = &s->params;
    if (step == PL_SAMPLER_PENALTIES)
        pl_repetition_penalize(s->repetition, c);
    else if (step == PL_SAMPLER_DRY)
        pl_repetition_dry(s->repetition, c);
    else if (greedy)
        return;
    else if (step == PL_SAMPLER_TOP_K && p->top_k)
        pl_candidates_top_k(c, (size_t)p->top_k);
    else if (step == PL_SAMPLER_TYPICAL && p->typical_p < 1.0f)
        pl_candidates_typical(c, p->typical_p);
    else if (step == PL_SAMPLER_TOP_P && p->top_p < 1.0f)
        pl_candidates_top_p(c, p->top_p);
    else if (step == PL_SAMPLER_MIN_P && p->min_p > 0.0f)
        pl_candidates_min_p(c, p->min_p);
    else if (step == PL_SAMPLER_TEMPERATURE && p->temperature != 1.0f)
        pl_candidates_temperature(c, p->temperature);
}

/* Whether a step changes or drops logits, unless it is top-k; greedy as in apply(). */
static bool has_effect(const pl_sampling *p, pl_sampler_step step, bool greedy)
{
    switch (step) {
    case PL_SAMPLER_PENALTIES:
        return p->repeat_penalty != 1.0f || p->presence_penalty != 0.0f || p->frequency_penalty != 0.0f;
    case PL_SAMPLER_DRY: return p->dry_multiplier > 0.0f;
    case PL_SAMPLER_TYPICAL: return !greedy && p->typical_p < 1.0f;
    case PL_SAMPLER_TOP_P: return !greedy && p->top_p < 1.0f;
    case PL_SAMPLER_MIN_P: return !greedy && p->min_p > 0.0f;
    case PL_SAMPLER_TEMPERATURE: return !greedy && p->temperature != 1.0f;
    default: return false;
    }
}

int32_t pl_sampler_top(const pl_sampler *sampler, int32_t most)
{
    const pl_sampling *p = &sampler->params;
    bool greedy = pl_sampling_is_greedy(p);
    if (p->n_bias > 0)
        return 0;
    for (size_t i = 0; p->order[i] != PL_SAMPLER_END; i++) {
        if (!greedy && p->order[i] == PL_SAMPLER_TOP_K && p->top_k > 0)
            return p->top_k <= most ? p->top_k : 0;
        if (has_effect(p, p->order[i], greedy))
            return 0;
    }
    return greedy ? 1 : 0;
}

static pl_status all_banned(const pl_sampler *s, bool masked, pl_error *err)
{
    return pl_fail(err, PL_ERR_ARGUMENT, "sampling: the bias%s bans all %d tokens", masked ? " with the grammar" : "",
                   s->vocab);
}

pl_status pl_sampler_sample(pl_sampler *sampler, pl_candidates *room, const float *logits, const uint32_t *mask,
                            int32_t *id, pl_error *err)
{
    assert(room->vocab == (size_t)sampler->vocab);
    const pl_sampling *p = &sampler->params;
    float best = 0.0f;
    PL_TRY(find_best(logits, sampler->vocab, &best, err));
    bool greedy = pl_sampling_is_greedy(p);
    pl_candidates_start(room, logits);
    add_bias(sampler, room);
    if (mask)
        pl_candidates_mask(room, mask);
    for (size_t i = 0; p->order[i] != PL_SAMPLER_END; i++)
        apply(sampler, p->order[i], greedy, room);
    int32_t chosen = greedy ? pl_candidates_best(room) : pl_candidates_draw(room, pl_rng_uniform(&sampler->rng));
    if (chosen < 0)
        return all_banned(sampler, mask != NULL, err);
    *id = chosen;
    return PL_OK;
}

pl_status pl_sampler_guess(pl_sampler *sampler, pl_candidates *room, const float *logits, const uint32_t *mask,
                           int ahead, int32_t *id, pl_error *err)
{
    pl_rng rng = sampler->rng;
    for (int i = 0; i < ahead; i++)
        pl_rng_next(&sampler->rng);
    pl_status status = pl_sampler_sample(sampler, room, logits, mask, id, err);
    sampler->rng = rng;
    return status;
}

/* ---- logprobs ---------------------------------------------------------------------------------- */

static bool worse(pl_logprob a, pl_logprob b)
{
    return a.logprob < b.logprob || (a.logprob == b.logprob && a.id > b.id);
}

/* heap[0] is the worst of heap[0..n); puts `in` in its place. */
static void replace_worst(pl_logprob *heap, size_t n, pl_logprob in)
{
    size_t i = 0;
    for (size_t child = 1; child < n; child = 2 * i + 1) {
        if (child + 1 < n && worse(heap[child + 1], heap[child]))
            child++;
        if (!worse(heap[child], in))
            break;
        heap[i] = heap[child];
        i = child;
    }
    heap[i] = in;
}

/* The n best logits, best first. */
static void find_top(const float *logits, size_t vocab, pl_logprob *top, size_t n)
{
    for (size_t i = 0; i < n; i++)
        top[i] = (pl_logprob){.id = INT32_MAX, .logprob = -INFINITY};
    for (size_t i = pl_find_from(logits, 0, vocab, top[0].logprob); i < vocab;
         i = pl_find_from(logits, i + 1, vocab, top[0].logprob)) {
        pl_logprob in = {.id = (int32_t)i, .logprob = logits[i]};
        if (worse(top[0], in))
            replace_worst(top, n, in);
    }
    for (size_t left = n; left > 1; left--) {
        pl_logprob worst = top[0];
        replace_worst(top, left - 1, top[left - 1]);
        top[left - 1] = worst;
    }
}

pl_status pl_sampler_logprobs(const float *logits, int32_t vocab, int32_t id, float *logprob, pl_logprob *top,
                              size_t n_top, pl_error *err)
{
    if (id < 0 || id >= vocab)
        return pl_fail(err, PL_ERR_ARGUMENT, "logprobs: token %d, expected 0 to %d", id, vocab - 1);
    if (n_top > (size_t)vocab)
        return pl_fail(err, PL_ERR_ARGUMENT, "logprobs: %zu of %d tokens asked for", n_top, vocab);
    float best = 0.0f;
    PL_TRY(find_best(logits, vocab, &best, err));
    double log_sum = best + pl_log(pl_exp_sum(logits, (size_t)vocab, best, NULL));
    *logprob = (float)(logits[id] - log_sum);
    if (n_top)
        find_top(logits, (size_t)vocab, top, n_top);
    for (size_t i = 0; i < n_top; i++)
        top[i].logprob = (float)(top[i].logprob - log_sum);
    return PL_OK;
}
