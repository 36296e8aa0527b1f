/* What the matrix products' kernels share: a piece of a product, and where weights and rows lie.
 *
 * Packed weights are slabs of PL_GEMM_SLAB columns (the last one may have fewer); a slab is a run of panels of
 * PL_GEMM_PANEL outputs (the last one filled with zeros), in the order in which a product reads them. */
#ifndef PL_CPU_GEMM_PIECE_H
#define PL_CPU_GEMM_PIECE_H

#include "host/cpu/gemm.h"

/* n_rows rows from `row` on times n_panels panels from `panel` on. */
typedef struct pl_gemm_piece {
    const pl_gemm_rows *rows;
    const pl_tower_matrix *w;
    float *out;
    int64_t ld_out;
    float *scratch; /* the thread's */
    int64_t row, panel;
    int n_rows, n_panels;
} pl_gemm_piece;

static inline int64_t pl_gemm_panels(int64_t rows)
{
    return (rows + PL_GEMM_PANEL - 1) / PL_GEMM_PANEL;
}

/* Of the slab that begins at column col. */
static inline int pl_gemm_slab_cols(int64_t cols, int64_t col)
{
    return (int)(cols - col < PL_GEMM_SLAB ? cols - col : PL_GEMM_SLAB);
}

/* Outputs of a panel that are the matrix's. */
static inline int pl_gemm_panel_outputs(int64_t rows, int64_t panel)
{
    int64_t left = rows - panel * PL_GEMM_PANEL;
    return (int)(left < PL_GEMM_PANEL ? left : PL_GEMM_PANEL);
}

/* Values before a panel's share of the slab that begins at column col; slab_cols as they are stored. */
static inline int64_t pl_gemm_panel_at(int64_t rows, int64_t col, int slab_cols, int64_t panel)
{
    return (col * pl_gemm_panels(rows) + panel * slab_cols) * PL_GEMM_PANEL;
}

/* The f32 kernels leave plain types as they are and make f32 of blocks. */
static inline pl_dtype pl_gemm_stored_type(pl_dtype type)
{
    return type == PL_F16 || type == PL_BF16 ? type : PL_F32;
}

/* Columns [col, col + n) of row i; those of a map are put together in room. */
const float *pl_gemm_columns(const pl_gemm_rows *rows, int64_t i, int64_t col, int n, float *room);

void pl_gemm_piece_base(const pl_gemm_piece *p);
void pl_gemm_piece_avx2(const pl_gemm_piece *p);
void pl_gemm_piece_avx512(const pl_gemm_piece *p);
void pl_gemm_piece_amx(const pl_gemm_piece *p);

size_t pl_gemm_bytes_amx(int64_t rows, int64_t cols, pl_dtype type);

/* Panels [begin, end) of t. */
void pl_gemm_pack_amx(const pl_tensor *t, void *dst, int64_t begin, int64_t end);

#endif
