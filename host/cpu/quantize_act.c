/* Activations to integers (see pl_act). Compiled for every instruction set; each operation is exact or
 * correctly rounded and none is contracted, so that all give the same bits. Integers have any order of sums. */
#include "host/base/isa.h"
#include "host/cpu/matmul_tile.h"
#include "host/ops/matmul.h"

#include <math.h>
#include <stdbool.h>
#include <string.h>
#if defined(__AVX2__)
#include <immintrin.h>
#endif

#define LARGEST 16256   /* 128 * 127 */
#define ROUND 0x1.8p23f /* adding it leaves no room for a fraction: nearest, ties to even */
#define MAGNITUDE 0x7fffffff

/* largest_magnitude(): as integers, magnitudes order like floats, infinity and NaN above all others.
 * round_block(): x times inverse as integers, and the sums of their halves. */

#if defined(__AVX512F__)

static inline __m512i magnitudes(const float *x)
{
    const __m512i mask = _mm512_set1_epi32(MAGNITUDE);
    __m512i a = _mm512_and_si512(_mm512_loadu_si512(x), mask);
    return _mm512_max_epi32(a, _mm512_and_si512(_mm512_loadu_si512(x + 16), mask));
}

static inline uint32_t largest_magnitude(const float *x)
{
    return (uint32_t)_mm512_reduce_max_epi32(magnitudes(x));
}

/* Behind ROUND's bits stands the integer. */
static inline __m512i round_lanes(const float *x, __m512 inverse)
{
    const __m512 round = _mm512_set1_ps(ROUND);
    __m512 sum = _mm512_add_ps(_mm512_mul_ps(_mm512_loadu_ps(x), inverse), round);
    return _mm512_sub_epi32(_mm512_castps_si512(sum), _mm512_castps_si512(round));
}

/* The bytes, and four parts of each half's sum. */
static inline __m256i round_bytes(const float *x, __m512 inverse, int8_t *hi_lo)
{
    const __m512i half = _mm512_set1_epi32(64);
    const __m512i order = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
    __m512i a = round_lanes(x, inverse), b = round_lanes(x + 16, inverse);
    __m512i a_hi = _mm512_srai_epi32(_mm512_add_epi32(a, half), 7);
    __m512i b_hi = _mm512_srai_epi32(_mm512_add_epi32(b, half), 7);
    __m512i a_lo = _mm512_sub_epi32(a, _mm512_slli_epi32(a_hi, 7));
    __m512i b_lo = _mm512_sub_epi32(b, _mm512_slli_epi32(b_hi, 7));
    __m512i bytes = _mm512_packs_epi16(_mm512_packs_epi32(a_hi, b_hi), _mm512_packs_epi32(a_lo, b_lo));
    bytes = _mm512_permutexvar_epi32(order, bytes);
    _mm512_storeu_si512(hi_lo, bytes);
    __m512i fours = _mm512_dpbusd_epi32(_mm512_setzero_si512(), _mm512_set1_epi8(1), bytes);
    __m256i hi = _mm512_castsi512_si256(fours), lo = _mm512_extracti64x4_epi64(fours, 1);
    return _mm256_add_epi32(_mm256_slli_epi32(hi, 7), lo);
}

static inline void round_block(const float *x, float inverse, int8_t *hi_lo, int32_t *sum)
{
    __m256i s = round_bytes(x, _mm512_set1_ps(inverse), hi_lo);
    s = _mm256_add_epi32(s, _mm256_shuffle_epi32(s, 0x4e));
    s = _mm256_add_epi32(s, _mm256_shuffle_epi32(s, 0xb1));
    sum[0] = _mm256_extract_epi32(s, 0);
    sum[1] = _mm256_extract_epi32(s, 4);
}

/* The largest lane of each of eight. */
static inline __m256i largest_of_8(const __m512i v[8])
{
    const __m512i order = _mm512_setr_epi32(0, 4, 8, 12, 2, 6, 10, 14, 0, 0, 0, 0, 0, 0, 0, 0);
    __m512i half[4], quarter[2];
    for (int i = 0; i < 4; i++)
        half[i] = _mm512_max_epi32(_mm512_shuffle_i32x4(v[2 * i], v[2 * i + 1], 0x44),
                                   _mm512_shuffle_i32x4(v[2 * i], v[2 * i + 1], 0xee));
    for (int i = 0; i < 2; i++)
        quarter[i] = _mm512_max_epi32(_mm512_shuffle_i32x4(half[2 * i], half[2 * i + 1], 0x88),
                                      _mm512_shuffle_i32x4(half[2 * i], half[2 * i + 1], 0xdd));
    __m512i pair = _mm512_max_epi32(_mm512_unpacklo_epi64(quarter[0], quarter[1]),
                                    _mm512_unpackhi_epi64(quarter[0], quarter[1]));
    pair = _mm512_max_epi32(pair, _mm512_srli_epi64(pair, 32));
    return _mm512_castsi512_si256(_mm512_permutexvar_epi32(order, pair));
}

/* Eight blocks, whose reductions and divisions are done side by side; false: one of them is not finite. */
static inline bool quantize_8(const float *x, int8_t *hi_lo, float *scale, int32_t *sum)
{
    __m512i m[8];
    for (int b = 0; b < 8; b++)
        m[b] = magnitudes(x + b * PL_ACT_BLOCK);
    __m256 largest = _mm256_castsi256_ps(largest_of_8(m));
    if (_mm256_cmp_ps_mask(largest, _mm256_set1_ps(INFINITY), _CMP_LT_OQ) != 0xff)
        return false;
    __mmask8 some = _mm256_cmp_ps_mask(largest, _mm256_set1_ps(0x1p-100f), _CMP_GE_OQ);
    _mm256_storeu_ps(scale, _mm256_maskz_div_ps(some, largest, _mm256_set1_ps(LARGEST)));
    __m512 inverse = _mm512_castps256_ps512(_mm256_maskz_div_ps(some, _mm256_set1_ps(LARGEST), largest));
    __m256i part[8];
    for (int b = 0; b < 8; b++)
        part[b] = round_bytes(x + b * PL_ACT_BLOCK, _mm512_permutexvar_ps(_mm512_set1_epi32(b), inverse),
                              hi_lo + b * 2 * PL_ACT_BLOCK);
    for (int b = 0; b < 8; b += 4) { /* lanes: one half of four blocks, then their other half */
        __m256i s = _mm256_hadd_epi32(_mm256_hadd_epi32(part[b], part[b + 1]),
                                      _mm256_hadd_epi32(part[b + 2], part[b + 3]));
        s = _mm256_permutevar8x32_epi32(s, _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7));
        _mm256_storeu_si256((__m256i *)(void *)(sum + 2 * b), s);
    }
    return true;
}

#elif defined(__AVX2__)

static inline uint32_t largest_magnitude(const float *x)
{
    const __m256i mask = _mm256_set1_epi32(MAGNITUDE);
    __m256i m = _mm256_setzero_si256();
    for (int i = 0; i < PL_ACT_BLOCK; i += 8)
        m = _mm256_max_epi32(m, _mm256_and_si256(_mm256_loadu_si256((const __m256i *)(const void *)(x + i)), mask));
    __m128i q = _mm_max_epi32(_mm256_castsi256_si128(m), _mm256_extracti128_si256(m, 1));
    q = _mm_max_epi32(q, _mm_shuffle_epi32(q, 0x4e));
    return (uint32_t)_mm_cvtsi128_si32(_mm_max_epi32(q, _mm_shuffle_epi32(q, 0xb1)));
}

/* Behind ROUND's bits stands the integer. */
static inline __m256i round_lanes(const float *x, __m256 inverse)
{
    const __m256 round = _mm256_set1_ps(ROUND);
    __m256 sum = _mm256_add_ps(_mm256_mul_ps(_mm256_loadu_ps(x), inverse), round);
    return _mm256_sub_epi32(_mm256_castps_si256(sum), _mm256_castps_si256(round));
}

static inline int32_t add_lanes(__m256i v)
{
    __m128i q = _mm_add_epi32(_mm256_castsi256_si128(v), _mm256_extracti128_si256(v, 1));
    q = _mm_add_epi32(q, _mm_shuffle_epi32(q, 0x4e));
    return _mm_cvtsi128_si32(_mm_add_epi32(q, _mm_shuffle_epi32(q, 0xb1)));
}

static inline void store_bytes(int8_t *out, const __m256i v[4])
{
    const __m256i order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);
    __m256i bytes = _mm256_packs_epi16(_mm256_packs_epi32(v[0], v[1]), _mm256_packs_epi32(v[2], v[3]));
    _mm256_storeu_si256((__m256i *)(void *)out, _mm256_permutevar8x32_epi32(bytes, order));
}

static inline void round_block(const float *x, float inverse, int8_t *hi_lo, int32_t *sum)
{
    __m256i q[4], hi[4], lo[4];
    for (int i = 0; i < 4; i++) {
        q[i] = round_lanes(x + 8 * i, _mm256_set1_ps(inverse));
        hi[i] = _mm256_srai_epi32(_mm256_add_epi32(q[i], _mm256_set1_epi32(64)), 7);
        lo[i] = _mm256_sub_epi32(q[i], _mm256_slli_epi32(hi[i], 7));
    }
    store_bytes(hi_lo, hi);
    store_bytes(hi_lo + PL_ACT_BLOCK, lo);
    sum[0] = add_lanes(_mm256_add_epi32(q[0], q[1]));
    sum[1] = add_lanes(_mm256_add_epi32(q[2], q[3]));
}

#else

static inline uint32_t largest_magnitude(const float *x)
{
    uint32_t largest = 0;
    for (int i = 0; i < PL_ACT_BLOCK; i++) {
        uint32_t bits;
        memcpy(&bits, x + i, sizeof bits);
        bits &= MAGNITUDE;
        largest = bits > largest ? bits : largest;
    }
    return largest;
}

static inline void round_block(const float *x, float inverse, int8_t *hi_lo, int32_t *sum)
{
    for (int h = 0; h < 2; h++) {
        int32_t total = 0;
        for (int i = 16 * h; i < 16 * h + 16; i++) {
            int32_t q = (int32_t)((x[i] * inverse + ROUND) - ROUND);
            int32_t hi = (q + 64) >> 7;
            hi_lo[i] = (int8_t)hi;
            hi_lo[PL_ACT_BLOCK + i] = (int8_t)(q - 128 * hi);
            total += q;
        }
        sum[h] = total;
    }
}

#endif

static inline void quantize_block(const float *x, int8_t *hi_lo, float *scale, int32_t *sum)
{
    uint32_t bits = largest_magnitude(x);
    float largest;
    memcpy(&largest, &bits, sizeof largest);
    if (!(largest >= 0x1p-100f && largest < INFINITY)) {
        memset(hi_lo, 0, 2 * PL_ACT_BLOCK);
        sum[0] = sum[1] = 0;
        *scale = bits >= 0x7f800000 ? NAN : 0;
        return;
    }
    *scale = largest / LARGEST;
    round_block(x, LARGEST / largest, hi_lo, sum);
}

void PL_ISA_NAME(pl_quantize_row)(const float *x, int64_t cols, int8_t *hi_lo, float *scale, int32_t *sum)
{
    int64_t whole = cols / PL_ACT_BLOCK, b = 0;
#if defined(__AVX512F__)
    while (b + 8 <= whole && quantize_8(x + b * PL_ACT_BLOCK, hi_lo + b * 2 * PL_ACT_BLOCK, scale + b, sum + 2 * b))
        b += 8;
#endif
    for (; b < whole; b++)
        quantize_block(x + b * PL_ACT_BLOCK, hi_lo + b * 2 * PL_ACT_BLOCK, scale + b, sum + 2 * b);
    if (cols % PL_ACT_BLOCK) {
        float last[PL_ACT_BLOCK] = {0};
        memcpy(last, x + b * PL_ACT_BLOCK, (size_t)(cols % PL_ACT_BLOCK) * sizeof *x);
        quantize_block(last, hi_lo + b * 2 * PL_ACT_BLOCK, scale + b, sum + 2 * b);
    }
}
