#include "host/engine/card_draw.h"

#include <string.h>

#include "host/engine/softmax.h"

static bool in_order(const pl_sampling *p, pl_sampler_step step)
{
    for (size_t i = 0; p->order[i] != PL_SAMPLER_END; i++)
        if (p->order[i] == step)
            return true;
    return false;
}

/* Tokens that the penalties look back on; 0: they change nothing. */
static int32_t window_of(const pl_sampling *p, int32_t capacity)
{
    bool on = p->repeat_penalty != 1.0f || p->presence_penalty != 0.0f || p->frequency_penalty != 0.0f;
    if (!on || !in_order(p, PL_SAMPLER_PENALTIES))
        return 0;
    return p->penalty_last_n < 0 || p->penalty_last_n > capacity ? capacity : p->penalty_last_n;
}

bool pl_card_draw_fits(const pl_sampling *p, int32_t capacity)
{
    bool dry = p->dry_multiplier != 0.0f && p->dry_last_n != 0 && in_order(p, PL_SAMPLER_DRY);
    bool typical = !pl_sampling_is_greedy(p) && p->typical_p < 1.0f && in_order(p, PL_SAMPLER_TYPICAL);
    return !dry && !typical && p->n_bias <= PL_DRAW_MAX_BIAS && window_of(p, capacity) <= PL_DRAW_HISTORY;
}

static bool changes_something(const pl_sampling *p, pl_sampler_step step, int32_t window)
{
    if (step == PL_SAMPLER_PENALTIES)
        return window > 0;
    if (pl_sampling_is_greedy(p))
        return false;
    return (step == PL_SAMPLER_TOP_K && p->top_k > 0) || (step == PL_SAMPLER_TOP_P && p->top_p < 1.0f) ||
           (step == PL_SAMPLER_MIN_P && p->min_p > 0.0f) || (step == PL_SAMPLER_TEMPERATURE && p->temperature != 1.0f);
}

static void copy_order(const pl_sampling *p, pl_draw *out)
{
    size_t n = 0;
    for (size_t i = 0; p->order[i] != PL_SAMPLER_END; i++)
        if (changes_something(p, p->order[i], out->window))
            out->order[n++] = (int32_t)p->order[i];
    out->order[n] = PL_SAMPLER_END;
}

/* By insertion: the list is short, and equal ids keep their order. */
static void copy_bias(const pl_sampling *p, pl_draw *out)
{
    for (size_t i = 0; i < p->n_bias; i++) {
        size_t at = i;
        for (; at > 0 && out->bias[at - 1].id > p->bias[i].id; at--)
            out->bias[at] = out->bias[at - 1];
        out->bias[at] = p->bias[i];
    }
    out->n_bias = (int32_t)p->n_bias;
}

/* The last tokens of the vocabulary among them: what images and sound have is passed over. */
static void copy_history(const int32_t *tokens, size_t n, int32_t vocab, pl_draw *out)
{
    size_t from = n;
    for (int32_t kept = 0; from > 0 && kept < out->window; from--)
        kept += tokens[from - 1] < vocab;
    for (size_t i = from; i < n; i++)
        if (tokens[i] < vocab)
            out->history[out->n_history++] = tokens[i];
}

pl_status pl_card_draw_start(const pl_sampling *params, int32_t vocab, int32_t capacity, const int32_t *tokens,
                             size_t n, pl_draw *out, pl_error *err)
{
    PL_TRY(pl_sampling_check(params, vocab, err));
    if (!pl_card_draw_fits(params, capacity))
        return pl_fail(err, PL_ERR_UNSUPPORTED, "sampling: these parameters are for the host's sampler");
    memset(out, 0, sizeof *out);
    pl_rng_seed(&out->rng, params->seed);
    out->repeat = params->repeat_penalty;
    out->presence = params->presence_penalty;
    out->frequency = params->frequency_penalty;
    out->top_p = params->top_p;
    out->log_min_p = params->min_p > 0.0f ? pl_log(params->min_p) : 0.0;
    out->temperature = params->temperature;
    out->top_k = params->top_k;
    out->greedy = pl_sampling_is_greedy(params);
    out->window = window_of(params, capacity);
    copy_order(params, out);
    copy_bias(params, out);
    out->token = -1;
    copy_history(tokens, n, vocab, out);
    return PL_OK;
}

pl_status pl_card_draw_copy(const pl_sampler *sampler, int32_t vocab, int32_t capacity, const int32_t *tokens, size_t n,
                            pl_draw *out, pl_error *err)
{
    PL_TRY(pl_card_draw_start(pl_sampler_params(sampler), vocab, capacity, tokens, n, out, err));
    out->rng = pl_sampler_rng(sampler);
    return PL_OK;
}

pl_status pl_card_draw_check(int32_t token, int32_t vocab, pl_error *err)
{
    if (token == PL_DRAW_NOT_FINITE)
        return pl_fail(err, PL_ERR_NUMERIC, "a logit is not finite");
    if (token == PL_DRAW_ALL_BANNED)
        return pl_fail(err, PL_ERR_ARGUMENT, "sampling: the bias bans all %d tokens", vocab);
    return PL_OK;
}
