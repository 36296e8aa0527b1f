/* Models, embeddings and the text functions over a real connection; the description of the API against what is served. */
#include "tests/serve/demo_server.h"

#include <criterion/criterion.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "host/serve/routes.h"

static demo_server s;

static void start(void)
{
    demo_start(&s);
}

static void stop(void)
{
    demo_stop(&s);
}

TestSuite(api_text, .init = start, .fini = stop);

/* ---- models ---- */

Test(api_text, lists_the_model_by_its_paths)
{
    static const char *const ids[] = {"demo", "demo:auto", "demo:e4b", "demo:mix", "demo:e2b"};
    static const char *const paths[] = {"e4b", "auto", "e4b", "mix", "e2b"};
    json_t *list = demo_get(&s, 200, "/v1/models");
    cr_assert_eq(json_array_size(json_at(list, "data")), 5);
    for (size_t i = 0; i < 5; i++) {
        const json_t *entry = json_array_get(json_at(list, "data"), i);
        char url[64];
        cr_expect_str_eq(json_text_at(entry, "id"), ids[i]);
        cr_expect_str_eq(json_text_at(entry, "pleiad.path"), paths[i]);
        snprintf(url, sizeof url, "/v1/models/%s", ids[i]);
        json_t *alone = demo_get(&s, 200, url);
        cr_expect(json_equal(alone, entry), "%s", url);
        json_decref(alone);
    }
    cr_expect_str_eq(json_text_at(list, "last_id"), ids[4]);
    json_decref(list);
    json_t *escaped = demo_get(&s, 200, "/v1/models/demo%3Ae2b");
    cr_expect_str_eq(json_text_at(escaped, "id"), "demo:e2b");
    json_decref(escaped);
    json_t *error = demo_get(&s, 404, "/v1/models/demo:e3b");
    cr_expect_str_eq(json_text_at(error, "error.code"), "model_not_found");
    json_decref(error);
}

/* ---- text ---- */

Test(api_text, tokenizes_there_and_back)
{
    json_t *t = demo_post(&s, 200, "/tokenize", "{\"content\": \"Hello \\u4e16 <end_of_turn>\"}");
    const json_t *ids = json_at(t, "tokens");
    char *text = json_dumps(ids, 0);
    json_t *back = demo_post(&s, 200, "/detokenize", "{\"tokens\": %s}", text);
    cr_expect_str_eq(json_text_at(back, "content"), "Hello \xe4\xb8\x96 <end_of_turn>");

    json_t *bos = demo_post(&s, 200, "/tokenize", "{\"text\": \"Hello \\u4e16 <end_of_turn>\", \"add_special\": true}");
    cr_expect_eq(json_array_size(json_at(bos, "tokens")), json_array_size(ids) + 1);
    cr_expect_eq(json_int_at(bos, "tokens.0"), 2);
    json_t *plain = demo_post(&s, 200, "/tokenize", "{\"content\": \"<end_of_turn>\", \"parse_special\": false}");
    cr_expect_gt(json_array_size(json_at(plain, "tokens")), 1);
    json_decref(t);
    json_decref(back);
    json_decref(bos);
    json_decref(plain);
    free(text);
}

/* U+4E16 is no piece of the demo's vocabulary: three bytes, each no text by itself. */
Test(api_text, shows_pieces)
{
    json_t *t = demo_post(&s, 200, "/tokenize", "{\"content\": \"Hello world\\u4e16\", \"with_pieces\": true}");
    size_t n = json_array_size(json_at(t, "tokens"));
    cr_assert_gt(n, 4);
    cr_expect_str_eq(json_text_at(t, "tokens.0.piece"), "Hello");
    cr_expect_str_eq(json_text_at(t, "tokens.1.piece"), " world");
    for (size_t i = 0; i < 3; i++) {
        const json_t *piece = json_object_get(json_array_get(json_at(t, "tokens"), n - 3 + i), "piece");
        cr_expect_eq(json_int_at(piece, "0"), "\xe4\xb8\x96"[i] & 0xff);
    }
    json_decref(t);
}

Test(api_text, applies_the_template)
{
    json_t *t = demo_post(&s, 200, "/apply-template",
                          "{\"messages\": [{\"role\": \"system\", \"content\": \"Be kind.\"}, {\"role\": \"user\", "
                          "\"content\": \"Hello\"}]}");
    cr_expect_str_eq(json_text_at(t, "prompt"),
                     "<bos><start_of_turn>user\nBe kind.\n\nHello<end_of_turn>\n<start_of_turn>model\n");
    json_decref(t);
    t = demo_post(&s, 200, "/apply-template",
                  "{\"messages\": [{\"role\": \"user\", \"content\": \"Hello\"}], \"add_generation_prompt\": false}");
    cr_expect_str_eq(json_text_at(t, "prompt"), "<bos><start_of_turn>user\nHello<end_of_turn>\n");
    json_decref(t);
    t = demo_post(&s, 200, "/apply-template",
                  "{\"messages\": [{\"role\": \"user\", \"content\": \"Hello\"}], \"tools\": [{\"type\": \"function\", "
                  "\"function\": {\"name\": \"weather\"}}]}");
    cr_expect(strstr(json_text_at(t, "prompt"), "{\"name\": \"weather\"}"), "%s", json_text_at(t, "prompt"));
    json_decref(t);
}

static void expect_bad(const char *path, const char *param, const char *body)
{
    json_t *e = demo_post(&s, 400, path, "%s", body);
    cr_expect_str_eq(json_text_at(e, "error.param"), param, "%s %s: %s", path, body, json_text_at(e, "error.message"));
    json_decref(e);
}

Test(api_text, says_what_is_wrong)
{
    expect_bad("/tokenize", "content", "{}");
    expect_bad("/tokenize", "content", "{\"content\": 7}");
    expect_bad("/tokenize", "more", "{\"content\": \"\", \"more\": 1}");
    expect_bad("/tokenize", "", "[]");
    expect_bad("/detokenize", "tokens", "{}");
    expect_bad("/detokenize", "more", "{\"tokens\": [2], \"more\": 1}");
    expect_bad("/detokenize", "tokens[1]", "{\"tokens\": [2, 4096]}");
    expect_bad("/detokenize", "tokens[0]", "{\"tokens\": [\"a\"]}");
    expect_bad("/apply-template", "messages", "{\"messages\": []}");
    expect_bad("/apply-template", "tools[0].function",
               "{\"messages\": [{\"role\": \"user\", \"content\": \"Hi\"}], \"tools\": [{}]}");
    expect_bad("/v1/embeddings", "input", "{\"model\": \"demo\"}");
    expect_bad("/v1/embeddings", "input", "{\"model\": \"demo\", \"input\": []}");
    expect_bad("/v1/embeddings", "input[0][1]", "{\"model\": \"demo\", \"input\": [[2, -1]]}");
    expect_bad("/v1/embeddings", "input[1]", "{\"model\": \"demo\", \"input\": [\"a\", 1]}");
    expect_bad("/v1/embeddings", "dimensions", "{\"model\": \"demo\", \"input\": \"a\", \"dimensions\": 8}");
    expect_bad("/v1/embeddings", "encoding_format",
               "{\"model\": \"demo\", \"input\": \"a\", \"encoding_format\": \"x\"}");
}

/* ---- embeddings ---- */

#define N_VALUES 192

static void read_floats(const json_t *list, double out[N_VALUES])
{
    double sum = 0;
    cr_assert_eq(json_array_size(list), N_VALUES);
    for (size_t i = 0; i < N_VALUES; i++) {
        out[i] = json_number_value(json_array_get(list, i));
        sum += out[i] * out[i];
    }
    cr_expect_float_eq(sum, 1, 1e-6);
}

static int digit_of(char c)
{
    static const char letters[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    const char *at = strchr(letters, c);
    cr_assert(at && c);
    return (int)(at - letters);
}

static void read_base64(const char *text, double out[N_VALUES])
{
    unsigned char bytes[4 * N_VALUES + 3];
    size_t n = 0;
    cr_assert_eq(strlen(text), (4 * N_VALUES + 2) / 3 * 4);
    for (; *text && *text != '='; text += 4) {
        int bits = 0;
        for (int i = 0; i < 4; i++)
            bits = bits << 6 | (text[i] == '=' ? 0 : digit_of(text[i]));
        for (int i = 2; i >= 0; i--)
            bytes[n++] = (unsigned char)(bits >> (8 * i));
    }
    for (size_t i = 0; i < N_VALUES; i++) {
        float value;
        memcpy(&value, bytes + 4 * i, sizeof value);
        out[i] = (double)value;
    }
}

static double likeness(const double *a, const double *b)
{
    double sum = 0;
    for (size_t i = 0; i < N_VALUES; i++)
        sum += a[i] * b[i];
    return sum;
}

Test(api_text, embeds)
{
    double a[3][N_VALUES], b[3][N_VALUES];
    json_t *floats = demo_post(&s, 200, "/v1/embeddings",
                               "{\"model\": \"demo\", \"input\": [\"Paris\", \"The sky is blue today.\", \"Paris\"]}");
    json_t *packed = demo_post(
        &s, 200, "/v1/embeddings",
        "{\"model\": \"demo\", \"encoding_format\": \"base64\", \"input\": [\"Paris\", \"The sky is "
        "blue today.\", \"Paris\"]}");
    for (size_t i = 0; i < 3; i++) {
        const json_t *entry = json_array_get(json_at(floats, "data"), i);
        cr_expect_eq(json_int_at(entry, "index"), (int64_t)i);
        read_floats(json_at(entry, "embedding"), a[i]);
        read_base64(json_text_at(json_array_get(json_at(packed, "data"), i), "embedding"), b[i]);
        for (size_t j = 0; j < N_VALUES; j++)
            cr_expect_float_eq(a[i][j], b[i][j], 1e-7);
    }
    cr_expect_float_eq(likeness(a[0], a[2]), 1, 1e-6);
    cr_expect_lt(likeness(a[0], a[1]), 0.999);
    cr_expect_gt(json_int_at(floats, "usage.prompt_tokens"), 8);
    json_decref(floats);
    json_decref(packed);
}

/* Texts begin with <bos>, ids are taken as they are. */
Test(api_text, embeds_ids_as_texts)
{
    json_t *t = demo_post(&s, 200, "/tokenize", "{\"content\": \"Paris is large.\", \"add_special\": true}");
    char *ids = json_dumps(json_at(t, "tokens"), 0);
    json_t *text = demo_post(&s, 200, "/v1/embeddings", "{\"model\": \"demo\", \"input\": \"Paris is large.\"}");
    json_t *one = demo_post(&s, 200, "/v1/embeddings", "{\"model\": \"demo\", \"input\": %s}", ids);
    json_t *lists = demo_post(&s, 200, "/v1/embeddings", "{\"model\": \"demo\", \"input\": [%s, [2]]}", ids);
    cr_expect(json_equal(json_at(text, "data.0"), json_at(one, "data.0")));
    cr_expect(json_equal(json_at(text, "data.0"), json_at(lists, "data.0")));
    cr_expect_eq(json_array_size(json_at(lists, "data")), 2);
    json_decref(t);
    json_decref(text);
    json_decref(one);
    json_decref(lists);
    free(ids);
}

/* ---- the description ---- */

/* "/v1/models/" serves "/v1/models/{id}". */
static const json_t *described(const json_t *paths, const pl_http_route *route)
{
    char path[128], method[16];
    size_t n = strlen(route->path);
    snprintf(path, sizeof path, "%s%s", route->path, route->path[n - 1] == '/' ? "{id}" : "");
    for (n = 0; route->method[n]; n++)
        method[n] = (char)(route->method[n] | 0x20);
    method[n] = '\0';
    return json_object_get(json_object_get(paths, path), method);
}

Test(api_text, describes_what_is_served_and_nothing_else)
{
    json_t *description = demo_get(&s, 200, "/openapi.json"), *operations;
    const json_t *paths = json_object_get(description, "paths");
    pl_http_route *routes;
    pl_error err;
    size_t n_routes = 0, n_described = 0;
    const char *path;
    cr_assert_eq(pl_routes_make(false, &routes, &err), PL_OK);
    for (; routes[n_routes].method; n_routes++) {
        const json_t *operation = described(paths, &routes[n_routes]);
        cr_expect(operation, "%s %s is not described", routes[n_routes].method, routes[n_routes].path);
        bool open = json_is_array(json_object_get(operation, "security"));
        cr_expect_eq(open, routes[n_routes].open, "security of %s", routes[n_routes].path);
    }
    json_object_foreach((json_t *)(uintptr_t)paths, path, operations) n_described += json_object_size(operations);
    cr_expect_eq(n_routes, n_described);
    cr_expect_str_eq(json_text_at(description, "info.version"), PL_VERSION);
    free(routes);
    json_decref(description);
}

/* Every "$ref" leads somewhere. */
static void check_references(const json_t *root, json_t *value)
{
    const char *key;
    json_t *item;
    size_t i;
    json_object_foreach(value, key, item)
    {
        if (strcmp(key, "$ref") == 0) {
            char path[128];
            snprintf(path, sizeof path, "%s", json_string_value(item) + 2);
            for (char *slash = path; (slash = strchr(slash, '/'));)
                *slash = '.';
            cr_expect(json_at(root, path), "%s leads nowhere", json_string_value(item));
        }
        check_references(root, item);
    }
    json_array_foreach(value, i, item) check_references(root, item);
}

/* The members that a schema demands are there. */
static void check_required(const json_t *root, const json_t *schema, const json_t *value, const char *what)
{
    const char *reference = json_text_at(schema, "$ref");
    if (reference[0])
        schema = json_object_get(json_at(root, "components.schemas"), strrchr(reference, '/') + 1);
    const json_t *required = json_object_get(schema, "required"), *properties = json_object_get(schema, "properties");
    cr_expect_gt(json_array_size(required), 0, "%s", what);
    for (size_t i = 0; i < json_array_size(required); i++)
        cr_expect(json_object_get(value, json_string_value(json_array_get(required, i))), "%s lacks %s", what,
                  json_string_value(json_array_get(required, i)));
    const char *key;
    json_t *member;
    if (!json_is_false(json_object_get(schema, "additionalProperties")))
        return;
    json_object_foreach((json_t *)(uintptr_t)value, key, member)
        cr_expect(json_object_get(properties, key), "%s has %s", what, key);
}

static void try_example(const json_t *root, const char *path, const json_t *operation, json_t *body)
{
    const json_t *name = json_object_get(body, "model");
    if (name)
        json_object_set_new(body, "model", json_sprintf("demo%s", json_string_value(name) + strlen("gemma-3n")));
    char *text = json_dumps(body, 0);
    if (json_is_true(json_object_get(body, "stream"))) {
        json_decref(demo_stream(&s, path, "%s", text));
    } else {
        json_t *answer = demo_post(&s, 200, path, "%s", text);
        const json_t *content = json_at(operation, "responses.200.content");
        check_required(root, json_at(json_object_get(content, "application/json"), "schema"), answer, path);
        json_decref(answer);
    }
    free(text);
}

Test(api_text, answers_the_examples_of_the_description)
{
    json_t *root = demo_get(&s, 200, "/openapi.json"), *operations, *example;
    const char *path, *name;
    size_t n = 0;
    check_references(root, root);
    json_object_foreach(json_object_get(root, "paths"), path, operations)
    {
        const json_t *operation = json_object_get(operations, "post");
        json_t *content = json_object_get(json_object_get(json_object_get(operation, "requestBody"), "content"),
                                          "application/json");
        json_object_foreach(json_object_get(content, "examples"), name, example)
        {
            try_example(root, path, operation, json_object_get(example, "value"));
            n++;
        }
        cr_expect(!content || json_object_size(json_object_get(content, "examples")) > 0, "%s", path);
    }
    cr_expect_geq(n, 10);
    json_decref(root);
}
