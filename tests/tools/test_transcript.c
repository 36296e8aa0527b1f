#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tools/transcript.h"

static void say(pl_transcript *t, bool user, const char *text)
{
    cr_assert_eq(pl_transcript_add(t, user, text, NULL), PL_OK);
}

static char *scratch_file(void)
{
    static char path[] = "/tmp/pleiad-transcript-XXXXXX";
    int fd = mkstemp(path);
    cr_assert_geq(fd, 0);
    close(fd);
    return path;
}

Test(transcript, saved_and_loaded)
{
    pl_transcript t = {.system = NULL}, back;
    char *path = scratch_file();
    cr_assert_eq(pl_transcript_set_system(&t, "Be \"kind\".", NULL), PL_OK);
    say(&t, true, "line one\nline two \xc3\xa9");
    say(&t, false, "");
    say(&t, true, "\x01");
    cr_assert_eq(pl_transcript_save(&t, path, "m.gguf", "e4b", NULL), PL_OK);
    cr_assert_eq(pl_transcript_load(path, &back, NULL), PL_OK);
    cr_assert_str_eq(back.system, t.system);
    cr_assert_eq(back.n, 3);
    for (size_t i = 0; i < t.n; i++) {
        cr_assert_str_eq(back.turns[i].content, t.turns[i].content);
        cr_assert_eq(back.turns[i].user, t.turns[i].user);
    }
    cr_assert(pl_transcript_awaits_reply(&back));
    unlink(path);
    pl_transcript_free(&t);
    pl_transcript_free(&back);
}

Test(transcript, oldest_exchange_goes)
{
    pl_transcript t = {.system = NULL};
    cr_assert_not(pl_transcript_drop_oldest(&t));
    say(&t, true, "q1");
    cr_assert_not(pl_transcript_drop_oldest(&t));
    say(&t, false, "a1");
    cr_assert_not(pl_transcript_drop_oldest(&t));
    say(&t, true, "q2");
    cr_assert(pl_transcript_drop_oldest(&t));
    cr_assert_eq(t.n, 1);
    cr_assert_str_eq(t.turns[0].content, "q2");
    pl_transcript_cut(&t, 0);
    cr_assert_not(pl_transcript_awaits_reply(&t));
    pl_transcript_free(&t);
}

Test(transcript, wrong_files)
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
        pl_transcript t;
        pl_error err;
        FILE *file = fopen(path, "w");
        cr_assert_not_null(file);
        fputs(cases[i].text, file);
        fclose(file);
        cr_assert_eq(pl_transcript_load(path, &t, &err), PL_ERR_FORMAT);
        cr_assert_not_null(strstr(err.message, cases[i].message), "%s", err.message);
        cr_assert_not_null(strstr(err.message, path), "%s", err.message);
    }
    unlink(path);
}

Test(transcript, unwritable)
{
    pl_transcript t = {.system = NULL};
    pl_error err;
    cr_assert_eq(pl_transcript_save(&t, "/no-such-folder/chat.json", "m", "e4b", &err), PL_ERR_IO);
    cr_assert_not_null(strstr(err.message, "/no-such-folder"), "%s", err.message);
}
