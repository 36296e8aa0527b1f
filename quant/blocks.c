#include "quant/blocks.h"

/* Layouts are read straight from files: no padding may slip in, and hosts are little-endian as the files are. */
_Static_assert(sizeof(pl_block_q4_0) == 18, "Q4_0");
_Static_assert(sizeof(pl_block_q4_1) == 20, "Q4_1");
_Static_assert(sizeof(pl_block_q5_0) == 22, "Q5_0");
_Static_assert(sizeof(pl_block_q5_1) == 24, "Q5_1");
_Static_assert(sizeof(pl_block_q8_0) == 34, "Q8_0");
_Static_assert(sizeof(pl_block_q2_k) == 84, "Q2_K");
_Static_assert(sizeof(pl_block_q3_k) == 110, "Q3_K");
_Static_assert(sizeof(pl_block_q4_k) == 144, "Q4_K");
_Static_assert(sizeof(pl_block_q5_k) == 176, "Q5_K");
_Static_assert(sizeof(pl_block_q6_k) == 210, "Q6_K");
_Static_assert(sizeof(pl_block_iq4_nl) == 18, "IQ4_NL");
_Static_assert(sizeof(pl_block_iq4_xs) == 136, "IQ4_XS");
_Static_assert(sizeof(pl_block_mxfp4) == 17, "MXFP4");
_Static_assert(sizeof(pl_block_nvfp4) == 36, "NVFP4");
_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "model files are little-endian");

const pl_dtype_info *pl_dtype_describe(int type)
{
    static const pl_dtype_info info[] = {
        [PL_F32] = {"F32", 1, 4},         [PL_F16] = {"F16", 1, 2},           [PL_Q4_0] = {"Q4_0", 32, 18},
        [PL_Q4_1] = {"Q4_1", 32, 20},     [PL_Q5_0] = {"Q5_0", 32, 22},       [PL_Q5_1] = {"Q5_1", 32, 24},
        [PL_Q8_0] = {"Q8_0", 32, 34},     [PL_Q2_K] = {"Q2_K", 256, 84},      [PL_Q3_K] = {"Q3_K", 256, 110},
        [PL_Q4_K] = {"Q4_K", 256, 144},   [PL_Q5_K] = {"Q5_K", 256, 176},     [PL_Q6_K] = {"Q6_K", 256, 210},
        [PL_IQ4_NL] = {"IQ4_NL", 32, 18}, [PL_IQ4_XS] = {"IQ4_XS", 256, 136}, [PL_BF16] = {"BF16", 1, 2},
        [PL_MXFP4] = {"MXFP4", 32, 17},   [PL_NVFP4] = {"NVFP4", 64, 36},
    };
    if (type < 0 || (size_t)type >= sizeof info / sizeof info[0] || !info[type].name)
        return NULL;
    return &info[type];
}

size_t pl_dtype_bytes(pl_dtype type, int64_t n)
{
    const pl_dtype_info *info = pl_dtype_describe((int)type);
    return (size_t)(n / info->block_elems) * (size_t)info->block_bytes;
}

const int8_t pl_iq4_values[16] = {-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113};
const int8_t pl_e2m1_doubled[16] = {0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12};

static float from_bits(uint32_t bits)
{
    union {
        uint32_t u;
        float f;
    } v = {bits};
    return v.f;
}

float pl_mxfp4_half_scale(uint8_t e)
{
    return from_bits(e < 2 ? 0x200000u << e : (uint32_t)(e - 1) << 23);
}

float pl_nvfp4_half_scale(uint8_t d)
{
    int exponent = d >> 3 & 15, fraction = d & 7;
    if (d == 0 || d == 127)
        return 0;
    if (exponent == 0)
        return (float)fraction * 0x1p-10f;
    return from_bits((uint32_t)(exponent + 119) << 23 | (uint32_t)fraction << 20);
}

float pl_f16_to_f32(uint16_t h)
{
    uint32_t sign = (uint32_t)(h & 0x8000) << 16, exponent = h >> 10 & 31, fraction = h & 1023;
    union {
        uint32_t u;
        float f;
    } v;
    if (exponent == 0) {
        v.f = (float)fraction * 0x1p-24f;
        v.u |= sign;
    } else if (exponent == 31) {
        v.u = sign | 0x7f800000u | fraction << 13;
    } else {
        v.u = sign | (exponent + 112) << 23 | fraction << 13;
    }
    return v.f;
}

uint16_t pl_f32_to_f16(float f)
{
    union {
        float f;
        uint32_t u;
    } v = {f};
    uint32_t sign = v.u >> 16 & 0x8000, magnitude = v.u & 0x7fffffff;
    if (magnitude > 0x7f800000)
        return (uint16_t)(sign | 0x7e00 | (magnitude >> 13 & 1023));
    if (magnitude >= 0x477ff000) /* from halfway between the largest half and the next step */
        return (uint16_t)(sign | 0x7c00);
    uint32_t kept, dropped, half;
    if (magnitude >= 0x38800000) {
        kept = (magnitude - 0x38000000) >> 13;
        dropped = magnitude & 0x1fff;
        half = 0x1000;
    } else if (magnitude >= 0x33000000) { /* subnormal: the last place is worth 2^-24 */
        uint32_t shift = 126 - (magnitude >> 23), fraction = (magnitude & 0x7fffff) | 0x800000;
        kept = fraction >> shift;
        dropped = fraction & ((1u << shift) - 1);
        half = 1u << (shift - 1);
    } else {
        return (uint16_t)sign;
    }
    kept += dropped > half || (dropped == half && (kept & 1));
    return (uint16_t)(sign | kept);
}
