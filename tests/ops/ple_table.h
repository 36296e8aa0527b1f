/* A made-up table of per-layer embeddings, of any type. */
#ifndef PL_TESTS_OPS_PLE_TABLE_H
#define PL_TESTS_OPS_PLE_TABLE_H

#include "host/base/rng.h"
#include "quant/blocks.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

/* Random bytes of which every type makes finite values. */
static inline void fill_table(unsigned char *bytes, size_t n, uint64_t seed)
{
    pl_rng rng;
    pl_rng_seed(&rng, seed);
    for (size_t i = 0; i < n; i++)
        bytes[i] = (unsigned char)(pl_rng_next(&rng) & 0xbb);
}

/* The next type after id, beginning with -1; false: there is none. */
static inline bool next_type(int *id)
{
    while (++*id <= PL_NVFP4)
        if (pl_dtype_describe(*id))
            return true;
    return false;
}

/* out[0..n) = the first n values of a row of `cols`. */
static inline void first_values(pl_dtype type, const void *row, int64_t cols, float *out, int64_t n)
{
    float *all = (float *)malloc((size_t)cols * sizeof *all);
    pl_decode(type, row, all, cols);
    memcpy(out, all, (size_t)n * sizeof *out);
    free(all);
}

#endif
