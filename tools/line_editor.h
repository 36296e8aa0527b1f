/* Line editing on a terminal, by libedit. */
#ifndef PL_TOOLS_LINE_EDITOR_H
#define PL_TOOLS_LINE_EDITOR_H

#include "tools/line_reader.h"

typedef struct pl_line_editor pl_line_editor;

#if defined(PL_HAVE_LIBEDIT)

/* NULL where the terminal cannot be edited on. */
pl_line_editor *pl_line_editor_open(const pl_options *options, const char *const *words);
void pl_line_editor_close(pl_line_editor *editor);
pl_line pl_line_editor_read(pl_line_editor *editor, const char *prompt, pl_strbuf *out, pl_error *err);

#else

static inline pl_line_editor *pl_line_editor_open(const pl_options *options, const char *const *words)
{
    (void)options;
    (void)words;
    return NULL;
}

static inline void pl_line_editor_close(pl_line_editor *editor)
{
    (void)editor;
}

static inline pl_line pl_line_editor_read(pl_line_editor *editor, const char *prompt, pl_strbuf *out, pl_error *err)
{
    (void)editor;
    (void)prompt;
    (void)out;
    (void)err;
    return PL_LINE_END;
}

#endif

#endif
