#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

#include "host/text/chat.h"
#include "tests/unit/fail_alloc.h"
#include "tests/unit/tokenizer_fixture.h"

static pl_part text_part(const char *text)
{
    return (pl_part){.kind = PL_PART_TEXT, .text = text, .n = strlen(text)};
}

Test(chat, equals_the_reference)
{
    json_t *golden = fixture_json(SMALL_GOLDEN), *row;
    size_t i, refused = 0;
    json_array_foreach(json_object_get(golden, "chat"), i, row)
    {
        const json_t *want = json_array_get(row, 2);
        json_t *in = json_pack("{s:O,s:O}", "messages", json_array_get(row, 0), "add_generation_prompt",
                               json_array_get(row, 1));
        char *json = json_dumps(in, 0), *text = NULL;
        size_t n = 0;
        pl_error err = {0};
        pl_status status = pl_chat_render_json(json, strlen(json), false, &text, &n, &err);
        if (json_is_null(want)) {
            refused++;
            cr_expect_eq(status, PL_ERR_ARGUMENT, "chat %zu: %s", i, json);
        } else {
            cr_expect(status == PL_OK && n == json_string_length(want) && memcmp(text, json_string_value(want), n) == 0,
                      "chat %zu: %s\n%s\n%s", i, json, status == PL_OK ? text : err.message, json_string_value(want));
        }
        free(text);
        free(json);
        json_decref(in);
    }
    cr_assert(i > 100 && refused > 10);
    json_decref(golden);
}

Test(chat, renders_turns)
{
    pl_part system[] = {text_part(" be kind \n"), text_part("ignored")},
            user[] = {text_part(" look\t"), {.kind = PL_PART_IMAGE}, text_part(" here ")},
            model[] = {text_part("\xc2\xa0ok\xe3\x80\x80")};
    pl_turn turns[] = {{"system", system, 2}, {"user", user, 3}, {"assistant", model, 1}};
    char *text;
    size_t n;
    pl_error err;
    cr_assert_eq(pl_chat_render(turns, 3, true, &text, &n, &err), PL_OK);
    cr_expect_str_eq(text, "<bos><start_of_turn>user\n be kind \n\n\nlook<image_soft_token>here<end_of_turn>\n"
                           "<start_of_turn>model\nok<end_of_turn>\n<start_of_turn>model\n");
    cr_expect_eq(n, strlen(text));
    free(text);
}

/* As in the template: only the first part of a system message counts, and what is not known stands for nothing. */
Test(chat, leaves_out_what_the_template_does)
{
    static const char json[] =
        "[{\"role\":\"system\",\"content\":[{\"type\":\"text\",\"text\":\"s\"},{\"type\":\"video\"}]},"
        "{\"role\":\"user\",\"content\":[{\"type\":\"video\"},{\"type\":\"text\",\"text\":\"a\\u0000\"}]}]";
    char *text;
    size_t n;
    pl_error err;
    cr_assert(pl_chat_render_json(json, strlen(json), false, &text, &n, &err) == PL_OK, "%s", err.message);
    static const char want[] = "<bos><start_of_turn>user\ns\n\na\0<end_of_turn>\n";
    cr_expect(n == sizeof want - 1 && memcmp(text, want, sizeof want) == 0);
    free(text);
}

static void expect_refusal(const char *json, pl_status status, const char *part)
{
    pl_error err = {0};
    char *text = NULL;
    size_t n;
    cr_expect_eq(pl_chat_render_json(json, strlen(json), true, &text, &n, &err), status, "%s", json);
    cr_expect(strstr(err.message, part), "%s: \"%s\" does not say \"%s\"", json, err.message, part);
    cr_expect_null(text);
}

#define U "{\"role\":\"user\",\"content\":\"a\"}"

Test(chat, names_what_is_wrong)
{
    expect_refusal("[]", PL_ERR_ARGUMENT, "no messages");
    expect_refusal("", PL_ERR_FORMAT, "not JSON");
    expect_refusal("[" U, PL_ERR_FORMAT, "line 1");
    expect_refusal("[" U "] x", PL_ERR_FORMAT, "not JSON");
    expect_refusal("3", PL_ERR_FORMAT, "not JSON");
    expect_refusal("{}", PL_ERR_FORMAT, "array of messages");
    expect_refusal("{\"messages\":3}", PL_ERR_FORMAT, "array of messages");
    expect_refusal("{\"messages\":[" U "],\"add_generation_prompt\":1}", PL_ERR_FORMAT, "add_generation_prompt");
    expect_refusal("[3]", PL_ERR_FORMAT, "messages[0].role");
    expect_refusal("[" U ",{\"role\":3,\"content\":\"a\"}]", PL_ERR_FORMAT, "messages[1].role");
    expect_refusal("[{\"role\":\"us\\u0000er\",\"content\":\"a\"}]", PL_ERR_FORMAT, "NUL");
    expect_refusal("[{\"role\":\"user\"}]", PL_ERR_FORMAT, "messages[0].content");
    expect_refusal("[{\"role\":\"user\",\"content\":null}]", PL_ERR_FORMAT, "messages[0].content");
    expect_refusal("[{\"role\":\"user\",\"content\":[\"a\"]}]", PL_ERR_FORMAT, "messages[0].content[0].type");
    expect_refusal("[{\"role\":\"user\",\"content\":[{\"type\":\"text\"}]}]", PL_ERR_FORMAT,
                   "messages[0].content[0].text");
    expect_refusal("[{\"role\":\"user\",\"content\":[{\"type\":\"text\",\"text\":7}]}]", PL_ERR_FORMAT,
                   "content[0].text");
    expect_refusal("[{\"role\":\"assistant\",\"content\":\"a\"}]", PL_ERR_ARGUMENT,
                   "message 0: the role is \"assistant\"");
    expect_refusal("[" U "," U "]", PL_ERR_ARGUMENT, "message 1: the role is \"user\"");
    expect_refusal("[" U ",{\"role\":\"model\",\"content\":\"b\"},{\"role\":\"system\",\"content\":\"c\"}]",
                   PL_ERR_ARGUMENT, "message 2: the role is \"system\"");
    expect_refusal("[{\"role\":\"system\",\"content\":[]}," U "]", PL_ERR_ARGUMENT, "must start with text");
    expect_refusal("[{\"role\":\"system\",\"content\":[{\"type\":\"image\"}]}," U "]", PL_ERR_ARGUMENT,
                   "must start with text");
    expect_refusal("[{\"role\":\"system\",\"content\":[{\"type\":\"video\"}]}," U "]", PL_ERR_ARGUMENT,
                   "must start with text");
}

#define TURNS                                                                                                          \
    "{{ bos_token }}{% if messages[0]['role'] == 'system' %}{% endif %}{{ '<start_of_turn>' + 'assistant' + 'user' + 'model' | trim }}{{ \"<end_of_turn>\\n\" }}"
#define PROMPT "{% if add_generation_prompt %}{{'<start_of_turn>model\n'}}{% endif %}"

static void expect_template(const char *text, const char *refusal)
{
    pl_error err = {0};
    pl_status status = pl_chat_template_check(text, &err);
    if (refusal)
        cr_expect(status == PL_ERR_UNSUPPORTED && strstr(err.message, refusal), "\"%s\" does not say \"%s\"",
                  err.message, refusal);
    else
        cr_expect_eq(status, PL_OK, "%s", err.message);
}

Test(chat, recognises_templates)
{
    static char small[4096];
    FILE *file = fopen(PL_TEST_DATA "/golden/text/e4b/chat_template.jinja", "rb");
    cr_assert(file);
    small[fread(small, 1, sizeof small - 1, file)] = '\0';
    fclose(file);
    expect_template(small, NULL);
    expect_template(TURNS PROMPT, NULL);
    expect_template("{# ours: 'x' #}\n" TURNS "\n{#- \"#}" PROMPT " ", NULL);
    expect_template("", "does not mention add_generation_prompt");
    expect_template(TURNS, "does not mention add_generation_prompt");
    expect_template("{{ messages }}{{ 'model' }}" PROMPT, "does not mention assistant");
    expect_template("Hello " TURNS PROMPT, "prints \"Hello");
    expect_template(TURNS PROMPT "{{ '<|im_start|>' }}", "the string \"<|im_start|>\"");
    expect_template(TURNS PROMPT "{{ '<start_of_turn>developer' }}", "the string \"<start_of_turn>developer\"");
    expect_template(TURNS PROMPT "{{ 'System role not supported' }}", "System role not supported");
    expect_template(TURNS PROMPT "{{ 'user", "a string that does not end");
    expect_template(TURNS PROMPT "{{ 'user\\", "a string that does not end");
    expect_template(TURNS PROMPT "{% if", "a tag that does not end");
    expect_template(TURNS PROMPT "{#", "a comment that does not end");
}

static pl_status render(void *ctx, pl_error *err)
{
    const char *json = ctx;
    char *text = NULL;
    size_t n;
    pl_status status = pl_chat_render_json(json, strlen(json), true, &text, &n, err);
    free(text);
    return status;
}

Test(chat, survives_every_failed_allocation)
{
    char json[] = "[" U ",{\"role\":\"model\",\"content\":[{\"type\":\"text\",\"text\":\"b\"}]}]";
    cr_expect_geq(fail_alloc_each(render, json), 3);
}
