#include "host/base/json_out.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

pl_json pl_json_to_buffer(void)
{
    return (pl_json){0};
}

pl_json pl_json_to_file(FILE *file)
{
    return (pl_json){.file = file};
}

static void put(pl_json *json, const char *bytes, size_t n)
{
    if (json->file)
        fwrite(bytes, 1, n, json->file);
    else
        pl_strbuf_add(&json->buf, bytes, n);
}

static void put_text(pl_json *json, const char *text)
{
    put(json, text, strlen(text));
}

/* The comma before a value or key, where one is due. */
static void separate(pl_json *json)
{
    uint64_t bit = (uint64_t)1 << json->depth;
    if (json->after_key)
        json->after_key = false;
    else if (json->depth && json->filled & bit)
        put(json, ",", 1);
    json->filled |= bit;
}

static void begin(pl_json *json, const char *bracket)
{
    separate(json);
    put(json, bracket, 1);
    json->depth++;
    assert(json->depth < PL_JSON_DEPTH);
    json->filled &= ~((uint64_t)1 << json->depth);
}

static void end(pl_json *json, const char *bracket)
{
    assert(json->depth > 0 && !json->after_key);
    json->depth--;
    put(json, bracket, 1);
}

void pl_json_begin_object(pl_json *json)
{
    begin(json, "{");
}

void pl_json_end_object(pl_json *json)
{
    end(json, "}");
}

void pl_json_begin_array(pl_json *json)
{
    begin(json, "[");
}

void pl_json_end_array(pl_json *json)
{
    end(json, "]");
}

/* ---- strings ------------------------------------------------------------------------------------ */

/* Bytes of the character at s, or 0 where it is not UTF-8; then *bad is what to replace together. The
 * table of well-formed sequences is 3-7 of the Unicode standard. */
static size_t utf8_length(const unsigned char *s, size_t n, size_t *bad)
{
    unsigned char low = 0x80, high = 0xbf;
    size_t length;
    *bad = 1;
    if (s[0] < 0x80)
        return 1;
    if (s[0] >= 0xc2 && s[0] <= 0xdf) {
        length = 2;
    } else if ((s[0] & 0xf0) == 0xe0) {
        length = 3;
        low = s[0] == 0xe0 ? 0xa0 : 0x80;
        high = s[0] == 0xed ? 0x9f : 0xbf;
    } else if (s[0] >= 0xf0 && s[0] <= 0xf4) {
        length = 4;
        low = s[0] == 0xf0 ? 0x90 : 0x80;
        high = s[0] == 0xf4 ? 0x8f : 0xbf;
    } else {
        return 0;
    }
    for (size_t i = 1; i < length; i++, low = 0x80, high = 0xbf) {
        if (i == n || s[i] < low || s[i] > high)
            return 0;
        *bad = i + 1;
    }
    return length;
}

static void put_escaped(pl_json *json, unsigned char c)
{
    static const char letters[] = "btn?fr";
    char text[8];
    if (c == '"' || c == '\\')
        snprintf(text, sizeof text, "\\%c", c);
    else if (c >= '\b' && c <= '\r' && c != '\v')
        snprintf(text, sizeof text, "\\%c", letters[c - '\b']);
    else
        snprintf(text, sizeof text, "\\u%04x", c);
    put_text(json, text);
}

static void put_quoted(pl_json *json, const char *text, size_t n)
{
    const unsigned char *s = (const unsigned char *)text;
    size_t done = 0; /* s[done..i) is as it is and not yet written */
    put(json, "\"", 1);
    for (size_t i = 0; i < n;) {
        size_t bad, length = utf8_length(s + i, n - i, &bad);
        if (length && s[i] >= 0x20 && s[i] != '"' && s[i] != '\\') {
            i += length;
            continue;
        }
        put(json, text + done, i - done);
        if (length)
            put_escaped(json, s[i]);
        else
            put_text(json, "\xef\xbf\xbd");
        i += length ? 1 : bad;
        done = i;
    }
    put(json, text + done, n - done);
    put(json, "\"", 1);
}

void pl_json_key(pl_json *json, const char *key)
{
    assert(json->depth > 0 && !json->after_key);
    separate(json);
    put_quoted(json, key, strlen(key));
    put(json, ":", 1);
    json->after_key = true;
}

void pl_json_text(pl_json *json, const char *text, size_t n)
{
    separate(json);
    put_quoted(json, text, n);
}

void pl_json_string(pl_json *json, const char *text)
{
    if (text)
        pl_json_text(json, text, strlen(text));
    else
        pl_json_null(json);
}

/* ---- other values ------------------------------------------------------------------------------- */

static void put_value(pl_json *json, const char *text)
{
    separate(json);
    put_text(json, text);
}

void pl_json_raw(pl_json *json, const char *text, size_t n)
{
    separate(json);
    put(json, text, n);
}

void pl_json_base64(pl_json *json, const void *bytes, size_t n)
{
    static const char letters[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    const unsigned char *in = bytes;
    separate(json);
    put(json, "\"", 1);
    for (size_t i = 0; i < n; i += 3) {
        uint32_t bits = (uint32_t)in[i] << 16;
        bits |= i + 1 < n ? (uint32_t)in[i + 1] << 8 : 0;
        bits |= i + 2 < n ? in[i + 2] : 0;
        const char four[] = {letters[bits >> 18], letters[bits >> 12 & 63], i + 1 < n ? letters[bits >> 6 & 63] : '=',
                             i + 2 < n ? letters[bits & 63] : '='};
        put(json, four, sizeof four);
    }
    put(json, "\"", 1);
}

void pl_json_int(pl_json *json, int64_t value)
{
    char text[24];
    snprintf(text, sizeof text, "%" PRId64, value);
    put_value(json, text);
}

void pl_json_double(pl_json *json, double value)
{
    char text[32];
    if (!isfinite(value)) {
        pl_json_null(json);
        return;
    }
    for (int digits = 15; digits <= 17; digits++) {
        snprintf(text, sizeof text, "%.*g", digits, value);
        if (strtod(text, NULL) == value)
            break;
    }
    put_value(json, text);
}

void pl_json_float(pl_json *json, float value)
{
    char text[32];
    if (!isfinite(value)) {
        pl_json_null(json);
        return;
    }
    for (int digits = 6; digits <= 9; digits++) {
        snprintf(text, sizeof text, "%.*g", digits, (double)value);
        if (strtof(text, NULL) == value)
            break;
    }
    put_value(json, text);
}

void pl_json_bool(pl_json *json, bool value)
{
    put_value(json, value ? "true" : "false");
}

void pl_json_null(pl_json *json)
{
    put_value(json, "null");
}

/* ---- with their keys ---------------------------------------------------------------------------- */

void pl_json_key_object(pl_json *json, const char *key)
{
    pl_json_key(json, key);
    pl_json_begin_object(json);
}

void pl_json_key_array(pl_json *json, const char *key)
{
    pl_json_key(json, key);
    pl_json_begin_array(json);
}

void pl_json_put_string(pl_json *json, const char *key, const char *value)
{
    pl_json_key(json, key);
    pl_json_string(json, value);
}

void pl_json_put_int(pl_json *json, const char *key, int64_t value)
{
    pl_json_key(json, key);
    pl_json_int(json, value);
}

void pl_json_put_size(pl_json *json, const char *key, size_t value)
{
    pl_json_put_int(json, key, (int64_t)value);
}

void pl_json_put_double(pl_json *json, const char *key, double value)
{
    pl_json_key(json, key);
    pl_json_double(json, value);
}

void pl_json_put_bool(pl_json *json, const char *key, bool value)
{
    pl_json_key(json, key);
    pl_json_bool(json, value);
}

/* ---- documents ---------------------------------------------------------------------------------- */

void pl_json_newline(pl_json *json)
{
    assert(json->depth == 0);
    put(json, "\n", 1);
}

pl_status pl_json_take(pl_json *json, char **out, size_t *n_bytes, pl_error *err)
{
    assert(!json->file && json->depth == 0);
    return pl_strbuf_take(&json->buf, out, n_bytes, err);
}

pl_status pl_json_flush(pl_json *json, const char *path, pl_error *err)
{
    assert(json->file);
    errno = 0;
    if (fflush(json->file) != 0 || ferror(json->file))
        return pl_fail(err, PL_ERR_IO, "%s: cannot write: %s", path, errno ? strerror(errno) : "write failed");
    return PL_OK;
}

void pl_json_free(pl_json *json)
{
    pl_strbuf_free(&json->buf);
}
