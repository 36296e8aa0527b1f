/* The FFN of a layer with a cutoff, for few rows: of `up` and `down` only the neurons that some row's gate lets
 * through are read. What is left out are groups of zeros: in a product they add fma(0, d * 0, acc), and acc is never
 * -0, since nothing that is added before is so small that it vanishes. More rows come in portions, up to a limit.
 *
 * Two loops behind the gates'. A piece of the first is a run of groups: it gathers the live rows of `up` into panels, one
 * or some at a time, multiplies them like any others, and leaves the activations as integers. A piece of the second is a
 * run of outputs over all live columns of `down`. */
#include "host/cpu/ffn_sparse.h"

#include "host/base/isa.h"
#include "host/cpu/ffn_live.h"
#include "host/cpu/neuron.h"

#include <stdatomic.h>

#define PIECE_GROUPS 64

/* So many portions of PL_SPARSE_ROWS rows at most. A row needs one neuron in twenty, a portion a third of them: more than three
 * would read and unpack neurons oftener than the form for many rows, which does so once. That holds for lanes of any width. */
#define PORTIONS 3

/* Panels gathered at once, steps of set and span between asking for rows and using them, and the cache they come to (3:
 * the first level). Smaller sets ask for fewer lines at a time, beside which a processor can still multiply. */
#if defined(__AVX512F__)
#define SET_PANELS PL_DIRECT_PANELS
#define AHEAD 4
#define ASK_LEVEL 2
#else
#define SET_PANELS 1
#define AHEAD 2
#define ASK_LEVEL 3
#endif
#define SET (SET_PANELS * PL_PANEL_ROWS) /* neurons */

typedef struct sparse_call {
    const pl_ffn *f;
    int64_t first; /* row of x, whose rows may be more than f's */
    pl_panel_type up;
    size_t up_row, up_span; /* bytes */
    float cut[PL_SPARSE_ROWS];
    pl_live_row row[PL_SPARSE_ROWS];
    int64_t groups, piece_groups;
    pl_down down;
    int64_t slabs, piece_slabs;
    _Atomic int64_t neurons; /* that were live in some row */
    _Atomic int64_t live;    /* of all rows */
    _Atomic int64_t heads;   /* groups of which that is so */
} sparse_call;

/* ---- which neurons ---- */

static int list_neurons(sparse_call *c, int64_t begin, int64_t end, int32_t *neuron)
{
    const pl_ffn *f = c->f;
    int n = 0, heads = 0;
    for (int64_t g = begin; g < end; g++) {
        uint32_t bits = 0;
        for (int r = 0; r < f->n; r++)
            bits |= live_bits(f->gate_out + r * f->ld + g * PL_GROUP, f->width[r] - g * PL_GROUP, c->cut[r]);
        heads += bits != 0;
        for (; bits; bits &= bits - 1)
            neuron[n++] = (int32_t)(g * PL_GROUP) + __builtin_ctz(bits);
    }
    atomic_fetch_add_explicit(&c->neurons, n, memory_order_relaxed);
    atomic_fetch_add_explicit(&c->heads, heads, memory_order_relaxed);
    return n;
}

/* ---- up ---- */

/* A list of neurons and the `up` of the present set of them, [panel][row]. */
typedef struct up_set {
    const sparse_call *call;
    const int32_t *neuron;
    int n;     /* of the list */
    int first; /* of the set */
    int64_t spans;
    int64_t wanted; /* steps that were asked for */
    float value[SET_PANELS * PL_SPARSE_ROWS][PL_PANEL_ROWS];
    uint8_t packed[SET_PANELS][PL_NEURON_SPAN_BYTES] __attribute__((aligned(64)));
    pl_span_codes codes[SET_PANELS];
} up_set;

/* Asks for the rows of all steps before `end`: a step is a span of a set. */
static void prefetch(up_set *s, int64_t end)
{
    const sparse_call *c = s->call;
    for (; s->wanted < end; s->wanted++) {
        int64_t from = s->wanted / s->spans * SET;
        const uint8_t *span = (const uint8_t *)c->f->up->data + (size_t)(s->wanted % s->spans) * c->up_span;
        for (int64_t i = from; i < s->n && i < from + SET; i++)
            for (size_t at = 0; at < c->up_span + 63; at += 64)
                __builtin_prefetch(span + (size_t)s->neuron[i] * c->up_row + at, 0, ASK_LEVEL);
    }
}

static void gather(up_set *s, int panel, int64_t span, int groups)
{
    int32_t row[PL_PANEL_ROWS];
    int first = s->first + panel * PL_PANEL_ROWS;
    for (int i = 0; i < PL_PANEL_ROWS; i++)
        row[i] = s->neuron[first + i < s->n ? first + i : s->n - 1];
    pl_neuron_gather(s->call->f->up, row, span, groups, s->packed[panel]);
}

static void multiply_span(up_set *s, int panels, int64_t span)
{
    const pl_ffn *f = s->call->f;
    const pl_act *x = f->x;
    pl_dtype type = f->up->type;
    int64_t ld, at = pl_act_at(x, s->call->first, span, &ld);
    const uint8_t *packed[SET_PANELS];
    for (int p = 0; p < panels; p++) {
        gather(s, p, span, (int)ld);
        packed[p] = s->packed[p];
        if (f->n > PL_DIRECT_ROWS)
            PL_ISA_NAME(pl_unpack)(type, packed[p], (int)ld, &s->codes[p]);
    }
    for (int r = 0; r < f->n; r += PL_TILE_ROWS) {
        pl_row_terms terms[PL_TILE_ROWS];
        int n = f->n - r < PL_TILE_ROWS ? f->n - r : PL_TILE_ROWS;
        for (int i = 0; i < n; i++)
            PL_ISA_NAME(pl_terms)
        (s->call->up, x->sum + 2 * (at + (r + i) * ld), x->scale + at + (r + i) * ld, (int)ld, &terms[i]);
        pl_tile_rows rows = {
            x->hi_lo + (at + r * ld) * 2 * PL_GROUP, x->scale + at + r * ld, terms, ld, n, 0, x->lo_zero};
        if (f->n > PL_DIRECT_ROWS)
            PL_ISA_NAME(pl_tile)(type, s->codes, panels, (int)ld, &rows, s->value[r], f->n);
        else
            PL_ISA_NAME(pl_direct)(type, packed, panels, (int)ld, &rows, s->value[0], f->n);
    }
}

/* out[r][i] = the activation of neuron i of the set. */
static void activate(const up_set *s, int panels, float (*out)[PIECE_GROUPS * PL_GROUP])
{
    const sparse_call *c = s->call;
    for (int p = 0; p < panels; p++) {
        int first = s->first + p * PL_PANEL_ROWS, n = s->n - first < PL_PANEL_ROWS ? s->n - first : PL_PANEL_ROWS;
        for (int r = 0; r < c->f->n; r++) {
            float gate[PL_LANES], above[PL_LANES];
            for (int i = 0; i < PL_LANES; i++) {
                int32_t at = s->neuron[first + (i < n ? i : 0)];
                gate[i] = at < c->f->width[r] ? c->f->gate_out[r * c->f->ld + at] : c->cut[r];
                above[i] = gate[i] - c->cut[r];
            }
            pl_vec v = vec_gelu(vec_load(above)) * vec_load(s->value[p * c->f->n + r]);
            for (int i = 0; i < n; i++)
                out[r][first + i] = gate[i] <= c->cut[r] ? 0.0f : v[i];
        }
    }
}

/* ---- as integers ---- */

/* Group g of a row from the activations of n neurons in it; *at: behind what the row's list holds. */
static void store_group(const pl_live_row *row, int64_t g, const int32_t *neuron, const float *value, int n,
                        int32_t *at)
{
    pl_live_group *group = &row->group[g];
    *group = (pl_live_group){.first = *at};
    if (n == 0)
        return;
    float x[PL_GROUP] = {0};
    int8_t hi_lo[2 * PL_GROUP];
    for (int i = 0; i < n; i++)
        x[neuron[i] % PL_GROUP] = value[i];
    PL_ISA_NAME(pl_quantize_row)(x, PL_GROUP, hi_lo, &group->scale, group->sum);
    for (int i = 0; i < n; i++) {
        int lane = neuron[i] % PL_GROUP;
        int32_t q = 128 * hi_lo[lane] + hi_lo[PL_GROUP + lane];
        if (q != 0)
            row->live[(*at)++] = (uint32_t)neuron[i] << 16 | (uint16_t)q;
    }
    group->n = *at - group->first;
}

static void up_piece(sparse_call *c, int64_t begin, int64_t end)
{
    int32_t neuron[PIECE_GROUPS * PL_GROUP];
    float value[PL_SPARSE_ROWS][PIECE_GROUPS * PL_GROUP] = {{0}};
    up_set s = {.call = c, .neuron = neuron, .spans = (c->f->x->blocks + PL_SPAN_GROUPS - 1) / PL_SPAN_GROUPS};
    s.n = list_neurons(c, begin, end, neuron);
    for (int64_t step = 0; s.first < s.n; s.first += SET) {
        int panels = (int)pl_panel_count(s.n - s.first < SET ? s.n - s.first : SET);
        memset(s.value, 0, sizeof s.value);
        for (int64_t span = 0; span < s.spans; span++, step++) {
            prefetch(&s, step + AHEAD);
            multiply_span(&s, panels, span);
        }
        activate(&s, panels, value);
    }
    int64_t live = 0;
    for (int r = 0; r < c->f->n; r++) {
        int32_t at = (int32_t)(begin * PL_GROUP);
        for (int64_t g = begin, i = 0, n; g < end; g++, i += n) {
            for (n = 0; i + n < s.n && neuron[i + n] < (g + 1) * PL_GROUP;)
                n++;
            store_group(&c->row[r], g, neuron + i, value[r] + i, (int)n, &at);
        }
        live += at - begin * PL_GROUP;
    }
    atomic_fetch_add_explicit(&c->live, live, memory_order_relaxed);
}

static void up_pieces(void *ctx, int64_t begin, int64_t end, int thread)
{
    (void)thread;
    sparse_call *c = ctx;
    for (int64_t piece = begin; piece < end; piece++) {
        int64_t first = piece * c->piece_groups, stop = first + c->piece_groups;
        up_piece(c, first, stop < c->groups ? stop : c->groups);
    }
}

/* ---- down ---- */

static void down_pieces(void *ctx, int64_t begin, int64_t end, int thread)
{
    (void)thread;
    const sparse_call *c = ctx;
    for (int64_t piece = begin; piece < end; piece++) {
        int64_t first = piece * c->piece_slabs, stop = first + c->piece_slabs;
        PL_ISA_NAME(pl_down_slabs)(&c->down, first, stop < c->slabs ? stop : c->slabs);
    }
}

/* ---- the op ---- */

static int64_t clamp(int64_t x, int64_t least, int64_t most)
{
    return x < least ? least : x > most ? most : x;
}

static void share_out(sparse_call *c, int threads)
{
    const pl_ffn *f = c->f;
    int64_t pieces = threads > 1 ? 2 * (int64_t)threads : 1;
    c->groups = (f->width[0] + PL_GROUP - 1) / PL_GROUP;
    c->piece_groups = clamp((c->groups + pieces - 1) / pieces, 1, PIECE_GROUPS);
    c->slabs = (f->down->rows + 63) / 64;
    c->piece_slabs = clamp((c->slabs / pieces + 1) / 2 * 2, 2, PL_DOWN_SLABS); /* two: a line of 4-bit codes */
    for (int r = 0; r < f->n; r++)
        c->row[r] = (pl_live_row){(pl_live_group *)(void *)f->mid->hi_lo + r * c->groups,
                                  (uint32_t *)(void *)f->up_out + r * f->ld};
    c->down = (pl_down){f->down, c->row, f->n, c->groups, f->out};
}

/* What products of all of up and down take. */
static void count_whole(pl_stream *s, const pl_ffn *f)
{
    uint64_t neurons = 0, groups = (uint64_t)((f->width[0] + PL_GROUP - 1) / PL_GROUP);
    pl_neuron_columns columns = pl_neuron_columns_of(pl_panel_describe(f->down->type), f->down->rows);
    size_t up_row = pl_neuron_row_bytes(pl_panel_describe(f->up->type), f->up->cols);
    for (int r = 0; r < f->n; r++)
        neurons += (uint64_t)f->width[r];
    s->skipped.bytes += (uint64_t)f->width[0] * (up_row + columns.column) + groups * columns.heads / PL_SPAN_GROUPS;
    s->skipped.products += 2 * neurons * (uint64_t)(f->up->cols + f->down->rows);
}

/* And what was taken here. */
static void count_live(pl_stream *s, sparse_call *c)
{
    const pl_ffn *f = c->f;
    pl_neuron_columns columns = pl_neuron_columns_of(pl_panel_describe(f->down->type), f->down->rows);
    uint64_t neurons = (uint64_t)atomic_load(&c->neurons), heads = (uint64_t)atomic_load(&c->heads);
    uint64_t live = (uint64_t)atomic_load(&c->live);
    s->skipped.bytes -= neurons * (c->up_row + columns.column) + heads * columns.heads / PL_SPAN_GROUPS;
    s->skipped.products -= 2 * (neurons * (uint64_t)(f->n * f->up->cols) + live * (uint64_t)f->down->rows);
}

/* Rows whose gates are there, the first of them row `first` of x. */
static void multiply_live(pl_stream *s, const pl_ffn *f, int64_t first)
{
    sparse_call c = {.f = f, .first = first, .up = pl_panel_describe(f->up->type)};
    c.up_row = pl_neuron_row_bytes(c.up, f->up->cols);
    c.up_span = pl_span_bytes(c.up) / PL_PANEL_ROWS;
    share_out(&c, pl_pool_threads(s->pool));
    for (int r = 0; r < f->n; r++)
        c.cut[r] = PL_ISA_NAME(pl_ffn_cutoff)(f->gate_out + r * f->ld, f->width[r], f->z);
    pl_pool_for(s->pool, (c.groups + c.piece_groups - 1) / c.piece_groups, 1, up_pieces, &c);
    pl_pool_for(s->pool, (c.slabs + c.piece_slabs - 1) / c.piece_slabs, 1, down_pieces, &c);
    count_live(s, &c);
}

/* All rows' gates, then `up` and `down` for portions of them. */
static void ffn_sparse(pl_stream *s, const pl_ffn *f)
{
    pl_matmul gate = {.w = f->gate, .x = f->x, .out = f->gate_out, .out_ld = f->ld, .n_rows = f->n, .n_out = f->width};
    pl_stream_matmul(s, &gate, 1);
    for (int first = 0; first < f->n; first += PL_SPARSE_ROWS) {
        pl_ffn portion = *f;
        portion.gate_out += first * f->ld;
        portion.up_out += first * f->ld;
        portion.out += first * f->down->rows;
        portion.width += first;
        portion.n = f->n - first < PL_SPARSE_ROWS ? f->n - first : PL_SPARSE_ROWS;
        multiply_live(s, &portion, first);
    }
    count_whole(s, f);
}

static void ffn_sparse_many(pl_stream *s, const pl_ffn *f)
{
    if (f->n > PORTIONS * PL_SPARSE_ROWS)
        PL_ISA_NAME(pl_ffn_sparse_many)(s, f);
    else
        ffn_sparse(s, f);
}

void PL_ISA_NAME(pl_ffn_sparse_ops)(pl_ops *ops)
{
    ops->ffn_sparse = ffn_sparse;
    ops->ffn_sparse_many = ffn_sparse_many;
}
