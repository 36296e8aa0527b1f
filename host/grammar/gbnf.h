/* GBNF, the grammar notation of llama.cpp, to rules.
 *
 *     root ::= "yes" | "no" (" " [a-z]+){0,3}     # a comment
 *
 * Literals and classes with \n \r \t \\ \" \[ \] \xHH \uHHHH \UHHHHHHHH, negated classes, ".", groups, * + ? {m} {m,}
 * {,n} {m,n}; a rule ends with its line unless inside a group or after "|" or "::=".
 * Source: llama.cpp's grammars/README.md. */
#ifndef PL_GRAMMAR_GBNF_H
#define PL_GRAMMAR_GBNF_H

#include "host/grammar/rules.h"

/* Finished rules, to be freed by the caller. Messages name line and column. */
pl_status pl_gbnf_compile(const char *text, size_t n, pl_rules **out, pl_error *err);

#endif
