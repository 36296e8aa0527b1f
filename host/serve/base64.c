#include "host/serve/base64.h"

#include <stdlib.h>

/* 64: none. */
static unsigned value_of(char c)
{
    if (c >= 'A' && c <= 'Z')
        return (unsigned)(c - 'A');
    if (c >= 'a' && c <= 'z')
        return (unsigned)(c - 'a') + 26;
    if (c >= '0' && c <= '9')
        return (unsigned)(c - '0') + 52;
    return c == '+' ? 62 : c == '/' ? 63 : 64;
}

static size_t padding_of(const char *text, size_t n)
{
    size_t pads = 0;
    while (pads < 2 && pads < n && text[n - 1 - pads] == '=')
        pads++;
    return pads;
}

/* Characters [at, at + digits) of one group as 24 bits. False: *at is the one that is wrong. */
static bool read_group(const char *text, size_t *at, size_t digits, unsigned *out)
{
    unsigned bits = 0;
    for (size_t i = 0; i < digits; i++) {
        unsigned value = value_of(text[*at + i]);
        if (value == 64) {
            *at += i;
            return false;
        }
        bits |= value << (18 - 6 * i);
    }
    *out = bits;
    return true;
}

static pl_status decode(const char *text, size_t n, unsigned char *out, size_t n_out, pl_error *err)
{
    size_t made = 0;
    for (size_t at = 0; at < n; at += 4) {
        unsigned bits = 0;
        size_t left = n_out - made, bytes = left < 3 ? left : 3, place = at;
        if (!read_group(text, &place, bytes + 1, &bits))
            return pl_fail(err, PL_ERR_FORMAT, "not base64: character %zu of %zu is none of its alphabet", place + 1,
                           n);
        if (bits & ((1u << (24 - 8 * bytes)) - 1))
            return pl_fail(err, PL_ERR_FORMAT, "not base64: bits are left over at its end");
        for (size_t i = 0; i < bytes; i++)
            out[made++] = (unsigned char)(bits >> (16 - 8 * i));
    }
    return PL_OK;
}

pl_status pl_base64_decode(const char *text, size_t n, unsigned char **out, size_t *n_out, pl_error *err)
{
    if (n % 4)
        return pl_fail(err, PL_ERR_FORMAT, "not base64: its length, %zu, is no multiple of 4", n);
    size_t size = n / 4 * 3 - padding_of(text, n);
    unsigned char *bytes = malloc(size + 1);
    if (!bytes)
        return pl_fail_memory(err, size, "decoded base64");
    pl_status status = decode(text, n, bytes, size, err);
    if (status != PL_OK) {
        free(bytes);
        return status;
    }
    *out = bytes;
    *n_out = size;
    return PL_OK;
}
