/* Products of many rows with both operands rounded to bf16, on AMX: sums stay in the tile registers for a span.
 *
 * Two tiles of rows and two panels share each load: four products for four loads. Rows of 32 are in the first-level cache
 * while the panels pass by. */
#include "host/cpu/amx.h"
#include "host/cpu/matmul_tile.h"

#include <stdbool.h>

#define INLINE static inline __attribute__((always_inline))
#define TILE_ROWS PL_ACT_WIDE_ROWS
#define TILE_BYTES (TILE_ROWS * PL_GROUP * sizeof(uint16_t)) /* of rows or of weights, 32 columns */

static void configure(void)
{
    volatile pl_tile_config c = {.palette = 1};
    pl_tiles_fill(&c, TILE_ROWS);
    pl_tiles_configure(&c);
}

/* ---- operands ---- */

static const uint16_t interleave[32]
    __attribute__((aligned(64))) = {0, 16, 1, 17, 2,  18, 3,  19, 4,  20, 5,  21, 6,  22, 7,  23,
                                    8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31};

/* Byte `at` of each 32-bit lane: d * it + m. */
INLINE __m512 value(__m512i x, unsigned at, __m512 d, __m512 m, bool has_minimum)
{
    __m512 v = _mm512_cvtepi32_ps(_mm512_srai_epi32(_mm512_slli_epi32(x, 24 - 8 * at), 24));
    return has_minimum ? _mm512_fmadd_ps(v, d, m) : _mm512_mul_ps(v, d);
}

/* One chunk of a panel: two rows of a tile. */
INLINE void round_chunk(const uint8_t *code, __m512 d, __m512 m, bool has_minimum, uint8_t *out)
{
    const __m512i order = _mm512_load_si512(interleave);
    __m512i x = _mm512_load_si512(code);
    for (unsigned pair = 0; pair < 2; pair++) {
        __m512 a = value(x, 2 * pair, d, m, has_minimum), b = value(x, 2 * pair + 1, d, m, has_minimum);
        __m512i both = (__m512i)_mm512_cvtne2ps_pbh(b, a);
        _mm512_store_si512(out + pair * PL_CHUNK_BYTES, _mm512_permutexvar_epi16(order, both));
    }
}

INLINE void round_span(bool halves, bool has_minimum, const pl_span_codes *w, int groups, uint8_t *out)
{
    for (int c = 0; c < 8 * groups; c++) {
        int part = halves ? c / 4 : c / 8;
        __m512 d = _mm512_load_ps(w->d[part]), m = has_minimum ? _mm512_load_ps(w->m[part]) : d;
        round_chunk((const uint8_t *)w->code + c * PL_CHUNK_BYTES, d, m, has_minimum, out + 2 * c * PL_CHUNK_BYTES);
    }
}

void pl_unpack_rounded_amx(pl_dtype type, const uint8_t *span, int groups, pl_wide_codes *out)
{
    pl_panel_kind kind = pl_panel_describe(type).kind;
    pl_span_codes w;
    pl_unpack_centred_avx512(type, span, groups, w.code[0], w.d, w.m);
    switch (kind) {
    case PL_PANEL_OFFSET: round_span(false, false, &w, groups, out->code[0]); break;
    case PL_PANEL_HALVES: round_span(true, false, &w, groups, out->code[0]); break;
    case PL_PANEL_MIN: round_span(false, true, &w, groups, out->code[0]); break;
    case PL_PANEL_MIN_HALVES: round_span(true, true, &w, groups, out->code[0]); break;
    }
}

/* 16 columns of a group from the first-th on. */
INLINE __m512 act_values(const int8_t *hi_lo, int first, __m512 scale)
{
    __m512i hi = _mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i *)(const void *)(hi_lo + first)));
    __m512i lo = _mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i *)(const void *)(hi_lo + PL_GROUP + first)));
    return _mm512_mul_ps(_mm512_cvtepi32_ps(_mm512_add_epi32(_mm512_slli_epi32(hi, 7), lo)), scale);
}

void pl_round_rows_amx(const pl_act *x, int64_t span, int64_t tile)
{
    size_t bytes;
    uint8_t *out = pl_wide_tile(x, span, tile, &bytes);
    for (int r = 0; r < TILE_ROWS && tile * TILE_ROWS + r < x->rows; r++) {
        int64_t groups, at = pl_act_at(x, tile * TILE_ROWS + r, span, &groups);
        for (int64_t g = 0; g < groups; g++) {
            const int8_t *hi_lo = x->hi_lo + (at + g) * 2 * PL_GROUP;
            __m512 scale = _mm512_set1_ps(x->scale[at + g]);
            __m512 low = act_values(hi_lo, 0, scale), high = act_values(hi_lo, PL_GROUP / 2, scale);
            _mm512_store_si512(out + g * (int64_t)TILE_BYTES + r * PL_CHUNK_BYTES,
                               (__m512i)_mm512_cvtne2ps_pbh(high, low));
        }
    }
}

/* ---- products ---- */

/* acc[panel][row]: the sums of two tiles of rows and two panels. */
INLINE void multiply_block(const uint8_t *x0, const uint8_t *x1, const uint8_t *w0, const uint8_t *w1, int groups,
                           float *acc, int64_t panel)
{
    const int row = PL_PANEL_ROWS * sizeof(float), tile = TILE_ROWS * PL_PANEL_ROWS;
    _tile_loadd(0, acc, row);
    _tile_loadd(1, acc + panel, row);
    _tile_loadd(2, acc + tile, row);
    _tile_loadd(3, acc + panel + tile, row);
    for (int g = 0; g < groups; g++) {
        _tile_loadd(4, x0 + g * (int64_t)TILE_BYTES, PL_CHUNK_BYTES);
        _tile_loadd(6, w0 + g * (int64_t)TILE_BYTES, PL_CHUNK_BYTES);
        _tile_dpbf16ps(0, 4, 6);
        _tile_loadd(7, w1 + g * (int64_t)TILE_BYTES, PL_CHUNK_BYTES);
        _tile_dpbf16ps(1, 4, 7);
        _tile_loadd(5, x1 + g * (int64_t)TILE_BYTES, PL_CHUNK_BYTES);
        _tile_dpbf16ps(2, 5, 6);
        _tile_dpbf16ps(3, 5, 7);
    }
    _tile_stored(0, acc, row);
    _tile_stored(1, acc + panel, row);
    _tile_stored(2, acc + tile, row);
    _tile_stored(3, acc + panel + tile, row);
}

/* A panel pair's share of what the next two tiles read: at their turn it is in the second-level cache. */
INLINE void prefetch_share(const uint8_t *x, size_t tile_bytes, int groups, int pair, int pairs)
{
    size_t share = (size_t)(groups + pairs - 1) / (size_t)pairs * TILE_BYTES, first = (size_t)pair * share;
    for (size_t i = first; i < first + share && i < (size_t)groups * TILE_BYTES; i += 64) {
        _mm_prefetch((const char *)x + i, _MM_HINT_T1);
        _mm_prefetch((const char *)x + tile_bytes + i, _MM_HINT_T1);
    }
}

void pl_rounded_amx(pl_dtype type, const pl_wide_codes *w, int n_panels, int groups, const pl_wide_rows *rows,
                    float *acc, int64_t acc_ld)
{
    (void)type;
    const int pairs = (n_panels + 1) / 2;
    configure();
    for (int r = 0; r < rows->end; r += 2 * TILE_ROWS) {
        const uint8_t *x = rows->tile + (size_t)(r / TILE_ROWS) * rows->tile_bytes;
        const uint8_t *x1 = r + TILE_ROWS < rows->end ? x + rows->tile_bytes : x;
        for (int i = 0; i < pairs; i++) {
            const pl_wide_codes *pair = w + 2 * i;
            prefetch_share(x + 2 * rows->tile_bytes, rows->tile_bytes, groups, i, pairs);
            multiply_block(x, x1, pair[0].code[0], pair[1].code[0], groups, acc + (2 * i * acc_ld + r) * PL_PANEL_ROWS,
                           acc_ld * PL_PANEL_ROWS);
        }
    }
    _tile_release();
}
