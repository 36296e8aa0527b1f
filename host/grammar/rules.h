/* A grammar as the compilers of all notations write it and the matcher runs it: rules over bytes, like those of GBNF.
 *
 *     rule      alternatives
 *     item      a set of bytes | a rule | a repetition of a rule, at least min and at most max times
 *
 * Characters are UTF-8: a set of code points becomes alternatives of byte sequences (pl_rules_chars). A grammar is built
 * once, checked by pl_rules_finish() and never changed after. Everything it owns is one pl_rules_free(). */
#ifndef PL_GRAMMAR_RULES_H
#define PL_GRAMMAR_RULES_H

#include "host/base/status.h"

typedef struct pl_rules pl_rules;

#define PL_RULES_ANY (-1)      /* of a repetition: no upper bound */
#define PL_RULES_MOST 65535    /* largest bound of a repetition */
#define PL_RULES_ITEMS 4000000 /* most items of a grammar: larger ones are PL_ERR_UNSUPPORTED */

typedef struct pl_byte_set {
    uint64_t bits[4];
} pl_byte_set;

typedef struct pl_code_range {
    uint32_t first, last; /* code points, both included */
} pl_code_range;

pl_status pl_rules_create(pl_rules **out, pl_error *err);
void pl_rules_free(pl_rules *rules);

/* ---- building: failures (memory, size) are kept and told by pl_rules_finish() ---- */

/* A new rule without alternatives; what has none can never match. Rules are numbered from 0. */
int32_t pl_rules_new(pl_rules *rules);

/* Begins the next alternative of a rule; the items below are appended to it until the next begin, of any rule. */
void pl_rules_alternative(pl_rules *rules, int32_t rule);

void pl_rules_bytes(pl_rules *rules, const pl_byte_set *set);                              /* one byte */
void pl_rules_literal(pl_rules *rules, const char *text, size_t n);                        /* these bytes */
void pl_rules_chars(pl_rules *rules, const pl_code_range *ranges, size_t n, bool negated); /* one character */
void pl_rules_refer(pl_rules *rules, int32_t rule);
void pl_rules_repeat(pl_rules *rules, int32_t rule, int32_t min, int32_t max);

/* Checks what was built, from `root` on: every rule that is referred to exists, none refers to itself before it has
 * matched a byte (left recursion; PL_ERR_UNSUPPORTED), and root can match something (PL_ERR_ARGUMENT). Repetitions of
 * what may be empty are made harmless; alternatives that no text can finish (a rule in them has none) are dropped. name gives a rule's name for messages; may be NULL. */
pl_status pl_rules_finish(pl_rules *rules, int32_t root, const char *(*name)(void *user, int32_t rule), void *user,
                          pl_error *err);

#endif
