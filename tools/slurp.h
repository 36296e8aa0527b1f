/* Whole inputs into memory. */
#ifndef PL_TOOLS_SLURP_H
#define PL_TOOLS_SLURP_H

#include "host/base/strbuf.h"

/* The text, "" while empty. */
static inline const char *pl_strbuf_string(const pl_strbuf *buf)
{
    return buf->data ? buf->data : "";
}

/* PL_ERR_MEMORY when something that was added got lost. */
pl_status pl_strbuf_check(const pl_strbuf *buf, pl_error *err);

/* Adds the content of a file, "-" for standard input. */
pl_status pl_slurp(const char *path, pl_strbuf *out, pl_error *err);

/* Takes one newline, "\n" or "\r\n", from the end. */
void pl_strbuf_chomp(pl_strbuf *buf);

#endif
