/* Regular expressions, as JSON Schema's `pattern` and OpenAI's clients write them (ECMA-262 without look-around and
 * back-references), to rules.
 *
 * There are: literals, ".", classes with ranges and \d \w \s \D \W \S (as ECMA-262 has them: \d and \w are ASCII), groups
 * (capturing, (?: ), named), |, * + ? {m} {m,} {m,n} and their lazy forms (which match the same), ^ and $ where the text
 * begins or ends, escapes \n \r \t \f \v \0 \xHH \uHHHH \u{H...} \cX and \ before punctuation. What is not there, such as
 * \b and \p{L}, is PL_ERR_UNSUPPORTED naming it and its place. */
#ifndef PL_GRAMMAR_REGEX_H
#define PL_GRAMMAR_REGEX_H

#include "host/grammar/rules.h"

typedef enum pl_regex_use {
    PL_REGEX_WHOLE,   /* the text matches from beginning to end, whether ^ and $ say so or not */
    PL_REGEX_IN_JSON, /* as JSON Schema's pattern: somewhere in the string unless anchored; the text is the inside of a
                          JSON string: quotes, backslashes and control characters stand escaped, and only these */
} pl_regex_use;

/* A rule of `rules` that matches. Messages name the place, counted in characters from 1. */
pl_status pl_regex_add(pl_rules *rules, const char *text, size_t n, pl_regex_use use, int32_t *rule, pl_error *err);

/* The same for texts of min to max characters (max < 0: any number). PL_ERR_UNSUPPORTED unless the expression bounds
 * itself so, or one repeated character is all that varies in length. */
pl_status pl_regex_add_sized(pl_rules *rules, const char *text, size_t n, pl_regex_use use, int64_t min, int64_t max,
                             int32_t *rule, pl_error *err);

/* Finished rules of one expression used whole. */
pl_status pl_regex_compile(const char *text, size_t n, pl_rules **out, pl_error *err);

#endif
