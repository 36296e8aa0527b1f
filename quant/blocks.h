/* Element types and block layouts of GGUF, for host and device code. Layouts as in ggml-common.h of
 * llama.cpp; all fields little-endian. Pure arithmetic: no allocation, no I/O. */
#ifndef PL_QUANT_BLOCKS_H
#define PL_QUANT_BLOCKS_H

#include <stddef.h>
#include <stdint.h>

/* Values are GGUF's type ids. */
typedef enum pl_dtype {
    PL_F32 = 0,
    PL_F16 = 1,
    PL_Q4_0 = 2,
    PL_Q4_1 = 3,
    PL_Q5_0 = 6,
    PL_Q5_1 = 7,
    PL_Q8_0 = 8,
    PL_Q2_K = 10,
    PL_Q3_K = 11,
    PL_Q4_K = 12,
    PL_Q5_K = 13,
    PL_Q6_K = 14,
    PL_IQ4_NL = 20,
    PL_IQ4_XS = 23,
    PL_BF16 = 30,
    PL_MXFP4 = 39,
    PL_NVFP4 = 40,
} pl_dtype;

typedef struct pl_dtype_info {
    const char *name; /* as GGUF tools print it: "Q4_K" */
    int block_elems;  /* elements a block; 1 for plain types */
    int block_bytes;
} pl_dtype_info;

/* NULL for a type that is not in pl_dtype. */
const pl_dtype_info *pl_dtype_describe(int type);

/* Bytes of n elements; n must be a multiple of the block size. */
size_t pl_dtype_bytes(pl_dtype type, int64_t n);

typedef struct pl_block_q4_0 {
    uint16_t d;
    uint8_t q[16];
} pl_block_q4_0;
typedef struct pl_block_q4_1 {
    uint16_t d, m;
    uint8_t q[16];
} pl_block_q4_1;
typedef struct pl_block_q5_0 {
    uint16_t d;
    uint8_t h[4], q[16];
} pl_block_q5_0;
typedef struct pl_block_q5_1 {
    uint16_t d, m;
    uint8_t h[4], q[16];
} pl_block_q5_1;
typedef struct pl_block_q8_0 {
    uint16_t d;
    int8_t q[32];
} pl_block_q8_0;
typedef struct pl_block_q2_k {
    uint8_t s[16], q[64]; /* s: scale in the low nibble, minimum in the high one */
    uint16_t d, dmin;
} pl_block_q2_k;
typedef struct pl_block_q3_k {
    uint8_t h[32], q[64], s[12];
    uint16_t d;
} pl_block_q3_k;
typedef struct pl_block_q4_k {
    uint16_t d, dmin;
    uint8_t s[12], q[128];
} pl_block_q4_k;
typedef struct pl_block_q5_k {
    uint16_t d, dmin;
    uint8_t s[12], h[32], q[128];
} pl_block_q5_k;
typedef struct pl_block_q6_k {
    uint8_t ql[128], qh[64];
    int8_t s[16];
    uint16_t d;
} pl_block_q6_k;
typedef struct pl_block_iq4_nl {
    uint16_t d;
    uint8_t q[16];
} pl_block_iq4_nl;
typedef struct pl_block_iq4_xs {
    uint16_t d, sh;
    uint8_t sl[4], q[128];
} pl_block_iq4_xs;
typedef struct pl_block_mxfp4 {
    uint8_t e, q[16]; /* e: a power of two */
} pl_block_mxfp4;
typedef struct pl_block_nvfp4 {
    uint8_t d[4], q[32]; /* d: E4M3 without sign, of 16 values each */
} pl_block_nvfp4;

/* What the codes of IQ4_NL and IQ4_XS stand for, and twice what E2M1 codes (MXFP4, NVFP4) do. */
extern const int8_t pl_iq4_values[16];
extern const int8_t pl_e2m1_doubled[16];

/* Half the value of an MXFP4 block's scale, 2^(e - 128), and of an NVFP4 scale: they go with the doubled codes.
 * NVFP4's 0 and 127 count as 0. */
float pl_mxfp4_half_scale(uint8_t e);
float pl_nvfp4_half_scale(uint8_t d);

/* f16 and bf16 bits to f32, exactly. */
float pl_f16_to_f32(uint16_t h);
static inline float pl_bf16_to_f32(uint16_t h)
{
    union {
        uint32_t u;
        float f;
    } v = {(uint32_t)h << 16};
    return v.f;
}

/* f32 to f16, round to nearest even, overflow to infinity. */
uint16_t pl_f32_to_f16(float f);

/* Scale and minimum, 6 bits each, of group j (0 to 7) of a Q4_K or Q5_K block. */
static inline void pl_k_scale(const uint8_t s[12], int j, int *scale, int *minimum)
{
    if (j < 4) {
        *scale = s[j] & 63;
        *minimum = s[j + 4] & 63;
    } else {
        *scale = (s[j + 4] & 15) | (s[j - 4] >> 6) << 4;
        *minimum = s[j + 4] >> 4 | (s[j] >> 6) << 4;
    }
}

/* Scale of sixteen (-32 to 31), group j (0 to 15) of a Q3_K block. */
static inline int pl_q3_k_scale(const uint8_t s[12], int j)
{
    return ((s[j & 7] >> 4 * (j >> 3) & 15) | (s[8 + (j & 3)] >> 2 * (j >> 2) & 3) << 4) - 32;
}

/* out[0..n) = the values of the n elements at src (any alignment); n: a multiple of the block size. Exactly
 * the values that llama.cpp's dequantiser gives. */
void pl_decode(pl_dtype type, const void *src, float *out, int64_t n);

#endif
