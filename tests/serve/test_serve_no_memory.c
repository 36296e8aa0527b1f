/* What the server reads and writes, when allocations fail. jansson's do not: it cannot bear it. */
#include "host/serve/chat_messages.h"
#include "host/serve/tool_calls.h"
#include "tests/unit/fail_alloc.h"

#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

static pl_model *model;

static void start(void)
{
    pl_error err;
    cr_assert_eq(pl_model_open_text(PL_TEST_DATA "/../tools/demo_model/demo.gguf", &model, &err), PL_OK, "%s",
                 err.message);
}

static void stop(void)
{
    pl_model_close(model);
}

TestSuite(serve_no_memory, .init = start, .fini = stop);

static pl_status status_of(const pl_api_error *error, pl_error *err)
{
    if (!error->status)
        return PL_OK;
    cr_assert_eq(error->status, 503, "%d %s", error->status, error->message);
    return pl_fail_memory(err, 0, "a body");
}

/* ---- bodies ------------------------------------------------------------------------------------ */

static const char chat[] =
    "{\"messages\": [{\"role\": \"system\", \"content\": [{\"type\": \"text\", \"text\": \"Be brief.\"}]},"
    "{\"role\": \"user\", \"content\": \"What is the weather in Paris and in Rome?\"},"
    "{\"role\": \"assistant\", \"content\": \"Let me look.\", \"tool_calls\": ["
    "{\"id\": \"a\", \"type\": \"function\", \"function\": {\"name\": \"f\", \"arguments\": \"{\\\"x\\\": 1}\"}},"
    "{\"id\": \"b\", \"type\": \"function\", \"function\": {\"name\": \"g\", \"arguments\": \"{}\"}}]},"
    "{\"role\": \"tool\", \"tool_call_id\": \"a\", \"content\": \"sunny\"},"
    "{\"role\": \"tool\", \"tool_call_id\": \"b\", \"content\": \"{\\\"t\\\": 3}\"}]}";

static void read_chat(json_t *root, pl_conversation *c, pl_api_error *error)
{
    pl_fields f = pl_fields_of(root, error, "%s", "");
    pl_chat_messages_read(&f, c);
    pl_fields_done(&f);
}

static pl_status as_text(pl_conversation *c, pl_error *err)
{
    static char *expected;
    char *text;
    size_t n;
    PL_TRY(pl_conversation_text(c, model, true, &text, &n, err));
    if (!expected)
        expected = text;
    cr_assert_str_eq(text, expected, "something is missing");
    if (text != expected)
        pl_text_free(text);
    return PL_OK;
}

static pl_status read_body(void *ctx, pl_error *err)
{
    (void)ctx;
    pl_api_error error = {0};
    pl_conversation *c = NULL;
    PL_TRY(pl_conversation_create(&c, err));
    json_t *root = pl_fields_parse(chat, sizeof chat - 1, &error);
    if (root)
        read_chat(root, c, &error);
    json_decref(root);
    pl_status status = status_of(&error, err);
    if (status == PL_OK)
        status = as_text(c, err);
    pl_conversation_free(c);
    return status;
}

Test(serve_no_memory, bodies)
{
    pl_error err;
    cr_assert_eq(read_body(NULL, &err), PL_OK, "%s", err.message); /* what is expected */
    cr_assert_gt(fail_alloc_each(read_body, NULL), 30);
}

/* ---- calls in an answer ------------------------------------------------------------------------ */

typedef struct heard {
    int begun, ended;
    size_t content, arguments;
} heard;

static void on_content(void *user, const char *text, size_t n)
{
    (void)text;
    ((heard *)user)->content += n;
}

static void on_begin(void *user, int32_t index, const char *name)
{
    cr_assert_str_eq(name, index ? "g" : "f");
    ((heard *)user)->begun++;
}

static void on_arguments(void *user, int32_t index, const char *text, size_t n)
{
    (void)index;
    (void)text;
    ((heard *)user)->arguments += n;
}

static void on_end(void *user, int32_t index)
{
    (void)index;
    ((heard *)user)->ended++;
}

static pl_status parse_calls(void *ctx, pl_error *err)
{
    (void)ctx;
    static const char text[] = "```json\n[{\"name\": \"f\", \"parameters\": {\"city\": \"Paris\", \"days\": [1, 2]}},"
                               " {\"name\": \"g\", \"parameters\": {}}]\n```";
    heard h = {0};
    const pl_tool_sink sink = {&h, on_content, on_begin, on_arguments, on_end};
    pl_tool_parser parser = {0};
    for (size_t i = 0; i < sizeof text - 1 && !parser.held.failed; i += 3)
        pl_tool_parse(&parser, text + i, sizeof text - 1 - i < 3 ? sizeof text - 1 - i : 3, &sink);
    bool failed = parser.held.failed;
    if (!failed)
        pl_tool_parse_end(&parser, &sink);
    pl_tool_parser_free(&parser);
    if (failed)
        return pl_fail_memory(err, 0, "an answer");
    cr_assert(h.begun == 2 && h.ended == 2 && h.content == 0 && h.arguments == 35, "%d calls, %zu bytes of content",
              h.begun, h.content);
    return PL_OK;
}

Test(serve_no_memory, calls)
{
    cr_assert_gt(fail_alloc_each(parse_calls, NULL), 0);
}

/* ---- errors ------------------------------------------------------------------------------------ */

static pl_status put_error(void *ctx, pl_error *err)
{
    (void)ctx;
    const pl_api_error error = {.status = 400, .code = "invalid_value", .param = "messages", .message = "wrong"};
    pl_json json = pl_json_to_buffer();
    char *text;
    pl_json_begin_object(&json);
    pl_api_put_error(&json, &error);
    pl_api_put_anthropic_error(&json, &error);
    pl_json_end_object(&json);
    PL_TRY(pl_json_take(&json, &text, NULL, err));
    free(text);
    return PL_OK;
}

Test(serve_no_memory, errors)
{
    cr_assert_gt(fail_alloc_each(put_error, NULL), 2);
}
