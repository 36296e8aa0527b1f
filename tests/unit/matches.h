/* Whether texts match finished rules. */
#ifndef PL_TESTS_UNIT_MATCHES_H
#define PL_TESTS_UNIT_MATCHES_H

#include "host/grammar/matcher.h"

/* Owns rules; to be freed by pl_matcher_free(). */
pl_matcher *matcher_of(pl_rules *rules);

bool matches_text(pl_matcher *matcher, const char *text, size_t n);
bool matches(pl_matcher *matcher, const char *text);

#endif
