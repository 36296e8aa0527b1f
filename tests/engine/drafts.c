#include "tests/engine/drafts.h"

#include <criterion/criterion.h>
#include <math.h>

#define OTHERS 1900 /* ids of ordinary tokens of the demo model */

liar liar_of(const heard *truth, size_t n_prompt, int wrong_of_8, uint64_t seed)
{
    liar l = {.truth = truth, .n_prompt = n_prompt, .wrong_of_8 = wrong_of_8};
    pl_rng_seed(&l.rng, seed);
    return l;
}

static int32_t token_at(liar *l, size_t i)
{
    static const int32_t ends[2] = {1, 106};
    uint64_t roll = pl_rng_next(&l->rng);
    int32_t right = i < (size_t)l->truth->n ? l->truth->ids[i] : ends[roll / 8 % 2];
    return (int)(roll % 8) < l->wrong_of_8 ? (int32_t)(10 + (right + 1 + (int32_t)(roll / 16 % 50)) % OTHERS) : right;
}

int32_t liar_propose(void *user, const int32_t *tokens, size_t n, int32_t most, int32_t *out)
{
    liar *l = user;
    (void)tokens;
    cr_assert_geq(n, l->n_prompt);
    int32_t proposed = (int32_t)(pl_rng_next(&l->rng) % (uint64_t)(most + 1));
    for (int32_t i = 0; i < proposed; i++)
        out[i] = token_at(l, n - l->n_prompt + (size_t)i);
    l->asked++;
    return proposed;
}

static const char *const stops[2] = {"e", " a"};
static const pl_logit_bias bias[2] = {{700, 3.0f}, {20, -INFINITY}};

void drafts_form(pl_generation *params, int form, pl_grammar *grammar, uint64_t seed)
{
    pl_sampling *s = &params->sampling;
    *s = pl_sampling_default();
    s->seed = seed;
    params->ignore_eos = form % 3 != 0;
    switch (form) {
    case 0: s->temperature = 0; break;
    case 1: break;
    case 2: s->temperature = 2.5f; break;
    case 3: s->top_k = 5; break;
    case 4: s->min_p = 0.1f; break;
    case 5:
        s->top_p = 0.5f;
        s->typical_p = 0.9f;
        break;
    case 6:
        s->temperature = 0;
        s->repeat_penalty = 1.3f;
        break;
    case 7:
        s->presence_penalty = 0.4f;
        s->frequency_penalty = 0.3f;
        s->penalty_last_n = 5;
        break;
    case 8: s->dry_multiplier = 0.8f; break;
    case 9:
        s->bias = bias;
        s->n_bias = 2;
        break;
    case 10: params->grammar = grammar; break;
    case 11:
        params->stop = stops;
        params->n_stop = 2;
        break;
    case 12: params->n_logprobs = SERVED_TOP; break;
    default:
        s->temperature = 0;
        params->grammar = grammar;
        params->n_logprobs = 0;
        break;
    }
}
