#define _GNU_SOURCE
#include "host/cpu/head_coarse.h"

#include "host/base/rng.h"
#include "host/cpu/stream.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#define DEVIATIONS 10.0 /* e^-50 */
#define ROUNDED_SQUARES (3.0 * PL_ACT_BLOCK * 8 * 8 * 128 * 128)

struct pl_head_coarse {
    const pl_weight *w;
    pl_weight panels;
    int64_t made; /* panels */
    size_t bytes;
    uint16_t *dither; /* [cols] u, times 2^16 */
    float *zero;      /* [cols] PL_HEAD_CENTRE + u */
    uint8_t *chance;  /* [cols] of what activations are rounded up, times 128 */
    float *fourth;    /* [panels][16] of each row, fourth root of the sum of D^4 */
    float *largest;   /* [panels][16] the largest D; infinite where a step is too large for f16 */
    int8_t *hi_lo;    /* [PL_HEAD_ROWS][blocks][2][32] rounded activations, and their sums: */
    int32_t *sum;     /* [PL_HEAD_ROWS][blocks][2] */
    int8_t *row_hi_lo;
    float *row_scale;
    int32_t *row_sum;
};

size_t pl_head_coarse_bytes(int64_t rows, int64_t cols)
{
    return (size_t)pl_panel_count(rows) * pl_panel_bytes(pl_panel_describe(PL_Q4_0), cols);
}

/* ---- life -------------------------------------------------------------------------------------- */

static bool take_room(pl_head_coarse *c)
{
    size_t rows = (size_t)pl_panel_count(c->w->rows) * PL_PANEL_ROWS, cols = (size_t)c->w->cols,
           blocks = cols / PL_ACT_BLOCK;
    c->dither = calloc(cols, sizeof *c->dither);
    c->zero = calloc(cols, sizeof *c->zero);
    c->fourth = calloc(rows, sizeof *c->fourth);
    c->largest = calloc(rows, sizeof *c->largest);
    c->chance = calloc(cols, sizeof *c->chance);
    c->hi_lo = aligned_alloc(64, PL_HEAD_ROWS * 2 * cols);
    c->sum = calloc(PL_HEAD_ROWS * blocks, 2 * sizeof *c->sum);
    c->row_hi_lo = aligned_alloc(64, 2 * cols);
    c->row_scale = calloc(blocks, sizeof *c->row_scale);
    c->row_sum = calloc(blocks, 2 * sizeof *c->row_sum);
    return c->dither && c->zero && c->chance && c->fourth && c->largest && c->hi_lo && c->sum && c->row_hi_lo &&
           c->row_scale && c->row_sum;
}

pl_status pl_head_coarse_create(const pl_weight *w, pl_head_coarse **out, pl_error *err)
{
    pl_head_coarse *c = calloc(1, sizeof *c);
    if (!c)
        return pl_fail_memory(err, sizeof *c, "the head's coarse copy");
    c->w = w;
    c->bytes = pl_head_coarse_bytes(w->rows, w->cols);
    void *memory = mmap(NULL, c->bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    bool mapped = memory != MAP_FAILED;
    if (mapped)
        madvise(memory, c->bytes, MADV_HUGEPAGE);
    c->panels = (pl_weight){.name = w->name,
                            .data = mapped ? memory : NULL,
                            .rows = w->rows,
                            .cols = w->cols,
                            .type = PL_Q4_0,
                            .packed = true,
                            .bytes = c->bytes};
    if (!mapped || !take_room(c)) {
        size_t bytes = c->bytes;
        pl_head_coarse_free(c);
        return pl_fail_memory(err, bytes, "the head's coarse copy");
    }
    pl_rng rng;
    pl_rng_seed(&rng, 0x6865616473); /* any: weights and activations do not know it */
    for (int64_t k = 0; k < w->cols; k++) {
        uint64_t random = pl_rng_next(&rng);
        c->dither[k] = (uint16_t)(random >> 48);
        c->zero[k] = PL_HEAD_CENTRE + (float)c->dither[k] * 0x1p-16f;
        c->chance[k] = (uint8_t)(random >> 41 & 127);
    }
    *out = c;
    return PL_OK;
}

void pl_head_coarse_free(pl_head_coarse *c)
{
    if (!c)
        return;
    if (c->panels.data)
        munmap((void *)(uintptr_t)c->panels.data, c->bytes);
    free(c->dither);
    free(c->zero);
    free(c->chance);
    free(c->fourth);
    free(c->largest);
    free(c->hi_lo);
    free(c->sum);
    free(c->row_hi_lo);
    free(c->row_scale);
    free(c->row_sum);
    free(c);
}

/* ---- making it --------------------------------------------------------------------------------- */

static void make_panel(pl_head_coarse *c, pl_stream *s, int64_t panel)
{
    pl_panel_type t = pl_panel_describe(PL_Q4_0);
    int64_t first = panel * PL_PANEL_ROWS, groups = c->w->cols / PL_GROUP;
    uint8_t *out = (uint8_t *)(uintptr_t)c->panels.data + (size_t)panel * pl_panel_bytes(t, c->w->cols);
    double fourth[PL_PANEL_ROWS] = {0}, largest[PL_PANEL_ROWS] = {0};
    for (int64_t span = 0; span * PL_SPAN_GROUPS < groups; span++, out += pl_span_bytes(t)) {
        float step[PL_SPAN_GROUPS][PL_PANEL_ROWS] = {{0}};
        s->coarse_span(c->w, panel, span, c->zero, out, step);
        for (int i = 0; i < PL_SPAN_GROUPS * PL_PANEL_ROWS; i++) {
            double d = (double)step[i / PL_PANEL_ROWS][i % PL_PANEL_ROWS], *most = &largest[i % PL_PANEL_ROWS];
            fourth[i % PL_PANEL_ROWS] += d * d * d * d;
            *most = d > *most ? d : *most;
        }
    }
    for (int r = 0; r < PL_PANEL_ROWS; r++) {
        c->fourth[first + r] = (float)sqrt(sqrt(fourth[r]));
        c->largest[first + r] = (float)largest[r];
    }
}

typedef struct make_job {
    pl_head_coarse *coarse;
    pl_stream *s;
    int64_t first; /* panel */
} make_job;

static void make_panels(void *ctx, int64_t begin, int64_t end, int thread)
{
    (void)thread;
    const make_job *j = ctx;
    for (int64_t p = j->first + begin; p < j->first + end; p++)
        make_panel(j->coarse, j->s, p);
}

bool pl_head_coarse_make(pl_head_coarse *c, pl_stream *s, int64_t n)
{
    int64_t left = pl_panel_count(c->w->rows) - c->made;
    make_job job = {c, s, c->made};
    n = n < left ? n : left;
    if (n > 0)
        pl_pool_for(s->pool, n, 16, make_panels, &job);
    c->made += n;
    return n == left;
}

/* ---- products ---------------------------------------------------------------------------------- */

/* A block's integers to multiples of 128, up or down by chance, so that over the draws their mean is the integer; beyond
 * 127 * 128 there is none. Returns the squared length of what numerics.md calls y, in units of the block's scale. */
static double round_block(const int8_t *hi_lo, const uint8_t *chance, int8_t *out)
{
    int64_t squares = 0;
    for (int i = 0; i < PL_ACT_BLOCK; i++) {
        int32_t q = 128 * hi_lo[i] + hi_lo[PL_ACT_BLOCK + i];
        out[i] = (int8_t)((q + chance[i]) >> 7);
        squares += q * q;
    }
    memset(out + PL_ACT_BLOCK, 0, PL_ACT_BLOCK);
    return (double)squares + ROUNDED_SQUARES;
}

/* The kernels take code - 8 times x, and add 8 times the activations' sum on the way; what is wanted is code - 7 - u. */
static int32_t dithered_sum(const int8_t *hi, const uint16_t *dither)
{
    int64_t sum = 0;
    for (int i = 0; i < PL_ACT_BLOCK; i++)
        sum += (int64_t)128 * hi[i] * (7 * 65536 + dither[i]);
    return (int32_t)((sum + (sum < 0 ? -(1 << 18) : 1 << 18)) / (1 << 19));
}

/* What numerics.md says about the bound, and what rounds behind it. */
static double bound_factor(int64_t cols)
{
    double blocks = (double)(cols / PL_ACT_BLOCK);
    return (DEVIATIONS / sqrt(12) + sqrt(blocks) * (0.008 + 1e-5 * blocks)) * (1 + 1e-5);
}

static pl_head_reach prepare_row(pl_head_coarse *c, const pl_act *x, int64_t row)
{
    double square = 0, fourth = 0, factor = bound_factor(c->w->cols);
    for (int64_t b = 0; b < x->blocks; b++) {
        int64_t ld, at = pl_act_at(x, row, b / PL_SPAN_GROUPS, &ld) + b % PL_SPAN_GROUPS;
        double scale = (double)x->scale[at];
        int8_t *rounded = c->hi_lo + at * 2 * PL_ACT_BLOCK;
        double norm = scale * scale *
                      round_block(x->hi_lo + at * 2 * PL_ACT_BLOCK, c->chance + b * PL_ACT_BLOCK, rounded);
        c->sum[2 * at] = dithered_sum(rounded, c->dither + b * PL_ACT_BLOCK);
        c->sum[2 * at + 1] = 0;
        square += norm;
        fourth += norm * norm;
    }
    return (pl_head_reach){(float)(factor * sqrt(square)), (float)(factor * sqrt(sqrt(fourth)))};
}

void pl_head_coarse_multiply(pl_head_coarse *c, pl_stream *s, const pl_act *x, int n, float *out, pl_head_reach *reach)
{
    for (int i = 0; i < n; i++)
        reach[i] = prepare_row(c, x, i);
    pl_act rounded = *x;
    rounded.hi_lo = c->hi_lo;
    rounded.sum = c->sum;
    rounded.lo_zero = true;
    pl_matmul job = {.w = &c->panels, .x = &rounded, .out = out, .out_ld = c->panels.rows, .n_rows = n};
    s->kernels->matmul(s->pool, &job, 1);
}

void pl_head_coarse_bounds(const pl_head_coarse *c, int64_t panel, const pl_head_reach *reach, float *bound)
{
    const float *largest = c->largest + panel * PL_PANEL_ROWS, *fourth = c->fourth + panel * PL_PANEL_ROWS;
    for (int i = 0; i < PL_PANEL_ROWS; i++) {
        float a = largest[i] * reach->length, b = fourth[i] * reach->fourth;
        bound[i] = a < b ? a : b;
    }
}

pl_act pl_head_coarse_row(pl_head_coarse *c)
{
    int64_t cols = c->w->cols;
    return (pl_act){
        .cols = cols, .blocks = cols / PL_ACT_BLOCK, .hi_lo = c->row_hi_lo, .scale = c->row_scale, .sum = c->row_sum};
}
