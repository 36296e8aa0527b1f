#include "tools/serve_keys.h"

#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "tools/console.h"
#include "tools/slurp.h"

#define KEY_BYTES 1024

/* HTTP headers carry no other bytes. */
static bool is_printable(const char *text)
{
    for (; *text; text++)
        if (*text <= ' ' || *text > '~')
            return false;
    return true;
}

static pl_status add_line(pl_serve_keys *keys, char *line, const char *file, int number, pl_error *err)
{
    line += strspn(line, " \t");
    size_t n = strlen(line);
    while (n && strchr(" \t\r", line[n - 1]))
        n--;
    line[n] = '\0';
    if (!n || *line == '#')
        return PL_OK;
    if (n > KEY_BYTES || !is_printable(line))
        return pl_fail(err, PL_ERR_FORMAT, "%s, line %d: a key is 1 to %d printable ASCII characters without blanks",
                       file, number, KEY_BYTES);
    const char **items = realloc(keys->items, (keys->n + 1) * sizeof *items);
    if (!items)
        return pl_fail_memory(err, (keys->n + 1) * sizeof *items, "API keys");
    keys->items = items;
    items[keys->n++] = line;
    return PL_OK;
}

static pl_status add_lines(pl_serve_keys *keys, const char *file, pl_error *err)
{
    int number = 1;
    if (keys->text.n && memchr(keys->text.data, '\0', keys->text.n))
        return pl_fail(err, PL_ERR_FORMAT, "%s holds a zero byte", file);
    for (char *line = keys->text.data, *next; line; line = next, number++) {
        next = strchr(line, '\n');
        if (next)
            *next++ = '\0';
        PL_TRY(add_line(keys, line, file, number, err));
    }
    return keys->n ? PL_OK : pl_fail(err, PL_ERR_FORMAT, "%s holds no API key", file);
}

pl_status pl_serve_keys_read(const pl_options *options, pl_serve_keys *out, pl_error *err)
{
    struct stat about;
    const char *file = options->api_key_file;
    *out = (pl_serve_keys){.n = 0};
    if (!file)
        return PL_OK;
    pl_status status = pl_slurp(file, &out->text, err);
    if (status == PL_OK)
        status = pl_strbuf_check(&out->text, err);
    if (status == PL_OK)
        status = add_lines(out, file, err);
    if (status != PL_OK)
        pl_serve_keys_free(out);
    else if (stat(file, &about) == 0 && about.st_mode & (S_IRGRP | S_IROTH))
        pl_console_note(options, "others may read the keys in %s (chmod 600 %s)", file, file);
    return status;
}

void pl_serve_keys_free(pl_serve_keys *keys)
{
    pl_strbuf_free(&keys->text);
    free(keys->items);
    *keys = (pl_serve_keys){.n = 0};
}
