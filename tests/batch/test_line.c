#include "host/batch/line.h"
#include "tests/unit/scratch.h"

#define LINE(members)                                                                                                  \
    "{\"custom_id\": \"a\", \"method\": \"POST\", \"url\": \"/v1/completions\", \"body\": {}" members "}"

static pl_status parse(const char *text, pl_batch_line *line, pl_line_fault *fault)
{
    unsigned char *exact = exact_copy(text, strlen(text));
    pl_status status = pl_batch_line_parse((const char *)exact, strlen(text), line, fault, NULL);
    free(exact);
    return status;
}

Test(line, gives_id_url_and_body)
{
    pl_batch_line line;
    pl_line_fault fault;
    cr_assert_eq(
        parse("{\"body\": {\"prompt\": \"x\", \"stream\": false}, \"url\": \"/v1/embeddings\", \"method\": \"POST\","
              " \"custom_id\": \"q \\u00e9 1\", \"priority\": 3}",
              &line, &fault),
        PL_OK);
    cr_assert_str_eq(line.custom_id, "q \xc3\xa9 1");
    cr_assert_str_eq(line.url, "/v1/embeddings");
    cr_assert_str_eq(json_string_value(json_object_get(line.body, "prompt")), "x");
    pl_batch_line_free(&line);
}

static void expect_fault(const char *text, const char *code, const char *param, const char *id, const char *words)
{
    pl_batch_line line;
    pl_line_fault fault;
    cr_assert_eq(parse(text, &line, &fault), PL_ERR_FORMAT, "%s", text);
    cr_assert_str_eq(fault.code, code, "%s: %s", text, fault.message);
    cr_assert(param ? fault.param && strcmp(fault.param, param) == 0 : !fault.param, "%s", text);
    cr_assert(id ? line.custom_id && strcmp(line.custom_id, id) == 0 : !line.custom_id, "%s", text);
    cr_assert_not_null(strstr(fault.message, words), "%s", fault.message);
    pl_batch_line_free(&line);
}

Test(line, names_what_is_no_object)
{
    expect_fault("{\"custom_id\": \"a\", ", "invalid_json_line", NULL, NULL, "byte 19");
    expect_fault("", "invalid_json_line", NULL, NULL, "not valid JSON");
    expect_fault("{} {}", "invalid_json_line", NULL, NULL, "byte 4");
    expect_fault("[1]", "invalid_json_line", NULL, NULL, "an array");
    expect_fault("7", "invalid_json_line", NULL, NULL, "an integer");
    expect_fault("{\"custom_id\": \"\xff\"}", "invalid_json_line", NULL, NULL, "byte 0xff");
}

Test(line, names_members_that_are_wrong)
{
    expect_fault("{\"method\": \"POST\"}", "missing_required_parameter", "custom_id", NULL, "'custom_id'");
    expect_fault("{\"custom_id\": null}", "missing_required_parameter", "custom_id", NULL, "'custom_id'");
    expect_fault("{\"custom_id\": 7}", "invalid_type", "custom_id", NULL, "an integer");
    expect_fault("{\"custom_id\": \"\"}", "invalid_value", "custom_id", NULL, "empty");
    expect_fault("{\"custom_id\": \"a\\u0000b\"}", "invalid_value", "custom_id", NULL, "NUL");
    expect_fault("{\"custom_id\": \"a\"}", "missing_required_parameter", "method", "a", "'method'");
    expect_fault(LINE(", \"method\": \"GET\""), "unsupported_value", "method", "a", "'GET'");
    expect_fault(LINE(", \"method\": [\"POST\"]"), "invalid_type", "method", "a", "an array");
    expect_fault(LINE(", \"url\": \"/v1/images\""), "invalid_url", "url", "a", "'/v1/images'");
    expect_fault(LINE(", \"url\": null"), "missing_required_parameter", "url", "a", "'url'");
    expect_fault(LINE(", \"body\": \"{}\""), "invalid_type", "body", "a", "a string");
    expect_fault(LINE(", \"body\": null"), "missing_required_parameter", "body", "a", "'body'");
    expect_fault(LINE(", \"body\": {\"stream\": true}"), "unsupported_value", "body.stream", "a", "streamed");
}

Test(line, custom_id_has_512_bytes_at_most)
{
    char id[PL_LINE_ID_BYTES + 2], text[2000];
    for (int n = PL_LINE_ID_BYTES; n <= PL_LINE_ID_BYTES + 1; n++) {
        memset(id, 'i', sizeof id);
        id[n] = '\0';
        snprintf(text, sizeof text, LINE(", \"custom_id\": \"%s\""), id);
        if (n > PL_LINE_ID_BYTES) {
            expect_fault(text, "invalid_value", "custom_id", NULL, "513 bytes");
            continue;
        }
        pl_batch_line line;
        pl_line_fault fault;
        cr_assert_eq(parse(text, &line, &fault), PL_OK);
        cr_assert_str_eq(line.custom_id, id);
        pl_batch_line_free(&line);
    }
}

Test(line, long_values_are_cut_in_messages)
{
    char url[1001], text[2000];
    memset(url, 'u', 1000);
    url[1000] = '\0';
    snprintf(text, sizeof text, LINE(", \"url\": \"%s\""), url);
    url[101] = '\'';
    expect_fault(text, "invalid_url", "url", "a", "expected one of /v1/chat/completions");
}

Test(line, nesting_without_end_is_refused)
{
    char text[100000];
    memset(text, '[', sizeof text - 1);
    text[sizeof text - 1] = '\0';
    expect_fault(text, "invalid_json_line", NULL, NULL, "depth");
}
