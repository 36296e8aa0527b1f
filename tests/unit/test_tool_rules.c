/* Answers that call functions, or are text. */
#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>

#include "host/grammar/tool_rules.h"
#include "tests/unit/fail_alloc.h"
#include "tests/unit/matches.h"
#include "tests/unit/scratch.h"

#define TOOLS                                                                                                          \
    "{\"tools\":[{\"name\":\"get_weather\",\"parameters\":{\"type\":\"object\",\"properties\":{\"city\":{\"type\":"    \
    "\"string\"},\"unit\":{\"enum\":[\"C\",\"F\"]}},\"required\":[\"city\"]}},{\"name\":\"now\"},"                     \
    "{\"name\":\"free\",\"strict\":false,\"parameters\":{\"type\":\"object\",\"not\":{}}}],"

#define WEATHER "{\"name\": \"get_weather\", \"parameters\": {\"city\": \"Paris\"}}"
#define FENCED(call) ("```json\n" call "\n```")
#define NOW "{\"name\":\"now\",\"parameters\":{}}"

static pl_matcher *matcher_for(const char *text)
{
    pl_rules *rules;
    pl_error err = {0};
    cr_assert_eq(pl_tool_rules_compile(text, strlen(text), &rules, &err), PL_OK, "%s: %s", text, err.message);
    return matcher_of(rules);
}

static void check(const char *text, const char *const *yes, const char *const *no)
{
    pl_matcher *matcher = matcher_for(text);
    for (; *yes; yes++)
        cr_expect(matches(matcher, *yes), "refused: %s", *yes);
    for (; *no; no++)
        cr_expect(!matches(matcher, *no), "accepted: %s", *no);
    pl_matcher_free(matcher);
}

Test(tool_rules, required)
{
    check(
        TOOLS "\"choice\":\"required\"}",
        WORDS(WEATHER, NOW, FENCED(WEATHER),
              "{\n  \"name\": \"get_weather\",\n  \"parameters\": {\n    \"city\": \"x\",\n    \"unit\": \"C\"\n  }\n}",
              "{\"name\":\"free\",\"parameters\":{\"a\":[1]}}"),
        WORDS("", "hello", ("[" NOW "]"), "{\"name\":\"other\",\"parameters\":{}}",
              "{\"name\":\"get_weather\",\"parameters\":{}}", "{\"name\":\"now\",\"parameters\":{\"a\":1}}",
              "{\"name\":\"now\"}", (NOW " "), (NOW NOW), ("```json\n" NOW), ("```\n" NOW "\n```"),
              "{\"name\":\"free\",\"parameters\":[]}"));
}

Test(tool_rules, several_at_once)
{
    check(TOOLS "\"choice\":\"required\",\"parallel\":true}",
          WORDS(NOW, ("[" NOW "]"), "[" NOW ", " WEATHER "]", "```json\n[\n  " NOW ",\n  " NOW "\n]\n```"),
          WORDS("[]", "[" NOW ",]", "[1]", "[" NOW));
}

Test(tool_rules, one_function)
{
    check(TOOLS "\"choice\":{\"name\":\"now\"},\"parallel\":true}", WORDS(NOW, FENCED(NOW)),
          WORDS(WEATHER, ("[" NOW "]"), "", "hello"));
}

/* No text may be what a reader of answers would take for a call. */
Test(tool_rules, or_text)
{
    static const char *const texts[] = {"",
                                        "hello",
                                        "a {\"name\":1}",
                                        " hello",
                                        "`x` {",
                                        "``` {",
                                        "```\n[1]",
                                        "```c\nint x;",
                                        "```json",
                                        "```json\n \"a\"",
                                        "\xc3\xa9{}",
                                        "```js\n{}",
                                        "```jsonc\n{}",
                                        "(",
                                        "\n\n1. {",
                                        "``{",
                                        "```json\n{}",
                                        "{",
                                        "{\"a\":1}",
                                        " {}",
                                        "[",
                                        "[1]",
                                        "\n\t[{\"a\":1}]",
                                        "```{",
                                        "```json{"};
    static const bool allowed[] = {true, true, true, true,  true,  false, false, true,  true,  true,  true,  true, true,
                                   true, true, true, false, false, false, false, false, false, false, false, false};
    pl_matcher *matcher = matcher_for(TOOLS "\"choice\":\"auto\",\"parallel\":true}");
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++)
        cr_expect_eq(matches(matcher, texts[i]), allowed[i], "%s", texts[i]);
    cr_expect(matches(matcher, WEATHER) && matches(matcher, "[" NOW "," NOW "]"));
    cr_expect(matches(matcher, "```json\n[" NOW "]\n```"));
    pl_matcher_free(matcher);
}

/* What others pass over is no reason to take nothing, unless it is asked for. */
Test(tool_rules, schemas_beyond_the_subset)
{
#define BEYOND "\"parameters\":{\"type\":\"object\",\"properties\":{\"a\":{\"type\":\"integer\"}},\"propertyNames\":{}}"
    check("{\"tools\":[{\"name\":\"f\"," BEYOND "},{\"name\":\"g\",\"strict\":null," BEYOND
          "}],\"choice\":\"required\"}",
          WORDS("{\"name\":\"f\",\"parameters\":{\"b\":[]}}", "{\"name\":\"g\",\"parameters\":{}}"),
          WORDS("{\"name\":\"f\",\"parameters\":[]}"));
}

Test(tool_rules, or_an_answer_of_a_form)
{
#define FORM "\"answer\":{\"type\":\"object\",\"properties\":{\"name\":{\"type\":\"string\"}},\"required\":[\"name\"]}}"
    check(TOOLS "\"choice\":\"auto\"," FORM, WORDS(NOW, WEATHER, "{\"name\": \"Ana\"}", "{\"name\":\"now\"}"),
          WORDS("", "hello", "[]", "{}", "{\"name\":1}"));
    check(TOOLS "\"choice\":\"required\"," FORM, WORDS(NOW), WORDS("{\"name\": \"Ana\"}", "hello"));
}

Test(tool_rules, parameters_are_objects)
{
    check(
        "{\"tools\":[{\"name\":\"f\",\"parameters\":{}},{\"name\":\"g\",\"parameters\":null}],\"choice\":\"required\"}",
        WORDS("{\"name\":\"f\",\"parameters\":{\"a\":1}}", "{\"name\":\"g\",\"parameters\":{}}"),
        WORDS("{\"name\":\"f\",\"parameters\":1}", "{\"name\":\"g\",\"parameters\":{\"a\":1}}"));
}

Test(tool_rules, refused)
{
    static const struct {
        const char *text;
        pl_status status;
        const char *message;
    } cases[] = {
        {"", PL_ERR_ARGUMENT, "tools: not JSON"},
        {"[]", PL_ERR_ARGUMENT, "\"/tools\": expected an array"},
        {"{\"tools\":[{}]}", PL_ERR_ARGUMENT, "\"/tools/0/name\""},
        {"{\"tools\":[{\"name\":\"a\"},{\"name\":\"b\",\"strict\":true,\"parameters\":{\"properties\":{\"x\":{\"not\":{}}}}}]}",
         PL_ERR_UNSUPPORTED, "\"/tools/1/parameters/properties/x/not\""},
        {"{\"tools\":[{\"name\":\"a\",\"strict\":1}]}", PL_ERR_ARGUMENT, "\"/tools/0/strict\""},
        {"{\"tools\":[],\"choice\":\"some\"}", PL_ERR_ARGUMENT, "\"/choice\""},
        {"{\"tools\":[],\"choice\":{}}", PL_ERR_ARGUMENT, "\"/choice/name\""},
        {"{\"tools\":[],\"parallel\":1}", PL_ERR_ARGUMENT, "\"/parallel\""},
        {"{\"tools\":[{\"name\":\"a\"}],\"choice\":{\"name\":\"b\"}}", PL_ERR_ARGUMENT, "no function \"b\""},
        {"{\"tools\":[],\"choice\":\"required\"}", PL_ERR_ARGUMENT, "matches nothing"},
        {"{\"tools\":[{\"name\":\"a\",\"parameters\":{\"type\":\"string\"}}],\"choice\":\"required\"}", PL_ERR_ARGUMENT,
         "matches nothing"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        pl_rules *rules;
        pl_error err = {0};
        expect_failure(pl_tool_rules_compile(cases[i].text, strlen(cases[i].text), &rules, &err), cases[i].status, &err,
                       WORDS(cases[i].message));
    }
}

Test(tool_rules, refused_forms)
{
    pl_rules *rules;
    pl_error err;
    const char *text = TOOLS "\"answer\":{\"type\":\"object\",\"odd\":1}}";
    cr_assert_eq(pl_tool_rules_compile(text, strlen(text), &rules, &err), PL_ERR_UNSUPPORTED);
    cr_assert(strstr(err.message, "/answer/odd"), "%s", err.message);
}

static pl_status compile_all(void *ctx, pl_error *err)
{
    static const char text[] = TOOLS "\"choice\":\"auto\",\"parallel\":true}";
    pl_rules *rules = NULL;
    (void)ctx;
    pl_status status = pl_tool_rules_compile(text, strlen(text), &rules, err);
    pl_rules_free(rules);
    return status;
}

Test(tool_rules, no_memory)
{
    cr_expect_gt(fail_alloc_each(compile_all, NULL), 30);
}
