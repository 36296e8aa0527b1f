#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "host/grammar/matcher.h"
#include "tests/unit/fail_alloc.h"

static pl_rules *create(int32_t n)
{
    pl_rules *rules = NULL;
    cr_assert_eq(pl_rules_create(&rules, NULL), PL_OK);
    for (int32_t i = 0; i < n; i++)
        cr_assert_eq(pl_rules_new(rules), i);
    return rules;
}

static pl_matcher *finish(pl_rules *rules)
{
    pl_matcher *matcher = NULL;
    pl_error err = {0};
    cr_assert_eq(pl_rules_finish(rules, 0, NULL, NULL, &err), PL_OK, "%s", err.message);
    cr_assert_eq(pl_matcher_create(rules, 0, 1 << 26, &matcher, &err), PL_OK, "%s", err.message);
    return matcher;
}

static bool matches(pl_matcher *matcher, const char *text, size_t n)
{
    size_t allowed = 0;
    bool ends = false;
    cr_assert_eq(pl_matcher_read(matcher, text, n, &allowed, &ends, NULL), PL_OK);
    return allowed == n && ends;
}

static bool is(pl_matcher *matcher, const char *text)
{
    return matches(matcher, text, strlen(text));
}

static void expect_failure(pl_rules *rules, pl_status status, const char *message)
{
    pl_error err = {0};
    cr_assert_eq(pl_rules_finish(rules, 0, NULL, NULL, &err), status, "%s", err.message);
    cr_assert_str_eq(err.message, message);
    pl_rules_free(rules);
}

/* The bytes of a code point as UTF-8 would have them, also of those that are none. */
static size_t encode(uint32_t c, char out[4])
{
    size_t n = c < 0x80 ? 1 : c < 0x800 ? 2 : c < 0x10000 ? 3 : 4;
    static const unsigned lead[] = {0, 0, 0xc0, 0xe0, 0xf0};
    for (size_t i = n - 1; i > 0; i--, c >>= 6)
        out[i] = (char)(0x80 | (c & 0x3f));
    out[0] = (char)(lead[n] | c);
    return n;
}

Test(rules, characters_are_those_of_the_ranges)
{
    static const pl_code_range cases[][3] = {
        {{0, 0x10ffff}},
        {{'a', 'z'}, {'0', '9'}, {'_', '_'}},
        {{0x7f, 0x80}, {0x7ff, 0x800}, {0xffff, 0x10000}},
        {{0xe9, 0xe9}, {0x3041, 0x309f}, {0x1f600, 0x1f64f}},
        {{0xd000, 0xe010}, {0xfff0, 0x1000f}, {0x1, 0x1}},
        {{0x12345, 0xabcde}, {'x', 'x'}, {0x10ffff, 0x10ffff}},
        {{0x900, 0x8ff}, {'b', 'd'}, {'c', 'f'}},
    };
    for (size_t k = 0; k < 2 * (sizeof cases / sizeof *cases); k++) {
        const pl_code_range *ranges = cases[k / 2];
        size_t n = ranges[1].last ? 3 : 1;
        pl_rules *rules = create(1);
        pl_rules_alternative(rules, 0);
        pl_rules_chars(rules, ranges, n, k & 1);
        pl_error err = {0};
        if (k == 1) { /* nothing but what is no character */
            expect_failure(rules, PL_ERR_ARGUMENT, "the grammar can never be fulfilled: rule number 0 matches nothing");
            continue;
        }
        cr_assert_eq(pl_rules_finish(rules, 0, NULL, NULL, &err), PL_OK, "%s", err.message);
        pl_matcher *matcher = NULL;
        cr_assert_eq(pl_matcher_create(rules, 0, 1 << 26, &matcher, NULL), PL_OK);
        for (uint32_t c = 0; c <= 0x110010; c++) {
            char text[4];
            bool in = false;
            for (size_t i = 0; i < n; i++)
                in |= c >= ranges[i].first && c <= ranges[i].last;
            in = in != (k & 1) && c <= 0x10ffff && !(c >= 0xd800 && c <= 0xdfff);
            cr_assert_eq(matches(matcher, text, encode(c, text)), in, "case %zu, U+%04X", k, c);
        }
        cr_assert(!is(matcher, "\xc0\xaf") && !is(matcher, "\xe0\x80\xaf") && !is(matcher, "\xf0\x80\x80\xaf"),
                  "overlong");
        pl_matcher_free(matcher);
    }
}

Test(rules, repetitions_of_what_may_be_empty)
{
    /* root ::= x{3,5} "." ; x ::= y* ; y ::= "a" | "" | z{2,2} ; z ::= | "b" */
    pl_rules *rules = create(4);
    pl_rules_alternative(rules, 0);
    pl_rules_repeat(rules, 1, 3, 5);
    pl_rules_literal(rules, ".", 1);
    pl_rules_alternative(rules, 1);
    pl_rules_repeat(rules, 2, 0, PL_RULES_ANY);
    pl_rules_alternative(rules, 2);
    pl_rules_literal(rules, "a", 1);
    pl_rules_alternative(rules, 2);
    pl_rules_alternative(rules, 2);
    pl_rules_repeat(rules, 3, 2, 2);
    pl_rules_alternative(rules, 3);
    pl_rules_alternative(rules, 3);
    pl_rules_literal(rules, "b", 1);
    pl_matcher *matcher = finish(rules);
    cr_assert(is(matcher, ".") && is(matcher, "a.") && is(matcher, "bbbabab.") && is(matcher, "aaaaaaaaaaaaa."));
    cr_assert(!is(matcher, "") && !is(matcher, "c.") && !is(matcher, ".."));
    pl_matcher_free(matcher);
}

Test(rules, rounds_of_nothing_cost_nothing)
{
    /* root ::= x{0,65535} "." ; x ::= "a"{0,65535} */
    pl_rules *rules = create(3);
    pl_rules_alternative(rules, 0);
    pl_rules_repeat(rules, 1, 0, PL_RULES_MOST);
    pl_rules_literal(rules, ".", 1);
    pl_rules_alternative(rules, 1);
    pl_rules_repeat(rules, 2, 0, PL_RULES_MOST);
    pl_rules_alternative(rules, 2);
    pl_rules_literal(rules, "a", 1);
    pl_matcher *matcher = finish(rules);
    cr_assert(is(matcher, ".") && is(matcher, "a.") && !is(matcher, "ab."));
    cr_assert_lt(matcher->n_nodes, 40);
    pl_matcher_free(matcher);
}

Test(rules, repetitions_keep_their_bounds)
{
    static const struct {
        int32_t min, max;
    } cases[] = {{0, 0}, {0, 1}, {1, 1}, {2, 5}, {7, 7}, {3, PL_RULES_ANY}, {0, PL_RULES_ANY}, {1000, 2000}};
    for (size_t k = 0; k < sizeof cases / sizeof *cases; k++) {
        char text[2 * 2100 + 2];
        pl_rules *rules = create(2);
        pl_rules_alternative(rules, 0);
        pl_rules_repeat(rules, 1, cases[k].min, cases[k].max);
        pl_rules_literal(rules, "b", 1);
        pl_rules_alternative(rules, 1);
        pl_rules_literal(rules, "ab", 2);
        pl_matcher *matcher = finish(rules);
        for (int32_t n = 0; n < 2050; n++) {
            for (int32_t i = 0; i < n; i++)
                memcpy(text + 2 * i, "ab", 2);
            text[2 * n] = 'b';
            bool in = n >= cases[k].min && (cases[k].max == PL_RULES_ANY || n <= cases[k].max);
            cr_assert_eq(matches(matcher, text, 2 * (size_t)n + 1), in, "%d of {%d,%d}", n, cases[k].min, cases[k].max);
            n += n > 20 && n < 990 ? 97 : 0;
        }
        pl_matcher_free(matcher);
    }
}

Test(rules, what_cannot_match_is_left_out)
{
    /* root ::= "a" dead | "b" dead{0,3} | dead{1,2} ; dead ::= "x" dead */
    pl_rules *rules = create(2);
    pl_rules_alternative(rules, 0);
    pl_rules_literal(rules, "a", 1);
    pl_rules_refer(rules, 1);
    pl_rules_alternative(rules, 0);
    pl_rules_literal(rules, "b", 1);
    pl_rules_repeat(rules, 1, 0, 3);
    pl_rules_alternative(rules, 0);
    pl_rules_repeat(rules, 1, 1, 2);
    pl_rules_alternative(rules, 1);
    pl_rules_literal(rules, "x", 1);
    pl_rules_refer(rules, 1);
    pl_matcher *matcher = finish(rules);
    cr_assert_eq(pl_matcher_step(matcher, PL_STATE_START, 'a'), PL_STATE_DEAD);
    cr_assert_eq(pl_matcher_step(matcher, PL_STATE_START, 'x'), PL_STATE_DEAD);
    cr_assert(is(matcher, "b") && !is(matcher, "bx"));
    pl_matcher_free(matcher);
}

static const char *name_of(void *user, int32_t rule)
{
    return ((const char *const *)user)[rule];
}

Test(rules, left_recursion_is_told_by_name)
{
    static const char *names[] = {"root", "empty", "inner"};
    for (int k = 0; k < 3; k++) {
        pl_rules *rules = create(3);
        pl_error err = {0};
        pl_rules_alternative(rules, 0);
        pl_rules_refer(rules, 1);
        pl_rules_refer(rules, 2);
        pl_rules_alternative(rules, 1); /* empty */
        pl_rules_alternative(rules, 2);
        pl_rules_literal(rules, "x", 1);
        pl_rules_alternative(rules, 2);
        if (k == 2)
            pl_rules_literal(rules, "(", 1);
        if (k == 1)
            pl_rules_repeat(rules, 0, 0, 2);
        else
            pl_rules_refer(rules, 0);
        pl_rules_literal(rules, "y", 1);
        pl_status status = pl_rules_finish(rules, 0, name_of, names, &err);
        cr_assert_eq(status, k == 2 ? PL_OK : PL_ERR_UNSUPPORTED, "%s", err.message);
        if (k < 2)
            cr_assert_str_eq(err.message, "rule inner begins with itself (left recursion)");
        pl_rules_free(rules);
    }
}

Test(rules, mistakes)
{
    expect_failure(create(0), PL_ERR_ARGUMENT, "the grammar has no rule number 0 to begin with");
    expect_failure(create(1), PL_ERR_ARGUMENT, "the grammar can never be fulfilled: rule number 0 matches nothing");
    pl_rules *rules = create(1);
    pl_rules_alternative(rules, 0);
    pl_rules_refer(rules, 3);
    expect_failure(rules, PL_ERR_ARGUMENT, "rule number 3 is referred to, there are 1");
    rules = create(1);
    pl_rules_alternative(rules, 7);
    expect_failure(rules, PL_ERR_ARGUMENT, "an alternative of rule number 7, of 1 rules");
    rules = create(1);
    pl_rules_alternative(rules, 0);
    pl_rules_repeat(rules, 0, 3, 2);
    expect_failure(rules, PL_ERR_ARGUMENT, "a repetition's bounds are out of order or too large");
    rules = create(1);
    pl_rules_alternative(rules, 0);
    pl_byte_set none = {{0}};
    pl_rules_bytes(rules, &none);
    expect_failure(rules, PL_ERR_ARGUMENT, "the grammar can never be fulfilled: rule number 0 matches nothing");
    rules = create(1);
    pl_rules_alternative(rules, 0);
    for (int i = 0; i <= PL_RULES_ITEMS; i++)
        pl_rules_literal(rules, "a", 1);
    expect_failure(rules, PL_ERR_UNSUPPORTED, "the grammar is too large");
}

static pl_status build(void *ctx, pl_error *err)
{
    (void)ctx;
    static const pl_code_range range = {'a', 0x1234};
    pl_rules *rules = NULL;
    PL_TRY(pl_rules_create(&rules, err));
    int32_t root = pl_rules_new(rules), words = pl_rules_new(rules);
    pl_rules_alternative(rules, root);
    pl_rules_repeat(rules, words, 1, PL_RULES_ANY);
    for (int i = 0; i < 60; i++) {
        char word[16];
        int n = snprintf(word, sizeof word, "%x", i * 40503);
        pl_rules_alternative(rules, words);
        pl_rules_literal(rules, word, (size_t)n);
        pl_rules_chars(rules, &range, 1, i & 1);
    }
    pl_status status = pl_rules_finish(rules, root, NULL, NULL, err);
    pl_rules_free(rules);
    return status;
}

Test(rules, no_memory)
{
    cr_assert_gt(fail_alloc_each(build, NULL), 20);
}
