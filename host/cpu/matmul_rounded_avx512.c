/* Products of many rows with activations of 8 bits on AVX-512 with VNNI: one vpdpbusd for four columns, half of what
 * matmul_many_avx512.c takes. Eight rows and two panels are 16 sums. */
#include "host/cpu/matmul_rounded.h"
#include "host/cpu/prefetch.h"

#define INLINE static inline __attribute__((always_inline))
#define ROWS 8
#define PANELS 2

void pl_unpack_rounded_avx512(pl_dtype type, const uint8_t *span, int groups, pl_wide_codes *out)
{
    pl_span_codes codes;
    pl_unpack_avx512(type, span, groups, &codes);
    pl_centre_codes(pl_panel_describe(type), &codes, groups, false, out);
}

void pl_round_rows_avx512(const pl_act *x, int64_t span, int64_t tile)
{
    pl_round_tile(x, span, tile);
}

/* ---- products ---- */

/* Adds half h of group g, or all of it, to the sums of ROWS rows, x's from row `row` on, and n_panels panels. */
INLINE void add_part(pl_panel_kind kind, int n_panels, const pl_wide_codes *w, int g, int h, const pl_rounded_group *x,
                     int row, float *acc, int64_t acc_ld)
{
    const int whole = h == PL_WHOLE_GROUP, at = whole ? g : 2 * g + h;
    const int begin = whole ? 0 : h * PL_QUADS / 2, end = whole ? PL_QUADS : begin + PL_QUADS / 2;
    __m512i sum[PANELS][ROWS];
#pragma GCC unroll 8
    for (int r = 0; r < ROWS; r++)
        for (int p = 0; p < n_panels; p++)
            sum[p][r] = _mm512_load_si512((const uint8_t *)w[p].code + pl_rounded_start(at));
#pragma GCC unroll 8
    for (int c = begin; c < end; c++) {
        __m512i code[PANELS];
        for (int p = 0; p < n_panels; p++)
            code[p] = _mm512_load_si512((const uint8_t *)w[p].code + pl_rounded_chunk(g, c));
#pragma GCC unroll 8
        for (int r = 0; r < ROWS; r++) {
            __m512i quad = _mm512_set1_epi32(x->quad[c][row + r]);
            for (int p = 0; p < n_panels; p++)
                sum[p][r] = _mm512_dpbusd_epi32(sum[p][r], quad, code[p]);
        }
    }
    for (int p = 0; p < n_panels; p++) {
        __m512 d = _mm512_load_ps(w[p].d[at]);
#pragma GCC unroll 8
        for (int r = 0; r < ROWS; r++) {
            float *to = acc + (p * acc_ld + r) * PL_PANEL_ROWS;
            __m512 scale = _mm512_mul_ps(d, _mm512_set1_ps(x->scale[row + r]));
            __m512 v = _mm512_fmadd_ps(_mm512_cvtepi32_ps(sum[p][r]), scale, _mm512_loadu_ps(to));
            if (pl_has_minimum(kind))
                v = _mm512_fmadd_ps(_mm512_load_ps(w[p].m[at]), _mm512_set1_ps(x->shift[h][row + r]), v);
            _mm512_storeu_ps(to, v);
        }
    }
}

INLINE void multiply_panels(pl_panel_kind kind, int n_panels, const pl_wide_codes *w, int groups,
                            const pl_rounded_group *tile, float *acc, int64_t acc_ld)
{
    for (int row = 0; row < PL_ACT_WIDE_ROWS; row += ROWS, acc += ROWS * PL_PANEL_ROWS) {
        for (int g = 0; g < groups; g++) {
            if (pl_has_halves(kind)) {
                add_part(kind, n_panels, w, g, 0, tile + g, row, acc, acc_ld);
                add_part(kind, n_panels, w, g, 1, tile + g, row, acc, acc_ld);
            } else {
                add_part(kind, n_panels, w, g, PL_WHOLE_GROUP, tile + g, row, acc, acc_ld);
            }
        }
    }
}

/* A tile is multiplied by all panels, each pair of which brings a share of the next tile, the one behind it. */
INLINE void multiply(pl_panel_kind kind, const pl_wide_codes *w, int n_panels, int groups, const pl_wide_rows *rows,
                     float *acc, int64_t acc_ld)
{
    const size_t steps = (size_t)(n_panels + PANELS - 1) / PANELS;
    const size_t share = ((size_t)groups * sizeof(pl_rounded_group) / steps + 63) & ~(size_t)63;
    const uint8_t *tile = rows->tile;
    for (int r = 0; r < rows->end; r += PL_ACT_WIDE_ROWS, tile += rows->tile_bytes) {
        const pl_rounded_group *x = (const pl_rounded_group *)(const void *)tile;
        const uint8_t *next = tile + rows->tile_bytes;
        for (int i = 0; i < n_panels; i += PANELS, next += share) {
            float *to = acc + (i * acc_ld + r) * PL_PANEL_ROWS;
            pl_prefetch(next, share);
            if (i + PANELS <= n_panels)
                multiply_panels(kind, PANELS, w + i, groups, x, to, acc_ld);
            else
                multiply_panels(kind, 1, w + i, groups, x, to, acc_ld);
        }
    }
}

void pl_rounded_avx512(pl_dtype type, const pl_wide_codes *w, int n_panels, int groups, const pl_wide_rows *rows,
                       float *acc, int64_t acc_ld)
{
    switch (pl_panel_describe(type).kind) {
    case PL_PANEL_OFFSET: multiply(PL_PANEL_OFFSET, w, n_panels, groups, rows, acc, acc_ld); break;
    case PL_PANEL_HALVES: multiply(PL_PANEL_HALVES, w, n_panels, groups, rows, acc, acc_ld); break;
    case PL_PANEL_MIN: multiply(PL_PANEL_MIN, w, n_panels, groups, rows, acc, acc_ld); break;
    case PL_PANEL_MIN_HALVES: multiply(PL_PANEL_MIN_HALVES, w, n_panels, groups, rows, acc, acc_ld); break;
    }
}
