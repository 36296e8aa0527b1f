/* JSON schemas against instances that fit or do not (tests/golden/json_schema), and schemas that are refused. */
#include <criterion/criterion.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "host/base/strbuf.h"
#include "host/grammar/json_schema.h"
#include "tests/unit/fail_alloc.h"
#include "tests/unit/matches.h"
#include "tests/unit/scratch.h"

#define FOLDER PL_TEST_DATA "/golden/json_schema/"

static json_t *read_golden(const char *name)
{
    char path[4096];
    json_error_t why;
    snprintf(path, sizeof path, FOLDER "%s", name);
    json_t *root = json_load_file(path, JSON_REJECT_DUPLICATES, &why);
    cr_assert(root, "%s: line %d: %s", path, why.line, why.text);
    return root;
}

static char *compact(const json_t *value)
{
    char *text = json_dumps(value, JSON_COMPACT | JSON_ENCODE_ANY | JSON_REAL_PRECISION(15));
    cr_assert(text);
    return text;
}

static pl_status compile(const char *text, pl_rules **rules, pl_error *err)
{
    size_t n = strlen(text);
    char *copy = (char *)exact_copy(text, n);
    pl_status status = pl_json_schema_compile(copy, n, rules, err);
    free(copy);
    return status;
}

static pl_matcher *matcher_for(const char *text)
{
    pl_rules *rules;
    pl_error err = {0};
    cr_assert_eq(compile(text, &rules, &err), PL_OK, "%s: %s", text, err.message);
    return matcher_of(rules);
}

/* ---- what fits and what does not ---- */

static size_t check_values(const json_t *one, const char *key, pl_matcher *matcher, bool expected)
{
    const json_t *list = json_object_get(one, key), *value;
    bool texts = strstr(key, "texts");
    size_t i;
    json_array_foreach(list, i, value)
    {
        char *text = texts ? strdup(json_string_value(value)) : compact(value);
        cr_expect_eq(matches(matcher, text), expected, "%s, %s: %s", json_string_value(json_object_get(one, "name")),
                     key, text);
        free(text);
    }
    return json_array_size(list);
}

static size_t check_schema(const json_t *one)
{
    static const struct {
        const char *key;
        bool expected;
    } lists[] = {{"valid", true},
                 {"valid_texts", true},
                 {"invalid", false},
                 {"invalid_texts", false},
                 {"narrower", false}}; /* the last: valid, but not written by us: see json_schema.h */
    char *schema = compact(json_object_get(one, "schema"));
    pl_matcher *matcher = matcher_for(schema);
    size_t n = 0;
    for (size_t i = 0; i < sizeof lists / sizeof *lists; i++)
        n += check_values(one, lists[i].key, matcher, lists[i].expected);
    pl_matcher_free(matcher);
    free(schema);
    return n;
}

static void check_file(const char *name, size_t least)
{
    json_t *root = read_golden(name), *one;
    size_t i, n = 0;
    json_array_foreach(root, i, one) n += check_schema(one);
    cr_expect_geq(n, least, "%s has only %zu instances", name, n);
    json_decref(root);
}

Test(json_schema, types)
{
    check_file("types.json", 80);
}

Test(json_schema, values)
{
    check_file("values.json", 50);
}

Test(json_schema, numbers)
{
    check_file("numbers.json", 150);
}

Test(json_schema, strings)
{
    check_file("strings.json", 120);
}

Test(json_schema, arrays)
{
    check_file("arrays.json", 60);
}

Test(json_schema, objects)
{
    check_file("objects.json", 90);
}

Test(json_schema, combined)
{
    check_file("combined.json", 80);
}

Test(json_schema, documents)
{
    check_file("documents.json", 50);
}

Test(json_schema, refused)
{
    json_t *root = read_golden("refused.json"), *one;
    size_t i;
    json_array_foreach(root, i, one)
    {
        char *schema = compact(json_object_get(one, "schema"));
        pl_status expected = json_is_true(json_object_get(one, "unsupported")) ? PL_ERR_UNSUPPORTED : PL_ERR_ARGUMENT;
        pl_rules *rules;
        pl_error err = {0};
        pl_status status = compile(schema, &rules, &err);
        cr_expect_eq(status, expected, "%s: %s", schema, err.message);
        cr_expect(strstr(err.message, json_string_value(json_object_get(one, "message"))), "%s: %s", schema,
                  err.message);
        free(schema);
    }
    cr_expect_gt(i, 40);
    json_decref(root);
}

Test(json_schema, not_json)
{
    static const char *const texts[] = {"",
                                        "{",
                                        "{\"type\":\"string\"} x",
                                        "{\"type\":1,\"type\":2}",
                                        "\xff",
                                        "{\"maximum\":99999999999999999999999999}"};
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        pl_rules *rules;
        pl_error err = {0};
        expect_failure(compile(texts[i], &rules, &err), PL_ERR_ARGUMENT, &err,
                       WORDS("JSON schema: not JSON", "line 1"));
    }
}

Test(json_schema, any_object)
{
    pl_rules *rules;
    pl_error err = {0};
    cr_assert_eq(pl_json_object_compile(&rules, &err), PL_OK, "%s", err.message);
    pl_matcher *matcher = matcher_of(rules);
    cr_expect(matches(matcher, "{}") && matches(matcher, "{\n  \"a\": [1, {\"b\": null}]\n}"));
    cr_expect(!matches(matcher, "[]") && !matches(matcher, "1") && !matches(matcher, "{\"a\"}"));
    pl_matcher_free(matcher);
}

/* An answer cannot be blanks without end. */
Test(json_schema, blanks_are_bounded)
{
    pl_matcher *matcher = matcher_for("{\"type\":\"array\",\"items\":{\"type\":\"null\"}}");
    char text[40];
    for (int blanks = 19; blanks <= 22; blanks++) {
        snprintf(text, sizeof text, "[\n%*snull]", blanks, "");
        cr_expect_eq(matches(matcher, text), blanks <= 20, "%d", blanks);
    }
    pl_matcher_free(matcher);
}

Test(json_schema, where)
{
    static const char schema[] = "{\"not\":1}";
    pl_rules *rules;
    pl_error err = {0};
    int32_t rule;
    cr_assert_eq(pl_rules_create(&rules, &err), PL_OK);
    expect_failure(pl_json_schema_add(rules, schema, strlen(schema), "/tools/3", &rule, &err), PL_ERR_UNSUPPORTED, &err,
                   WORDS("\"/tools/3/not\""));
    pl_rules_free(rules);
}

/* ---- hostile schemas ---- */

/* text, n times. */
static void add_times(pl_strbuf *buf, const char *text, size_t n)
{
    for (size_t i = 0; i < n; i++)
        pl_strbuf_add_text(buf, text);
}

static void expect_refused(pl_strbuf *schema, pl_status expected, const char *word)
{
    pl_rules *rules;
    pl_error err = {0};
    expect_failure(compile(schema->data, &rules, &err), expected, &err, WORDS(word));
    pl_strbuf_free(schema);
}

Test(json_schema, deep)
{
    pl_strbuf items = {0}, all = {0}, too_deep = {0};
    add_times(&items, "{\"items\":", 1500);
    pl_strbuf_add_text(&items, "{}");
    add_times(&items, "}", 1500);
    pl_rules *rules;
    pl_error err = {0};
    cr_expect_eq(compile(items.data, &rules, &err), PL_OK, "%s", err.message);
    pl_rules_free(rules);
    pl_strbuf_free(&items);
    add_times(&all, "{\"allOf\":[", 500);
    pl_strbuf_add_text(&all, "{}");
    add_times(&all, "]}", 500);
    expect_refused(&all, PL_ERR_UNSUPPORTED, "leads to too many schemas");
    add_times(&too_deep, "[", 100000);
    expect_refused(&too_deep, PL_ERR_ARGUMENT, "not JSON");
}

/* Each definition has the next twice: 2^60 ways, 60 rules. */
Test(json_schema, references_that_double)
{
    pl_strbuf schema = {0};
    pl_strbuf_add_text(&schema, "{\"$ref\":\"#/$defs/0\",\"$defs\":{");
    for (int i = 0; i < 60; i++)
        pl_strbuf_printf(
            &schema,
            "\"%d\":{\"type\":\"array\",\"prefixItems\":[{\"$ref\":\"#/$defs/%d\"},{\"$ref\":\"#/$defs/%d\"}]},", i,
            i + 1, i + 1);
    pl_strbuf_add_text(&schema, "\"60\":{}}}");
    pl_rules *rules;
    pl_error err = {0};
    cr_expect_eq(compile(schema.data, &rules, &err), PL_OK, "%s", err.message);
    pl_rules_free(rules);
    pl_strbuf_free(&schema);
}

/* 8^40 ways to choose an alternative of each. */
Test(json_schema, alternatives_that_multiply)
{
    pl_strbuf schema = {0};
    pl_strbuf_add_text(&schema, "{\"allOf\":[");
    for (int i = 0; i < 40; i++) {
        pl_strbuf_printf(&schema, "%s{\"anyOf\":[", i ? "," : "");
        for (int k = 0; k < 8; k++)
            pl_strbuf_printf(&schema, "%s{\"minLength\":%d}", k ? "," : "", i * 8 + k);
        pl_strbuf_add_text(&schema, "]}");
    }
    pl_strbuf_add_text(&schema, "]}");
    expect_refused(&schema, PL_ERR_UNSUPPORTED, "too large");
}

Test(json_schema, many_optional_properties_and_counts)
{
    pl_strbuf schema = {0};
    pl_strbuf_add_text(&schema, "{\"type\":\"object\",\"maxProperties\":900,\"properties\":{");
    for (int i = 0; i < 1000; i++)
        pl_strbuf_printf(&schema, "%s\"p%d\":{}", i ? "," : "", i);
    pl_strbuf_add_text(&schema, "}}");
    expect_refused(&schema, PL_ERR_UNSUPPORTED, "too large");
}

Test(json_schema, many_parts)
{
    pl_strbuf schema = {0};
    pl_strbuf_add_text(&schema, "{\"allOf\":[");
    for (int i = 0; i < 1000; i++)
        pl_strbuf_printf(&schema, "%s{\"minLength\":%d}", i ? "," : "", i);
    pl_strbuf_add_text(&schema, "]}");
    expect_refused(&schema, PL_ERR_UNSUPPORTED, "more than 64 schemas");
}

/* ---- memory ---- */

static pl_status compile_all(void *ctx, pl_error *err)
{
    static const char schema[] =
        "{\"$ref\":\"#/$defs/a\",\"$defs\":{\"a\":{\"type\":\"object\",\"properties\":{\"s\":{\"type\":\"string\",\"pattern\":"
        "\"^[^a]+$\",\"maxLength\":5},\"n\":{\"anyOf\":[{\"$ref\":\"#\"},{\"type\":\"null\"}]},\"t\":{\"prefixItems\":[{"
        "\"type\":\"number\",\"minimum\":0.5}]},\"e\":{\"enum\":[1,\"a\",[null]]}},\"required\":[\"s\"],"
        "\"additionalProperties\":{\"type\":\"integer\"}}}}";
    pl_rules *rules = NULL;
    (void)ctx;
    pl_status status = pl_json_schema_compile(schema, strlen(schema), &rules, err);
    pl_rules_free(rules);
    return status;
}

Test(json_schema, no_memory)
{
    cr_expect_gt(fail_alloc_each(compile_all, NULL), 40);
}
