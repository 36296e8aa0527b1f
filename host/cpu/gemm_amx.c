/* A piece of a product on AMX. Rows and weights are parts of bf16 in tiles of 1 KiB: sixteen rows by 32 columns, and
 * sixteen pairs of columns by sixteen outputs. A slab of a panel's weights stays in the first-level cache while the
 * rows' tiles come from the second; four tiles of sums go from slab to slab through `out`. */
#include "host/cpu/amx.h"
#include "host/cpu/gemm_piece.h"

#include <string.h>

#define INLINE static inline __attribute__((always_inline))
#define TILE_ROWS 16
#define TILE_COLS 32
#define TILE_VALUES (TILE_ROWS * TILE_COLS)
#define LINE_BYTES 64
#define SLAB_STEPS (PL_GEMM_SLAB / TILE_COLS)

_Static_assert(PL_GEMM_PANEL == 2 * TILE_ROWS && PL_GEMM_ROWS % TILE_ROWS == 0, "panels and blocks are whole tiles");

/* rest: only where weights have three parts. */
typedef struct row_step {
    uint16_t hi[TILE_VALUES], lo[TILE_VALUES], rest[TILE_VALUES];
} row_step;

/* One part of a step of a panel. */
typedef struct panel_step {
    uint16_t left[TILE_VALUES], right[TILE_VALUES];
} panel_step;

typedef row_step row_tile[SLAB_STEPS];

_Static_assert(sizeof(row_tile) * PL_GEMM_ROWS / TILE_ROWS + PL_GEMM_PANEL * PL_GEMM_PANEL * sizeof(float) <=
                   PL_GEMM_SCRATCH_FLOATS * sizeof(float),
               "a thread's scratch holds a slab of a block and the sums at an edge");

static int parts_of(pl_dtype type)
{
    return type == PL_BF16 ? 1 : type == PL_F32 ? 3 : 2;
}

static int steps_of(int cols)
{
    return (cols + TILE_COLS - 1) / TILE_COLS;
}

/* ---- weights ---- */

size_t pl_gemm_bytes_amx(int64_t rows, int64_t cols, pl_dtype type)
{
    int64_t padded = (cols + TILE_COLS - 1) / TILE_COLS * TILE_COLS;
    return (size_t)(pl_gemm_panels(rows) * PL_GEMM_PANEL * padded * parts_of(type)) * sizeof(uint16_t);
}

static uint16_t bf16_of(float f)
{
    uint32_t u;
    memcpy(&u, &f, sizeof u);
    return (uint16_t)((u + 0x7fff + (u >> 16 & 1)) >> 16);
}

/* A row of a slab, output n of the panel, into its place in each step. */
static void put_row(const float *w, int cols, int n, int parts, panel_step *to)
{
    for (int k = 0; k < cols; k++) {
        panel_step *at = to + k / TILE_COLS * parts;
        int i = k % TILE_COLS / 2 * TILE_COLS + n % TILE_ROWS * 2 + k % 2;
        uint16_t hi = bf16_of(w[k]);
        (n < TILE_ROWS ? at->left : at->right)[i] = hi;
        float rest = w[k] - pl_bf16_to_f32(hi);
        for (int part = 1; part < parts; part++) {
            uint16_t next = bf16_of(rest);
            (n < TILE_ROWS ? at[part].left : at[part].right)[i] = next;
            rest -= pl_bf16_to_f32(next);
        }
    }
}

static void pack_panel(const pl_tensor *t, void *dst, int64_t panel)
{
    float row[PL_GEMM_SLAB];
    int parts = parts_of(t->type), outputs = pl_gemm_panel_outputs(t->rows, panel);
    for (int64_t col = 0; col < t->cols; col += PL_GEMM_SLAB) {
        int cols = pl_gemm_slab_cols(t->cols, col), steps = steps_of(cols);
        panel_step *to = (panel_step *)dst +
                         parts * pl_gemm_panel_at(t->rows, col, steps * TILE_COLS, panel) / (2 * TILE_VALUES);
        memset(to, 0, (size_t)(steps * parts) * sizeof *to);
        for (int n = 0; n < outputs; n++) {
            const char *from = pl_tensor_row(t, panel * PL_GEMM_PANEL + n);
            pl_decode(t->type, from + pl_dtype_bytes(t->type, col), row, cols);
            put_row(row, cols, n, parts, to);
        }
    }
}

void pl_gemm_pack_amx(const pl_tensor *t, void *dst, int64_t begin, int64_t end)
{
    for (int64_t panel = begin; panel < end; panel++)
        pack_panel(t, dst, panel);
}

/* ---- rows ---- */

/* The bf16 of lanes [0, 16) or [16, 32) as f32. */
INLINE __m512 half_of(__m512i bf16, int half)
{
    __m256i h = half ? _mm512_extracti64x4_epi64(bf16, 1) : _mm512_castsi512_si256(bf16);
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(h), 16));
}

/* Stores a and b as bf16 and leaves what that cut off. */
__attribute__((target("avx512bf16"))) INLINE void put_part(__m512 *a, __m512 *b, uint16_t *to)
{
    __m512i part = (__m512i)_mm512_cvtne2ps_pbh(*b, *a);
    *a = _mm512_sub_ps(*a, half_of(part, 0));
    *b = _mm512_sub_ps(*b, half_of(part, 1));
    _mm512_store_si512(to, part);
}

/* n columns of a row, as that row of each step. */
__attribute__((target("avx512bf16"))) static void split_row(const float *x, int n, int parts, row_step *to, int row)
{
    for (int k = 0; k < n; k += TILE_COLS, to++) {
        uint32_t some = n - k < TILE_COLS ? (1u << (n - k)) - 1 : 0xffffffffu;
        __m512 a = _mm512_maskz_loadu_ps((__mmask16)some, x + k);
        __m512 b = _mm512_maskz_loadu_ps((__mmask16)(some >> 16), x + k + TILE_COLS / 2);
        put_part(&a, &b, to->hi + row * TILE_COLS);
        put_part(&a, &b, to->lo + row * TILE_COLS);
        if (parts == 3)
            put_part(&a, &b, to->rest + row * TILE_COLS);
    }
}

/* The slab's columns of all rows; the last tile is filled with zeros. */
static void split_rows(const pl_gemm_piece *p, int64_t col, int cols, row_tile *tiles)
{
    float room[PL_GEMM_SLAB];
    int parts = parts_of(p->w->type);
    for (int r = 0; r < p->n_rows; r++) {
        const float *x = pl_gemm_columns(p->rows, p->row + r, col, cols, room);
        split_row(x, cols, parts, tiles[r / TILE_ROWS], r % TILE_ROWS);
    }
    for (int r = p->n_rows; r % TILE_ROWS != 0; r++) {
        for (int step = 0; step < steps_of(cols); step++) {
            memset(tiles[r / TILE_ROWS][step].hi + r % TILE_ROWS * TILE_COLS, 0, LINE_BYTES);
            memset(tiles[r / TILE_ROWS][step].lo + r % TILE_ROWS * TILE_COLS, 0, LINE_BYTES);
            memset(tiles[r / TILE_ROWS][step].rest + r % TILE_ROWS * TILE_COLS, 0, LINE_BYTES);
        }
    }
}

/* ---- products ---- */

static void configure(void)
{
    volatile pl_tile_config c = {.palette = 1};
    pl_tiles_fill(&c, TILE_ROWS);
    pl_tiles_configure(&c);
}

/* Tile registers, as literals: sums 0 to 3 (rows 0: 0 and 1), rows 4 and 5, outputs 6 and 7. */

#define LOAD_ROWS(part)                                                                                                \
    do {                                                                                                               \
        _tile_loadd(4, x[step].part, LINE_BYTES);                                                                      \
        if (row_tiles == 2)                                                                                            \
            _tile_loadd(5, x[SLAB_STEPS + step].part, LINE_BYTES);                                                     \
    } while (0)

#define LOAD_OUTPUTS(part)                                                                                             \
    do {                                                                                                               \
        _tile_loadd(6, w[step * parts + (part)].left, LINE_BYTES);                                                     \
        _tile_loadd(7, w[step * parts + (part)].right, LINE_BYTES);                                                    \
    } while (0)

#define MULTIPLY()                                                                                                     \
    do {                                                                                                               \
        _tile_dpbf16ps(0, 4, 6);                                                                                       \
        _tile_dpbf16ps(1, 4, 7);                                                                                       \
        if (row_tiles == 2) {                                                                                          \
            _tile_dpbf16ps(2, 5, 6);                                                                                   \
            _tile_dpbf16ps(3, 5, 7);                                                                                   \
        }                                                                                                              \
    } while (0)

/* One or two tiles of rows by a panel; ld: of sums, in bytes. */
INLINE void multiply_tiles(int row_tiles, int parts, const row_step *x, const panel_step *w, int steps, float *c,
                           int64_t ld, bool fresh)
{
    float *below = c + TILE_ROWS * (ld / (int64_t)sizeof *c);
    if (fresh) {
        _tile_zero(0);
        _tile_zero(1);
        _tile_zero(2);
        _tile_zero(3);
    } else {
        _tile_loadd(0, c, ld);
        _tile_loadd(1, c + TILE_ROWS, ld);
        if (row_tiles == 2) {
            _tile_loadd(2, below, ld);
            _tile_loadd(3, below + TILE_ROWS, ld);
        }
    }
    for (int step = 0; step < steps; step++) {
        LOAD_OUTPUTS(0);
        if (parts == 3) {
            LOAD_ROWS(rest);
            MULTIPLY();
        }
        LOAD_ROWS(lo);
        MULTIPLY();
        LOAD_ROWS(hi);
        MULTIPLY();
        if (parts >= 2) {
            LOAD_OUTPUTS(1);
            MULTIPLY();
        }
        if (parts == 3) {
            LOAD_ROWS(lo);
            MULTIPLY();
            LOAD_OUTPUTS(2);
            LOAD_ROWS(hi);
            MULTIPLY();
        }
    }
    _tile_stored(0, c, ld);
    _tile_stored(1, c + TILE_ROWS, ld);
    if (row_tiles == 2) {
        _tile_stored(2, below, ld);
        _tile_stored(3, below + TILE_ROWS, ld);
    }
}

static void multiply(int row_tiles, int parts, const row_step *x, const panel_step *w, int steps, float *c, int64_t ld,
                     bool fresh)
{
    if (row_tiles == 2 && parts == 3)
        multiply_tiles(2, 3, x, w, steps, c, ld, fresh);
    else if (row_tiles == 2 && parts == 2)
        multiply_tiles(2, 2, x, w, steps, c, ld, fresh);
    else if (row_tiles == 2)
        multiply_tiles(2, 1, x, w, steps, c, ld, fresh);
    else if (parts == 3)
        multiply_tiles(1, 3, x, w, steps, c, ld, fresh);
    else if (parts == 2)
        multiply_tiles(1, 2, x, w, steps, c, ld, fresh);
    else
        multiply_tiles(1, 1, x, w, steps, c, ld, fresh);
}

static void copy_sums(float *to, int64_t ld_to, const float *from, int64_t ld_from, int rows, int outputs)
{
    for (int r = 0; r < rows; r++)
        memcpy(to + r * ld_to, from + r * ld_from, (size_t)outputs * sizeof *to);
}

/* A piece's columns [col, col + steps * TILE_COLS), or fewer at the end. */
typedef struct slab {
    const pl_gemm_piece *piece;
    row_tile *tiles;
    float *square; /* for sums at an edge of the product */
    int64_t col;
    int steps, pairs; /* of row tiles */
} slab;

/* Two tiles of rows, or the last one, by a panel. The fences are for the compilers, which do not know what the tiles'
 * instructions read and write. */
static void multiply_pair(const slab *s, int64_t panel, int pair, const panel_step *w)
{
    const pl_gemm_piece *p = s->piece;
    int first = pair * 2 * TILE_ROWS, left = p->n_rows - first, row_tiles = left > TILE_ROWS ? 2 : 1;
    int n = left < row_tiles * TILE_ROWS ? left : row_tiles * TILE_ROWS;
    int outputs = pl_gemm_panel_outputs(p->w->rows, panel), parts = parts_of(p->w->type);
    float *c = p->out + (p->row + first) * p->ld_out + panel * PL_GEMM_PANEL;
    if (n == row_tiles * TILE_ROWS && outputs == PL_GEMM_PANEL) {
        multiply(row_tiles, parts, s->tiles[2 * pair], w, s->steps, c, p->ld_out * (int64_t)sizeof *c, s->col == 0);
        return;
    }
    if (s->col > 0)
        copy_sums(s->square, PL_GEMM_PANEL, c, p->ld_out, n, outputs);
    atomic_signal_fence(memory_order_seq_cst);
    multiply(row_tiles, parts, s->tiles[2 * pair], w, s->steps, s->square, PL_GEMM_PANEL * sizeof *c, s->col == 0);
    atomic_signal_fence(memory_order_seq_cst);
    copy_sums(c, p->ld_out, s->square, PL_GEMM_PANEL, n, outputs);
}

/* Rows [begin, end) of the next slab will be wanted: parts of rows, one by one, would come slowly. Windows overlap, and
 * the processor sees by itself what comes next. */
static void fetch_rows(const slab *s, int begin, int end)
{
    const pl_gemm_piece *p = s->piece;
    int64_t col = s->col + PL_GEMM_SLAB;
    if (p->rows->map || col >= p->w->cols)
        return;
    for (int r = begin; r < end && r < p->n_rows; r++) {
        const float *x = p->rows->x + (p->row + r) * p->rows->ld + col;
        for (int k = 0; k < pl_gemm_slab_cols(p->w->cols, col); k += LINE_BYTES / (int)sizeof *x)
            _mm_prefetch((const char *)(x + k), _MM_HINT_T1);
    }
}

static void multiply_slab(const slab *s)
{
    const pl_gemm_piece *p = s->piece;
    int parts = parts_of(p->w->type), visits = s->pairs * p->n_panels, each = (p->n_rows + visits - 1) / visits;
    for (int i = 0; i < visits; i++) {
        int64_t panel = p->panel + i / s->pairs;
        int64_t at = parts * pl_gemm_panel_at(p->w->rows, s->col, s->steps * TILE_COLS, panel) / (2 * TILE_VALUES);
        fetch_rows(s, i * each, (i + 1) * each);
        multiply_pair(s, panel, i % s->pairs, (const panel_step *)p->w->data + at);
    }
}

void pl_gemm_piece_amx(const pl_gemm_piece *p)
{
    slab s = {.piece = p, .tiles = (row_tile *)p->scratch, .pairs = (p->n_rows + 2 * TILE_ROWS - 1) / (2 * TILE_ROWS)};
    s.square = (float *)(s.tiles + PL_GEMM_ROWS / TILE_ROWS);
    configure();
    for (s.col = 0; s.col < p->w->cols; s.col += PL_GEMM_SLAB) {
        int cols = pl_gemm_slab_cols(p->w->cols, s.col);
        s.steps = steps_of(cols);
        split_rows(p, s.col, cols, s.tiles);
        atomic_signal_fence(memory_order_seq_cst); /* as in multiply_pair() */
        multiply_slab(&s);
    }
    _tile_release();
}
