/* A source of drafts that knows the answer and lies now and then: proposals of every length, right up to anywhere. */
#ifndef PL_TESTS_ENGINE_DRAFTS_H
#define PL_TESTS_ENGINE_DRAFTS_H

#include "tests/engine/served.h"

#include "host/base/rng.h"

typedef struct liar {
    const heard *truth; /* the answer; where it has ended, ends of answers and other tokens are proposed */
    size_t n_prompt;
    int wrong_of_8; /* of 8 proposals so many are wrong */
    pl_rng rng;
    int asked;
} liar;

liar liar_of(const heard *truth, size_t n_prompt, int wrong_of_8, uint64_t seed);

/* Is a pl_propose_fn. */
int32_t liar_propose(void *user, const int32_t *tokens, size_t n, int32_t most, int32_t *out);

/* One of some forms of what can be asked of an answer, by its number: sampling, penalties, grammar, ends, log
 * probabilities. The grammar is the caller's, for forms that have one. */
void drafts_form(pl_generation *params, int form, pl_grammar *grammar, uint64_t seed);
enum { DRAFTS_FORMS = 14 };

#endif
