/* WebSocket (RFC 6455), the server's side, as bytes: the answer to a handshake, and frames both ways. No extensions. Strict: what
 * the RFC lets a server fail is failed, with its code. Sees no socket. */
#ifndef PL_SERVE_WEBSOCKET_H
#define PL_SERVE_WEBSOCKET_H

#include "host/base/strbuf.h"

/* Codes of a close. */
#define PL_WEBSOCKET_NORMAL 1000
#define PL_WEBSOCKET_GOING_AWAY 1001
#define PL_WEBSOCKET_PROTOCOL 1002
#define PL_WEBSOCKET_UNSUPPORTED 1003
#define PL_WEBSOCKET_BAD_TEXT 1007
#define PL_WEBSOCKET_POLICY 1008
#define PL_WEBSOCKET_TOO_BIG 1009
#define PL_WEBSOCKET_FAILED 1011
#define PL_WEBSOCKET_BUSY 1013

/* Sec-WebSocket-Accept for a Sec-WebSocket-Key. False: that is not 16 bytes of base64. */
#define PL_WEBSOCKET_ACCEPT 29
bool pl_websocket_accept(const char *key, char out[PL_WEBSOCKET_ACCEPT]);

#define PL_WEBSOCKET_CONTROL 125 /* bytes of a ping, pong or close */

typedef struct pl_websocket {
    size_t max_bytes; /* of a message */
    /* Of each text message, whole. It may close. */
    void (*message)(void *user, const char *text, size_t n);
    void *user;

    /* ---- its own; zero at the beginning ---- */
    unsigned char head[14], control[PL_WEBSOCKET_CONTROL];
    size_t n_head, n_control; /* of the frame, so far */
    uint64_t size, taken;     /* of its payload */
    pl_strbuf text;           /* of the message */
    bool in_message;
    bool closed; /* nothing is read any more: what was written ends with a close */
} pl_websocket;

void pl_websocket_clear(pl_websocket *w);

/* Takes n bytes of the client; replies to pings and closes are added to out. */
void pl_websocket_feed(pl_websocket *w, const char *bytes, size_t n, pl_strbuf *out);

/* Frames to the client, added to out. */
void pl_websocket_put_text(pl_strbuf *out, const char *text, size_t n);
void pl_websocket_put_ping(pl_strbuf *out);

/* Ends it, once; reason: at most 123 bytes, "" for none. */
void pl_websocket_close(pl_websocket *w, int code, const char *reason, pl_strbuf *out);

#endif
