/* One answer's state, whoever runs the steps: from the logits behind its last token to the events of the next.
 *
 *     choose (logits -> tokens) -> show (a token -> text, an event, whether it was the last) -> choose ...
 *
 * Choosing works in room of the caller's, so that threads choose for many answers beside each other; an answer itself is
 * used by one thread at a time. After creation nothing is allocated, but for text that is longer than any before. */
#ifndef PL_ENGINE_REPLY_H
#define PL_ENGINE_REPLY_H

#include "host/engine/model.h"
#include "host/engine/sampler.h"
#include "host/ops/draw.h"

typedef struct pl_reply pl_reply;

/* What pl_generate() and pl_scheduler_submit() refuse but the prompt's ids (pl_engine_hold_ids), and sampling, stop
 * strings and grammar, which creation checks. n: tokens of the prompt. */
pl_status pl_reply_check(const pl_config *config, int32_t context, size_t n, const pl_generation *params,
                         pl_error *err);

/* Copies what params point to, but for user, and takes a reference to the grammar; borrows the model. prompt, params:
 * checked. drawn: tokens are chosen elsewhere, by draws; pl_reply_choose() is not to be called. */
pl_status pl_reply_create(const pl_model *model, int32_t context, const int32_t *prompt, size_t n,
                          const pl_generation *params, bool drawn, pl_reply **out, pl_error *err);
void pl_reply_free(pl_reply *reply);

/* Chooses tokens from logits [n_drafts + 1][vocab], behind the answer's last token and each of the drafts: the first, and
 * another as long as the one before is the draft and not the answer's last. room: pl_candidates_init() for the vocabulary.
 * All tokens chosen before have been shown. An error is that of the first choice: later ones come again where they matter. */
pl_status pl_reply_choose(pl_reply *reply, pl_candidates *room, const float *logits, const int32_t *drafts,
                          int32_t n_drafts, pl_error *err);

/* The token that this would choose `ahead` tokens later, as far as can be known now. */
pl_status pl_reply_guess(const pl_reply *reply, pl_candidates *room, const float *logits, int ahead, int32_t *token,
                         pl_error *err);

/* Whether its tokens can be drawn by ops: by the sampling's parameters, without grammar and log probabilities. */
bool pl_reply_can_be_drawn(const pl_reply *reply);

/* How many of the largest logits the next token depends on, as pl_sampler_top() says; 0: on all. */
int32_t pl_reply_top(const pl_reply *reply);

/* A sampler for that, which goes on where this reply is; tokens: prompt and answer so far. drawn: not so created. */
pl_status pl_reply_copy_sampler(const pl_reply *reply, const int32_t *tokens, size_t n, pl_draw *out, pl_error *err);

/* The token, or PL_DRAW_..., was drawn elsewhere, by a sampler like its own. PL_ERR_NUMERIC and PL_ERR_ARGUMENT as from
 * pl_sampler_sample(). */
pl_status pl_reply_take(pl_reply *reply, int32_t token, pl_error *err);

/* Tokens chosen and not shown, and the first of them. */
int32_t pl_reply_chosen(const pl_reply *reply);
int32_t pl_reply_token(const pl_reply *reply);

/* Counts that token, reports it, and, where it is the last one, what text was held back. *done: it was.
 * PL_ERR_CANCELLED: the callback wants no more. */
pl_status pl_reply_show(pl_reply *reply, bool *done, pl_error *err);

/* Tokens so far, the ending one included, and, once done, why it ended. */
size_t pl_reply_tokens(const pl_reply *reply);
pl_finish pl_reply_finish(const pl_reply *reply);
int32_t pl_reply_stopped_by(const pl_reply *reply); /* the stop string that did it, or -1 */

#endif
