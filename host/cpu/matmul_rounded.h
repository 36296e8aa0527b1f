/* Products of many rows with activations rounded to 8 bits: of 128 * hi + lo only 128 * hi, which is the nearest. What the
 * kernels for x86 share. */
#ifndef PL_CPU_MATMUL_ROUNDED_H
#define PL_CPU_MATMUL_ROUNDED_H

#include "host/cpu/matmul_many.h"

#include <immintrin.h>
#include <stdbool.h>
#include <string.h>

#define PL_QUADS (PL_GROUP / 4)
#define PL_WHOLE_GROUP 2 /* in place of the number of a half */

/* A group of a tile in pl_act.wide: for each chunk of columns hi + 128 of every row, and by row the scale of hi and its product
 * with the sums of hi over each half and over the whole group. */
typedef struct pl_rounded_group {
    int32_t quad[PL_QUADS][PL_ACT_WIDE_ROWS];
    float shift[3][PL_ACT_WIDE_ROWS];
    float scale[PL_ACT_WIDE_ROWS];
} pl_rounded_group;

_Static_assert(sizeof(pl_rounded_group) <= PL_ACT_WIDE_ROWS * PL_ACT_WIDE, "a block's share of a tile");

/* What is taken off the codes of a type, so that with less than 7 bits the sums of a group times hi, or of its halves where these
 * have scales, fit 16 bits: 32 * 127 * 8 < 2^15. Minima make up for it. */
static inline int pl_rounded_centre(pl_panel_type t)
{
    return pl_has_minimum(t.kind) && t.bits > 4 ? 16 : t.offset;
}

/* Where bytes of pl_wide_codes stand. Centred codes are laid out as in pl_span_codes, group after group; behind those of a
 * whole span is, for each group or half, what makes up for the 128 in the activations. */
static inline size_t pl_rounded_chunk(int group, int chunk)
{
    return (size_t)(group * PL_QUADS + chunk) * PL_CHUNK_BYTES;
}

static inline size_t pl_rounded_start(int part)
{
    return pl_rounded_chunk(PL_SPAN_GROUPS, part);
}

/* Half a panel's rows, at byte `at` of each chunk. in_16_bits: sums of two products stay apart. */
static inline void pl_centre_half(const pl_span_codes *from, int centre, int parts, int chunks, int at, bool in_16_bits,
                                  pl_wide_codes *out)
{
    const uint8_t *code = (const uint8_t *)from->code;
    uint8_t *centred = (uint8_t *)out->code;
    const __m256i one = _mm256_set1_epi8(1), minus = _mm256_set1_epi16(-128), off = _mm256_set1_epi8((char)centre);
    for (int part = 0; part < parts; part++) {
        __m256i sum = _mm256_setzero_si256();
        for (int c = part * chunks; c < (part + 1) * chunks; c++) {
            __m256i v = _mm256_load_si256((const __m256i *)(const void *)(code + c * PL_CHUNK_BYTES + at));
            v = _mm256_sub_epi8(v, off);
            sum = _mm256_add_epi16(sum, _mm256_maddubs_epi16(one, v));
            _mm256_store_si256((__m256i *)(void *)(centred + pl_rounded_chunk(0, c) + at), v);
        }
        sum = in_16_bits ? _mm256_mullo_epi16(sum, minus) : _mm256_madd_epi16(sum, minus);
        _mm256_store_si256((__m256i *)(void *)(centred + pl_rounded_start(part) + at), sum);
    }
}

static inline void pl_centre_codes(pl_panel_type t, const pl_span_codes *from, int groups, bool in_16_bits,
                                   pl_wide_codes *out)
{
    const int halves = 1 + pl_has_halves(t.kind), parts = groups * halves, centre = pl_rounded_centre(t);
    for (int at = 0; at < PL_CHUNK_BYTES; at += PL_CHUNK_BYTES / 2)
        pl_centre_half(from, centre, parts, PL_QUADS / halves, at, in_16_bits, out);
    memcpy(out->d, from->d, (size_t)parts * sizeof from->d[0]);
    for (int i = 0; i < parts && pl_has_minimum(t.kind); i++)
        for (int n = 0; n < PL_PANEL_ROWS; n++)
            out->m[i][n] = from->m[i][n] + (float)(centre - t.offset) * from->d[i][n];
}

static inline void pl_round_sums(__m256i hi, float scale, int r, pl_rounded_group *out)
{
    __m256i sums = _mm256_madd_epi16(_mm256_maddubs_epi16(_mm256_set1_epi8(1), hi), _mm256_set1_epi16(1));
    sums = _mm256_add_epi32(sums, _mm256_shuffle_epi32(sums, 0x4e));
    sums = _mm256_add_epi32(sums, _mm256_shuffle_epi32(sums, 0xb1)); /* each half of the group in one of the register */
    const int32_t first = _mm256_extract_epi32(sums, 0), second = _mm256_extract_epi32(sums, 4);
    out->shift[0][r] = scale * (float)first;
    out->shift[1][r] = scale * (float)second;
    out->shift[PL_WHOLE_GROUP][r] = scale * (float)(first + second);
    out->scale[r] = scale;
}

/* Fills a tile; rows that x does not have are like its first. */
static inline void pl_round_tile(const pl_act *x, int64_t span, int64_t tile)
{
    size_t bytes;
    pl_rounded_group *out = (pl_rounded_group *)(void *)pl_wide_tile(x, span, tile, &bytes);
    int rows;
    int64_t ld, at = pl_wide_source(x, span, tile, &rows, &ld);
    for (int r = 0; r < PL_ACT_WIDE_ROWS; r++) {
        for (int64_t g = 0; g < ld; g++) {
            const int64_t i = at + (r < rows ? r : 0) * ld + g;
            int32_t quad[PL_QUADS];
            __m256i hi = _mm256_loadu_si256((const __m256i *)(const void *)(x->hi_lo + i * 2 * PL_GROUP));
            _mm256_storeu_si256((__m256i *)(void *)quad, _mm256_xor_si256(hi, _mm256_set1_epi8(-128)));
            for (int c = 0; c < PL_QUADS; c++)
                out[g].quad[c][r] = quad[c];
            pl_round_sums(hi, 128 * x->scale[i], r, out + g);
        }
    }
}

#endif
