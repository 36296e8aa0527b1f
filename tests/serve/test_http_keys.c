#include <criterion/criterion.h>
#include <string.h>

#include "host/serve/http_keys.h"

/* The vectors that SipHash's authors publish: key 00 01 .. 0f, message 00 01 .. of each length. */
Test(http_keys, hash)
{
    static const uint64_t secret[2] = {0x0706050403020100, 0x0f0e0d0c0b0a0908};
    static const struct {
        size_t n;
        uint64_t half[2];
    } cases[] = {
        {0, {0xe6a825ba047f81a3, 0x930255c71472f66d}},  {1, {0x44af996bd8c187da, 0x45fc229b11597634}},
        {7, {0x53c1dbd8beebf1a1, 0x3982f01fa64ab8c0}},  {8, {0x61f55862baa9623b, 0xb49714f364e2830f}},
        {15, {0x11a8b03399e99354, 0xd9c3cf970fec087e}}, {63, {0x4a83502f77d15051, 0x7cbd3f979a063e50}},
    };
    unsigned char message[63];
    for (size_t i = 0; i < sizeof message; i++)
        message[i] = (unsigned char)i;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        pl_http_hash got = pl_http_hash_of(secret, message, cases[i].n);
        cr_assert_eq(got.half[0], cases[i].half[0], "%zu: %016llx", cases[i].n, (unsigned long long)got.half[0]);
        cr_assert_eq(got.half[1], cases[i].half[1], "%zu: %016llx", cases[i].n, (unsigned long long)got.half[1]);
    }
}

Test(http_keys, only_whole_keys_fit)
{
    static const char *const texts[] = {"alpha", "beta", "alpha2"};
    pl_http_keys keys;
    uint64_t one, same, other;
    cr_assert_eq(pl_http_keys_init(&keys, texts, 3, NULL), PL_OK);
    cr_assert(pl_http_keys_have(&keys, "alpha", 5, &one));
    cr_assert(pl_http_keys_have(&keys, "alpha", 5, &same));
    cr_assert(pl_http_keys_have(&keys, "alpha2", 6, &other));
    cr_assert_eq(one, same);
    cr_assert_neq(one, other);
    cr_assert_not(pl_http_keys_have(&keys, "alph", 4, &one));
    cr_assert_not(pl_http_keys_have(&keys, "alpha3", 6, &one));
    cr_assert_not(pl_http_keys_have(&keys, "", 0, &one));
    pl_http_keys_free(&keys);
}

Test(http_keys, each_process_has_its_own_secret)
{
    static const char *const texts[] = {"alpha"};
    pl_http_keys a, b;
    cr_assert_eq(pl_http_keys_init(&a, texts, 1, NULL), PL_OK);
    cr_assert_eq(pl_http_keys_init(&b, texts, 1, NULL), PL_OK);
    cr_assert_neq(a.hashes[0].half[0], b.hashes[0].half[0]);
    pl_http_keys_free(&a);
    pl_http_keys_free(&b);
}
