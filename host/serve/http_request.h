/* HTTP/1.1 requests as bytes: the head, and bodies in chunks. Strict: what RFC 9112 allows a server to refuse, and what
 * two readers could read in two ways, is refused. Sees no socket. */
#ifndef PL_SERVE_HTTP_REQUEST_H
#define PL_SERVE_HTTP_REQUEST_H

#include "host/base/strbuf.h"

#define PL_HTTP_LINE_BYTES 8192  /* of the request line */
#define PL_HTTP_HEAD_BYTES 65536 /* of line and headers */
#define PL_HTTP_HEADERS 100
#define PL_HTTP_QUERIES 32

typedef struct pl_http_pair {
    const char *name, *value;
} pl_http_pair;

typedef struct pl_http_request {
    char *text;                                                      /* the head, cut into the strings below */
    const char *method;                                              /* upper case as it came */
    const char *path;                                                /* decoded */
    const char *host;                                                /* of the target or the header; NULL: none */
    pl_http_pair headers[PL_HTTP_HEADERS], queries[PL_HTTP_QUERIES]; /* names of headers in lower case */
    size_t n_headers, n_queries;
    int minor; /* of HTTP/1.x */
    bool keep_alive, chunked, expects_continue;
    uint64_t length; /* of a body that is not chunked */
} pl_http_request;

/* What is wrong with a request: an HTTP status and a sentence; status 0: nothing. */
typedef struct pl_http_fault {
    int status;
    const char *message;
} pl_http_fault;

/* How long the head at the beginning of bytes[0..n) is, blank line included; 0: not all of it is there, or *fault says
 * why it never will be. *seen, from 0 for each head, spares looking twice. */
size_t pl_http_head_length(const char *bytes, size_t n, size_t *seen, pl_http_fault *fault);

/* Parses a head of that length, of which a copy is taken. To be cleared also after a fault. */
pl_http_fault pl_http_request_parse(pl_http_request *request, const char *head, size_t n);
void pl_http_request_clear(pl_http_request *request);

const char *pl_http_request_header(const pl_http_request *request, const char *name); /* in any case; NULL: not there */

/* Decodes chunks as they come. */
typedef struct pl_http_chunks {
    enum {
        PL_CHUNK_SIZE,
        PL_CHUNK_EXTENSION,
        PL_CHUNK_DATA,
        PL_CHUNK_DATA_END,
        PL_CHUNK_TRAILER,
        PL_CHUNKS_DONE
    } state;
    uint64_t left;           /* of the chunk */
    size_t digits, overhead; /* of the size; of all that is no content since the last byte that was */
    bool cr, text;           /* a CR came; the line of the trailer has something before it */
} pl_http_chunks;            /* all zero at the beginning */

/* Takes what it can of bytes[0..n), adds content to out, which may hold at most max_bytes; returns how much was taken. */
size_t pl_http_chunks_feed(pl_http_chunks *chunks, const char *bytes, size_t n, pl_strbuf *out, size_t max_bytes,
                           pl_http_fault *fault);

#endif
