#include "host/base/strbuf.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Room for n more bytes and a NUL. */
static bool reserve(pl_strbuf *buf, size_t n)
{
    if (buf->failed)
        return false;
    if (n < buf->capacity - buf->n)
        return true;
    size_t capacity = buf->capacity ? buf->capacity : 64;
    while (capacity - buf->n <= n) {
        if (capacity > SIZE_MAX / 2) {
            buf->failed = true;
            return false;
        }
        capacity *= 2;
    }
    char *data = realloc(buf->data, capacity);
    if (!data) {
        buf->failed = true;
        return false;
    }
    buf->data = data;
    buf->capacity = capacity;
    return true;
}

void pl_strbuf_add(pl_strbuf *buf, const void *bytes, size_t n)
{
    if (!reserve(buf, n))
        return;
    if (n)
        memcpy(buf->data + buf->n, bytes, n);
    buf->n += n;
    buf->data[buf->n] = '\0';
}

void pl_strbuf_add_text(pl_strbuf *buf, const char *text)
{
    pl_strbuf_add(buf, text, strlen(text));
}

void pl_strbuf_printf(pl_strbuf *buf, const char *fmt, ...)
{
    va_list args, again;
    va_start(args, fmt);
    va_copy(again, args);
    int n = vsnprintf(NULL, 0, fmt, args);
    va_end(args);
    if (n < 0) {
        buf->failed = true;
    } else if (reserve(buf, (size_t)n)) {
        vsnprintf(buf->data + buf->n, (size_t)n + 1, fmt, again);
        buf->n += (size_t)n;
    }
    va_end(again);
}

void pl_strbuf_clear(pl_strbuf *buf)
{
    buf->n = 0;
    buf->failed = false;
    if (buf->data)
        buf->data[0] = '\0';
}

void pl_strbuf_free(pl_strbuf *buf)
{
    free(buf->data);
    *buf = (pl_strbuf){0};
}

pl_status pl_strbuf_take(pl_strbuf *buf, char **out, size_t *n_bytes, pl_error *err)
{
    pl_strbuf_add(buf, "", 0);
    if (buf->failed) {
        size_t bytes = buf->n;
        pl_strbuf_free(buf);
        return pl_fail_memory(err, bytes, "text");
    }
    *out = buf->data;
    if (n_bytes)
        *n_bytes = buf->n;
    *buf = (pl_strbuf){0};
    return PL_OK;
}
