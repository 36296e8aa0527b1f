/* Any bytes as a request's head, and as a body in chunks, whole and in two pieces. */
#include <stdlib.h>
#include <string.h>

#include "host/serve/http_request.h"

#define MAX_BODY 1000

static void check_head(const char *bytes, size_t n)
{
    pl_http_fault fault = {0};
    pl_http_request request = {.text = NULL};
    size_t seen = 0, seen_twice = 0;
    size_t length = pl_http_head_length(bytes, n, &seen, &fault);
    if (length > n || (length && fault.status))
        abort();
    pl_http_fault later = {0};
    size_t in_pieces = pl_http_head_length(bytes, n / 2, &seen_twice, &later);
    if (!in_pieces && !later.status)
        in_pieces = pl_http_head_length(bytes, n, &seen_twice, &later);
    if (in_pieces != length || later.status != fault.status)
        abort();
    if (length) {
        fault = pl_http_request_parse(&request, bytes, length);
        if (!fault.status && (!request.method || !request.path || (request.chunked && request.length)))
            abort();
        pl_http_request_clear(&request);
    }
}

static size_t feed(pl_http_chunks *chunks, const char *bytes, size_t n, pl_strbuf *out, pl_http_fault *fault)
{
    size_t taken = fault->status ? 0 : pl_http_chunks_feed(chunks, bytes, n, out, MAX_BODY, fault);
    if (taken > n || out->n > MAX_BODY)
        abort();
    return taken;
}

static void check_chunks(const char *bytes, size_t n)
{
    pl_http_chunks whole = {.left = 0}, pieces = {.left = 0};
    pl_http_fault fault = {0}, later = {0};
    pl_strbuf a = {.data = NULL}, b = {.data = NULL};
    size_t taken = feed(&whole, bytes, n, &a, &fault);
    size_t first = feed(&pieces, bytes, n / 3, &b, &later);
    if (first == n / 3)
        first += feed(&pieces, bytes + first, n - first, &b, &later);
    if (first != taken || fault.status != later.status || whole.state != pieces.state || a.n != b.n ||
        (a.n && memcmp(a.data, b.data, a.n) != 0))
        abort();
    pl_strbuf_free(&a);
    pl_strbuf_free(&b);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char *bytes = malloc(size + 1);
    memcpy(bytes, data, size);
    bytes = realloc(bytes, size ? size : 1);
    check_head(bytes, size);
    check_chunks(bytes, size);
    free(bytes);
    return 0;
}
