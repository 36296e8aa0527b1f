/* Rules for the numbers between two bounds, exact in decimal digits. */
#ifndef PL_GRAMMAR_NUMBER_RANGE_H
#define PL_GRAMMAR_NUMBER_RANGE_H

#include "host/grammar/json_rules.h"

#define PL_FRACTION_DIGITS 40

typedef struct pl_decimal {
    bool negative;                         /* never of zero */
    bool huge;                             /* 2^64 or more; the rest but the sign is not set */
    uint64_t whole;                        /* before the point */
    char fraction[PL_FRACTION_DIGITS + 1]; /* digits behind it, without zeros at the end; NUL-terminated */
} pl_decimal;

/* text: a JSON number, also with an exponent. Digits behind the first PL_FRACTION_DIGITS of the fraction are dropped. */
pl_decimal pl_decimal_read(const char *text);

/* Below zero, zero, above: a < b, a == b, a > b. */
int pl_decimal_compare(const pl_decimal *a, const pl_decimal *b);

typedef struct pl_number_range {
    bool has_min, has_max;
    bool above, below; /* the bound itself does not belong to it */
    pl_decimal min, max;
} pl_number_range; /* all zero: no bounds */

/* Narrows the range by one more bound. */
void pl_number_range_min(pl_number_range *range, const pl_decimal *min, bool exclusive);
void pl_number_range_max(pl_number_range *range, const pl_decimal *max, bool exclusive);
bool pl_number_range_has(const pl_number_range *range, const pl_decimal *value);

/* Rules; without alternatives where the range is empty. Integers are those of 64 bits with sign, written without point
 * or exponent. Other numbers with bounds have no exponent; without any they are json_rules.h's any_number. */
int32_t pl_number_range_integers(const pl_json_rules *text, const pl_number_range *range);
int32_t pl_number_range_numbers(const pl_json_rules *text, const pl_number_range *range);

#endif
