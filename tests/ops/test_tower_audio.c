#include "host/base/cpu.h"
#include "tests/ops/ops_fixture.h"

#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

static const int64_t widths[] = {16, 60, 64, 101, 1536};
static const int row_counts[] = {1, 2, 7, 33};
#define WIDTHS (sizeof widths / sizeof *widths)
#define ROW_COUNTS (sizeof row_counts / sizeof *row_counts)

static num num_sigmoid(num x)
{
    return num_div(num_of(1), num_add(num_of(1), num_exp((num){-x.v, x.e})));
}

/* ---- value by value ---- */

typedef struct value_case {
    op_case base;
    int64_t cols;
    const float *in; /* [rows][2 cols] */
} value_case;

static void run_silu(const op_case *base, pl_backend *b, int first, int n)
{
    const value_case *c = (const value_case *)base;
    b->tower->silu(b->stream, base->out[0].now + first * c->cols, n, c->cols);
}

static void run_clip(const op_case *base, pl_backend *b, int first, int n)
{
    const value_case *c = (const value_case *)base;
    float *x = base->out[0].now + first * c->cols;
    b->tower->clip(b->stream, x, x, n, c->cols, 0.75f);
}

static void run_add(const op_case *base, pl_backend *b, int first, int n)
{
    const value_case *c = (const value_case *)base;
    b->tower->add(b->stream, base->out[0].now + first * c->cols, c->in + first * c->cols, n, c->cols);
}

static void run_gate(const op_case *base, pl_backend *b, int first, int n)
{
    const value_case *c = (const value_case *)base;
    b->tower->gate(b->stream, base->out[0].now + first * c->cols, c->in + 2 * first * c->cols, n, c->cols);
}

typedef num (*value_fn)(num before, float in, float by);

static num silu(num x, float in, float by)
{
    (void)in, (void)by;
    return num_mul(x, num_sigmoid(x));
}

static num clip(num x, float in, float by)
{
    (void)in, (void)by;
    return num_of(fmin(fmax(x.v, -0.75), 0.75));
}

static num add(num x, float in, float by)
{
    (void)by;
    return num_add(x, num_of(in));
}

static num gate(num x, float in, float by)
{
    (void)x;
    return num_mul(num_of(in), num_sigmoid(num_of(by)));
}

static void check_values(const char *what, void (*run)(const op_case *, pl_backend *, int, int), value_fn expected,
                         int64_t in_cols)
{
    for (size_t w = 0; w < WIDTHS; w++)
        for (size_t r = 0; r < ROW_COUNTS; r++) {
            int64_t cols = widths[w], all = row_counts[r] * cols;
            float *before = normals(all, 3, 1), *in = normals(2 * all, 3, 2);
            value_case c = {.base = {.what = what, .rows = row_counts[r], .run = run}, .cols = cols, .in = in};
            num *want = nums_of(before, all);
            for (int64_t i = 0; i < all; i++) {
                const float *x = in + i / cols * in_cols * cols + i % cols;
                want[i] = expected(want[i], x[0], in_cols == 2 ? x[cols] : 0);
            }
            case_output(&c.base, before, want, all);
            check_case(&c.base);
            free(before);
            free(in);
            free(want);
        }
}

Test(tower_audio, silu)
{
    check_values("silu", run_silu, silu, 1);
}

Test(tower_audio, clip)
{
    check_values("clip", run_clip, clip, 1);
}

Test(tower_audio, add)
{
    check_values("add", run_add, add, 1);
}

Test(tower_audio, gate)
{
    check_values("gate", run_gate, gate, 2);
}

/* ---- steps that look back ---- */

typedef struct convolve_case {
    op_case base;
    int64_t cols;
    int size;
    const float *x, *w;
} convolve_case;

static void run_convolve(const op_case *base, pl_backend *b, int first, int n)
{
    const convolve_case *c = (const convolve_case *)base;
    b->tower->convolve_back(b->stream, base->out[0].now + first * c->cols, c->x + first * c->cols, n, c->cols, c->w,
                            c->size);
}

static void check_convolve(int64_t cols, int rows, int size)
{
    convolve_case c = {
        .base = {.what = "convolve_back", .rows = rows, .run = run_convolve}, .cols = cols, .size = size};
    float *x = normals((rows + size - 1) * cols, 1, 1), *w = normals(size * cols, 1, 2),
          *before = normals(rows * cols, 1, 3);
    num *want = nums(rows * cols);
    for (int64_t i = 0; i < rows * cols; i++)
        for (int t = 0; t < size; t++)
            want[i] = num_add(want[i], num_mul(num_of(w[t * cols + i % cols]), num_of(x[i + t * cols])));
    c.x = x;
    c.w = w;
    case_output(&c.base, before, want, rows * cols);
    check_case(&c.base);
    free(x);
    free(w);
    free(before);
    free(want);
}

Test(tower_audio, convolve_back)
{
    for (size_t w = 0; w < WIDTHS; w++)
        for (size_t r = 0; r < ROW_COUNTS; r++)
            for (int size = 1; size <= 5; size += 4)
                check_convolve(widths[w], row_counts[r], size);
}

typedef struct attend_case {
    op_case base;
    pl_tower_look_back a;
} attend_case;

static void run_attend(const op_case *base, pl_backend *b, int first, int n)
{
    const attend_case *c = (const attend_case *)base;
    pl_tower_look_back a = c->a;
    int64_t at = first * a.cols;
    a.q += at;
    a.k += at;
    a.v += at;
    a.before = a.before + first < a.reach - 1 ? a.before + first : a.reach - 1;
    b->tower->attend_back(b->stream, base->out[0].now + at, n, &a);
}

/* Step r, head h; keys stand from `first` to r + reach - 1. */
static void expect_head(const pl_tower_look_back *a, int64_t r, int h, num *out)
{
    int64_t dim = a->cols / a->heads, at = h * dim, last = r + a->reach - 1;
    int64_t first = r > a->reach - 1 - a->before ? r : a->reach - 1 - a->before;
    num share[PL_TOWER_MOST_REACH], *q = nums(dim), *k = nums(dim), largest = {-INFINITY, 0}, sum = {0, 0};
    for (int64_t j = first; j <= last; j++) {
        for (int64_t i = 0; i < dim; i++) {
            q[i] = num_mul(num_of(a->q[r * a->cols + at + i]), num_of(a->scale[i]));
            k[i] = num_add(num_of(a->k[j * a->cols + at + i]), num_of(a->position[(last - j) * a->cols + at + i]));
        }
        num cap = num_of(a->cap);
        share[j - first] = num_mul(cap, num_tanh(num_div(num_dot(q, k, dim), cap)));
        largest = share[j - first].v > largest.v ? share[j - first] : largest;
    }
    for (int64_t j = first; j <= last; j++) {
        share[j - first] = num_exp(num_sub(share[j - first], largest));
        sum = num_add(sum, share[j - first]);
    }
    for (int64_t i = 0; i < dim; i++) {
        out[i] = num_of(0);
        for (int64_t j = first; j <= last; j++)
            out[i] = num_add(out[i], num_mul(num_div(share[j - first], sum), num_of(a->v[j * a->cols + at + i])));
    }
    free(q);
    free(k);
}

static void check_attend(int64_t cols, int heads, int rows, int reach, int before)
{
    int64_t all = rows * cols, keys = (rows + reach - 1) * cols;
    attend_case c = {.base = {.what = "attend_back", .rows = rows, .run = run_attend}};
    float *q = normals(all, 1, 1), *k = normals(keys, 1, 2), *v = normals(keys, 1, 3),
          *scale = normals(cols / heads, 1, 4), *position = normals(reach * cols, 1, 5), *out = normals(all, 1, 6);
    num *want = nums(all);
    for (int64_t i = 0; i < (reach - 1 - before) * cols; i++)
        k[i] = v[i] = NAN; /* steps that there are not */
    c.a = (pl_tower_look_back){q, k, v, scale, position, cols, heads, reach, before, .cap = 5};
    for (int64_t r = 0; r < rows; r++)
        for (int h = 0; h < heads; h++)
            expect_head(&c.a, r, h, want + r * cols + h * (cols / heads));
    case_output(&c.base, out, want, all);
    check_case(&c.base);
    free(q);
    free(k);
    free(v);
    free(scale);
    free(position);
    free(out);
    free(want);
}

Test(tower_audio, attend_back)
{
    for (size_t r = 0; r < ROW_COUNTS; r++) {
        check_attend(64, 4, row_counts[r], 13, 0);
        check_attend(60, 3, row_counts[r], 13, 5);
        check_attend(101, 1, row_counts[r], 1, 0);
        check_attend(48, 2, row_counts[r], 17, 16);
        check_attend(64, 2, row_counts[r], PL_TOWER_MOST_REACH, 20);
    }
    check_attend(1536, 8, 7, 13, 12);
}

/* ---- the running norm ---- */

/* What the sums before a step make of it: values, then squares about the mean that they give. */
static void expect_step(const float *x, int64_t cols, const float *weight, int64_t channels, int64_t step, num sums[2],
                        num *out)
{
    num count = num_of((double)cols * (double)(step + 1)), *off = nums(cols), *one = nums(cols),
        *values = nums_of(x, cols);
    for (int64_t i = 0; i < cols; i++)
        one[i] = num_of(1);
    sums[0] = num_add(sums[0], num_dot(values, one, cols));
    num mean = num_div(sums[0], count);
    for (int64_t i = 0; i < cols; i++)
        off[i] = num_sub(values[i], mean);
    sums[1] = num_add(sums[1], num_dot(off, off, cols));
    num factor = num_div(num_of(1), num_sqrt(num_add(num_div(sums[1], count), num_of(EPS))));
    for (int64_t i = 0; i < cols; i++) {
        out[i] = num_mul(num_mul(off[i], factor), num_of(weight[i % channels]));
        out[i].v = out[i].v > 0 ? out[i].v : 0;
    }
    free(off);
    free(one);
    free(values);
}

/* In pieces of `piece` steps; the result of the first call of all is kept in bits. */
static void check_running(const float *x, const num *want, const float *weight, int64_t cols, int64_t channels,
                          int rows, int piece, unsigned allowed, float *bits, bool first)
{
    pl_backend_shape shape = {.max_rows = ROOM, .max_context = PL_KV_PAGE, .heads = {1, 1, 16}};
    pl_backend *b = open_backend(shape, 1 + piece % 3, allowed);
    float *now = normals(rows * cols, 1, 1);
    double sums[ROOM + 1][2] = {{0}};
    memcpy(now, x, (size_t)(rows * cols) * sizeof *now);
    for (int done = 0; done < rows; done += piece) {
        int n = rows - done < piece ? rows - done : piece;
        b->tower->running_norm(b->stream, now + done * cols, n, cols, weight, channels, EPS, sums, done);
        memcpy(sums[0], sums[n], sizeof sums[0]);
    }
    for (int64_t i = 0; i < rows * cols; i++)
        cr_assert(fabs(now[i] - want[i].v) <= want[i].e, "%s: [%lld] is %.9g, expected %.9g +- %.3g", b->name,
                  (long long)i, now[i], want[i].v, want[i].e);
    if (first)
        memcpy(bits, now, (size_t)(rows * cols) * sizeof *now);
    cr_assert(memcmp(bits, now, (size_t)(rows * cols) * sizeof *now) == 0, "%s, pieces of %d", b->name, piece);
    free(now);
    pl_backend_free(b);
}

Test(tower_audio, running_norm)
{
    static const struct {
        int64_t cols, channels;
    } shapes[] = {{8192, 128}, {1024, 32}, {192, 12}, {21, 3}};
    static const unsigned levels[] = {PL_CPU_NONE, PL_CPU_AVX2, PL_CPU_ALL};
    enum { ROWS = 37 };
    for (size_t s = 0; s < sizeof shapes / sizeof *shapes; s++) {
        int64_t cols = shapes[s].cols, channels = shapes[s].channels;
        float *x = normals(ROWS * cols, 2, 1), *weight = normals(channels, 1, 2), *bits = normals(ROWS * cols, 1, 3);
        num *want = nums(ROWS * cols), sums[2] = {{0, 0}, {0, 0}};
        for (int64_t i = 0; i < ROWS * cols; i++)
            x[i] += 3 + (float)(i / cols % 5);
        for (int64_t r = 0; r < ROWS; r++)
            expect_step(x + r * cols, cols, weight, channels, r, sums, want + r * cols);
        for (size_t l = 0; l < sizeof levels / sizeof *levels; l++)
            for (int piece = 1; piece <= ROWS; piece += 9)
                check_running(x, want, weight, cols, channels, ROWS, piece, levels[l], bits, l == 0 && piece == 1);
        free(x);
        free(weight);
        free(bits);
        free(want);
    }
}
