/* What the matrix product is made of, once for each instruction set. All sets give the same bits: sums of a
 * group are exact integers, and the f32 steps after them are spelled out here.
 *
 * For one row x, one output n and group g of 32 columns (half a group, the first one first, where each half has
 * its own scale, and with it its own minimum):
 *     s   = sum of (code - offset) * (128 * hi + lo)           exact, below 2^27
 *     acc = fma((float)s, d * scale, acc)                       d * scale rounded
 *     acc = fma(m, shift, acc)   with shift = scale * (float)(sum of 128 * hi + lo)     types with a minimum only
 * g ascending. Dot products of plain types: lane j of 16 sums the columns k = j mod 16, ascending, by fma, zeros
 * after the last column; then lanes j and j + 8 are added, of those j and j + 4, and so on. */
#ifndef PL_CPU_MATMUL_TILE_H
#define PL_CPU_MATMUL_TILE_H

#include "host/cpu/panel.h"
#include "host/ops/matmul.h"

#define PL_TILE_ROWS 6
#define PL_DIRECT_PANELS 4
#define PL_DIRECT_ROWS 4

/* A span of one panel, unpacked: one code a byte, chunk after chunk; d and m of halves at [2 g] and [2 g + 1]. */
typedef struct pl_span_codes {
    uint8_t code[PL_SPAN_GROUPS][8 * PL_CHUNK_BYTES];
    float d[2 * PL_SPAN_GROUPS][PL_PANEL_ROWS];
    float m[2 * PL_SPAN_GROUPS][PL_PANEL_ROWS];
    const uint8_t *after; /* where the packed span ends */
} __attribute__((aligned(64))) pl_span_codes;

/* The same for many rows: code - offset in 16 bits, 16 pairs of columns a group with the 16 rows of the panel side by side,
 * those of columns 2 i and 2 i + 1 at byte 64 * i + 4 * row; or as bytes in the order of pl_span_codes; or rounded to
 * bf16. Each kernel knows its own. */
typedef struct pl_wide_codes {
    uint8_t code[PL_SPAN_GROUPS][16 * PL_CHUNK_BYTES];
    float d[2 * PL_SPAN_GROUPS][PL_PANEL_ROWS];
    float m[2 * PL_SPAN_GROUPS][PL_PANEL_ROWS];
    const uint8_t *after;
} __attribute__((aligned(64))) pl_wide_codes;

/* Per row and span: what depends on the row's sums alone. */
typedef union pl_row_terms {
    int32_t start[2 * PL_SPAN_GROUPS]; /* -offset * sum, of groups or of halves */
    float shift[2 * PL_SPAN_GROUPS];
} pl_row_terms;

/* Activations in one span; row r's groups start at hi_lo + r * ld * 64 and at scale + r * ld. */
typedef struct pl_tile_rows {
    const int8_t *hi_lo;
    const float *scale;
    const pl_row_terms *terms;
    int64_t ld;
    int n;
    size_t ahead; /* bytes after each packed span that should be in the cache soon */
    bool lo_zero; /* as in pl_act */
} pl_tile_rows;

/* Rows [begin, end) of a span of pl_act.wide: tiles of PL_ACT_WIDE_ROWS rows, in which they are counted from the first
 * one's first row on. */
typedef struct pl_wide_rows {
    const uint8_t *tile;
    size_t tile_bytes;
    int begin, end;
    pl_tile_rows rows; /* the same ones as they are in pl_act; terms only of types with a minimum */
} pl_wide_rows;

/* Where tile `tile` of a span lies in x->wide; *bytes: what it takes. */
static inline uint8_t *pl_wide_tile(const pl_act *x, int64_t span, int64_t tile, size_t *bytes)
{
    int64_t tiles = (x->rows + PL_ACT_WIDE_ROWS - 1) / PL_ACT_WIDE_ROWS, left = x->blocks - span * PL_SPAN_GROUPS;
    *bytes = (size_t)(left < PL_SPAN_GROUPS ? left : PL_SPAN_GROUPS) * PL_ACT_WIDE_ROWS * PL_ACT_WIDE;
    size_t whole = (size_t)PL_SPAN_GROUPS * PL_ACT_WIDE_ROWS * PL_ACT_WIDE;
    return (uint8_t *)x->wide + (size_t)(span * tiles) * whole + (size_t)tile * *bytes;
}

/* Products of many rows; multiply NULL: there are none. */
typedef struct pl_many_kernels {
    int rows;      /* from so many on they are faster */
    int code_bits; /* of the types that they multiply, at most */

    /* Fills a tile of a span of x->wide, of which rows that x does not have may be anything. NULL: rows are read as
     * they are. */
    void (*widen)(const pl_act *x, int64_t span, int64_t tile);
    void (*unpack)(pl_dtype type, const uint8_t *span, int groups, pl_wide_codes *out);

    /* As tile of pl_tile_kernels for any number of rows, row r counted as rows->begin is. */
    void (*multiply)(pl_dtype type, const pl_wide_codes *w, int n_panels, int groups, const pl_wide_rows *rows,
                     float *acc, int64_t acc_ld);
} pl_many_kernels;

typedef struct pl_tile_kernels {
    int streams;      /* panels side by side that memory gives most for, of one row or two; <= PL_DIRECT_PANELS */
    int byte_streams; /* the same for one row of 8-bit codes */

    void (*unpack)(pl_dtype type, const uint8_t *span, int groups, pl_span_codes *out);

    /* Adds `groups` groups of w[0..n_panels) times rows to acc: 16 values for panel p and row r at
     * acc + (p * acc_ld + r) * 16. rows->n <= PL_TILE_ROWS. */
    void (*tile)(pl_dtype type, const pl_span_codes *w, int n_panels, int groups, const pl_tile_rows *rows, float *acc,
                 int64_t acc_ld);

    /* The same from packed spans: n_panels <= PL_DIRECT_PANELS, rows->n <= PL_DIRECT_ROWS. */
    void (*direct)(pl_dtype type, const uint8_t *const *span, int n_panels, int groups, const pl_tile_rows *rows,
                   float *acc, int64_t acc_ld);

    /* out[i * out_ld + n] = w[n] . x[i] over k columns; w: n_w rows of a plain type, w_ld bytes apart. */
    void (*dot)(pl_dtype type, const char *w, size_t w_ld, int n_w, const float *x, int64_t x_ld, int n_x, int64_t k,
                float *out, int64_t out_ld);

    void (*quantize_row)(const float *x, int64_t cols, int8_t *hi_lo, float *scale, int32_t *sum);

    /* The terms of one row in one span, from pl_act's sums and scales. */
    void (*terms)(pl_panel_type type, const int32_t *sum, const float *scale, int groups, pl_row_terms *out);

    pl_many_kernels many;

    /* Of operands that may be rounded (pl_act.rounded). rows->begin is 0. w and acc have room for an even number of panels and rows up
     * to a multiple of 32: what is there besides may be read and changed. */
    pl_many_kernels rounded;
} pl_tile_kernels;

#define PL_TILE_FUNCTIONS(isa)                                                                                         \
    void pl_unpack_##isa(pl_dtype type, const uint8_t *span, int groups, pl_span_codes *out);                          \
    void pl_tile_##isa(pl_dtype type, const pl_span_codes *w, int n_panels, int groups, const pl_tile_rows *rows,      \
                       float *acc, int64_t acc_ld);                                                                    \
    void pl_direct_##isa(pl_dtype type, const uint8_t *const *span, int n_panels, int groups,                          \
                         const pl_tile_rows *rows, float *acc, int64_t acc_ld);                                        \
    void pl_dot_##isa(pl_dtype type, const char *w, size_t w_ld, int n_w, const float *x, int64_t x_ld, int n_x,       \
                      int64_t k, float *out, int64_t out_ld);                                                          \
    void pl_quantize_row_##isa(const float *x, int64_t cols, int8_t *hi_lo, float *scale, int32_t *sum);               \
    void pl_terms_##isa(pl_panel_type type, const int32_t *sum, const float *scale, int groups, pl_row_terms *out);

PL_TILE_FUNCTIONS(base)
PL_TILE_FUNCTIONS(avx2)
PL_TILE_FUNCTIONS(avxvnni)
PL_TILE_FUNCTIONS(avx512)

#define PL_MANY_FUNCTIONS(isa)                                                                                         \
    void pl_unpack_wide_##isa(pl_dtype type, const uint8_t *span, int groups, pl_wide_codes *out);                     \
    void pl_many_##isa(pl_dtype type, const pl_wide_codes *w, int n_panels, int groups, const pl_wide_rows *rows,      \
                       float *acc, int64_t acc_ld);

PL_MANY_FUNCTIONS(avx2)
PL_MANY_FUNCTIONS(avxvnni)
PL_MANY_FUNCTIONS(avx512)
PL_MANY_FUNCTIONS(amx)

void pl_widen_avx2(const pl_act *x, int64_t span, int64_t tile);
void pl_widen_avxvnni(const pl_act *x, int64_t span, int64_t tile);
void pl_widen_avx512(const pl_act *x, int64_t span, int64_t tile);

#define PL_ROUNDED_FUNCTIONS(isa)                                                                                      \
    void pl_round_rows_##isa(const pl_act *x, int64_t span, int64_t tile);                                             \
    void pl_unpack_rounded_##isa(pl_dtype type, const uint8_t *span, int groups, pl_wide_codes *out);                  \
    void pl_rounded_##isa(pl_dtype type, const pl_wide_codes *w, int n_panels, int groups, const pl_wide_rows *rows,   \
                          float *acc, int64_t acc_ld);

PL_ROUNDED_FUNCTIONS(avx2)
PL_ROUNDED_FUNCTIONS(avxvnni)
PL_ROUNDED_FUNCTIONS(avx512)
PL_ROUNDED_FUNCTIONS(amx)

/* As pl_unpack_avx512(), with code - offset as a signed byte in place of code; to fields of pl_span_codes. */
void pl_unpack_centred_avx512(pl_dtype type, const uint8_t *span, int groups, uint8_t *code, float (*d)[PL_PANEL_ROWS],
                              float (*m)[PL_PANEL_ROWS]);

#endif
