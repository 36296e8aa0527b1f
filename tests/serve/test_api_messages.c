/* Anthropic's API over a real connection. */
#include "tests/serve/demo_server.h"

#include <criterion/criterion.h>
#include <string.h>

#define QUESTION "What is the capital of France?"
#define ANSWER "The capital of France is Paris."
#define ASK                                                                                                            \
    "\"model\": \"demo\", \"max_tokens\": 100, \"messages\": [{\"role\": \"user\", \"content\": \"" QUESTION "\"}]"
#define TOOLS                                                                                                          \
    "\"tools\": [{\"name\": \"weather\", \"input_schema\": {\"type\": \"object\", \"properties\": {\"city\": "         \
    "{\"type\": \"string\", \"maxLength\": 8}, \"days\": {\"type\": \"integer\", \"minimum\": 1, \"maximum\": 9}}, "   \
    "\"required\": [\"city\", \"days\"]}}]"

static demo_server s;

static void start(void)
{
    demo_start(&s);
}

static void stop(void)
{
    demo_stop(&s);
}

TestSuite(api_messages, .init = start, .fini = stop);

Test(api_messages, answers_whole)
{
    json_t *m = demo_post(&s, 200, "/v1/messages", "{" ASK "}");
    cr_expect_str_eq(json_text_at(m, "type"), "message");
    cr_expect_str_eq(json_text_at(m, "role"), "assistant");
    cr_expect_str_eq(json_text_at(m, "model"), "demo");
    cr_expect_eq(strncmp(json_text_at(m, "id"), "msg_", 4), 0);
    cr_expect_eq(json_array_size(json_at(m, "content")), 1);
    cr_expect_str_eq(json_text_at(m, "content.0.text"), ANSWER);
    cr_expect_str_eq(json_text_at(m, "stop_reason"), "end_turn");
    cr_expect(json_is_null(json_at(m, "stop_sequence")));
    cr_expect_str_eq(json_text_at(m, "pleiad.path"), "e4b");
    json_decref(m);
}

/* What is reused is told apart, the sum is what count_tokens says. */
Test(api_messages, counts_tokens)
{
    json_t *count = demo_post(&s, 200, "/v1/messages/count_tokens",
                              "{\"messages\": [{\"role\": \"user\", \"content\": \"" QUESTION "\"}]}");
    int64_t n = json_int_at(count, "input_tokens");
    cr_expect_gt(n, 10);
    for (int i = 0; i < 2; i++) {
        json_t *m = demo_post(&s, 200, "/v1/messages", "{" ASK "}");
        int64_t reused = json_int_at(m, "usage.cache_read_input_tokens");
        cr_expect_eq(reused > 0, i == 1);
        cr_expect_eq(json_int_at(m, "usage.input_tokens") + reused, n);
        cr_expect_eq(json_int_at(m, "usage.output_tokens"), 12);
        json_decref(m);
    }
    json_decref(count);
}

static void expect_stop(const char *body, const char *reason, const char *sequence, const char *text)
{
    json_t *m = demo_post(&s, 200, "/v1/messages", "{%s, " ASK "}", body);
    cr_expect_str_eq(json_text_at(m, "stop_reason"), reason, "%s", body);
    cr_expect_str_eq(json_text_at(m, "stop_sequence"), sequence, "%s", body);
    cr_expect_str_eq(json_text_at(m, "content.0.text"), text, "%s", body);
    json_decref(m);
}

Test(api_messages, says_why_it_stopped)
{
    expect_stop("\"stop_sequences\": [\"nowhere\", \"Paris\"]", "stop_sequence", "Paris", "The capital of France is ");
    expect_stop("\"stop_sequences\": [\"France\", \"Paris\"]", "stop_sequence", "France", "The capital of ");
    json_t *m = demo_post(
        &s, 200, "/v1/messages",
        "{\"model\": \"demo:e2b\", \"max_tokens\": 3, \"messages\": [{\"role\": \"user\", \"content\": "
        "[{\"type\": \"text\", \"text\": \"" QUESTION "\"}]}]}");
    cr_expect_str_eq(json_text_at(m, "stop_reason"), "max_tokens");
    cr_expect_str_eq(json_text_at(m, "content.0.text"), "The capital of");
    cr_expect_str_eq(json_text_at(m, "pleiad.path"), "e2b");
    json_decref(m);
}

static int64_t count(const char *prompt)
{
    json_t *answer = demo_post(&s, 200, "/v1/messages/count_tokens", "{%s}", prompt);
    int64_t n = json_int_at(answer, "input_tokens");
    json_decref(answer);
    return n;
}

#define USER(text) "{\"role\": \"user\", \"content\": \"" text "\"}"
#define BLOCKS(role, blocks) "{\"role\": \"" role "\", \"content\": [" blocks "]}"
#define TEXT(text) "{\"type\": \"text\", \"text\": \"" text "\", \"cache_control\": {\"type\": \"ephemeral\"}}"

/* Blocks and strings say the same; a call and its result are part of the prompt, and so are functions, if they count. */
Test(api_messages, reads_all_kinds_of_content)
{
    int64_t plain = count("\"system\": \"Be kind.\", \"messages\": [" USER("Hello") "]");
    cr_expect_eq(count("\"system\": [" TEXT("Be kind.") "], \"messages\": [" BLOCKS("user", TEXT("Hello")) "]"), plain);
    cr_expect_eq(count("\"messages\": [{\"role\": \"system\", \"content\": \"Be kind.\"}, " USER("Hello") "]"), plain);
    cr_expect_lt(count("\"messages\": [" USER("Hello") "]"), plain);

    const char *call =
        "\"messages\": [" USER("Hello") ", " BLOCKS("assistant", "{\"type\": \"tool_use\", \"id\": \"a\", \"name\": \"weather\", \"input\": {\"city\": \"Rome\"}}") ", " BLOCKS(
            "user", "{\"type\": \"tool_result\", \"tool_use_id\": \"a\", \"content\": [" TEXT("sunny") "]}") "]";
    cr_expect_gt(count(call), plain + 20);

    int64_t several = count(TOOLS ", \"messages\": [" USER("Hello") "]");
    cr_expect_gt(several, plain + 60);
    cr_expect_lt(count(TOOLS ", \"tool_choice\": {\"type\": \"auto\", \"disable_parallel_tool_use\": true}, "
                             "\"messages\": [" USER("Hello") "]"),
                 several);
    cr_expect_eq(count(TOOLS ", \"tool_choice\": {\"type\": \"none\"}, \"system\": \"Be kind.\", \"messages\": [" USER(
                     "Hello") "]"),
                 plain);
}

Test(api_messages, goes_on_with_what_the_assistant_began)
{
    json_t *m = demo_post(&s, 200, "/v1/messages",
                          "{\"model\": \"demo\", \"max_tokens\": 40, \"messages\": [" USER(
                              QUESTION) ", {\"role\": \"assistant\", \"content\": \"The capital of France is\"}]}");
    cr_expect_str_eq(json_text_at(m, "content.0.text"), " Paris.");
    json_decref(m);
}

/* ---- streams ---- */

static const char *type_at(const json_t *events, size_t i)
{
    return json_text_at(json_array_get(events, i), "data.type");
}

/* Blocks follow each other, each whole; the event's name is the type. *n_blocks: how many. */
static void check_blocks(const json_t *events, size_t *n_blocks)
{
    size_t n = json_array_size(events);
    bool open = false;
    *n_blocks = 0;
    cr_assert_gt(n, 3);
    cr_expect_str_eq(type_at(events, 0), "message_start");
    cr_expect_str_eq(type_at(events, n - 2), "message_delta");
    cr_expect_str_eq(type_at(events, n - 1), "message_stop");
    for (size_t i = 0; i < n; i++) {
        const json_t *event = json_array_get(events, i);
        const char *type = type_at(events, i);
        cr_expect_str_eq(json_text_at(event, "event"), type);
        if (strncmp(type, "content_block_", 14) != 0)
            continue;
        bool begins = strcmp(type, "content_block_start") == 0;
        cr_expect_eq(open, !begins, "event %zu: %s", i, type);
        *n_blocks += begins;
        open = strcmp(type, "content_block_stop") != 0;
        cr_expect_eq(json_int_at(event, "data.index"), (int64_t)*n_blocks - 1);
    }
    cr_expect_not(open);
}

/* All of what deltas say at the key. */
static void join(const json_t *events, const char *key, char *out, size_t n)
{
    out[0] = '\0';
    for (size_t i = 0; i < json_array_size(events); i++)
        if (strcmp(type_at(events, i), "content_block_delta") == 0)
            strncat(out, json_text_at(json_array_get(events, i), key), n - strlen(out) - 1);
}

Test(api_messages, streams_text)
{
    char text[256];
    size_t n_blocks;
    json_t *events = demo_stream(&s, "/v1/messages", "{\"stream\": true, " ASK "}");
    size_t n = json_array_size(events);
    check_blocks(events, &n_blocks);
    cr_expect_eq(n_blocks, 1);
    join(events, "data.delta.text", text, sizeof text);
    cr_expect_str_eq(text, ANSWER);
    cr_expect_gt(n, 10, "the answer came in %zu events", n);
    cr_expect_str_eq(json_text_at(json_array_get(events, n - 2), "data.delta.stop_reason"), "end_turn");
    cr_expect_eq(json_int_at(json_array_get(events, n - 2), "data.usage.output_tokens"), 12);
    cr_expect_gt(json_int_at(json_array_get(events, 0), "data.message.usage.input_tokens"), 10);
    json_decref(events);
}

/* ---- functions ---- */

static void expect_weather(const json_t *input)
{
    cr_expect(json_is_string(json_object_get(input, "city")));
    cr_expect(json_int_at(input, "days") >= 1 && json_int_at(input, "days") <= 9);
}

Test(api_messages, calls_a_function)
{
    json_t *m = demo_post(&s, 200, "/v1/messages",
                          "{" TOOLS ", \"tool_choice\": {\"type\": \"any\", \"disable_parallel_tool_use\": true}, " ASK
                          "}");
    cr_expect_str_eq(json_text_at(m, "stop_reason"), "tool_use");
    cr_expect_eq(json_array_size(json_at(m, "content")), 1);
    cr_expect_str_eq(json_text_at(m, "content.0.type"), "tool_use");
    cr_expect_str_eq(json_text_at(m, "content.0.name"), "weather");
    cr_expect_gt(strlen(json_text_at(m, "content.0.id")), 8);
    expect_weather(json_at(m, "content.0.input"));
    json_decref(m);
}

Test(api_messages, streams_a_call)
{
    char text[256];
    size_t n_blocks;
    json_t *events = demo_stream(&s, "/v1/messages",
                                 "{\"stream\": true, " TOOLS
                                 ", \"tool_choice\": {\"type\": \"tool\", \"name\": \"weather\", "
                                 "\"disable_parallel_tool_use\": true}, " ASK "}");
    check_blocks(events, &n_blocks);
    cr_expect_eq(n_blocks, 1);
    join(events, "data.delta.partial_json", text, sizeof text);
    json_t *input = json_loads(text, 0, NULL);
    expect_weather(input);
    const json_t *last = json_array_get(events, json_array_size(events) - 2);
    cr_expect_str_eq(json_text_at(last, "data.delta.stop_reason"), "tool_use");
    json_decref(input);
    json_decref(events);
}

/* A call that a limit cuts off: blocks are whole all the same, and input is an object. */
Test(api_messages, ends_a_call_that_is_cut_off)
{
    static const char ask[] = TOOLS ", \"tool_choice\": {\"type\": \"any\"}, \"model\": \"demo\", \"max_tokens\": 30, "
                                    "\"messages\": [" USER(QUESTION) "]";
    size_t n_blocks;
    json_t *m = demo_post(&s, 200, "/v1/messages", "{%s}", ask);
    cr_expect_str_eq(json_text_at(m, "stop_reason"), "max_tokens");
    cr_expect_str_eq(json_text_at(m, "content.0.type"), "tool_use");
    cr_expect(json_is_object(json_at(m, "content.0.input")) && json_object_size(json_at(m, "content.0.input")) == 0);
    json_decref(m);
    json_t *events = demo_stream(&s, "/v1/messages", "{\"stream\": true, %s}", ask);
    check_blocks(events, &n_blocks);
    cr_expect_eq(n_blocks, 1);
    json_decref(events);
}

Test(api_messages, keeps_to_a_schema)
{
    json_t *m = demo_post(&s, 200, "/v1/messages",
                          "{\"output_config\": {\"format\": {\"type\": \"json_schema\", \"schema\": {\"type\": "
                          "\"object\", \"properties\": {\"yes\": {\"type\": \"boolean\"}}, \"required\": [\"yes\"], "
                          "\"additionalProperties\": false}}}, " ASK "}");
    json_t *value = json_loads(json_text_at(m, "content.0.text"), 0, NULL);
    cr_expect(json_is_boolean(json_object_get(value, "yes")), "%s", json_text_at(m, "content.0.text"));
    json_decref(value);
    json_decref(m);
}

/* ---- errors ---- */

static void expect_error(int status, const char *type, const char *part, const char *body)
{
    json_t *e = demo_post(&s, status, "/v1/messages", "%s", body);
    cr_expect_str_eq(json_text_at(e, "type"), "error", "%s", body);
    cr_expect_str_eq(json_text_at(e, "error.type"), type, "%s", body);
    cr_expect(strstr(json_text_at(e, "error.message"), part), "%s: %s", body, json_text_at(e, "error.message"));
    json_decref(e);
}

static void expect_bad(const char *part, const char *body)
{
    expect_error(400, "invalid_request_error", part, body);
}

#define WITH(fields) "{\"model\": \"demo\", \"max_tokens\": 9, " fields "}"

Test(api_messages, says_what_is_wrong)
{
    expect_error(404, "not_found_error", "nobody",
                 "{\"model\": \"nobody\", \"max_tokens\": 9, \"messages\": [" USER("Hi") "]}");
    expect_bad("JSON", "{");
    expect_bad("max_tokens", "{\"model\": \"demo\", \"messages\": [" USER("Hi") "]}");
    expect_bad("messages", WITH("\"stream\": false"));
    expect_bad("messages", WITH("\"messages\": []"));
    expect_bad("messages[0].role", WITH("\"messages\": [{\"content\": \"Hi\"}]"));
    expect_bad("messages[0].content", WITH("\"messages\": [{\"role\": \"user\"}]"));
    expect_bad("messages[0].content[1].source.type",
               WITH("\"messages\": [" BLOCKS("user", TEXT("Hi") ", {\"type\": \"image\", \"source\": {}}") "]"));
    expect_bad("'text/plain' is no type of images",
               WITH("\"messages\": [" BLOCKS("user", "{\"type\": \"image\", \"source\": {\"type\": \"base64\", "
                                                     "\"media_type\": \"text/plain\", \"data\": \"Zg==\"}}") "]"));
    expect_bad("blocks of type 'document'", WITH("\"messages\": [" BLOCKS("user", "{\"type\": \"document\"}") "]"));
    expect_bad("'tool_use'", WITH("\"messages\": [" BLOCKS("user", "{\"type\": \"tool_use\"}") "]"));
    expect_bad("'x'",
               WITH("\"messages\": [" BLOCKS("user", "{\"type\": \"tool_result\", \"tool_use_id\": \"x\"}") "]"));
    json_t *m = demo_post(&s, 200, "/v1/messages",
                          WITH("\"thinking\": {\"type\": \"adaptive\", \"display\": "
                               "\"omitted\"}, \"messages\": [" USER("Hi") "]"));
    json_decref(m);
    expect_bad("think", WITH("\"thinking\": {\"type\": \"enabled\"}, \"messages\": [" USER("Hi") "]"));
    expect_bad("temperature", WITH("\"temperature\": 1.1, \"messages\": [" USER("Hi") "]"));
    expect_bad("stranger", WITH("\"stranger\": 1, \"messages\": [" USER("Hi") "]"));
    expect_bad("tools[0].input_schema", WITH("\"tools\": [{\"name\": \"f\"}], \"messages\": [" USER("Hi") "]"));
    expect_bad("web_search",
               WITH("\"tools\": [{\"type\": \"web_search\", \"name\": \"f\"}], \"messages\": [" USER("Hi") "]"));
    expect_bad("tool_choice.name",
               WITH(TOOLS ", \"tool_choice\": {\"type\": \"tool\"}, \"messages\": [" USER("Hi") "]"));
}
