#include <criterion/criterion.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "host/base/json_out.h"

static void gives(pl_json *json, const char *expected)
{
    char *text;
    size_t n;
    pl_error err = {0};
    cr_assert_eq(pl_json_take(json, &text, &n, &err), PL_OK, "%s", err.message);
    cr_assert_str_eq(text, expected);
    cr_assert_eq(n, strlen(expected));
    free(text);
}

static void string_gives(const char *text, size_t n, const char *expected)
{
    pl_json json = pl_json_to_buffer();
    pl_json_text(&json, text, n);
    gives(&json, expected);
}

Test(json_out, structure)
{
    pl_json json = pl_json_to_buffer();
    pl_json_begin_object(&json);
    pl_json_key(&json, "a");
    pl_json_begin_array(&json);
    pl_json_int(&json, 1);
    pl_json_begin_object(&json);
    pl_json_end_object(&json);
    pl_json_begin_array(&json);
    pl_json_end_array(&json);
    pl_json_bool(&json, true);
    pl_json_end_array(&json);
    pl_json_key(&json, "b\n");
    pl_json_string(&json, NULL);
    pl_json_key(&json, "c");
    pl_json_bool(&json, false);
    pl_json_end_object(&json);
    pl_json_newline(&json);
    pl_json_null(&json);
    gives(&json, "{\"a\":[1,{},[],true],\"b\\n\":null,\"c\":false}\nnull");
}

Test(json_out, keys_with_values)
{
    pl_json json = pl_json_to_buffer();
    pl_json_begin_object(&json);
    pl_json_put_string(&json, "s", "x");
    pl_json_put_string(&json, "n", NULL);
    pl_json_put_int(&json, "i", -3);
    pl_json_put_size(&json, "z", 7);
    pl_json_key_array(&json, "a");
    pl_json_int(&json, 1);
    pl_json_raw(&json, "{\"x\":[]}", 8);
    pl_json_end_array(&json);
    pl_json_key_object(&json, "o");
    pl_json_put_double(&json, "d", 0.5);
    pl_json_end_object(&json);
    pl_json_put_bool(&json, "b", true);
    pl_json_end_object(&json);
    gives(&json, "{\"s\":\"x\",\"n\":null,\"i\":-3,\"z\":7,\"a\":[1,{\"x\":[]}],\"o\":{\"d\":0.5},\"b\":true}");
}

/* RFC 4648, section 10 */
Test(json_out, base64)
{
    pl_json json = pl_json_to_buffer();
    pl_json_begin_array(&json);
    for (size_t n = 0; n <= 6; n++)
        pl_json_base64(&json, "foobar", n);
    pl_json_base64(&json, "\xff\xfe\xfb", 3);
    pl_json_end_array(&json);
    gives(&json, "[\"\",\"Zg==\",\"Zm8=\",\"Zm9v\",\"Zm9vYg==\",\"Zm9vYmE=\",\"Zm9vYmFy\",\"//77\"]");
}

Test(json_out, escapes)
{
    string_gives("", 0, "\"\"");
    string_gives("a\"b\\c/d", 7, "\"a\\\"b\\\\c/d\"");
    string_gives("\b\t\n\v\f\r\0\x1f\x7f", 9, "\"\\b\\t\\n\\u000b\\f\\r\\u0000\\u001f\x7f\"");
    string_gives("é€😀", 9, "\"é€😀\"");
}

Test(json_out, bytes_that_are_not_utf8)
{
#define R "\xef\xbf\xbd"
    string_gives("a\xff"
                 "b",
                 3, "\"a" R "b\"");
    string_gives("\x80\xc0\xaf", 3, "\"" R R R "\"");
    string_gives("\xed\xa0\x80", 3, "\"" R R R "\""); /* a surrogate */
    string_gives("\xe0\x80\x80", 3, "\"" R R R "\""); /* overlong */
    string_gives("\xf4\x90\x80\x80", 4, "\"" R R R R "\"");
    string_gives("\xf0\x9f\x98", 3, "\"" R "\""); /* the beginning of a character */
    string_gives("\xf0\x9f\x98X", 4, "\"" R "X\"");
    string_gives("\xe2\x82\xc3\xa9", 4, "\"" R "é\"");
    string_gives("\xc3", 1, "\"" R "\"");
}

Test(json_out, numbers)
{
    pl_json json = pl_json_to_buffer();
    pl_json_begin_array(&json);
    pl_json_int(&json, INT64_MIN);
    pl_json_int(&json, INT64_MAX);
    pl_json_double(&json, 0.1);
    pl_json_double(&json, 1);
    pl_json_double(&json, -0.0);
    pl_json_double(&json, 1e300);
    pl_json_double(&json, 5e-324);
    pl_json_double(&json, NAN);
    pl_json_double(&json, -INFINITY);
    pl_json_float(&json, 0.1f);
    pl_json_float(&json, 16777216.0f);
    pl_json_float(&json, INFINITY);
    pl_json_end_array(&json);
    gives(&json, "[-9223372036854775808,9223372036854775807,0.1,1,-0,1e+300,4.94065645841247e-324,null,null,0.1,"
                 "16777216,null]");
}

Test(json_out, doubles_read_back_equal)
{
    uint64_t bits = 88172645463325252u;
    for (int i = 0; i < 20000; i++) {
        bits ^= bits << 13;
        bits ^= bits >> 7;
        bits ^= bits << 17;
        double value;
        memcpy(&value, &bits, sizeof value);
        if (!isfinite(value))
            continue;
        char *text;
        pl_json json = pl_json_to_buffer();
        pl_json_double(&json, value);
        cr_assert_eq(pl_json_take(&json, &text, NULL, NULL), PL_OK);
        cr_assert_eq(strtod(text, NULL), value, "%s", text);
        free(text);
    }
}

Test(json_out, to_a_file)
{
    char *text = NULL;
    size_t n = 0;
    FILE *file = open_memstream(&text, &n);
    pl_json json = pl_json_to_file(file);
    pl_json_begin_array(&json);
    pl_json_string(&json, "x");
    pl_json_end_array(&json);
    cr_assert_eq(pl_json_flush(&json, "memory", NULL), PL_OK);
    cr_assert_str_eq(text, "[\"x\"]");
    fclose(file);
    free(text);
}

Test(json_out, full_disk)
{
    FILE *file = fopen("/dev/full", "w");
    if (!file)
        return;
    pl_error err;
    pl_json json = pl_json_to_file(file);
    pl_json_int(&json, 1);
    cr_assert_eq(pl_json_flush(&json, "/dev/full", &err), PL_ERR_IO);
    cr_assert_not_null(strstr(err.message, "/dev/full: cannot write: No space left"), "%s", err.message);
    fclose(file);
}

Test(strbuf, grows)
{
    pl_strbuf buf = {0};
    for (int i = 0; i < 1000; i++)
        pl_strbuf_printf(&buf, "%d,", i);
    pl_strbuf_add_text(&buf, "end");
    cr_assert_eq(buf.n, 10 * 2 + 90 * 3 + 900 * 4 + 3);
    cr_assert_str_eq(buf.data + buf.n - 7, "999,end");
    pl_strbuf_clear(&buf);
    cr_assert_eq(buf.n, 0);
    char *text;
    size_t n;
    cr_assert_eq(pl_strbuf_take(&buf, &text, &n, NULL), PL_OK);
    cr_assert_str_eq(text, "");
    free(text);
    cr_assert_eq(pl_strbuf_take(&buf, &text, NULL, NULL), PL_OK);
    cr_assert_str_eq(text, "");
    free(text);
}
