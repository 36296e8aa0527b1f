#include "host/cpu/head_screen.h"

#include "host/base/vec.h"
#include "host/cpu/head_coarse.h"
#include "host/cpu/panel.h"
#include "host/cpu/stream.h"

#include <float.h>
#include <math.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#define MAKE_CALLS 32    /* that make the copy */
#define SKIPPED_CALLS 32 /* after one that did not pay */
#define LARGEST 1e30f    /* beyond, a product may have overflowed */
#define MOST_SEEN 1024   /* panels that guesses look at for the tokens read lately */

struct pl_head_screen {
    const pl_weight *w;
    pl_head_coarse *coarse;
    int64_t panels, most; /* most: that may be computed exactly before reading all of them costs less */
    size_t panel_bytes;
    int skip;
    float *best, *upper; /* [PL_HEAD_ROWS][panels] */
    float *heap;         /* [PL_HEAD_TOP] */
    int32_t *picked;     /* [most] panels */
    bool *done;          /* [panels] */
    float *exact;        /* [most][16] */
    pl_weight *part;     /* [most] */
    pl_matmul *job;      /* [most] */
    int64_t common;      /* panels that every guess looks at: the first ones */
    int32_t *seen;       /* [most_seen] others, of tokens read lately; the oldest gives way */
    int64_t n_seen, most_seen;
    bool *looked; /* [panels] whether guesses look at it */
    pl_head_screen_count count;
};

/* ---- life -------------------------------------------------------------------------------------- */

static size_t panel_bytes(pl_dtype type, int64_t cols)
{
    pl_panel_type t = pl_panel_describe(type);
    return t.bits ? pl_panel_bytes(t, cols) : PL_PANEL_ROWS * pl_dtype_bytes(type, cols);
}

size_t pl_head_screen_bytes(int64_t rows, int64_t cols, pl_dtype type)
{
    size_t coarse = pl_head_coarse_bytes(rows, cols);
    size_t whole = (size_t)pl_panel_count(rows) * panel_bytes(type, cols);
    return cols % PL_GROUP == 0 && coarse <= whole / 4 * 3 ? coarse : 0;
}

static bool take_room(pl_head_screen *h)
{
    size_t panels = (size_t)h->panels, most = (size_t)h->most;
    h->best = calloc(PL_HEAD_ROWS * panels, sizeof *h->best);
    h->upper = calloc(PL_HEAD_ROWS * panels, sizeof *h->upper);
    h->done = calloc(panels, sizeof *h->done);
    h->heap = calloc(PL_HEAD_TOP, sizeof *h->heap);
    h->picked = calloc(most, sizeof *h->picked);
    h->exact = calloc(most, PL_PANEL_ROWS * sizeof *h->exact);
    h->part = calloc(most, sizeof *h->part);
    h->job = calloc(most, sizeof *h->job);
    h->seen = calloc((size_t)h->most_seen, sizeof *h->seen);
    h->looked = calloc(panels, sizeof *h->looked);
    return h->best && h->upper && h->done && h->heap && h->picked && h->exact && h->part && h->job && h->seen &&
           h->looked;
}

pl_status pl_head_screen_create(const pl_weight *w, pl_head_screen **out, pl_error *err)
{
    *out = NULL;
    size_t coarse = pl_head_screen_bytes(w->rows, w->cols, w->type);
    if (coarse == 0)
        return PL_OK;
    pl_head_screen *h = calloc(1, sizeof *h);
    if (!h)
        return pl_fail_memory(err, sizeof *h, "the head's coarse copy");
    h->w = w;
    h->panels = pl_panel_count(w->rows);
    h->panel_bytes = panel_bytes(w->type, w->cols);
    h->most = h->panels - (int64_t)(coarse / h->panel_bytes);
    h->common = h->panels / 8;
    h->most_seen = h->most - h->common < MOST_SEEN ? h->most - h->common : MOST_SEEN;
    pl_status status = PL_OK;
    if (!take_room(h))
        status = pl_fail_memory(err, (size_t)h->panels * 64, "the head's coarse copy");
    if (status == PL_OK)
        status = pl_head_coarse_create(w, &h->coarse, err);
    if (status == PL_OK)
        *out = h;
    else
        pl_head_screen_free(h);
    return status;
}

void pl_head_screen_free(pl_head_screen *h)
{
    if (!h)
        return;
    pl_head_coarse_free(h->coarse);
    free(h->best);
    free(h->upper);
    free(h->done);
    free(h->heap);
    free(h->picked);
    free(h->exact);
    free(h->part);
    free(h->job);
    free(h->seen);
    free(h->looked);
    free(h);
}

pl_head_screen_count pl_head_screen_counted(const pl_head_screen *h)
{
    return h->count;
}

/* ---- rows by their coarse products ------------------------------------------------------------- */

static int64_t rows_of(const pl_head_screen *h, int64_t panel)
{
    int64_t rest = h->w->rows - panel * PL_PANEL_ROWS;
    return rest < PL_PANEL_ROWS ? rest : PL_PANEL_ROWS;
}

typedef struct rate_job {
    pl_head_screen *h;
    const float *logits;
    int n;
    const pl_head_reach *reach;
    _Atomic bool large[PL_HEAD_ROWS];
} rate_job;

static float largest_lane(pl_part v)
{
    float largest = v[0];
    for (int i = 1; i < PL_PART_LANES; i++)
        largest = v[i] > largest ? v[i] : largest;
    return largest;
}

/* The products and bounds of a panel. */
static void rate_panel(rate_job *j, int row, int64_t panel, const float *coarse, const float *bound)
{
    pl_part best = part_set(-FLT_MAX), upper = best;
    pl_parti large = {0};
    for (int i = 0; i < PL_PANEL_ROWS; i += PL_PART_LANES) {
        pl_part c = part_load(coarse + i), b = part_load(bound + i);
        best = part_max(c, best);
        upper = part_max(c + b, upper);
        large |= ~((pl_part)((pl_parti)c & INT32_MAX) + b <= LARGEST); /* NaN, too */
    }
    j->h->best[row * j->h->panels + panel] = largest_lane(best);
    j->h->upper[row * j->h->panels + panel] = largest_lane(upper);
    for (int i = 0; i < PL_PART_LANES; i++)
        if (large[i])
            atomic_store_explicit(&j->large[row], true, memory_order_relaxed);
}

/* A panel is rated for all rows of x while what it keeps is at hand. */
static void rate_panels(void *ctx, int64_t begin, int64_t end, int thread)
{
    (void)thread;
    rate_job *j = ctx;
    for (int64_t p = begin; p < end; p++) {
        int64_t n = rows_of(j->h, p);
        for (int row = 0; row < j->n; row++) {
            const float *coarse = j->logits + row * j->h->w->rows + p * PL_PANEL_ROWS;
            float bound[PL_PANEL_ROWS], whole[PL_PANEL_ROWS];
            pl_head_coarse_bounds(j->h->coarse, p, &j->reach[row], bound);
            for (int64_t i = 0; i < PL_PANEL_ROWS && n < PL_PANEL_ROWS; i++)
                whole[i] = coarse[i < n ? i : 0];
            rate_panel(j, row, p, n < PL_PANEL_ROWS ? whole : coarse, bound);
        }
    }
}

/* The k-th largest of v[0..n); heap: [k], its least value first. */
static float kth_largest(const float *v, int64_t n, int k, float *heap)
{
    for (int i = 0; i < k; i++)
        heap[i] = -FLT_MAX;
    for (int64_t i = 0; i < n; i++) {
        if (v[i] <= heap[0])
            continue;
        int at = 0;
        for (int child = 1; child < k; child = 2 * at + 1) {
            child += child + 1 < k && heap[child + 1] < heap[child];
            if (heap[child] >= v[i])
                break;
            heap[at] = heap[child];
            at = child;
        }
        heap[at] = v[i];
    }
    return heap[0];
}

/* ---- panels exactly ---------------------------------------------------------------------------- */

/* Adds the panels with score >= least to those picked; false: they are too many. */
static bool pick(pl_head_screen *h, const float *score, double least, int64_t *n)
{
    for (int64_t p = 0; p < h->panels; p++) {
        if (score[p] < least || h->done[p])
            continue;
        if (*n == h->most)
            return false;
        h->done[p] = true;
        h->picked[(*n)++] = (int32_t)p;
    }
    return true;
}

/* Outputs of the picked panels [from, to), in that order, as they would be among all. */
static void multiply_picked(pl_head_screen *h, pl_stream *s, const pl_ops *ops, const pl_act *x, int64_t from,
                            int64_t to, float cap)
{
    int n_jobs = 0;
    for (int64_t i = from, run; i < to; i += run) {
        int64_t panel = h->picked[i], rows = rows_of(h, panel);
        for (run = 1; i + run < to && h->picked[i + run] == panel + run; run++)
            rows += rows_of(h, panel + run);
        h->part[n_jobs] = *h->w;
        h->part[n_jobs].data = (const char *)h->w->data + (size_t)panel * h->panel_bytes;
        h->part[n_jobs].rows = rows;
        h->job[n_jobs] = (pl_matmul){.w = &h->part[n_jobs],
                                     .x = x,
                                     .out = h->exact + i * PL_PANEL_ROWS,
                                     .out_ld = run * PL_PANEL_ROWS,
                                     .n_rows = 1};
        n_jobs++;
    }
    s->kernels->matmul(s->pool, h->job, n_jobs);
    if (cap > 0)
        ops->softcap(s, h->exact + from * PL_PANEL_ROWS, 1, (to - from) * PL_PANEL_ROWS, cap);
    for (int64_t i = from; i < to; i++)
        for (int64_t row = rows_of(h, h->picked[i]); row < PL_PANEL_ROWS; row++)
            h->exact[i * PL_PANEL_ROWS + row] = -FLT_MAX;
    h->count.bytes += (to - from) * (int64_t)h->panel_bytes;
    h->count.products += 2 * (to - from) * PL_PANEL_ROWS * h->w->cols;
}

/* What a product must reach for its capped value to reach `value`. The cap's own rounding is far below 1e-6. */
static double least_product(double value, double cap)
{
    double least = value - 1e-6 * fabs(value) - 1e-30;
    if (!(cap > 0))
        return least;
    double share = least / cap;
    return share > -1 ? cap * atanh(share) : -INFINITY;
}

typedef struct spread_job {
    const pl_head_screen *h;
    float *logits;
} spread_job;

static void forget_outputs(void *ctx, int64_t begin, int64_t end, int thread)
{
    (void)thread;
    const spread_job *j = ctx;
    int64_t rows = j->h->w->rows, to = end * PL_PANEL_ROWS < rows ? end * PL_PANEL_ROWS : rows;
    for (int64_t i = begin * PL_PANEL_ROWS; i < to; i++)
        j->logits[i] = -FLT_MAX;
}

/* logits: the picked panels' outputs, and -FLT_MAX. */
static void spread_exact(pl_head_screen *h, pl_pool *pool, float *logits, int64_t n)
{
    spread_job job = {h, logits};
    pl_pool_for(pool, h->panels, 512, forget_outputs, &job);
    for (int64_t i = 0; i < n; i++) {
        int64_t panel = h->picked[i];
        memcpy(logits + panel * PL_PANEL_ROWS, h->exact + i * PL_PANEL_ROWS,
               (size_t)rows_of(h, panel) * sizeof *logits);
    }
}

/* x: one row, as rated; logits: for its outputs. False: it takes the whole product. */
static bool top_of_row(pl_head_screen *h, pl_stream *s, const pl_ops *ops, const pl_act *x, const float *best,
                       const float *upper, float *logits, int k, float cap)
{
    int64_t n = 0;
    memset(h->done, 0, (size_t)h->panels * sizeof *h->done);
    if (!pick(h, best, kth_largest(best, h->panels, k, h->heap), &n))
        return false;
    multiply_picked(h, s, ops, x, 0, n, cap);
    float floor = kth_largest(h->exact, n * PL_PANEL_ROWS, k, h->heap);
    int64_t first = n;
    if (!pick(h, upper, least_product(floor, cap), &n))
        return false;
    multiply_picked(h, s, ops, x, first, n, cap);
    spread_exact(h, s->pool, logits, n);
    return true;
}

/* ---- guesses ----------------------------------------------------------------------------------- */

void pl_head_screen_see(pl_head_screen *h, const int32_t *id, int n)
{
    for (int i = 0; i < n; i++) {
        int32_t panel = id[i] / PL_PANEL_ROWS;
        if (id[i] < 0 || id[i] >= h->w->rows || panel < h->common || h->looked[panel])
            continue;
        int32_t *place = &h->seen[h->n_seen % h->most_seen];
        if (h->n_seen++ >= h->most_seen)
            h->looked[*place] = false;
        *place = panel;
        h->looked[panel] = true;
    }
}

/* x: one row. */
static void guess_row(pl_head_screen *h, pl_stream *s, const pl_ops *ops, const pl_act *x, float *logits, float cap)
{
    int64_t n = 0;
    for (int64_t p = 0; p < h->panels; p++)
        if (p < h->common || h->looked[p])
            h->picked[n++] = (int32_t)p;
    multiply_picked(h, s, ops, x, 0, n, cap);
    spread_exact(h, s->pool, logits, n);
    h->count.guessed++;
}

/* ---- the op ------------------------------------------------------------------------------------ */

static void multiply_whole(pl_head_screen *h, pl_stream *s, const pl_ops *ops, const pl_act *x, float *logits, int n,
                           float cap)
{
    pl_matmul job = {.w = h->w, .x = x, .out = logits, .out_ld = h->w->rows, .n_rows = n};
    s->kernels->matmul(s->pool, &job, 1);
    if (cap > 0)
        ops->softcap(s, logits, n, h->w->rows, cap);
    h->count.bytes += (int64_t)h->w->bytes;
    h->count.products += 2 * n * h->w->rows * h->w->cols;
}

/* Row i of x alone, quantised: a copy of its own, since rows lie between each other. */
static void take_row(pl_head_screen *h, pl_stream *s, const pl_act *x, int i, pl_act *row)
{
    *row = pl_head_coarse_row(h->coarse);
    row->f32 = x->f32 + i * x->ld;
    row->ld = x->ld;
    s->kernels->quantize(s->pool, row, 1);
}

static void guess_rows(pl_head_screen *h, pl_stream *s, const pl_ops *ops, const pl_act *x, float *logits, int n,
                       float cap)
{
    for (int i = 0; i < n; i++) {
        pl_act row;
        take_row(h, s, x, i, &row);
        guess_row(h, s, ops, &row, logits + i * h->w->rows, cap);
    }
}

void pl_head_screen_top(pl_head_screen *h, pl_stream *s, const pl_ops *ops, pl_act *x, float *logits, int n,
                        const int32_t *top, float cap)
{
    h->count.calls++;
    s->kernels->quantize(s->pool, x, n);
    if (top[0] == PL_HEAD_GUESS) {
        guess_rows(h, s, ops, x, logits, n, cap);
        return;
    }
    bool pays = pl_head_coarse_make(h->coarse, s, (h->panels + MAKE_CALLS - 1) / MAKE_CALLS) && h->skip == 0;
    for (int i = 0; i < n; i++)
        pays &= top[i] <= h->most;
    if (!pays) {
        h->skip -= h->skip > 0;
        multiply_whole(h, s, ops, x, logits, n, cap);
        return;
    }
    pl_head_reach reach[PL_HEAD_ROWS];
    pl_head_coarse_multiply(h->coarse, s, x, n, logits, reach);
    h->count.bytes += (int64_t)pl_head_screen_bytes(h->w->rows, h->w->cols, h->w->type);
    h->count.products += n * h->w->rows * h->w->cols;
    rate_job rate = {.h = h, .logits = logits, .n = n, .reach = reach};
    pl_pool_for(s->pool, h->panels, 256, rate_panels, &rate);
    for (int i = 0; i < n; i++) {
        pl_act row;
        float *out = logits + i * h->w->rows;
        const float *best = h->best + i * h->panels, *upper = h->upper + i * h->panels;
        take_row(h, s, x, i, &row);
        if (!rate.large[i] && top_of_row(h, s, ops, &row, best, upper, out, top[i], cap)) {
            h->count.screened++;
        } else {
            h->skip = SKIPPED_CALLS;
            multiply_whole(h, s, ops, &row, out, 1, cap);
        }
    }
}

void pl_head_screen_look(pl_head_screen *h, pl_stream *s, const pl_act *x, int n, float *coarse, float *bound)
{
    pl_head_reach reach[PL_HEAD_ROWS];
    pl_head_coarse_make(h->coarse, s, h->panels);
    pl_head_coarse_multiply(h->coarse, s, x, n, coarse, reach);
    for (int i = 0; i < n; i++) {
        for (int64_t p = 0; p < h->panels; p++) {
            float b[PL_PANEL_ROWS];
            pl_head_coarse_bounds(h->coarse, p, &reach[i], b);
            memcpy(bound + i * h->w->rows + p * PL_PANEL_ROWS, b, (size_t)rows_of(h, p) * sizeof *b);
        }
    }
}
