#include "host/grammar/number_range.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#define SAFE_DIGITS 15 /* that many digits tell any two numbers apart as doubles */

/* One way to go on: a digit of a range, then a rule. */
typedef struct branch {
    char low, high;
    int32_t rest;
} branch;

static void add_branches(pl_rules *rules, int32_t rule, const branch *branches, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        pl_code_range digit = {(unsigned char)branches[i].low, (unsigned char)branches[i].high};
        pl_rules_alternative(rules, rule);
        pl_rules_chars(rules, &digit, 1, false);
        pl_rules_refer(rules, branches[i].rest);
    }
}

static int32_t some_digits(const pl_json_rules *text, int32_t min, int32_t max)
{
    int32_t rule = pl_rules_new(text->rules);
    pl_rules_alternative(text->rules, rule);
    pl_rules_repeat(text->rules, text->digit, min, max);
    return rule;
}

/* ---- whole numbers ------------------------------------------------------------------------------ */

/* n digits from a to b; NULL: all zeros, all nines. */
static int32_t digits_between(const pl_json_rules *text, const char *a, const char *b, int32_t n)
{
    branch branches[3];
    size_t count = 0;
    if (n == 0 || (!a && !b))
        return some_digits(text, n, n);
    char low = a ? *a : '0', high = b ? *b : '9';
    if (a && b && low == high) {
        branches[count++] = (branch){low, low, digits_between(text, a + 1, b + 1, n - 1)};
    } else {
        if (a)
            branches[count++] = (branch){low, low, digits_between(text, a + 1, NULL, n - 1)};
        if (b)
            branches[count++] = (branch){high, high, digits_between(text, NULL, b + 1, n - 1)};
        low = (char)(low + (a != NULL));
        high = (char)(high - (b != NULL));
        if (low <= high)
            branches[count++] = (branch){low, high, some_digits(text, n - 1, n - 1)};
    }
    int32_t rule = pl_rules_new(text->rules);
    add_branches(text->rules, rule, branches, count);
    return rule;
}

/* An alternative of `rule`: what another matches. */
static void add_rule(pl_rules *rules, int32_t rule, int32_t other)
{
    pl_rules_alternative(rules, rule);
    pl_rules_refer(rules, other);
}

/* From a to b without sign or leading zeros. */
static int32_t naturals(const pl_json_rules *text, uint64_t a, uint64_t b)
{
    pl_rules *rules = text->rules;
    int32_t rule = pl_rules_new(rules);
    char first[24], last[24], lowest[24] = "10000000000000000000";
    if (a == 0) {
        pl_rules_alternative(rules, rule);
        pl_rules_literal(rules, "0", 1);
        a = 1;
    }
    if (a > b)
        return rule;
    int32_t n = snprintf(first, sizeof first, "%" PRIu64, a), m = snprintf(last, sizeof last, "%" PRIu64, b);
    if (n == m) {
        add_rule(rules, rule, digits_between(text, first, last, n));
        return rule;
    }
    add_rule(rules, rule, digits_between(text, first, NULL, n));
    add_rule(rules, rule, digits_between(text, lowest, last, m));
    if (n + 1 < m) {
        branch between = {'1', '9', some_digits(text, n, m - 2)};
        add_branches(rules, rule, &between, 1);
    }
    return rule;
}

/* The smallest integer in the range, or the largest with its signs turned; false where all are beyond 64 bits. */
static bool first_integer(const pl_decimal *bound, bool exclusive, int64_t *out)
{
    uint64_t limit = bound->negative ? (uint64_t)INT64_MAX + 1 : INT64_MAX;
    if (bound->huge || bound->whole > limit) {
        *out = INT64_MIN;
        return bound->negative;
    }
    bool between = bound->fraction[0];
    *out = bound->negative ? -(int64_t)(bound->whole - (bound->whole > 0)) - (bound->whole > 0) : (int64_t)bound->whole;
    if (between ? bound->negative : !exclusive)
        return true;
    return !__builtin_add_overflow(*out, 1, out);
}

static uint64_t size_of(int64_t value)
{
    return value < 0 ? (uint64_t)0 - (uint64_t)value : (uint64_t)value;
}

static pl_decimal turned(pl_decimal d)
{
    d.negative = !d.negative && (d.huge || d.whole || d.fraction[0]);
    return d;
}

int32_t pl_number_range_integers(const pl_json_rules *text, const pl_number_range *range)
{
    pl_rules *rules = text->rules;
    int32_t rule = pl_rules_new(rules);
    int64_t low = INT64_MIN, high = INT64_MAX;
    pl_decimal max = turned(range->max);
    if (range->has_min && !first_integer(&range->min, range->above, &low))
        return rule;
    if (range->has_max) {
        if (!first_integer(&max, range->below, &high))
            return rule;
        high = high == INT64_MIN ? INT64_MAX : -high;
    }
    if (low > high)
        return rule;
    if (low < 0) {
        int32_t sizes = naturals(text, high < 0 ? size_of(high) : 1, size_of(low));
        pl_rules_alternative(rules, rule);
        pl_rules_literal(rules, "-", 1);
        pl_rules_refer(rules, sizes);
    }
    if (high >= 0)
        add_rule(rules, rule, naturals(text, low < 0 ? 0 : (uint64_t)low, (uint64_t)high));
    return rule;
}

/* ---- fractions ---------------------------------------------------------------------------------- */

/* Numbers without sign; the bounds' wholes and fractions are those of a and b. */
typedef struct sizes {
    const pl_json_rules *text;
    const pl_decimal *a, *b; /* b: NULL: no bound */
    bool above, below;
    int32_t most; /* digits behind the point that a bound decides on */
} sizes;

static void add_digits(const sizes *s, int32_t rule, int32_t digit, int32_t min, int32_t max)
{
    pl_rules_alternative(s->text->rules, rule);
    pl_rules_repeat(s->text->rules, digit, min, max);
}

static int32_t zero(const sizes *s)
{
    int32_t rule = pl_rules_new(s->text->rules);
    pl_rules_alternative(s->text->rules, rule);
    pl_rules_literal(s->text->rules, "0", 1);
    return rule;
}

/* Digits that are not all zero. */
static void add_nonzero(const sizes *s, int32_t rule, int32_t most)
{
    pl_code_range not_zero = {'1', '9'};
    int32_t zeros = zero(s);
    add_digits(s, rule, zeros, 0, most - 1);
    pl_rules_chars(s->text->rules, &not_zero, 1, false);
    pl_rules_repeat(s->text->rules, s->text->digit, 0, PL_JSON_DIGITS);
}

/* Digits behind the point from a on up to b, of which so much is left; NULL: what came before decides already.
 * min: 1 for the first digit, later 0. */
static int32_t fraction_digits(const sizes *s, const char *a, const char *b, int32_t min, int32_t most)
{
    branch branches[3];
    size_t count = 0;
    int32_t rule = pl_rules_new(s->text->rules);
    if (a && !*a && !s->above)
        a = NULL;
    if (b && !*b) {
        if (!a && !s->below)
            add_digits(s, rule, zero(s), min, most > min ? most : min);
        return rule;
    }
    if (!b && (!a || !*a)) {
        if (a)
            add_nonzero(s, rule, most > 1 ? most : 1);
        else
            add_digits(s, rule, s->text->digit, min, PL_JSON_DIGITS);
        return rule;
    }
    char low = a && *a ? *a : '0', high = b ? *b : '9';
    const char *next_a = a && *a ? a + 1 : a, *next_b = b ? b + 1 : NULL;
    if (low > high)
        return rule;
    if (a && b && low == high) {
        branches[count++] = (branch){low, low, fraction_digits(s, next_a, next_b, 0, most - 1)};
    } else {
        if (a)
            branches[count++] = (branch){low, low, fraction_digits(s, next_a, NULL, 0, most - 1)};
        if (b)
            branches[count++] = (branch){high, high, fraction_digits(s, NULL, next_b, 0, most - 1)};
        low = (char)(low + (a != NULL));
        high = (char)(high - (b != NULL));
        if (low <= high)
            branches[count++] = (branch){low, high, some_digits(s->text, 0, PL_JSON_DIGITS)};
    }
    add_branches(s->text->rules, rule, branches, count);
    if (min == 0 && !a) {
        pl_rules_alternative(s->text->rules, rule);
        pl_rules_literal(s->text->rules, "", 0);
    }
    return rule;
}

/* A point and digits, or nothing, for a value from a on up to b (NULL: any). */
static int32_t fraction(const sizes *s, const char *a, const char *b)
{
    pl_rules *rules = s->text->rules;
    int32_t digits = fraction_digits(s, a, b, 1, s->most), rule = pl_rules_new(rules);
    if ((!a || (!*a && !s->above)) && (!b || *b || !s->below)) {
        pl_rules_alternative(rules, rule);
        pl_rules_literal(rules, "", 0);
    }
    pl_rules_alternative(rules, rule);
    pl_rules_literal(rules, ".", 1);
    pl_rules_refer(rules, digits);
    return rule;
}

static void add_parts(const sizes *s, int32_t rule, uint64_t first, uint64_t last, const char *a, const char *b)
{
    if (first > last)
        return;
    int32_t whole = naturals(s->text, first, last), rest = fraction(s, a, b);
    add_rule(s->text->rules, rule, whole);
    pl_rules_refer(s->text->rules, rest);
}

static int32_t numbers_between(const sizes *s)
{
    const pl_decimal *a = s->a, *b = s->b;
    uint64_t most = 999999999999999999; /* PL_JSON_DIGITS nines */
    int32_t rule = pl_rules_new(s->text->rules);
    if (a->huge)
        return rule;
    if (b && a->whole == b->whole) {
        add_parts(s, rule, a->whole, a->whole, a->fraction, b->fraction);
        return rule;
    }
    add_parts(s, rule, a->whole, a->whole, a->fraction, NULL);
    if (a->whole == UINT64_MAX)
        return rule;
    if (!b) {
        add_parts(s, rule, a->whole + 1, most, NULL, NULL);
        return rule;
    }
    add_parts(s, rule, b->whole, b->whole, NULL, b->fraction);
    add_parts(s, rule, a->whole + 1, b->whole - 1, NULL, NULL);
    return rule;
}

static int32_t digits_of(uint64_t value)
{
    char text[24];
    return snprintf(text, sizeof text, "%" PRIu64, value);
}

/* An alternative of `rule`: the numbers of at least `min` (unless NULL or below zero) and at most `max`, with the signs
 * turned where `sign` is "-". */
static void add_side(const pl_json_rules *text, int32_t rule, const char *sign, const pl_decimal *min, bool above,
                     const pl_decimal *max, bool below)
{
    static const pl_decimal none = {0};
    sizes s = {.text = text, .a = &none, .b = max, .below = below};
    if (max && (max->negative || (min && pl_decimal_compare(min, max) > 0)))
        return;
    if (min && !min->negative) {
        s.a = min;
        s.above = above;
    }
    if (max && *sign && !max->huge && !max->whole && !max->fraction[0])
        return;
    if (max && max->huge)
        s.b = NULL;
    int32_t whole = digits_of(s.b ? s.b->whole : s.a->whole), longest = (int32_t)strlen(s.a->fraction);
    if (s.b && (int32_t)strlen(s.b->fraction) > longest)
        longest = (int32_t)strlen(s.b->fraction);
    s.most = SAFE_DIGITS - whole > longest + 1 ? SAFE_DIGITS - whole : longest + 1;
    int32_t numbers = numbers_between(&s);
    pl_rules_alternative(text->rules, rule);
    pl_rules_literal(text->rules, sign, strlen(sign));
    pl_rules_refer(text->rules, numbers);
}

int32_t pl_number_range_numbers(const pl_json_rules *text, const pl_number_range *range)
{
    if (!range->has_min && !range->has_max)
        return text->any_number;
    int32_t rule = pl_rules_new(text->rules);
    pl_decimal min = turned(range->min), max = turned(range->max);
    add_side(text, rule, "", range->has_min ? &range->min : NULL, range->above, range->has_max ? &range->max : NULL,
             range->below);
    add_side(text, rule, "-", range->has_max ? &max : NULL, range->below, range->has_min ? &min : NULL, range->above);
    return rule;
}
