/* OpenAI's responses over a real connection. */
#include "tests/serve/demo_server.h"

#include <criterion/criterion.h>
#include <string.h>

#define QUESTION "What is the capital of France?"
#define ANSWER "The capital of France is Paris."
#define ASK "\"model\": \"demo\", \"input\": \"" QUESTION "\""
#define PARAMETERS                                                                                                     \
    "{\"type\": \"object\", \"properties\": {\"city\": {\"type\": \"string\", \"maxLength\": 8}, \"days\": "           \
    "{\"type\": \"integer\", \"minimum\": 1, \"maximum\": 9}}, \"required\": [\"city\", \"days\"]}"
#define TOOLS "\"tools\": [{\"type\": \"function\", \"name\": \"weather\", \"parameters\": " PARAMETERS "}]"

static demo_server s;

static void start(void)
{
    demo_start(&s);
}

static void stop(void)
{
    demo_stop(&s);
}

TestSuite(api_responses, .init = start, .fini = stop);

Test(api_responses, answers_whole)
{
    json_t *r = demo_post(
        &s, 200, "/v1/responses",
        "{\"instructions\": \"Be kind.\", \"metadata\": {\"a\": \"b\"}, \"store\": true, \"reasoning\": "
        "{\"effort\": \"low\"}, " ASK "}");
    cr_expect_str_eq(json_text_at(r, "object"), "response");
    cr_expect_str_eq(json_text_at(r, "status"), "completed");
    cr_expect_eq(strncmp(json_text_at(r, "id"), "resp_", 5), 0);
    cr_expect_eq(json_array_size(json_at(r, "output")), 1);
    cr_expect_str_eq(json_text_at(r, "output.0.type"), "message");
    cr_expect_str_eq(json_text_at(r, "output.0.status"), "completed");
    cr_expect_str_eq(json_text_at(r, "output.0.content.0.type"), "output_text");
    cr_expect(json_is_null(json_at(r, "incomplete_details")) && json_is_null(json_at(r, "error")));
    cr_expect_str_eq(json_text_at(r, "instructions"), "Be kind.");
    cr_expect_str_eq(json_text_at(r, "metadata.a"), "b");
    cr_expect(json_is_false(json_at(r, "store")));
    cr_expect_eq(json_int_at(r, "usage.input_tokens") + json_int_at(r, "usage.output_tokens"),
                 json_int_at(r, "usage.total_tokens"));
    json_decref(r);
}

Test(api_responses, says_when_it_is_incomplete)
{
    json_t *r = demo_post(&s, 200, "/v1/responses", "{\"max_output_tokens\": 3, " ASK "}");
    cr_expect_str_eq(json_text_at(r, "status"), "incomplete");
    cr_expect_str_eq(json_text_at(r, "incomplete_details.reason"), "max_output_tokens");
    cr_expect_str_eq(json_text_at(r, "output.0.status"), "incomplete");
    cr_expect_str_eq(json_text_at(r, "output.0.content.0.text"), "The capital of");
    cr_expect_eq(json_int_at(r, "max_output_tokens"), 3);
    cr_expect_eq(json_int_at(r, "usage.output_tokens"), 3);
    json_decref(r);
}

static int64_t prompt_tokens(const char *fields)
{
    json_t *r = demo_post(&s, 200, "/v1/responses", "{\"model\": \"demo\", \"max_output_tokens\": 1, %s}", fields);
    int64_t n = json_int_at(r, "usage.input_tokens");
    json_decref(r);
    return n;
}

#define MESSAGE(role, text) "{\"role\": \"" role "\", \"content\": \"" text "\"}"

Test(api_responses, reads_all_kinds_of_items)
{
    int64_t plain = prompt_tokens("\"instructions\": \"Be kind.\", \"input\": \"Hello\"");
    cr_expect_eq(prompt_tokens("\"input\": [" MESSAGE("developer", "Be kind.") ", " MESSAGE("user", "Hello") "]"),
                 plain);
    cr_expect_eq(prompt_tokens("\"input\": [{\"type\": \"message\", \"role\": \"system\", \"content\": [{\"type\": "
                               "\"input_text\", \"text\": \"Be kind.\"}]}, {\"type\": \"reasoning\", \"id\": \"r\", "
                               "\"summary\": []}, " MESSAGE("user", "Hello") "]"),
                 plain);
    cr_expect_lt(prompt_tokens("\"input\": \"Hello\""), plain);
    cr_expect_gt(
        prompt_tokens("\"input\": [" MESSAGE(
            "user", "Hello") ", {\"type\": \"function_call\", \"call_id\": \"c\", \"name\": \"f\", \"arguments\": "
                             "\"{}\"}, {\"type\": \"function_call_output\", \"call_id\": \"c\", \"output\": "
                             "\"sunny\"}]"),
        plain + 10);
}

/* ---- streams ---- */

static const char *type_at(const json_t *events, size_t i)
{
    return json_text_at(json_array_get(events, i), "data.type");
}

static const json_t *first_of(const json_t *events, const char *type)
{
    for (size_t i = 0; i < json_array_size(events); i++)
        if (strcmp(type_at(events, i), type) == 0)
            return json_object_get(json_array_get(events, i), "data");
    cr_assert_fail("no event %s", type);
    return NULL;
}

static size_t count_of(const json_t *events, const char *type)
{
    size_t n = 0;
    for (size_t i = 0; i < json_array_size(events); i++)
        n += strcmp(type_at(events, i), type) == 0;
    return n;
}

/* Numbered from 0, named by their types, and as many items done as added; last as said. */
static void check_events(const json_t *events, const char *last)
{
    size_t n = json_array_size(events);
    cr_assert_gt(n, 3);
    for (size_t i = 0; i < n; i++) {
        cr_expect_eq(json_int_at(json_array_get(events, i), "data.sequence_number"), (int64_t)i);
        cr_expect_str_eq(json_text_at(json_array_get(events, i), "event"), type_at(events, i));
    }
    cr_expect_str_eq(type_at(events, 0), "response.created");
    cr_expect_str_eq(type_at(events, 1), "response.in_progress");
    cr_expect_str_eq(type_at(events, n - 1), last);
    cr_expect_eq(count_of(events, "response.output_item.added"), count_of(events, "response.output_item.done"));
}

static void join(const json_t *events, const char *type, char *out, size_t n)
{
    out[0] = '\0';
    for (size_t i = 0; i < json_array_size(events); i++)
        if (strcmp(type_at(events, i), type) == 0)
            strncat(out, json_text_at(json_array_get(events, i), "data.delta"), n - strlen(out) - 1);
}

Test(api_responses, streams_text)
{
    char text[256];
    json_t *events = demo_stream(&s, "/v1/responses", "{\"stream\": true, " ASK "}");
    check_events(events, "response.completed");
    join(events, "response.output_text.delta", text, sizeof text);
    cr_expect_str_eq(text, ANSWER);
    cr_expect_gt(count_of(events, "response.output_text.delta"), 5);
    cr_expect_str_eq(json_text_at(first_of(events, "response.output_text.done"), "text"), ANSWER);
    cr_expect_str_eq(json_text_at(first_of(events, "response.content_part.done"), "part.text"), ANSWER);
    cr_expect_str_eq(json_text_at(first_of(events, "response.output_item.done"), "item.content.0.text"), ANSWER);
    const json_t *end = first_of(events, "response.completed");
    cr_expect_str_eq(json_text_at(end, "response.output.0.content.0.text"), ANSWER);
    cr_expect_str_eq(json_text_at(end, "response.output.0.id"),
                     json_text_at(first_of(events, "response.output_text.delta"), "item_id"));
    cr_expect_eq(json_int_at(end, "response.usage.output_tokens"), 12);
    json_decref(events);
}

Test(api_responses, gives_logprobs_where_asked)
{
    json_t *r = demo_post(&s, 200, "/v1/responses",
                          "{\"include\": [\"message.output_text.logprobs\"], \"top_logprobs\": 2, " ASK "}");
    const json_t *list = json_at(r, "output.0.content.0.logprobs");
    cr_expect_geq(json_array_size(list), 11);
    cr_expect_str_eq(json_text_at(list, "0.token"), "The");
    cr_expect_eq(json_int_at(list, "0.bytes.0"), 'T');
    cr_expect_eq(json_array_size(json_at(list, "0.top_logprobs")), 2);
    cr_expect_str_eq(json_text_at(list, "0.top_logprobs.0.token"), "The");
    json_decref(r);
    r = demo_post(&s, 200, "/v1/responses", "{" ASK "}");
    cr_expect_eq(json_array_size(json_at(r, "output.0.content.0.logprobs")), 0);
    json_decref(r);
}

/* The end of a stream is what would have been the response. */
Test(api_responses, repeats_logprobs_at_the_end_of_a_stream)
{
    json_t *r = demo_post(&s, 200, "/v1/responses", "{\"top_logprobs\": 3, " ASK "}");
    json_t *events = demo_stream(&s, "/v1/responses", "{\"stream\": true, \"top_logprobs\": 3, " ASK "}");
    const json_t *whole = json_at(r, "output.0.content.0.logprobs");
    cr_expect_geq(json_array_size(whole), 11);
    cr_expect(
        json_equal(json_at(first_of(events, "response.completed"), "response.output.0.content.0.logprobs"), whole));
    cr_expect(json_equal(json_at(first_of(events, "response.output_text.done"), "logprobs"), whole));
    cr_expect(json_equal(json_at(first_of(events, "response.output_item.done"), "item.content.0.logprobs"), whole));
    cr_expect_eq(json_array_size(json_at(first_of(events, "response.content_part.added"), "part.logprobs")), 0);
    json_decref(events);
    json_decref(r);
}

/* ---- functions ---- */

static void expect_weather(const char *arguments)
{
    json_t *input = json_loads(arguments, 0, NULL);
    cr_expect(json_is_string(json_object_get(input, "city")), "%s", arguments);
    cr_expect(json_int_at(input, "days") >= 1 && json_int_at(input, "days") <= 9, "%s", arguments);
    json_decref(input);
}

Test(api_responses, calls_a_function)
{
    json_t *r = demo_post(&s, 200, "/v1/responses",
                          "{" TOOLS ", \"tool_choice\": \"required\", \"parallel_tool_calls\": false, " ASK "}");
    cr_expect_eq(json_array_size(json_at(r, "output")), 1);
    cr_expect_str_eq(json_text_at(r, "output.0.type"), "function_call");
    cr_expect_str_eq(json_text_at(r, "output.0.name"), "weather");
    cr_expect_eq(strncmp(json_text_at(r, "output.0.call_id"), "call_", 5), 0);
    expect_weather(json_text_at(r, "output.0.arguments"));
    cr_expect_str_eq(json_text_at(r, "tool_choice"), "required");
    cr_expect(json_is_false(json_at(r, "parallel_tool_calls")));
    cr_expect_str_eq(json_text_at(r, "tools.0.name"), "weather");
    json_decref(r);
}

Test(api_responses, streams_a_call)
{
    char text[256];
    json_t *events = demo_stream(&s, "/v1/responses",
                                 "{\"stream\": true, " TOOLS
                                 ", \"tool_choice\": {\"type\": \"function\", \"name\": \"weather\"}, "
                                 "\"parallel_tool_calls\": false, " ASK "}");
    check_events(events, "response.completed");
    join(events, "response.function_call_arguments.delta", text, sizeof text);
    expect_weather(text);
    cr_expect_str_eq(json_text_at(first_of(events, "response.function_call_arguments.done"), "arguments"), text);
    cr_expect_str_eq(json_text_at(first_of(events, "response.output_item.done"), "item.arguments"), text);
    cr_expect_str_eq(json_text_at(first_of(events, "response.completed"), "response.output.0.arguments"), text);
    json_decref(events);
}

Test(api_responses, calls_only_allowed_functions)
{
    json_t *r = demo_post(&s, 200, "/v1/responses",
                          "{\"tools\": [{\"type\": \"function\", \"name\": \"weather\"}, {\"type\": "
                          "\"function\", \"name\": \"zebra\"}], \"tool_choice\": {\"type\": \"allowed_tools\", "
                          "\"mode\": \"required\", \"tools\": [{\"type\": \"function\", \"name\": \"zebra\"}]}, " ASK
                          "}");
    cr_expect_str_eq(json_text_at(r, "output.0.name"), "zebra");
    json_decref(r);
}

Test(api_responses, ends_a_call_that_is_cut_off)
{
    json_t *events = demo_stream(&s, "/v1/responses",
                                 "{\"stream\": true, \"max_output_tokens\": 30, " TOOLS
                                 ", \"tool_choice\": \"required\", " ASK "}");
    check_events(events, "response.incomplete");
    const json_t *done = first_of(events, "response.output_item.done");
    cr_expect_str_eq(json_text_at(done, "item.type"), "function_call");
    cr_expect_str_eq(json_text_at(done, "item.status"), "incomplete");
    json_decref(events);
}

Test(api_responses, keeps_to_a_schema)
{
    json_t *r = demo_post(&s, 200, "/v1/responses",
                          "{\"text\": {\"format\": {\"type\": \"json_schema\", \"name\": \"x\", \"schema\": " PARAMETERS
                          "}}, " ASK "}");
    expect_weather(json_text_at(r, "output.0.content.0.text"));
    cr_expect_str_eq(json_text_at(r, "text.format.name"), "x");
    json_decref(r);
}

/* ---- errors ---- */

static void expect_error(int status, const char *param, const char *code, const char *body)
{
    json_t *e = demo_post(&s, status, "/v1/responses", "%s", body);
    cr_expect_str_eq(json_text_at(e, "error.type"), "invalid_request_error", "%s", body);
    cr_expect_str_eq(json_text_at(e, "error.param"), param, "%s: %s", body, json_text_at(e, "error.message"));
    cr_expect_str_eq(json_text_at(e, "error.code"), code, "%s", body);
    json_decref(e);
}

#define WITH(fields) "{\"model\": \"demo\", " fields "}"
#define ITEM(fields) WITH("\"input\": [{" fields "}]")

Test(api_responses, says_what_is_wrong)
{
    expect_error(404, "model", "model_not_found", "{\"model\": \"nobody\", \"input\": \"Hi\"}");
    expect_error(400, "input", "missing_required_parameter", "{\"model\": \"demo\"}");
    expect_error(400, "input", "invalid_value", WITH("\"input\": []"));
    expect_error(400, "input", "invalid_type", WITH("\"input\": 7"));
    expect_error(400, "input[0].role", "missing_required_parameter", ITEM("\"content\": \"Hi\""));
    expect_error(400, "input[0].content[0].image_url", "missing_required_parameter",
                 ITEM("\"role\": \"user\", \"content\": [{\"type\": \"input_image\"}]"));
    expect_error(400, "input[0].content[0].type", "unsupported_value",
                 ITEM("\"role\": \"assistant\", \"content\": [{\"type\": \"input_image\"}]"));
    expect_error(400, "input[0].content[0].file_id", "unsupported_parameter",
                 ITEM("\"role\": \"user\", \"content\": [{\"type\": \"input_file\", \"file_id\": \"f\"}]"));
    expect_error(400, "input[0].type", "unsupported_value", ITEM("\"type\": \"item_reference\", \"id\": \"x\""));
    expect_error(400, "input[0].call_id", "invalid_value",
                 ITEM("\"type\": \"function_call_output\", \"call_id\": \"x\", \"output\": \"y\""));
    expect_error(400, "input[0].arguments", "invalid_value",
                 ITEM("\"type\": \"function_call\", \"call_id\": \"x\", \"name\": \"f\", \"arguments\": \"[\""));
    expect_error(400, "previous_response_id", "previous_response_not_found",
                 WITH("\"input\": \"Hi\", \"previous_response_id\": \"resp_1\""));
    expect_error(400, "background", "unsupported_value", WITH("\"input\": \"Hi\", \"background\": true"));
    expect_error(400, "conversation", "unsupported_parameter", WITH("\"input\": \"Hi\", \"conversation\": \"c\""));
    expect_error(400, "tools[0].type", "unsupported_value",
                 WITH("\"input\": \"Hi\", \"tools\": [{\"type\": \"web_search\"}]"));
    expect_error(400, "tool_choice", "invalid_value", WITH("\"input\": \"Hi\", \"tool_choice\": \"required\""));
    expect_error(400, "tool_choice.tools", "empty_array",
                 WITH("\"input\": \"Hi\", \"tool_choice\": {\"type\": \"allowed_tools\", \"mode\": \"auto\", "
                      "\"tools\": []}"));
    expect_error(400, "temperature", "decimal_above_max_value", WITH("\"input\": \"Hi\", \"temperature\": 2.5"));
    expect_error(400, "stranger", "unknown_parameter", WITH("\"input\": \"Hi\", \"stranger\": 1"));
    expect_error(400, "text.format.schema", "missing_required_parameter",
                 WITH("\"input\": \"Hi\", \"text\": {\"format\": {\"type\": \"json_schema\", \"name\": \"x\"}}"));
}
