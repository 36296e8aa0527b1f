#include "tools/line_editor.h"

#include <errno.h>
#include <histedit.h>
#include <langinfo.h>
#include <locale.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <wchar.h>

#include "tools/console.h"
#include "tools/interrupt.h"

#define HISTORY_LINES 1000

struct pl_line_editor {
    const pl_options *options;
    const char *const *words;
    EditLine *edit;
    History *history;
    pl_strbuf history_file; /* empty: nowhere to keep it */
    const char *prompt;
    bool interrupted, was_empty; /* by Ctrl-C in the line just read */
    int error;                   /* errno of a failed read */
    mbstate_t partial;
};

/* ---- keys --------------------------------------------------------------------------------------- */

static pl_line_editor *editor_of(EditLine *edit)
{
    void *editor = NULL;
    el_get(edit, EL_CLIENTDATA, &editor);
    return editor;
}

static char *show_prompt(EditLine *edit)
{
    pl_line_editor *editor = editor_of(edit);
    union {
        const char *in;
        char *out;
    } prompt = {editor->prompt}; /* libedit only reads it */
    return prompt.out;
}

/* After a change of size, and after the program was stopped and goes on. */
static void redraw(EditLine *edit)
{
    el_set(edit, EL_PREP_TERM, 0);
    el_set(edit, EL_PREP_TERM, 1);
    el_resize(edit);
    fputs("\r\033[J", stdout);
    fflush(stdout);
    el_set(edit, EL_REFRESH);
}

static bool note_interrupt(EditLine *edit)
{
    if (!pl_interrupt_take())
        return false;
    pl_line_editor *editor = editor_of(edit);
    const LineInfo *line = el_line(edit);
    editor->interrupted = true;
    editor->was_empty = line->lastchar == line->buffer;
    return true;
}

static int read_byte(EditLine *edit, char *out)
{
    struct pollfd input = {.fd = STDIN_FILENO, .events = POLLIN};
    for (;;) {
        if (note_interrupt(edit))
            return -1;
        if (poll(&input, 1, -1) < 0) {
            if (errno == EINTR && !pl_interrupt_pending())
                redraw(edit);
            continue;
        }
        ssize_t got = read(STDIN_FILENO, out, 1);
        if (got >= 0)
            return (int)got;
        if (errno != EINTR) {
            editor_of(edit)->error = errno;
            return -1;
        }
    }
}

static int read_character(EditLine *edit, wchar_t *out)
{
    pl_line_editor *editor = editor_of(edit);
    for (;;) {
        char byte;
        int got = read_byte(edit, &byte);
        if (got != 1)
            return got;
        size_t used = mbrtowc(out, &byte, 1, &editor->partial);
        if (used == (size_t)-2)
            continue;
        if (used != (size_t)-1)
            return 1;
        memset(&editor->partial, 0, sizeof editor->partial);
    }
}

/* Completes a command that the line starts with, as far as it is the only one. */
static unsigned char complete(EditLine *edit, wint_t key)
{
    (void)key;
    pl_line_editor *editor = editor_of(edit);
    const LineInfo *line = el_line(edit);
    size_t n = (size_t)(line->cursor - line->buffer), common = 0;
    const char *found = NULL;
    if (line->cursor != line->lastchar)
        return CC_ERROR;
    for (const char *const *word = editor->words; *word; word++) {
        if (strncmp(*word, line->buffer, n) != 0 || n == 0)
            continue;
        size_t same = n;
        while (found && same < common && found[same] == (*word)[same])
            same++;
        common = found ? same : strlen(*word);
        found = *word;
    }
    if (!found || common == n)
        return CC_ERROR;
    char rest[64];
    snprintf(rest, sizeof rest, "%.*s%s", (int)(common - n), found + n, found[common] ? "" : " ");
    return el_insertstr(edit, rest) < 0 ? CC_ERROR : CC_REFRESH;
}

static void bind_keys(EditLine *edit)
{
    static const char *const keys[][2] = {
        {"\t", "pl-complete"},         {"^R", "em-inc-search-prev"},       {"\033[1;5C", "em-next-word"},
        {"\033[1;5D", "ed-prev-word"}, {"\033[3~", "ed-delete-next-char"}, {"\033[H", "ed-move-to-beg"},
        {"\033[F", "ed-move-to-end"},  {"\033[1~", "ed-move-to-beg"},      {"\033[4~", "ed-move-to-end"},
    };
    /* The wide call keeps the names; the narrow one keeps copies for ever. */
    el_wset(edit, EL_ADDFN, L"pl-complete", L"completes commands", complete);
    for (size_t i = 0; i < sizeof keys / sizeof keys[0]; i++)
        el_set(edit, EL_BIND, keys[i][0], keys[i][1], NULL);
}

/* ---- history ------------------------------------------------------------------------------------ */

static void make_folders(char *path)
{
    for (char *slash = strchr(path + 1, '/'); slash; slash = strchr(slash + 1, '/')) {
        *slash = '\0';
        mkdir(path, 0700);
        *slash = '/';
    }
}

static void load_history(pl_line_editor *editor)
{
    HistEvent event;
    char *folder;
    pl_error err;
    history(editor->history, &event, H_SETSIZE, HISTORY_LINES);
    history(editor->history, &event, H_SETUNIQUE, 1);
    if (pl_cache_dir(&folder, &err) != PL_OK) {
        pl_console_detail(editor->options, "lines are not kept: %s", err.message);
        return;
    }
    pl_strbuf_printf(&editor->history_file, "%s/history", folder);
    free(folder);
    if (!editor->history_file.failed)
        history(editor->history, &event, H_LOAD, editor->history_file.data);
}

static void save_history(pl_line_editor *editor)
{
    HistEvent event;
    pl_strbuf beside = {.data = NULL};
    if (!editor->history_file.n || editor->history_file.failed)
        return;
    make_folders(editor->history_file.data);
    pl_strbuf_printf(&beside, "%s.%ld", editor->history_file.data, (long)getpid());
    if (beside.failed)
        return;
    errno = 0;
    if (history(editor->history, &event, H_SAVE, beside.data) < 0 ||
        rename(beside.data, editor->history_file.data) != 0) {
        pl_console_detail(editor->options, "%s: lines are not kept: %s", editor->history_file.data, strerror(errno));
        unlink(beside.data);
    }
    pl_strbuf_free(&beside);
}

/* ---- lines -------------------------------------------------------------------------------------- */

static void on_signal(int signal_number)
{
    (void)signal_number; /* that it interrupts poll() is all there is to do */
}

static void wake_on(int signal_number)
{
    struct sigaction action = {.sa_handler = on_signal, .sa_flags = SA_RESTART};
    sigemptyset(&action.sa_mask);
    sigaction(signal_number, &action, NULL);
}

static void choose_characters(void)
{
    if (!setlocale(LC_CTYPE, "") || strcmp(nl_langinfo(CODESET), "UTF-8") != 0)
        setlocale(LC_CTYPE, "C.UTF-8");
}

pl_line_editor *pl_line_editor_open(const pl_options *options, const char *const *words)
{
    pl_line_editor *editor = calloc(1, sizeof *editor);
    if (!editor)
        return NULL;
    choose_characters();
    editor->options = options;
    editor->words = words;
    editor->prompt = "";
    editor->edit = el_init("pleiad", stdin, stdout, stderr);
    editor->history = history_init();
    if (!editor->edit || !editor->history) {
        pl_line_editor_close(editor);
        return NULL;
    }
    load_history(editor);
    el_set(editor->edit, EL_CLIENTDATA, editor);
    el_set(editor->edit, EL_PROMPT_ESC, show_prompt, '\1');
    el_set(editor->edit, EL_EDITOR, "emacs");
    el_set(editor->edit, EL_HIST, history, editor->history);
    el_set(editor->edit, EL_GETCFN, read_character);
    bind_keys(editor->edit);
    wake_on(SIGWINCH);
    wake_on(SIGCONT);
    return editor;
}

void pl_line_editor_close(pl_line_editor *editor)
{
    if (!editor)
        return;
    if (editor->history)
        save_history(editor);
    if (editor->edit)
        el_end(editor->edit);
    if (editor->history)
        history_end(editor->history);
    pl_strbuf_free(&editor->history_file);
    free(editor);
}

pl_line pl_line_editor_read(pl_line_editor *editor, const char *prompt, pl_strbuf *out, pl_error *err)
{
    int n = 0;
    HistEvent event;
    editor->prompt = prompt;
    editor->interrupted = false;
    editor->error = 0;
    const char *line = el_gets(editor->edit, &n);
    if (editor->interrupted) {
        fputs("\n", stdout);
        el_reset(editor->edit);
        return editor->was_empty ? PL_LINE_INTERRUPT_EMPTY : PL_LINE_INTERRUPT;
    }
    if (editor->error) {
        pl_fail(err, PL_ERR_IO, "standard input: %s", strerror(editor->error));
        return PL_LINE_FAILED;
    }
    if (!line || n <= 0) {
        fputs("\n", stdout);
        return PL_LINE_END;
    }
    size_t bytes = strlen(line);
    bytes -= bytes && line[bytes - 1] == '\n';
    pl_strbuf_add(out, line, bytes);
    if (bytes)
        history(editor->history, &event, H_ENTER, line);
    return PL_LINE_TEXT;
}
