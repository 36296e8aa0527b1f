#include "host/serve/websocket.h"

#include <stdlib.h>
#include <string.h>

#include "host/serve/base64.h"

enum { CONTINUATION = 0x0, TEXT = 0x1, BINARY = 0x2, CLOSE = 0x8, PING = 0x9, PONG = 0xa };

#define FIN 0x80
#define MASKED 0x80

/* ---- handshake --------------------------------------------------------------------------------- */

static uint32_t rotate(uint32_t x, int by)
{
    return x << by | x >> (32 - by);
}

static void sha1_block(uint32_t state[5], const unsigned char block[64])
{
    uint32_t w[80], v[5];
    for (size_t i = 0; i < 16; i++)
        w[i] = (uint32_t)block[4 * i] << 24 | (uint32_t)block[4 * i + 1] << 16 | (uint32_t)block[4 * i + 2] << 8 |
               block[4 * i + 3];
    for (size_t i = 16; i < 80; i++)
        w[i] = rotate(w[i - 3] ^ w[i - 8] ^ w[i - 14] ^ w[i - 16], 1);
    memcpy(v, state, sizeof v);
    for (size_t i = 0; i < 80; i++) {
        uint32_t choice = (v[1] & v[2]) | (~v[1] & v[3]), parity = v[1] ^ v[2] ^ v[3];
        uint32_t majority = (v[1] & v[2]) | (v[1] & v[3]) | (v[2] & v[3]);
        uint32_t f = i < 20   ? choice + 0x5a827999
                     : i < 40 ? parity + 0x6ed9eba1
                     : i < 60 ? majority + 0x8f1bbcdc
                              : parity + 0xca62c1d6;
        uint32_t next = rotate(v[0], 5) + f + v[4] + w[i];
        v[4] = v[3];
        v[3] = v[2];
        v[2] = rotate(v[1], 30);
        v[1] = v[0];
        v[0] = next;
    }
    for (size_t i = 0; i < 5; i++)
        state[i] += v[i];
}

/* Of less than 120 bytes: of two blocks at most. */
static void sha1(const char *text, size_t n, unsigned char out[20])
{
    uint32_t state[5] = {0x67452301, 0xefcdab89, 0x98badcfe, 0x10325476, 0xc3d2e1f0};
    unsigned char blocks[128] = {0};
    size_t size = n < 56 ? 64 : 128;
    memcpy(blocks, text, n);
    blocks[n] = 0x80;
    blocks[size - 2] = (unsigned char)(n * 8 >> 8);
    blocks[size - 1] = (unsigned char)(n * 8);
    for (size_t at = 0; at < size; at += 64)
        sha1_block(state, blocks + at);
    for (size_t i = 0; i < 20; i++)
        out[i] = (unsigned char)(state[i / 4] >> (24 - 8 * (i % 4)));
}

static void base64_20(const unsigned char bytes[20], char out[PL_WEBSOCKET_ACCEPT])
{
    static const char letters[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    unsigned char padded[21] = {0};
    memcpy(padded, bytes, 20);
    for (size_t i = 0; i < 28; i++) {
        const unsigned char *group = padded + i / 4 * 3;
        unsigned bits = (unsigned)group[0] << 16 | (unsigned)group[1] << 8 | group[2];
        out[i] = letters[bits >> (18 - 6 * (i % 4)) & 63];
    }
    out[27] = '=';
    out[28] = '\0';
}

bool pl_websocket_accept(const char *key, char out[PL_WEBSOCKET_ACCEPT])
{
    static const char name[] = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
    unsigned char *bytes, digest[20];
    char text[24 + sizeof name];
    size_t n;
    if (strlen(key) != 24 || pl_base64_decode(key, 24, &bytes, &n, NULL) != PL_OK)
        return false;
    free(bytes);
    if (n != 16)
        return false;
    memcpy(text, key, 24);
    memcpy(text + 24, name, sizeof name);
    sha1(text, sizeof text - 1, digest);
    base64_20(digest, out);
    return true;
}

/* ---- frames to the client ---------------------------------------------------------------------- */

static void put_frame(pl_strbuf *out, unsigned opcode, const void *payload, size_t n)
{
    unsigned char head[10] = {(unsigned char)(FIN | opcode)};
    size_t bytes = n < 126 ? 0 : n < 65536 ? 2 : 8;
    head[1] = (unsigned char)(n < 126 ? n : n < 65536 ? 126 : 127);
    for (size_t i = 0; i < bytes; i++)
        head[2 + i] = (unsigned char)((uint64_t)n >> (8 * (bytes - 1 - i)));
    pl_strbuf_add(out, head, 2 + bytes);
    pl_strbuf_add(out, payload, n);
}

void pl_websocket_put_text(pl_strbuf *out, const char *text, size_t n)
{
    put_frame(out, TEXT, text, n);
}

void pl_websocket_put_ping(pl_strbuf *out)
{
    put_frame(out, PING, "", 0);
}

void pl_websocket_close(pl_websocket *w, int code, const char *reason, pl_strbuf *out)
{
    unsigned char payload[PL_WEBSOCKET_CONTROL] = {(unsigned char)(code >> 8), (unsigned char)code};
    size_t n = strlen(reason);
    if (w->closed)
        return;
    if (n > sizeof payload - 2)
        n = sizeof payload - 2;
    memcpy(payload + 2, reason, n);
    put_frame(out, CLOSE, payload, 2 + n);
    w->closed = true;
}

/* ---- frames of the client ---------------------------------------------------------------------- */

void pl_websocket_clear(pl_websocket *w)
{
    pl_strbuf_free(&w->text);
}

static unsigned opcode_of(const pl_websocket *w)
{
    return w->head[0] & 0xf;
}

static bool is_control(const pl_websocket *w)
{
    return opcode_of(w) & 0x8;
}

/* How long the frame's head is, as far as its first two bytes say. */
static size_t head_size(const pl_websocket *w)
{
    unsigned size = w->n_head < 2 ? 0 : w->head[1] & 0x7f;
    return w->n_head < 2 ? 2 : 2 + (size == 126 ? 2 : size == 127 ? 8 : 0) + 4;
}

static void fail(pl_websocket *w, int code, const char *reason, pl_strbuf *out)
{
    pl_websocket_close(w, code, reason, out);
}

/* The first two bytes. */
static void check_head(pl_websocket *w, pl_strbuf *out)
{
    unsigned opcode = opcode_of(w);
    if (w->head[0] & 0x70)
        fail(w, PL_WEBSOCKET_PROTOCOL, "no extension was agreed on", out);
    else if (!(w->head[1] & MASKED))
        fail(w, PL_WEBSOCKET_PROTOCOL, "a client's frames are masked", out);
    else if (opcode > PONG || (opcode > BINARY && opcode < CLOSE))
        fail(w, PL_WEBSOCKET_PROTOCOL, "unknown kind of frame", out);
    else if (is_control(w) && (!(w->head[0] & FIN) || (w->head[1] & 0x7f) > PL_WEBSOCKET_CONTROL))
        fail(w, PL_WEBSOCKET_PROTOCOL, "a control frame is whole and at most 125 bytes", out);
    else if (!is_control(w) && (opcode == CONTINUATION) != w->in_message)
        fail(w, PL_WEBSOCKET_PROTOCOL, w->in_message ? "a message begins within another" : "nothing to go on with",
             out);
    else if (opcode == BINARY)
        fail(w, PL_WEBSOCKET_UNSUPPORTED, "messages are text", out);
}

/* The whole head. */
static void begin_frame(pl_websocket *w, pl_strbuf *out)
{
    size_t bytes = head_size(w) - 6;
    uint64_t size = bytes ? 0 : w->head[1] & 0x7f;
    for (size_t i = 0; i < bytes; i++)
        size = size << 8 | w->head[2 + i];
    w->size = size;
    w->taken = 0;
    w->n_control = 0;
    if ((bytes == 2 && size < 126) || (bytes == 8 && (size < 65536 || size >> 63)))
        fail(w, PL_WEBSOCKET_PROTOCOL, "a length is not in its shortest form", out);
    else if (!is_control(w) && size > w->max_bytes - w->text.n)
        fail(w, PL_WEBSOCKET_TOO_BIG, "the message is too large", out);
    else if (!is_control(w))
        w->in_message = true;
}

/* RFC 3629: no surrogates, nothing overlong, nothing beyond U+10FFFF. */
static bool is_utf8(const char *text, size_t n)
{
    const unsigned char *p = (const unsigned char *)text, *end = p + n;
    while (p < end) {
        unsigned first = *p++;
        if (first < 0x80)
            continue;
        size_t more = first < 0xe0 ? 1 : first < 0xf0 ? 2 : 3;
        if (first < 0xc2 || first > 0xf4 || (size_t)(end - p) < more)
            return false;
        unsigned low = first == 0xe0 ? 0xa0 : first == 0xf0 ? 0x90 : 0x80;
        unsigned high = first == 0xed ? 0x9f : first == 0xf4 ? 0x8f : 0xbf;
        for (; more > 0; more--, low = 0x80, high = 0xbf, p++)
            if (*p < low || *p > high)
                return false;
    }
    return true;
}

/* The client's close is answered with its own code. */
static void end_close(pl_websocket *w, pl_strbuf *out)
{
    unsigned code = w->n_control < 2 ? PL_WEBSOCKET_NORMAL : (unsigned)w->control[0] << 8 | w->control[1];
    bool known = (code >= 1000 && code <= 1014 && (code < 1004 || code > 1006)) || (code >= 3000 && code <= 4999);
    if (w->n_control == 1 || !known)
        fail(w, PL_WEBSOCKET_PROTOCOL, "no such code of a close", out);
    else if (w->n_control > 2 && !is_utf8((const char *)w->control + 2, w->n_control - 2))
        fail(w, PL_WEBSOCKET_BAD_TEXT, "not UTF-8", out);
    else
        pl_websocket_close(w, (int)code, "", out);
}

static void end_message(pl_websocket *w, pl_strbuf *out)
{
    pl_strbuf text = w->text;
    w->text = (pl_strbuf){0};
    w->in_message = false;
    pl_strbuf_add_text(&text, ""); /* its NUL, where there is nothing else */
    if (text.failed)
        fail(w, PL_WEBSOCKET_FAILED, "out of memory", out);
    else if (!is_utf8(text.data, text.n))
        fail(w, PL_WEBSOCKET_BAD_TEXT, "not UTF-8", out);
    else
        w->message(w->user, text.data, text.n);
    pl_strbuf_free(&text);
}

static void end_frame(pl_websocket *w, pl_strbuf *out)
{
    unsigned opcode = opcode_of(w);
    bool last = w->head[0] & FIN;
    w->n_head = 0;
    if (opcode == CLOSE)
        end_close(w, out);
    else if (opcode == PING)
        put_frame(out, PONG, w->control, w->n_control);
    else if (!is_control(w) && last)
        end_message(w, out);
}

/* One more byte of a head. */
static void take_head(pl_websocket *w, char byte, pl_strbuf *out)
{
    w->head[w->n_head++] = (unsigned char)byte;
    if (w->n_head == 2)
        check_head(w, out);
    if (!w->closed && w->n_head > 2 && w->n_head == head_size(w))
        begin_frame(w, out);
}

static bool in_payload(const pl_websocket *w)
{
    return w->n_head > 2 && w->n_head == head_size(w);
}

static size_t take_payload(pl_websocket *w, const char *bytes, size_t n)
{
    const unsigned char *mask = w->head + head_size(w) - 4;
    char plain[1024];
    if (n > w->size - w->taken)
        n = (size_t)(w->size - w->taken);
    if (n > sizeof plain)
        n = sizeof plain;
    for (size_t i = 0; i < n; i++)
        plain[i] = (char)((unsigned char)bytes[i] ^ mask[(w->taken + i) & 3]);
    if (is_control(w)) {
        memcpy(w->control + w->n_control, plain, n);
        w->n_control += n;
    } else {
        pl_strbuf_add(&w->text, plain, n);
    }
    w->taken += n;
    return n;
}

void pl_websocket_feed(pl_websocket *w, const char *bytes, size_t n, pl_strbuf *out)
{
    for (size_t at = 0; at < n && !w->closed;) {
        if (in_payload(w))
            at += take_payload(w, bytes + at, n - at);
        else
            take_head(w, bytes[at++], out);
        if (!w->closed && in_payload(w) && w->taken == w->size)
            end_frame(w, out);
    }
}
