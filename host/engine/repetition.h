/* What was said before, and the penalties for saying it again.
 *
 * Penalties: a token among the last penalty_last_n has its logit divided by repeat_penalty where it is
 * positive and multiplied where it is not, then lowered by presence_penalty and by frequency_penalty for
 * each time it occurs.
 *
 * DRY: a token that would extend a repetition has its logit lowered by
 * dry_multiplier * dry_base ^ (length - dry_allowed_length), length being how many tokens before it repeat
 * what stood before an earlier occurrence of it, where that is dry_allowed_length or more. Nothing is looked
 * for across a breaker: a string whose last byte lies in a token of the history ends a repetition there,
 * whichever tokens it is made of. A token that itself contains a breaker is never penalised.
 * Source: the DRY sampler of text-generation-webui (pull request 5677), as llama.cpp reads it, except that
 * breakers are sought in the text instead of in lists of tokens. */
#ifndef PL_ENGINE_REPETITION_H
#define PL_ENGINE_REPETITION_H

#include "host/engine/candidates.h"

/* The text of a token as it reads in running text, valid until the next call; *n: its bytes, without a NUL.
 * Tokens without text give 0. */
typedef const char *(*pl_token_text_fn)(void *user, int32_t id, size_t *n);

typedef struct pl_repetition pl_repetition;

/* params: valid ones (pl_sampling_check), borrowed for the call. capacity: the most tokens that a window of
 * "all" looks back on. token_text is called only where DRY is on and may be NULL otherwise. */
pl_status pl_repetition_create(const pl_sampling *params, int32_t vocab, int32_t capacity, pl_token_text_fn token_text,
                               void *user, pl_repetition **out, pl_error *err);
void pl_repetition_free(pl_repetition *r);
void pl_repetition_reset(pl_repetition *r);

/* token: 0 to vocab - 1. */
void pl_repetition_accept(pl_repetition *r, int32_t token);

/* What comes next continues nothing that came before. */
void pl_repetition_break(pl_repetition *r);

void pl_repetition_penalize(pl_repetition *r, pl_candidates *c);
void pl_repetition_dry(pl_repetition *r, pl_candidates *c);

#endif
