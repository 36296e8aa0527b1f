#include "tools/chat_log.h"

#include <stdlib.h>
#include <string.h>

#include "host/base/json_in.h"
#include "host/base/json_out.h"
#include "host/base/outfile.h"
#include "tools/slurp.h"

void pl_chat_log_free(pl_chat_log *log)
{
    pl_chat_log_cut(log, 0);
    free(log->turns);
    free(log->system);
    *log = (pl_chat_log){.system = NULL};
}

static pl_status copy_text(const char *text, char **out, pl_error *err)
{
    *out = strdup(text);
    return *out ? PL_OK : pl_fail_memory(err, strlen(text) + 1, "message");
}

pl_status pl_chat_log_set_system(pl_chat_log *log, const char *text, pl_error *err)
{
    char *copy = NULL;
    if (*text)
        PL_TRY(copy_text(text, &copy, err));
    free(log->system);
    log->system = copy;
    return PL_OK;
}

pl_status pl_chat_log_add(pl_chat_log *log, bool user, const char *content, pl_showing *shown, pl_error *err)
{
    if (log->n == log->room) {
        size_t room = 2 * log->room + 16;
        pl_said *turns = realloc(log->turns, room * sizeof *turns);
        if (!turns)
            return pl_fail_memory(err, room * sizeof *turns, "chat");
        log->turns = turns;
        log->room = room;
    }
    char *copy;
    PL_TRY(copy_text(content, &copy, err));
    log->turns[log->n] = (pl_said){.user = user, .content = copy};
    if (shown) {
        log->turns[log->n].shown = *shown;
        *shown = (pl_showing){.parts = NULL};
    }
    log->n++;
    return PL_OK;
}

static void forget(pl_said *said)
{
    free(said->content);
    pl_showing_free(&said->shown);
}

void pl_chat_log_cut(pl_chat_log *log, size_t n)
{
    while (log->n > n)
        forget(&log->turns[--log->n]);
}

bool pl_chat_log_drop_oldest(pl_chat_log *log)
{
    size_t n = 1;
    while (n < log->n && !log->turns[n].user)
        n++;
    if (n >= log->n)
        return false;
    for (size_t i = 0; i < n; i++)
        forget(&log->turns[i]);
    log->n -= n;
    memmove(log->turns, log->turns + n, log->n * sizeof *log->turns);
    return true;
}

bool pl_chat_log_awaits_reply(const pl_chat_log *log)
{
    return log->n && log->turns[log->n - 1].user;
}

static const char *role_of(const pl_said *said)
{
    return said->user ? "user" : "assistant";
}

static void write_message(pl_json *json, const char *role, const char *content, const pl_showing *shown, bool files)
{
    pl_json_begin_object(json);
    pl_json_put_string(json, "role", role);
    if (shown && shown->n) {
        pl_json_key_array(json, "content");
        pl_showing_put(shown, files, json);
        pl_json_begin_object(json);
        pl_json_put_string(json, "type", "text");
        pl_json_put_string(json, "text", content);
        pl_json_end_object(json);
        pl_json_end_array(json);
    } else {
        pl_json_put_string(json, "content", content);
    }
    pl_json_end_object(json);
}

static void write_messages(const pl_chat_log *log, bool files, pl_json *json)
{
    if (log->system)
        write_message(json, "system", log->system, NULL, files);
    for (size_t i = 0; i < log->n; i++)
        write_message(json, role_of(&log->turns[i]), log->turns[i].content, &log->turns[i].shown, files);
}

/* ---- tokens ------------------------------------------------------------------------------------- */

static pl_status tokenize_text(const pl_chat_log *log, const pl_model *model, pl_tokens *out, pl_error *err)
{
    pl_message *messages = malloc((log->n + 1) * sizeof *messages);
    if (!messages)
        return pl_fail_memory(err, (log->n + 1) * sizeof *messages, "chat");
    size_t n = 0;
    if (log->system)
        messages[n++] = (pl_message){.role = "system", .content = log->system};
    for (size_t i = 0; i < log->n; i++)
        messages[n++] = (pl_message){.role = role_of(&log->turns[i]), .content = log->turns[i].content};
    pl_status status = pl_tokenize_chat(model, messages, n, pl_chat_log_awaits_reply(log), out, err);
    free(messages);
    return status;
}

static pl_status tokenize_media(const pl_chat_log *log, const pl_model *model, size_t n_media, pl_tokens *out,
                                pl_error *err)
{
    char *text = NULL;
    size_t n = 0;
    pl_media **media = malloc(n_media * sizeof *media);
    if (!media)
        return pl_fail_memory(err, n_media * sizeof *media, "chat");
    for (size_t i = 0, at = 0; i < log->n; at += log->turns[i++].shown.n)
        pl_showing_list(&log->turns[i].shown, media + at);
    pl_json json = pl_json_to_buffer();
    pl_json_begin_array(&json);
    write_messages(log, false, &json);
    pl_json_end_array(&json);
    pl_status status = pl_json_take(&json, &text, &n, err);
    if (status == PL_OK)
        status = pl_tokenize_chat_media(model, text, n, pl_chat_log_awaits_reply(log), media, n_media, out, err);
    free(text);
    free(media);
    return status;
}

pl_status pl_chat_log_tokenize(const pl_chat_log *log, const pl_model *model, pl_tokens *out, pl_error *err)
{
    size_t n_media = 0;
    for (size_t i = 0; i < log->n; i++)
        n_media += log->turns[i].shown.n;
    return n_media ? tokenize_media(log, model, n_media, out, err) : tokenize_text(log, model, out, err);
}

/* ---- files -------------------------------------------------------------------------------------- */

static void write_json(const pl_chat_log *log, const char *model, const char *path, FILE *file)
{
    pl_json json = pl_json_to_file(file);
    pl_json_begin_object(&json);
    pl_json_put_string(&json, "model", model);
    pl_json_put_string(&json, "path", path);
    pl_json_key_array(&json, "messages");
    write_messages(log, true, &json);
    pl_json_end_array(&json);
    pl_json_end_object(&json);
    pl_json_newline(&json);
    pl_json_free(&json);
}

pl_status pl_chat_log_save(const pl_chat_log *log, const char *file, const char *model, const char *path, pl_error *err)
{
    pl_outfile out;
    PL_TRY(pl_outfile_open(file, &out, err));
    write_json(log, model, path, out.file);
    return pl_outfile_commit(&out, err);
}

static pl_status take_message(void *user, const char *role, const char *content, pl_error *err)
{
    pl_chat_log *log = user;
    if (strcmp(role, "system") == 0) {
        if (log->n || log->system)
            return pl_fail(err, PL_ERR_FORMAT, "a system message that is not the first");
        return pl_chat_log_set_system(log, content, err);
    }
    bool from_user = strcmp(role, "user") == 0;
    if (!from_user && strcmp(role, "assistant") != 0 && strcmp(role, "model") != 0)
        return pl_fail(err, PL_ERR_FORMAT, "role '%.40s'; roles are system, user, assistant and model", role);
    if (from_user == pl_chat_log_awaits_reply(log))
        return pl_fail(err, PL_ERR_FORMAT, "it is %s; turns alternate and start with the user's",
                       from_user ? "the user's again" : "the model's");
    return pl_chat_log_add(log, from_user, content, NULL, err);
}

pl_status pl_chat_log_load(const char *file, pl_chat_log *out, pl_error *err)
{
    pl_status status;
    pl_strbuf text = {.data = NULL};
    pl_chat_log loaded = {.system = NULL};
    PL_TRY_GOTO(pl_slurp(file, &text, err));
    PL_TRY_GOTO(pl_json_read_messages(pl_strbuf_string(&text), text.n, file, take_message, &loaded, err));
    *out = loaded;
    loaded = (pl_chat_log){.system = NULL};
fail:
    pl_chat_log_free(&loaded);
    pl_strbuf_free(&text);
    return status;
}
