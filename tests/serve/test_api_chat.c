/* Chat and text completions of the demo model, as clients see them. */
#include <criterion/criterion.h>
#include <string.h>

#include "tests/serve/demo_server.h"

#define CHAT "/v1/chat/completions"
#define TEXT "/v1/completions"
#define QUESTION                                                                                                       \
    "\"model\": \"demo\", \"messages\": [{\"role\": \"user\", \"content\": \"What is the capital of France?\"}]"
#define ANSWER "The capital of France is Paris."
#define TOOLS                                                                                                          \
    "\"tools\": [{\"type\": \"function\", \"function\": {\"name\": \"weather\", \"parameters\": {\"type\": "           \
    "\"object\", \"properties\": {\"city\": {\"enum\": [\"Rome\", \"Paris\"]}, \"days\": {\"type\": \"integer\", "     \
    "\"minimum\": 1, \"maximum\": 9}}, \"required\": [\"city\", \"days\"], \"additionalProperties\": false}}}]"

static demo_server server;

static void start(void)
{
    demo_start(&server);
}

static void stop(void)
{
    demo_stop(&server);
}

TestSuite(api_chat, .init = start, .fini = stop, .timeout = 300);

static const char *finish_of(const json_t *root)
{
    return json_text_at(root, "choices.0.finish_reason");
}

/* The contents of a stream's deltas, joined. */
static void join(const json_t *events, const char *path, char *out, size_t n)
{
    out[0] = '\0';
    for (size_t i = 0; i < json_array_size(events); i++)
        strncat(out, json_text_at(json_object_get(json_array_get(events, i), "data"), path), n - strlen(out) - 1);
}

static const json_t *data_at(const json_t *events, size_t i)
{
    return json_object_get(json_array_get(events, i), "data");
}

Test(api_chat, whole)
{
    json_t *r = demo_post(&server, 200, CHAT, "{" QUESTION "}");
    cr_assert_str_eq(json_text_at(r, "object"), "chat.completion");
    cr_assert_eq(strncmp(json_text_at(r, "id"), "chatcmpl-", 9), 0);
    cr_assert_str_eq(json_text_at(r, "model"), "demo");
    cr_assert_str_eq(json_text_at(r, "choices.0.message.role"), "assistant");
    cr_assert_str_eq(json_text_at(r, "choices.0.message.content"), ANSWER);
    cr_assert_str_eq(finish_of(r), "stop");
    cr_assert_str_eq(json_text_at(r, "pleiad.path"), "e4b");
    cr_assert_eq(json_int_at(r, "usage.total_tokens"),
                 json_int_at(r, "usage.prompt_tokens") + json_int_at(r, "usage.completion_tokens"));
    json_t *again = demo_post(&server, 200, CHAT, "{" QUESTION "}");
    cr_assert_str_neq(json_text_at(r, "id"), json_text_at(again, "id"));
    json_decref(again);
    json_decref(r);
}

Test(api_chat, streamed)
{
    char text[256];
    json_t *events = demo_stream(&server, CHAT,
                                 "{" QUESTION ", \"stream\": true, \"stream_options\": {\"include_usage\": true}}");
    size_t n = json_array_size(events);
    join(events, "choices.0.delta.content", text, sizeof text);
    cr_assert_str_eq(text, ANSWER);
    cr_assert_str_eq(json_text_at(data_at(events, 0), "choices.0.delta.role"), "assistant");
    cr_assert_str_eq(finish_of(data_at(events, n - 3)), "stop");
    cr_assert_str_eq(json_text_at(data_at(events, n - 3), "pleiad.path"), "e4b");
    cr_assert_gt(json_int_at(data_at(events, n - 2), "usage.completion_tokens"), 0);
    cr_assert_str_eq(json_string_value(data_at(events, n - 1)), "[DONE]");
    json_decref(events);
}

Test(api_chat, limits_and_stops)
{
    json_t *r = demo_post(&server, 200, CHAT, "{" QUESTION ", \"max_completion_tokens\": 2}");
    cr_assert_str_eq(finish_of(r), "length");
    cr_assert_eq(json_int_at(r, "usage.completion_tokens"), 2);
    json_decref(r);
    r = demo_post(&server, 200, CHAT, "{" QUESTION ", \"stop\": [\"x\", \" France\"]}");
    cr_assert_str_eq(json_text_at(r, "choices.0.message.content"), "The capital of");
    cr_assert_str_eq(finish_of(r), "stop");
    json_decref(r);
}

Test(api_chat, choices_and_seeds)
{
    static const char body[] = "{" QUESTION ", \"n\": 3, \"seed\": 7, \"temperature\": 2, \"top_p\": 1, \"top_k\": 0, "
                               "\"max_tokens\": 8}";
    json_t *a = demo_post(&server, 200, CHAT, body), *b = demo_post(&server, 200, CHAT, body);
    cr_assert_eq(json_array_size(json_at(a, "choices")), 3);
    cr_assert(json_equal(json_at(a, "choices.2.message"), json_at(b, "choices.2.message")));
    cr_assert_not(json_equal(json_at(a, "choices.0.message"), json_at(a, "choices.1.message")));
    cr_assert_str_eq(json_text_at(a, "choices.1.pleiad.path"), "e4b");
    json_decref(a);
    json_decref(b);
}

Test(api_chat, logprobs)
{
    char text[256] = "";
    json_t *r = demo_post(&server, 200, CHAT, "{" QUESTION ", \"logprobs\": true, \"top_logprobs\": 2}");
    const json_t *content = json_at(r, "choices.0.logprobs.content");
    for (size_t i = 0; i < json_array_size(content); i++) {
        const json_t *token = json_array_get(content, i);
        strcat(text, json_text_at(token, "token"));
        cr_assert_eq(json_array_size(json_object_get(token, "top_logprobs")), 2);
        cr_assert_eq(json_array_size(json_object_get(token, "bytes")), strlen(json_text_at(token, "token")));
        cr_assert_str_eq(json_text_at(token, "top_logprobs.0.token"), json_text_at(token, "token"), "greedy");
    }
    cr_assert_str_eq(text, ANSWER);
    json_decref(r);
}

Test(api_chat, paths)
{
    json_t *r = demo_post(&server, 200, CHAT,
                          "{\"model\": \"demo:e2b\", \"messages\": [{\"role\": \"user\", \"content\": \"Hi.\"}]}");
    cr_assert_str_eq(json_text_at(r, "pleiad.path"), "e2b");
    cr_assert_str_eq(json_text_at(r, "model"), "demo:e2b");
    json_decref(r);
    r = demo_post(&server, 200, CHAT, "{" QUESTION ", \"path\": \"mix\", \"max_tokens\": 3}");
    cr_assert_str_eq(json_text_at(r, "pleiad.path"), "mix");
    json_decref(r);
    r = demo_post(&server, 200, CHAT,
                  "{" QUESTION ", \"quality\": \"speed\", \"moves\": \"fast\", \"priority\": 5, \"latency_ms\": "
                  "{\"first_token\": 100}, \"max_tokens\": 3}");
    cr_assert_str_eq(json_text_at(r, "pleiad.path"), "e2b");
    json_decref(r);
}

Test(api_chat, an_answer_is_continued)
{
    json_t *r = demo_post(
        &server, 200, CHAT,
        "{\"model\": \"demo\", \"messages\": [{\"role\": \"user\", \"content\": \"What is the capital "
        "of France?\"}, {\"role\": \"assistant\", \"content\": \"The capital of\"}]}");
    cr_assert_str_eq(json_text_at(r, "choices.0.message.content"), " France is Paris.");
    json_decref(r);
}

Test(api_chat, functions)
{
    json_t *r = demo_post(&server, 200, CHAT, "{" QUESTION ", " TOOLS ", \"tool_choice\": \"required\"}");
    cr_assert_str_eq(finish_of(r), "tool_calls");
    cr_assert(json_is_null(json_at(r, "choices.0.message.content")));
    cr_assert_str_eq(json_text_at(r, "choices.0.message.tool_calls.0.function.name"), "weather");
    const char *arguments = json_text_at(r, "choices.0.message.tool_calls.0.function.arguments");
    json_t *parsed = json_loads(arguments, 0, NULL);
    cr_assert_geq(json_int_at(parsed, "days"), 1, "%s", arguments);
    char text[1024];
    json_t *events = demo_stream(&server, CHAT,
                                 "{" QUESTION ", " TOOLS ", \"tool_choice\": \"required\", \"stream\": true}");
    join(events, "choices.0.delta.tool_calls.0.function.arguments", text, sizeof text);
    cr_assert_eq(strncmp(text, arguments, strlen(arguments)), 0, "%s", text);
    join(events, "choices.0.delta.tool_calls.0.function.name", text, sizeof text);
    cr_assert_eq(strncmp(text, "weather", 7), 0, "%s", text);
    json_decref(events);
    json_decref(parsed);
    json_decref(r);
}

/* All are shown, one may be called. */
Test(api_chat, allowed_functions)
{
#define PAIR                                                                                                           \
    "\"tools\": [{\"type\": \"function\", \"function\": {\"name\": \"weather\"}}, {\"type\": \"function\", "           \
    "\"function\": {\"name\": \"zebra\"}}]"
#define ALLOWED(name)                                                                                                  \
    "\"tool_choice\": {\"type\": \"allowed_tools\", \"allowed_tools\": {\"mode\": \"required\", \"tools\": "           \
    "[{\"type\": \"function\", \"function\": {\"name\": \"" name "\"}}]}}"
    json_t *all = demo_post(&server, 200, CHAT, "{" QUESTION ", " PAIR "}");
    json_t *r = demo_post(&server, 200, CHAT, "{" QUESTION ", " PAIR ", " ALLOWED("zebra") "}");
    cr_assert_str_eq(finish_of(r), "tool_calls");
    cr_assert_str_eq(json_text_at(r, "choices.0.message.tool_calls.0.function.name"), "zebra");
    cr_assert_eq(json_int_at(r, "usage.prompt_tokens"), json_int_at(all, "usage.prompt_tokens"));
    json_decref(r);
    json_decref(all);
    r = demo_post(&server, 400, CHAT, "{" QUESTION ", " PAIR ", " ALLOWED("lion") "}");
    cr_assert_str_eq(json_text_at(r, "error.param"), "tool_choice");
    json_decref(r);
}

Test(api_chat, schemas_of_functions_beyond_the_subset)
{
#define ODD(strict)                                                                                                    \
    "{" QUESTION ", \"max_tokens\": 1, \"tools\": [{\"type\": \"function\", \"function\": {\"name\": \"f\", " strict   \
    "\"parameters\": {\"type\": \"object\", \"propertyNames\": {}}}}]}"
    json_decref(demo_post(&server, 200, CHAT, ODD("")));
    json_decref(demo_post(&server, 200, CHAT, ODD("\"strict\": false, ")));
    json_t *r = demo_post(&server, 400, CHAT, ODD("\"strict\": true, "));
    cr_assert(strstr(json_text_at(r, "error.message"), "propertyNames"), "%s", json_text_at(r, "error.message"));
    json_decref(r);
}

/* What is no call has the form, even where it looks like one. */
Test(api_chat, functions_beside_a_form)
{
#define NAMED_FORM                                                                                                     \
    "\"response_format\": {\"type\": \"json_schema\", \"json_schema\": {\"name\": \"x\", \"schema\": {\"type\": "      \
    "\"object\", \"properties\": {\"name\": {\"enum\": [\"Ana\"]}}, \"required\": [\"name\"], "                        \
    "\"additionalProperties\": false}}}"
    json_t *r = demo_post(&server, 200, CHAT, "{" QUESTION ", " PAIR ", " NAMED_FORM "}");
    json_t *answer = json_loads(json_text_at(r, "choices.0.message.content"), 0, NULL);
    cr_assert_str_eq(finish_of(r), "stop");
    cr_assert_str_eq(json_text_at(answer, "name"), "Ana");
    json_decref(answer);
    json_decref(r);
    r = demo_post(&server, 200, CHAT, "{" QUESTION ", " PAIR ", " NAMED_FORM ", \"tool_choice\": \"required\"}");
    cr_assert_str_eq(finish_of(r), "tool_calls");
    json_decref(r);
    r = demo_post(&server, 200, CHAT, "{" QUESTION ", " PAIR ", \"response_format\": {\"type\": \"json_object\"}}");
    cr_assert(json_at(r, "choices.0.message.tool_calls.0") || json_text_at(r, "choices.0.message.content")[0] == '{');
    json_decref(r);
}

/* OpenAI's client keeps what it made of an answer beside it, and sends that too. */
Test(api_chat, answers_come_back_as_the_client_keeps_them)
{
    json_t *r = demo_post(
        &server, 200, CHAT,
        "{\"model\": \"demo\", \"messages\": [{\"role\": \"user\", \"content\": \"Hi\"}, {\"role\": \"assistant\", "
        "\"content\": \"{}\", \"parsed\": {\"a\": 1}, \"tool_calls\": [{\"id\": \"c\", \"index\": 0, \"type\": "
        "\"function\", \"function\": {\"name\": \"f\", \"arguments\": \"{}\", \"parsed_arguments\": {}}}]}, "
        "{\"role\": \"tool\", \"tool_call_id\": \"c\", \"content\": \"1\"}], \"max_tokens\": 2}");
    cr_assert_eq(json_int_at(r, "usage.completion_tokens"), 2);
    json_decref(r);
}

Test(api_chat, a_named_function_and_the_fields_of_old)
{
    json_t *r = demo_post(&server, 200, CHAT,
                          "{" QUESTION ", " TOOLS
                          ", \"tool_choice\": {\"type\": \"function\", \"function\": {\"name\": "
                          "\"weather\"}}, \"parallel_tool_calls\": false}");
    cr_assert_str_eq(finish_of(r), "stop");
    cr_assert_eq(json_array_size(json_at(r, "choices.0.message.tool_calls")), 1);
    json_decref(r);
    r = demo_post(&server, 200, CHAT,
                  "{" QUESTION ", \"functions\": [{\"name\": \"f\", \"parameters\": {\"type\": \"object\", "
                  "\"properties\": {}, \"additionalProperties\": false}}], \"function_call\": {\"name\": \"f\"}}");
    cr_assert_str_eq(json_text_at(r, "choices.0.message.function_call.name"), "f");
    json_decref(r);
}

Test(api_chat, forms)
{
    json_t *r = demo_post(&server, 200, CHAT,
                          "{" QUESTION ", \"response_format\": {\"type\": \"json_schema\", \"json_schema\": {\"name\": "
                          "\"x\", \"strict\": true, \"schema\": {\"type\": \"object\", \"properties\": {\"a\": "
                          "{\"type\": \"boolean\"}}, \"required\": [\"a\"], \"additionalProperties\": false}}}}");
    json_t *parsed = json_loads(json_text_at(r, "choices.0.message.content"), 0, NULL);
    cr_assert(json_is_boolean(json_object_get(parsed, "a")), "%s", json_text_at(r, "choices.0.message.content"));
    json_decref(parsed);
    json_decref(r);
    r = demo_post(&server, 200, CHAT, "{" QUESTION ", \"regex\": \"[xy]{4}!\"}");
    cr_assert_eq(strspn(json_text_at(r, "choices.0.message.content"), "xy"), 4);
    json_decref(r);
    r = demo_post(&server, 200, CHAT, "{" QUESTION ", \"grammar\": \"root ::= \\\"ab\\\" \\\"c\\\"?\"}");
    cr_assert_eq(strncmp(json_text_at(r, "choices.0.message.content"), "ab", 2), 0);
    json_decref(r);
}

Test(api_chat, wrong_requests)
{
#define USER "\"model\": \"demo\", \"messages\": [{\"role\": \"user\", \"content\": "
    static const struct {
        const char *body;
        int status;
        const char *code, *param;
    } cases[] = {
        {"{\"messages\": []}", 400, "empty_array", "messages"},
        {"{\"model\": 7, \"messages\": []}", 400, "invalid_type", "model"},
        {"{\"model\": \"gpt\", \"messages\": []}", 404, "model_not_found", "model"},
        {"{\"model\": \"demo:x\", \"messages\": []}", 404, "model_not_found", "model"},
        {"{\"model\": \"demo\"}", 400, "missing_required_parameter", "messages"},
        {"{\"model\": \"demo\", \"messages\": []}", 400, "empty_array", "messages"},
        {"{\"model\": \"demo\", \"messages\": [1]}", 400, "invalid_type", "messages[0]"},
        {"{\"model\": \"demo\", \"messages\": [{}]}", 400, "missing_required_parameter", "messages[0].role"},
        {"{" USER "7}]}", 400, "invalid_type", "messages[0].content"},
        {"{" USER "[{\"type\": \"video\"}]}]}", 400, "invalid_value", "messages[0].content[0].type"},
        {"{" USER "[{\"type\": \"image_url\"}]}]}", 400, "missing_required_parameter",
         "messages[0].content[0].image_url"},
        {"{" USER "[{\"type\": \"image_url\", \"image_url\": {\"url\": \"data:image/png;base64,Z\"}}]}]}", 400,
         "invalid_base64", "messages[0].content[0].image_url.url"},
        {"{" USER "\"x\"}, {\"role\": \"system\", \"content\": [{\"type\": \"image_url\"}]}]}", 400,
         "unsupported_value", "messages[1].content[0].type"},
        {"{" USER "\"x\", \"age\": 1}]}", 400, "unknown_parameter", "messages[0].age"},
        {"{" USER "\"x\"}, {\"role\": \"tool\", \"tool_call_id\": \"?\", \"content\": \"\"}]}", 400, "invalid_value",
         "messages[1].tool_call_id"},
        {"{" QUESTION ", \"temperature\": 2.5}", 400, "decimal_above_max_value", "temperature"},
        {"{" QUESTION ", \"n\": 129}", 400, "integer_above_max_value", "n"},
        {"{" QUESTION ", \"stop\": [1]}", 400, "invalid_type", "stop[0]"},
        {"{" QUESTION ", \"stop\": \"\"}", 400, "invalid_value", "stop"},
        {"{" QUESTION ", \"logit_bias\": {\"x\": 1}}", 400, "invalid_value", "logit_bias"},
        {"{" QUESTION ", \"logit_bias\": {\"5\": 101}}", 400, "invalid_value", "logit_bias.5"},
        {"{" QUESTION ", \"top_logprobs\": 1}", 400, "invalid_value", "top_logprobs"},
        {"{" QUESTION ", \"stream_options\": {}}", 400, "invalid_value", "stream_options"},
        {"{" QUESTION ", \"modalities\": [\"audio\"]}", 400, "unsupported_value", "modalities"},
        {"{" QUESTION ", \"web_search_options\": {}}", 400, "unsupported_parameter", "web_search_options"},
        {"{" QUESTION ", \"tool_choice\": \"required\"}", 400, "invalid_value", "tool_choice"},
        {"{" QUESTION ", \"regex\": \"(\"}", 400, "invalid_value", "regex"},
        {"{" QUESTION ", \"regex\": \"a\", \"grammar\": \"root ::= \\\"a\\\"\"}", 400, "invalid_value", "regex"},
        {"{" QUESTION ", \"response_format\": {\"type\": \"xml\"}}", 400, "invalid_value", "response_format.type"},
        {"{" QUESTION ", \"path\": \"e9b\"}", 400, "invalid_value", "path"},
        {"{" QUESTION ", \"latency_ms\": {\"x\": 1}}", 400, "unknown_parameter", "latency_ms.x"},
        {"{" QUESTION ", \"max_token\": 1}", 400, "unknown_parameter", "max_token"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        json_t *r = demo_post(&server, cases[i].status, CHAT, "%s", cases[i].body);
        cr_assert_str_eq(json_text_at(r, "error.type"), "invalid_request_error");
        cr_assert_str_eq(json_text_at(r, "error.code"), cases[i].code, "%s: %s", cases[i].body,
                         json_text_at(r, "error.message"));
        cr_assert_str_eq(json_text_at(r, "error.param"), cases[i].param, "%s", cases[i].body);
        json_decref(r);
    }
}

Test(api_chat, a_prompt_that_is_too_long)
{
    static char body[40000] = "{" USER "\"";
    while (strlen(body) < sizeof body - 100)
        strcat(body, "one two three four five ");
    strcat(body, "\"}]}");
    json_t *r = demo_post(&server, 400, CHAT, "%s", body);
    cr_assert_str_eq(json_text_at(r, "error.code"), "context_length_exceeded");
    cr_assert_str_eq(json_text_at(r, "error.param"), "messages");
    json_decref(r);
}

TestSuite(api_completions, .init = start, .fini = stop, .timeout = 300);

Test(api_completions, prompts_of_all_kinds)
{
    json_t *r = demo_post(
        &server, 200, TEXT,
        "{\"model\": \"demo\", \"prompt\": [\"The capital of France is\", \"The\"], \"n\": 2, \"echo\": "
        "true, \"max_tokens\": 3}");
    cr_assert_str_eq(json_text_at(r, "object"), "text_completion");
    cr_assert_eq(json_array_size(json_at(r, "choices")), 4);
    cr_assert_eq(strncmp(json_text_at(r, "choices.1.text"), "The capital of France is", 24), 0);
    cr_assert_gt(strlen(json_text_at(r, "choices.1.text")), 24);
    cr_assert_eq(strncmp(json_text_at(r, "choices.2.text"), "The", 3), 0);
    cr_assert_eq(json_int_at(r, "usage.completion_tokens"), 12);
    json_decref(r);
    r = demo_post(&server, 200, TEXT,
                  "{\"model\": \"demo\", \"prompt\": [[2, 500], [2, 501, 502]], \"max_tokens\": 0}");
    cr_assert_eq(json_int_at(r, "usage.prompt_tokens"), 5);
    cr_assert_str_eq(finish_of(r), "length");
    json_decref(r);
}

Test(api_completions, logprobs_of_old)
{
    char text[256] = "";
    json_t *r = demo_post(&server, 200, TEXT,
                          "{\"model\": \"demo\", \"prompt\": \"The capital of France is\", \"logprobs\": 2, "
                          "\"max_tokens\": 6}");
    const json_t *tokens = json_at(r, "choices.0.logprobs.tokens");
    for (size_t i = 0; i < json_array_size(tokens); i++) {
        const json_t *offset = json_array_get(json_at(r, "choices.0.logprobs.text_offset"), i);
        cr_assert_eq(json_integer_value(offset), (json_int_t)strlen(text));
        strcat(text, json_string_value(json_array_get(tokens, i)));
    }
    cr_assert_str_eq(text, json_text_at(r, "choices.0.text"));
    cr_assert_eq(json_object_size(json_at(r, "choices.0.logprobs.top_logprobs.0")), 2);
    json_decref(r);
}

Test(api_completions, streamed)
{
    char text[256];
    json_t *r = demo_post(&server, 200, TEXT, "{\"model\": \"demo\", \"prompt\": \"The capital\", \"echo\": true}");
    json_t *events = demo_stream(
        &server, TEXT, "{\"model\": \"demo\", \"prompt\": \"The capital\", \"echo\": true, \"stream\": true}");
    join(events, "choices.0.text", text, sizeof text);
    cr_assert_str_eq(text, json_text_at(r, "choices.0.text"));
    json_decref(events);
    json_decref(r);
}

Test(api_completions, wrong_requests)
{
    static const struct {
        const char *fields, *param;
    } cases[] = {
        {"\"suffix\": \"x\", \"prompt\": \"x\"", "suffix"},
        {"\"best_of\": 2, \"prompt\": \"x\"", "best_of"},
        {"\"logprobs\": 6, \"prompt\": \"x\"", "logprobs"},
        {"\"logprobs\": 1, \"echo\": true, \"prompt\": \"x\"", "logprobs"},
        {"\"n\": 65, \"prompt\": [\"x\", \"y\"]", "n"},
        {"\"max_tokens\": 1", "prompt"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        json_t *r = demo_post(&server, 400, TEXT, "{\"model\": \"demo\", %s}", cases[i].fields);
        cr_assert_str_eq(json_text_at(r, "error.param"), cases[i].param, "%s", json_text_at(r, "error.message"));
        json_decref(r);
    }
}
