#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "host/serve/tool_calls.h"

/* What a sink heard: "text|0:f(arguments)." with a dot where a call was whole; content in brackets is joined. */
typedef struct heard {
    pl_strbuf text, content;
} heard;

static void end_content(heard *h)
{
    if (h->content.n)
        pl_strbuf_printf(&h->text, "<%s>", h->content.data);
    pl_strbuf_clear(&h->content);
}

static void on_content(void *user, const char *text, size_t n)
{
    pl_strbuf_add(&((heard *)user)->content, text, n);
}

static void on_begin(void *user, int32_t index, const char *name)
{
    end_content(user);
    pl_strbuf_printf(&((heard *)user)->text, "%d:%s ", index, name);
}

static void on_arguments(void *user, int32_t index, const char *text, size_t n)
{
    (void)index;
    cr_assert_gt(n, 0);
    pl_strbuf_add(&((heard *)user)->text, text, n);
}

static void on_end(void *user, int32_t index)
{
    pl_strbuf_printf(&((heard *)user)->text, " %d.", index);
}

/* Cut into pieces of `size` bytes. */
static char *parse(const char *text, size_t size)
{
    heard h = {0};
    const pl_tool_sink sink = {&h, on_content, on_begin, on_arguments, on_end};
    pl_tool_parser parser = {0};
    size_t n = strlen(text);
    for (size_t i = 0; i < n; i += size)
        pl_tool_parse(&parser, text + i, n - i < size ? n - i : size, &sink);
    pl_tool_parse_end(&parser, &sink);
    end_content(&h);
    pl_strbuf_free(&h.content);
    char *out;
    cr_assert_eq(pl_strbuf_take(&h.text, &out, NULL, NULL), PL_OK);
    return out;
}

static const struct {
    const char *text, *heard;
} cases[] = {
    {"", ""},
    {"Hello, world!", "<Hello, world!>"},
    {"  \n", "<  \n>"},
    {"{\"name\": \"f\", \"parameters\": {}}", "0:f {} 0."},
    {"{\"name\": \"f\", \"parameters\": {\"a\": 1}}", "0:f {\"a\": 1} 0."},
    {" {\"name\":\"f\",\"arguments\":{\"a\":[{}, [\"]}\"]]}}\n", "0:f {\"a\":[{}, [\"]}\"]]} 0."},
    {"{\"name\": \"f\", \"parameters\": {\"a\": \"}\\\"}\\\\\"}}", "0:f {\"a\": \"}\\\"}\\\\\"} 0."},
    {"{\"name\": \"f\"}", "0:f {} 0."},
    {"{\"name\": \"get_\\u0077eather\", \"parameters\": {}}", "0:get_weather {} 0."},
    {"```json\n{\"name\": \"f\", \"parameters\": {}}\n```", "0:f {} 0."},
    {"```\n{\"name\": \"f\", \"parameters\": {}}\n```\n", "0:f {} 0."},
    {"[{\"name\": \"f\", \"parameters\": {}}, {\"name\": \"g\", \"parameters\": {\"x\": 2}}]",
     "0:f {} 0.1:g {\"x\": 2} 1."},
    {"```json\n[\n  {\"name\": \"f\"},\n  {\"name\": \"g\"}\n]\n```", "0:f {} 0.1:g {} 1."},
    {"{\"name\": \"f\"}\n{\"name\": \"g\"}", "0:f {} 0.1:g {} 1."},
    /* cut short */
    {"{\"name\": \"f\", \"parameters\": {\"a\": \"b", "0:f {\"a\": \"b"},
    {"{\"name\": \"f\", \"parameters\":", "<{\"name\": \"f\", \"parameters\":>"},
    {"[{\"name\": \"f\", \"parameters\": {}}, {\"na", "0:f {} 0.<{\"na>"},
    /* something else */
    {"{\"answer\": 42}", "<{\"answer\": 42}>"},
    {"{\"name\": 7}", "<{\"name\": 7}>"},
    {"{\"name\": \"\", \"parameters\": {}}", "<{\"name\": \"\", \"parameters\": {}}>"},
    {"{\"name\": \"Ada\", \"age\": 36}", "<{\"name\": \"Ada\", \"age\": 36}>"},
    {"{\"name\": \"f\", \"parameters\": [1]}", "<{\"name\": \"f\", \"parameters\": [1]}>"},
    {"[1, 2]", "<[1, 2]>"},
    {"```python\nprint(1)\n```", "<```python\nprint(1)\n```>"},
    {"```jsonl\n{}", "<```jsonl\n{}>"},
    {"`f` is a function", "<`f` is a function>"},
    {"{}", "<{}>"},
    {"{\"name\": \"f\", \"parameters\": {}} done", "0:f {} 0.<done>"},
    {"{\"name\": \"f\", \"parameters\": {}, \"x\": 1}", "0:f {} 0.<, \"x\": 1}>"},
};

Test(tool_calls, however_the_text_is_cut)
{
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
        for (size_t size = 1; size <= strlen(cases[i].text) + 1; size++) {
            char *got = parse(cases[i].text, size);
            cr_assert_str_eq(got, cases[i].heard, "%s in pieces of %zu: %s", cases[i].text, size, got);
            free(got);
        }
}

Test(tool_calls, arguments_are_passed_on_as_they_come)
{
    heard h = {0};
    const pl_tool_sink sink = {&h, on_content, on_begin, on_arguments, on_end};
    pl_tool_parser parser = {0};
    const char *head = "{\"name\": \"f\", \"parameters\": {\"city\":";
    pl_tool_parse(&parser, head, strlen(head), &sink);
    cr_assert_str_eq(h.text.data, "0:f {\"city\":");
    pl_tool_parse(&parser, " \"Par", 5, &sink);
    cr_assert_str_eq(h.text.data, "0:f {\"city\": \"Par");
    pl_tool_parser_free(&parser);
    pl_strbuf_free(&h.text);
}

Test(tool_calls, text_is_passed_on_as_it_comes)
{
    heard h = {0};
    const pl_tool_sink sink = {&h, on_content, on_begin, on_arguments, on_end};
    pl_tool_parser parser = {0};
    pl_tool_parse(&parser, "H", 1, &sink);
    cr_assert_str_eq(h.content.data, "H");
    pl_tool_parse_end(&parser, &sink);
    pl_strbuf_free(&h.content);
}

Test(tool_calls, a_call_of_no_function_is_content)
{
    static const char *const names[] = {"now", "weather", NULL};
    static const char *const texts[] = {"{\"name\": \"Ana\"}", "[{\"name\": \"Ana\", \"parameters\": {}}]",
                                        "{\"name\": \"weather\"}"};
    static const char *const heards[] = {"<{\"name\": \"Ana\"}>", "<[{\"name\": \"Ana\", \"parameters\": {}}]>",
                                         "0:weather {} 0."};
    for (size_t i = 0; i < 3; i++) {
        heard h = {0};
        const pl_tool_sink sink = {&h, on_content, on_begin, on_arguments, on_end};
        pl_tool_parser parser = {.names = names};
        for (const char *at = texts[i]; *at; at++)
            pl_tool_parse(&parser, at, 1, &sink);
        pl_tool_parse_end(&parser, &sink);
        end_content(&h);
        cr_expect_str_eq(h.text.data, heards[i]);
        pl_strbuf_free(&h.text);
        pl_strbuf_free(&h.content);
    }
}

Test(tool_calls, a_head_without_end_is_not_held_for_ever)
{
    heard h = {0};
    const pl_tool_sink sink = {&h, on_content, on_begin, on_arguments, on_end};
    pl_tool_parser parser = {0};
    pl_tool_parse(&parser, "{\"name\": \"", 10, &sink);
    for (int i = 0; i < 1000; i++)
        pl_tool_parse(&parser, "xxxxxxx", 7, &sink);
    cr_assert_eq(h.content.n, 7010);
    pl_tool_parse_end(&parser, &sink);
    pl_strbuf_free(&h.content);
}
