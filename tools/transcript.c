#include "tools/transcript.h"

#include <stdlib.h>
#include <string.h>

#include "host/base/json_in.h"
#include "host/base/json_out.h"
#include "host/base/outfile.h"
#include "tools/slurp.h"

void pl_transcript_free(pl_transcript *t)
{
    pl_transcript_cut(t, 0);
    free(t->turns);
    free(t->system);
    *t = (pl_transcript){.system = NULL};
}

static pl_status copy_text(const char *text, char **out, pl_error *err)
{
    *out = strdup(text);
    return *out ? PL_OK : pl_fail_memory(err, strlen(text) + 1, "message");
}

pl_status pl_transcript_set_system(pl_transcript *t, const char *text, pl_error *err)
{
    char *copy = NULL;
    if (*text)
        PL_TRY(copy_text(text, &copy, err));
    free(t->system);
    t->system = copy;
    return PL_OK;
}

pl_status pl_transcript_add(pl_transcript *t, bool user, const char *content, pl_error *err)
{
    if (t->n == t->room) {
        size_t room = 2 * t->room + 16;
        pl_said *turns = realloc(t->turns, room * sizeof *turns);
        if (!turns)
            return pl_fail_memory(err, room * sizeof *turns, "chat");
        t->turns = turns;
        t->room = room;
    }
    char *copy;
    PL_TRY(copy_text(content, &copy, err));
    t->turns[t->n++] = (pl_said){.user = user, .content = copy};
    return PL_OK;
}

void pl_transcript_cut(pl_transcript *t, size_t n)
{
    while (t->n > n)
        free(t->turns[--t->n].content);
}

bool pl_transcript_drop_oldest(pl_transcript *t)
{
    size_t n = 1;
    while (n < t->n && !t->turns[n].user)
        n++;
    if (n >= t->n)
        return false;
    for (size_t i = 0; i < n; i++)
        free(t->turns[i].content);
    t->n -= n;
    memmove(t->turns, t->turns + n, t->n * sizeof *t->turns);
    return true;
}

bool pl_transcript_awaits_reply(const pl_transcript *t)
{
    return t->n && t->turns[t->n - 1].user;
}

static const char *role_of(const pl_said *said)
{
    return said->user ? "user" : "assistant";
}

pl_status pl_transcript_tokenize(const pl_transcript *t, const pl_model *model, pl_tokens *out, pl_error *err)
{
    pl_message *messages = malloc((t->n + 1) * sizeof *messages);
    if (!messages)
        return pl_fail_memory(err, (t->n + 1) * sizeof *messages, "chat");
    size_t n = 0;
    if (t->system)
        messages[n++] = (pl_message){.role = "system", .content = t->system};
    for (size_t i = 0; i < t->n; i++)
        messages[n++] = (pl_message){.role = role_of(&t->turns[i]), .content = t->turns[i].content};
    pl_status status = pl_tokenize_chat(model, messages, n, pl_transcript_awaits_reply(t), out, err);
    free(messages);
    return status;
}

/* ---- files -------------------------------------------------------------------------------------- */

static void write_message(pl_json *json, const char *role, const char *content)
{
    pl_json_begin_object(json);
    pl_json_put_string(json, "role", role);
    pl_json_put_string(json, "content", content);
    pl_json_end_object(json);
}

static void write_json(const pl_transcript *t, const char *model, const char *path, FILE *file)
{
    pl_json json = pl_json_to_file(file);
    pl_json_begin_object(&json);
    pl_json_put_string(&json, "model", model);
    pl_json_put_string(&json, "path", path);
    pl_json_key_array(&json, "messages");
    if (t->system)
        write_message(&json, "system", t->system);
    for (size_t i = 0; i < t->n; i++)
        write_message(&json, role_of(&t->turns[i]), t->turns[i].content);
    pl_json_end_array(&json);
    pl_json_end_object(&json);
    pl_json_newline(&json);
    pl_json_free(&json);
}

pl_status pl_transcript_save(const pl_transcript *t, const char *file, const char *model, const char *path,
                             pl_error *err)
{
    pl_outfile out;
    PL_TRY(pl_outfile_open(file, &out, err));
    write_json(t, model, path, out.file);
    return pl_outfile_commit(&out, err);
}

static pl_status take_message(void *user, const char *role, const char *content, pl_error *err)
{
    pl_transcript *t = user;
    if (strcmp(role, "system") == 0) {
        if (t->n || t->system)
            return pl_fail(err, PL_ERR_FORMAT, "a system message that is not the first");
        return pl_transcript_set_system(t, content, err);
    }
    bool from_user = strcmp(role, "user") == 0;
    if (!from_user && strcmp(role, "assistant") != 0 && strcmp(role, "model") != 0)
        return pl_fail(err, PL_ERR_FORMAT, "role '%.40s'; roles are system, user, assistant and model", role);
    if (from_user == pl_transcript_awaits_reply(t))
        return pl_fail(err, PL_ERR_FORMAT, "it is %s; turns alternate and start with the user's",
                       from_user ? "the user's again" : "the model's");
    return pl_transcript_add(t, from_user, content, err);
}

pl_status pl_transcript_load(const char *file, pl_transcript *out, pl_error *err)
{
    pl_status status;
    pl_strbuf text = {.data = NULL};
    pl_transcript loaded = {.system = NULL};
    PL_TRY_GOTO(pl_slurp(file, &text, err));
    PL_TRY_GOTO(pl_json_read_messages(pl_strbuf_string(&text), text.n, file, take_message, &loaded, err));
    *out = loaded;
    loaded = (pl_transcript){.system = NULL};
fail:
    pl_transcript_free(&loaded);
    pl_strbuf_free(&text);
    return status;
}
