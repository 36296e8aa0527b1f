#include "tools/slurp.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

pl_status pl_strbuf_check(const pl_strbuf *buf, pl_error *err)
{
    return buf->failed ? pl_fail_memory(err, buf->n, "text") : PL_OK;
}

static pl_status read_all(FILE *file, const char *where, pl_strbuf *out, pl_error *err)
{
    char block[16384];
    size_t got;
    do {
        errno = 0;
        got = fread(block, 1, sizeof block, file);
        pl_strbuf_add(out, block, got);
    } while (got == sizeof block && !out->failed);
    if (ferror(file))
        return pl_fail(err, PL_ERR_IO, "%s: %s", where, errno ? strerror(errno) : "cannot be read");
    return pl_strbuf_check(out, err);
}

pl_status pl_slurp(const char *path, pl_strbuf *out, pl_error *err)
{
    if (strcmp(path, "-") == 0)
        return read_all(stdin, "standard input", out, err);
    FILE *file = fopen(path, "rb");
    if (!file)
        return pl_fail(err, PL_ERR_IO, "%s: %s", path, strerror(errno));
    pl_status status = read_all(file, path, out, err);
    fclose(file);
    return status;
}

static void drop_last(pl_strbuf *buf, char last)
{
    if (buf->n && buf->data[buf->n - 1] == last)
        buf->data[--buf->n] = '\0';
}

void pl_strbuf_chomp(pl_strbuf *buf)
{
    size_t n = buf->n;
    drop_last(buf, '\n');
    if (buf->n != n)
        drop_last(buf, '\r');
}
