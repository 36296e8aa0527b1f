/* Products of many rows on AVX-512 with VNNI: activations and codes as 16 bits.
 *
 * vpdpwssd multiplies 128 * hi + lo by a pair of codes at once: as many instructions as two planes of bytes take, but
 * one sum in place of two that must be joined, and no offset to take off. A group of 32 columns, 16 outputs and one row
 * is 16 of them and three to add its sum up, all of which start at most twice a cycle. Eight rows and two panels are 16
 * chains of latency 5. The f32 sums wait in memory; larger tiles, which that allows, were not faster. */
#include "host/cpu/matmul_many.h"

#include <immintrin.h>
#include <string.h>

#define INLINE static inline __attribute__((always_inline))
#define ROWS 8
#define PANELS 2

/* ---- rows ---- */

/* 128 * hi + lo of a block. */
INLINE __m512i wide_block(const int8_t *hi_lo)
{
    __m512i hi = _mm512_cvtepi8_epi16(_mm256_loadu_si256((const __m256i *)(const void *)hi_lo));
    __m512i lo = _mm512_cvtepi8_epi16(_mm256_loadu_si256((const __m256i *)(const void *)(hi_lo + PL_GROUP)));
    return _mm512_add_epi16(_mm512_slli_epi16(hi, 7), lo);
}

/* Lane j of v[i] to lane i of v[j]. */
INLINE void transpose(__m512i v[16])
{
    __m512i t[16];
    for (int i = 0; i < 16; i += 2) {
        t[i] = _mm512_unpacklo_epi32(v[i], v[i + 1]);
        t[i + 1] = _mm512_unpackhi_epi32(v[i], v[i + 1]);
    }
    for (int i = 0; i < 16; i += 4) {
        v[i] = _mm512_unpacklo_epi64(t[i], t[i + 2]);
        v[i + 1] = _mm512_unpackhi_epi64(t[i], t[i + 2]);
        v[i + 2] = _mm512_unpacklo_epi64(t[i + 1], t[i + 3]);
        v[i + 3] = _mm512_unpackhi_epi64(t[i + 1], t[i + 3]);
    }
    for (int i = 0; i < 4; i++) {
        t[i] = _mm512_shuffle_i32x4(v[i], v[i + 4], 0x88);
        t[i + 4] = _mm512_shuffle_i32x4(v[i], v[i + 4], 0xdd);
        t[i + 8] = _mm512_shuffle_i32x4(v[i + 8], v[i + 12], 0x88);
        t[i + 12] = _mm512_shuffle_i32x4(v[i + 8], v[i + 12], 0xdd);
    }
    for (int i = 0; i < 8; i++) {
        v[i] = _mm512_shuffle_i32x4(t[i], t[i + 8], 0x88);
        v[i + 8] = _mm512_shuffle_i32x4(t[i], t[i + 8], 0xdd);
    }
}

/* Rows that x does not have are like the tile's first. */
void pl_widen_avx512(const pl_act *x, int64_t span, int64_t tile)
{
    size_t bytes;
    pl_wide_group *out = (pl_wide_group *)(void *)pl_wide_tile(x, span, tile, &bytes);
    int rows;
    int64_t ld, at = pl_wide_source(x, span, tile, &rows, &ld);
    for (int64_t g = 0; g < ld; g++, out++) {
        __m512i v[16];
#pragma GCC unroll 16
        for (int r = 0; r < PL_ACT_WIDE_ROWS; r++) {
            int64_t i = at + (r < rows ? r : 0) * ld + g;
            v[r] = wide_block(x->hi_lo + i * 2 * PL_GROUP);
            pl_wide_scales(x->scale[i], x->sum + 2 * i, r, out);
        }
        transpose(v);
        for (int i = 0; i < PL_PAIRS; i++)
            _mm512_store_si512(out->pair[i], v[i]);
    }
}

/* ---- products ---- */

/* Adds half h of group g, or all of it, to the sums of ROWS rows, x's first ones, and n_panels panels. */
INLINE void add_part(pl_panel_kind kind, int n_panels, const pl_wide_codes *w, int g, int h, const pl_wide_group *x,
                     float *acc, int64_t acc_ld)
{
    int pairs = PL_PAIRS >> pl_has_halves(kind), at = pl_has_halves(kind) ? 2 * g + h : g;
    const float *shift = pl_has_halves(kind) ? x->half_shift[h] : x->shift;
    __m512i sum[PANELS][ROWS];
    for (int p = 0; p < n_panels; p++)
        for (int r = 0; r < ROWS; r++)
            sum[p][r] = _mm512_setzero_si512();
#pragma GCC unroll 16
    for (int i = h * pairs; i < (h + 1) * pairs; i++) {
        __m512i code[PANELS];
        for (int p = 0; p < n_panels; p++)
            code[p] = _mm512_load_si512(w[p].code[g] + i * PL_CHUNK_BYTES);
#pragma GCC unroll 8
        for (int r = 0; r < ROWS; r++) {
            __m512i pair = _mm512_set1_epi32(x->pair[i][r]);
            for (int p = 0; p < n_panels; p++)
                sum[p][r] = _mm512_dpwssd_epi32(sum[p][r], pair, code[p]);
        }
    }
    for (int p = 0; p < n_panels; p++) {
        __m512 d = _mm512_load_ps(w[p].d[at]);
#pragma GCC unroll 8
        for (int r = 0; r < ROWS; r++) {
            float *to = acc + (p * acc_ld + r) * PL_PANEL_ROWS;
            __m512 scale = _mm512_mul_ps(d, _mm512_set1_ps(x->scale[r]));
            __m512 v = _mm512_fmadd_ps(_mm512_cvtepi32_ps(sum[p][r]), scale, _mm512_loadu_ps(to));
            if (pl_has_minimum(kind))
                v = _mm512_fmadd_ps(_mm512_load_ps(w[p].m[at]), _mm512_set1_ps(shift[r]), v);
            _mm512_storeu_ps(to, v);
        }
    }
}

/* What should be in the cache soon. */
typedef struct soon {
    const uint8_t *next; /* a share of the next tile */
    size_t next_bytes;
    size_t ahead; /* bytes behind each packed span */
} soon;

/* Group g's share of the bytes at p. */
INLINE void prefetch_share(const uint8_t *p, size_t bytes, int g)
{
    for (size_t i = (size_t)g * 64; i < bytes; i += PL_SPAN_GROUPS * 64)
        _mm_prefetch((const char *)p + i, _MM_HINT_T1);
}

INLINE void multiply_rows(pl_panel_kind kind, int n_panels, const pl_wide_codes *w, int groups, const pl_wide_group *x,
                          soon s, float *acc, int64_t acc_ld)
{
    for (int g = 0; g < groups; g++, x++) {
        prefetch_share(s.next, s.next_bytes, g);
        for (int p = 0; p < n_panels; p++)
            prefetch_share(w[p].after, s.ahead, g);
        add_part(kind, n_panels, w, g, 0, x, acc, acc_ld);
        if (pl_has_halves(kind))
            add_part(kind, n_panels, w, g, 1, x, acc, acc_ld);
    }
}

/* Of ROWS rows only [begin, end): the others' sums are not touched. */
INLINE void multiply_some(pl_panel_kind kind, int n_panels, const pl_wide_codes *w, int groups, const pl_wide_group *x,
                          int begin, int end, soon s, float *acc, int64_t acc_ld)
{
    float some[PANELS][ROWS][PL_PANEL_ROWS] __attribute__((aligned(64))) = {{{0}}};
    size_t bytes = (size_t)(end - begin) * sizeof some[0][0];
    for (int p = 0; p < n_panels; p++)
        memcpy(some[p][begin], acc + (p * acc_ld + begin) * PL_PANEL_ROWS, bytes);
    multiply_rows(kind, n_panels, w, groups, x, s, some[0][0], ROWS);
    for (int p = 0; p < n_panels; p++)
        memcpy(acc + (p * acc_ld + begin) * PL_PANEL_ROWS, some[p][begin], bytes);
}

/* Rows [begin, end) of a tile. */
INLINE void multiply_panels(pl_panel_kind kind, int n_panels, const pl_wide_codes *w, int groups,
                            const pl_wide_group *tile, int begin, int end, soon s, float *acc, int64_t acc_ld)
{
    for (int row = 0; row < PL_ACT_WIDE_ROWS; row += ROWS) {
        int first = begin > row ? begin - row : 0, last = end - row < ROWS ? end - row : ROWS;
        const pl_wide_group *x = pl_wide_from(tile, row);
        float *to = acc + row * PL_PANEL_ROWS;
        if (first >= last)
            continue;
        if (last - first == ROWS)
            multiply_rows(kind, n_panels, w, groups, x, s, to, acc_ld);
        else
            multiply_some(kind, n_panels, w, groups, x, first, last, s, to, acc_ld);
        s = (soon){s.next, 0, 0};
    }
}

/* A tile is multiplied by all panels, each pair of which brings a share of the next tile, the one behind it: from the
 * third-level cache they come too late else. */
INLINE void multiply(pl_panel_kind kind, const pl_wide_codes *w, int n_panels, int groups, const pl_wide_rows *rows,
                     float *acc, int64_t acc_ld)
{
    const size_t steps = (size_t)(n_panels + PANELS - 1) / PANELS;
    const size_t share = ((size_t)groups * sizeof(pl_wide_group) / steps + 63) & ~(size_t)63;
    const uint8_t *tile = rows->tile;
    for (int r = 0; r < rows->end; r += PL_ACT_WIDE_ROWS, tile += rows->tile_bytes) {
        const pl_wide_group *x = (const pl_wide_group *)(const void *)tile;
        soon s = {tile + rows->tile_bytes, share, r == 0 ? rows->rows.ahead : 0};
        for (int i = 0; i < n_panels; i += PANELS, s.next += share) {
            float *to = acc + (i * acc_ld + r) * PL_PANEL_ROWS;
            if (i + PANELS <= n_panels)
                multiply_panels(kind, PANELS, w + i, groups, x, rows->begin - r, rows->end - r, s, to, acc_ld);
            else
                multiply_panels(kind, 1, w + i, groups, x, rows->begin - r, rows->end - r, s, to, acc_ld);
        }
    }
}

void pl_many_avx512(pl_dtype type, const pl_wide_codes *w, int n_panels, int groups, const pl_wide_rows *rows,
                    float *acc, int64_t acc_ld)
{
    switch (pl_panel_describe(type).kind) {
    case PL_PANEL_OFFSET: multiply(PL_PANEL_OFFSET, w, n_panels, groups, rows, acc, acc_ld); break;
    case PL_PANEL_HALVES: multiply(PL_PANEL_HALVES, w, n_panels, groups, rows, acc, acc_ld); break;
    case PL_PANEL_MIN: multiply(PL_PANEL_MIN, w, n_panels, groups, rows, acc, acc_ld); break;
    case PL_PANEL_MIN_HALVES: multiply(PL_PANEL_MIN_HALVES, w, n_panels, groups, rows, acc, acc_ld); break;
    }
}
