/* Sixteen f32 lanes in portable C (GCC vector extensions). The same source is compiled for each
 * instruction set, where a vec is one AVX-512 register, two of AVX2 or four of SSE2: its parts. The order of every
 * sum is fixed by the lanes, not by the machine. What is done lane by lane is written for a part: gcc 12 takes
 * comparisons of longer vectors apart into scalars. */
#ifndef PL_BASE_VEC_H
#define PL_BASE_VEC_H

#include <stdint.h>
#include <string.h>
#if defined(__x86_64__)
#include <immintrin.h>
#endif

/* Vectors are only ever passed between inlined functions of one file: their calling convention is moot. */
#pragma GCC diagnostic ignored "-Wpsabi"

#define PL_LANES 16

typedef float pl_vec __attribute__((vector_size(64)));
typedef int32_t pl_veci __attribute__((vector_size(64)));

#if defined(__AVX512F__)
#define PL_PART_LANES 16
#elif defined(__AVX__)
#define PL_PART_LANES 8
#else
#define PL_PART_LANES 4
#endif
#define PL_PARTS (PL_LANES / PL_PART_LANES)

typedef float pl_part __attribute__((vector_size(4 * PL_PART_LANES)));
typedef int32_t pl_parti __attribute__((vector_size(4 * PL_PART_LANES)));

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

/* ---- lane by lane ---- */

static inline __attribute__((always_inline)) pl_part part_load(const float *p)
{
    pl_part v;
    memcpy(&v, p, sizeof v);
    return v;
}

static inline __attribute__((always_inline)) void part_store(float *p, pl_part v)
{
    memcpy(p, &v, sizeof v);
}

static inline __attribute__((always_inline)) pl_part part_set(float x)
{
    return (pl_part){0} + x;
}

static inline __attribute__((always_inline)) pl_part part_select(pl_parti mask, pl_part yes, pl_part no)
{
    return (pl_part)((mask & (pl_parti)yes) | (~mask & (pl_parti)no));
}

/* a > b ? a : b */
static inline __attribute__((always_inline)) pl_part part_max(pl_part a, pl_part b)
{
#if defined(__AVX512F__)
    return (pl_part)_mm512_max_ps((__m512)a, (__m512)b);
#elif defined(__AVX__)
    return (pl_part)_mm256_max_ps((__m256)a, (__m256)b);
#elif defined(__SSE2__)
    return (pl_part)_mm_max_ps((__m128)a, (__m128)b);
#else
    return part_select(a > b, a, b);
#endif
}

/* a < b ? a : b */
static inline __attribute__((always_inline)) pl_part part_min(pl_part a, pl_part b)
{
#if defined(__AVX512F__)
    return (pl_part)_mm512_min_ps((__m512)a, (__m512)b);
#elif defined(__AVX__)
    return (pl_part)_mm256_min_ps((__m256)a, (__m256)b);
#elif defined(__SSE2__)
    return (pl_part)_mm_min_ps((__m128)a, (__m128)b);
#else
    return part_select(a < b, a, b);
#endif
}

/* The functions below take n parts and do each step for all of them before the next one: a step waits for the one
 * before it, but not for its neighbours. */
#define PL_MOST_PARTS 4

/* e^x, within 2 ulp for x in [-87, 88]; clamped outside (so never infinite, never denormal). Cephes'
 * polynomial after reduction by ln 2. */
static inline __attribute__((always_inline)) void part_exp(pl_part *x, int n)
{
    const pl_part magic = part_set(12582912.0f); /* 1.5 * 2^23: adding it rounds to an integer */
    pl_part shifted[PL_MOST_PARTS], r[PL_MOST_PARTS], p[PL_MOST_PARTS];
    for (int i = 0; i < n; i++) {
        x[i] = part_min(part_max(x[i], part_set(-87.0f)), part_set(88.0f));
        shifted[i] = x[i] * 1.44269504088896341f + magic;
    }
    for (int i = 0; i < n; i++) {
        pl_part whole = shifted[i] - magic;
        r[i] = x[i] - whole * 0.693359375f;
        r[i] = r[i] - whole * -2.12194440e-4f;
    }
    for (int i = 0; i < n; i++) {
        p[i] = 1.9875691500e-4f * r[i] + 1.3981999507e-3f;
        p[i] = p[i] * r[i] + 8.3334519073e-3f;
        p[i] = p[i] * r[i] + 4.1665795894e-2f;
    }
    for (int i = 0; i < n; i++) {
        p[i] = p[i] * r[i] + 1.6666665459e-1f;
        p[i] = p[i] * r[i] + 5.0000001201e-1f;
        p[i] = p[i] * (r[i] * r[i]) + r[i] + 1.0f;
    }
    for (int i = 0; i < n; i++) {
        pl_parti exponent = ((pl_parti)shifted[i] - (pl_parti)magic + 127) << 23;
        x[i] = p[i] * (pl_part)exponent;
    }
}

/* tanh(x): the odd series near zero, where (1 - e) would cancel; else 1 - 2 / (e^2x + 1). Of NaN the series. */
static inline __attribute__((always_inline)) void part_tanh(pl_part *x, int n)
{
    pl_part large[PL_MOST_PARTS], p[PL_MOST_PARTS];
    for (int i = 0; i < n; i++)
        large[i] = (pl_part)((pl_parti)x[i] & 0x7fffffff) * 2.0f;
    part_exp(large, n);
    for (int i = 0; i < n; i++)
        large[i] = 1.0f - 2.0f / (large[i] + 1.0f);
    for (int i = 0; i < n; i++) {
        pl_part z = x[i] * x[i];
        p[i] = -5.70498872745e-3f * z + 2.06390887954e-2f;
        p[i] = p[i] * z - 5.37397155531e-2f;
    }
    for (int i = 0; i < n; i++) {
        pl_part z = x[i] * x[i];
        p[i] = p[i] * z + 1.33314422036e-1f;
        p[i] = p[i] * z - 3.33332819422e-1f;
        p[i] = x[i] + x[i] * z * p[i];
    }
    for (int i = 0; i < n; i++) {
        pl_parti sign = (pl_parti)x[i] & (int32_t)0x80000000;
        pl_part size = (pl_part)((pl_parti)x[i] & 0x7fffffff);
        x[i] = part_select(size >= 0.625f, (pl_part)((pl_parti)large[i] | sign), p[i]);
    }
}

/* 0.5 x (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3))) */
static inline __attribute__((always_inline)) void part_gelu(pl_part *x, int n)
{
    pl_part inner[PL_MOST_PARTS];
    for (int i = 0; i < n; i++)
        inner[i] = 0.7978845608028654f * (x[i] + 0.044715f * (x[i] * x[i] * x[i]));
    part_tanh(inner, n);
    for (int i = 0; i < n; i++)
        x[i] = 0.5f * x[i] * (1.0f + inner[i]);
}

/* ---- all sixteen ---- */

static inline __attribute__((always_inline)) pl_vec vec_exp(pl_vec x)
{
    pl_part parts[PL_PARTS];
    memcpy(parts, &x, sizeof parts);
    part_exp(parts, PL_PARTS);
    memcpy(&x, parts, sizeof x);
    return x;
}

static inline __attribute__((always_inline)) pl_vec vec_tanh(pl_vec x)
{
    pl_part parts[PL_PARTS];
    memcpy(parts, &x, sizeof parts);
    part_tanh(parts, PL_PARTS);
    memcpy(&x, parts, sizeof x);
    return x;
}

static inline __attribute__((always_inline)) pl_vec vec_gelu(pl_vec x)
{
    pl_part parts[PL_PARTS];
    memcpy(parts, &x, sizeof parts);
    part_gelu(parts, PL_PARTS);
    memcpy(&x, parts, sizeof x);
    return x;
}

static inline __attribute__((always_inline)) pl_vec vec_select(pl_veci mask, pl_vec yes, pl_vec no)
{
    return (pl_vec)((mask & (pl_veci)yes) | (~mask & (pl_veci)no));
}

static inline __attribute__((always_inline)) pl_vec vec_max(pl_vec a, pl_vec b)
{
    pl_part x[PL_PARTS], y[PL_PARTS];
    memcpy(x, &a, sizeof x);
    memcpy(y, &b, sizeof y);
    for (int i = 0; i < PL_PARTS; i++)
        x[i] = part_max(x[i], y[i]);
    memcpy(&a, x, sizeof a);
    return a;
}

/* Halves are added, then their halves: the one order for all sums. */
static inline __attribute__((always_inline)) float vec_sum(pl_vec v)
{
    typedef float quarter __attribute__((vector_size(16)));
    quarter a = __builtin_shufflevector(v, v, 0, 1, 2, 3), b = __builtin_shufflevector(v, v, 4, 5, 6, 7);
    quarter c = __builtin_shufflevector(v, v, 8, 9, 10, 11), d = __builtin_shufflevector(v, v, 12, 13, 14, 15);
    quarter q = (a + c) + (b + d);
    q += __builtin_shufflevector(q, q, 2, 3, 2, 3);
    return q[0] + q[1];
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

#endif
