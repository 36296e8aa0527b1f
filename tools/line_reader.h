/* Lines from the person at the terminal, or from a pipe. */
#ifndef PL_TOOLS_LINE_READER_H
#define PL_TOOLS_LINE_READER_H

#include "host/base/options.h"
#include "host/base/strbuf.h"

typedef struct pl_line_reader pl_line_reader;

typedef enum pl_line {
    PL_LINE_TEXT,
    PL_LINE_END,             /* no more input */
    PL_LINE_INTERRUPT,       /* Ctrl-C in a line */
    PL_LINE_INTERRUPT_EMPTY, /* Ctrl-C before anything was typed */
    PL_LINE_FAILED,
} pl_line;

/* With a terminal on both sides lines can be edited and earlier ones come back, those of earlier runs too. words
 * (NULL-terminated, borrowed) complete the first word of a line. */
pl_status pl_line_reader_open(const pl_options *options, const char *const *words, pl_line_reader **out, pl_error *err);

/* Keeps the history for the next run. */
void pl_line_reader_close(pl_line_reader *reader);

/* Reads one line into *out, without its newline; what *out held is gone. err is filled for PL_LINE_FAILED. */
pl_line pl_line_read(pl_line_reader *reader, const char *prompt, pl_strbuf *out, pl_error *err);

#endif
