/* Products of many rows with activations of 8 bits on 256-bit registers. Compiled for AVX2 and again for AVX-VNNI.
 *
 * Half the instructions of matmul_many_256.c, which it is like otherwise: one in place of two, and its addition, for four
 * columns. Without vpdpbusd all sums of a part stay in 16 bits (see pl_rounded_centre()), which codes of 8 bits do not allow. */
#include "host/base/isa.h"
#include "host/cpu/in_order.h"
#include "host/cpu/matmul_many_256.h"
#include "host/cpu/matmul_rounded.h"
#include "host/cpu/prefetch.h"

#define HALF_ROWS 8 /* of a panel */
#define PANELS 4

#if defined(__AVXVNNI__)

#define IN_16_BITS false

INLINE __m256i add_product(__m256i sum, __m256i x, __m256i code)
{
    return _mm256_dpbusd_avx_epi32(sum, x, code);
}

INLINE __m256i start_product(__m256i sum, __m256i x, __m256i code)
{
    return add_product(sum, x, code);
}

INLINE __m256i finish(__m256i sum)
{
    return sum;
}

#else

#define IN_16_BITS true

/* The sum that was there stays an operand in memory. */
INLINE __m256i start_product(__m256i sum, __m256i x, __m256i code)
{
    return _mm256_add_epi16(_mm256_maddubs_epi16(x, code), sum);
}

INLINE __m256i add_product(__m256i sum, __m256i x, __m256i code)
{
    return pl_add_epi16(sum, _mm256_maddubs_epi16(x, code));
}

INLINE __m256i finish(__m256i sum)
{
    return _mm256_madd_epi16(sum, _mm256_set1_epi16(1));
}

#endif

void PL_ISA_NAME(pl_unpack_rounded)(pl_dtype type, const uint8_t *span, int groups, pl_wide_codes *out)
{
    pl_span_codes codes;
    PL_ISA_NAME(pl_unpack)(type, span, groups, &codes);
    pl_centre_codes(pl_panel_describe(type), &codes, groups, IN_16_BITS, out);
}

void PL_ISA_NAME(pl_round_rows)(const pl_act *x, int64_t span, int64_t tile)
{
    pl_round_tile(x, span, tile);
}

/* ---- products ---- */

INLINE __m256i load(const pl_wide_codes *w, size_t at)
{
    return _mm256_load_si256((const __m256i *)(const void *)((const uint8_t *)w->code + at));
}

/* Adds half h of group g, or all of it, to the sums of row r and n_panels panels. */
INLINE void add_part(pl_panel_kind kind, int n_panels, const pl_wide_codes *w, int g, int h, const pl_rounded_group *x,
                     int r, float *acc, int64_t acc_ld)
{
    const int whole = h == PL_WHOLE_GROUP, at = whole ? g : 2 * g + h;
    const int begin = whole ? 0 : h * PL_QUADS / 2, end = whole ? PL_QUADS : begin + PL_QUADS / 2;
    __m256i sum[PANELS][2];
#pragma GCC unroll 8
    for (int c = begin; c < end; c++) {
        __m256i quad = _mm256_set1_epi32(x->quad[c][r]);
#pragma GCC unroll 8
        for (int i = 0; i < 2 * n_panels; i++) {
            const size_t half = (size_t)(i % 2) * PL_CHUNK_BYTES / 2;
            __m256i code = load(w + i / 2, pl_rounded_chunk(g, c) + half), *to = &sum[i / 2][i % 2];
            *to = c == begin ? start_product(load(w + i / 2, pl_rounded_start(at) + half), quad, code)
                             : add_product(*to, quad, code);
        }
    }
    __m256 x_scale = _mm256_set1_ps(x->scale[r]), shift = _mm256_set1_ps(x->shift[h][r]);
#pragma GCC unroll 4
    for (int p = 0; p < n_panels; p++) {
        float *to = acc + p * acc_ld * PL_PANEL_ROWS;
#pragma GCC unroll 2
        for (int half = 0; half < 2; half++)
            add_sums(kind, finish(sum[p][half]), w + p, at, half * HALF_ROWS, x_scale, shift, to);
    }
}

INLINE void multiply_panels(pl_panel_kind kind, int n_panels, const pl_wide_codes *w, int groups,
                            const pl_rounded_group *tile, int rows, float *acc, int64_t acc_ld)
{
    for (int g = 0; g < groups; g++, tile++) {
        for (int r = 0; r < rows; r++) {
            float *to = acc + r * PL_PANEL_ROWS;
            if (pl_has_halves(kind)) {
                add_part(kind, n_panels, w, g, 0, tile, r, to, acc_ld);
                add_part(kind, n_panels, w, g, 1, tile, r, to, acc_ld);
            } else {
                add_part(kind, n_panels, w, g, PL_WHOLE_GROUP, tile, r, to, acc_ld);
            }
        }
    }
}

/* A tile is multiplied by all panels, each of which brings a share of the next tile, the one behind it. */
INLINE void multiply(pl_panel_kind kind, const pl_wide_codes *w, int n_panels, int groups, const pl_wide_rows *rows,
                     float *acc, int64_t acc_ld)
{
    const size_t share = ((size_t)groups * sizeof(pl_rounded_group) / (size_t)n_panels + 63) & ~(size_t)63;
    const uint8_t *tile = rows->tile;
    for (int r = 0; r < rows->end; r += PL_ACT_WIDE_ROWS, tile += rows->tile_bytes) {
        const pl_rounded_group *x = (const pl_rounded_group *)(const void *)tile;
        const int n = rows->end - r < PL_ACT_WIDE_ROWS ? rows->end - r : PL_ACT_WIDE_ROWS;
        for (int p = 0, some; p < n_panels; p += some) {
            float *to = acc + (p * acc_ld + r) * PL_PANEL_ROWS;
            some = p + PANELS <= n_panels ? PANELS : 1;
            pl_prefetch(tile + rows->tile_bytes + (size_t)p * share, (size_t)some * share);
            if (some == PANELS)
                multiply_panels(kind, PANELS, w + p, groups, x, n, to, acc_ld);
            else
                multiply_panels(kind, 1, w + p, groups, x, n, to, acc_ld);
        }
    }
}

void PL_ISA_NAME(pl_rounded)(pl_dtype type, const pl_wide_codes *w, int n_panels, int groups, const pl_wide_rows *rows,
                             float *acc, int64_t acc_ld)
{
    switch (pl_panel_describe(type).kind) {
    case PL_PANEL_OFFSET: multiply(PL_PANEL_OFFSET, w, n_panels, groups, rows, acc, acc_ld); break;
    case PL_PANEL_HALVES: multiply(PL_PANEL_HALVES, w, n_panels, groups, rows, acc, acc_ld); break;
    case PL_PANEL_MIN: multiply(PL_PANEL_MIN, w, n_panels, groups, rows, acc, acc_ld); break;
    case PL_PANEL_MIN_HALVES: multiply(PL_PANEL_MIN_HALVES, w, n_panels, groups, rows, acc, acc_ld); break;
    }
}
