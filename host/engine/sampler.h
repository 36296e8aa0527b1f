/* Chooses the next token from the logits.
 *
 *     logits -> bias -> the steps of pl_sampling.order -> a draw
 *
 * Bias always comes first. Each step works on what the steps before it left, with the probabilities of
 * that: top-p after top-k measures shares of the k best. A setting whose step is not in the order has no
 * effect. With temperature <= 0 (or under PL_LEAST_TEMPERATURE, where it makes no difference) only bias,
 * penalties and DRY count, and the best token is taken, the lowest id where several are equal.
 * One random number is used for each draw, none for the best token. What comes out depends on nothing but
 * the parameters, the accepted tokens and the logits: the same on any machine.
 * After creation nothing is allocated. A sampler is used by one thread at a time; the room that it works in is the
 * caller's, so that many samplers share one. */
#ifndef PL_ENGINE_SAMPLER_H
#define PL_ENGINE_SAMPLER_H

#include "host/base/rng.h"
#include "host/engine/repetition.h"

#define PL_LEAST_TEMPERATURE 1e-6f

static inline bool pl_sampling_is_greedy(const pl_sampling *p)
{
    return p->temperature < PL_LEAST_TEMPERATURE;
}

typedef struct pl_sampler pl_sampler;

/* PL_ERR_ARGUMENT names the first field that cannot be right and what was expected. */
pl_status pl_sampling_check(const pl_sampling *params, int32_t vocab, pl_error *err);

/* Checks params and copies what they point to. history: the most tokens that "all" (-1) looks back on, the
 * length of the context. token_text, user: see repetition.h; used and needed only where DRY is on. */
pl_status pl_sampler_create(const pl_sampling *params, int32_t vocab, int32_t history, pl_token_text_fn token_text,
                            void *user, pl_sampler **out, pl_error *err);
void pl_sampler_free(pl_sampler *sampler);

/* As just created: no history, the random numbers from the start. */
void pl_sampler_reset(pl_sampler *sampler);

/* Adds a token, of the prompt or of the answer, to what penalties and DRY look back on. 0 to vocab - 1. */
void pl_sampler_accept(pl_sampler *sampler, int32_t token);

/* What comes next continues nothing that came before. */
void pl_sampler_break(pl_sampler *sampler);

/* The token was drawn from a copy of the sampler: takes the random number that this took, and accepts the token. */
void pl_sampler_follow(pl_sampler *sampler, int32_t token);

/* As created, and the random numbers from the next draw on. */
const pl_sampling *pl_sampler_params(const pl_sampler *sampler);
pl_rng pl_sampler_rng(const pl_sampler *sampler);

/* How many of the largest logits the next sample depends on, counted with ties broken by lower id: those alone choose it,
 * whatever stands for the others, as long as it is less. 0: on all, or on more than `most`. */
int32_t pl_sampler_top(const pl_sampler *sampler, int32_t most);

/* logits: [vocab], not changed. room: pl_candidates_init() for this vocabulary. mask: tokens whose bit is not set (bit
 * id % 32 of word id / 32) count as if they were not there; NULL: none such. Does not accept the token. PL_ERR_NUMERIC
 * names the first logit that is not finite, PL_ERR_ARGUMENT says that bias and mask leave no token. */
pl_status pl_sampler_sample(pl_sampler *sampler, pl_candidates *room, const float *logits, const uint32_t *mask,
                            int32_t *id, pl_error *err);

/* The token that it would choose from these logits `ahead` tokens later, without those in between in its history: takes
 * no random number, but uses the one of that draw. */
pl_status pl_sampler_guess(pl_sampler *sampler, pl_candidates *room, const float *logits, const uint32_t *mask,
                           int ahead, int32_t *id, pl_error *err);

/* Natural logarithms of probabilities under softmax(logits), logits [vocab]: of id into *logprob, and of
 * the n_top best tokens into top[0..n_top), best first, lower ids first where equal. n_top may be 0.
 * PL_ERR_ARGUMENT: id or n_top out of range; PL_ERR_NUMERIC as above.
 * numerics: within 1e-6 + 2^-24 |logprob| of the exact value (2^-22 for the terms of the sum, and 2^-24 of
 * their mean distance from the best logit, which is at most log(vocab) = 12.5, for rounding that). */
pl_status pl_sampler_logprobs(const float *logits, int32_t vocab, int32_t id, float *logprob, pl_logprob *top,
                              size_t n_top, pl_error *err);

#endif
