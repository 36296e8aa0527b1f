#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "host/base/json_in.h"

static pl_status read_ids(const char *json, pl_tokens *out, pl_error *err)
{
    return pl_json_read_ids(json, strlen(json), "ids.json", 100, out, err);
}

Test(json_in, ids)
{
    pl_tokens tokens;
    cr_assert_eq(read_ids(" [2, 0,99]\n", &tokens, NULL), PL_OK);
    cr_assert_eq(tokens.n, 3);
    cr_assert_eq(tokens.ids[0], 2);
    cr_assert_eq(tokens.ids[2], 99);
    free(tokens.ids);
    cr_assert_eq(read_ids("[]", &tokens, NULL), PL_OK);
    cr_assert_eq(tokens.n, 0);
    free(tokens.ids);
}

Test(json_in, wrong_ids_are_named)
{
    const struct {
        const char *json, *message;
    } cases[] = {
        {"", "ids.json: cannot be read as JSON"},
        {"[1, 2", "line 1"},
        {"{\"ids\": [1]}", "holds an object, expected an array"},
        {"[1, \"2\"]", "element 1 is a string"},
        {"[1, 2.0]", "element 1 is a number with a fraction"},
        {"[1, [2]]", "element 1 is an array"},
        {"[null]", "element 0 is null"},
        {"[5, -1]", "element 1 is -1; token ids of this model are 0 to 99"},
        {"[100]", "element 0 is 100"},
        {"[9223372036854775807]", "element 0 is 9223372036854775807"},
        {"[99999999999999999999999]", "cannot be read as JSON"},
        {"[1] [2]", "cannot be read as JSON"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        pl_error err = {.message = ""};
        pl_tokens tokens = {.n = 77};
        cr_assert_eq(read_ids(cases[i].json, &tokens, &err), PL_ERR_FORMAT, "%s", cases[i].json);
        cr_assert_eq(err.status, PL_ERR_FORMAT);
        cr_assert_not_null(strstr(err.message, cases[i].message), "%s: %s", cases[i].json, err.message);
        cr_assert_eq(tokens.n, 77);
    }
}

static pl_status join(void *user, const char *role, const char *content, pl_error *err)
{
    char *text = user;
    if (strcmp(role, "bad") == 0)
        return pl_fail(err, PL_ERR_ARGUMENT, "no such role");
    snprintf(text + strlen(text), 256 - strlen(text), "%s=%s;", role, content);
    return PL_OK;
}

static pl_status read_messages(const char *json, char *text, pl_error *err)
{
    text[0] = '\0';
    return pl_json_read_messages(json, strlen(json), "chat.json", join, text, err);
}

Test(json_in, messages)
{
    char text[256];
    const char *both = "[{\"role\":\"user\",\"content\":\"a\"},{\"role\":\"assistant\",\"content\":\"b\\u00e9\"}]";
    cr_assert_eq(read_messages(both, text, NULL), PL_OK);
    cr_assert_str_eq(text, "user=a;assistant=b\xc3\xa9;");
    cr_assert_eq(read_messages("{\"x\":1,\"messages\":[{\"role\":\"user\",\"content\":\"\"}]}", text, NULL), PL_OK);
    cr_assert_str_eq(text, "user=;");
}

Test(json_in, wrong_messages_are_named)
{
    const struct {
        const char *json, *message;
    } cases[] = {
        {"3", "chat.json: expected an array of messages"},
        {"{}", "chat.json: expected an array of messages"},
        {"[3]", "message 0 is a whole number"},
        {"[{\"role\":\"user\"}]", "message 0 has no \"content\""},
        {"[{\"role\":1,\"content\":\"\"}]", "\"role\" of message 0 is a whole number"},
        {"[{\"role\":\"user\",\"content\":\"a\\u0000b\"}]", "holds a zero byte"},
        {"[{\"role\":\"bad\",\"content\":\"\"}]", "chat.json: message 0: no such role"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char text[256];
        pl_error err = {.message = ""};
        cr_assert_neq(read_messages(cases[i].json, text, &err), PL_OK, "%s", cases[i].json);
        cr_assert_not_null(strstr(err.message, cases[i].message), "%s: %s", cases[i].json, err.message);
    }
}

Test(json_in, who_spoke_last)
{
    const char *user = "[{\"role\":\"user\",\"content\":[{\"type\":\"text\",\"text\":\"a\"}]}]";
    const char *model = "{\"messages\":[{\"role\":\"user\",\"content\":\"a\"},{\"role\":\"model\",\"content\":\"b\"}]}";
    cr_assert(pl_json_awaits_reply(user, strlen(user)));
    cr_assert_not(pl_json_awaits_reply(model, strlen(model)));
    cr_assert_not(pl_json_awaits_reply("[]", 2));
    cr_assert_not(pl_json_awaits_reply("[1]", 3));
    cr_assert_not(pl_json_awaits_reply("nonsense", 8));
}
