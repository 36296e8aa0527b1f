#include "host/batch/record.h"
#include "tests/unit/scratch.h"

#include <jansson.h>

static char *response(const char *body)
{
    char *record;
    size_t size;
    cr_assert_eq(pl_record_response("batch_req_1", "a \"b\"", 200, "req_7", body, strlen(body), &record, &size, NULL),
                 PL_OK);
    cr_assert_eq(strlen(record), size);
    cr_assert_eq(strchr(record, '\n'), record + size - 1);
    return record;
}

Test(record, holds_a_response)
{
    char *record = response("{\"x\": [1.50, \"\\n\"]}");
    cr_assert_str_eq(record, "{\"id\":\"batch_req_1\",\"custom_id\":\"a \\\"b\\\"\",\"response\":{\"status_code\":200,"
                             "\"request_id\":\"req_7\",\"body\":{\"x\": [1.50, \"\\n\"]}},\"error\":null}\n");
    free(record);
}

Test(record, is_one_line_whatever_the_body)
{
    char *record = response("{\n  \"x\":\r\n 1\n}\n");
    json_t *root = json_loads(record, 0, NULL);
    cr_assert_eq(json_integer_value(json_object_get(json_object_get(json_object_get(root, "response"), "body"), "x")),
                 1);
    json_decref(root);
    free(record);
    record = response("");
    cr_assert_not_null(strstr(record, "\"body\":null"));
    free(record);
}

Test(record, holds_a_fault)
{
    const pl_line_fault fault = {.code = "invalid_url", .param = "url", .message = "'\xff' is \"none\""};
    const pl_line_fault whole = {.code = "line_too_long", .message = "long"};
    char *record;
    size_t n;
    cr_assert_eq(pl_record_fault("batch_req_2", "a", 12, &fault, &record, &n, NULL), PL_OK);
    cr_assert_eq(strlen(record), n);
    cr_assert_str_eq(
        record, "{\"id\":\"batch_req_2\",\"custom_id\":\"a\",\"response\":null,\"error\":{\"code\":\"invalid_url\","
                "\"message\":\"'\xef\xbf\xbd' is \\\"none\\\"\",\"line\":12,\"param\":\"url\"}}\n");
    free(record);
    cr_assert_eq(pl_record_fault("batch_req_2", NULL, 12, &whole, &record, &n, NULL), PL_OK);
    cr_assert_not_null(strstr(record, "\"custom_id\":null"));
    cr_assert_not_null(strstr(record, "\"param\":null"));
    free(record);
}

Test(record, ids_are_those_of_line_and_text)
{
    char a[PL_RECORD_ID_BYTES], b[PL_RECORD_ID_BYTES];
    pl_record_id(1, 3, "text", 4, a);
    pl_record_id(1, 3, "text", 4, b);
    cr_assert_str_eq(a, b);
    cr_assert_eq(strlen(a), strlen("batch_req_") + 24);
    pl_record_id(1, 4, "text", 4, b);
    cr_assert_str_neq(a, b);
    pl_record_id(1, 3, "texu", 4, b);
    cr_assert_str_neq(a, b);
    pl_record_id(1, 3, NULL, 0, b);
    cr_assert_str_neq(a, b);
    pl_record_id(2, 3, "text", 4, b);
    cr_assert_str_neq(a, b);
    cr_assert_neq(pl_record_seed("path e4b"), pl_record_seed("path e2b"));
}
