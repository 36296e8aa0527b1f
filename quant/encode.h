/* Values to blocks: the quantisers.
 *
 * Each chooses a block's scales and codes so that
 *
 *     sum over i of weight[i] * (src[i] - value[i])^2
 *
 * is small, as pl_decode() gives the values. What is stored is what is judged: scales count as rounded to their
 * stored form. The same input gives the same bytes on every machine.
 * Pure arithmetic: no allocation, no I/O. Formats: blocks.h. */
#ifndef PL_QUANT_ENCODE_H
#define PL_QUANT_ENCODE_H

#include "quant/blocks.h"

typedef struct pl_encode_error {
    double error, energy; /* sum weight[i] * (a[i] - b[i])^2, sum weight[i] * a[i]^2 */
} pl_encode_error;

typedef struct pl_encoder {
    const char *name; /* "avx512" */

    /* dst = the blocks of the n values at src; n: a multiple of the block size. weight: [n] finite, not negative, or
     * NULL: all count the same. src is finite; a value beyond what the type can hold becomes the nearest that it can
     * (F16: 65504). Any type of pl_dtype, dst of any alignment. Any thread. */
    void (*encode)(pl_dtype type, const float *src, const float *weight, void *dst, int64_t n);

    /* weight may be NULL. */
    pl_encode_error (*measure)(const float *a, const float *b, const float *weight, int64_t n);
} pl_encoder;

/* The fastest encoder for a processor with these features (host/base/cpu.h). All of them give the same bytes. */
const pl_encoder *pl_encoder_select(unsigned features);

#endif
