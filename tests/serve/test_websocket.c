/* Frames as clients send them, and as they must not. */
#include <criterion/criterion.h>
#include <string.h>

#include "host/serve/websocket.h"

#define MAX_BYTES 70000

static pl_strbuf got, out; /* messages, each with "|" behind it; what is sent back */
static pl_websocket w;

static void on_message(void *user, const char *text, size_t n)
{
    pl_strbuf_add(user, text, n);
    pl_strbuf_add_text(user, "|");
}

static void begin(void)
{
    w = (pl_websocket){.max_bytes = MAX_BYTES, .message = on_message, .user = &got};
    pl_strbuf_clear(&got);
    pl_strbuf_clear(&out);
    pl_strbuf_add_text(&got, "");
    pl_strbuf_add_text(&out, "");
}

static void end(void)
{
    pl_websocket_clear(&w);
    pl_strbuf_free(&got);
    pl_strbuf_free(&out);
}

TestSuite(websocket, .init = begin, .fini = end);

/* A masked frame behind those that are in bytes. */
static void add_frame(pl_strbuf *bytes, unsigned first, const char *payload, size_t n)
{
    static const unsigned char mask[4] = {0x37, 0xfa, 0x21, 0x3d};
    unsigned char head[10] = {(unsigned char)first};
    size_t more = n < 126 ? 0 : n < 65536 ? 2 : 8;
    head[1] = (unsigned char)(0x80 | (more == 0 ? n : more == 2 ? 126 : 127));
    for (size_t i = 0; i < more; i++)
        head[2 + i] = (unsigned char)((uint64_t)n >> (8 * (more - 1 - i)));
    pl_strbuf_add(bytes, head, 2 + more);
    pl_strbuf_add(bytes, mask, 4);
    for (size_t i = 0; i < n; i++)
        pl_strbuf_add(bytes, &(char){(char)((unsigned char)payload[i] ^ mask[i % 4])}, 1);
}

static void feed(unsigned first, const char *payload, size_t n)
{
    pl_strbuf bytes = {0};
    add_frame(&bytes, first, payload, n);
    pl_websocket_feed(&w, bytes.data, bytes.n, &out);
    pl_strbuf_free(&bytes);
}

static void feed_text(unsigned first, const char *payload)
{
    feed(first, payload, strlen(payload));
}

static void expect_code(int code)
{
    cr_assert(w.closed);
    cr_assert_geq(out.n, 4);
    cr_assert_eq((unsigned char)out.data[0], 0x88);
    cr_assert_eq((unsigned char)out.data[2] << 8 | (unsigned char)out.data[3], code);
    cr_assert_eq((size_t)out.data[1], out.n - 2);
}

/* The RFC's own. */
Test(websocket, answers_a_handshake)
{
    char accept[PL_WEBSOCKET_ACCEPT];
    cr_assert(pl_websocket_accept("dGhlIHNhbXBsZSBub25jZQ==", accept));
    cr_assert_str_eq(accept, "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    cr_assert_not(pl_websocket_accept("", accept));
    cr_assert_not(pl_websocket_accept("dGhlIHNhbXBsZSBub25jZTEy", accept)); /* 18 bytes */
    cr_assert_not(pl_websocket_accept("dGhlIHNhbXBsZSBub25j!Q==", accept));
}

Test(websocket, takes_messages)
{
    static char text[MAX_BYTES];
    memset(text, 'x', sizeof text);
    const size_t sizes[] = {0, 1, 125, 126, 127, 65535, 65536, MAX_BYTES};
    size_t total = 0;
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        feed(0x81, text, sizes[i]);
        total += sizes[i] + 1;
        cr_assert_eq(got.n, total, "%zu", sizes[i]);
    }
    cr_assert_eq(out.n, 0);
    cr_assert_not(w.closed);
}

/* In two frames that cut a character, with a ping between them; byte by byte. */
Test(websocket, takes_pieces)
{
    pl_strbuf bytes = {0};
    add_frame(&bytes, 0x01, "caf\xc3", 4);
    add_frame(&bytes, 0x89, "now", 3);
    add_frame(&bytes, 0x8a, "", 0);
    add_frame(&bytes, 0x80, "\xa9", 1);
    add_frame(&bytes, 0x81, "b", 1);
    for (size_t i = 0; i < bytes.n; i++)
        pl_websocket_feed(&w, bytes.data + i, 1, &out);
    pl_strbuf_free(&bytes);
    cr_assert_str_eq(got.data, "caf\xc3\xa9|b|");
    cr_assert_eq(out.n, 5);
    cr_assert_eq(memcmp(out.data, "\x8a\x03now", 5), 0);
}

Test(websocket, writes_frames)
{
    static char text[65536];
    pl_websocket_put_text(&out, text, 125);
    cr_assert_eq(out.n, 127);
    cr_assert_eq(memcmp(out.data, "\x81\x7d", 2), 0);
    pl_strbuf_clear(&out);
    pl_websocket_put_text(&out, text, 126);
    cr_assert_eq(memcmp(out.data, "\x81\x7e\x00\x7e", 4), 0);
    pl_strbuf_clear(&out);
    pl_websocket_put_text(&out, text, 65536);
    cr_assert_eq(out.n, 65546);
    cr_assert_eq(memcmp(out.data, "\x81\x7f\0\0\0\0\0\1\0\0", 10), 0);
}

Test(websocket, answers_a_close)
{
    feed(0x88, "\x03\xe9so", 4);
    expect_code(PL_WEBSOCKET_GOING_AWAY);
    feed_text(0x81, "late");
    cr_assert_eq(got.n, 0);
    begin();
    feed(0x88, "", 0);
    expect_code(PL_WEBSOCKET_NORMAL);
}

Test(websocket, closes_once)
{
    pl_websocket_close(&w, PL_WEBSOCKET_POLICY, "enough", &out);
    expect_code(PL_WEBSOCKET_POLICY);
    size_t n = out.n;
    pl_websocket_close(&w, PL_WEBSOCKET_NORMAL, "", &out);
    cr_assert_eq(out.n, n);
}

Test(websocket, refuses_bad_frames)
{
    static const struct {
        const char *bytes;
        size_t n;
        int code;
    } bad[] = {
        {"\x81\x01", 2, PL_WEBSOCKET_PROTOCOL},                              /* no mask */
        {"\xc1\x80", 2, PL_WEBSOCKET_PROTOCOL},                              /* an extension's bit */
        {"\x83\x80", 2, PL_WEBSOCKET_PROTOCOL},                              /* kinds that there are not */
        {"\x8b\x80", 2, PL_WEBSOCKET_PROTOCOL},                              /* */
        {"\x82\x80", 2, PL_WEBSOCKET_UNSUPPORTED},                           /* binary */
        {"\x80\x80", 2, PL_WEBSOCKET_PROTOCOL},                              /* goes on with nothing */
        {"\x01\x80\0\0\0\0\x81\x80", 8, PL_WEBSOCKET_PROTOCOL},              /* a message within another */
        {"\x09\x80", 2, PL_WEBSOCKET_PROTOCOL},                              /* a ping in pieces */
        {"\x89\xfe", 2, PL_WEBSOCKET_PROTOCOL},                              /* a long ping */
        {"\x81\xfe\0\x7d\0\0\0\0", 8, PL_WEBSOCKET_PROTOCOL},                /* lengths that could be shorter */
        {"\x81\xff\0\0\0\0\0\0\xff\xff\0\0\0\0", 14, PL_WEBSOCKET_PROTOCOL}, /* */
        {"\x81\xff\x80\0\0\0\0\1\0\0\0\0\0\0", 14, PL_WEBSOCKET_PROTOCOL},   /* negative */
        {"\x81\xff\0\0\0\0\0\1\x11\x71\0\0\0\0", 14, PL_WEBSOCKET_TOO_BIG},  /* one more than may be */
        {"\x88\x81\0\0\0\0\3", 7, PL_WEBSOCKET_PROTOCOL},                    /* half a code */
        {"\x88\x82\0\0\0\0\3\xed", 8, PL_WEBSOCKET_PROTOCOL},                /* 1005, 999 and 5000 */
        {"\x88\x82\0\0\0\0\3\xe7", 8, PL_WEBSOCKET_PROTOCOL},                /* */
        {"\x88\x82\0\0\0\0\x13\x88", 8, PL_WEBSOCKET_PROTOCOL},              /* */
        {"\x88\x83\0\0\0\0\3\xe8\xff", 9, PL_WEBSOCKET_BAD_TEXT},            /* */
        {"\x81\x81\0\0\0\0\x80", 7, PL_WEBSOCKET_BAD_TEXT},                  /* no first byte */
        {"\x81\x82\0\0\0\0\xc1\x80", 8, PL_WEBSOCKET_BAD_TEXT},              /* overlong */
        {"\x81\x83\0\0\0\0\xe0\x80\x80", 9, PL_WEBSOCKET_BAD_TEXT},          /* */
        {"\x81\x83\0\0\0\0\xed\xa0\x80", 9, PL_WEBSOCKET_BAD_TEXT},          /* a surrogate */
        {"\x81\x84\0\0\0\0\xf4\x90\x80\x80", 10, PL_WEBSOCKET_BAD_TEXT},     /* beyond Unicode */
        {"\x81\x82\0\0\0\0\xe2\x82", 8, PL_WEBSOCKET_BAD_TEXT},              /* cut short */
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        begin();
        pl_websocket_feed(&w, bad[i].bytes, bad[i].n, &out);
        cr_assert(w.closed, "%zu", i);
        expect_code(bad[i].code);
        cr_assert_eq(got.n, 0, "%zu", i);
        pl_websocket_clear(&w);
    }
    begin();
    feed_text(0x81, "\xe2\x82\xac\xf4\x8f\xbf\xbf\xed\x9f\xbf\xee\x80\x80\xf0\x90\x80\x80");
    cr_assert_not(w.closed);
}

/* All pieces of a message count. */
Test(websocket, limits_messages_in_pieces)
{
    static char text[MAX_BYTES / 2 + 1];
    memset(text, 'x', sizeof text);
    feed(0x01, text, sizeof text);
    cr_assert_not(w.closed);
    feed(0x00, text, sizeof text);
    expect_code(PL_WEBSOCKET_TOO_BIG);
}
