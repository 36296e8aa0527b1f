/* An HTTP client that sends whatever a test gives it, byte for byte. */
#ifndef PL_TESTS_SERVE_RAW_CLIENT_H
#define PL_TESTS_SERVE_RAW_CLIENT_H

#include "host/base/strbuf.h"

#define RAW_PATIENCE_S 60 /* longer than sanitizers take on a busy machine */

/* A connection to a server at pl_http_address(); a read that takes over RAW_PATIENCE_S fails the test. */
int raw_connect(const char *address);

/* -1 where the server does not take it any more. */
int raw_send(int fd, const char *text);
int raw_send_bytes(int fd, const void *bytes, size_t n);

typedef struct raw_response {
    int status; /* 0: the connection ended before one came */
    pl_strbuf head, body;
    bool chunked, cut; /* cut: it ended within the body */
} raw_response;

/* Reads one response, and not a byte of the next. head_only: to HEAD. */
raw_response raw_read(int fd, bool head_only);
void raw_free(raw_response *response);

/* The value of a header, NULL when it is not there; valid until the next call. */
const char *raw_header(const raw_response *response, const char *name);
const char *raw_body(const raw_response *response);

/* Sends, reads one response, and leaves the connection open. */
raw_response raw_ask(int fd, const char *text);

/* Whether the server has closed: reads to the end, at most RAW_PATIENCE_S, and returns how many bytes still came; -1: reset. */
int raw_read_end(int fd);

#endif
