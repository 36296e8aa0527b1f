/* A piece of a product in f32: a block of rows times panels of weights, a slab of columns after the other. Sums of rows
 * by two vectors of outputs stay in registers through a slab, and in `out` from slab to slab. */
#include "host/cpu/gemm_piece.h"
#include "host/base/isa.h"
#include "host/base/vec.h"

#define INLINE static inline __attribute__((always_inline))

#if defined(__AVX512F__)
#define ROWS 12
#define FEW_ROWS 4
#elif defined(__AVX__)
#define ROWS 6
#define FEW_ROWS 2
#else
#define ROWS 4
#define FEW_ROWS 1
#endif
#define STRIP (2 * PL_PART_LANES)

_Static_assert(PL_GEMM_ROWS % ROWS == 0 && PL_GEMM_PANEL % STRIP == 0, "blocks and panels are whole");

/* a * b + c, in one rounding where there is an instruction for it. */
INLINE pl_part multiply_add(pl_part a, pl_part b, pl_part c)
{
#if defined(__AVX512F__)
    return (pl_part)_mm512_fmadd_ps((__m512)a, (__m512)b, (__m512)c);
#elif defined(__AVX__)
    return (pl_part)_mm256_fmadd_ps((__m256)a, (__m256)b, (__m256)c);
#else
    return a * b + c;
#endif
}

/* Not part_set(), which adds: a load that is a copy as well. */
INLINE pl_part fill(const float *x)
{
#if defined(__AVX512F__)
    return (pl_part)_mm512_set1_ps(*x);
#elif defined(__AVX__)
    return (pl_part)_mm256_set1_ps(*x);
#else
    return (pl_part){*x, *x, *x, *x};
#endif
}

INLINE pl_part part_of_f16(const uint16_t *h)
{
#if defined(__AVX512F__)
    return (pl_part)_mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)(const void *)h));
#elif defined(__AVX__)
    return (pl_part)_mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)(const void *)h));
#else
    pl_part v;
    for (int i = 0; i < PL_PART_LANES; i++)
        v[i] = pl_f16_to_f32(h[i]);
    return v;
#endif
}

INLINE pl_part part_of_bf16(const uint16_t *h)
{
    pl_part v;
    for (int i = 0; i < PL_PART_LANES; i++)
        v[i] = pl_bf16_to_f32(h[i]);
    return v;
}

/* A panel's share of a slab in f32: as it lies, or in room. */
static const float *expand(pl_dtype type, const void *data, int64_t at, int cols, float *room)
{
    if (type == PL_F32)
        return (const float *)data + at;
    const uint16_t *h = (const uint16_t *)data + at;
    for (int i = 0; i < cols * PL_GEMM_PANEL; i += PL_PART_LANES)
        part_store(room + i, type == PL_F16 ? part_of_f16(h + i) : part_of_bf16(h + i));
    return room;
}

/* `rows` rows of x by STRIP outputs of w, sums in c; n_rows rows and n_outputs of each are read (unless fresh) and
 * written. */
INLINE void multiply_strip(int rows, const float *x, const float *w, int cols, float *c, int64_t ld, int n_rows,
                           int n_outputs, bool fresh)
{
    float edge[ROWS][STRIP];
    bool whole = n_rows == rows && n_outputs == STRIP;
    float *sum = whole ? c : edge[0];
    int64_t sum_ld = whole ? ld : STRIP;
    if (!whole)
        memset(edge, 0, sizeof edge);
    for (int r = 0; r < n_rows && !whole && !fresh; r++)
        memcpy(edge[r], c + r * ld, (size_t)n_outputs * sizeof *c);

    pl_part acc[ROWS][2];
#pragma GCC unroll 12
    for (int r = 0; r < rows; r++) {
        acc[r][0] = fresh ? (pl_part){0} : part_load(sum + r * sum_ld);
        acc[r][1] = fresh ? (pl_part){0} : part_load(sum + r * sum_ld + PL_PART_LANES);
    }
    for (int k = 0; k < cols; k++, w += PL_GEMM_PANEL) {
        pl_part w0 = part_load(w), w1 = part_load(w + PL_PART_LANES);
#pragma GCC unroll 12
        for (int r = 0; r < rows; r++) {
            pl_part v = fill(x + r * PL_GEMM_SLAB + k);
            acc[r][0] = multiply_add(v, w0, acc[r][0]);
            acc[r][1] = multiply_add(v, w1, acc[r][1]);
        }
    }
#pragma GCC unroll 12
    for (int r = 0; r < rows; r++) {
        part_store(sum + r * sum_ld, acc[r][0]);
        part_store(sum + r * sum_ld + PL_PART_LANES, acc[r][1]);
    }
    for (int r = 0; r < n_rows && !whole; r++)
        memcpy(c + r * ld, edge[r], (size_t)n_outputs * sizeof *c);
}

static void multiply_panel(const pl_gemm_piece *p, int64_t panel, const float *x, const float *w, int cols, bool fresh)
{
    int outputs = pl_gemm_panel_outputs(p->w->rows, panel);
    for (int r = 0; r < p->n_rows; r += ROWS) {
        int n = p->n_rows - r < ROWS ? p->n_rows - r : ROWS;
        const float *row = x + r * PL_GEMM_SLAB;
        float *c = p->out + (p->row + r) * p->ld_out + panel * PL_GEMM_PANEL;
        for (int i = 0; i < outputs; i += STRIP) {
            int some = outputs - i < STRIP ? outputs - i : STRIP;
            if (n <= FEW_ROWS)
                multiply_strip(FEW_ROWS, row, w + i, cols, c + i, p->ld_out, n, some, fresh);
            else
                multiply_strip(ROWS, row, w + i, cols, c + i, p->ld_out, n, some, fresh);
        }
    }
}

/* The slab's columns of all rows; a block that is not whole is filled with zeros. */
static void gather(const pl_gemm_piece *p, int64_t col, int cols, float *x)
{
    for (int r = 0; r < p->n_rows; r++) {
        float *to = x + r * PL_GEMM_SLAB;
        const float *from = pl_gemm_columns(p->rows, p->row + r, col, cols, to);
        if (from != to)
            memcpy(to, from, (size_t)cols * sizeof *to);
    }
    int end = (p->n_rows + ROWS - 1) / ROWS * ROWS;
    memset(x + p->n_rows * PL_GEMM_SLAB, 0, (size_t)(end - p->n_rows) * PL_GEMM_SLAB * sizeof *x);
}

void PL_ISA_NAME(pl_gemm_piece)(const pl_gemm_piece *p)
{
    float *x = p->scratch, *room = p->scratch + PL_GEMM_ROWS * PL_GEMM_SLAB;
    pl_dtype type = pl_gemm_stored_type(p->w->type);
    for (int64_t col = 0; col < p->w->cols; col += PL_GEMM_SLAB) {
        int cols = pl_gemm_slab_cols(p->w->cols, col);
        gather(p, col, cols, x);
        for (int64_t panel = p->panel; panel < p->panel + p->n_panels; panel++) {
            int64_t at = pl_gemm_panel_at(p->w->rows, col, cols, panel);
            multiply_panel(p, panel, x, expand(type, p->w->data, at, cols, room), cols, col == 0);
        }
    }
}
