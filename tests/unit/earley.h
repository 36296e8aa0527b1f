/* A plain recogniser (Earley's) of grammars over bytes, to compare with. */
#ifndef PL_TESTS_UNIT_EARLEY_H
#define PL_TESTS_UNIT_EARLEY_H

#include "host/grammar/rules.h"

#define EARLEY_TEXT 700 /* longest text */

typedef struct earley earley;

earley *earley_create(void);
void earley_free(earley *e);

/* ---- a grammar, as pl_rules has it; rule 0 is the root ---- */

void earley_begin(earley *e, int32_t n_rules);
void earley_alternative(earley *e, int32_t rule);
void earley_literal(earley *e, const char *text);
void earley_chars(earley *e, const pl_code_range *ranges, size_t n, bool negated);
void earley_rule(earley *e, int32_t rule);
void earley_repeat(earley *e, int32_t rule, int32_t min, int32_t max);
void earley_end(earley *e);
bool earley_productive(const earley *e); /* the root can match something */

/* ---- a text ---- */

void earley_start(earley *e);
void earley_take(earley *e, const char *text, size_t n); /* which must be allowed */
bool earley_continues(earley *e, const char *text,
                      size_t n); /* whether some text of the grammar begins with all of it */
bool earley_complete(const earley *e);

#endif
