/* Values that went through blocks. */
#ifndef PL_TESTS_UNIT_ENCODED_H
#define PL_TESTS_UNIT_ENCODED_H

#include "quant/blocks.h"

typedef void (*encode_fn)(pl_dtype type, const float *src, const float *weight, void *dst, int64_t n);

/* y = what the blocks of x hold. w: NULL for none. */
void encode_decode(encode_fn encode, pl_dtype type, const float *x, const float *w, float *y, int n);

/* sum w (x - y)^2 */
double error_of(const float *x, const float *y, const float *w, int n);

#endif
