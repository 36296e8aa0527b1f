/* Proposals from what was said before: where the last tokens of a text have occurred earlier, what followed them then.
 *
 * The longest match of the text's end counts, of equally long ones the latest; where the proposal would run beyond the
 * text it goes on with itself, as a loop does. Chains of places with the same two tokens before them, of which so many
 * are looked at: a token costs O(1). The text is the caller's and only grows. */
#ifndef PL_ENGINE_DRAFT_NGRAM_H
#define PL_ENGINE_DRAFT_NGRAM_H

#include "host/base/status.h"

#define PL_NGRAM_LEAST 2 /* tokens that must agree */
#define PL_NGRAM_MOST 8  /* that are compared */

typedef struct pl_ngrams pl_ngrams;

/* For texts of at most `room` tokens: 8 to 12 bytes for each, touched as it grows. */
pl_status pl_ngrams_create(int32_t room, pl_ngrams **out, pl_error *err);
void pl_ngrams_free(pl_ngrams *g);

/* Looks for the end of tokens[0..n); the tokens of earlier calls are still its beginning. Writes `most` proposals for the
 * tokens from n on to out, and returns how many tokens before them agree, PL_NGRAM_LEAST to PL_NGRAM_MOST; 0: nothing was
 * found or written. */
int32_t pl_ngrams_find(pl_ngrams *g, const int32_t *tokens, int32_t n, int32_t most, int32_t *out);

#endif
