#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

#include "host/grammar/gbnf.h"
#include "host/grammar/matcher.h"
#include "tests/unit/fail_alloc.h"

static pl_matcher *compile(const char *text)
{
    pl_rules *rules = NULL;
    pl_matcher *matcher = NULL;
    pl_error err = {0};
    cr_assert_eq(pl_gbnf_compile(text, strlen(text), &rules, &err), PL_OK, "%s: %s", text, err.message);
    cr_assert_eq(pl_matcher_create(rules, 0, 1 << 24, &matcher, &err), PL_OK, "%s", err.message);
    return matcher;
}

static bool matches(pl_matcher *matcher, const char *text)
{
    size_t allowed = 0;
    bool ends = false;
    cr_assert_eq(pl_matcher_read(matcher, text, strlen(text), &allowed, &ends, NULL), PL_OK);
    return allowed == strlen(text) && ends;
}

typedef struct example {
    const char *grammar;
    const char *good[8], *bad[8];
} example;

static void check(const example *e)
{
    pl_matcher *m = compile(e->grammar);
    for (size_t i = 0; i < 8 && e->good[i]; i++)
        cr_assert(matches(m, e->good[i]), "%s: \"%s\" is not matched", e->grammar, e->good[i]);
    for (size_t i = 0; i < 8 && e->bad[i]; i++)
        cr_assert_not(matches(m, e->bad[i]), "%s: \"%s\" is matched", e->grammar, e->bad[i]);
    pl_matcher_free(m);
}

Test(gbnf, notation)
{
    static const example examples[] = {
        {"root ::= \"yes\" | \"no\"", {"yes", "no"}, {"", "ye", "yesno"}},
        {"root ::= \"a\" \"b\"*", {"a", "ab", "abbb"}, {"", "b", "aa"}},
        {"root ::= \"ab\"+", {"ab", "abab"}, {"", "abb", "aba"}},
        {"root ::= \"ab\"? [c]", {"abc", "c"}, {"ac", "ababc"}},
        {"root ::= ( \"a\" | \"b\" [0-9] ){2}", {"aa", "b1a", "b1b2"}, {"a", "ab", "aaa"}},
        {"root ::= \"a\"{2,}", {"aa", "aaaaa"}, {"a"}},
        {"root ::= \"a\"{,2}", {"", "a", "aa"}, {"aaa"}},
        {"root ::= \"a\"{ 1 , 2 }", {"a", "aa"}, {"", "aaa"}},
        {"root ::= \"a\"{0}\"b\"", {"b"}, {"ab"}},
        {"root ::= [^a-c\\n]", {"d", "\xc3\xa9", "\xf0\x9f\x98\x80"}, {"a", "c", "\n", "", "dd"}},
        {"root ::= [a\\-z]", {"a", "-", "z"}, {"b"}},
        {"root ::= [az-]", {"a", "-", "z"}, {"b"}},
        {"root ::= [\\]\\[\\\\]", {"]", "[", "\\"}, {"a"}},
        {"root ::= [+*?{}|()\".]+", {"+*?{}|()\"."}, {"a"}},
        {"root ::= . .", {"ab", "\n\n", "\xc3\xa9\xe6\x97\xa5"}, {"a", "abc", "\xc3\xa9"}},
        {"root ::= \"\\x41\\u00e9\\U0001F600\\t\\\"\\\\\"", {"A\xc3\xa9\xf0\x9f\x98\x80\t\"\\"}, {"A"}},
        {"root ::= [\xe3\x81\x81-\xe3\x82\x9f]+", {"\xe3\x81\x82\xe3\x81\x84"}, {"a", "\xe3\x82\xa2"}},
        {"root ::= \"\" | \"a\" | ", {"", "a"}, {"b"}},
        {"root ::= \"\"* \"a\"", {"a"}, {""}},
        {"root ::= (\"a\"? \"b\"?){2,3} \".\"", {".", "a.", "abab.", "ababab.", "bbb."}, {"abababa.", "bbbb.", ""}},
        {"# words\n\n  root ::= a-b # here\r\n\r\na-b ::= \"x\" |\n   # there\n  \"y\"\n", {"x", "y"}, {"xy"}},
        {"root ::=\n  \"a\" (\n \"b\" # in a group\n\n | \"c\"\n) _d1\n_d1 ::= \"d\"", {"abd", "acd"}, {"ad"}},
        {"root ::= \"(\" root? \")\"", {"()", "((()))"}, {"", "(", "(()"}},
    };
    for (size_t i = 0; i < sizeof examples / sizeof *examples; i++)
        check(&examples[i]);
}

Test(gbnf, grammars_as_people_write_them)
{
    static const example arithmetic = {
        "root  ::= (expr \"=\" ws term \"\\n\")+\nexpr  ::= term ([-+*/] term)*\n"
        "term  ::= ident | num | \"(\" ws expr \")\" ws\nident ::= [a-z] [a-z0-9_]* ws\nnum   ::= [0-9]+ ws\n"
        "ws    ::= [ \\t\\n]*\n",
        {"1+2=3\n", "(a1 +2) *b = 3\n4=x\n\n", "((1))=1\n"},
        {"1+=2\n", "1+2=3", "=1\n", "(1=2\n", ""}};
    static const example chess = {
        "root    ::= \"1. \" move \" \" move \"\\n\" ([1-9] [0-9]? \". \" move \" \" move \"\\n\")+\n"
        "move    ::= (pawn | nonpawn | castle) [+#]?\nnonpawn ::= [NBKQR] [a-h]? [1-8]? \"x\"? [a-h] [1-8]\n"
        "pawn    ::= ([a-h] \"x\")? [a-h] [1-8] (\"=\" [NBKQR])?\ncastle  ::= \"O-O\" \"-O\"?\n",
        {"1. e4 e5\n2. Nf3 Nc6\n", "1. d4 d5\n2. exd5 Qxd5+\n3. O-O O-O-O\n", "1. a8=Q# Rab1\n10. Nbd2 h6\n"},
        {"1. e4 e5\n", "1. e9 e5\n2. a1 a1\n", "2. e4 e5\n2. a1 a1\n"}};
    static const example json = {
        "root   ::= object\nvalue  ::= object | array | string | number | (\"true\" | \"false\" | \"null\") ws\n\n"
        "object ::=\n  \"{\" ws (\n            string \":\" ws value\n    (\",\" ws string \":\" ws value)*\n  )? \"}\" ws\n\n"
        "array  ::=\n  \"[\" ws (\n            value\n    (\",\" ws value)*\n  )? \"]\" ws\n\n"
        "string ::=\n  \"\\\"\" (\n    [^\"\\\\\\x7F\\x00-\\x1F] |\n"
        "    \"\\\\\" ([\"\\\\bfnrt] | \"u\" [0-9a-fA-F]{4}) # escapes\n  )* \"\\\"\" ws\n\n"
        "number ::= (\"-\"? ([0-9] | [1-9] [0-9]{0,15})) (\".\" [0-9]+)? ([eE] [-+]? [0-9] [1-9]{0,15})? ws\n\n"
        "# Optional space\nws ::= | \" \" | \"\\n\" [ \\t]{0,20}\n",
        {"{}", "{ \"a\": [1, -2.5e+3, true], \"\xc3\xa9\": {\"x\": null}}\n   ", "{\"a\\n\\u00e9\\\"\": \"\"}"},
        {"[]", "{", "{\"a\"}", "{\"a\":01}", "{\"a\":\"\n\"}", "{\"a\":1,}", "{\"\\x\":1}"}};
    static const example list = {"root ::= item+\n\n# Excludes various line break characters\n"
                                 "item ::= \"- \" [^\\r\\n\\x0b\\x0c\\x85\\u2028\\u2029]+ \"\\n\"\n",
                                 {"- a\n", "- a b\n- \xe6\x97\xa5\n"},
                                 {"", "- \n", "- a", "- a\x0b\n", "- \xe2\x80\xa8\n", "- \xc2\x85\n"}};
    check(&arithmetic);
    check(&chess);
    check(&json);
    check(&list);
}

Test(gbnf, mistakes_are_told_with_their_place)
{
    static const struct {
        const char *text, *message;
        pl_status status;
    } cases[] = {
        {"", "there is no rule named root", PL_ERR_ARGUMENT},
        {"a ::= \"a\"", "there is no rule named root", PL_ERR_ARGUMENT},
        {"root ::= \"a\"\nroot = b", "line 2, column 6: expected '::='", PL_ERR_ARGUMENT},
        {"root ::= \"a\"\n::= b", "line 2, column 1: expected the name of a rule", PL_ERR_ARGUMENT},
        {"root ::= \"a\"\n\nroot ::= \"b\"", "line 3, column 1: this rule has been given before", PL_ERR_ARGUMENT},
        {"root ::= \"a\" b\n", "line 1, column 14: there is no rule of this name", PL_ERR_ARGUMENT},
        {"root ::= \"abc", "line 1, column 10: this string has no end", PL_ERR_ARGUMENT},
        {"root ::= \"\xc3\xa9\" [a", "line 1, column 14: this class has no end", PL_ERR_ARGUMENT},
        {"root ::= []", "line 1, column 10: this class has no characters", PL_ERR_ARGUMENT},
        {"root ::= [z-a]", "line 1, column 11: the end of this range is before its beginning", PL_ERR_ARGUMENT},
        {"root ::= \"\\q\"", "line 1, column 11: there is no such escape", PL_ERR_ARGUMENT},
        {"root ::= \"\\x4g\"", "line 1, column 14: expected a hexadecimal digit", PL_ERR_ARGUMENT},
        {"root ::= \"\\ud800\"", "line 1, column 11: this is no character", PL_ERR_ARGUMENT},
        {"root ::= \"\\U00110000\"", "line 1, column 11: this is no character", PL_ERR_ARGUMENT},
        {"root ::= \"a\xff\"", "line 1, column 12: this is not UTF-8", PL_ERR_ARGUMENT},
        {"root ::= (\"a\"", "line 1, column 14: expected ')'", PL_ERR_ARGUMENT},
        {"root ::= \"a\")", "line 1, column 13: expected a string, a class, a rule or the end of the line",
         PL_ERR_ARGUMENT},
        {"root ::= | *", "line 1, column 12: there is nothing here to repeat", PL_ERR_ARGUMENT},
        {"root ::= \"a\"{3,2}", "line 1, column 13: the most of these repetitions are fewer than the least",
         PL_ERR_ARGUMENT},
        {"root ::= \"a\"{x}", "line 1, column 14: expected a number", PL_ERR_ARGUMENT},
        {"root ::= \"a\"{1,2", "line 1, column 17: expected '}'", PL_ERR_ARGUMENT},
        {"root ::= \"a\"{99999}", "line 1, column 14: repetitions are counted up to 65535", PL_ERR_UNSUPPORTED},
        {"root ::= <think>", "line 1, column 10: single tokens cannot be named here", PL_ERR_UNSUPPORTED},
        {"root ::= b\nb ::= (\"x\"? b)", "rule b begins with itself (left recursion)", PL_ERR_UNSUPPORTED},
        {"root ::= b\nb ::= \"x\" b", "the grammar can never be fulfilled: rule root matches nothing", PL_ERR_ARGUMENT},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        pl_rules *rules = NULL;
        pl_error err = {0};
        cr_assert_eq(pl_gbnf_compile(cases[i].text, strlen(cases[i].text), &rules, &err), cases[i].status, "%s",
                     cases[i].text);
        cr_assert_str_eq(err.message, cases[i].message);
        cr_assert_null(rules);
    }
}

Test(gbnf, groups_in_groups)
{
    static char text[4000];
    for (size_t depth = 400; depth <= 600; depth += 200) {
        pl_rules *rules = NULL;
        pl_error err = {0};
        strcpy(text, "root ::= ");
        memset(text + 9, '(', depth);
        text[9 + depth] = '.';
        memset(text + 10 + depth, ')', depth);
        pl_status status = pl_gbnf_compile(text, 10 + 2 * depth, &rules, &err);
        cr_assert_eq(status, depth == 400 ? PL_OK : PL_ERR_UNSUPPORTED, "%s", err.message);
        pl_rules_free(rules);
    }
}

static pl_status build(void *ctx, pl_error *err)
{
    pl_rules *rules = NULL;
    pl_status status = pl_gbnf_compile(ctx, strlen(ctx), &rules, err);
    pl_rules_free(rules);
    return status;
}

Test(gbnf, no_memory)
{
    static char text[] = "root ::= (\"a\" b [^c-\xc3\xa9] | \"\xc3\xa9\"{2,3})* | b\nb ::= \"b\"? . [a]";
    cr_assert_gt(fail_alloc_each(build, text), 20);
}
