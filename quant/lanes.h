/* One group of values a lane: as many lanes as this instruction set's registers hold. Lanes never mix, so that what
 * a group becomes does not depend on how many there are. */
#ifndef PL_QUANT_LANES_H
#define PL_QUANT_LANES_H

#include <stdint.h>
#include <string.h>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

/* Vectors are only ever passed between inlined functions of one file: their calling convention is moot. */
#pragma GCC diagnostic ignored "-Wpsabi"

#if defined(__AVX512F__)
#define PL_WIDTH 16
#elif defined(__AVX2__)
#define PL_WIDTH 8
#else
#define PL_WIDTH 4
#endif

#define PL_INLINE static inline __attribute__((always_inline))

typedef float pl_lanes __attribute__((vector_size(4 * PL_WIDTH)));
typedef int32_t pl_lanesi __attribute__((vector_size(4 * PL_WIDTH)));

PL_INLINE pl_lanes lanes_load(const float *p)
{
    pl_lanes v;
    memcpy(&v, p, sizeof v);
    return v;
}

PL_INLINE pl_lanes lanes_set(float x)
{
    return (pl_lanes){0} + x;
}

PL_INLINE pl_lanesi lanes_seti(int32_t x)
{
    return (pl_lanesi){0} + x;
}

PL_INLINE pl_lanesi lanes_selecti(pl_lanesi mask, pl_lanesi yes, pl_lanesi no)
{
    return (mask & yes) | (~mask & no);
}

PL_INLINE pl_lanes lanes_select(pl_lanesi mask, pl_lanes yes, pl_lanes no)
{
    return (pl_lanes)lanes_selecti(mask, (pl_lanesi)yes, (pl_lanesi)no);
}

/* a > b ? a : b and a < b ? a : b, which compilers do not find in a select. */
PL_INLINE pl_lanes lanes_max(pl_lanes a, pl_lanes b)
{
#if defined(__AVX512F__)
    return (pl_lanes)_mm512_max_ps((__m512)a, (__m512)b);
#elif defined(__AVX2__)
    return (pl_lanes)_mm256_max_ps((__m256)a, (__m256)b);
#elif defined(__x86_64__)
    return (pl_lanes)_mm_max_ps((__m128)a, (__m128)b);
#else
    return lanes_select(a > b, a, b);
#endif
}

PL_INLINE pl_lanes lanes_min(pl_lanes a, pl_lanes b)
{
#if defined(__AVX512F__)
    return (pl_lanes)_mm512_min_ps((__m512)a, (__m512)b);
#elif defined(__AVX2__)
    return (pl_lanes)_mm256_min_ps((__m256)a, (__m256)b);
#elif defined(__x86_64__)
    return (pl_lanes)_mm_min_ps((__m128)a, (__m128)b);
#else
    return lanes_select(a < b, a, b);
#endif
}

PL_INLINE pl_lanes lanes_abs(pl_lanes x)
{
    return (pl_lanes)((pl_lanesi)x & 0x7fffffff);
}

/* a / b, 0 where b is. */
PL_INLINE pl_lanes lanes_ratio(pl_lanes a, pl_lanes b)
{
    pl_lanesi zero = b == 0.0f;
    return (pl_lanes)(~zero & (pl_lanesi)(a / lanes_select(zero, lanes_set(1), b)));
}

#define PL_ROUND_MAGIC 12582912.0f /* 1.5 * 2^23: adding it rounds to an integer, for |x| < 2^22 */

PL_INLINE pl_lanes lanes_round(pl_lanes x)
{
    return (x + PL_ROUND_MAGIC) - PL_ROUND_MAGIC;
}

/* The nearest integer, for |x| < 2^22. */
PL_INLINE pl_lanesi lanes_int(pl_lanes x)
{
    return (pl_lanesi)(x + PL_ROUND_MAGIC) - (pl_lanesi)lanes_set(PL_ROUND_MAGIC);
}

/* The largest power of two that is not above |x|, within [2^-126, 2^126]. */
PL_INLINE pl_lanes lanes_power(pl_lanes x)
{
    pl_lanes power = (pl_lanes)((pl_lanesi)x & 0x7f800000);
    return lanes_min(lanes_max(power, lanes_set(0x1p-126f)), lanes_set(0x1p126f));
}

/* f16 bits, rounded to nearest even, at most 65504. */
PL_INLINE pl_lanesi lanes_to_f16(pl_lanes x)
{
    pl_lanes size = lanes_min(lanes_abs(x), lanes_set(65504.0f));
    pl_lanesi bits = (pl_lanesi)size;
    pl_lanesi normal = ((bits + 0xfff + (bits >> 13 & 1)) >> 13) - (112 << 10);
    pl_lanesi subnormal = (pl_lanesi)(size + 0.5f) - (pl_lanesi)lanes_set(0.5f); /* 0.5's last place: 2^-24 */
    pl_lanesi sign = (pl_lanesi)x >> 16 & 0x8000;
    return sign | lanes_selecti(size < 0x1p-14f, subnormal, normal);
}

/* Of finite halves. */
PL_INLINE pl_lanes lanes_from_f16(pl_lanesi h)
{
    pl_lanesi size = h & 0x7fff;
    pl_lanes normal = (pl_lanes)((size << 13) + (112 << 23));
    pl_lanes subnormal = (pl_lanes)(size + (pl_lanesi)lanes_set(0.5f)) - 0.5f;
    pl_lanes value = lanes_select(size < 1024, subnormal, normal);
    return (pl_lanes)((pl_lanesi)value | (h & 0x8000) << 16);
}

/* ---- transposing --------------------------------------------------------------------------------------------- */

typedef float pl_quad __attribute__((vector_size(16)));

PL_INLINE pl_quad quad_load(const float *p)
{
    pl_quad v;
    memcpy(&v, p, sizeof v);
    return v;
}

/* Four values of every fourth group, from src on. */
#if PL_WIDTH == 4
#define PL_LOW 0, 4, 1, 5
#define PL_HIGH 2, 6, 3, 7
PL_INLINE pl_lanes lanes_load_quads(const float *src, int64_t stride)
{
    (void)stride;
    return quad_load(src);
}
#else
typedef float pl_quads __attribute__((vector_size(32)));

PL_INLINE pl_quads quads_load(const float *p, const float *q)
{
    return __builtin_shufflevector(quad_load(p), quad_load(q), 0, 1, 2, 3, 4, 5, 6, 7);
}
#if PL_WIDTH == 8
#define PL_LOW 0, 8, 1, 9, 4, 12, 5, 13
#define PL_HIGH 2, 10, 3, 11, 6, 14, 7, 15
PL_INLINE pl_lanes lanes_load_quads(const float *src, int64_t stride)
{
    return quads_load(src, src + 4 * stride);
}
#else
#define PL_LOW 0, 16, 1, 17, 4, 20, 5, 21, 8, 24, 9, 25, 12, 28, 13, 29
#define PL_HIGH 2, 18, 3, 19, 6, 22, 7, 23, 10, 26, 11, 27, 14, 30, 15, 31
PL_INLINE pl_lanes lanes_load_quads(const float *src, int64_t stride)
{
    return __builtin_shufflevector(quads_load(src, src + 4 * stride), quads_load(src + 8 * stride, src + 12 * stride),
                                   0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
}
#endif
#endif

/* out[i], lane j: src[j * stride + i], for four i. */
PL_INLINE void lanes_transpose(const float *src, int64_t stride, pl_lanes out[4])
{
    pl_lanes a = lanes_load_quads(src, stride), b = lanes_load_quads(src + stride, stride);
    pl_lanes c = lanes_load_quads(src + 2 * stride, stride), d = lanes_load_quads(src + 3 * stride, stride);
    pl_lanes ac_low = __builtin_shufflevector(a, c, PL_LOW), ac_high = __builtin_shufflevector(a, c, PL_HIGH);
    pl_lanes bd_low = __builtin_shufflevector(b, d, PL_LOW), bd_high = __builtin_shufflevector(b, d, PL_HIGH);
    out[0] = __builtin_shufflevector(ac_low, bd_low, PL_LOW);
    out[1] = __builtin_shufflevector(ac_low, bd_low, PL_HIGH);
    out[2] = __builtin_shufflevector(ac_high, bd_high, PL_LOW);
    out[3] = __builtin_shufflevector(ac_high, bd_high, PL_HIGH);
}

#endif
