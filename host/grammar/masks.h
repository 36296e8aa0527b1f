/* Which pieces may follow each state of a matcher, found once and kept.
 *
 *     pieces after a set of stacks  =  for each stack: pieces within its top frame
 *                                      + those that leave it, gone on with from the frame below
 *
 * The first part depends on the top frame alone and is shared by all states that have it: a string is searched once,
 * whichever of an object's values it is. Within a frame where any character of a string stands for any other, the plain
 * pieces are one mask, and only the rest is searched. */
#ifndef PL_GRAMMAR_MASKS_H
#define PL_GRAMMAR_MASKS_H

#include "host/grammar/matcher.h"
#include "host/grammar/piece_tree.h"

typedef struct pl_masks pl_masks;

/* Owns rules from now on, also on failure; borrows the tree. */
pl_status pl_masks_create(pl_rules *rules, const pl_piece_tree *tree, size_t max_bytes, pl_masks **out, pl_error *err);
void pl_masks_free(pl_masks *masks);

pl_matcher *pl_masks_matcher(pl_masks *masks);

/* Writes the pieces that may follow a state, but for ends of answers, to out[tree->n_words]. */
pl_status pl_masks_find(pl_masks *masks, uint32_t state, uint32_t *out, pl_error *err);

/* Where states and masks take too much, drops all that the held states (see pl_matcher_forget) do not need. */
pl_status pl_masks_trim(pl_masks *masks, uint32_t *const *held, size_t n, pl_error *err);

#endif
