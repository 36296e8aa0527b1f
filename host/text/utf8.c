#include "host/text/utf8.h"

static bool tail(unsigned char c)
{
    return (c & 0xc0) == 0x80;
}

size_t pl_utf8_next(const char *text, size_t n, uint32_t *code)
{
    const unsigned char *s = (const unsigned char *)text;
    if (n == 0)
        return 0;
    if (s[0] < 0x80) {
        *code = s[0];
        return 1;
    }
    if (s[0] < 0xc2 || s[0] > 0xf4)
        return 0;
    if (s[0] < 0xe0) {
        if (n < 2 || !tail(s[1]))
            return 0;
        *code = (s[0] & 0x1fu) << 6 | (s[1] & 0x3fu);
        return 2;
    }
    if (s[0] < 0xf0) {
        if (n < 3 || !tail(s[1]) || !tail(s[2]))
            return 0;
        uint32_t c = (s[0] & 0x0fu) << 12 | (s[1] & 0x3fu) << 6 | (s[2] & 0x3fu);
        if (c < 0x800 || (c >= 0xd800 && c <= 0xdfff))
            return 0;
        *code = c;
        return 3;
    }
    if (n < 4 || !tail(s[1]) || !tail(s[2]) || !tail(s[3]))
        return 0;
    uint32_t c = (s[0] & 0x07u) << 18 | (s[1] & 0x3fu) << 12 | (s[2] & 0x3fu) << 6 | (s[3] & 0x3fu);
    if (c < 0x10000 || c > 0x10ffff)
        return 0;
    *code = c;
    return 4;
}

bool pl_utf8_valid(const char *text, size_t n)
{
    uint32_t code;
    while (n) {
        size_t k = pl_utf8_next(text, n, &code);
        if (k == 0)
            return false;
        text += k;
        n -= k;
    }
    return true;
}
