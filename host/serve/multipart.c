#ifndef _GNU_SOURCE
#define _GNU_SOURCE /* memmem() */
#endif

#include "host/serve/multipart.h"

#include <stdio.h>
#include <string.h>
#include <strings.h>

#define BOUNDARY 70 /* most characters, RFC 2046 */
#define HEADERS ((size_t)8 << 10)

/* What stands between two boundaries, or is still to be read. */
typedef struct span {
    const char *at;
    size_t n;
} span;

static const char *find(span s, const char *what, size_t n)
{
    return memmem(s.at, s.n, what, n);
}

static void skip(span *s, size_t n)
{
    s->at += n;
    s->n -= n;
}

static bool take(span *s, const char *text)
{
    size_t n = strlen(text);
    if (s->n < n || memcmp(s->at, text, n) != 0)
        return false;
    skip(s, n);
    return true;
}

static void skip_spaces(span *s)
{
    while (s->n && (*s->at == ' ' || *s->at == '\t'))
        skip(s, 1);
}

/* ---- parameters of a header: ; name=value; name="value" ---- */

static span take_token(span *s, const char *ends)
{
    span token = {s->at, 0};
    while (s->n && !strchr(ends, *s->at) && *s->at) {
        token.n++;
        skip(s, 1);
    }
    return token;
}

/* A value; in quotes a backslash stands before a quote. False: the quotes do not end. What there is no room for is cut. */
static bool take_value(span *s, char *out, size_t room)
{
    size_t n = 0;
    bool quoted = take(s, "\"");
    while (s->n && (quoted ? *s->at != '"' : !strchr("; \t\r\n", *s->at))) {
        if (quoted && *s->at == '\\' && s->n > 1)
            skip(s, 1);
        if (n + 1 < room)
            out[n++] = *s->at;
        skip(s, 1);
    }
    out[n] = '\0';
    return !quoted || take(s, "\"");
}

/* The next parameter. False: there is none, or it is none (s has something left). */
static bool next_parameter(span *s, span *name, char *value, size_t room)
{
    skip_spaces(s);
    if (!take(s, ";"))
        return false;
    skip_spaces(s);
    *name = take_token(s, "=; \t");
    return name->n && take(s, "=") && take_value(s, value, room);
}

static bool is_named(span name, const char *wanted)
{
    return name.n == strlen(wanted) && strncasecmp(name.at, wanted, name.n) == 0;
}

static pl_status read_boundary(const char *content_type, char *out, pl_error *err)
{
    static const char type[] = "multipart/form-data";
    char value[BOUNDARY + 2];
    span s = {content_type, content_type ? strlen(content_type) : 0}, name;
    span given = take_token(&s, "; \t");
    if (!is_named(given, type))
        return pl_fail(err, PL_ERR_UNSUPPORTED, "the body must be %s, but its Content-Type is '%.60s'", type,
                       content_type ? content_type : "");
    out[0] = '\0';
    while (next_parameter(&s, &name, value, sizeof value))
        if (is_named(name, "boundary"))
            memcpy(out, value, sizeof value);
    if (!out[0] || strlen(out) > BOUNDARY)
        return pl_fail(err, PL_ERR_FORMAT, "Content-Type: a boundary of 1 to %d characters is missing", BOUNDARY);
    return PL_OK;
}

/* ---- a part ---- */

static bool read_disposition(span s, pl_multipart_part *part)
{
    span name;
    char value[PL_MULTIPART_NAME];
    bool named = false;
    skip_spaces(&s);
    if (!is_named(take_token(&s, "; \t"), "form-data"))
        return false;
    while (next_parameter(&s, &name, value, sizeof value)) {
        if (is_named(name, "name")) {
            memcpy(part->name, value, sizeof value);
            named = true;
        } else if (is_named(name, "filename")) {
            memcpy(part->filename, value, sizeof value);
            part->is_file = true;
        }
    }
    return named && s.n == 0;
}

/* Lines of headers, each with its end; Content-Disposition is the one that counts. */
static bool read_headers(span s, pl_multipart_part *part)
{
    bool known = false;
    while (s.n) {
        const char *end = find(s, "\r\n", 2);
        span line = {s.at, end ? (size_t)(end - s.at) : s.n};
        skip(&s, line.n + (end ? 2 : 0));
        span name = take_token(&line, ": \t");
        if (!name.n || !take(&line, ":"))
            return false;
        if (is_named(name, "content-disposition")) {
            if (known || !read_disposition(line, part))
                return false;
            known = true;
        }
    }
    return known;
}

/* s: from behind a boundary's line to the next boundary. */
static pl_status read_part(span s, size_t index, pl_multipart_part *part, pl_error *err)
{
    const char *end = find(s, "\r\n\r\n", 4);
    size_t n = end ? (size_t)(end - s.at) : s.n;
    memset(part, 0, sizeof *part);
    if (!end || n > HEADERS)
        return pl_fail(err, PL_ERR_FORMAT, "part %zu of the form: its headers do not end", index + 1);
    if (!read_headers((span){s.at, n}, part))
        return pl_fail(
            err, PL_ERR_FORMAT,
            "part %zu of the form: expected 'Content-Disposition: form-data; name=\"...\"' among its headers",
            index + 1);
    part->data = end + 4;
    part->n = s.n - n - 4;
    return PL_OK;
}

pl_status pl_multipart_read(const char *content_type, const char *body, size_t n, pl_multipart_part *parts, size_t room,
                            size_t *n_parts, pl_error *err)
{
    char boundary[BOUNDARY + 2], mark[BOUNDARY + 8];
    span s = {body, n};
    size_t found = 0;
    PL_TRY(read_boundary(content_type, boundary, err));
    size_t n_mark = (size_t)snprintf(mark, sizeof mark, "\r\n--%s", boundary);
    if (!take(&s, mark + 2))
        return pl_fail(err, PL_ERR_FORMAT, "the form does not begin with its boundary '%s'", mark + 2);
    while (!take(&s, "--")) {
        const char *end;
        skip_spaces(&s);
        if (!take(&s, "\r\n"))
            return pl_fail(err, PL_ERR_FORMAT, "part %zu of the form: its boundary's line does not end", found + 1);
        if (!(end = find(s, mark, n_mark)))
            return pl_fail(err, PL_ERR_FORMAT, "part %zu of the form: cut short, there is no boundary after it",
                           found + 1);
        if (found == room)
            return pl_fail(err, PL_ERR_FORMAT, "the form has more than %zu parts", room);
        span part = {s.at, (size_t)(end - s.at)};
        PL_TRY(read_part(part, found, &parts[found], err));
        skip(&s, part.n + n_mark);
        found++;
    }
    *n_parts = found;
    return PL_OK;
}
