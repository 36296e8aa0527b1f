/* Choosing a sequence's next token where its logits are, on the card: the token that pl_sampler_sample() gives for the
 * same logits, parameters, accepted tokens and random state.
 *
 *     prepare   over the vocabulary: bias, mask and the steps of the order that stand before the first of top-k, top-p
 *               and min-p change the logits, in a copy
 *     choose    one block a row: the other steps, then the draw
 *
 * What the host's sampler can do and this cannot: DRY, typical-p, more bias entries than PL_DRAW_MAX_BIAS, penalties
 * that look back on more than PL_DRAW_HISTORY tokens (pl_card_draw_fits). */
#ifndef PL_OPS_DRAW_H
#define PL_OPS_DRAW_H

#include "host/base/rng.h"
#include "host/include/pleiad.h"
#include "host/ops/ops.h"

#define PL_DRAW_MAX_BIAS 1024
#define PL_DRAW_HISTORY 4096 /* a power of two */

/* In place of a token: */
#define PL_DRAW_NOT_FINITE (-1) /* a logit is NaN or infinite */
#define PL_DRAW_ALL_BANNED (-2) /* bias and mask leave none */

/* One sequence's sampler, in the ops' memory. The host writes it when an answer begins (pl_card_draw_start), from then
 * on it is the op's; only `mask` may be changed, between draws. About 24 KiB, the same for all. */
struct pl_draw {
    pl_rng rng;           /* before the next draw */
    const uint32_t *mask; /* in the ops' memory: bit id % 32 of word id / 32 is set for a token that may be chosen,
                             (vocab + 31) / 32 words; NULL: all may. Applied with the bias. */
    double repeat, presence, frequency;
    double top_p;
    double log_min_p; /* pl_log(min_p) */
    float temperature;
    int32_t top_k;
    int32_t greedy; /* 1: the best token after bias and penalties; no random number is used */
    /* pl_sampler_step, ends at PL_SAMPLER_END; only steps that change something: no DRY, no typical. */
    int32_t order[PL_SAMPLER_STEPS];
    int32_t window;    /* tokens that the penalties look back on, up to PL_DRAW_HISTORY; 0: no penalties */
    int32_t n_history; /* tokens accepted: the last is history[(n_history - 1) % PL_DRAW_HISTORY]. Stays below
                          2 PL_DRAW_HISTORY: there it falls by PL_DRAW_HISTORY */
    int32_t token;     /* what the last draw chose, or PL_DRAW_...; -1 before the first */
    uint32_t count;    /* draws so far, modulo 2^32 */
    int32_t n_bias;
    pl_logit_bias bias[PL_DRAW_MAX_BIAS]; /* ids ascend, the entries of one id in the order of the caller's list */
    int32_t history[PL_DRAW_HISTORY];
};

#endif
