/* Products of many rows with activations rounded to 8 bits: of 128 * hi + lo only 128 * hi, which is the nearest. What the
 * kernels for x86 share. */
#ifndef PL_CPU_MATMUL_ROUNDED_H
#define PL_CPU_MATMUL_ROUNDED_H

#include "host/cpu/matmul_many.h"

#include <immintrin.h>
#include <string.h>

#define PL_QUADS (PL_GROUP / 4)
#define PL_WHOLE_GROUP 2 /* in place of the number of a half */

/* A group of a tile in pl_act.wide: for each chunk of columns hi of every row, and by row, for each half and the whole group,
 * the sums of hi over the columns 0 and 1 mod 4, in the lower 16 bits, and 2 and 3 mod 4; shift: scale times both. */
typedef struct pl_rounded_group {
    int32_t quad[PL_QUADS][PL_ACT_WIDE_ROWS];
    int32_t sums[3][PL_ACT_WIDE_ROWS];
    float shift[3][PL_ACT_WIDE_ROWS];
    float scale[PL_ACT_WIDE_ROWS]; /* of hi */
} pl_rounded_group;

_Static_assert(sizeof(pl_rounded_group) <= PL_ACT_WIDE_ROWS * PL_ACT_WIDE, "a block's share of a tile");

/* What is taken off the codes of a type before they are multiplied, so that with less than 7 bits the sums of a group, or of
 * its halves where these have scales, fit 16 bits: 32 * 127 * 8 < 2^15. Minima make up for it. */
static inline int pl_rounded_centre(pl_panel_type t)
{
    return pl_has_minimum(t.kind) && t.bits > 4 ? 16 : t.offset;
}

/* Codes stand as in pl_span_codes, group after group. */
static inline void pl_centre_codes(pl_panel_type t, const pl_span_codes *from, int groups, pl_wide_codes *out)
{
    const int parts = groups << pl_has_halves(t.kind);
    const float centre = (float)(pl_rounded_centre(t) - t.offset);
    memcpy(out->code[0], from->code[0], (size_t)groups * sizeof from->code[0]);
    memcpy(out->d, from->d, (size_t)parts * sizeof from->d[0]);
    for (int i = 0; i < parts && pl_has_minimum(t.kind); i++)
        for (int n = 0; n < PL_PANEL_ROWS; n++)
            out->m[i][n] = from->m[i][n] + centre * from->d[i][n];
}

static inline const uint8_t *pl_rounded_chunk(const pl_wide_codes *w, int group, int chunk)
{
    return w->code[0] + (group * PL_QUADS + chunk) * PL_CHUNK_BYTES;
}

static inline void pl_round_sums(__m256i hi, float scale, int r, pl_rounded_group *out)
{
    __m256i pairs = _mm256_maddubs_epi16(_mm256_set1_epi8(1),
                                         hi); /* each half of the group in a half of the register */
    pairs = _mm256_add_epi16(pairs, _mm256_shuffle_epi32(pairs, 0x4e));
    pairs = _mm256_add_epi16(pairs, _mm256_shuffle_epi32(pairs, 0xb1));
    __m128i first = _mm256_castsi256_si128(pairs), second = _mm256_extracti128_si256(pairs, 1);
    const __m128i sums[3] = {first, second, _mm_add_epi16(first, second)};
    for (int i = 0; i < 3; i++) {
        out->sums[i][r] = _mm_cvtsi128_si32(sums[i]);
        out->shift[i][r] = scale * (float)_mm_cvtsi128_si32(_mm_madd_epi16(sums[i], _mm_set1_epi16(1)));
    }
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
            _mm256_storeu_si256((__m256i *)(void *)quad, hi);
            for (int c = 0; c < PL_QUADS; c++)
                out[g].quad[c][r] = quad[c];
            pl_round_sums(hi, 128 * x->scale[i], r, out + g);
        }
    }
}

#endif
