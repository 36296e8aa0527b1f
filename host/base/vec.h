/* Sixteen f32 lanes in portable C (GCC vector extensions). The same source is compiled for each
 * instruction set, where a vec becomes one AVX-512 register, two of AVX2 or four of SSE2; the order of
 * every sum is fixed by the lanes, not by the machine. */
#ifndef PL_BASE_VEC_H
#define PL_BASE_VEC_H

#include <stdint.h>
#include <string.h>

/* Vectors are only ever passed between inlined functions of one file: their calling convention is moot. */
#pragma GCC diagnostic ignored "-Wpsabi"

#define PL_LANES 16

typedef float pl_vec __attribute__((vector_size(64)));
typedef int32_t pl_veci __attribute__((vector_size(64)));

static inline __attribute__((always_inline)) pl_vec vec_load(const float *p)
{
    pl_vec v;
    memcpy(&v, p, sizeof v);
    return v;
}

static inline __attribute__((always_inline)) void vec_store(float *p, pl_vec v)
{
    memcpy(p, &v, sizeof v);
}

static inline __attribute__((always_inline)) pl_vec vec_set(float x)
{
    return (pl_vec){0} + x;
}

/* The first n < 16 values, the rest zero. */
static inline __attribute__((always_inline)) pl_vec vec_load_part(const float *p, int64_t n)
{
    pl_vec v = {0};
    memcpy(&v, p, (size_t)n * sizeof *p);
    return v;
}

static inline __attribute__((always_inline)) void vec_store_part(float *p, pl_vec v, int64_t n)
{
    memcpy(p, &v, (size_t)n * sizeof *p);
}

static inline __attribute__((always_inline)) pl_vec vec_select(pl_veci mask, pl_vec yes, pl_vec no)
{
    return (pl_vec)((mask & (pl_veci)yes) | (~mask & (pl_veci)no));
}

static inline __attribute__((always_inline)) pl_vec vec_max(pl_vec a, pl_vec b)
{
    return vec_select(a > b, a, b);
}

static inline __attribute__((always_inline)) pl_vec vec_min(pl_vec a, pl_vec b)
{
    return vec_select(a < b, a, b);
}

/* Halves are added, then their halves: the one order for all sums. */
static inline __attribute__((always_inline)) float vec_sum(pl_vec v)
{
    float t[PL_LANES];
    memcpy(t, &v, sizeof t);
    for (int width = PL_LANES / 2; width > 0; width /= 2)
        for (int i = 0; i < width; i++)
            t[i] += t[i + width];
    return t[0];
}

static inline __attribute__((always_inline)) float vec_largest(pl_vec v)
{
    float t[PL_LANES];
    memcpy(t, &v, sizeof t);
    for (int width = PL_LANES / 2; width > 0; width /= 2)
        for (int i = 0; i < width; i++)
            t[i] = t[i] > t[i + width] ? t[i] : t[i + width];
    return t[0];
}

/* e^x, within 2 ulp for x in [-87, 88]; clamped outside (so never infinite, never denormal). Cephes'
 * polynomial after reduction by ln 2. */
static inline __attribute__((always_inline)) pl_vec vec_exp(pl_vec x)
{
    x = vec_min(vec_max(x, vec_set(-87.0f)), vec_set(88.0f));
    const pl_vec magic = vec_set(12582912.0f); /* 1.5 * 2^23: adding it rounds to an integer */
    pl_vec shifted = x * 1.44269504088896341f + magic;
    pl_vec n = shifted - magic;
    pl_vec r = x - n * 0.693359375f;
    r = r - n * -2.12194440e-4f;
    pl_vec p = vec_set(1.9875691500e-4f);
    p = p * r + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    p = p * (r * r) + r + 1.0f;
    pl_veci exponent = ((pl_veci)shifted - (pl_veci)magic + 127) << 23;
    return p * (pl_vec)exponent;
}

/* tanh(x): the odd series near zero, where (1 - e) would cancel; else 1 - 2 / (e^2x + 1). */
static inline __attribute__((always_inline)) pl_vec vec_tanh(pl_vec x)
{
    pl_vec size = (pl_vec)((pl_veci)x & 0x7fffffff);
    pl_veci sign = (pl_veci)x & (int32_t)0x80000000;
    pl_vec z = x * x;
    pl_vec p = vec_set(-5.70498872745e-3f);
    p = p * z + 2.06390887954e-2f;
    p = p * z - 5.37397155531e-2f;
    p = p * z + 1.33314422036e-1f;
    p = p * z - 3.33332819422e-1f;
    pl_vec small = x + x * z * p;
    pl_vec large = 1.0f - 2.0f / (vec_exp(size * 2.0f) + 1.0f);
    large = (pl_vec)((pl_veci)large | sign);
    pl_vec y = vec_select(size < 0.625f, small, large);
    return vec_select(x == x, y, x);
}

/* 0.5 x (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3))) */
static inline __attribute__((always_inline)) pl_vec vec_gelu(pl_vec x)
{
    pl_vec inner = 0.7978845608028654f * (x + 0.044715f * (x * x * x));
    return 0.5f * x * (1.0f + vec_tanh(inner));
}

#endif
