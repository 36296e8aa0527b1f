/* The matrix product: how work is cut into pieces and what a piece does, over the kernels of matmul_tile.h.
 *
 * A piece is all rows of x times a few rows of weights, so that weights come from memory once however many rows
 * there are. Up to eight rows: one to four panels side by side straight from their packed form, as many streams as suit the
 * prefetchers, four rows at a time. More rows: spans of 16 panels are unpacked and applied to tiles of rows, each of which comes to the
 * first-level cache once; sums of up to 512 rows wait in a local array between spans. */
#include "host/cpu/matmul.h"

#include "host/base/cpu.h"
#include "host/cpu/matmul_tile.h"
#include "host/cpu/neuron.h"

#include <string.h>
#if defined(__x86_64__)
#include <immintrin.h>
#endif

#define BLOCK_ROWS 512            /* rows whose sums and terms fit the second-level cache beside the weights */
#define SUM_ROWS (BLOCK_ROWS + 4) /* a row's sums of several panels: in different sets of the first-level cache */
#define PIECE_PANELS 16
#define LONG_PIECE_PANELS 16
#define LONG_PANEL (4 * PL_SPAN) /* columns */
#define FEW_ROWS (2 * PL_DIRECT_ROWS)
#define AROUND_BYTES ((size_t)8 << 20)
#define PIECE_OUTPUTS 96 /* plain types, many rows */
#define PIECE_OUTPUTS_FEW 8

_Static_assert(PL_SPAN == PL_ACT_SPAN && PL_GROUP == PL_ACT_BLOCK, "weights and activations are cut alike");

typedef struct matmul_call {
    const pl_tile_kernels *kernels;
    const pl_matmul *jobs;
    int n_jobs;
    int threads;
    bool rounded;
} matmul_call;

static int64_t smaller(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

static int64_t row_outputs(const pl_matmul *j, int i)
{
    return j->n_out ? j->n_out[i] : j->w->rows;
}

static int64_t row_inputs(const pl_matmul *j, int i)
{
    return j->n_in ? j->n_in[i] : j->w->cols;
}

/* Rows that want outputs from `first` on: a prefix. */
static int rows_alive(const pl_matmul *j, int64_t first)
{
    int n = j->n_rows;
    if (j->n_out)
        while (n > 0 && j->n_out[n - 1] <= first)
            n--;
    return n;
}

/* ---- block types ---- */

/* Panels at `panel`, panel + step and so on, at most PIECE_PANELS, and the block of rows from `row` on. */
typedef struct panel_piece {
    const pl_tile_kernels *kernels;
    const pl_matmul *job;
    pl_panel_type type;
    size_t panel_bytes;
    int64_t panel, step;
    int n_panels;
    int row, n_rows;
    void (*multiply)(struct panel_piece *p, int64_t span); /* of many rows */
    bool terms_stay;                                       /* those of all rows and spans are there, span after span */
    float acc[PIECE_PANELS][SUM_ROWS][PL_PANEL_ROWS] __attribute__((aligned(64)));
    pl_row_terms terms[BLOCK_ROWS];
    union {
        pl_span_codes codes[PIECE_PANELS];
        pl_wide_codes wide[PIECE_PANELS];
    };
    uint8_t neurons[PIECE_PANELS][PL_NEURON_SPAN_BYTES] __attribute__((aligned(64)));
} panel_piece;

/* Groups of the span that row r of the block reads. */
static int row_groups(const panel_piece *p, int r, int64_t span)
{
    int64_t rest = row_inputs(p->job, p->row + r) / PL_GROUP - span * PL_SPAN_GROUPS;
    return rest <= 0 ? 0 : (int)smaller(rest, PL_SPAN_GROUPS);
}

static const uint8_t *span_at(panel_piece *p, int panel, int64_t span)
{
    const pl_weight *w = p->job->w;
    int64_t at = p->panel + panel * p->step;
    if (w->layout == PL_PANELS)
        return (const uint8_t *)w->data + (size_t)at * p->panel_bytes + (size_t)span * pl_span_bytes(p->type);
    pl_neuron_span(w, at, span, row_groups(p, 0, span), p->neurons[panel]);
    return p->neurons[panel];
}

static pl_row_terms *terms_at(panel_piece *p, int64_t span)
{
    return p->terms + (p->terms_stay ? span * p->job->n_rows : 0);
}

static void fill_terms(panel_piece *p, int64_t span, int n_rows)
{
    const pl_act *x = p->job->x;
    pl_row_terms *terms = terms_at(p, span);
    for (int r = 0; r < n_rows; r++) {
        int64_t ld, at = pl_act_at(x, p->row + r, span, &ld);
        p->kernels->terms(p->type, x->sum + 2 * at, x->scale + at, row_groups(p, r, span), &terms[r]);
    }
}

/* Of few rows, whose panels all read the same terms. */
static void fill_all_terms(panel_piece *p)
{
    int64_t spans = (row_inputs(p->job, 0) + PL_SPAN - 1) / PL_SPAN;
    p->row = 0;
    p->terms_stay = p->job->n_rows <= FEW_ROWS && spans * p->job->n_rows <= BLOCK_ROWS;
    for (int64_t span = 0; span < spans && p->terms_stay; span++)
        fill_terms(p, span, p->job->n_rows);
}

static pl_tile_rows rows_at(panel_piece *p, int r, int n, int64_t span)
{
    const pl_act *x = p->job->x;
    int64_t ld, at = pl_act_at(x, p->row + r, span, &ld);
    size_t ahead = r == 0 ? pl_span_bytes(p->type) : 0;
    return (pl_tile_rows){x->hi_lo + at * 2 * PL_GROUP, x->scale + at, terms_at(p, span) + r, ld, n, ahead, x->lo_zero};
}

/* Rows of the run that starts at r: all read the same groups. */
static int run_length(const panel_piece *p, int r, int n, int64_t span)
{
    int run = 1;
    while (r + run < n && row_groups(p, r + run, span) == row_groups(p, r, span))
        run++;
    return run;
}

/* So many of `left` rows are multiplied next, at most `most`: of 8 twice 4, not 6 and 2. */
static int even_share(int left, int most)
{
    int shares = (left + most - 1) / most;
    return (left + shares - 1) / shares;
}

static void multiply_tiles(panel_piece *p, int64_t span, int r, int n)
{
    for (int end = r + n; r < end;) {
        int some = even_share(end - r, PL_TILE_ROWS);
        pl_tile_rows rows = rows_at(p, r, some, span);
        p->kernels->tile(p->job->w->type, p->codes, p->n_panels, row_groups(p, r, span), &rows, p->acc[0][r], SUM_ROWS);
        r += some;
    }
}

static void multiply_many(panel_piece *p, int64_t span, int r, int n)
{
    int first = r / PL_ACT_WIDE_ROWS * PL_ACT_WIDE_ROWS;
    pl_wide_rows rows = {.begin = r - first, .end = r - first + n, .rows = rows_at(p, r, n, span)};
    if (p->kernels->many.widen)
        rows.tile = pl_wide_tile(p->job->x, span, (p->row + first) / PL_ACT_WIDE_ROWS, &rows.tile_bytes);
    p->kernels->many.multiply(p->job->w->type, p->wide, p->n_panels, row_groups(p, r, span), &rows, p->acc[0][first],
                              SUM_ROWS);
}

static bool is_wide(const pl_tile_kernels *kernels, const pl_matmul *j, int n_rows)
{
    return kernels->many.multiply && j->w->packed && (j->x->wide || !kernels->many.widen) &&
           n_rows >= kernels->many.rows;
}

/* All rows times all panels of the piece. */
static void multiply_span(panel_piece *p, int64_t span)
{
    int n = p->n_rows;
    while (n > 0 && row_groups(p, n - 1, span) == 0)
        n--;
    if (n == 0)
        return;
    bool many = is_wide(p->kernels, p->job, n);
    if (!p->terms_stay && (!many || (!p->kernels->many.widen && pl_has_minimum(p->type.kind))))
        fill_terms(p, span, n);
    for (int i = 0; i < p->n_panels; i++) {
        const uint8_t *packed = span_at(p, i, span);
        if (many)
            p->kernels->many.unpack(p->job->w->type, packed, row_groups(p, 0, span), &p->wide[i]);
        else
            p->kernels->unpack(p->job->w->type, packed, row_groups(p, 0, span), &p->codes[i]);
    }
    for (int r = 0, run; r < n; r += run) {
        run = run_length(p, r, n, span);
        (many ? multiply_many : multiply_tiles)(p, span, r, run);
    }
}

static void multiply_few(panel_piece *p, int64_t span)
{
    const uint8_t *at[PL_DIRECT_PANELS];
    for (int i = 0; i < p->n_panels; i++)
        at[i] = span_at(p, i, span);
    if (!p->terms_stay)
        fill_terms(p, span, p->n_rows);
    for (int r = 0, some; r < p->n_rows; r += some) {
        some = even_share(p->n_rows - r, PL_DIRECT_ROWS);
        pl_tile_rows rows = rows_at(p, r, some, span);
        p->kernels->direct(p->job->w->type, at, p->n_panels, row_groups(p, 0, span), &rows, p->acc[0][r], SUM_ROWS);
    }
}

static void multiply_rounded(panel_piece *p, int64_t span)
{
    const pl_many_kernels *k = &p->kernels->rounded;
    const pl_dtype type = p->job->w->type;
    int groups = row_groups(p, 0, span);
    for (int i = 0; i < p->n_panels; i++)
        k->unpack(type, span_at(p, i, span), groups, &p->wide[i]);
    pl_wide_rows rows = {.end = p->n_rows};
    rows.tile = pl_wide_tile(p->job->x, span, p->row / PL_ACT_WIDE_ROWS, &rows.tile_bytes);
    k->multiply(type, p->wide, p->n_panels, groups, &rows, p->acc[0][0], SUM_ROWS);
}

/* Products that no cache will hold until they are read go around the caches, which otherwise read a line before it is
 * overwritten. */
static bool goes_around(const pl_matmul *j)
{
    return (size_t)j->n_rows * (size_t)j->w->rows * sizeof *j->out >= AROUND_BYTES;
}

/* One panel's sums of a row. */
static void store_around(float *out, const float *sums)
{
#if defined(__x86_64__)
    for (int i = 0; i < PL_PANEL_ROWS; i += 4)
        _mm_stream_ps(out + i, _mm_loadu_ps(sums + i));
#else
    memcpy(out, sums, PL_PANEL_ROWS * sizeof *out);
#endif
}

static void end_around(void)
{
#if defined(__x86_64__)
    _mm_sfence();
#endif
}

static void store_piece(const panel_piece *p)
{
    const pl_matmul *j = p->job;
    const bool around = goes_around(j);
    for (int r = 0; r < p->n_rows; r++) {
        float *out = j->out + (p->row + r) * j->out_ld;
        int64_t end = row_outputs(j, p->row + r);
        for (int i = 0; i < p->n_panels; i++) {
            int64_t n = (p->panel + i * p->step) * PL_PANEL_ROWS;
            if (n + PL_PANEL_ROWS <= end && around && (uintptr_t)(out + n) % 64 == 0)
                store_around(out + n, p->acc[i][r]);
            else if (n + PL_PANEL_ROWS <= end)
                memcpy(out + n, p->acc[i][r], sizeof p->acc[i][r]);
            else if (n < end)
                memcpy(out + n, p->acc[i][r], (size_t)(end - n) * sizeof *out);
        }
    }
    if (around)
        end_around();
}

/* All rows times the panels of p. */
static void multiply_panels(panel_piece *p)
{
    int n = rows_alive(p->job, p->panel * PL_PANEL_ROWS);
    for (p->row = 0; p->row < n; p->row += p->n_rows) {
        p->n_rows = (int)smaller(BLOCK_ROWS, n - p->row);
        int64_t spans = (row_inputs(p->job, p->row) + PL_SPAN - 1) / PL_SPAN;
        bool few = p->n_rows <= FEW_ROWS && p->n_panels <= PL_DIRECT_PANELS &&
                   row_inputs(p->job, p->row + p->n_rows - 1) == row_inputs(p->job, p->row);
        for (int i = 0; i < p->n_panels; i++)
            memset(p->acc[i], 0, (size_t)p->n_rows * sizeof p->acc[i][0]);
        for (int64_t span = 0; span < spans; span++)
            (few ? multiply_few : p->multiply)(p, span);
        store_piece(p);
    }
}

static int piece_panels(const pl_matmul *j)
{
    return j->n_rows <= FEW_ROWS ? PL_DIRECT_PANELS : PIECE_PANELS;
}

/* Short panels end before the prefetchers follow more streams than one. More rows than two are bound by their products: panels
 * side by side share what is made of the rows. */
static int streams(const pl_tile_kernels *kernels, const pl_matmul *j, pl_panel_type type)
{
    if (j->n_rows > 2)
        return PL_DIRECT_PANELS;
    return j->n_rows == 1 && type.bits == 8 && j->w->cols >= LONG_PANEL ? kernels->byte_streams : kernels->streams;
}

/* Panels [begin, end), some at a time: each of four, say, runs through a quarter of them, so that it stays one stream
 * from panel to panel. */
static void multiply_packed(const matmul_call *call, const pl_matmul *j, int64_t begin, int64_t end)
{
    panel_piece p;
    p.kernels = call->kernels;
    p.job = j;
    p.multiply = call->rounded ? multiply_rounded : multiply_span;
    p.type = pl_panel_describe(j->w->type);
    p.panel_bytes = pl_panel_bytes(p.type, j->w->cols);
    fill_all_terms(&p);
    int width = j->n_rows <= FEW_ROWS ? streams(call->kernels, j, p.type) : PIECE_PANELS;
    p.step = (end - begin + width - 1) / width;
    for (p.panel = begin; p.panel < begin + p.step; p.panel++) {
        p.n_panels = (int)((end - p.panel + p.step - 1) / p.step);
        multiply_panels(&p);
    }
}

/* ---- plain types ---- */

/* Outputs [begin, end) for runs of rows with the same share of them and the same inputs. */
static void multiply_plain(const matmul_call *call, const pl_matmul *j, int64_t begin, int64_t end)
{
    const pl_weight *w = j->w;
    size_t w_ld = pl_dtype_bytes(w->type, w->cols);
    int n = rows_alive(j, begin);
    for (int i = 0; i < n;) {
        int64_t stop = smaller(end, row_outputs(j, i)), k = row_inputs(j, i);
        int run = 1;
        while (i + run < n && smaller(end, row_outputs(j, i + run)) == stop && row_inputs(j, i + run) == k)
            run++;
        call->kernels->dot(w->type, (const char *)w->data + (size_t)begin * w_ld, w_ld, (int)(stop - begin),
                           j->x->f32 + i * j->x->ld, j->x->ld, run, k, j->out + i * j->out_ld + begin, j->out_ld);
        i += run;
    }
}

/* ---- pieces ---- */

/* Weight rows a piece: as many as leave some pieces for every thread to take. */
static int64_t piece_rows(const pl_matmul *j, int threads)
{
    int64_t share = (j->w->rows + threads - 1) / threads;
    if (!j->w->packed)
        return j->n_rows == 1 ? PIECE_OUTPUTS_FEW : smaller(PIECE_OUTPUTS, (share + 7) / 8 * 8);
    int64_t panels = pl_panel_count(share);
    return PL_PANEL_ROWS *
           (panels >= 8 * LONG_PIECE_PANELS ? LONG_PIECE_PANELS : smaller(piece_panels(j), (panels + 3) / 4));
}

static int64_t piece_count(const pl_matmul *j, int threads)
{
    int64_t rows = piece_rows(j, threads);
    return j->n_rows > 0 ? (j->w->rows + rows - 1) / rows : 0;
}

static void multiply_piece(const matmul_call *call, const pl_matmul *j, int64_t piece)
{
    int64_t rows = piece_rows(j, call->threads), begin = piece * rows, end = smaller(begin + rows, j->w->rows);
    if (j->w->packed)
        multiply_packed(call, j, begin / PL_PANEL_ROWS, pl_panel_count(end));
    else
        multiply_plain(call, j, begin, end);
}

/* Pieces are numbered through all jobs. */
static void multiply_pieces(void *ctx, int64_t begin, int64_t end, int thread)
{
    (void)thread;
    const matmul_call *call = ctx;
    int64_t first = 0;
    for (int i = 0; i < call->n_jobs && first < end; i++) {
        int64_t n = piece_count(&call->jobs[i], call->threads);
        for (int64_t piece = begin > first ? begin - first : 0; piece < n && first + piece < end; piece++)
            multiply_piece(call, &call->jobs[i], piece);
        first += n;
    }
}

/* ---- another form of the activations ---- */

typedef struct widen_call {
    void (*widen)(const pl_act *x, int64_t span, int64_t tile);
    const pl_act *x;
    int64_t spans;
} widen_call;

static void widen_tiles(void *ctx, int64_t begin, int64_t end, int thread)
{
    (void)thread;
    const widen_call *call = ctx;
    for (int64_t i = begin; i < end; i++)
        call->widen(call->x, i % call->spans, i / call->spans);
}

/* Whether all products of block types can be of rounded operands, which all rows have as many of. */
static bool can_round(const pl_many_kernels *k, const pl_matmul *jobs, int n_jobs)
{
    for (int i = 0; i < n_jobs; i++) {
        const pl_matmul *j = &jobs[i];
        bool fits = j->x->rounded && j->x->wide && j->n_rows >= k->rows &&
                    row_inputs(j, 0) == row_inputs(j, j->n_rows - 1) &&
                    pl_code_bits(pl_panel_describe(j->w->type)) <= k->code_bits;
        if (!k->multiply || (j->w->packed && !fits))
            return false;
    }
    return true;
}

/* Once for each operand that is read so. */
static void widen(const pl_tile_kernels *kernels, pl_pool *pool, const pl_matmul *jobs, int n_jobs, bool rounded)
{
    const pl_act *done = NULL;
    void (*tile)(const pl_act *, int64_t, int64_t) = rounded ? kernels->rounded.widen : kernels->many.widen;
    for (int i = 0; i < n_jobs && tile; i++) {
        const pl_act *x = jobs[i].x;
        if (x == done || !is_wide(kernels, &jobs[i], jobs[i].n_rows))
            continue;
        widen_call call = {tile, x, (x->blocks + PL_SPAN_GROUPS - 1) / PL_SPAN_GROUPS};
        pl_pool_for(pool, (x->rows + PL_ACT_WIDE_ROWS - 1) / PL_ACT_WIDE_ROWS * call.spans, 4, widen_tiles, &call);
        done = x;
    }
}

static void matmul_run(const pl_tile_kernels *kernels, pl_pool *pool, const pl_matmul *jobs, int n_jobs)
{
    matmul_call call = {kernels, jobs, n_jobs, pl_pool_threads(pool), can_round(&kernels->rounded, jobs, n_jobs)};
    widen(kernels, pool, jobs, n_jobs, call.rounded);
    int64_t pieces = 0;
    for (int i = 0; i < n_jobs; i++)
        pieces += piece_count(&jobs[i], call.threads);
    int64_t grain = pieces / (16 * (int64_t)call.threads);
    pl_pool_for(pool, pieces, grain > 0 ? grain : 1, multiply_pieces, &call);
}

static uint64_t rounded_away(const pl_tile_kernels *kernels, pl_rounding rounding, const pl_matmul *jobs, int n_jobs)
{
    uint64_t products = 0;
    if (rounding != PL_ROUNDS_ACTS || !can_round(&kernels->rounded, jobs, n_jobs))
        return 0;
    for (int i = 0; i < n_jobs; i++)
        for (int r = 0; r < jobs[i].n_rows && jobs[i].w->packed; r++)
            products += (uint64_t)(row_inputs(&jobs[i], r) * row_outputs(&jobs[i], r));
    return products;
}

/* ---- activations ---- */

typedef struct quantize_call {
    const pl_tile_kernels *kernels;
    const pl_act *act;
    int64_t parts; /* of a row */
} quantize_call;

#define PART_SPANS 8

static void quantize_part(const quantize_call *call, int64_t row, int64_t part)
{
    const pl_act *x = call->act;
    int64_t spans = (x->blocks + PL_SPAN_GROUPS - 1) / PL_SPAN_GROUPS, end = smaller(spans, (part + 1) * PART_SPANS);
    for (int64_t span = part * PART_SPANS; span < end; span++) {
        int64_t ld, at = pl_act_at(x, row, span, &ld), col = span * PL_SPAN;
        call->kernels->quantize_row(x->f32 + row * x->ld + col, smaller(x->cols - col, PL_SPAN),
                                    x->hi_lo + at * 2 * PL_ACT_BLOCK, x->scale + at, x->sum + 2 * at);
    }
}

static void quantize_parts(void *ctx, int64_t begin, int64_t end, int thread)
{
    (void)thread;
    const quantize_call *call = ctx;
    for (int64_t i = begin; i < end; i++)
        quantize_part(call, i / call->parts, i % call->parts);
}

static void quantize_run(const pl_tile_kernels *kernels, pl_pool *pool, pl_act *act, int n)
{
    const int64_t part_blocks = PART_SPANS * PL_SPAN_GROUPS;
    act->rows = n;
    quantize_call call = {.kernels = kernels, .act = act, .parts = (act->blocks + part_blocks - 1) / part_blocks};
    pl_pool_for(pool, n * call.parts, 4, quantize_parts, &call);
}

/* ---- selection ---- */

/* isa's kernels for block types, those of `other` for the rest. */
#define KERNELS(name, isa, other, title, streams, byte_streams, wide, rounding, bits, many, ...)                       \
    static const pl_tile_kernels tiles_##name = {streams,                                                              \
                                                 byte_streams,                                                         \
                                                 pl_unpack_##isa,                                                      \
                                                 pl_tile_##isa,                                                        \
                                                 pl_direct_##isa,                                                      \
                                                 pl_dot_##other,                                                       \
                                                 pl_quantize_row_##other,                                              \
                                                 pl_terms_##other,                                                     \
                                                 many,                                                                 \
                                                 {PL_ROUNDED_ROWS, bits, __VA_ARGS__}};                                \
    static void matmul_##name(pl_pool *pool, const pl_matmul *jobs, int n_jobs)                                        \
    {                                                                                                                  \
        matmul_run(&tiles_##name, pool, jobs, n_jobs);                                                                 \
    }                                                                                                                  \
    static void quantize_##name(pl_pool *pool, pl_act *act, int n)                                                     \
    {                                                                                                                  \
        quantize_run(&tiles_##name, pool, act, n);                                                                     \
    }                                                                                                                  \
    static uint64_t rounded_away_##name(const pl_matmul *jobs, int n_jobs)                                             \
    {                                                                                                                  \
        return rounded_away(&tiles_##name, rounding, jobs, n_jobs);                                                    \
    }                                                                                                                  \
    static const pl_matmul_kernels kernels_##name = {title,           wide,          rounding,           bits,         \
                                                     quantize_##name, matmul_##name, rounded_away_##name};

#define MANY(isa, rows, widen)                                                                                         \
    {                                                                                                                  \
        rows, 8, widen, pl_unpack_wide_##isa, pl_many_##isa                                                            \
    }
#define ROUNDED(isa) pl_round_rows_##isa, pl_unpack_rounded_##isa, pl_rounded_##isa

KERNELS(base, base, base, "plain C", 4, 4, false, PL_ROUNDS_NOTHING, 0, {0}, NULL, NULL, NULL)
#if defined(__x86_64__)
KERNELS(avx2, avx2, avx2, "AVX2", 1, 2, true, PL_ROUNDS_ACTS, 6, MANY(avx2, 10, pl_widen_avx2), ROUNDED(avx2))
KERNELS(avxvnni, avxvnni, avx2, "AVX-VNNI", 4, 4, true, PL_ROUNDS_ACTS, 8, MANY(avxvnni, 12, pl_widen_avxvnni),
        ROUNDED(avxvnni))
KERNELS(avx512, avx512, avx512, "AVX-512 VNNI", 4, 4, true, PL_ROUNDS_ACTS, 8, MANY(avx512, 32, pl_widen_avx512),
        ROUNDED(avx512))
KERNELS(amx, avx512, avx512, "AMX", 4, 4, false, PL_ROUNDS_BOTH, 8, MANY(amx, 10, NULL), ROUNDED(amx))
#endif

const pl_matmul_kernels *pl_matmul_select(unsigned features)
{
#if defined(__x86_64__)
    const unsigned amx = PL_CPU_AMX_INT8 | PL_CPU_AMX_BF16 | PL_CPU_AVX512_BF16 | PL_CPU_AVX512_VNNI;
    if ((features & amx) == amx && pl_cpu_enable_amx(NULL) == PL_OK)
        return &kernels_amx;
    if (features & PL_CPU_AVX512_VNNI)
        return &kernels_avx512;
    if (features & PL_CPU_AVX_VNNI)
        return &kernels_avxvnni;
    if (features & PL_CPU_AVX2)
        return &kernels_avx2;
#endif
    (void)features;
    return &kernels_base;
}
