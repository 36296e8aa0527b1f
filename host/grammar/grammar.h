/* The inside of pl_grammar: a matcher over bytes, an index of the vocabulary's pieces, and the masks of the matcher's
 * states, found once and kept.
 *
 * The mask of a state is found by walking the index, a tree of all pieces byte by byte, together with the matcher. What
 * follows from a state is the same for all states that no piece can tell apart (repetitions that are further from their
 * bounds than the longest piece), so those share one. Control tokens are never allowed but the ends of an answer, and those where the grammar may
 * end. */
#ifndef PL_GRAMMAR_GRAMMAR_H
#define PL_GRAMMAR_GRAMMAR_H

#include "host/grammar/rules.h"
#include "host/text/tokenizer.h"

typedef struct pl_piece_tree pl_piece_tree;

/* The index; borrowed by grammars. vocab: bits of a mask, at least the tokenizer's size. eos: ids that end an answer. */
pl_status pl_piece_tree_create(const pl_tokenizer *tokenizer, int32_t vocab, const int32_t *eos, int n_eos,
                               pl_piece_tree **out, pl_error *err);
void pl_piece_tree_free(pl_piece_tree *tree);

/* Owns rules (finished) from now on, also on failure. The result is one reference, for pl_grammar_free(). */
pl_status pl_grammar_create(pl_rules *rules, const pl_piece_tree *pieces, pl_grammar **out, pl_error *err);

/* One answer's place in a grammar; holds a reference to it. */
typedef struct pl_grammar_place pl_grammar_place;

pl_status pl_grammar_begin(pl_grammar *grammar, pl_grammar_place **out, pl_error *err);
void pl_grammar_place_free(pl_grammar_place *place);

/* Which tokens may come next: bit id % 32 of word id / 32, (vocab + 31) / 32 words; at least one is set. Valid until
 * the next call with this place. */
pl_status pl_grammar_mask(pl_grammar_place *place, const uint32_t **mask, pl_error *err);

/* Takes a token of the last mask. PL_ERR_ARGUMENT for any other. */
pl_status pl_grammar_accept(pl_grammar_place *place, int32_t token, pl_error *err);

#endif
