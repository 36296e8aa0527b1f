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
} pl_tile_rows;

typedef struct pl_tile_kernels {
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

    /* For many rows, or NULL: like unpack and tile, for any number of rows, with code - offset as a signed byte in place
     * of code. Terms are read only of types with a minimum. */
    void (*unpack_centred)(pl_dtype type, const uint8_t *span, int groups, pl_span_codes *out);
    void (*many)(pl_dtype type, const pl_span_codes *w, int n_panels, int groups, const pl_tile_rows *rows, float *acc,
                 int64_t acc_ld);
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

void pl_unpack_centred_avx512(pl_dtype type, const uint8_t *span, int groups, pl_span_codes *out);
void pl_many_amx(pl_dtype type, const pl_span_codes *w, int n_panels, int groups, const pl_tile_rows *rows, float *acc,
                 int64_t acc_ld);

#endif
