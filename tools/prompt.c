#include "tools/prompt.h"

#include <poll.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tools/console.h"
#include "tools/slurp.h"

#define PATIENCE_MS 2000

static size_t shows_stdin(const pl_options *options)
{
    size_t n = 0;
    for (size_t i = 0; i < options->shown.n; i++)
        n += strcmp(options->shown.items[i].file, "-") == 0;
    return n;
}

/* With a prompt on the command line only what somebody has put there: a pipe or a file. */
static bool stdin_counts(const pl_options *options)
{
    struct stat info;
    if (options->interactive || options->file || isatty(STDIN_FILENO) || shows_stdin(options))
        return false;
    if (!options->prompt)
        return true;
    return fstat(STDIN_FILENO, &info) == 0 && (S_ISFIFO(info.st_mode) || S_ISREG(info.st_mode));
}

static void explain_waiting(const pl_options *options)
{
    struct pollfd input = {.fd = STDIN_FILENO, .events = POLLIN};
    if (poll(&input, 1, PATIENCE_MS) == 0)
        pl_console_note(options, "reading standard input%s",
                        options->prompt ? " as well as --prompt; without it: < /dev/null" : "");
}

static pl_status add_file(pl_strbuf *out, const char *path, pl_error *err)
{
    pl_strbuf content = {.data = NULL};
    pl_status status = pl_slurp(path, &content, err);
    pl_strbuf_chomp(&content);
    if (out->n && content.n)
        pl_strbuf_add_text(out, "\n\n");
    pl_strbuf_add(out, content.data, content.n);
    pl_strbuf_free(&content);
    return status;
}

pl_status pl_prompt_read(const pl_options *options, pl_strbuf *out, bool *given, pl_error *err)
{
    bool piped = stdin_counts(options);
    if (shows_stdin(options) + (options->file && strcmp(options->file, "-") == 0) > 1)
        return pl_fail(err, PL_ERR_ARGUMENT, "standard input can be read once: two options name it");
    if (shows_stdin(options) && (options->interactive || (!options->prompt && !options->file)))
        return pl_fail(err, PL_ERR_ARGUMENT, "standard input is shown to the model: ask with --prompt or --file%s",
                       options->interactive ? ", without --interactive" : "");
    *given = options->prompt || options->file || piped;
    if (options->prompt)
        pl_strbuf_add_text(out, options->prompt);
    if (options->file)
        PL_TRY(add_file(out, options->file, err));
    if (piped) {
        explain_waiting(options);
        PL_TRY(add_file(out, "-", err));
    }
    PL_TRY(pl_strbuf_check(out, err));
    if (*given && !out->n && !options->no_chat)
        return pl_fail(err, PL_ERR_ARGUMENT, "the prompt is empty%s%s",
                       options->file ? ": nothing in "
                       : piped       ? ": nothing on standard input"
                                     : "",
                       options->file ? options->file : "");
    return PL_OK;
}
