#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tools/chat_log.h"

static void say(pl_chat_log *t, bool user, const char *text)
{
    cr_assert_eq(pl_chat_log_add(t, user, text, NULL, NULL), PL_OK);
}

static char *scratch_file(void)
{
    static char path[] = "/tmp/pleiad-chat-log-XXXXXX";
    int fd = mkstemp(path);
    cr_assert_geq(fd, 0);
    close(fd);
    return path;
}

Test(chat_log, saved_and_loaded)
{
    pl_chat_log t = {.system = NULL}, back;
    char *path = scratch_file();
    cr_assert_eq(pl_chat_log_set_system(&t, "Be \"kind\".", NULL), PL_OK);
    say(&t, true, "line one\nline two \xc3\xa9");
    say(&t, false, "");
    say(&t, true, "\x01");
    cr_assert_eq(pl_chat_log_save(&t, path, "m.gguf", "e4b", NULL), PL_OK);
    cr_assert_eq(pl_chat_log_load(path, &back, NULL), PL_OK);
    cr_assert_str_eq(back.system, t.system);
    cr_assert_eq(back.n, 3);
    for (size_t i = 0; i < t.n; i++) {
        cr_assert_str_eq(back.turns[i].content, t.turns[i].content);
        cr_assert_eq(back.turns[i].user, t.turns[i].user);
    }
    cr_assert(pl_chat_log_awaits_reply(&back));
    unlink(path);
    pl_chat_log_free(&t);
    pl_chat_log_free(&back);
}

Test(chat_log, oldest_exchange_goes)
{
    pl_chat_log t = {.system = NULL};
    cr_assert_not(pl_chat_log_drop_oldest(&t));
    say(&t, true, "q1");
    cr_assert_not(pl_chat_log_drop_oldest(&t));
    say(&t, false, "a1");
    cr_assert_not(pl_chat_log_drop_oldest(&t));
    say(&t, true, "q2");
    cr_assert(pl_chat_log_drop_oldest(&t));
    cr_assert_eq(t.n, 1);
    cr_assert_str_eq(t.turns[0].content, "q2");
    pl_chat_log_cut(&t, 0);
    cr_assert_not(pl_chat_log_awaits_reply(&t));
    pl_chat_log_free(&t);
}

Test(chat_log, wrong_files)
{
    const struct {
        const char *text, *message;
    } cases[] = {
        {"[{\"role\":\"assistant\",\"content\":\"\"}]", "message 0: it is the model's"},
        {"[{\"role\":\"user\",\"content\":\"\"},{\"role\":\"user\",\"content\":\"\"}]",
         "message 1: it is the user's again"},
        {"[{\"role\":\"user\",\"content\":\"\"},{\"role\":\"system\",\"content\":\"\"}]",
         "message 1: a system message"},
        {"[{\"role\":\"tool\",\"content\":\"\"}]", "role 'tool'"},
    };
    char *path = scratch_file();
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        pl_chat_log t;
        pl_error err;
        FILE *file = fopen(path, "w");
        cr_assert_not_null(file);
        fputs(cases[i].text, file);
        fclose(file);
        cr_assert_eq(pl_chat_log_load(path, &t, &err), PL_ERR_FORMAT);
        cr_assert_not_null(strstr(err.message, cases[i].message), "%s", err.message);
        cr_assert_not_null(strstr(err.message, path), "%s", err.message);
    }
    unlink(path);
}

Test(chat_log, unwritable)
{
    pl_chat_log t = {.system = NULL};
    pl_error err;
    cr_assert_eq(pl_chat_log_save(&t, "/no-such-folder/chat.json", "m", "e4b", &err), PL_ERR_IO);
    cr_assert_not_null(strstr(err.message, "/no-such-folder"), "%s", err.message);
}
