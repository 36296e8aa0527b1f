#include "tests/ops/ops_fixture.h"

#include <criterion/criterion.h>
#include <stdlib.h>

typedef struct residual_case {
    op_case base;
    int64_t hidden;
    float *a, *x, *att, *norm[3];
    bool in_place; /* y is att */
} residual_case;

static void run(const op_case *base, pl_backend *b, int first, int n)
{
    const residual_case *c = (const residual_case *)base;
    int64_t at = first * c->hidden;
    float *y = base->out[0].now + at;
    b->ops->attn_residual(b->stream, y, base->out[1].now + at, base->out[2].now + at, c->a + at, c->x + at,
                          c->in_place ? y : c->att + at, c->norm[0], c->norm[1], c->norm[2], n, c->hidden, EPS);
}

static void expect(residual_case *c)
{
    const num half = num_rounded(sqrt(0.5), 0);
    int64_t h = c->hidden, all = c->base.rows * h;
    float *laurel_before = normals(all, 2, 1);
    num *y = nums_of(c->att, all), *f = nums(all), *laurel = nums_of(laurel_before, all);
    for (int64_t at = 0; at < all; at += h) {
        num_norm(laurel + at, laurel + at, c->norm[0], h, EPS);
        num_norm(y + at, y + at, c->norm[1], h, EPS);
        for (int64_t i = at; i < at + h; i++) {
            laurel[i] = num_add(num_of(c->x[i]), laurel[i]);
            y[i] = num_mul(num_add(num_add(num_of(c->a[i]), y[i]), laurel[i]), half);
        }
        num_norm(f + at, y + at, c->norm[2], h, EPS);
    }
    case_output(&c->base, c->in_place ? c->att : normals(all, 1, 2), y, all);
    case_output(&c->base, normals(all, 1, 3), f, all);
    case_output(&c->base, laurel_before, laurel, all);
}

static void check(int64_t hidden, int rows, bool in_place)
{
    residual_case c = {
        .base = {.what = "attn_residual", .rows = rows, .run = run}, .hidden = hidden, .in_place = in_place};
    int64_t all = rows * hidden;
    c.a = normals(all, 3, 4);
    c.x = normals(all, 1, 5);
    c.att = normals(all, 0.3, 6);
    for (int i = 0; i < 3; i++)
        c.norm[i] = normals(hidden, 1, 7 + (uint64_t)i);
    expect(&c);
    check_case(&c.base);
    for (int i = 0; i < 3; i++) {
        free(c.norm[i]);
        free(c.base.out[i].before);
        free(c.base.out[i].want);
    }
    free(c.a);
    free(c.x);
    if (!in_place)
        free(c.att);
}

Test(residual, attn_residual)
{
    static const int64_t widths[] = {16, 64, 96, 101, 2048, 2300};
    static const int row_counts[] = {1, 2, 7, 33};
    for (size_t w = 0; w < sizeof widths / sizeof *widths; w++)
        for (size_t r = 0; r < sizeof row_counts / sizeof *row_counts; r++) {
            check(widths[w], row_counts[r], false);
            check(widths[w], row_counts[r], true);
        }
}
