/* Text that grows at its end. A failed allocation is remembered, what follows is dropped, and the holder
 * asks once, at the end. */
#ifndef PL_BASE_STRBUF_H
#define PL_BASE_STRBUF_H

#include "host/base/status.h"

typedef struct pl_strbuf {
    char *data; /* NUL-terminated; NULL while nothing was added */
    size_t n;   /* without the NUL */
    size_t capacity;
    bool failed;
} pl_strbuf; /* all zero: empty */

void pl_strbuf_add(pl_strbuf *buf, const void *bytes, size_t n);
void pl_strbuf_add_text(pl_strbuf *buf, const char *text);
void pl_strbuf_printf(pl_strbuf *buf, const char *fmt, ...) PL_PRINTF(2, 3);

/* Forgets the text and keeps the memory. */
void pl_strbuf_clear(pl_strbuf *buf);
void pl_strbuf_free(pl_strbuf *buf);

/* Hands the text over: *out is NUL-terminated, free(); the buffer is empty again. n_bytes may be NULL.
 * PL_ERR_MEMORY when anything was dropped. */
pl_status pl_strbuf_take(pl_strbuf *buf, char **out, size_t *n_bytes, pl_error *err);

#endif
