/* Blocks to values. The order of the float operations is part of the format: it makes the values equal to
 * those of llama.cpp's dequantisers, bit for bit (build without contraction of a * b + c). */
#include "quant/blocks.h"

#include <string.h>

static void decode_f16(const unsigned char *src, float *out, int64_t n)
{
    for (int64_t i = 0; i < n; i++) {
        uint16_t h;
        memcpy(&h, src + 2 * i, sizeof h);
        out[i] = pl_f16_to_f32(h);
    }
}

static void decode_bf16(const unsigned char *src, float *out, int64_t n)
{
    for (int64_t i = 0; i < n; i++) {
        uint16_t h;
        memcpy(&h, src + 2 * i, sizeof h);
        out[i] = pl_bf16_to_f32(h);
    }
}

static void block_q4_0(const void *src, float *out)
{
    pl_block_q4_0 b;
    memcpy(&b, src, sizeof b);
    float d = pl_f16_to_f32(b.d);
    for (int j = 0; j < 16; j++) {
        out[j] = d * (float)((b.q[j] & 15) - 8);
        out[j + 16] = d * (float)((b.q[j] >> 4) - 8);
    }
}

static void block_q4_1(const void *src, float *out)
{
    pl_block_q4_1 b;
    memcpy(&b, src, sizeof b);
    float d = pl_f16_to_f32(b.d), m = pl_f16_to_f32(b.m);
    for (int j = 0; j < 16; j++) {
        out[j] = d * (float)(b.q[j] & 15) + m;
        out[j + 16] = d * (float)(b.q[j] >> 4) + m;
    }
}

static int fifth_bit(const uint8_t *h, int i)
{
    return (h[i >> 3] >> (i & 7) & 1) << 4;
}

static void block_q5_0(const void *src, float *out)
{
    pl_block_q5_0 b;
    memcpy(&b, src, sizeof b);
    float d = pl_f16_to_f32(b.d);
    for (int j = 0; j < 16; j++) {
        out[j] = d * (float)(((b.q[j] & 15) | fifth_bit(b.h, j)) - 16);
        out[j + 16] = d * (float)((b.q[j] >> 4 | fifth_bit(b.h, j + 16)) - 16);
    }
}

static void block_q5_1(const void *src, float *out)
{
    pl_block_q5_1 b;
    memcpy(&b, src, sizeof b);
    float d = pl_f16_to_f32(b.d), m = pl_f16_to_f32(b.m);
    for (int j = 0; j < 16; j++) {
        out[j] = d * (float)((b.q[j] & 15) | fifth_bit(b.h, j)) + m;
        out[j + 16] = d * (float)(b.q[j] >> 4 | fifth_bit(b.h, j + 16)) + m;
    }
}

static void block_q8_0(const void *src, float *out)
{
    pl_block_q8_0 b;
    memcpy(&b, src, sizeof b);
    float d = pl_f16_to_f32(b.d);
    for (int j = 0; j < 32; j++)
        out[j] = d * (float)b.q[j];
}

static void block_q2_k(const void *src, float *out)
{
    pl_block_q2_k b;
    memcpy(&b, src, sizeof b);
    float d = pl_f16_to_f32(b.d), dmin = pl_f16_to_f32(b.dmin);
    for (int e = 0; e < 256; e += 16) { /* one scale */
        const uint8_t *q = b.q + 32 * (e / 128) + e % 32;
        int shift = 2 * (e % 128 / 32);
        float step = d * (float)(b.s[e / 16] & 15), low = dmin * (float)(b.s[e / 16] >> 4);
        for (int l = 0; l < 16; l++)
            out[e + l] = step * (float)(q[l] >> shift & 3) - low;
    }
}

static void block_q3_k(const void *src, float *out)
{
    pl_block_q3_k b;
    memcpy(&b, src, sizeof b);
    float d = pl_f16_to_f32(b.d);
    for (int e = 0; e < 256; e += 16) {
        const uint8_t *q = b.q + 32 * (e / 128) + e % 32, *h = b.h + e % 32;
        int shift = 2 * (e % 128 / 32), bit = e / 32;
        float step = d * (float)pl_q3_k_scale(b.s, e / 16);
        for (int l = 0; l < 16; l++)
            out[e + l] = step * (float)((q[l] >> shift & 3) - (h[l] >> bit & 1 ? 0 : 4));
    }
}

/* h: the fifth bits of Q5_K, or NULL. */
static void block_k(uint16_t d16, uint16_t dmin16, const uint8_t *s, const uint8_t *q, const uint8_t *h, float *out)
{
    float d = pl_f16_to_f32(d16), dmin = pl_f16_to_f32(dmin16);
    for (int j = 0; j < 8; j++) {
        int scale, minimum;
        pl_k_scale(s, j, &scale, &minimum);
        float step = d * (float)scale, low = dmin * (float)minimum;
        const uint8_t *pair = q + 32 * (j / 2); /* of groups */
        for (int l = 0; l < 32; l++) {
            int value = (j & 1 ? pair[l] >> 4 : pair[l] & 15) | (h ? (h[l] >> j & 1) << 4 : 0);
            out[32 * j + l] = step * (float)value - low;
        }
    }
}

static void block_q4_k(const void *src, float *out)
{
    pl_block_q4_k b;
    memcpy(&b, src, sizeof b);
    block_k(b.d, b.dmin, b.s, b.q, NULL, out);
}

static void block_q5_k(const void *src, float *out)
{
    pl_block_q5_k b;
    memcpy(&b, src, sizeof b);
    block_k(b.d, b.dmin, b.s, b.q, b.h, out);
}

static void block_q6_k(const void *src, float *out)
{
    pl_block_q6_k b;
    memcpy(&b, src, sizeof b);
    float d = pl_f16_to_f32(b.d);
    for (int e = 0; e < 256; e += 16) { /* one scale */
        int half = e / 128, quarter = e % 128 / 32, l0 = e % 32;
        const uint8_t *ql = b.ql + 64 * half + 32 * (quarter & 1) + l0;
        const uint8_t *qh = b.qh + 32 * half + l0;
        float step = d * (float)b.s[e / 16];
        for (int l = 0; l < 16; l++) {
            int low = quarter < 2 ? ql[l] & 15 : ql[l] >> 4;
            out[e + l] = step * (float)((low | (qh[l] >> 2 * quarter & 3) << 4) - 32);
        }
    }
}

/* n codes, the first half in the low nibbles, the second in the high ones. */
static void look_up(const int8_t values[16], const uint8_t *q, int n, float step, float *out)
{
    for (int j = 0; j < n / 2; j++) {
        out[j] = step * (float)values[q[j] & 15];
        out[j + n / 2] = step * (float)values[q[j] >> 4];
    }
}

static void block_iq4_nl(const void *src, float *out)
{
    pl_block_iq4_nl b;
    memcpy(&b, src, sizeof b);
    look_up(pl_iq4_values, b.q, 32, pl_f16_to_f32(b.d), out);
}

static void block_iq4_xs(const void *src, float *out)
{
    pl_block_iq4_xs b;
    memcpy(&b, src, sizeof b);
    float d = pl_f16_to_f32(b.d);
    for (int j = 0; j < 8; j++) {
        int scale = ((b.sl[j / 2] >> 4 * (j & 1) & 15) | (b.sh >> 2 * j & 3) << 4) - 32;
        look_up(pl_iq4_values, b.q + 16 * j, 32, d * (float)scale, out + 32 * j);
    }
}

static void block_mxfp4(const void *src, float *out)
{
    pl_block_mxfp4 b;
    memcpy(&b, src, sizeof b);
    look_up(pl_e2m1_doubled, b.q, 32, pl_mxfp4_half_scale(b.e), out);
}

static void block_nvfp4(const void *src, float *out)
{
    pl_block_nvfp4 b;
    memcpy(&b, src, sizeof b);
    for (int j = 0; j < 4; j++)
        look_up(pl_e2m1_doubled, b.q + 8 * j, 16, pl_nvfp4_half_scale(b.d[j]), out + 16 * j);
}

typedef void (*block_fn)(const void *src, float *out);

static block_fn block_decoder(pl_dtype type)
{
    switch (type) {
    case PL_Q4_0: return block_q4_0;
    case PL_Q4_1: return block_q4_1;
    case PL_Q5_0: return block_q5_0;
    case PL_Q5_1: return block_q5_1;
    case PL_Q8_0: return block_q8_0;
    case PL_Q2_K: return block_q2_k;
    case PL_Q3_K: return block_q3_k;
    case PL_Q4_K: return block_q4_k;
    case PL_Q5_K: return block_q5_k;
    case PL_Q6_K: return block_q6_k;
    case PL_IQ4_NL: return block_iq4_nl;
    case PL_IQ4_XS: return block_iq4_xs;
    case PL_MXFP4: return block_mxfp4;
    case PL_NVFP4: return block_nvfp4;
    case PL_F32:
    case PL_F16:
    case PL_BF16: break;
    }
    return NULL;
}

void pl_decode(pl_dtype type, const void *src, float *out, int64_t n)
{
    const unsigned char *p = src;
    switch (type) {
    case PL_F32: memcpy(out, p, (size_t)n * sizeof *out); return;
    case PL_F16: decode_f16(p, out, n); return;
    case PL_BF16: decode_bf16(p, out, n); return;
    default: break;
    }
    const pl_dtype_info *info = pl_dtype_describe((int)type);
    block_fn decode = block_decoder(type);
    for (int64_t i = 0; i + info->block_elems <= n; i += info->block_elems, p += info->block_bytes)
        decode(p, out + i);
}
