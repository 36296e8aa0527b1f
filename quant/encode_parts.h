/* What the files behind encode.h share: one function for each family of formats, compiled once for each instruction
 * set under its name (PL_ISA). */
#ifndef PL_QUANT_ENCODE_PARTS_H
#define PL_QUANT_ENCODE_PARTS_H

#include "quant/encode.h"

#define PL_ENCODE_FUNCTIONS(isa)                                                                                       \
    /* F32, F16, BF16 */                                                                                               \
    void pl_encode_plain_##isa(pl_dtype type, const float *src, void *dst, int64_t n);                                 \
    /* Q4_0, Q4_1, Q5_0, Q5_1, Q8_0 */                                                                                 \
    void pl_encode_linear_##isa(pl_dtype type, const float *src, const float *weight, void *dst, int64_t n);           \
    /* IQ4_NL, IQ4_XS, MXFP4, NVFP4: codes look up a table of values */                                                \
    void pl_encode_table_##isa(pl_dtype type, const float *src, const float *weight, void *dst, int64_t n);            \
    /* Q2_K, Q4_K, Q5_K: scale and minimum */                                                                          \
    void pl_encode_k_min_##isa(pl_dtype type, const float *src, const float *weight, void *dst, int64_t n);            \
    /* Q3_K, Q6_K: scale alone */                                                                                      \
    void pl_encode_k_scale_##isa(pl_dtype type, const float *src, const float *weight, void *dst, int64_t n);          \
    pl_encode_error pl_encode_measure_##isa(const float *a, const float *b, const float *weight, int64_t n);

PL_ENCODE_FUNCTIONS(base)
PL_ENCODE_FUNCTIONS(avx2)
PL_ENCODE_FUNCTIONS(avx512)

#endif
