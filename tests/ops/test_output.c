#include "tests/ops/ops_fixture.h"

#include "host/base/cpu.h"

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

/* What check_finite says of n rows when it said `before` of others. */
static int32_t look(pl_backend *b, const float *x, int n, int64_t cols, int32_t before)
{
    int32_t bad[3] = {-7, before, -7};
    b->ops->check_finite(b->stream, x, n, cols, &bad[1]);
    cr_assert(bad[0] == -7 && bad[2] == -7);
    return bad[1];
}

static void check_finite_rows(pl_backend *b, int n, int64_t cols)
{
    static const float odd[] = {NAN, INFINITY, -INFINITY, -NAN};
    int64_t all = n * cols, places[] = {0, 1, cols - 1, cols, all / 2, all - cols, all - 2, all - 1};
    float *x = normals(all, 1, 1);
    x[all] = NAN; /* behind the last row */
    x[0] = 3.4e38f;
    x[all - 1] = all > 1 ? -3.4e38f : 1e-45f;
    cr_assert_eq(look(b, x, n, cols, 99), 99, "%s: %d rows of %lld", b->name, n, (long long)cols);
    for (size_t p = 0; p < sizeof places / sizeof *places; p++) {
        int64_t at = places[p];
        if (at < 0 || at >= all)
            continue;
        float kept = x[at];
        x[at] = odd[p % 4];
        cr_assert_eq(look(b, x, n, cols, 99), at / cols + 1, "%s: %d rows of %lld, value %lld", b->name, n,
                     (long long)cols, (long long)at);
        x[at] = kept;
    }
    x[0] = NAN;
    x[all - 1] = INFINITY;
    int32_t bad = look(b, x, n, cols, 0);
    cr_assert(bad == 1 || bad == n, "%s: %d rows of %lld: %d", b->name, n, (long long)cols, bad);
    free(x);
}

Test(output, check_finite)
{
    static const unsigned levels[] = {PL_CPU_NONE, PL_CPU_AVX2, PL_CPU_ALL};
    static const int64_t cols[] = {1, 3, 16, 101, 2048, 8191, 8193, 40000};
    const pl_backend_shape shape = {.max_rows = ROOM, .max_context = PL_KV_PAGE, .heads = {1, 1, 16}};
    for (size_t l = 0; l < sizeof levels / sizeof *levels; l++)
        for (int threads = 1; threads <= 3; threads += 2) {
            pl_backend *b = open_backend(shape, threads, levels[l]);
            for (size_t c = 0; c < sizeof cols / sizeof *cols; c++)
                for (int n = 1; n <= 7; n += 3)
                    check_finite_rows(b, n, cols[c]);
            cr_assert_eq(look(b, NULL, 0, 16, 99), 99);
            pl_backend_free(b);
        }
}
