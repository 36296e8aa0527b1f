/* Random numbers: xoshiro256** 1.0 (Blackman and Vigna, "Scrambled linear pseudorandom number
 * generators", 2021, https://prng.di.unimi.it/), its state filled from the seed by splitmix64 as the
 * authors advise. The same seed gives the same numbers on every machine. */
#ifndef PL_BASE_RNG_H
#define PL_BASE_RNG_H

#include <stdint.h>

typedef struct pl_rng {
    uint64_t state[4];
} pl_rng;

void pl_rng_seed(pl_rng *rng, uint64_t seed);
uint64_t pl_rng_next(pl_rng *rng);

/* Uniform in [0, 1), a multiple of 2^-53. */
double pl_rng_uniform(pl_rng *rng);

#endif
