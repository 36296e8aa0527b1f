#include "tests/ops/ops_fixture.h"

#include <criterion/criterion.h>
#include <stdlib.h>

typedef struct altup_case {
    op_case base;
    int64_t hidden;
    pl_rows rows;
    pl_altup altup;
    float *norm, *ffn, *streams, *ref;
    int64_t pred_rows;
} altup_case;

static const int64_t widths[] = {16, 64, 96, 101, 2048, 2300};
static const int row_counts[] = {1, 2, 7, 33};

static void take(altup_case *c, const char *what, int64_t hidden, int rows)
{
    *c = (altup_case){.base = {.what = what, .rows = rows}, .hidden = hidden, .pred_rows = rows + 2};
    c->rows = scattered_rows(rows);
    c->altup = (pl_altup){normals(hidden, 1, 1), normals(4 * hidden, 1, 2), normals(64, 0.5, 3), normals(16, 0.5, 4),
                          normals(hidden, 1, 5)};
    c->norm = normals(hidden, 1, 6);
    c->ffn = normals(rows * hidden, 3, 7);
    c->streams = normals(4 * ROOM * hidden, 2, 8);
    c->ref = normals(rows * hidden, 2, 9);
}

static void give(altup_case *c)
{
    const float *all[] = {
        c->altup.router_norm, c->altup.router, c->altup.predict, c->altup.correct, c->altup.scale, c->norm, c->ffn,
        c->streams,           c->ref};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        free((void *)(uintptr_t)all[i]);
    for (int o = 0; o < c->base.n_outputs; o++) {
        free(c->base.out[o].before);
        free(c->base.out[o].want);
    }
}

/* tanh(router . norm(v) / H) */
static void route(const altup_case *c, const num *v, num m[4])
{
    num *normed = nums(c->hidden);
    num_norm(normed, v, c->altup.router_norm, c->hidden, EPS);
    for (int k = 0; k < 4; k++) {
        num *w = nums_of(c->altup.router + k * c->hidden, c->hidden);
        m[k] = num_tanh(num_div(num_dot(w, normed, c->hidden), num_of((double)c->hidden)));
        free(w);
    }
    free(normed);
}

/* w . m */
static num mixed(const float *w, const num m[4])
{
    num v[4];
    for (int i = 0; i < 4; i++)
        v[i] = num_of(w[i]);
    return num_dot(v, m, 4);
}

static void run_predict(const op_case *base, pl_backend *b, int first, int n)
{
    const altup_case *c = (const altup_case *)base;
    pl_rows rows = rows_from(c->rows, first, n);
    pl_streams pred = {base->out[0].now + first * c->hidden, c->pred_rows, c->hidden};
    pl_streams streams = {c->streams, ROOM, c->hidden};
    b->ops->altup_predict(b->stream, pred, base->out[1].now + first * c->hidden, streams, &rows, &c->altup, c->norm,
                          EPS);
}

static void expect_predict(altup_case *c)
{
    int64_t h = c->hidden;
    float *before = normals(4 * c->pred_rows * h, 1, 10);
    num *pred = nums_of(before, 4 * c->pred_rows * h), *x = nums(c->base.rows * h);
    for (int r = 0; r < c->base.rows; r++) {
        const float *s[4];
        for (int k = 0; k < 4; k++)
            s[k] = c->streams + (k * ROOM + c->rows.slot[r]) * h;
        num *active = nums_of(s[0], h), m[4];
        route(c, active, m);
        free(active);
        for (int k = 0; k < 4; k++) {
            num coefficient[4];
            for (int j = 0; j < 4; j++)
                coefficient[j] = mixed(c->altup.predict + (4 * k + j) * 4, m);
            for (int64_t i = 0; i < h; i++) {
                num at[4] = {num_of(s[0][i]), num_of(s[1][i]), num_of(s[2][i]), num_of(s[3][i])};
                pred[(k * c->pred_rows + r) * h + i] = num_add(at[k], num_dot(coefficient, at, 4));
            }
        }
        num_norm(x + r * h, pred + r * h, c->norm, h, EPS);
    }
    case_output(&c->base, before, pred, 4 * c->pred_rows * h);
    case_output(&c->base, normals(c->base.rows * h, 1, 11), x, c->base.rows * h);
}

Test(altup, predict)
{
    for (size_t w = 0; w < sizeof widths / sizeof *widths; w++)
        for (size_t r = 0; r < sizeof row_counts / sizeof *row_counts; r++) {
            altup_case c;
            take(&c, "altup_predict", widths[w], row_counts[r]);
            c.base.run = run_predict;
            expect_predict(&c);
            check_case(&c.base);
            give(&c);
        }
}

static void run_correct(const op_case *base, pl_backend *b, int first, int n)
{
    const altup_case *c = (const altup_case *)base;
    int64_t at = first * c->hidden;
    pl_rows rows = rows_from(c->rows, first, n);
    pl_streams streams = {base->out[0].now, ROOM, c->hidden};
    pl_streams pred = {c->streams + at, ROOM, c->hidden};
    b->ops->altup_correct(b->stream, streams, base->out[1].now + at, base->out[2].now + at, c->ffn + at, pred, &rows,
                          &c->altup, c->norm, EPS);
}

static void expect_correct(altup_case *c)
{
    int64_t h = c->hidden, all = c->base.rows * h;
    float *before = normals(4 * ROOM * h, 1, 12), *y_before = normals(all, 2, 13);
    num *streams = nums_of(before, 4 * ROOM * h), *y = nums_of(y_before, all), *gate = nums(all);
    for (int r = 0; r < c->base.rows; r++) {
        num *ffn = nums_of(c->ffn + r * h, h), m[4];
        num_norm(ffn, ffn, c->norm, h, EPS);
        for (int64_t i = 0; i < h; i++)
            y[r * h + i] = num_add(y[r * h + i], ffn[i]);
        free(ffn);
        route(c, y + r * h, m);
        for (int k = 0; k < 4; k++) {
            num coefficient = num_add(num_of(1), mixed(c->altup.correct + 4 * k, m));
            for (int64_t i = 0; i < h; i++) {
                num p0 = num_of(c->streams[r * h + i]), p = num_of(c->streams[(k * ROOM + r) * h + i]);
                streams[(k * ROOM + c->rows.slot[r]) * h + i] = num_add(
                    p, num_mul(coefficient, num_sub(y[r * h + i], p0)));
            }
        }
        for (int64_t i = 0; i < h; i++) {
            gate[r * h + i] = streams[c->rows.slot[r] * h + i];
            if (c->altup.scale)
                gate[r * h + i] = num_mul(gate[r * h + i], num_of(c->altup.scale[i]));
        }
    }
    case_output(&c->base, before, streams, 4 * ROOM * h);
    case_output(&c->base, y_before, y, all);
    case_output(&c->base, normals(all, 1, 14), gate, all);
}

Test(altup, correct)
{
    for (size_t w = 0; w < sizeof widths / sizeof *widths; w++)
        for (size_t r = 0; r < sizeof row_counts / sizeof *row_counts; r++) {
            altup_case c;
            take(&c, "altup_correct", widths[w], row_counts[r]);
            c.base.run = run_correct;
            expect_correct(&c);
            check_case(&c.base);
            give(&c);
        }
}

Test(altup, correct_without_scale)
{
    altup_case c;
    take(&c, "altup_correct", 100, 7);
    free((void *)(uintptr_t)c.altup.scale);
    c.altup.scale = NULL;
    c.base.run = run_correct;
    expect_correct(&c);
    check_case(&c.base);
    give(&c);
}

static void run_match(const op_case *base, pl_backend *b, int first, int n)
{
    const altup_case *c = (const altup_case *)base;
    b->ops->match_rms(b->stream, base->out[0].now + first * c->hidden, c->ref + first * c->hidden, n, c->hidden);
}

static void expect_match(altup_case *c, double deviation)
{
    int64_t h = c->hidden, all = c->base.rows * h;
    float *before = normals(all, deviation, 15);
    num *u = nums_of(before, all), *ref = nums_of(c->ref, all);
    for (int r = 0; r < c->base.rows; r++) {
        num have = num_mean_square(u + r * h, h);
        if (have.v < 1e-5)
            have = num_rounded(1e-5, 0);
        num factor = num_div(num_sqrt(num_mean_square(ref + r * h, h)), num_sqrt(have));
        for (int64_t i = 0; i < h; i++)
            u[r * h + i] = num_mul(u[r * h + i], factor);
    }
    free(ref);
    case_output(&c->base, before, u, all);
}

/* The second deviation is below the clamp of the mean square. */
Test(altup, match_rms)
{
    static const double deviations[] = {3, 1e-4};
    for (size_t w = 0; w < sizeof widths / sizeof *widths; w++)
        for (size_t d = 0; d < sizeof deviations / sizeof *deviations; d++) {
            altup_case c;
            take(&c, "match_rms", widths[w], 7);
            c.base.run = run_match;
            expect_match(&c, deviations[d]);
            check_case(&c.base);
            give(&c);
        }
}
