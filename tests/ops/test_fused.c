/* Fused ops give the bits of the single ops that they stand for, on every instruction set. */
#include "tests/ops/ops_fixture.h"

#include "host/base/cpu.h"

#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

static const int64_t widths[] = {16, 101, 544};
static const int row_counts[] = {1, 33};
static const unsigned levels[] = {PL_CPU_NONE, PL_CPU_AVX2, PL_CPU_ALL};

/* What one way of computing makes. */
typedef struct outcome {
    float *f[4];
    pl_act act;
} outcome;

typedef struct fused_case {
    pl_backend *b;
    int64_t hidden;
    int n;
    pl_rows rows;
    bool integers_only;
    const char *what;
} fused_case;

static void *taken(size_t bytes)
{
    void *p = calloc(1, bytes);
    cr_assert(p);
    return p;
}

static pl_act make_act(int rows, int64_t cols)
{
    pl_act a = {.cols = cols, .ld = cols, .blocks = (cols + PL_ACT_BLOCK - 1) / PL_ACT_BLOCK};
    size_t blocks = (size_t)(rows * a.blocks);
    a.hi_lo = taken(blocks * 2 * PL_ACT_BLOCK);
    a.scale = taken(blocks * sizeof *a.scale);
    a.sum = taken(blocks * 2 * sizeof *a.sum);
    return a;
}

static void give(outcome *o)
{
    for (int i = 0; i < 4; i++)
        free(o->f[i]);
    free(o->act.hi_lo);
    free(o->act.scale);
    free(o->act.sum);
}

static void same_floats(const fused_case *c, const float *a, const float *b, int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        cr_assert(memcmp(a + i, b + i, sizeof *a) == 0, "%s, %s, %d rows of %ld: value %ld is %a, alone %a", c->what,
                  c->b->name, c->n, (long)c->hidden, (long)i, (double)b[i], (double)a[i]);
}

/* The first `blocks` blocks of row r. */
static void same_integers(const fused_case *c, const pl_act *a, const pl_act *b, int r, int64_t blocks)
{
    const int64_t span = PL_ACT_SPAN / PL_ACT_BLOCK;
    cr_assert(a->rows == c->n && b->rows == c->n);
    for (int64_t g = 0; g < blocks; g++) {
        int64_t first = g / span * span, ld = a->blocks - first < span ? a->blocks - first : span;
        int64_t at = first * c->n + r * ld + g - first;
        bool same = memcmp(a->hi_lo + at * 2 * PL_ACT_BLOCK, b->hi_lo + at * 2 * PL_ACT_BLOCK, 2 * PL_ACT_BLOCK) == 0 &&
                    memcmp(a->scale + at, b->scale + at, sizeof *a->scale) == 0 &&
                    memcmp(a->sum + 2 * at, b->sum + 2 * at, 2 * sizeof *a->sum) == 0;
        cr_assert(same, "%s, %s, %d rows of %ld: row %d's block %ld has other integers", c->what, c->b->name, c->n,
                  (long)c->hidden, r, (long)g);
    }
}

static void quantize(const fused_case *c, pl_act *act, const float *x)
{
    act->f32 = x;
    c->b->ops->quantize(c->b->stream, act, c->n);
}

static void each_case(void (*check)(const fused_case *c))
{
    for (size_t i = 0; i < 12 * sizeof widths / sizeof *widths * sizeof row_counts / sizeof *row_counts; i++) {
        pl_backend_shape shape = {.max_rows = ROOM, .max_context = 64, .heads = {2, 1, 32}};
        fused_case c = {.b = open_backend(shape, i % 2 ? 3 : 1, levels[i / 4 % 3]), .integers_only = i / 2 % 2};
        c.hidden = widths[i / 12 % (sizeof widths / sizeof *widths)];
        c.n = row_counts[i / 12 / (sizeof widths / sizeof *widths)];
        c.rows = scattered_rows(c.n);
        cr_assert(c.b->fused && c.b->fused->most_rows >= c.n);
        check(&c);
        pl_backend_free(c.b);
    }
}

/* ---- AltUp: a layer's beginning and end ---- */

typedef struct altup_weights {
    pl_altup altup;
    float *all;
    const float *norm, *v_norm;
} altup_weights;

static altup_weights make_altup(int64_t h)
{
    float *w = normals(8 * h + 80, 0.7, 1);
    return (altup_weights){{w, w + h, w + 8 * h, w + 8 * h + 64, w + 5 * h}, w, w + 6 * h, w + 7 * h};
}

/* f: streams, y, gate_in, x */
static void start(outcome *o, const fused_case *c)
{
    int64_t all = c->n * c->hidden;
    *o = (outcome){{normals(4 * ROOM * c->hidden, 2, 2), normals(all, 1, 3), normals(all, 1, 4), normals(all, 1, 5)},
                   make_act(c->n, c->hidden)};
}

static void check_layer(const fused_case *c, bool add)
{
    outcome one, other;
    start(&one, c);
    start(&other, c);
    int64_t h = c->hidden, all = c->n * h;
    altup_weights w = make_altup(h);
    const pl_ops *ops = c->b->ops;
    const pl_fused *fused = c->b->fused;
    float *v = normals(all, 3, 6), *v_fused = normals(all, 3, 6), *ffn = normals(all, 2, 7);
    float *p = normals(4 * all, 1, 8), *p_fused = normals(4 * all, 1, 9);
    pl_streams s = {one.f[0], ROOM, h}, s_fused = {other.f[0], ROOM, h}, pred = {p, c->n, h},
               pred_f = {p_fused, c->n, h};

    if (add)
        ops->ple_add(c->b->stream, s, v, &c->rows, w.v_norm, EPS);
    ops->altup_predict(c->b->stream, pred, one.f[3], s, &c->rows, &w.altup, w.norm, EPS);
    quantize(c, &one.act, one.f[3]);
    other.act.f32 = other.f[3];
    fused->predict(c->b->stream, pred_f, other.f[3], &other.act, s_fused, add ? v_fused : NULL, w.v_norm, &c->rows,
                   &w.altup, w.norm, EPS);
    same_floats(c, one.f[0], other.f[0], 4 * ROOM * h);
    same_floats(c, p, p_fused, all);
    same_floats(c, one.f[3], other.f[3], all);
    for (int r = 0; r < c->n; r++)
        same_integers(c, &one.act, &other.act, r, one.act.blocks);

    ops->altup_correct(c->b->stream, s, one.f[1], one.f[2], ffn, pred, &c->rows, &w.altup, w.norm, EPS);
    quantize(c, &one.act, one.f[2]);
    other.act.f32 = other.f[2];
    other.act.integers_only = c->integers_only;
    fused->altup_correct(c->b->stream, s_fused, other.f[1], other.f[2], &other.act, ffn, pred_f, &c->rows, &w.altup,
                         w.norm, EPS);
    same_floats(c, one.f[0], other.f[0], 4 * ROOM * h);
    if (!c->integers_only)
        same_floats(c, one.f[2], other.f[2], all);
    for (int r = 0; r < c->n; r++)
        same_integers(c, &one.act, &other.act, r, one.act.blocks);
    float *mine[] = {v, v_fused, ffn, p, p_fused, w.all};
    for (size_t i = 0; i < sizeof mine / sizeof *mine; i++)
        free(mine[i]);
    give(&one);
    give(&other);
}

static void check_layers(const fused_case *c)
{
    fused_case named = *c;
    named.what = "predict, altup_correct";
    check_layer(&named, false);
    check_layer(&named, true);
}

Test(fused, predict_and_correct)
{
    each_case(check_layers);
}

/* ---- the others ---- */

static void check_residual(const fused_case *c)
{
    fused_case named = *c;
    named.what = "attn_residual";
    int64_t h = c->hidden, all = c->n * h;
    outcome one, other;
    outcome *both[] = {&one, &other};
    float *in = normals(3 * all, 2, 1), *norm = normals(3 * h, 1, 2);
    for (int i = 0; i < 2; i++) {
        outcome *o = both[i];
        *o = (outcome){{normals(all, 2, 3), normals(all, 1, 4), normals(all, 1, 5)}, make_act(c->n, h)};
        o->act.f32 = o->f[1];
        o->act.integers_only = c->integers_only;
    }
    c->b->ops->attn_residual(c->b->stream, one.f[0], one.f[1], one.f[2], in, in + all, in + 2 * all, norm, norm + h,
                             norm + 2 * h, c->n, h, EPS);
    quantize(c, &one.act, one.f[1]);
    c->b->fused->attn_residual(c->b->stream, other.f[0], other.f[1], &other.act, other.f[2], in, in + all, in + 2 * all,
                               norm, norm + h, norm + 2 * h, c->n, h, EPS);
    same_floats(&named, one.f[0], other.f[0], all);
    if (!c->integers_only)
        same_floats(&named, one.f[1], other.f[1], all);
    for (int r = 0; r < c->n; r++)
        same_integers(&named, &one.act, &other.act, r, one.act.blocks);
    give(&one);
    give(&other);
    free(in);
    free(norm);
}

Test(fused, attn_residual)
{
    each_case(check_residual);
}

static void check_act(const fused_case *c, float z)
{
    fused_case named = *c;
    named.what = z < 0 ? "ffn_act" : "ffn_act with a cut";
    int64_t ld = c->hidden * 3, all = c->n * ld;
    int32_t width[ROOM];
    for (int r = 0; r < c->n; r++) /* blocks of 32 where there are some, each row by one fewer */
        width[r] = (int32_t)(ld < 64 ? ld : (ld / 32 - (r < ld / 32 - 1 ? r : ld / 32 - 2)) * 32);
    float *up = normals(all, 1, 1);
    outcome one = {{normals(all, 2, 2)}, make_act(c->n, ld)}, other = {{normals(all, 2, 2)}, make_act(c->n, ld)};
    c->b->ops->ffn_act(c->b->stream, one.f[0], up, ld, c->n, width, z);
    quantize(c, &one.act, one.f[0]);
    other.act.f32 = other.f[0];
    other.act.integers_only = c->integers_only;
    c->b->fused->ffn_act(c->b->stream, &other.act, other.f[0], up, ld, c->n, width, z);
    if (!c->integers_only)
        same_floats(&named, one.f[0], other.f[0], all);
    for (int r = 0; r < c->n; r++)
        same_integers(&named, &one.act, &other.act, r, width[r] / PL_ACT_BLOCK);
    give(&one);
    give(&other);
    free(up);
}

static void check_acts(const fused_case *c)
{
    check_act(c, 1.6448f);
    check_act(c, -__builtin_inff());
}

Test(fused, ffn_act)
{
    each_case(check_acts);
}

static void check_gate(const fused_case *c)
{
    fused_case named = *c;
    named.what = "ple_gate";
    int64_t p = c->hidden, all = c->n * p;
    float *ple = normals(ROOM * p, 1, 1);
    outcome one = {{normals(all, 2, 2)}, make_act(c->n, p)}, other = {{normals(all, 2, 2)}, make_act(c->n, p)};
    c->b->ops->ple_gate(c->b->stream, one.f[0], ple, p, &c->rows, (int)p);
    quantize(c, &one.act, one.f[0]);
    other.act.f32 = other.f[0];
    c->b->fused->ple_gate(c->b->stream, &other.act, other.f[0], ple, p, &c->rows, (int)p);
    same_floats(&named, one.f[0], other.f[0], all);
    for (int r = 0; r < c->n; r++)
        same_integers(&named, &one.act, &other.act, r, one.act.blocks);
    give(&one);
    give(&other);
    free(ple);
}

Test(fused, ple_gate)
{
    each_case(check_gate);
}
