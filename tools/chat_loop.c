#include "tools/chat_loop.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "tools/answer.h"
#include "tools/chat.h"
#include "tools/console.h"
#include "tools/interrupt.h"
#include "tools/slurp.h"

#define QUOTES "\"\"\""

/* ---- answers ------------------------------------------------------------------------------------ */

/* Room that an answer gets before turns are dropped for it. */
static size_t answer_room(const pl_chat *chat)
{
    size_t room = (size_t)chat->context / 8;
    int32_t asked = chat->options->n_predict;
    return asked > 0 && (size_t)asked < room ? (size_t)asked : room;
}

/* The tokens of as much of the chat as fits, the newest turns. */
static pl_status fit(pl_chat *chat, pl_tokens *out, pl_error *err)
{
    size_t context = (size_t)chat->context, dropped = 0;
    for (;;) {
        PL_TRY(pl_chat_log_tokenize(&chat->log, chat->opened->model, out, err));
        if (out->n + answer_room(chat) <= context || !pl_chat_log_drop_oldest(&chat->log))
            break;
        dropped++;
        pl_tokens_free(out);
    }
    size_t n = out->n;
    if (dropped)
        pl_console_note(chat->options,
                        "the chat outgrew the context of %zu tokens: the oldest %zu question%s and "
                        "answer%s were dropped; /clear starts anew",
                        context, dropped, dropped > 1 ? "s" : "", dropped > 1 ? "s" : "");
    if (n < context)
        return PL_OK;
    pl_tokens_free(out);
    return pl_fail(err, PL_ERR_CONTEXT,
                   "this is %zu tokens long; the context holds %zu, the answer included "
                   "(--ctx-size)",
                   n, context);
}

static void remember(pl_chat *chat, const pl_answer *answer)
{
    chat->last = answer->made;
    chat->answers++;
    chat->answer_tokens += answer->made.n_tokens;
    chat->seed++;
    pl_answer_report(chat->options, answer, chat->opened->session);
    if (answer->made.finish == PL_FINISH_LENGTH &&
        pl_session_length(chat->opened->session) + 1 >= (size_t)chat->context)
        pl_console_note(chat->options, "the context of %d tokens is full; /clear starts anew", chat->context);
}

pl_status pl_chat_answer(pl_chat *chat, pl_error *err)
{
    pl_status status;
    pl_tokens prompt = {.ids = NULL};
    pl_answer answer = {.tokens = NULL};
    PL_TRY_GOTO(fit(chat, &prompt, err));
    PL_TRY_GOTO(pl_answer_make(chat->options, chat->seed, true, chat->opened, &prompt, &answer, err));
    remember(chat, &answer);
    if (answer.text.n)
        status = pl_chat_log_add(&chat->log, false, pl_strbuf_string(&answer.text), NULL, err);
fail:
    if (pl_chat_log_awaits_reply(&chat->log))
        pl_chat_log_cut(&chat->log, chat->log.n - 1);
    pl_tokens_free(&prompt);
    pl_answer_free(&answer);
    return status;
}

/* ---- input -------------------------------------------------------------------------------------- */

static bool ends_with(const pl_strbuf *text, const char *end)
{
    size_t n = strlen(end);
    return text->n >= n && memcmp(text->data + text->n - n, end, n) == 0;
}

/* Lines up to one that ends with the quotes, or, not quoted, that does not end with a backslash. */
static pl_line read_more(pl_chat *chat, bool quoted, pl_strbuf *message, pl_error *err)
{
    pl_strbuf next = {.data = NULL};
    pl_line line = PL_LINE_TEXT;
    while (line == PL_LINE_TEXT && (quoted ? !ends_with(message, QUOTES) : ends_with(message, "\\"))) {
        if (!quoted)
            message->data[--message->n] = '\0';
        line = pl_line_read(chat->reader, "... ", &next, err);
        if (line == PL_LINE_TEXT) {
            if (message->n || !quoted)
                pl_strbuf_add_text(message, "\n");
            pl_strbuf_add(message, next.data, next.n);
        }
    }
    if (line == PL_LINE_TEXT && quoted) {
        message->n -= strlen(QUOTES);
        message->data[message->n] = '\0';
        pl_strbuf_chomp(message);
    }
    pl_strbuf_free(&next);
    return line;
}

static pl_line read_message(pl_chat *chat, pl_strbuf *message, pl_error *err)
{
    pl_strbuf line = {.data = NULL};
    bool color = pl_options_color(chat->options, STDOUT_FILENO);
    pl_strbuf_clear(message);
    pl_line got = pl_line_read(chat->reader, color ? "\1\033[1;32m\1> \1\033[0m\1" : "> ", &line, err);
    if (got == PL_LINE_TEXT) {
        const char *text = pl_strbuf_string(&line);
        bool quoted = strncmp(text, QUOTES, strlen(QUOTES)) == 0;
        pl_strbuf_add_text(message, quoted ? text + strlen(QUOTES) : text);
        got = read_more(chat, quoted, message, err);
    }
    if (got == PL_LINE_TEXT && pl_strbuf_check(message, err) != PL_OK)
        got = PL_LINE_FAILED;
    pl_strbuf_free(&line);
    return got;
}

/* ---- the loop ----------------------------------------------------------------------------------- */

static pl_status take_turn(pl_chat *chat, const char *message, pl_error *err)
{
    if (!message[strspn(message, " \t\n")])
        return PL_OK;
    if (message[0] == '/')
        return pl_chat_command(chat, message, err);
    PL_TRY(pl_chat_log_add(&chat->log, true, message, &chat->pending, err));
    return pl_chat_answer(chat, err);
}

/* Says what went wrong; the chat ends only where nothing more can be shown. */
static pl_status go_on_after(pl_chat *chat, pl_status status, pl_error *err)
{
    if (status == PL_OK)
        return pl_console_flush(err);
    if (ferror(stdout))
        return status;
    pl_console_error(chat->options, err);
    return PL_OK;
}

static pl_status talk(pl_chat *chat, pl_error *err)
{
    pl_strbuf message = {.data = NULL};
    pl_status status = PL_OK;
    int interrupts = 0;
    while (!chat->ended && status == PL_OK) {
        pl_line line = read_message(chat, &message, err);
        interrupts = line == PL_LINE_INTERRUPT_EMPTY ? interrupts + 1 : 0;
        if (line == PL_LINE_END || interrupts == 2)
            break;
        if (line == PL_LINE_FAILED)
            status = err->status;
        else if (line == PL_LINE_TEXT)
            status = go_on_after(chat, take_turn(chat, pl_strbuf_string(&message), err), err);
        else if (interrupts)
            pl_console_note(chat->options, "Ctrl-C again, Ctrl-D or /quit ends the chat");
    }
    pl_strbuf_free(&message);
    return status;
}

pl_status pl_chat_loop(const pl_options *options, const pl_opened *opened, const char *first, pl_error *err)
{
    pl_status status;
    pl_engine_info info;
    pl_chat chat = {.options = options, .opened = opened, .how = (pl_switch)options->switch_mode};
    pl_engine_describe(opened->engine, &info);
    chat.context = info.context;
    chat.seed = pl_answer_seed(options);
    pl_console_detail(options, "seed %llu", (unsigned long long)chat.seed);
    if (options->system)
        PL_TRY_GOTO(pl_chat_log_set_system(&chat.log, options->system, err));
    PL_TRY_GOTO(pl_line_reader_open(options, pl_chat_command_names(), &chat.reader, err));
    pl_interrupt_catch();
    PL_TRY_GOTO(pl_showing_add_all(&chat.pending, options, opened, err));
    if (isatty(STDIN_FILENO))
        pl_console_note(options, "%s, path %s; /help lists commands, Ctrl-C stops an answer, Ctrl-D ends the chat",
                        info.backend, pl_session_path(opened->session));
    if (first)
        PL_TRY_GOTO(go_on_after(&chat, take_turn(&chat, first, err), err));
    PL_TRY_GOTO(talk(&chat, err));
fail:
    pl_line_reader_close(chat.reader);
    pl_showing_free(&chat.pending);
    pl_chat_log_free(&chat.log);
    return status;
}
