/* Regular expressions: what they match was taken from Python's re where the two agree, else from ECMA-262. */
#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

#include "host/grammar/regex.h"
#include "tests/unit/fail_alloc.h"
#include "tests/unit/matches.h"
#include "tests/unit/scratch.h"

#define MOST 8

typedef struct expression {
    const char *text;
    const char *yes[MOST], *no[MOST];
} expression;

static const expression whole[] = {
    {"", {""}, {"a"}},
    {"abc", {"abc"}, {"", "ab", "abcd", "xabc"}},
    {"a|bc|", {"a", "bc", ""}, {"b", "abc"}},
    {"a*", {"", "a", "aaaa"}, {"b", "ab"}},
    {"a+?b??", {"a", "aab", "ab"}, {"", "b", "abb"}},
    {"(?:ab){2}", {"abab"}, {"ab", "ababab"}},
    {"(a|b){1,3}c{2,}", {"acc", "babccc"}, {"cc", "abc", "ababcc"}},
    {"(?<year>\\d{4})-(?P<month>\\d\\d)", {"2024-02"}, {"2024-2", "2024-0a"}},
    {"[a-c-]+", {"a-c", "-"}, {"d", ""}},
    {"[^a-c\\n]", {"d", "\xc3\xa9", "\xf0\x9f\x98\x80"}, {"a", "\n", "", "dd"}},
    {"[\\]\\\\^]+", {"]\\^"}, {"["}},
    {"[\\w.-]+@[\\d]", {"a.b-C_9@1"}, {"@1", "a@b", "\xc3\xa9@1"}},
    {"\\W\\D\\S", {" aa", "\xc3\xa9 a"}, {"aaa", " 1a", " a "}},
    {"\\s", {" ", "\t", "\n", "\xc2\xa0", "\xe2\x80\xa8", "\xef\xbb\xbf"}, {"a", "\x1c", ""}},
    {".",
     {"a", " ", "\xe2\x82\xac", "\xf0\x9f\x98\x80"},
     {"\n", "\r", "\xe2\x80\xa8", "", "ab", "\xff", "\xed\xa0\x80"}},
    {"\\x41\\u0042\\u{1F600}\\ud83d\\ude00\\cJ", {"AB\xf0\x9f\x98\x80\xf0\x9f\x98\x80\n"}, {"AB"}},
    {"\\.\\*\\/\\-\\\xc3\xa9", {".*/-\xc3\xa9"}, {"a*/-\xc3\xa9"}},
    {"a{x}{,b]}", {"a{x}{,b]}"}, {"a"}},
    {"^ab$", {"ab"}, {"^ab$", "a"}},
    {"(^a$)|^(b|c)$|d", {"a", "b", "c", "d"}, {"", "ab"}},
    {"[\xe2\x82\xac-\xf0\x9f\x98\x80]", {"\xe2\x82\xac", "\xef\xbf\xbd"}, {"a", "\xed\xa0\x80", "\xf0\x9f\x98\x81"}},
    {"((a?)*b?)*", {"", "aab", "ba"}, {"c"}},
    {"a{0}b", {"b"}, {"ab"}},
};

static const expression in_json[] = {
    {"b", {"b", "abc", "\\\"b\\n"}, {"", "ac", "b\"", "b\\", "b\n", "\\u0062"}},
    {"^b", {"b", "bc"}, {"ab"}},
    {"b$", {"b", "ab"}, {"bc"}},
    {"^[\"\\\\\\n]$", {"\\\"", "\\\\", "\\n"}, {"\"", "\\", "n", "\\u000a"}},
    {"^[\\x00-\\x1f]$", {"\\u0000", "\\b", "\\t", "\\u000b", "\\u001f"}, {"\\u0008", "\\u001F", "\x01", " "}},
    {"^a|b$|^c$", {"ax", "xb", "c"}, {"xa", "bx", "xc", "cx"}},
    {"^(a$|b)", {"a", "bx"}, {"ax", "xb"}},
    {"", {"", "a\\\"", "\\u0001"}, {"\"", "\\u0041", "\\/"}},
};

static void check(const expression *e, pl_regex_use use)
{
    pl_rules *rules;
    pl_error err = {0};
    int32_t rule;
    cr_assert_eq(pl_rules_create(&rules, &err), PL_OK);
    cr_assert_eq(pl_regex_add(rules, e->text, strlen(e->text), use, &rule, &err), PL_OK, "%s: %s", e->text,
                 err.message);
    cr_assert_eq(pl_rules_finish(rules, rule, NULL, NULL, &err), PL_OK, "%s: %s", e->text, err.message);
    pl_matcher *matcher = matcher_of(rules);
    for (int i = 0; i < MOST; i++) {
        cr_expect(!e->yes[i] || matches(matcher, e->yes[i]), "%s does not match \"%s\"", e->text, e->yes[i]);
        cr_expect(!e->no[i] || !matches(matcher, e->no[i]), "%s matches \"%s\"", e->text, e->no[i]);
    }
    pl_matcher_free(matcher);
}

Test(regex, whole)
{
    for (size_t i = 0; i < sizeof whole / sizeof *whole; i++)
        check(&whole[i], PL_REGEX_WHOLE);
}

Test(regex, in_json)
{
    for (size_t i = 0; i < sizeof in_json / sizeof *in_json; i++)
        check(&in_json[i], PL_REGEX_IN_JSON);
}

Test(regex, zero_byte)
{
    static const char text[] = "\\0[^\\x00]", zero_a[] = {0, 'a'}, zeros[] = {0, 0};
    pl_rules *rules;
    pl_error err = {0};
    cr_assert_eq(pl_regex_compile(text, strlen(text), &rules, &err), PL_OK, "%s", err.message);
    pl_matcher *matcher = matcher_of(rules);
    cr_expect(matches_text(matcher, zero_a, 2));
    cr_expect(!matches_text(matcher, zeros, 2));
    pl_matcher_free(matcher);
}

/* ---- lengths ---- */

static pl_status sized(const char *text, int64_t min, int64_t max, pl_matcher **matcher, pl_error *err)
{
    pl_rules *rules;
    int32_t rule;
    cr_assert_eq(pl_rules_create(&rules, err), PL_OK);
    pl_status status = pl_regex_add_sized(rules, text, strlen(text), PL_REGEX_IN_JSON, min, max, &rule, err);
    if (status == PL_OK)
        status = pl_rules_finish(rules, rule, NULL, NULL, err);
    if (status == PL_OK)
        *matcher = matcher_of(rules);
    else
        pl_rules_free(rules);
    return status;
}

Test(regex, lengths)
{
    static const struct {
        const char *text;
        int min, max;
        const char *yes[4], *no[4];
    } cases[] = {
        {"^[a-z]+$", 3, 5, {"abc", "abcde"}, {"ab", "abcdef", "ABC"}},
        {"^[a-z]*$", 0, 2, {"", "ab"}, {"abc"}},
        {"^x-[a-z]+$", 4, -1, {"x-ab", "x-abcdef"}, {"x-a"}},
        {"^[A-Z]", 2, 3, {"Ab", "A12"}, {"A", "A123", "ab"}},
        {"[A-Z]$", 2, 3, {"bA", "12A"}, {"A", "123A"}},
        {"^(a|bb|ccc)$", 2, 3, {"ccc", "bb"}, {"a", "dddd"}},
        {"^a{2,9}$|^b{2,9}$", 3, 4, {"aaa", "bbbb"}, {"aa", "bbbbb"}},
        {"^yes$|^certainly$", 0, 5, {"yes"}, {"certainly"}},
        {"^.{2}$", 2, 2, {"\xf0\x9f\x98\x80\\\""}, {"a", "abc"}},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        pl_matcher *matcher = NULL;
        pl_error err = {0};
        cr_assert_eq(sized(cases[i].text, cases[i].min, cases[i].max, &matcher, &err), PL_OK, "%s: %s", cases[i].text,
                     err.message);
        for (int k = 0; k < 4; k++) {
            cr_expect(!cases[i].yes[k] || matches(matcher, cases[i].yes[k]), "%s: %s", cases[i].text, cases[i].yes[k]);
            cr_expect(!cases[i].no[k] || !matches(matcher, cases[i].no[k]), "%s: %s", cases[i].text, cases[i].no[k]);
        }
        pl_matcher_free(matcher);
    }
}

Test(regex, lengths_refused)
{
    static const char *const texts[] = {"^a*b*$", "^(a|bb)x$", "b", "^(ab)*$", "^a{70000,}$"};
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        pl_matcher *matcher;
        pl_error err = {0};
        expect_failure(sized(texts[i], 3, 4, &matcher, &err), PL_ERR_UNSUPPORTED, &err,
                       WORDS(i < 4 ? "length" : "65535"));
    }
}

/* ---- what is refused ---- */

static const struct {
    const char *text;
    pl_status status;
    const char *message;
} refused[] = {
    {"a(?=b)", PL_ERR_UNSUPPORTED, "character 2: look-around"},
    {"a(?!b)", PL_ERR_UNSUPPORTED, "character 2: look-around"},
    {"(?<=a)b", PL_ERR_UNSUPPORTED, "character 1: look-around"},
    {"(?<!a)b", PL_ERR_UNSUPPORTED, "character 1: look-around"},
    {"(?i)a", PL_ERR_UNSUPPORTED, "character 1: this kind of group"},
    {"(?>a)", PL_ERR_UNSUPPORTED, "character 1: this kind of group"},
    {"(a)\\1", PL_ERR_UNSUPPORTED, "character 4: a back-reference"},
    {"\xc3\xa9\\b", PL_ERR_UNSUPPORTED, "character 2: \\b"},
    {"\\p{L}", PL_ERR_UNSUPPORTED, "character 1: \\p"},
    {"\\k<a>", PL_ERR_UNSUPPORTED, "character 1: \\k"},
    {"[\\B]", PL_ERR_UNSUPPORTED, "character 2: \\B"},
    {"\\ud800", PL_ERR_UNSUPPORTED, "surrogate"},
    {"[]a]", PL_ERR_UNSUPPORTED, "character 1: a class that begins with ]"},
    {"[^]", PL_ERR_UNSUPPORTED, "character 1: a class"},
    {"a{,3}", PL_ERR_UNSUPPORTED, "character 2: {,n}"},
    {"a{70000}", PL_ERR_UNSUPPORTED, "character 3: a repetition of more than 65535"},
    {"a{1,99999999999999999999}", PL_ERR_UNSUPPORTED, "character 5: a repetition"},
    {"a^b", PL_ERR_UNSUPPORTED, "character 2: ^"},
    {"a$b", PL_ERR_UNSUPPORTED, "character 2: $"},
    {"(^a)b", PL_ERR_UNSUPPORTED, "character 2: ^"},
    {"*a", PL_ERR_ARGUMENT, "character 1: there is nothing to repeat"},
    {"a**", PL_ERR_ARGUMENT, "character 3: there is nothing to repeat"},
    {"a{2}{3}", PL_ERR_ARGUMENT, "character 5: there is nothing to repeat"},
    {"(|+)", PL_ERR_ARGUMENT, "character 3: there is nothing to repeat"},
    {"^*", PL_ERR_ARGUMENT, "character 2: ^ and $ cannot be repeated"},
    {"(a", PL_ERR_ARGUMENT, "character 1: the group has no end"},
    {"a)", PL_ERR_ARGUMENT, "character 2: a ) without its ("},
    {"[a", PL_ERR_ARGUMENT, "character 1: the class has no end"},
    {"[a-", PL_ERR_ARGUMENT, "character 1: the class has no end"},
    {"[b-a]", PL_ERR_ARGUMENT, "character 2: the range"},
    {"[a-\\d]", PL_ERR_ARGUMENT, "character 2: the range"},
    {"a\\", PL_ERR_ARGUMENT, "character 2: nothing follows the backslash"},
    {"\\x4", PL_ERR_ARGUMENT, "character 1: \\x needs"},
    {"\\u12g4", PL_ERR_ARGUMENT, "character 1: \\u needs"},
    {"\\u{110000}", PL_ERR_ARGUMENT, "character 1: \\u{ needs"},
    {"\\c1", PL_ERR_ARGUMENT, "character 1: \\c needs"},
    {"a{3,2}", PL_ERR_ARGUMENT, "character 2: the bounds of the repetition are out of order"},
    {"a{1,2,3}", PL_ERR_ARGUMENT, "character 2: a repetition is"},
    {"(?<a", PL_ERR_ARGUMENT, "character 1: the group's name"},
    {"\xff", PL_ERR_ARGUMENT, "not UTF-8"},
    {"[^\\s\\S]", PL_ERR_ARGUMENT, "matches nothing"},
};

Test(regex, refused)
{
    for (size_t i = 0; i < sizeof refused / sizeof *refused; i++) {
        pl_rules *rules;
        pl_error err = {0};
        size_t n = strlen(refused[i].text);
        char *text = (char *)exact_copy(refused[i].text, n);
        expect_failure(pl_regex_compile(text, n, &rules, &err), refused[i].status, &err, WORDS(refused[i].message));
        free(text);
    }
}

Test(regex, too_deep_or_long)
{
    static char text[70000];
    pl_rules *rules;
    pl_error err = {0};
    memset(text, '(', sizeof text);
    expect_failure(pl_regex_compile(text, 1000, &rules, &err), PL_ERR_UNSUPPORTED, &err, WORDS("groups within"));
    expect_failure(pl_regex_compile(text, sizeof text, &rules, &err), PL_ERR_UNSUPPORTED, &err, WORDS("65536 bytes"));
}

static pl_status compile_all(void *ctx, pl_error *err)
{
    static const char text[] = "^([^a-c\"]+|\\d{2,3}(x|y)*)?z$";
    pl_rules *rules = NULL;
    int32_t rule;
    (void)ctx;
    PL_TRY(pl_rules_create(&rules, err));
    pl_status status = pl_regex_add(rules, text, strlen(text), PL_REGEX_IN_JSON, &rule, err);
    if (status == PL_OK)
        status = pl_rules_finish(rules, rule, NULL, NULL, err);
    pl_rules_free(rules);
    return status;
}

Test(regex, no_memory)
{
    cr_expect_gt(fail_alloc_each(compile_all, NULL), 10);
}
