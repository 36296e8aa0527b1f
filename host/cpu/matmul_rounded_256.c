/* Products of many rows with activations of 8 bits on 256-bit registers. Compiled for AVX2 and again for AVX-VNNI.
 *
 * Half the instructions of matmul_many_256.c: one in place of two, and its addition, for four columns. Without vpdpbusd all
 * sums of a part stay in 16 bits (see pl_rounded_centre()), which codes of 8 bits do not allow. */
#include "host/base/isa.h"
#include "host/cpu/in_order.h"
#include "host/cpu/matmul_rounded.h"

#define INLINE static inline __attribute__((always_inline))
#define HALF_ROWS 8 /* of a panel */
#define ROWS 4

void PL_ISA_NAME(pl_unpack_rounded)(pl_dtype type, const uint8_t *span, int groups, pl_wide_codes *out)
{
    pl_span_codes codes;
    PL_ISA_NAME(pl_unpack)(type, span, groups, &codes);
    pl_centre_codes(pl_panel_describe(type), &codes, groups, out);
}

void PL_ISA_NAME(pl_round_rows)(const pl_act *x, int64_t span, int64_t tile)
{
    pl_round_tile(x, span, tile);
}

/* ---- products ---- */

#if defined(__AVXVNNI__)

/* -centre times the sums, in 32 bits. */
INLINE __m256i start(int32_t sums, int centre)
{
    return _mm256_madd_epi16(_mm256_set1_epi32(sums), _mm256_set1_epi16((short)-centre));
}

INLINE __m256i add_product(__m256i sum, __m256i code, __m256i x)
{
    return _mm256_dpbusd_avx_epi32(sum, code, x);
}

INLINE __m256i finish(__m256i sum)
{
    return sum;
}

#else

/* The same in 16 bits, two sums side by side. */
INLINE __m256i start(int32_t sums, int centre)
{
    return _mm256_mullo_epi16(_mm256_set1_epi32(sums), _mm256_set1_epi16((short)-centre));
}

INLINE __m256i add_product(__m256i sum, __m256i code, __m256i x)
{
    return pl_in_order(_mm256_add_epi16(sum, _mm256_maddubs_epi16(code, x)));
}

INLINE __m256i finish(__m256i sum)
{
    return _mm256_madd_epi16(sum, _mm256_set1_epi16(1));
}

#endif

/* Adds half h of group g, or all of it, to the sums of ROWS rows, x's from row `row` on. */
INLINE void add_part(pl_panel_kind kind, int centre, const pl_wide_codes *w, int g, int h, const pl_rounded_group *x,
                     int row, float *acc)
{
    const int whole = h == PL_WHOLE_GROUP, at = whole ? g : 2 * g + h;
    const int begin = whole ? 0 : h * PL_QUADS / 2, end = whole ? PL_QUADS : begin + PL_QUADS / 2;
    __m256i sum[ROWS][2];
#pragma GCC unroll 4
    for (int r = 0; r < ROWS; r++)
        sum[r][0] = sum[r][1] = start(x->sums[h][row + r], centre);
#pragma GCC unroll 8
    for (int c = begin; c < end; c++) {
        const __m256i *code = (const __m256i *)(const void *)pl_rounded_chunk(w, g, c);
        __m256i a = _mm256_load_si256(code), b = _mm256_load_si256(code + 1);
#pragma GCC unroll 4
        for (int r = 0; r < ROWS; r++) {
            __m256i quad = _mm256_set1_epi32(x->quad[c][row + r]);
            sum[r][0] = add_product(sum[r][0], a, quad);
            sum[r][1] = add_product(sum[r][1], b, quad);
        }
    }
#pragma GCC unroll 4
    for (int r = 0; r < ROWS; r++) {
        __m256 x_scale = _mm256_set1_ps(x->scale[row + r]), shift = _mm256_set1_ps(x->shift[h][row + r]);
#pragma GCC unroll 2
        for (int half = 0; half < 2; half++) {
            const int n = half * HALF_ROWS;
            float *to = acc + r * PL_PANEL_ROWS + n;
            __m256 scale = _mm256_mul_ps(_mm256_load_ps(w->d[at] + n), x_scale);
            __m256 v = _mm256_fmadd_ps(_mm256_cvtepi32_ps(finish(sum[r][half])), scale, _mm256_loadu_ps(to));
            if (pl_has_minimum(kind))
                v = _mm256_fmadd_ps(_mm256_load_ps(w->m[at] + n), shift, v);
            _mm256_storeu_ps(to, v);
        }
    }
}

INLINE void multiply_panel(pl_panel_kind kind, int centre, const pl_wide_codes *w, int groups,
                           const pl_rounded_group *tile, float *acc)
{
    for (int row = 0; row < PL_ACT_WIDE_ROWS; row += ROWS, acc += ROWS * PL_PANEL_ROWS) {
        for (int g = 0; g < groups; g++) {
            if (pl_has_halves(kind)) {
                add_part(kind, centre, w, g, 0, tile + g, row, acc);
                add_part(kind, centre, w, g, 1, tile + g, row, acc);
            } else {
                add_part(kind, centre, w, g, PL_WHOLE_GROUP, tile + g, row, acc);
            }
        }
    }
}

INLINE void prefetch(const uint8_t *p, size_t bytes)
{
    for (size_t i = 0; i < bytes; i += 64)
        _mm_prefetch((const char *)p + i, _MM_HINT_T1);
}

/* A tile is multiplied by all panels, each of which brings a share of the next tile, the one behind it. */
INLINE void multiply(pl_panel_kind kind, int centre, const pl_wide_codes *w, int n_panels, int groups,
                     const pl_wide_rows *rows, float *acc, int64_t acc_ld)
{
    const size_t share = ((size_t)groups * sizeof(pl_rounded_group) / (size_t)n_panels + 63) & ~(size_t)63;
    const uint8_t *tile = rows->tile;
    for (int r = 0; r < rows->end; r += PL_ACT_WIDE_ROWS, tile += rows->tile_bytes) {
        const pl_rounded_group *x = (const pl_rounded_group *)(const void *)tile;
        for (int p = 0; p < n_panels; p++) {
            prefetch(tile + rows->tile_bytes + (size_t)p * share, share);
            multiply_panel(kind, centre, w + p, groups, x, acc + (p * acc_ld + r) * PL_PANEL_ROWS);
        }
    }
}

void PL_ISA_NAME(pl_rounded)(pl_dtype type, const pl_wide_codes *w, int n_panels, int groups, const pl_wide_rows *rows,
                             float *acc, int64_t acc_ld)
{
    const pl_panel_type t = pl_panel_describe(type);
    const int centre = pl_rounded_centre(t);
    switch (t.kind) {
    case PL_PANEL_OFFSET: multiply(PL_PANEL_OFFSET, centre, w, n_panels, groups, rows, acc, acc_ld); break;
    case PL_PANEL_HALVES: multiply(PL_PANEL_HALVES, centre, w, n_panels, groups, rows, acc, acc_ld); break;
    case PL_PANEL_MIN: multiply(PL_PANEL_MIN, centre, w, n_panels, groups, rows, acc, acc_ld); break;
    case PL_PANEL_MIN_HALVES: multiply(PL_PANEL_MIN_HALVES, centre, w, n_panels, groups, rows, acc, acc_ld); break;
    }
}
