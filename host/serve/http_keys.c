#include "host/serve/http_keys.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

static uint64_t rotate(uint64_t x, int bits)
{
    return x << bits | x >> (64 - bits);
}

static void sip_round(uint64_t v[4])
{
    v[0] += v[1];
    v[1] = rotate(v[1], 13) ^ v[0];
    v[0] = rotate(v[0], 32);
    v[2] += v[3];
    v[3] = rotate(v[3], 16) ^ v[2];
    v[0] += v[3];
    v[3] = rotate(v[3], 21) ^ v[0];
    v[2] += v[1];
    v[1] = rotate(v[1], 17) ^ v[2];
    v[2] = rotate(v[2], 32);
}

static void sip_word(uint64_t v[4], uint64_t word)
{
    v[3] ^= word;
    sip_round(v);
    sip_round(v);
    v[0] ^= word;
}

static uint64_t sip_end(uint64_t v[4])
{
    for (int i = 0; i < 4; i++)
        sip_round(v);
    return v[0] ^ v[1] ^ v[2] ^ v[3];
}

/* At most 8 bytes, the first lowest. */
static uint64_t little_endian(const unsigned char *bytes, size_t n)
{
    uint64_t word = 0;
    for (size_t i = 0; i < n; i++)
        word |= (uint64_t)bytes[i] << (8 * i);
    return word;
}

pl_http_hash pl_http_hash_of(const uint64_t secret[2], const void *bytes, size_t n)
{
    const unsigned char *p = bytes;
    uint64_t v[4] = {secret[0] ^ 0x736f6d6570736575, secret[1] ^ 0x646f72616e646f6d ^ 0xee,
                     secret[0] ^ 0x6c7967656e657261, secret[1] ^ 0x7465646279746573};
    size_t i = 0;
    for (; i + 8 <= n; i += 8)
        sip_word(v, little_endian(p + i, 8));
    sip_word(v, little_endian(p + i, n - i) | (uint64_t)n << 56);
    v[2] ^= 0xee;
    pl_http_hash hash;
    hash.half[0] = sip_end(v);
    v[1] ^= 0xdd;
    hash.half[1] = sip_end(v);
    return hash;
}

pl_status pl_http_keys_init(pl_http_keys *keys, const char *const *texts, size_t n, pl_error *err)
{
    *keys = (pl_http_keys){.n = 0};
    while (getrandom(keys->secret, sizeof keys->secret, 0) != sizeof keys->secret)
        if (errno != EINTR)
            return pl_fail(err, PL_ERR_IO, "the system gives no random numbers: %s", strerror(errno));
    if (n == 0)
        return PL_OK;
    keys->hashes = calloc(n, sizeof *keys->hashes);
    if (!keys->hashes)
        return pl_fail_memory(err, n * sizeof *keys->hashes, "API keys");
    for (size_t i = 0; i < n; i++)
        keys->hashes[i] = pl_http_hash_of(keys->secret, texts[i], strlen(texts[i]));
    keys->n = n;
    return PL_OK;
}

void pl_http_keys_free(pl_http_keys *keys)
{
    free(keys->hashes);
    *keys = (pl_http_keys){.n = 0};
}

bool pl_http_keys_have(const pl_http_keys *keys, const char *text, size_t n, uint64_t *client)
{
    pl_http_hash hash = pl_http_hash_of(keys->secret, text, n);
    unsigned found = 0;
    for (size_t i = 0; i < keys->n; i++) {
        uint64_t differ = (hash.half[0] ^ keys->hashes[i].half[0]) | (hash.half[1] ^ keys->hashes[i].half[1]);
        found |= differ == 0;
    }
    *client = hash.half[0];
    return found;
}
