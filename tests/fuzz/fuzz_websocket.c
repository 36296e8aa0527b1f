/* Any bytes as frames of a client, in one piece and byte by byte: the same comes of both. */
#include <stdlib.h>
#include <string.h>

#include "host/serve/websocket.h"

#define MAX_BYTES 300

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void on_message(void *user, const char *text, size_t n)
{
    if (n > MAX_BYTES)
        abort();
    pl_strbuf_printf(user, "%zu:", n);
    pl_strbuf_add(user, text, n);
}

static void feed(const char *bytes, size_t n, size_t step, pl_strbuf *messages, pl_strbuf *out)
{
    pl_websocket w = {.max_bytes = MAX_BYTES, .message = on_message, .user = messages};
    for (size_t at = 0; at < n; at += step)
        pl_websocket_feed(&w, bytes + at, n - at < step ? n - at : step, out);
    if (w.text.n > MAX_BYTES)
        abort();
    pl_websocket_clear(&w);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    pl_strbuf messages[2] = {{0}, {0}}, out[2] = {{0}, {0}};
    feed((const char *)data, size, size + 1, &messages[0], &out[0]);
    feed((const char *)data, size, 1, &messages[1], &out[1]);
    if (messages[0].n != messages[1].n || out[0].n != out[1].n ||
        (out[0].n && memcmp(out[0].data, out[1].data, out[0].n) != 0) ||
        (messages[0].n && memcmp(messages[0].data, messages[1].data, messages[0].n) != 0))
        abort();
    for (int i = 0; i < 2; i++) {
        pl_strbuf_free(&messages[i]);
        pl_strbuf_free(&out[i]);
    }
    return 0;
}
