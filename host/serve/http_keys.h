/* API keys, held and compared as keyed hashes: how long a comparison takes says nothing about a key. */
#ifndef PL_SERVE_HTTP_KEYS_H
#define PL_SERVE_HTTP_KEYS_H

#include "host/base/status.h"

typedef struct pl_http_hash {
    uint64_t half[2];
} pl_http_hash;

typedef struct pl_http_keys {
    uint64_t secret[2]; /* of this process */
    pl_http_hash *hashes;
    size_t n;
} pl_http_keys;

pl_status pl_http_keys_init(pl_http_keys *keys, const char *const *texts, size_t n, pl_error *err);
void pl_http_keys_free(pl_http_keys *keys);

/* SipHash-2-4 with 128 bits. */
pl_http_hash pl_http_hash_of(const uint64_t secret[2], const void *bytes, size_t n);

/* Whether the text is one of the keys; *client is a number for it. Looks at all of them in any case. */
bool pl_http_keys_have(const pl_http_keys *keys, const char *text, size_t n, uint64_t *client);

#endif
