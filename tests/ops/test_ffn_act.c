#include "host/base/cpu.h"
#include "tests/ops/ops_fixture.h"

#include <criterion/criterion.h>
#include <stdlib.h>

typedef struct act_case {
    op_case base;
    int64_t ld;
    float *up, z;
    int32_t width[ROOM];
} act_case;

static void run(const op_case *base, pl_backend *b, int first, int n)
{
    const act_case *c = (const act_case *)base;
    int64_t at = first * c->ld;
    b->ops->ffn_act(b->stream, base->out[0].now + at, c->up + at, c->ld, n, c->width + first, c->z);
}

#define PARTS 3

/* Columns of part p: of every three blocks of 32 one, as ranks hold them. Between there and back. */
static int32_t move_part(const act_case *c, int p, const int32_t *width, float *row, float *part, bool back)
{
    int32_t n = 0;
    for (int32_t i = 0; i < *width; i++) {
        if (i / 32 % PARTS != p)
            continue;
        if (back)
            row[i] = part[n];
        else
            part[n] = row[i];
        n++;
    }
    cr_assert_leq(n, c->ld);
    return n;
}

/* The same in parts, each of which knows its own columns and the sums of all. */
static void run_parts(const op_case *base, pl_backend *b, int first, int n)
{
    const act_case *c = (const act_case *)base;
    double stats[ROOM * PL_FFN_STATS] = {0}, one[ROOM * PL_FFN_STATS];
    float *gate[PARTS], *up[PARTS];
    int32_t width[PARTS][ROOM];
    for (int p = 0; p < PARTS; p++) {
        gate[p] = calloc((size_t)(n * c->ld), sizeof *gate[p]);
        up[p] = calloc((size_t)(n * c->ld), sizeof *up[p]);
        cr_assert(gate[p] && up[p]);
        for (int i = 0; i < n; i++) {
            int64_t at = (first + i) * c->ld;
            move_part(c, p, &c->width[first + i], c->up + at, up[p] + i * c->ld, false);
            width[p][i] = move_part(c, p, &c->width[first + i], base->out[0].now + at, gate[p] + i * c->ld, false);
        }
        b->ops->ffn_stats(b->stream, one, gate[p], c->ld, n, width[p]);
        for (int i = 0; i < n * PL_FFN_STATS; i++)
            stats[i] += one[i];
    }
    for (int p = 0; p < PARTS; p++) {
        b->ops->ffn_act_part(b->stream, gate[p], up[p], c->ld, n, width[p], stats, c->z);
        for (int i = 0; i < n; i++)
            move_part(c, p, &c->width[first + i], base->out[0].now + (first + i) * c->ld, gate[p] + i * c->ld, true);
        free(gate[p]);
        free(up[p]);
    }
}

/* mean + z * std, std biased */
static num cutoff(const num *x, int64_t n, float z)
{
    num *one = nums(n), *off = nums(n), count = num_of((double)n);
    for (int64_t i = 0; i < n; i++)
        one[i] = num_of(1);
    num mean = num_div(num_dot(x, one, n), count);
    for (int64_t i = 0; i < n; i++)
        off[i] = num_sub(x[i], mean);
    num cut = num_add(mean, num_mul(num_of(z), num_sqrt(num_div(num_dot(off, off, n), count))));
    free(one);
    free(off);
    return cut;
}

static void expect_row(const act_case *c, int r, num *row)
{
    num cut = isinf(c->z) ? num_of(0) : cutoff(row, c->width[r], c->z);
    for (int i = 0; i < c->width[r]; i++) {
        num g = row[i];
        if (!isinf(c->z)) {
            g = num_sub(g, cut);
            g.v = g.v > 0 ? g.v : 0;
        }
        row[i] = num_mul(num_gelu(g), num_of(c->up[r * c->ld + i]));
    }
}

typedef void (*run_fn)(const op_case *base, pl_backend *b, int first, int n);

static void check_as(run_fn run_as, int64_t ld, int rows, double mean, float z)
{
    act_case c = {.base = {.what = "ffn_act", .rows = rows, .run = run_as}, .ld = ld, .z = z};
    float *before = normals(rows * ld, 1.5, 1);
    for (int64_t i = 0; i < rows * ld; i++)
        before[i] += (float)mean;
    c.up = normals(rows * ld, 1, 2);
    num *want = nums_of(before, rows * ld);
    for (int r = 0; r < rows; r++) {
        c.width[r] = (int32_t)(r % 2 ? ld - ld / 3 : ld);
        expect_row(&c, r, want + r * ld);
    }
    case_output(&c.base, before, want, rows * ld);
    check_case(&c.base);
    free(c.up);
    free(before);
    free(want);
}

static void check(int64_t ld, int rows, double mean, float z)
{
    check_as(run, ld, rows, mean, z);
}

static const int64_t widths[] = {16, 64, 100, 2048, 2050, 6000, 16384};
static const int row_counts[] = {1, 2, 7, 33};

Test(ffn_act, dense)
{
    for (size_t w = 0; w < sizeof widths / sizeof *widths; w++)
        for (size_t r = 0; r < sizeof row_counts / sizeof *row_counts; r++)
            check(widths[w], row_counts[r], 0, -INFINITY);
}

Test(ffn_act, sparse)
{
    for (size_t w = 0; w < sizeof widths / sizeof *widths; w++)
        for (size_t r = 0; r < sizeof row_counts / sizeof *row_counts; r++)
            check(widths[w], row_counts[r], 0, 1.6448536f);
}

/* A mean far from zero: one pass over squares would lose the variance. */
Test(ffn_act, sparse_with_a_large_mean)
{
    check(2050, 2, -300, 1.6448536f);
    check(100, 2, 1000, 0.5f);
}

/* Some parts of narrow rows have no columns. */
Test(ffn_act, sparse_in_parts)
{
    for (size_t w = 0; w < sizeof widths / sizeof *widths; w++)
        for (size_t r = 0; r < sizeof row_counts / sizeof *row_counts; r++)
            check_as(run_parts, widths[w], row_counts[r], 0, 1.6448536f);
    check_as(run_parts, 2050, 2, -300, 1.6448536f);
    check_as(run_parts, 100, 2, 1000, 0.5f);
}

/* There is no cutoff then: nothing may be taken for one below it. */
Test(ffn_act, not_a_number_in_a_sparse_row)
{
    static const unsigned levels[] = {PL_CPU_NONE, PL_CPU_AVX2, PL_CPU_ALL};
    for (int l = 0; l < 3; l++) {
        pl_backend *b = open_backend((pl_backend_shape){.max_rows = 1, .max_context = PL_KV_PAGE, .heads = {1, 1, 16}},
                                     1, levels[l]);
        float *gate = normals(2 * 1000, 1, 3), *up = normals(2 * 1000, 1, 4);
        int32_t width[] = {1000, 1000};
        gate[500] = NAN;
        b->ops->ffn_act(b->stream, gate, up, 1000, 2, width, 1.6448536f);
        for (int i = 0; i < 1000; i++)
            cr_assert(isnan(gate[i]) && isfinite(gate[1000 + i]), "gates %d are %g and %g", i, gate[i], gate[1000 + i]);
        free(gate);
        free(up);
        pl_backend_free(b);
    }
}

/* Lanes at or below the cutoff are exactly zero, whatever `up` holds but infinities. */
Test(ffn_act, zero_below_the_cutoff)
{
    static const unsigned levels[] = {PL_CPU_NONE, PL_CPU_AVX2, PL_CPU_ALL};
    for (int l = 0; l < 3; l++) {
        pl_backend *b = open_backend((pl_backend_shape){.max_rows = 1, .max_context = PL_KV_PAGE, .heads = {1, 1, 16}},
                                     1, levels[l]);
        float *gate = normals(4096, 1, 3), *up = normals(4096, 1, 4);
        int32_t width = 4096;
        int alive = 0;
        b->ops->ffn_act(b->stream, gate, up, 4096, 1, &width, 1.6448536f);
        for (int i = 0; i < 4096; i++)
            alive += gate[i] != 0;
        cr_assert(alive > 140 && alive < 270, "%d of 4096 are above a cutoff for 5 %%", alive);
        free(gate);
        free(up);
        pl_backend_free(b);
    }
}
