#include "quant/encode.h"

#include "host/base/cpu.h"
#include "quant/encode_parts.h"

#define ENCODER(isa)                                                                                                   \
    static void encode_##isa(pl_dtype type, const float *src, const float *weight, void *dst, int64_t n)               \
    {                                                                                                                  \
        switch (type) {                                                                                                \
        case PL_F32:                                                                                                   \
        case PL_F16:                                                                                                   \
        case PL_BF16: pl_encode_plain_##isa(type, src, dst, n); return;                                                \
        case PL_Q4_0:                                                                                                  \
        case PL_Q4_1:                                                                                                  \
        case PL_Q5_0:                                                                                                  \
        case PL_Q5_1:                                                                                                  \
        case PL_Q8_0: pl_encode_linear_##isa(type, src, weight, dst, n); return;                                       \
        case PL_Q2_K:                                                                                                  \
        case PL_Q4_K:                                                                                                  \
        case PL_Q5_K: pl_encode_k_min_##isa(type, src, weight, dst, n); return;                                        \
        case PL_Q3_K:                                                                                                  \
        case PL_Q6_K: pl_encode_k_scale_##isa(type, src, weight, dst, n); return;                                      \
        case PL_IQ4_NL:                                                                                                \
        case PL_IQ4_XS:                                                                                                \
        case PL_MXFP4:                                                                                                 \
        case PL_NVFP4: pl_encode_table_##isa(type, src, weight, dst, n); return;                                       \
        }                                                                                                              \
    }                                                                                                                  \
    static const pl_encoder encoder_##isa = {#isa, encode_##isa, pl_encode_measure_##isa};

ENCODER(base)
#if defined(__x86_64__)
ENCODER(avx2)
ENCODER(avx512)
#endif

const pl_encoder *pl_encoder_select(unsigned features)
{
#if defined(__x86_64__)
    if (features & PL_CPU_AVX512)
        return &encoder_avx512;
    if (features & PL_CPU_AVX2)
        return &encoder_avx2;
#endif
    (void)features;
    return &encoder_base;
}
