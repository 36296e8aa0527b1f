/* Ranges of numbers against arithmetic. */
#include <criterion/criterion.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "host/base/rng.h"
#include "host/grammar/number_range.h"
#include "tests/unit/matches.h"

#define PLACES 1000 /* values are counted in thousandths */

static void write_value(char *text, size_t size, int64_t value)
{
    int64_t n = value < 0 ? -value : value;
    int length = snprintf(text, size, "%s%" PRId64 ".%03d", value < 0 ? "-" : "", n / PLACES, (int)(n % PLACES));
    while (text[length - 1] == '0')
        text[--length] = '\0';
    if (text[length - 1] == '.')
        text[--length] = '\0';
}

static pl_decimal decimal(int64_t value)
{
    char text[40];
    write_value(text, sizeof text, value);
    return pl_decimal_read(text);
}

/* NULL: the range is empty. */
static pl_matcher *matcher_for(const pl_number_range *range, bool whole)
{
    pl_rules *rules;
    pl_json_rules json;
    pl_error err = {0};
    cr_assert_eq(pl_rules_create(&rules, &err), PL_OK);
    pl_json_rules_init(&json, rules);
    int32_t rule = whole ? pl_number_range_integers(&json, range) : pl_number_range_numbers(&json, range);
    if (pl_rules_finish(rules, rule, NULL, NULL, &err) == PL_OK)
        return matcher_of(rules);
    cr_assert_eq(err.status, PL_ERR_ARGUMENT, "%s", err.message);
    pl_rules_free(rules);
    return NULL;
}

typedef struct limits {
    bool has_min, has_max, above, below;
    int64_t min, max;
} limits;

static bool allows(const limits *l, int64_t value)
{
    return (!l->has_min || (l->above ? value > l->min : value >= l->min)) &&
           (!l->has_max || (l->below ? value < l->max : value <= l->max));
}

static pl_number_range range_of(const limits *l)
{
    pl_number_range range = {0};
    pl_decimal min = decimal(l->min), max = decimal(l->max);
    if (l->has_min)
        pl_number_range_min(&range, &min, l->above);
    if (l->has_max)
        pl_number_range_max(&range, &max, l->below);
    return range;
}

static void check_value(const limits *l, pl_matcher *matcher, bool whole, int64_t value)
{
    char text[40];
    bool expected = allows(l, value) && (!whole || value % PLACES == 0);
    pl_number_range range = range_of(l);
    pl_decimal number = decimal(value);
    write_value(text, sizeof text, value);
    cr_expect_eq(matcher && matches(matcher, text), expected, "%s in %s%" PRId64 " to %" PRId64 "%s", text,
                 l->above ? "above " : "", l->min, l->max, l->below ? " without it" : "");
    cr_expect_eq(pl_number_range_has(&range, &number), allows(l, value), "%s", text);
    if (strchr(text, '.') && !whole) {
        strcat(text, "00");
        cr_expect_eq(matcher && matches(matcher, text), expected, "%s", text);
    }
}

static int64_t random_value(pl_rng *rng)
{
    static const int64_t sizes[] = {10, 3000, 150000, 20000000, 5000000000};
    int64_t size = sizes[pl_rng_next(rng) % 5];
    int64_t value = (int64_t)(pl_rng_next(rng) % (uint64_t)(2 * size + 1)) - size;
    return pl_rng_next(rng) % 2 ? value : value / PLACES * PLACES;
}

Test(number_range, random)
{
    static const int64_t near[] = {0, 1, -1, 10, -10, 100, -100, 1000, -1000, 9000, -90000};
    pl_rng rng;
    pl_rng_seed(&rng, 7);
    for (int round = 0; round < 1500; round++) {
        uint64_t bits = pl_rng_next(&rng);
        limits l = {bits & 1, bits & 2, bits & 4, bits & 8, random_value(&rng), random_value(&rng)};
        bool whole = bits & 16;
        if (!l.has_min && !l.has_max)
            l.has_min = true;
        pl_number_range range = range_of(&l);
        pl_matcher *matcher = matcher_for(&range, whole);
        for (size_t i = 0; i < sizeof near / sizeof *near; i++) {
            check_value(&l, matcher, whole, l.min + near[i]);
            check_value(&l, matcher, whole, l.max + near[i]);
            check_value(&l, matcher, whole, near[i]);
            check_value(&l, matcher, whole, random_value(&rng));
        }
        pl_matcher_free(matcher);
    }
}

Test(number_range, all_of_a_small_one)
{
    for (int64_t min = -12; min <= 12; min++)
        for (int64_t max = min; max <= 120; max += 9) {
            limits l = {true, true, false, false, min * PLACES, max * PLACES};
            pl_number_range range = range_of(&l);
            pl_matcher *matcher = matcher_for(&range, true);
            for (int64_t value = -130; value <= 1300; value++)
                check_value(&l, matcher, true, value * PLACES);
            pl_matcher_free(matcher);
        }
}

Test(number_range, sixty_four_bits)
{
    static const char *const inside[] = {"-9223372036854775808", "9223372036854775807", "0", "-1"};
    static const char *const outside[] = {"-9223372036854775809", "9223372036854775808", "-0", "00", "1.0", "1e1",
                                          "10000000000000000000"};
    pl_number_range range = {0};
    pl_matcher *matcher = matcher_for(&range, true);
    for (size_t i = 0; i < sizeof inside / sizeof *inside; i++)
        cr_expect(matches(matcher, inside[i]), "%s", inside[i]);
    for (size_t i = 0; i < sizeof outside / sizeof *outside; i++)
        cr_expect(!matches(matcher, outside[i]), "%s", outside[i]);
    pl_matcher_free(matcher);
}

/* A zero with a sign, however long, is no way around a bound. */
Test(number_range, zeros)
{
    pl_number_range above = {0}, from = {0};
    pl_decimal zero = pl_decimal_read("0");
    pl_number_range_min(&above, &zero, true);
    pl_number_range_min(&from, &zero, false);
    pl_matcher *matcher = matcher_for(&above, false);
    cr_expect(!matches(matcher, "0.0") && !matches(matcher, "-0") && !matches(matcher, "0.000"));
    cr_expect(matches(matcher, "0.0001"));
    pl_matcher_free(matcher);
    matcher = matcher_for(&from, false);
    cr_expect(matches(matcher, "0.0") && !matches(matcher, "-0") && !matches(matcher, "-0.0"));
    pl_matcher_free(matcher);
}

/* The narrower bound counts; of two at one place the exclusive one, whichever came first. */
Test(number_range, two_bounds)
{
    for (int turn = 0; turn < 2; turn++) {
        pl_number_range range = {0};
        pl_decimal low = pl_decimal_read("2"), lower = pl_decimal_read("-3"), high = pl_decimal_read("7");
        pl_decimal higher = pl_decimal_read("7.5");
        pl_number_range_min(&range, &low, turn == 0);
        pl_number_range_min(&range, &low, turn == 1);
        pl_number_range_min(&range, &lower, true);
        pl_number_range_max(&range, &high, turn == 0);
        pl_number_range_max(&range, &high, turn == 1);
        pl_number_range_max(&range, &higher, true);
        pl_matcher *matcher = matcher_for(&range, true);
        cr_expect(matches(matcher, "3") && matches(matcher, "6"));
        cr_expect(!matches(matcher, "2") && !matches(matcher, "7"));
        pl_matcher_free(matcher);
    }
}

static int order(const char *a, const char *b)
{
    pl_decimal x = pl_decimal_read(a), y = pl_decimal_read(b);
    return pl_decimal_compare(&x, &y);
}

Test(number_range, decimals)
{
    cr_expect_eq(order("1.5e3", "1500"), 0);
    cr_expect_eq(order("12.5e-1", "1.25"), 0);
    cr_expect_eq(order("1e-7", "0.0000001"), 0);
    cr_expect_eq(order("-0", "0.000"), 0);
    cr_expect_eq(order("0e99999999999999999999", "0"), 0);
    cr_expect_lt(order("-1e300", "-18446744073709551615"), 0);
    cr_expect_gt(order("1e300", "18446744073709551615"), 0);
    cr_expect_lt(order("-2.5", "-2.45"), 0);
    cr_expect_lt(order("0.05", "0.5"), 0);
    cr_expect_lt(order("9", "10"), 0);
}
