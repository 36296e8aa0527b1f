/* Products of many rows on 256-bit registers: activations and codes as 16 bits. Compiled for AVX2 and again for AVX-VNNI.
 *
 * A pair of codes times 128 * hi + lo is one instruction with vpdpwssd and two without, whatever the codes' width; as
 * bytes, pairs of products overflow 16 bits sooner or later. A row and four panels are eight sums: codes are operands in
 * memory, so that beside the products only one broadcast for eight of them has to be issued. The f32 sums wait in memory. */
#include "host/cpu/matmul_many_256.h"
#include "host/base/isa.h"
#include "host/cpu/in_order.h"
#include "host/cpu/matmul_many.h"
#include "host/cpu/prefetch.h"

#include <immintrin.h>
#include <string.h>

#define HALF_ROWS 8 /* of a panel */
#define PANELS 4

/* ---- codes ---- */

void PL_ISA_NAME(pl_unpack_wide)(pl_dtype type, const uint8_t *span, int groups, pl_wide_codes *out)
{
    pl_panel_type t = pl_panel_describe(type);
    const __m256i first = _mm256_setr_epi32(0x01800080, 0x05800480, 0x09800880, 0x0d800c80, /* 80: zero */
                                            0x01800080, 0x05800480, 0x09800880, 0x0d800c80);
    const __m256i second = _mm256_add_epi8(first, _mm256_set1_epi16(0x0200));
    const __m256i offset = _mm256_set1_epi8((char)t.offset);
    pl_span_codes bytes;
    PL_ISA_NAME(pl_unpack)(type, span, groups, &bytes);
    for (int i = 0; i < 16 * groups; i++) { /* half chunks */
        const int chunk = i / 2 % 8;
        const __m256i *from = (const __m256i *)(const void *)(bytes.code[i / 16] + chunk * PL_CHUNK_BYTES) + i % 2;
        __m256i *to = (__m256i *)(void *)(out->code[i / 16] + 2 * chunk * PL_CHUNK_BYTES) + i % 2;
        __m256i v = _mm256_sub_epi8(_mm256_load_si256(from), offset);
        _mm256_store_si256(to, _mm256_srai_epi16(_mm256_shuffle_epi8(v, first), 8));
        _mm256_store_si256(to + 2, _mm256_srai_epi16(_mm256_shuffle_epi8(v, second), 8));
    }
    size_t scales = ((size_t)groups << pl_has_halves(t.kind)) * sizeof bytes.d[0];
    memcpy(out->d, bytes.d, scales);
    if (pl_has_minimum(t.kind))
        memcpy(out->m, bytes.m, scales);
}

/* ---- rows ---- */

INLINE void widen_block(const int8_t *hi_lo, int r, pl_wide_group *out)
{
    const __m256i *bytes = (const __m256i *)(const void *)hi_lo;
    int32_t pair[PL_PAIRS];
    for (int half = 0; half < 2; half++) {
        __m256i hi = _mm256_cvtepi8_epi16(_mm_loadu_si128((const __m128i *)(const void *)bytes + half));
        __m256i lo = _mm256_cvtepi8_epi16(_mm_loadu_si128((const __m128i *)(const void *)(bytes + 1) + half));
        _mm256_storeu_si256((__m256i *)(void *)pair + half, _mm256_add_epi16(_mm256_slli_epi16(hi, 7), lo));
    }
    for (int i = 0; i < PL_PAIRS; i++)
        out->pair[i][r] = pair[i];
}

void PL_ISA_NAME(pl_widen)(const pl_act *x, int64_t span, int64_t tile)
{
    size_t bytes;
    pl_wide_group *out = (pl_wide_group *)(void *)pl_wide_tile(x, span, tile, &bytes);
    int rows;
    int64_t ld, at = pl_wide_source(x, span, tile, &rows, &ld);
    for (int r = 0; r < rows; r++, at += ld) {
        for (int64_t g = 0; g < ld; g++) {
            widen_block(x->hi_lo + (at + g) * 2 * PL_GROUP, r, out + g);
            pl_wide_scales(x->scale[at + g], x->sum + 2 * (at + g), r, out + g);
        }
    }
}

/* ---- products ---- */

INLINE __m256i product(__m256i x, __m256i code)
{
    return _mm256_madd_epi16(x, code);
}

INLINE __m256i add_product(__m256i sum, __m256i x, __m256i code)
{
#if defined(__AVXVNNI__)
    return _mm256_dpwssd_avx_epi32(sum, x, code);
#else
    return pl_add_epi32(sum, product(x, code));
#endif
}

/* Adds half h of group g, or all of it, to the sums of row r and n_panels panels. */
INLINE void add_part(pl_panel_kind kind, int n_panels, const pl_wide_codes *w, int g, int h, const pl_wide_group *x,
                     int r, float *acc, int64_t acc_ld)
{
    int pairs = PL_PAIRS >> pl_has_halves(kind), at = pl_has_halves(kind) ? 2 * g + h : g;
    const float *shift = pl_has_halves(kind) ? x->half_shift[h] : x->shift;
    __m256i sum[PANELS][2];
#pragma GCC unroll 16
    for (int i = 0; i < pairs; i++) {
        __m256i pair = _mm256_set1_epi32(x->pair[h * pairs + i][r]);
#pragma GCC unroll 8
        for (int j = 0; j < 2 * n_panels; j++) {
            const __m256i *code = (const __m256i *)(const void *)w[j / 2].code[g] + 2 * (h * pairs + i) + j % 2;
            __m256i *to = &sum[j / 2][j % 2];
            *to = i == 0 ? product(pair, _mm256_load_si256(code)) : add_product(*to, pair, _mm256_load_si256(code));
        }
    }
    __m256 x_scale = _mm256_set1_ps(x->scale[r]), x_shift = _mm256_set1_ps(shift[r]);
#pragma GCC unroll 4
    for (int p = 0; p < n_panels; p++) {
        float *to = acc + p * acc_ld * PL_PANEL_ROWS;
#pragma GCC unroll 2
        for (int half = 0; half < 2; half++)
            add_sums(kind, sum[p][half], w + p, at, half * HALF_ROWS, x_scale, x_shift, to);
    }
}

/* Rows [begin, end) of a tile. */
INLINE void multiply_panels(pl_panel_kind kind, int n_panels, const pl_wide_codes *w, int groups,
                            const pl_wide_group *tile, int begin, int end, float *acc, int64_t acc_ld)
{
    begin = begin > 0 ? begin : 0;
    end = end < PL_ACT_WIDE_ROWS ? end : PL_ACT_WIDE_ROWS;
    for (int g = 0; g < groups; g++, tile++) {
        for (int r = begin; r < end; r++) {
            add_part(kind, n_panels, w, g, 0, tile, r, acc + r * PL_PANEL_ROWS, acc_ld);
            if (pl_has_halves(kind))
                add_part(kind, n_panels, w, g, 1, tile, r, acc + r * PL_PANEL_ROWS, acc_ld);
        }
    }
}

/* A tile is multiplied by all panels, each of which brings a share of the next tile, the one behind it. */
INLINE void multiply(pl_panel_kind kind, const pl_wide_codes *w, int n_panels, int groups, const pl_wide_rows *rows,
                     float *acc, int64_t acc_ld)
{
    const size_t share = ((size_t)groups * sizeof(pl_wide_group) / (size_t)n_panels + 63) & ~(size_t)63;
    const uint8_t *tile = rows->tile;
    for (int r = 0; r < rows->end; r += PL_ACT_WIDE_ROWS, tile += rows->tile_bytes) {
        const pl_wide_group *x = (const pl_wide_group *)(const void *)tile;
        for (int p = 0, n; p < n_panels; p += n) {
            float *to = acc + (p * acc_ld + r) * PL_PANEL_ROWS;
            n = p + PANELS <= n_panels ? PANELS : 1;
            pl_prefetch(tile + rows->tile_bytes + (size_t)p * share, (size_t)n * share);
            if (n == PANELS)
                multiply_panels(kind, PANELS, w + p, groups, x, rows->begin - r, rows->end - r, to, acc_ld);
            else
                multiply_panels(kind, 1, w + p, groups, x, rows->begin - r, rows->end - r, to, acc_ld);
        }
    }
}

void PL_ISA_NAME(pl_many)(pl_dtype type, const pl_wide_codes *w, int n_panels, int groups, const pl_wide_rows *rows,
                          float *acc, int64_t acc_ld)
{
    switch (pl_panel_describe(type).kind) {
    case PL_PANEL_OFFSET: multiply(PL_PANEL_OFFSET, w, n_panels, groups, rows, acc, acc_ld); break;
    case PL_PANEL_HALVES: multiply(PL_PANEL_HALVES, w, n_panels, groups, rows, acc, acc_ld); break;
    case PL_PANEL_MIN: multiply(PL_PANEL_MIN, w, n_panels, groups, rows, acc, acc_ld); break;
    case PL_PANEL_MIN_HALVES: multiply(PL_PANEL_MIN_HALVES, w, n_panels, groups, rows, acc, acc_ld); break;
    }
}
