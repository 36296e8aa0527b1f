/* A real vocabulary, the demo model's, and answers on it. */
#ifndef PL_TESTS_UNIT_GRAMMAR_FIXTURE_H
#define PL_TESTS_UNIT_GRAMMAR_FIXTURE_H

#include "host/base/rng.h"
#include "host/engine/model.h"
#include "host/grammar/gbnf.h"
#include "host/grammar/piece_tree.h"

extern const char fixture_json_grammar[]; /* GBNF of a JSON object */

static inline bool fixture_allows(const uint32_t *mask, int32_t id)
{
    return mask[id / 32] >> id % 32 & 1;
}

/* With the index of its pieces. All three fail the test when there is no such thing. */
pl_model *fixture_model(void);
pl_grammar *fixture_grammar(const pl_model *model, const char *gbnf);

/* A token of the mask, each third time one that closes something. */
int32_t fixture_choose(const pl_model *model, pl_rng *rng, const uint32_t *mask);

#endif
