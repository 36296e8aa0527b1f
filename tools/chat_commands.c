#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tools/answer.h"
#include "tools/chat.h"
#include "tools/console.h"
#include "tools/interrupt.h"

typedef struct chat_command {
    const char *name, *argument, *help;
    bool needs_argument;
    pl_status (*run)(pl_chat *chat, const char *argument, pl_error *err);
} chat_command;

static pl_status set_path(pl_chat *chat, const char *spec, pl_error *err)
{
    if (*spec)
        PL_TRY(pl_session_set_path(chat->opened->session, spec, chat->how, err));
    printf("path %s, %.1f MB of weights a token\n", pl_session_path(chat->opened->session),
           (double)pl_session_token_bytes(chat->opened->session) / 1e6);
    return PL_OK;
}

static pl_status set_switch(pl_chat *chat, const char *how, pl_error *err)
{
    if (strcmp(how, "exact") == 0)
        chat->how = PL_SWITCH_EXACT;
    else if (strcmp(how, "fast") == 0)
        chat->how = PL_SWITCH_FAST;
    else if (*how)
        return pl_fail(err, PL_ERR_ARGUMENT, "/switch takes exact or fast, not '%.100s'", how);
    puts(chat->how == PL_SWITCH_EXACT ? "exact: a change of path reads the chat again"
                                      : "fast: a change of path keeps what the other path left");
    return PL_OK;
}

static pl_status clear(pl_chat *chat, const char *argument, pl_error *err)
{
    (void)argument;
    pl_chat_log_cut(&chat->log, 0);
    pl_showing_free(&chat->pending);
    PL_TRY(pl_session_truncate(chat->opened->session, 0, err));
    puts("a new chat");
    return PL_OK;
}

static pl_status save(pl_chat *chat, const char *file, pl_error *err)
{
    PL_TRY(pl_chat_log_save(&chat->log, file, chat->options->model, pl_session_path(chat->opened->session), err));
    printf("saved %zu turns to %s\n", chat->log.n, file);
    return PL_OK;
}

static pl_status load(pl_chat *chat, const char *file, pl_error *err)
{
    pl_chat_log loaded = {.system = NULL};
    PL_TRY(pl_chat_log_load(file, &loaded, err));
    pl_chat_log_free(&chat->log);
    chat->log = loaded;
    printf("loaded %zu turns from %s\n", loaded.n, file);
    return pl_chat_log_awaits_reply(&chat->log) ? pl_chat_answer(chat, err) : PL_OK;
}

static pl_status show(pl_chat *chat, const char *kind, const char *file, pl_error *err)
{
    size_t before = chat->pending.tokens;
    pl_interrupt_take();
    PL_TRY(pl_showing_add(&chat->pending, chat->options, chat->opened, &(pl_shown){.kind = kind, .file = file}, err));
    printf("%s: %zu tokens, before your next question\n", file, chat->pending.tokens - before);
    return PL_OK;
}

static pl_status show_image(pl_chat *chat, const char *file, pl_error *err)
{
    return show(chat, "image", file, err);
}

static pl_status show_audio(pl_chat *chat, const char *file, pl_error *err)
{
    return show(chat, "audio", file, err);
}

static pl_status show_video(pl_chat *chat, const char *file, pl_error *err)
{
    return show(chat, "video", file, err);
}

static pl_status set_system(pl_chat *chat, const char *text, pl_error *err)
{
    if (*text)
        PL_TRY(pl_chat_log_set_system(&chat->log, strcmp(text, "none") == 0 ? "" : text, err));
    if (chat->log.system)
        printf("system: %s\n", chat->log.system);
    else
        puts("no system message");
    return PL_OK;
}

static pl_status regenerate(pl_chat *chat, const char *argument, pl_error *err)
{
    (void)argument;
    if (!chat->log.n)
        return pl_fail(err, PL_ERR_ARGUMENT, "/regen: nothing has been answered yet");
    pl_chat_log_cut(&chat->log, chat->log.n - 1);
    return pl_chat_answer(chat, err);
}

static pl_status show_stats(pl_chat *chat, const char *argument, pl_error *err)
{
    (void)argument;
    (void)err;
    pl_engine_info info;
    const pl_session *session = chat->opened->session;
    pl_engine_describe(chat->opened->engine, &info);
    printf("context  %zu of %d tokens\n", pl_session_length(session), chat->context);
    printf("path     %s, %.1f MB of weights a token\n", pl_session_path(session),
           (double)pl_session_token_bytes(session) / 1e6);
    printf("engine   %s, %d threads, peak memory %.1f MB\n", info.backend, info.threads, (double)info.peak_bytes / 1e6);
    if (info.ple_rows > 0)
        printf("table    %llu rows brought to the card, %.1f %% of them from the cache\n",
               (unsigned long long)info.ple_rows, 100.0 * (double)info.ple_hits / (double)info.ple_rows);
    printf("answers  %zu, %zu tokens\n", chat->answers, chat->answer_tokens);
    if (chat->answers)
        printf("last     prompt %.1f tokens/s, first token after %.2f s, answer %.1f tokens/s\n",
               pl_answer_prompt_rate(&chat->last), chat->last.prompt_s, pl_answer_rate(&chat->last));
    return PL_OK;
}

static pl_status quit(pl_chat *chat, const char *argument, pl_error *err)
{
    (void)argument;
    (void)err;
    chat->ended = true;
    return PL_OK;
}

static pl_status show_help(pl_chat *chat, const char *argument, pl_error *err);

static const chat_command commands[] = {
    {.name = "/help", .help = "this list", .run = show_help},
    {.name = "/path",
     .argument = "[SPEC]",
     .help = "show or change the path: e4b, e2b, mix:widths=W[,W...][;skip=A-B,C]",
     .run = set_path},
    {.name = "/switch",
     .argument = "[exact|fast]",
     .help = "whether a change of path reads the chat again",
     .run = set_switch},
    {.name = "/image",
     .argument = "FILE",
     .help = "show an image with the next question",
     .needs_argument = true,
     .run = show_image},
    {.name = "/audio",
     .argument = "FILE",
     .help = "let it hear a recording",
     .needs_argument = true,
     .run = show_audio},
    {.name = "/video",
     .argument = "FILE",
     .help = "show a video, with its sound",
     .needs_argument = true,
     .run = show_video},
    {.name = "/clear", .help = "forget the chat, keep the system message", .run = clear},
    {.name = "/save", .argument = "FILE", .help = "write the chat as JSON", .needs_argument = true, .run = save},
    {.name = "/load", .argument = "FILE", .help = "go on with a saved chat", .needs_argument = true, .run = load},
    {.name = "/system",
     .argument = "[TEXT|none]",
     .help = "show or change what the model is told first",
     .run = set_system},
    {.name = "/regen", .help = "answer the last question again", .run = regenerate},
    {.name = "/stats", .help = "tokens, speeds, memory", .run = show_stats},
    {.name = "/quit", .help = "end the chat, as Ctrl-D does", .run = quit},
};

#define N_COMMANDS (sizeof commands / sizeof commands[0])

static pl_status show_help(pl_chat *chat, const char *argument, pl_error *err)
{
    (void)chat;
    (void)argument;
    (void)err;
    for (size_t i = 0; i < N_COMMANDS; i++)
        printf("%-8s %-13s %s\n", commands[i].name, commands[i].argument ? commands[i].argument : "", commands[i].help);
    puts("\nA line that ends with \\ goes on in the next one; \"\"\" begins and ends a text of several lines.\n"
         "Ctrl-C stops an answer. To begin a message with a slash, put a space before it.");
    return PL_OK;
}

static pl_status fail_unknown(const char *name, size_t n, pl_error *err)
{
    char names[128] = "";
    for (size_t i = 0, used = 0; i < N_COMMANDS && used < sizeof names; i++)
        used += (size_t)snprintf(names + used, sizeof names - used, "%s%s", i ? " " : "", commands[i].name);
    return pl_fail(err, PL_ERR_ARGUMENT, "no command %.*s; there are %s", n > 40 ? 40 : (int)n, name, names);
}

pl_status pl_chat_command(pl_chat *chat, const char *line, pl_error *err)
{
    size_t n = strcspn(line, " \t\n");
    const char *argument = line + n + strspn(line + n, " \t\n");
    size_t length = strlen(argument);
    while (length && isspace((unsigned char)argument[length - 1]))
        length--;
    for (size_t i = 0; i < N_COMMANDS; i++) {
        const chat_command *command = &commands[i];
        if (strlen(command->name) != n || memcmp(command->name, line, n) != 0)
            continue;
        if (command->needs_argument && !length)
            return pl_fail(err, PL_ERR_ARGUMENT, "%s takes %s", command->name, command->argument);
        if (!command->argument && length)
            return pl_fail(err, PL_ERR_ARGUMENT, "%s takes nothing behind it, not '%.100s'", command->name, argument);
        char *copy = strndup(argument, length);
        if (!copy)
            return pl_fail_memory(err, length + 1, "command");
        pl_status status = command->run(chat, copy, err);
        free(copy);
        return status;
    }
    return fail_unknown(line, n, err);
}

const char *const *pl_chat_command_names(void)
{
    static const char *const names[] = {"/help", "/path", "/switch", "/image", "/audio", "/video", "/clear",
                                        "/save", "/load", "/system", "/regen", "/stats", "/quit",  NULL};
    return names;
}
