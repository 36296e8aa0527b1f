/* The FFN of a layer with a cutoff for many rows: each neuron of `up` and each column of `down` is unpacked for the rows whose
 * gate lets it through. Bits are those of the whole products for the reason that ffn_sparse.c gives.
 *
 * Behind the gates' product three loops: over rows, their cutoffs and the operand of `up`; over groups of neurons, `up` and
 * the activations, as lists; over outputs, `down`. Work memory: `out` holds the operand of `up` until `down` begins, x's own
 * integers give way to the lists. */
#include "host/base/isa.h"
#include "host/cpu/ffn_live.h"
#include "host/cpu/ffn_sparse.h"
#include "host/cpu/neuron.h"

#define PIECE_GROUPS 4
#define PIECE (PIECE_GROUPS * PL_GROUP)
#define BLOCK_ROWS 256 /* whose `up` is computed at once */
#define AHEAD 8        /* rows between asking for gates and using them */

typedef struct many_call {
    const pl_ffn *f;
    pl_panel_type up;
    bool halves;            /* of down's groups */
    size_t up_row, up_span; /* bytes */
    int64_t spans, groups;
    pl_wide_span *x;      /* [spans][n] */
    float *cut;           /* [n] */
    _Atomic int64_t live; /* neurons of all rows */
    pl_down_many down;
} many_call;

/* ---- rows ---- */

static void prepare_rows(void *ctx, int64_t begin, int64_t end, int thread)
{
    (void)thread;
    const many_call *c = ctx;
    const pl_ffn *f = c->f;
    for (int64_t r = begin; r < end; r++) {
        c->cut[r] = PL_ISA_NAME(pl_ffn_cutoff)(f->gate_out + r * f->ld, f->width[r], f->z);
        for (int64_t span = 0; span < c->spans; span++)
            PL_ISA_NAME(pl_widen_span)(c->up, f->x, r, span, &c->x[span * f->n + r]);
    }
}

/* ---- up ---- */

/* Neurons of a piece and a block of rows. */
typedef struct up_block {
    int64_t group;
    int groups, first, n;                    /* groups; rows */
    uint32_t live[BLOCK_ROWS][PIECE_GROUPS]; /* a bit for each neuron */
    float above[BLOCK_ROWS * PIECE];         /* what live gates exceed the cutoffs by, row after row */
    int count[PIECE];                        /* rows in which a neuron is live: */
    uint16_t row[PIECE][BLOCK_ROWS];
    float value[PIECE][BLOCK_ROWS];
} up_block;

static void list_rows(const many_call *c, up_block *b)
{
    const pl_ffn *f = c->f;
    float *above = b->above;
    memset(b->count, 0, sizeof b->count);
    for (int r = 0; r < b->n; r++) {
        int64_t row = b->first + r;
        for (int g = 0; g < b->groups; g++) {
            int64_t at = (b->group + g) * PL_GROUP;
            const float *gate = f->gate_out + row * f->ld + at;
            __builtin_prefetch(gate + AHEAD * f->ld);
            __builtin_prefetch(gate + AHEAD * f->ld + 16);
            uint32_t bits = live_bits(gate, f->width[row] - at, c->cut[row]);
            b->live[r][g] = bits;
            for (; bits; bits &= bits - 1) {
                int bit = __builtin_ctz(bits), i = g * PL_GROUP + bit;
                *above++ = gate[bit] - c->cut[row];
                b->row[i][b->count[i]++] = (uint16_t)r;
            }
        }
    }
}

static int64_t live_neurons(const up_block *b)
{
    int64_t live = 0;
    for (int i = 0; i < b->groups * PL_GROUP; i++)
        live += b->count[i];
    return live;
}

static void multiply_up(const many_call *c, up_block *b)
{
    const pl_weight *up = c->f->up;
    for (int i = 0; i < b->groups * PL_GROUP; i++)
        memset(b->value[i], 0, (size_t)b->count[i] * sizeof b->value[i][0]);
    for (int64_t span = 0; span < c->spans; span++) {
        const uint8_t *at = (const uint8_t *)up->data + (size_t)span * c->up_span;
        int64_t left = c->f->x->blocks - span * PL_SPAN_GROUPS;
        int groups = (int)(left < PL_SPAN_GROUPS ? left : PL_SPAN_GROUPS);
        at += (size_t)(b->group * PL_GROUP) * c->up_row;
        for (int i = 0; i < b->groups * PL_GROUP; i++, at += c->up_row)
            if (b->count[i])
                PL_ISA_NAME(pl_up_span)
        (up->type, groups, at, c->x + span * c->f->n + b->first, b->row[i], b->count[i], b->value[i]);
    }
}

/* ---- activations ---- */

/* The live ones of a row, neuron after neuron, in place of what the gates are above; next: of each neuron's values. */
static void activate(const up_block *b, int r, int *next, float *above)
{
    float by[PIECE];
    int n = 0;
    for (int g = 0; g < b->groups; g++) {
        for (uint32_t bits = b->live[r][g]; bits; bits &= bits - 1) {
            int i = g * PL_GROUP + __builtin_ctz(bits);
            by[n++] = b->value[i][next[i]++];
        }
    }
    row_gelu_times(above, above, by, n);
}

/* Lists in the making. */
typedef struct list_maker {
    pl_live_part part[PL_LIST_ROWS];
    pl_live_pair *pair;
    uint32_t used;
    int n;
} list_maker;

static int32_t integer_at(const int8_t *hi_lo, int i)
{
    return 128 * hi_lo[i] + hi_lo[PL_GROUP + i];
}

/* Of the neurons that bits has. */
static void append(list_maker *l, int row, const int8_t *hi_lo, uint32_t bits, int first, float scale, int32_t sum)
{
    pl_live_part *p = &l->part[l->n];
    *p = (pl_live_part){.row = (uint16_t)row, .first = l->used, .scale = scale, .shift = scale * (float)sum};
    for (uint32_t pairs = (bits | bits >> 1) & 0x55555555; pairs; pairs &= pairs - 1) {
        int i = __builtin_ctz(pairs);
        int32_t x = integer_at(hi_lo, i + 1) * 65536 + (uint16_t)integer_at(hi_lo, i);
        l->pair[l->used] = (pl_live_pair){(uint32_t)(i - first) / 2, x};
        l->used += x != 0;
    }
    p->n = (uint16_t)(l->used - p->first);
    if (p->n == 0 && !__builtin_isfinite(scale)) { /* no number, as the sum shall be */
        l->pair[l->used++] = (pl_live_pair){0, 0};
        p->n = 1;
    }
    l->n += p->n != 0;
}

static void add_group(const many_call *c, list_maker *l, int row, uint32_t bits, const float *value)
{
    float x[PL_GROUP] = {0}, scale;
    int8_t hi_lo[2 * PL_GROUP];
    int32_t sum[2];
    for (uint32_t left = bits; left; left &= left - 1)
        x[__builtin_ctz(left)] = *value++;
    PL_ISA_NAME(pl_quantize_row)(x, PL_GROUP, hi_lo, &scale, sum);
    if (!c->halves) {
        append(l, row, hi_lo, bits, 0, scale, sum[0] + sum[1]);
        return;
    }
    append(l, row, hi_lo, bits & 0xffff, 0, scale, sum[0]);
    append(l + 1, row, hi_lo, bits & 0xffff0000, 16, scale, sum[1]);
}

/* By the number of activations. */
static void sort_list(const list_maker *l, pl_live_part *out)
{
    int at[PL_GROUP / 2 + 2] = {0};
    for (int i = 0; i < l->n; i++)
        at[l->part[i].n + 1]++;
    for (int i = 0; i <= PL_GROUP / 2; i++)
        at[i + 1] += at[i];
    for (int i = 0; i < l->n; i++)
        out[at[l->part[i].n]++] = l->part[i];
}

/* Rows [begin, end) of the block, which make up a list of each part. */
static float *make_lists(const many_call *c, const up_block *b, int begin, int end, int *next, float *value)
{
    const pl_live_lists *lists = &c->down.lists;
    int parts = b->groups << c->halves;
    int64_t part = b->group << c->halves, list = (b->first + begin) / PL_LIST_ROWS;
    int64_t place = part * lists->n_rows + b->first + begin;
    list_maker l[2 * PIECE_GROUPS];
    for (int p = 0; p < 2 * PIECE_GROUPS; p++) {
        l[p].pair = p < parts ? lists->pair + (place + p * lists->n_rows) * (PL_GROUP / 2 >> c->halves) : NULL;
        l[p].used = 0;
        l[p].n = 0;
    }
    for (int r = begin; r < end; r++) {
        activate(b, r, next, value);
        for (int g = 0; g < b->groups; g++) {
            if (b->live[r][g])
                add_group(c, &l[g << c->halves], r - begin, b->live[r][g], value);
            value += __builtin_popcount(b->live[r][g]);
        }
    }
    for (int p = 0; p < parts; p++) {
        lists->count[(part + p) * lists->lists + list] = l[p].n;
        sort_list(&l[p], lists->part + place + p * lists->n_rows);
    }
    return value;
}

static void up_pieces(void *ctx, int64_t begin, int64_t end, int thread)
{
    (void)thread;
    many_call *c = ctx;
    int64_t live = 0;
    up_block b;
    for (int64_t piece = begin; piece < end; piece++) {
        b.group = piece * PIECE_GROUPS;
        b.groups = (int)(c->groups - b.group < PIECE_GROUPS ? c->groups - b.group : PIECE_GROUPS);
        for (b.first = 0; b.first < c->f->n; b.first += BLOCK_ROWS) {
            int next[PIECE] = {0};
            b.n = c->f->n - b.first < BLOCK_ROWS ? c->f->n - b.first : BLOCK_ROWS;
            list_rows(c, &b);
            live += live_neurons(&b);
            multiply_up(c, &b);
            float *value = b.above;
            for (int r = 0; r < b.n; r += PL_LIST_ROWS)
                value = make_lists(c, &b, r, r + PL_LIST_ROWS < b.n ? r + PL_LIST_ROWS : b.n, next, value);
        }
    }
    atomic_fetch_add_explicit(&c->live, live, memory_order_relaxed);
}

/* ---- down ---- */

static void down_pieces(void *ctx, int64_t begin, int64_t end, int thread)
{
    (void)thread;
    const many_call *c = ctx;
    PL_ISA_NAME(pl_down_many)(&c->down, begin, end);
}

/* ---- the op ---- */

/* All of the weights was read, for most rows in vain. */
static void count_skipped(pl_stream *s, many_call *c)
{
    const pl_ffn *f = c->f;
    uint64_t neurons = 0;
    for (int r = 0; r < f->n; r++)
        neurons += (uint64_t)f->width[r];
    neurons -= (uint64_t)atomic_load(&c->live);
    s->skipped.products += 2 * neurons * (uint64_t)(f->up->cols + f->down->rows);
}

void PL_ISA_NAME(pl_ffn_sparse_many)(pl_stream *s, const pl_ffn *f)
{
    pl_matmul gate = {.w = f->gate, .x = f->x, .out = f->gate_out, .out_ld = f->ld, .n_rows = f->n, .n_out = f->width};
    many_call c = {.f = f, .up = pl_panel_describe(f->up->type), .x = (pl_wide_span *)(void *)f->out};
    c.halves = pl_has_halves(pl_panel_describe(f->down->type).kind);
    c.up_row = pl_neuron_row_bytes(c.up, f->up->cols);
    c.up_span = pl_span_bytes(c.up) / PL_PANEL_ROWS;
    c.spans = (f->x->blocks + PL_SPAN_GROUPS - 1) / PL_SPAN_GROUPS;
    c.groups = (f->width[0] + PL_GROUP - 1) / PL_GROUP;
    c.cut = (float *)(c.x + c.spans * f->n);
    c.down = (pl_down_many){.w = f->down,
                            .lists = {f->x->sum, (pl_live_part *)(void *)f->x->hi_lo, (pl_live_pair *)(void *)f->up_out,
                                      f->n, (f->n + PL_LIST_ROWS - 1) / PL_LIST_ROWS},
                            .groups = c.groups,
                            .out = f->out};
    pl_stream_matmul(s, &gate, 1);
    pl_pool_for(s->pool, f->n, 4, prepare_rows, &c);
    pl_pool_for(s->pool, (c.groups + PIECE_GROUPS - 1) / PIECE_GROUPS, 1, up_pieces, &c);
    pl_pool_for(s->pool, (f->down->rows + PL_DOWN_OUTPUTS - 1) / PL_DOWN_OUTPUTS, 1, down_pieces, &c);
    count_skipped(s, &c);
}
