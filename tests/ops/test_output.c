#include "tests/ops/ops_fixture.h"

#include <criterion/criterion.h>
#include <stdlib.h>

typedef struct output_case {
    op_case base;
    int64_t hidden; /* columns, for softcap */
    float *first, *rest, *w, cap;
} output_case;

static void give(output_case *c)
{
    free(c->first);
    free(c->rest);
    free(c->w);
    for (int o = 0; o < c->base.n_outputs; o++) {
        free(c->base.out[o].before);
        free(c->base.out[o].want);
    }
}

static void run_norm(const op_case *base, pl_backend *b, int first, int n)
{
    const output_case *c = (const output_case *)base;
    int64_t at = first * c->hidden;
    pl_streams rest = {c->rest + at, ROOM, c->hidden};
    b->ops->output_norm(b->stream, base->out[0].now + at, base->out[1].now + at, c->first + at, rest, n, c->w, EPS);
}

static void check_norm(int64_t hidden, int rows)
{
    output_case c = {.base = {.what = "output_norm", .rows = rows, .run = run_norm}, .hidden = hidden};
    int64_t all = rows * hidden;
    c.first = normals(all, 1, 1);
    c.rest = normals(4 * ROOM * hidden, 1, 2);
    c.w = normals(hidden, 1, 3);
    num *mean = nums_of(c.first, all), *out = nums(all);
    for (int64_t i = 0; i < all; i++) {
        for (int k = 1; k < 4; k++)
            mean[i] = num_add(mean[i], num_of(c.rest[k * ROOM * hidden + i]));
        mean[i] = num_mul(mean[i], num_of(0.25));
    }
    for (int r = 0; r < rows; r++)
        num_norm(out + r * hidden, mean + r * hidden, c.w, hidden, EPS);
    case_output(&c.base, normals(all, 1, 4), mean, all);
    case_output(&c.base, normals(all, 1, 5), out, all);
    check_case(&c.base);
    give(&c);
}

Test(output, output_norm)
{
    static const int64_t widths[] = {16, 64, 96, 101, 2048, 2300};
    static const int row_counts[] = {1, 2, 7, 33};
    for (size_t w = 0; w < sizeof widths / sizeof *widths; w++)
        for (size_t r = 0; r < sizeof row_counts / sizeof *row_counts; r++)
            check_norm(widths[w], row_counts[r]);
}

static void run_softcap(const op_case *base, pl_backend *b, int first, int n)
{
    const output_case *c = (const output_case *)base;
    b->ops->softcap(b->stream, base->out[0].now + first * c->hidden, n, c->hidden, c->cap);
}

static void check_softcap(int64_t cols, int rows, double deviation)
{
    output_case c = {.base = {.what = "softcap", .rows = rows, .run = run_softcap}, .hidden = cols, .cap = 30};
    float *before = normals(rows * cols, deviation, 1);
    num *want = nums_of(before, rows * cols);
    for (int64_t i = 0; i < rows * cols; i++)
        want[i] = num_mul(num_tanh(num_div(want[i], num_of(30))), num_of(30));
    case_output(&c.base, before, want, rows * cols);
    check_case(&c.base);
    give(&c);
}

Test(output, softcap)
{
    static const int64_t cols[] = {1, 15, 16, 100, 8191, 8193, 40000};
    for (size_t i = 0; i < sizeof cols / sizeof *cols; i++) {
        check_softcap(cols[i], 1, 10);
        check_softcap(cols[i], 3, 100);
    }
}
