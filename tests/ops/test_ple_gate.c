#include "tests/ops/ops_fixture.h"

#include <criterion/criterion.h>
#include <stdlib.h>

#define LAYERS 5

typedef struct ple_case {
    op_case base;
    int p;
    int64_t ld; /* hidden, for ple_add */
    pl_rows rows;
    float *proj, *w;
    int32_t layers[ROOM];
} ple_case;

static const int widths[] = {8, 16, 100, 256, 301};
static const int row_counts[] = {1, 2, 7, 33};

static void give(ple_case *c)
{
    free(c->proj);
    free(c->w);
    for (int o = 0; o < c->base.n_outputs; o++) {
        free(c->base.out[o].before);
        free(c->base.out[o].want);
    }
}

static void run_combine(const op_case *base, pl_backend *b, int first, int n)
{
    const ple_case *c = (const ple_case *)base;
    b->ops->ple_combine(b->stream, base->out[0].now + first * c->ld, c->proj + first * c->ld, c->ld, c->w, n,
                        c->layers + first, c->p, 0.022097087f, 16.0f, EPS);
}

static void expect_combine(ple_case *c)
{
    float *before = normals(c->base.rows * c->ld, 0.05, 1);
    num *ple = nums_of(before, c->base.rows * c->ld), *normed = nums(c->p);
    const num half = num_rounded(sqrt(0.5), 0);
    for (int r = 0; r < c->base.rows; r++)
        for (int l = 0; l < c->layers[r]; l++) {
            int64_t at = r * c->ld + l * c->p;
            for (int i = 0; i < c->p; i++)
                normed[i] = num_mul(num_of(c->proj[at + i]), num_of(0.022097087f));
            num_norm(normed, normed, c->w, c->p, EPS);
            for (int i = 0; i < c->p; i++)
                ple[at + i] = num_mul(num_add(normed[i], num_mul(ple[at + i], num_of(16))), half);
        }
    free(normed);
    case_output(&c->base, before, ple, c->base.rows * c->ld);
}

/* Rows have fewer layers than there are, and their pitch is wider, by a multiple of 16 bytes or not. */
Test(ple, combine)
{
    for (size_t w = 0; w < sizeof widths / sizeof *widths; w++)
        for (size_t r = 0; r < sizeof row_counts / sizeof *row_counts; r++) {
            ple_case c = {.base = {.what = "ple_combine", .rows = row_counts[r], .run = run_combine}, .p = widths[w]};
            c.ld = LAYERS * c.p + (r % 2 ? 3 : 4);
            c.proj = normals(row_counts[r] * c.ld, 40, 2);
            c.w = normals(c.p, 1, 3);
            for (int i = 0; i < row_counts[r]; i++)
                c.layers[i] = (i + LAYERS) % (LAYERS + 1);
            expect_combine(&c);
            check_case(&c.base);
            give(&c);
        }
}

static void run_gate(const op_case *base, pl_backend *b, int first, int n)
{
    const ple_case *c = (const ple_case *)base;
    pl_rows rows = rows_from(c->rows, first, n);
    b->ops->ple_gate(b->stream, base->out[0].now + first * c->p, c->proj, c->ld, &rows, c->p);
}

Test(ple, gate)
{
    for (size_t w = 0; w < sizeof widths / sizeof *widths; w++)
        for (size_t r = 0; r < sizeof row_counts / sizeof *row_counts; r++) {
            int rows = row_counts[r];
            ple_case c = {.base = {.what = "ple_gate", .rows = rows, .run = run_gate}, .p = widths[w]};
            c.ld = LAYERS * c.p;
            c.rows = scattered_rows(rows);
            c.proj = normals(ROOM * c.ld, 1, 2);
            float *before = normals(rows * c.p, 2, 3);
            num *want = nums_of(before, rows * c.p);
            for (int i = 0; i < rows * c.p; i++)
                want[i] = num_mul(num_gelu(want[i]), num_of(c.proj[c.rows.slot[i / c.p] * c.ld + i % c.p]));
            case_output(&c.base, before, want, rows * c.p);
            check_case(&c.base);
            give(&c);
        }
}

static void run_add(const op_case *base, pl_backend *b, int first, int n)
{
    const ple_case *c = (const ple_case *)base;
    pl_rows rows = rows_from(c->rows, first, n);
    pl_streams streams = {base->out[0].now, ROOM, c->ld};
    b->ops->ple_add(b->stream, streams, base->out[1].now + first * c->ld, &rows, c->w, EPS);
}

static void check_add(int64_t hidden, int rows)
{
    ple_case c = {.base = {.what = "ple_add", .rows = rows, .run = run_add}, .ld = hidden};
    c.rows = scattered_rows(rows);
    c.w = normals(hidden, 1, 1);
    float *before = normals(4 * ROOM * hidden, 2, 2), *v_before = normals(rows * hidden, 5, 3);
    num *streams = nums_of(before, 4 * ROOM * hidden), *v = nums_of(v_before, rows * hidden);
    for (int r = 0; r < rows; r++) {
        num_norm(v + r * hidden, v + r * hidden, c.w, hidden, EPS);
        for (int k = 1; k < 4; k++)
            for (int64_t i = 0; i < hidden; i++) {
                num *at = &streams[(k * ROOM + c.rows.slot[r]) * hidden + i];
                *at = num_add(*at, v[r * hidden + i]);
            }
    }
    case_output(&c.base, before, streams, 4 * ROOM * hidden);
    case_output(&c.base, v_before, v, rows * hidden);
    check_case(&c.base);
    give(&c);
}

Test(ple, add)
{
    static const int64_t hidden[] = {16, 64, 96, 101, 2048, 2300};
    for (size_t h = 0; h < sizeof hidden / sizeof *hidden; h++)
        for (size_t r = 0; r < sizeof row_counts / sizeof *row_counts; r++)
            check_add(hidden[h], row_counts[r]);
}
