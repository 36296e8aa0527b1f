/* Lanes that are outputs of `down`: codes and scales of its columns (PL_NEURON_COLUMNS), and the steps of matmul_tile.h. */
#ifndef PL_CPU_FFN_COLUMNS_H
#define PL_CPU_FFN_COLUMNS_H

#include "host/base/vec.h"
#include "host/cpu/matmul_tile.h"
#include "host/cpu/neuron.h"

#define INLINE static inline __attribute__((always_inline))
#define SLAB_PANELS (PL_NEURON_LINE / PL_PANEL_ROWS)

typedef uint8_t part_bytes __attribute__((vector_size(PL_PART_LANES)));
typedef uint32_t words __attribute__((vector_size(4 * PL_PART_LANES)));
typedef int16_t shorts __attribute__((vector_size(4 * PL_PART_LANES)));

/* ---- lanes ---- */

INLINE pl_parti widen(const uint8_t *p)
{
#if defined(__AVX512F__)
    return (pl_parti)_mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i *)(const void *)p));
#elif defined(__AVX2__) /* gcc converts byte by byte */
    return (pl_parti)_mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i *)(const void *)p));
#else
    part_bytes v;
    memcpy(&v, p, sizeof v);
    return __builtin_convertvector(v, pl_parti);
#endif
}

INLINE pl_part widen_signed(const uint8_t *p)
{
#if defined(__AVX2__) && !defined(__AVX512F__)
    return (pl_part)_mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64((const __m128i *)(const void *)p)));
#else
    pl_parti v = widen(p);
    return __builtin_convertvector((v ^ 128) - 128, pl_part);
#endif
}

INLINE pl_part halves_at(const uint8_t *p)
{
#if defined(__AVX512F__)
    return (pl_part)_mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)(const void *)p));
#elif defined(__F16C__)
    return (pl_part)_mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)(const void *)p));
#else
    pl_part out;
    for (int i = 0; i < PL_PART_LANES; i++) {
        uint16_t h;
        memcpy(&h, p + 2 * i, sizeof h);
        out[i] = pl_f16_to_f32(h);
    }
    return out;
#endif
}

INLINE pl_part fused(pl_part a, pl_part b, pl_part c)
{
#if defined(__AVX512F__)
    return (pl_part)_mm512_fmadd_ps((__m512)a, (__m512)b, (__m512)c);
#elif defined(__FMA__)
    return (pl_part)_mm256_fmadd_ps((__m256)a, (__m256)b, (__m256)c);
#else
    for (int i = 0; i < PL_PART_LANES; i++)
        c[i] = __builtin_fmaf(a[i], b[i], c[i]);
    return c;
#endif
}

/* sum + the products of both halves of each lane. */
INLINE pl_parti add_products(pl_parti sum, pl_parti a, pl_parti b)
{
#if defined(__AVX512VNNI__)
    return (pl_parti)_mm512_dpwssd_epi32((__m512i)sum, (__m512i)a, (__m512i)b);
#elif defined(__AVX2__)
    return sum + (pl_parti)_mm256_madd_epi16((__m256i)a, (__m256i)b);
#else
    return sum + (a << 16 >> 16) * (b << 16 >> 16) + (a >> 16) * (b >> 16);
#endif
}

/* ---- scales: those of lanes [lane, lane + PL_PART_LANES) of a panel, as matmul_tile_avx512.c has them ---- */

typedef struct scale_pair {
    pl_part d, m;
} scale_pair;

INLINE pl_part byte_scales(const uint8_t *p)
{
    return __builtin_convertvector(widen(p), pl_part);
}

INLINE pl_part each(float (*fn)(uint8_t), const uint8_t *p, int with)
{
    pl_part out;
    for (int i = 0; i < PL_PART_LANES; i++)
        out[i] = fn((uint8_t)(p[i] | with));
    return out;
}

INLINE scale_pair scales_at(pl_dtype type, const uint8_t *head, int group, int half, int lane)
{
    scale_pair s = {{0}, {0}};
    const uint8_t *whole = head + 2 * lane, *of_group = head + 32 * group + 2 * lane;
    int at = 16 * group + lane, half_at = 32 * group + 16 * half + lane;
    switch (type) {
    case PL_Q4_1:
    case PL_Q5_1: s.m = halves_at(of_group + 256); /* fall through */
    case PL_Q4_0:
    case PL_Q5_0:
    case PL_Q8_0:
    case PL_IQ4_NL: s.d = halves_at(of_group); break;
    case PL_Q2_K: {
        pl_parti both = widen(head + 64 + half_at);
        s.d = halves_at(whole) * __builtin_convertvector(both & 15, pl_part);
        s.m = -(halves_at(whole + 32) * __builtin_convertvector(both >> 4, pl_part));
        break;
    }
    case PL_Q4_K:
    case PL_Q5_K:
        s.d = halves_at(whole) * byte_scales(head + 64 + at);
        s.m = -(halves_at(whole + 32) * byte_scales(head + 192 + at));
        break;
    case PL_Q3_K:
    case PL_Q6_K: s.d = halves_at(whole) * widen_signed(head + 32 + half_at); break;
    case PL_IQ4_XS: s.d = halves_at(whole) * widen_signed(head + 32 + at); break;
    case PL_MXFP4: s.d = each(pl_mxfp4_half_scale, head + at, 0); break;
    case PL_NVFP4: s.d = each(pl_nvfp4_half_scale, head + half_at, 0x80); break;
    case PL_F32:
    case PL_F16:
    case PL_BF16: break;
    }
    return s;
}

/* ---- codes ---- */

/* Where a slab's codes are within a column. */
typedef struct slab_place {
    size_t low, pairs, top;
    int low_shift, pairs_shift, top_shift;
} slab_place;

INLINE slab_place place_of(pl_panel_type t, pl_neuron_columns c, int64_t slab)
{
    int low = t.bits == 8 ? 8 : 4;
    slab_place p = {.low = (size_t)(slab * low / 8 * PL_NEURON_LINE), .low_shift = (int)(slab * low % 8)};
    p.pairs = c.pairs + (size_t)(slab / 4 * PL_NEURON_LINE);
    p.pairs_shift = (int)(slab % 4 * 2);
    p.top = c.top + (size_t)(slab / 8 * PL_NEURON_LINE);
    p.top_shift = (int)(slab % 8);
    return p;
}

/* Of lanes [at, at + PL_PART_LANES) of a slab. */
INLINE pl_parti codes_at(pl_panel_type t, const uint8_t *column, slab_place p, int at)
{
    int low = pl_nibble_bits(t.bits);
    if (t.bits == 8)
        return widen(column + p.low + at);
    pl_parti code = {0};
    if (low)
        code = widen(column + p.low + at) >> p.low_shift & 15;
    if (pl_has_pairs(t.bits))
        code |= (widen(column + p.pairs + at) >> p.pairs_shift & 3) << low;
    if (pl_has_top(t.bits))
        code |= (widen(column + p.top + at) >> p.top_shift & 1) << (t.bits - 1);
    if (t.values)
        for (int i = 0; i < PL_PART_LANES; i++)
            code[i] = t.values[code[i]] + t.offset;
    return code;
}

INLINE words words_at(const uint8_t *p)
{
    words v;
    memcpy(&v, p, sizeof v);
    return v;
}

/* Of lanes [at, at + 4 * PL_PART_LANES) as they are in store, a byte each. */
INLINE words bytes_at(pl_panel_type t, const uint8_t *column, slab_place place, int at)
{
    int low = pl_nibble_bits(t.bits);
    words v = {0};
    if (t.bits == 8)
        return words_at(column + place.low + at);
    if (low)
        v = words_at(column + place.low + at) >> place.low_shift & 0x0f0f0f0f;
    if (pl_has_pairs(t.bits))
        v |= (words_at(column + place.pairs + at) >> place.pairs_shift & 0x03030303) << low;
    if (pl_has_top(t.bits))
        v |= (words_at(column + place.top + at) >> place.top_shift & 0x01010101) << (t.bits - 1);
    return v;
}

#endif
