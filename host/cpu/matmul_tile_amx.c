/* Block types on AMX: a tile product is up to sixteen rows times a panel's sixteen over a group's 32 columns.
 *
 * Integer sums leave the tile registers through memory and become f32 there as in the other kernels, so the bits are the
 * same. While tiles are at work, 512-bit arithmetic starts once a cycle; the five such instructions that a sum
 * takes are what bounds the kernel. A stored tile can be read only when it has arrived in the cache: three products
 * are on their way at any time, one in the tiles' arithmetic, one being stored, one becoming f32. */
#include "host/cpu/amx.h"
#include "host/cpu/matmul_tile.h"

#define INLINE static inline __attribute__((always_inline))
#define TILE_ROWS 16
#define MAX_PARTS (2 * PL_SPAN_GROUPS)

/* Tile registers; the compilers' functions take literal numbers. Sums of even parts are in 4 and 5, of odd ones in 6, 7. */
#define ROWS_HI 0
#define ROWS_LO 1
#define CODES 2

typedef struct sums {
    int32_t hi[TILE_ROWS][PL_PANEL_ROWS], lo[TILE_ROWS][PL_PANEL_ROWS];
} __attribute__((aligned(64))) sums;

/* What is the same for all panels: of part i and row r at [i][r]. */
typedef struct row_factors {
    float scale[MAX_PARTS][TILE_ROWS], shift[MAX_PARTS][TILE_ROWS];
} row_factors;

static void configure(int n_rows, int part_columns)
{
    volatile pl_tile_config c = {.palette = 1};
    pl_tiles_fill(&c, n_rows);
    c.row_bytes[ROWS_HI] = c.row_bytes[ROWS_LO] = (uint16_t)part_columns;
    c.rows[CODES] = (uint8_t)(part_columns / 4);
    pl_tiles_configure(&c);
}

#define MULTIPLY(hi, lo, x, row_bytes, code)                                                                           \
    do {                                                                                                               \
        _tile_zero(hi);                                                                                                \
        _tile_zero(lo);                                                                                                \
        _tile_loadd(ROWS_HI, x, row_bytes);                                                                            \
        _tile_loadd(CODES, code, PL_CHUNK_BYTES);                                                                      \
        _tile_dpbssd(hi, ROWS_HI, CODES);                                                                              \
        _tile_loadd(ROWS_LO, (x) + PL_GROUP, row_bytes);                                                               \
        _tile_dpbssd(lo, ROWS_LO, CODES);                                                                              \
    } while (0)

#define STORE(tile_hi, tile_lo, to)                                                                                    \
    do {                                                                                                               \
        _tile_stored(tile_hi, (to)->hi, sizeof(to)->hi[0]);                                                            \
        _tile_stored(tile_lo, (to)->lo, sizeof(to)->lo[0]);                                                            \
    } while (0)

INLINE void add_sums(pl_panel_kind kind, int n_rows, const pl_wide_codes *w, int part, const row_factors *f,
                     const sums *sum, __m512 acc[TILE_ROWS])
{
    __m512 d = _mm512_load_ps(w->d[part]);
#pragma GCC unroll 16
    for (int r = 0; r < n_rows; r++) {
        __m512i s = _mm512_slli_epi32(_mm512_load_si512(sum->hi[r]), 7);
        s = _mm512_add_epi32(s, _mm512_load_si512(sum->lo[r]));
        __m512 scale = _mm512_mul_ps(d, _mm512_set1_ps(f->scale[part][r]));
        acc[r] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(s), scale, acc[r]);
        if (pl_has_minimum(kind))
            acc[r] = _mm512_fmadd_ps(_mm512_load_ps(w->m[part]), _mm512_set1_ps(f->shift[part][r]), acc[r]);
    }
}

/* Parts in pairs; an odd number of them has the last one alone. The first product is in tiles 4 and 5 already, and
 * at the end that of the next panel, unless there is none: NULL. */
INLINE void add_parts(pl_panel_kind kind, int n_rows, const pl_wide_codes *w, int parts, const int8_t *x,
                      int64_t row_bytes, const row_factors *f, const uint8_t *next, __m512 acc[TILE_ROWS])
{
    const int halves = pl_has_halves(kind), second = halves ? PL_GROUP / 2 : 2 * PL_GROUP;
    const int part_code = 8 * PL_CHUNK_BYTES >> halves;
    const uint8_t *code = (const uint8_t *)w->code;
    const int8_t *at_x = x;
    sums even, odd;
    for (int at = 0; at + 1 < parts; at += 2) {
        MULTIPLY(6, 7, at_x + second, row_bytes, code + part_code);
        STORE(4, 5, &even);
        if (at > 0)
            add_sums(kind, n_rows, w, at - 1, f, &odd, acc);
        at_x += 4 * PL_GROUP >> halves;
        code += 2 * part_code;
        if (at + 2 < parts)
            MULTIPLY(4, 5, at_x, row_bytes, code);
        else if (next)
            MULTIPLY(4, 5, x, row_bytes, next);
        STORE(6, 7, &odd);
        add_sums(kind, n_rows, w, at, f, &even, acc);
    }
    if (parts > 1)
        add_sums(kind, n_rows, w, (parts & ~1) - 1, f, &odd, acc);
    if (parts & 1) {
        STORE(4, 5, &even);
        if (next)
            MULTIPLY(4, 5, x, row_bytes, next);
        add_sums(kind, n_rows, w, parts - 1, f, &even, acc);
    }
}

/* n_rows: those of the configuration or more; only the first `n` are read and written. */
INLINE void multiply_panel(pl_panel_kind kind, int n_rows, const pl_wide_codes *w, int parts, const int8_t *x,
                           int64_t row_bytes, const row_factors *f, const uint8_t *next, int n, float *out)
{
    __m512 acc[TILE_ROWS];
#pragma GCC unroll 16
    for (int r = 0; r < n_rows; r++)
        acc[r] = _mm512_maskz_loadu_ps(r < n ? 0xffff : 0, out + r * PL_PANEL_ROWS);
    add_parts(kind, n_rows, w, parts, x, row_bytes, f, next, acc);
#pragma GCC unroll 16
    for (int r = 0; r < n_rows; r++)
        _mm512_mask_storeu_ps(out + r * PL_PANEL_ROWS, r < n ? 0xffff : 0, acc[r]);
}

INLINE void prefetch(const void *p, size_t bytes)
{
    for (size_t i = 0; i < bytes; i += 64)
        _mm_prefetch((const char *)p + i, _MM_HINT_T0);
}

static void gather_factors(pl_panel_kind kind, const pl_tile_rows *rows, int parts, row_factors *f)
{
    int halves = pl_has_halves(kind);
    for (int r = 0; r < rows->n; r++) {
        for (int i = 0; i < parts; i++) {
            f->scale[i][r] = rows->scale[r * rows->ld + (halves ? i / 2 : i)];
            if (pl_has_minimum(kind))
                f->shift[i][r] = rows->terms[r].shift[i];
        }
    }
}

INLINE void multiply_panels(pl_panel_kind kind, int n_rows, const pl_wide_codes *w, int n_panels, int parts,
                            const pl_tile_rows *rows, const row_factors *f, float *acc, int64_t acc_ld)
{
    const int64_t row_bytes = rows->ld * 2 * PL_GROUP;
    MULTIPLY(4, 5, rows->hi_lo, row_bytes, w->code[0]);
    for (int i = 0; i < n_panels; i++) {
        const uint8_t *next = i + 1 < n_panels ? w[i + 1].code[0] : NULL;
        prefetch(rows->hi_lo + (TILE_ROWS + i) * row_bytes, (size_t)row_bytes); /* one row of the next tile */
        prefetch(w[i].after, rows->ahead);
        multiply_panel(kind, n_rows, w + i, parts, rows->hi_lo, row_bytes, f, next, rows->n,
                       acc + i * acc_ld * PL_PANEL_ROWS);
    }
}

/* At most TILE_ROWS rows. */
INLINE void multiply_tile(pl_panel_kind kind, const pl_wide_codes *w, int n_panels, int groups,
                          const pl_tile_rows *rows, float *acc, int64_t acc_ld)
{
    int parts = groups << pl_has_halves(kind);
    row_factors f;
    gather_factors(kind, rows, parts, &f);
    if (rows->n <= TILE_ROWS / 2)
        multiply_panels(kind, TILE_ROWS / 2, w, n_panels, parts, rows, &f, acc, acc_ld);
    else
        multiply_panels(kind, TILE_ROWS, w, n_panels, parts, rows, &f, acc, acc_ld);
}

static void multiply_kind(pl_panel_kind kind, const pl_wide_codes *w, int n_panels, int groups,
                          const pl_tile_rows *rows, float *acc, int64_t acc_ld)
{
    switch (kind) {
    case PL_PANEL_OFFSET: multiply_tile(PL_PANEL_OFFSET, w, n_panels, groups, rows, acc, acc_ld); break;
    case PL_PANEL_HALVES: multiply_tile(PL_PANEL_HALVES, w, n_panels, groups, rows, acc, acc_ld); break;
    case PL_PANEL_MIN: multiply_tile(PL_PANEL_MIN, w, n_panels, groups, rows, acc, acc_ld); break;
    case PL_PANEL_MIN_HALVES: multiply_tile(PL_PANEL_MIN_HALVES, w, n_panels, groups, rows, acc, acc_ld); break;
    }
}

void pl_unpack_wide_amx(pl_dtype type, const uint8_t *span, int groups, pl_wide_codes *out)
{
    pl_unpack_centred_avx512(type, span, groups, out->code[0], out->d, out->m);
    out->after = span + pl_span_bytes(pl_panel_describe(type));
}

void pl_many_amx(pl_dtype type, const pl_wide_codes *w, int n_panels, int groups, const pl_wide_rows *all, float *acc,
                 int64_t acc_ld)
{
    const pl_tile_rows *rows = &all->rows;
    pl_panel_kind kind = pl_panel_describe(type).kind;
    int configured = 0;
    acc += all->begin * PL_PANEL_ROWS;
    atomic_signal_fence(memory_order_seq_cst); /* nor what the tiles' instructions read */
    for (int r = 0; r < rows->n; r += TILE_ROWS) {
        int n = rows->n - r < TILE_ROWS ? rows->n - r : TILE_ROWS;
        pl_tile_rows some = {rows->hi_lo + r * rows->ld * 2 * PL_GROUP,
                             rows->scale + r * rows->ld,
                             rows->terms + r,
                             rows->ld,
                             n,
                             r == 0 ? rows->ahead : 0,
                             rows->lo_zero};
        if (n != configured)
            configure(n, PL_GROUP >> pl_has_halves(kind));
        configured = n;
        multiply_kind(kind, w, n_panels, groups, &some, acc + r * PL_PANEL_ROWS, acc_ld);
    }
    _tile_release();
}
