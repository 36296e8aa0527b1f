#include "host/cpu/gemm.h"
#include "host/base/cpu.h"
#include "host/cpu/gemm_piece.h"

#include <string.h>

/* Pieces for each thread, that all of them end at about the same time. */
#define PIECES_A_THREAD 6

/* Panels of a piece: its sums stay in the second-level cache. */
#define MOST_PANELS 20

/* ---- rows ---- */

static int64_t clamp(int64_t v, int64_t low, int64_t high)
{
    return v < low ? low : v > high ? high : v;
}

/* Values [from, from + n) of row y of the map, zeros outside of it. */
static void copy_values(const pl_map *map, int64_t y, int64_t from, int64_t n, float *out)
{
    int64_t width = map->width * map->channels, end = from + n;
    bool inside = y >= 0 && y < map->height;
    int64_t first = inside ? clamp(0, from, end) : end, last = clamp(width, first, end);
    memset(out, 0, (size_t)(first - from) * sizeof *out);
    if (last > first)
        memcpy(out + (first - from), map->v + y * width + first, (size_t)(last - first) * sizeof *out);
    memset(out + (last - from), 0, (size_t)(end - last) * sizeof *out);
}

const float *pl_gemm_columns(const pl_gemm_rows *rows, int64_t i, int64_t col, int n, float *room)
{
    if (!rows->map)
        return rows->x + i * rows->ld + col;
    const pl_kernel_window *w = &rows->window;
    int64_t channels = rows->map->channels, line = w->size * channels; /* one row of the window */
    int64_t y = i / rows->out_width * w->stride - w->top, x = i % rows->out_width * w->stride - w->left;
    int64_t tap_y = y + col / line, begin = x * channels + col % line, width = rows->map->width * channels;
    if (col % line + n <= line && tap_y >= 0 && tap_y < rows->map->height && begin >= 0 && begin + n <= width)
        return rows->map->v + tap_y * width + begin;
    for (int64_t at = col, end = col + n; at < end;) {
        int64_t from = at % line, some = line - from < end - at ? line - from : end - at;
        copy_values(rows->map, y + at / line, x * channels + from, some, room + (at - col));
        at += some;
    }
    return room;
}

/* ---- weights ---- */

static size_t bytes_f32(int64_t rows, int64_t cols, pl_dtype type)
{
    return pl_dtype_bytes(pl_gemm_stored_type(type), pl_gemm_panels(rows) * PL_GEMM_PANEL * cols);
}

/* From values side by side in a row to outputs side by side; out has zeros where there are no rows. */
static void transpose(const char *from, size_t row_bytes, int outputs, int cols, size_t value_bytes, char *to)
{
    memset(to, 0, (size_t)cols * PL_GEMM_PANEL * value_bytes);
    for (int n = 0; n < outputs; n++)
        for (int k = 0; k < cols; k++)
            memcpy(to + (size_t)(k * PL_GEMM_PANEL + n) * value_bytes, from + n * row_bytes + k * value_bytes,
                   value_bytes);
}

static void pack_panel_f32(const pl_tensor *t, void *dst, int64_t panel)
{
    float decoded[PL_GEMM_PANEL][PL_GEMM_SLAB];
    pl_dtype stored = pl_gemm_stored_type(t->type);
    size_t value_bytes = pl_dtype_bytes(stored, 1);
    int outputs = pl_gemm_panel_outputs(t->rows, panel);
    for (int64_t col = 0; col < t->cols; col += PL_GEMM_SLAB) {
        int cols = pl_gemm_slab_cols(t->cols, col);
        const char *from = (const char *)pl_tensor_row(t, panel * PL_GEMM_PANEL) + pl_dtype_bytes(t->type, col);
        char *to = (char *)dst + (size_t)pl_gemm_panel_at(t->rows, col, cols, panel) * value_bytes;
        if (t->type == stored) {
            transpose(from, pl_tensor_row_bytes(t), outputs, cols, value_bytes, to);
            continue;
        }
        for (int n = 0; n < outputs; n++)
            pl_decode(t->type, from + n * pl_tensor_row_bytes(t), decoded[n], cols);
        transpose((const char *)decoded, sizeof decoded[0], outputs, cols, value_bytes, to);
    }
}

static void pack_panels_f32(const pl_tensor *t, void *dst, int64_t begin, int64_t end)
{
    for (int64_t panel = begin; panel < end; panel++)
        pack_panel_f32(t, dst, panel);
}

typedef void (*pack_fn)(const pl_tensor *t, void *dst, int64_t begin, int64_t end);

typedef struct pack_call {
    pack_fn pack;
    const pl_tensor *t;
    void *dst;
} pack_call;

static void pack_panels(void *ctx, int64_t begin, int64_t end, int thread)
{
    (void)thread;
    const pack_call *call = ctx;
    call->pack(call->t, call->dst, begin, end);
}

static void pack_run(pack_fn pack, size_t bytes, pl_pool *pool, const pl_tensor *t, void *dst, pl_tower_matrix *out)
{
    pack_call call = {pack, t, dst};
    pl_pool_for(pool, pl_gemm_panels(t->rows), 1, pack_panels, &call);
    *out = (pl_tower_matrix){t->name, dst, t->rows, t->cols, t->type, bytes};
}

/* ---- products ---- */

typedef void (*piece_fn)(const pl_gemm_piece *p);

typedef struct multiply_call {
    piece_fn multiply;
    pl_gemm_piece whole;
    int64_t n, panels;
    int64_t rows_step, panels_step; /* of a piece */
    int64_t groups;                 /* of panels */
} multiply_call;

static void multiply_pieces(void *ctx, int64_t begin, int64_t end, int thread)
{
    const multiply_call *call = ctx;
    for (int64_t i = begin; i < end; i++) {
        pl_gemm_piece p = call->whole;
        p.scratch += (int64_t)thread * PL_GEMM_SCRATCH_FLOATS;
        p.row = i / call->groups * call->rows_step;
        p.panel = i % call->groups * call->panels_step;
        p.n_rows = (int)clamp(call->n - p.row, 0, call->rows_step);
        p.n_panels = (int)clamp(call->panels - p.panel, 0, call->panels_step);
        call->multiply(&p);
    }
}

static int64_t ceil_div(int64_t a, int64_t b)
{
    return (a + b - 1) / b;
}

/* Blocks of rows of the same size, whole tiles of all kernels; then as many groups of panels as it takes. */
static int64_t cut(multiply_call *call, int threads)
{
    const int64_t tile = 48;
    int64_t blocks = ceil_div(call->n, PL_GEMM_ROWS), pieces = threads > 1 ? PIECES_A_THREAD * (int64_t)threads : 1;
    call->rows_step = ceil_div(ceil_div(call->n, blocks), tile) * tile;
    blocks = ceil_div(call->n, call->rows_step);
    int64_t groups = clamp(ceil_div(pieces, blocks), ceil_div(call->panels, MOST_PANELS), call->panels);
    call->panels_step = ceil_div(call->panels, groups);
    call->groups = ceil_div(call->panels, call->panels_step);
    return blocks * call->groups;
}

static void multiply_run(piece_fn multiply, pl_pool *pool, float *scratch, float *out, int64_t ld_out,
                         const pl_gemm_rows *rows, int64_t n, const pl_tower_matrix *w)
{
    if (n == 0)
        return;
    multiply_call call = {.multiply = multiply, .n = n, .panels = pl_gemm_panels(w->rows)};
    call.whole = (pl_gemm_piece){.rows = rows, .w = w, .out = out, .ld_out = ld_out, .scratch = scratch};
    pl_pool_for(pool, cut(&call, pl_pool_threads(pool)), 1, multiply_pieces, &call);
}

/* ---- selection ---- */

#define KERNELS(isa, title, packing, bytes)                                                                            \
    static void pack_##isa(pl_pool *pool, const pl_tensor *t, void *dst, pl_tower_matrix *out)                         \
    {                                                                                                                  \
        pack_run(packing, bytes(t->rows, t->cols, t->type), pool, t, dst, out);                                        \
    }                                                                                                                  \
    static void multiply_##isa(pl_pool *pool, float *scratch, float *out, int64_t ld_out, const pl_gemm_rows *rows,    \
                               int64_t n, const pl_tower_matrix *w)                                                    \
    {                                                                                                                  \
        multiply_run(pl_gemm_piece_##isa, pool, scratch, out, ld_out, rows, n, w);                                     \
    }                                                                                                                  \
    static const pl_gemm_kernels kernels_##isa = {title, bytes, pack_##isa, multiply_##isa};

KERNELS(base, "base", pack_panels_f32, bytes_f32)
#if defined(__x86_64__)
KERNELS(avx2, "avx2", pack_panels_f32, bytes_f32)
KERNELS(avx512, "avx512", pack_panels_f32, bytes_f32)
KERNELS(amx, "amx-bf16", pl_gemm_pack_amx, pl_gemm_bytes_amx)
#endif

const pl_gemm_kernels *pl_gemm_select(unsigned features)
{
#if defined(__x86_64__)
    const unsigned amx = PL_CPU_AMX_BF16 | PL_CPU_AVX512_BF16;
    if ((features & amx) == amx && pl_cpu_enable_amx(NULL) == PL_OK)
        return &kernels_amx;
    if (features & PL_CPU_AVX512)
        return &kernels_avx512;
    if (features & PL_CPU_AVX2)
        return &kernels_avx2;
#endif
    (void)features;
    return &kernels_base;
}
