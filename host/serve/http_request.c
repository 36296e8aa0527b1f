#include "host/serve/http_request.h"

#include <stdlib.h>
#include <string.h>
#include <strings.h>

/* ---- the head as lines ---- */

size_t pl_http_head_length(const char *bytes, size_t n, size_t *seen, pl_http_fault *fault)
{
    for (size_t i = *seen; i < n; i++) {
        char c = bytes[i];
        if (c == '\n' && (i == 0 || bytes[i - 1] != '\r')) {
            *fault = (pl_http_fault){400, "A line of the request ends without a carriage return."};
            return 0;
        }
        if (c == '\n' && i >= 3 && bytes[i - 2] == '\n')
            return i + 1;
        if (c == '\0') {
            *fault = (pl_http_fault){400, "The request's head holds a zero byte."};
            return 0;
        }
        if (i == PL_HTTP_LINE_BYTES && !memchr(bytes, '\n', PL_HTTP_LINE_BYTES)) {
            *fault = (pl_http_fault){414, "The request line is too long."};
            return 0;
        }
        if (i >= PL_HTTP_HEAD_BYTES) {
            *fault = (pl_http_fault){431, "The request's headers are too long."};
            return 0;
        }
    }
    *seen = n;
    return 0;
}

static bool is_token_char(unsigned char c)
{
    return (c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') ||
           (c && strchr("!#$%&'*+-.^_`|~", c));
}

/* Bytes at the beginning that may stand in a method or a header's name. */
static size_t token_length(const char *text)
{
    size_t n = 0;
    while (is_token_char((unsigned char)text[n]))
        n++;
    return n;
}

static char *cut_line(char **rest)
{
    char *line = *rest;
    char *end = strstr(line, "\r\n");
    *end = '\0';
    *rest = end + 2;
    return line;
}

/* ---- the target ---- */

static int hex_digit(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    if (c >= 'a' && c <= 'f')
        return c - 'a' + 10;
    return c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

/* In place; false where "%" is not followed by the digits of a byte other than zero. */
static bool percent_decode(char *text, bool plus_is_space)
{
    char *out = text;
    for (char *p = text; *p; p++) {
        if (*p == '%') {
            int high = hex_digit(p[1]), low = high < 0 ? -1 : hex_digit(p[2]);
            if (low < 0 || high + low == 0)
                return false;
            *out++ = (char)(high * 16 + low);
            p += 2;
        } else {
            *out++ = *p == '+' && plus_is_space ? ' ' : *p;
        }
    }
    *out = '\0';
    return true;
}

static bool parse_query(pl_http_request *r, char *query)
{
    for (char *name = query, *next; name; name = next) {
        next = strchr(name, '&');
        if (next)
            *next++ = '\0';
        if (!*name)
            continue;
        char *value = strchr(name, '=');
        if (value)
            *value++ = '\0';
        if (r->n_queries == PL_HTTP_QUERIES || !percent_decode(name, true) || (value && !percent_decode(value, true)))
            return false;
        r->queries[r->n_queries++] = (pl_http_pair){name, value ? value : ""};
    }
    return true;
}

/* "http://host/path" is for proxies, but a server must understand it. */
static char *strip_authority(pl_http_request *r, char *target)
{
    if (strncasecmp(target, "http://", 7) != 0)
        return target;
    char *host = target + 7;
    char *path = host + strcspn(host, "/?");
    if (*path != '/' || path == host)
        return target;
    memmove(target, host, (size_t)(path - host)); /* leaves room for the NUL before the path */
    target[path - host] = '\0';
    r->host = target;
    return path;
}

static pl_http_fault parse_target(pl_http_request *r, char *target)
{
    for (const char *p = target; *p; p++)
        if ((unsigned char)*p <= ' ' || (unsigned char)*p >= 0x7f || *p == '#')
            return (pl_http_fault){400, "The request's target holds a byte that must be percent-encoded."};
    target = strip_authority(r, target);
    bool all = strcmp(target, "*") == 0 && strcmp(r->method, "OPTIONS") == 0;
    if (*target != '/' && !all)
        return (pl_http_fault){400, "The request's target is no path."};
    char *query = strchr(target, '?');
    if (query)
        *query++ = '\0';
    if (!percent_decode(target, false) || !parse_query(r, query))
        return (pl_http_fault){400, "The request's target cannot be decoded."};
    r->path = target;
    return (pl_http_fault){0};
}

static pl_http_fault parse_line(pl_http_request *r, char *line)
{
    static const pl_http_fault bad = {400, "The request line is none."};
    size_t n = token_length(line);
    if (n == 0 || n > 32 || line[n] != ' ')
        return bad;
    line[n] = '\0';
    r->method = line;
    char *target = line + n + 1;
    char *version = strchr(target, ' ');
    if (!version || version == target)
        return bad;
    *version++ = '\0';
    if (strncmp(version, "HTTP/", 5) != 0 || strlen(version) != 8 || version[6] != '.')
        return bad;
    if (version[5] != '1')
        return (pl_http_fault){505, "This server speaks HTTP/1.1."};
    r->minor = version[7] == '0' ? 0 : 1;
    return parse_target(r, target);
}

/* ---- headers ---- */

static pl_http_fault parse_header(pl_http_request *r, char *line)
{
    size_t n = token_length(line);
    if (n == 0 || line[n] != ':')
        return (pl_http_fault){400, "A header line is none."};
    if (r->n_headers == PL_HTTP_HEADERS)
        return (pl_http_fault){431, "The request has too many headers."};
    line[n] = '\0';
    for (size_t i = 0; i < n; i++)
        if (line[i] >= 'A' && line[i] <= 'Z')
            line[i] = (char)(line[i] + 32);
    char *value = line + n + 1;
    value += strspn(value, " \t");
    size_t length = strlen(value);
    while (length && (value[length - 1] == ' ' || value[length - 1] == '\t'))
        length--;
    value[length] = '\0';
    for (const char *p = value; *p; p++)
        if (((unsigned char)*p < ' ' && *p != '\t') || *p == 0x7f)
            return (pl_http_fault){400, "A header holds a control character."};
    r->headers[r->n_headers++] = (pl_http_pair){line, value};
    return (pl_http_fault){0};
}

const char *pl_http_request_header(const pl_http_request *r, const char *name)
{
    for (size_t i = 0; i < r->n_headers; i++)
        if (strcasecmp(r->headers[i].name, name) == 0)
            return r->headers[i].value;
    return NULL;
}

static size_t count_headers(const pl_http_request *r, const char *name)
{
    size_t n = 0;
    for (size_t i = 0; i < r->n_headers; i++)
        n += strcmp(r->headers[i].name, name) == 0;
    return n;
}

/* Of words separated by commas. */
static bool list_has(const char *list, const char *word)
{
    size_t n = strlen(word);
    while (list && *list) {
        list += strspn(list, ", \t");
        size_t length = strcspn(list, ", \t");
        if (length == n && strncasecmp(list, word, n) == 0)
            return true;
        list += length;
    }
    return false;
}

/* In any of the headers of that name. */
static bool header_has(const pl_http_request *r, const char *name, const char *word)
{
    for (size_t i = 0; i < r->n_headers; i++)
        if (strcmp(r->headers[i].name, name) == 0 && list_has(r->headers[i].value, word))
            return true;
    return false;
}

static bool parse_length(const char *text, uint64_t *out)
{
    size_t n = strlen(text);
    if (n == 0 || n > 18 || strspn(text, "0123456789") != n)
        return false;
    *out = strtoull(text, NULL, 10);
    return true;
}

/* Where the request ends must be said once and clearly: others may stand between the client and us. */
static pl_http_fault read_framing(pl_http_request *r)
{
    const char *length = pl_http_request_header(r, "content-length");
    const char *coding = pl_http_request_header(r, "transfer-encoding");
    if (length && coding)
        return (pl_http_fault){400, "The request has both Content-Length and Transfer-Encoding."};
    if (count_headers(r, "content-length") > 1 || (length && !parse_length(length, &r->length)))
        return (pl_http_fault){400, "The request's Content-Length is no single number."};
    if (!coding)
        return (pl_http_fault){0};
    if (r->minor == 0 || count_headers(r, "transfer-encoding") > 1)
        return (pl_http_fault){400, "The request's Transfer-Encoding cannot be."};
    if (strcasecmp(coding, "chunked") != 0)
        return (pl_http_fault){501, "The only Transfer-Encoding here is chunked."};
    r->chunked = true;
    return (pl_http_fault){0};
}

static pl_http_fault read_meaning(pl_http_request *r)
{
    const char *host = pl_http_request_header(r, "host");
    if (count_headers(r, "host") > 1 || (!host && r->minor > 0))
        return (pl_http_fault){400, "The request needs one Host header."};
    if (!r->host)
        r->host = host;
    r->keep_alive = r->minor > 0 ? !header_has(r, "connection", "close") : header_has(r, "connection", "keep-alive");
    const char *expect = pl_http_request_header(r, "expect");
    if (expect && strcasecmp(expect, "100-continue") != 0)
        return (pl_http_fault){417, "The only expectation that can be met is 100-continue."};
    r->expects_continue = expect && r->minor > 0;
    const char *encoding = pl_http_request_header(r, "content-encoding");
    if (encoding && strcasecmp(encoding, "identity") != 0)
        return (pl_http_fault){415, "Compressed bodies are not taken."};
    return read_framing(r);
}

pl_http_fault pl_http_request_parse(pl_http_request *r, const char *head, size_t n)
{
    *r = (pl_http_request){.text = malloc(n + 1)};
    if (!r->text)
        return (pl_http_fault){503, "Out of memory."};
    memcpy(r->text, head, n);
    r->text[n] = '\0';
    char *rest = r->text;
    pl_http_fault fault = parse_line(r, cut_line(&rest));
    while (!fault.status && strncmp(rest, "\r\n", 2) != 0)
        fault = parse_header(r, cut_line(&rest));
    return fault.status ? fault : read_meaning(r);
}

void pl_http_request_clear(pl_http_request *r)
{
    free(r->text);
    r->text = NULL;
    r->method = r->path = r->host = NULL;
    r->n_headers = r->n_queries = 0;
}

/* ---- chunks ---- */

#define CHUNK_OVERHEAD 8192 /* bytes in a row that are no content */

/* The size is read; what follows it. */
static void end_size(pl_http_chunks *c)
{
    c->state = c->left ? PL_CHUNK_DATA : PL_CHUNK_TRAILER;
    c->digits = 0;
    c->text = false;
}

/* One byte that is no content; false where it cannot stand there. */
static bool feed_byte(pl_http_chunks *c, char byte)
{
    if (c->cr != (byte == '\n'))
        return false;
    if (byte == '\r') {
        c->cr = true;
        return c->state != PL_CHUNK_SIZE || c->digits > 0;
    }
    c->cr = false;
    switch (c->state) {
    case PL_CHUNK_SIZE:
        if (byte == '\n') {
            end_size(c);
            return true;
        }
        if (c->digits && (byte == ';' || byte == ' ' || byte == '\t')) {
            c->state = PL_CHUNK_EXTENSION;
            return true;
        }
        if (hex_digit(byte) < 0 || c->digits++ == 15)
            return false;
        c->left = c->left * 16 + (uint64_t)hex_digit(byte);
        return true;
    case PL_CHUNK_EXTENSION:
        if (byte == '\n')
            end_size(c);
        return byte != '\0';
    case PL_CHUNK_DATA_END: c->state = PL_CHUNK_SIZE; return byte == '\n';
    case PL_CHUNK_TRAILER:
        if (byte == '\n' && !c->text)
            c->state = PL_CHUNKS_DONE;
        c->text = byte != '\n';
        return byte != '\0';
    default: return false;
    }
}

size_t pl_http_chunks_feed(pl_http_chunks *c, const char *bytes, size_t n, pl_strbuf *out, size_t max_bytes,
                           pl_http_fault *fault)
{
    size_t at = 0;
    while (at < n && c->state != PL_CHUNKS_DONE) {
        if (c->state == PL_CHUNK_DATA) {
            size_t take = n - at < c->left ? n - at : (size_t)c->left;
            pl_strbuf_add(out, bytes + at, take);
            at += take;
            c->left -= take;
            c->overhead = 0;
            if (c->left == 0)
                c->state = PL_CHUNK_DATA_END;
        } else if (c->overhead++ == CHUNK_OVERHEAD || !feed_byte(c, bytes[at++])) {
            *fault = (pl_http_fault){400, "The body's chunks cannot be read."};
            return at;
        } else if (c->state == PL_CHUNK_DATA && c->left > max_bytes - out->n) {
            *fault = (pl_http_fault){413, "The request's body is too large."};
            return at;
        }
    }
    return at;
}
