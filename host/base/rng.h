/* Random numbers: xoshiro256** 1.0 (Blackman and Vigna, "Scrambled linear pseudorandom number
 * generators", 2021, https://prng.di.unimi.it/), its state filled from the seed by splitmix64 as the
 * authors advise. The same seed gives the same numbers on every machine. */
#ifndef PL_BASE_RNG_H
#define PL_BASE_RNG_H

#include <stdint.h>

#include "host/base/both.h"

typedef struct pl_rng {
    uint64_t state[4];
} pl_rng;

void pl_rng_seed(pl_rng *rng, uint64_t seed);

PL_BOTH uint64_t pl_rng_rotate(uint64_t x, int k)
{
    return (x << k) | (x >> (64 - k));
}

PL_BOTH uint64_t pl_rng_next(pl_rng *rng)
{
    uint64_t *s = rng->state;
    uint64_t result = pl_rng_rotate(s[1] * 5, 7) * 9;
    uint64_t t = s[1] << 17;
    s[2] ^= s[0];
    s[3] ^= s[1];
    s[1] ^= s[2];
    s[0] ^= s[3];
    s[2] ^= t;
    s[3] = pl_rng_rotate(s[3], 45);
    return result;
}

/* Uniform in [0, 1), a multiple of 2^-53. */
PL_BOTH double pl_rng_uniform(pl_rng *rng)
{
    return (double)(pl_rng_next(rng) >> 11) * 0x1p-53;
}

#endif
