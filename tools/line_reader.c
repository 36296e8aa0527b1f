#include "tools/line_reader.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tools/console.h"
#include "tools/interrupt.h"
#include "tools/line_editor.h"
#include "tools/slurp.h"

struct pl_line_reader {
    pl_line_editor *editor; /* NULL: plain reading */
    bool prompts;
    char block[4096];
    size_t at, n; /* of block */
};

pl_status pl_line_reader_open(const pl_options *options, const char *const *words, pl_line_reader **out, pl_error *err)
{
    pl_line_reader *reader = calloc(1, sizeof *reader);
    if (!reader)
        return pl_fail_memory(err, sizeof *reader, "line reader");
    reader->prompts = isatty(STDIN_FILENO);
    if (reader->prompts && isatty(STDOUT_FILENO))
        reader->editor = pl_line_editor_open(options, words);
    *out = reader;
    return PL_OK;
}

void pl_line_reader_close(pl_line_reader *reader)
{
    if (!reader)
        return;
    pl_line_editor_close(reader->editor);
    free(reader);
}

/* The next byte, or -1 at the end, on Ctrl-C (errno EINTR) and on errors. poll() returns early on any signal,
 * even where read() would be restarted. */
static int next_byte(pl_line_reader *reader)
{
    if (reader->at < reader->n)
        return (unsigned char)reader->block[reader->at++];
    struct pollfd input = {.fd = STDIN_FILENO, .events = POLLIN};
    ssize_t got = -1;
    while (got < 0) {
        if (pl_interrupt_pending()) {
            errno = EINTR;
            return -1;
        }
        if (poll(&input, 1, -1) < 0 && errno == EINTR)
            continue;
        got = read(STDIN_FILENO, reader->block, sizeof reader->block);
        if (got < 0 && errno != EINTR)
            return -1;
    }
    errno = 0;
    reader->at = 0;
    reader->n = (size_t)got;
    return got ? (unsigned char)reader->block[reader->at++] : -1;
}

static pl_line read_plain(pl_line_reader *reader, const char *prompt, pl_strbuf *out, pl_error *err)
{
    if (reader->prompts) {
        fputs(prompt, stdout);
        fflush(stdout);
    }
    for (;;) {
        int c = next_byte(reader);
        if (c < 0 && errno == EINTR) {
            pl_interrupt_take();
            return out->n ? PL_LINE_INTERRUPT : PL_LINE_INTERRUPT_EMPTY;
        }
        if (c < 0 && errno) {
            pl_fail(err, PL_ERR_IO, "standard input: %s", strerror(errno));
            return PL_LINE_FAILED;
        }
        if (c < 0 && !out->n)
            return PL_LINE_END;
        if (c < 0 || c == '\n')
            return PL_LINE_TEXT;
        char byte = (char)c;
        pl_strbuf_add(out, &byte, 1);
    }
}

pl_line pl_line_read(pl_line_reader *reader, const char *prompt, pl_strbuf *out, pl_error *err)
{
    pl_strbuf_clear(out);
    pl_line line = reader->editor ? pl_line_editor_read(reader->editor, prompt, out, err)
                                  : read_plain(reader, prompt, out, err);
    if (line == PL_LINE_TEXT && pl_strbuf_check(out, err) != PL_OK)
        return PL_LINE_FAILED;
    if (line == PL_LINE_TEXT && out->n && out->data[out->n - 1] == '\r')
        out->data[--out->n] = '\0';
    return line;
}
