/* The rules that all grammars of JSON texts share, and how values are put together.
 *
 * White space is bounded, so that no answer can consist of it: a line break with up to PL_JSON_BLANKS blanks within
 * brackets, also one space after a comma or colon. */
#ifndef PL_GRAMMAR_JSON_RULES_H
#define PL_GRAMMAR_JSON_RULES_H

#include "host/grammar/rules.h"

#define PL_JSON_BLANKS 20
#define PL_JSON_DIGITS 18 /* most digits before the point of a number without bounds, and most after it */

typedef struct pl_json_rules {
    pl_rules *rules;
    int32_t any_value; /* this and what follows are rules */
    int32_t any_object;
    int32_t any_array;
    int32_t any_string; /* with its quotes; any character may also be written as JSON's escapes allow */
    int32_t any_number;
    int32_t any_char;   /* one character of any_string */
    int32_t plain_char; /* one character in its canonical form: escaped only where it must be, and shortest */
    int32_t digit;
    int32_t line;   /* a line break and blanks, or nothing */
    int32_t spaced; /* one space or nothing */
    int32_t gap;    /* one space, a line break and blanks, or nothing */
} pl_json_rules;

void pl_json_rules_init(pl_json_rules *text, pl_rules *rules);

/* A rule for a string, with its quotes, of min to max characters. */
int32_t pl_json_rules_string(const pl_json_rules *text, int32_t min, int32_t max);

/* A rule for min to max items between brackets ("[]" or "{}"). */
int32_t pl_json_rules_list(const pl_json_rules *text, const char *brackets, int32_t item, int32_t min, int32_t max);

/* A rule for a key (a rule that matches it with its quotes), a colon and a value. */
int32_t pl_json_rules_member(const pl_json_rules *text, int32_t key, int32_t value);

/* A rule for one character of a set, in its canonical form. `bare` has room for n + PL_JSON_RULES_SPLITS ranges. */
#define PL_JSON_RULES_SPLITS 2
int32_t pl_json_rules_chars(pl_rules *rules, const pl_code_range *ranges, size_t n, pl_code_range *bare);

#endif
