#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>

#include "host/serve/fields.h"

static json_t *parse(const char *text)
{
    pl_api_error error = {0};
    json_t *root = pl_fields_parse(text, strlen(text), &error);
    cr_assert_not_null(root, "%s: %s", text, error.message);
    return root;
}

Test(fields, values)
{
    static const char *const words[] = {"low", "high", NULL};
    json_t *root = parse("{\"a\": 1.5, \"b\": 7, \"c\": true, \"d\": \"text\", \"e\": \"high\", \"f\": {\"x\": 1},"
                         " \"g\": [\"s\"], \"h\": null, \"i\": {}}");
    pl_api_error error = {0};
    pl_fields f = pl_fields_of(root, &error, "%s", "");
    cr_assert_eq(pl_field_number(&f, "a", 0, 0, 2), 1.5);
    cr_assert_eq(pl_field_number(&f, "b", 0, 7, 7), 7);
    cr_assert_eq(pl_field_int(&f, "b", 0, 7, 7), 7);
    cr_assert(pl_field_bool(&f, "c", false));
    cr_assert_str_eq(pl_field_text(&f, "d", ""), "text");
    cr_assert_eq(pl_field_choice(&f, "e", 0, words), 1);
    cr_assert(json_is_object(pl_field_object(&f, "f")));
    cr_assert_str_eq(pl_field_text_at(&f, "g", pl_field_array(&f, "g", 1), 0), "s");
    cr_assert_not(pl_field_given(&f, "h"));
    cr_assert_eq(pl_field_int(&f, "h", -3, 0, 1), -3);
    cr_assert_str_eq(pl_field_text(&f, "nothing", "preset"), "preset");
    cr_assert_null(pl_field_object(&f, "nothing"));
    pl_field_ignore(&f, "i");
    cr_assert(pl_fields_done(&f), "%s", error.message);
    json_decref(root);
}

/* Which read of which body is to give which error. */
typedef struct wrong {
    const char *body;
    char
        read; /* n number 0..2, i int 1..4, b bool, t text, r required text, c choice, o object, a array of 2, - none */
    const char *code, *param, *message;
} wrong;

static void read_x(pl_fields *f, char read)
{
    static const char *const words[] = {"low", "medium", "high", NULL};
    switch (read) {
    case 'n': pl_field_number(f, "x", 0, 0, 2); break;
    case 'i': pl_field_int(f, "x", 1, 1, 4); break;
    case 'b': pl_field_bool(f, "x", false); break;
    case 't': pl_field_text(f, "x", NULL); break;
    case 'r': pl_field_required_text(f, "x"); break;
    case 'c': pl_field_choice(f, "x", 0, words); break;
    case 'o': pl_field_object(f, "x"); break;
    case 'a': pl_field_array(f, "x", 2); break;
    default: break;
    }
}

Test(fields, errors_are_worded_as_openai_words_them)
{
    static const wrong cases[] = {
        {"{\"x\": \"1\"}", 'n', "invalid_type", "x",
         "Invalid type for 'x': expected a decimal, but got a string instead."},
        {"{\"x\": 1.0}", 'i', "invalid_type", "x",
         "Invalid type for 'x': expected an integer, but got a decimal number instead."},
        {"{\"x\": [1]}", 'b', "invalid_type", "x",
         "Invalid type for 'x': expected a boolean, but got an array instead."},
        {"{\"x\": {}}", 't', "invalid_type", "x",
         "Invalid type for 'x': expected a string, but got an object instead."},
        {"{\"x\": 2}", 'o', "invalid_type", "x",
         "Invalid type for 'x': expected an object, but got an integer instead."},
        {"{\"x\": false}", 'a', "invalid_type", "x",
         "Invalid type for 'x': expected an array, but got a boolean instead."},
        {"{\"x\": 2.5}", 'n', "decimal_above_max_value", "x",
         "Invalid 'x': decimal above maximum value. Expected a value <= 2, but got 2.5 instead."},
        {"{\"x\": -1}", 'n', "decimal_below_min_value", "x",
         "Invalid 'x': decimal below minimum value. Expected a value >= 0, but got -1 instead."},
        {"{\"x\": 0}", 'i', "integer_below_min_value", "x",
         "Invalid 'x': integer below minimum value. Expected a value >= 1, but got 0 instead."},
        {"{\"x\": 5}", 'i', "integer_above_max_value", "x",
         "Invalid 'x': integer above maximum value. Expected a value <= 4, but got 5 instead."},
        {"{\"x\": \"huge\"}", 'c', "invalid_value", "x",
         "Invalid value: 'huge'. Supported values are: 'low', 'medium', and 'high'."},
        {"{\"x\": [1, 2, 3]}", 'a', "array_above_max_length", "x",
         "Invalid 'x': array too long. Expected an array with maximum length 2, but got an array with length 3 "
         "instead."},
        {"{\"x\": \"a\\u0000b\"}", 't', "invalid_value", "x", "Invalid 'x': NUL characters are not supported."},
        {"{}", 'r', "missing_required_parameter", "x", "Missing required parameter: 'x'."},
        {"{\"x\": null}", 'r', "missing_required_parameter", "x", "Missing required parameter: 'x'."},
        {"{\"y\": 1}", '-', "unknown_parameter", "y", "Unrecognized request argument supplied: y"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        json_t *root = parse(cases[i].body);
        pl_api_error error = {0};
        pl_fields f = pl_fields_of(root, &error, "%s", "");
        read_x(&f, cases[i].read);
        cr_assert_not(pl_fields_done(&f), "%s", cases[i].body);
        cr_assert_eq(error.status, 400);
        cr_assert_str_eq(error.code, cases[i].code);
        cr_assert_str_eq(error.param, cases[i].param);
        cr_assert_str_eq(error.message, cases[i].message);
        json_decref(root);
    }
}

Test(fields, names_of_inner_fields)
{
    json_t *root = parse("{\"list\": [{\"x\": 1}, {\"x\": [\"a\", 2], \"z\": 0}]}");
    pl_api_error error = {0};
    pl_fields outer = pl_fields_of(root, &error, "%s", "");
    json_t *list = pl_field_array(&outer, "list", 10);
    pl_fields f = pl_fields_of(json_array_get(list, 1), &error, "list[%d]", 1);
    pl_field_text_at(&f, "x", pl_field_array(&f, "x", 3), 1);
    cr_assert_str_eq(error.param, "list[1].x[1]");
    cr_assert_str_eq(error.message, "Invalid type for 'list[1].x[1]': expected a string, but got an integer instead.");
    error = (pl_api_error){0};
    cr_assert_not(pl_fields_done(&f));
    cr_assert_str_eq(error.param, "list[1].z");
    cr_assert_str_eq(error.message, "Unknown parameter: 'list[1].z'.");
    error = (pl_api_error){0};
    pl_fields_of(json_object_get(json_array_get(list, 0), "x"), &error, "list[0].x");
    cr_assert_str_eq(error.message, "Invalid type for 'list[0].x': expected an object, but got an integer instead.");
    json_decref(root);
}

Test(fields, the_first_error_counts)
{
    json_t *root = parse("{\"x\": \"1\", \"y\": \"2\", \"z\": 3}");
    pl_api_error error = {0};
    pl_fields f = pl_fields_of(root, &error, "%s", "");
    cr_assert_eq(pl_field_int(&f, "x", 11, 0, 99), 11);
    cr_assert_eq(pl_field_int(&f, "y", 12, 0, 99), 12);
    cr_assert_eq(pl_field_int(&f, "z", 13, 0, 99), 13, "after an error, values are presets");
    cr_assert_str_eq(error.param, "x");
    json_decref(root);
}

Test(fields, bodies)
{
    static const char *const bad[] = {"", "{", "{\"a\": }", "{\"a\": 1} x", "\"\xff\"", "[1]", "1", "null"};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        pl_api_error error = {0};
        cr_assert_null(pl_fields_parse(bad[i], strlen(bad[i]), &error), "%s", bad[i]);
        cr_assert_eq(error.status, 400);
        cr_assert_neq(error.message[0], '\0');
    }
    pl_api_error error = {0};
    char deep[6000];
    memset(deep, '[', sizeof deep);
    cr_assert_null(pl_fields_parse(deep, sizeof deep, &error));
    cr_assert_eq(error.status, 400);
}

Test(fields, an_object_of_too_many_fields_is_refused)
{
    char text[8192] = "{\"f0\": 0";
    for (int i = 1; i < 300; i++)
        snprintf(text + strlen(text), sizeof text - strlen(text), ", \"f%d\": 0", i);
    strcat(text, "}");
    json_t *root = parse(text);
    pl_api_error error = {0};
    pl_fields f = pl_fields_of(root, &error, "%s", "");
    pl_field_int(&f, "f0", 0, 0, 1);
    cr_assert_not(pl_fields_done(&f));
    cr_assert_str_eq(error.param, "f1");
    json_decref(root);
}
