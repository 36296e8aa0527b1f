/* The towers' ops against their formulas in double precision. Products by themselves: test_gemm.c. */
#include "host/base/cpu.h"
#include "tests/ops/ops_fixture.h"

#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

/* ---- norm ---- */

typedef struct norm_case {
    op_case base;
    int64_t cols;
    float *x;
    pl_tower_norm norm;
    bool in_place; /* the residual is where the result goes */
} norm_case;

static void run_norm(const op_case *base, pl_backend *b, int first, int n)
{
    const norm_case *c = (const norm_case *)base;
    int64_t at = first * c->cols;
    float *out = base->out[0].now + at;
    pl_tower_norm norm = c->norm;
    if (norm.residual)
        norm.residual = c->in_place ? out : norm.residual + at;
    b->tower->norm(b->stream, out, c->x + at, n, c->cols, &norm);
}

static num act_of(num x, pl_tower_act act)
{
    switch (act) {
    case PL_TOWER_RELU: return x.v > 0 ? x : (num){0, x.v + x.e > 0 ? x.e : 0};
    case PL_TOWER_SILU: return num_div(x, num_add(num_of(1), num_exp((num){-x.v, x.e})));
    case PL_TOWER_GELU: return num_gelu(x);
    default: return x;
    }
}

static num *expect_norm(const norm_case *c)
{
    const pl_tower_norm *norm = &c->norm;
    int64_t all = c->base.rows * c->cols;
    num *want = nums_of(c->x, all);
    for (int64_t at = 0; at < all; at += c->cols)
        if (!norm->plain)
            num_norm(want + at, want + at, NULL, c->cols, norm->eps);
    for (int64_t i = 0; i < all; i++) {
        int64_t k = i % c->cols;
        num v = norm->weight ? num_mul(want[i], num_of(norm->weight[k])) : want[i];
        v = act_of(v, norm->act);
        v = norm->gamma ? num_mul(v, num_of(norm->gamma[k])) : v;
        v = num_mul(v, num_of(norm->factor));
        want[i] = norm->residual ? num_add(v, num_of(norm->residual[i])) : v;
    }
    return want;
}

static void check_norm(int64_t cols, int rows, pl_tower_act act, bool parts, bool plain, bool in_place)
{
    int64_t all = rows * cols;
    norm_case c = {.base = {.what = "norm", .rows = rows, .run = run_norm}, .cols = cols, .in_place = in_place};
    c.x = normals(all, 2, 1);
    c.norm = (pl_tower_norm){.eps = EPS, .factor = parts ? 0.5f : 1, .act = act, .plain = plain};
    float *weight = normals(cols, 1, 2), *gamma = normals(cols, 1, 3), *residual = normals(all, 1, 4);
    if (parts) {
        c.norm.weight = weight;
        c.norm.gamma = gamma;
        c.norm.residual = residual;
    }
    num *want = expect_norm(&c);
    float *before = normals(all, 1, 5);
    case_output(&c.base, in_place ? residual : before, want, all);
    check_case(&c.base);
    free(weight);
    free(gamma);
    free(residual);
    free(before);
    free(want);
    free(c.x);
}

Test(tower_ops, norm)
{
    static const int64_t cols[] = {1, 16, 63, 64, 65, 240, 1280};
    for (size_t i = 0; i < sizeof cols / sizeof *cols; i++) {
        check_norm(cols[i], 3, PL_TOWER_LINEAR, true, false, true);
        check_norm(cols[i], 2, PL_TOWER_GELU, true, false, false);
        check_norm(cols[i], 2, PL_TOWER_LINEAR, true, true, true);
    }
    check_norm(100, 11, PL_TOWER_RELU, true, false, false);
    check_norm(100, 11, PL_TOWER_SILU, true, false, false);
    check_norm(100, 11, PL_TOWER_GELU, false, false, false);
}

/* ---- maps ---- */

/* What an op must give, on every instruction set and any number of threads. */
typedef struct map_case map_case;
struct map_case {
    const char *what;
    pl_map in, other;
    int64_t n;
    float *out; /* [n], made by run */
    num *want;  /* [n] */
    const float *weights;
    const uint8_t *rgb;
    pl_kernel_window window;
    int height, width; /* of the output */
    bool same_bits;    /* on all instruction sets */
    void (*run)(const map_case *c, pl_backend *b);
};

static pl_map random_map(int height, int width, int64_t channels, uint64_t seed)
{
    return (pl_map){normals(height * width * channels, 1, seed), height, width, channels};
}

static pl_map out_map(const map_case *c, int64_t channels)
{
    return (pl_map){c->out, c->height, c->width, channels};
}

static void check_map(map_case *c)
{
    static const unsigned levels[] = {PL_CPU_NONE, PL_CPU_AVX2, PL_CPU_ALL & ~(unsigned)PL_CPU_AMX_BF16, PL_CPU_ALL};
    pl_backend_shape shape = {.max_rows = 1, .max_context = PL_KV_PAGE, .heads = {1, 1, 16}};
    float *first = NULL;
    for (int i = 0; i < 8; i++) {
        pl_backend *b = open_backend(shape, i % 2 ? 3 : 1, levels[i / 2]);
        c->out = malloc((size_t)c->n * sizeof *c->out);
        cr_assert_not_null(c->out);
        for (int64_t k = 0; k < c->n; k++)
            c->out[k] = NAN;
        c->run(c, b);
        for (int64_t k = 0; k < c->n; k++)
            cr_assert(fabs(c->out[k] - c->want[k].v) <= c->want[k].e, "%s, %s: [%lld] is %.9g, expected %.9g +- %.3g",
                      c->what, b->name, (long long)k, c->out[k], c->want[k].v, c->want[k].e);
        if (first && (c->same_bits || i % 2))
            cr_assert_arr_eq(first, c->out, (size_t)c->n * sizeof *first);
        free(first);
        first = c->out;
        pl_backend_free(b);
    }
    free(first);
    free(c->want);
    free(c->in.v);
    free(c->other.v);
}

/* ---- convolutions ---- */

static const float *pixel_at(const pl_map *m, int y, int x)
{
    bool inside = y >= 0 && x >= 0 && y < m->height && x < m->width;
    return inside ? m->v + ((int64_t)y * m->width + x) * m->channels : NULL;
}

static void run_depthwise(const map_case *c, pl_backend *b)
{
    b->tower->depthwise(b->stream, out_map(c, c->in.channels), c->in, c->weights, c->window);
}

static num depthwise_sum(const map_case *c, int y, int x, int64_t channel)
{
    const pl_kernel_window *w = &c->window;
    double sum = 0, size = 0;
    for (int ky = 0; ky < w->size; ky++)
        for (int kx = 0; kx < w->size; kx++) {
            const float *v = pixel_at(&c->in, y * w->stride - w->top + ky, x * w->stride - w->left + kx);
            double product = v ? (double)v[channel] * c->weights[(ky * w->size + kx) * c->in.channels + channel] : 0;
            sum += product;
            size += fabs(product);
        }
    return (num){sum, (w->size * w->size + 1) * UNIT * size};
}

static void check_depthwise(int height, int width, int64_t channels, pl_kernel_window window)
{
    map_case c = {.what = "depthwise",
                  .in = random_map(height, width, channels, 1),
                  .window = window,
                  .height = (height + window.stride - 1) / window.stride,
                  .width = (width + window.stride - 1) / window.stride,
                  .same_bits = true,
                  .run = run_depthwise};
    float *w = normals(window.size * window.size * channels, 1, 2);
    c.weights = w;
    c.n = c.height * c.width * channels;
    c.want = nums(c.n);
    for (int64_t i = 0; i < c.n; i++)
        c.want[i] = depthwise_sum(&c, (int)(i / channels / c.width), (int)(i / channels % c.width), i % channels);
    check_map(&c);
    free(w);
}

Test(tower_ops, depthwise)
{
    check_depthwise(5, 7, 80, (pl_kernel_window){3, 1, 1, 1});
    check_depthwise(8, 8, 83, (pl_kernel_window){5, 2, 1, 1});
    check_depthwise(6, 6, 5, (pl_kernel_window){3, 2, 0, 0});
    check_depthwise(2, 1, 130, (pl_kernel_window){5, 1, 2, 2});
    check_depthwise(4, 9, 16, (pl_kernel_window){3, 1, 0, 2});
}

static void run_convolve(const map_case *c, pl_backend *b)
{
    int64_t cols = c->in.channels * c->window.size * c->window.size, rows = c->n / c->height / c->width;
    pl_tensor t = {"window", c->weights, rows, cols, PL_F32};
    void *room = b->memory_take(b, b->tower->ready_bytes(rows, cols, PL_F32));
    pl_tower_matrix w;
    pl_error err;
    cr_assert_not_null(room);
    cr_assert_eq(b->tower->ready(b->stream, &t, room, &w, &err), PL_OK);
    b->tower->convolve(b->stream, out_map(c, rows), c->in, &w, c->window);
    b->memory_give(b, room, b->tower->ready_bytes(rows, cols, PL_F32));
}

static num dense_sum(const map_case *c, const float *w, int y, int x)
{
    const pl_kernel_window *k = &c->window;
    double sum = 0, size = 0;
    for (int tap = 0; tap < k->size * k->size; tap++) {
        const float *v = pixel_at(&c->in, y * k->stride - k->top + tap / k->size,
                                  x * k->stride - k->left + tap % k->size);
        for (int64_t i = 0; v && i < c->in.channels; i++) {
            sum += (double)v[i] * w[tap * c->in.channels + i];
            size += fabs((double)v[i] * w[tap * c->in.channels + i]);
        }
    }
    double n = (double)(c->in.channels * k->size * k->size);
    return (num){sum, (0x1p-16 + (n + 2) * UNIT) * size};
}

Test(tower_ops, convolve)
{
    enum { ROWS = 9, CHANNELS = 6, SIZE = 3 };
    map_case c = {.what = "convolve",
                  .in = random_map(10, 10, CHANNELS, 1),
                  .window = {SIZE, 2, 0, 0},
                  .height = 5,
                  .width = 5,
                  .n = 5 * 5 * ROWS,
                  .run = run_convolve};
    float *w = normals(ROWS * CHANNELS * SIZE * SIZE, 1, 2);
    c.weights = w;
    c.want = nums(c.n);
    for (int64_t i = 0; i < c.n; i++)
        c.want[i] = dense_sum(&c, w + i % ROWS * CHANNELS * SIZE * SIZE, (int)(i / ROWS / 5), (int)(i / ROWS % 5));
    check_map(&c);
    free(w);
}

Test(tower_ops, ready_names_the_first_row_that_is_not_finite)
{
    pl_backend_shape shape = {.max_rows = 1, .max_context = PL_KV_PAGE, .heads = {1, 1, 16}};
    pl_backend *b = open_backend(shape, 3, PL_CPU_ALL);
    float *v = normals(90 * 300, 1, 1);
    pl_tensor t = {"the.weight", v, 90, 300, PL_F32};
    void *room = b->memory_take(b, b->tower->ready_bytes(90, 300, PL_F32));
    pl_tower_matrix w;
    pl_error err;
    v[88 * 300 + 299] = NAN;
    v[41 * 300 + 256] = -INFINITY;
    cr_assert_eq(b->tower->ready(b->stream, &t, room, &w, &err), PL_ERR_FORMAT);
    cr_assert_not_null(strstr(err.message, "the.weight: row 41"), "%s", err.message);
    b->memory_give(b, room, b->tower->ready_bytes(90, 300, PL_F32));
    free(v);
    pl_backend_free(b);
}

/* ---- attention ---- */

typedef struct attend_case {
    map_case base;
    pl_pixel_attention a;
} attend_case;

static void run_attend(const map_case *base, pl_backend *b)
{
    const attend_case *c = (const attend_case *)base;
    size_t bytes = b->tower->attend_bytes(b->stream, c->a.n_keys, c->a.key_dim, c->a.value_dim);
    void *scratch = b->memory_take(b, bytes);
    cr_assert_not_null(scratch);
    b->tower->attend(b->stream, base->out, &c->a, scratch);
    b->memory_give(b, scratch, bytes);
}

/* Scores are off by at most `off`; that moves each weight by a factor within e^(2 off), beside the roundings of exp, of the
 * sum and of the quotient. */
static void expect_attention(const attend_case *c, const float *q, num *want)
{
    const pl_pixel_attention *a = &c->a;
    double *score = malloc((size_t)a->n_keys * sizeof *score), largest = -INFINITY, off = 0, sum = 0;
    cr_assert_not_null(score);
    for (int64_t k = 0; k < a->n_keys; k++) {
        double size = 0;
        score[k] = 0;
        for (int d = 0; d < a->key_dim; d++) {
            score[k] += (double)q[d] * a->k[k * a->key_dim + d];
            size += fabs((double)q[d] * a->k[k * a->key_dim + d]);
        }
        score[k] *= a->scale;
        largest = fmax(largest, score[k]);
        off = fmax(off, (0x1p-16 + (a->key_dim + 6) * UNIT) * size * a->scale);
    }
    for (int64_t k = 0; k < a->n_keys; k++)
        sum += score[k] = exp(score[k] - largest);
    double part = expm1(2 * off) + (sum_units(a->n_keys) + 2 * EXP_UNITS + 3) * UNIT;
    double products = 0x1p-16 + ((double)a->n_keys + 2) * UNIT;
    for (int d = 0; d < a->value_dim; d++) {
        double size = 0;
        want[d] = num_of(0);
        for (int64_t k = 0; k < a->n_keys; k++) {
            want[d].v += score[k] / sum * a->v[k * a->value_dim + d];
            size += score[k] / sum * fabs(a->v[k * a->value_dim + d]);
        }
        want[d].e = (part + products) * size;
    }
    free(score);
}

static void check_attend(int64_t n, int64_t n_keys, int key_dim, int value_dim)
{
    float *q = normals(n * key_dim, 1, 1), *k = normals(n_keys * key_dim, 2, 2), *v = normals(n_keys * value_dim, 1, 3);
    attend_case c = {.base = {.what = "attend", .n = n * value_dim, .run = run_attend},
                     .a = {q, k, v, n, n_keys, key_dim, value_dim, 1 / sqrtf((float)key_dim)}};
    c.base.want = nums(c.base.n);
    for (int64_t i = 0; i < n; i++)
        expect_attention(&c, q + i * key_dim, c.base.want + i * value_dim);
    check_map(&c.base);
    free(q);
    free(k);
    free(v);
}

Test(tower_ops, attend)
{
    check_attend(7, 5, 16, 24);
    check_attend(1100, 49, 24, 16); /* more than are done at once */
    check_attend(3, 300, 96, 96);
}

Test(tower_ops, attention_keeps_what_is_not_a_number)
{
    static const float v[4] = {1, 2, 3, 4};
    float q[2] = {1, 1}, k[4] = {1, NAN, 0, 1}, out[2];
    pl_backend_shape shape = {.max_rows = 1, .max_context = PL_KV_PAGE, .heads = {1, 1, 16}};
    pl_backend *b = open_backend(shape, 1, PL_CPU_ALL);
    pl_pixel_attention a = {q, k, v, 1, 2, 2, 2, 1};
    size_t bytes = b->tower->attend_bytes(b->stream, 2, 2, 2);
    void *scratch = b->memory_take(b, bytes);
    b->tower->attend(b->stream, out, &a, scratch);
    cr_assert(isnan(out[0]) && isnan(out[1]));
    b->memory_give(b, scratch, bytes);
    pl_backend_free(b);
}

/* ---- pixels ---- */

static void run_pixels(const map_case *c, pl_backend *b)
{
    b->tower->pixels(b->stream, out_map(c, 4), c->rgb);
}

Test(tower_ops, pixels)
{
    enum { SIDE = 16 };
    uint8_t rgb[SIDE * SIDE * 3];
    map_case c = {.what = "pixels",
                  .n = SIDE * SIDE * 4,
                  .rgb = rgb,
                  .height = SIDE,
                  .width = SIDE,
                  .same_bits = true,
                  .run = run_pixels};
    c.want = nums(c.n);
    for (int i = 0; i < SIDE * SIDE; i++) {
        for (int k = 0; k < 3; k++) {
            rgb[3 * i + k] = (uint8_t)(i + 85 * k);
            c.want[4 * i + k] = num_of((float)rgb[3 * i + k] * (float)(1.0 / 255));
        }
        c.want[4 * i + 3] = num_of(1);
    }
    check_map(&c);
}

static void run_join(const map_case *c, pl_backend *b)
{
    b->tower->join(b->stream, out_map(c, c->in.channels + c->other.channels), c->in, c->other);
}

static void check_join(int side, int small)
{
    enum { A = 5, B = 3 };
    map_case c = {.what = "join",
                  .in = random_map(side, side, A, 1),
                  .other = random_map(small, small, B, 2),
                  .n = side * side * (A + B),
                  .height = side,
                  .width = side,
                  .same_bits = true,
                  .run = run_join};
    c.want = nums(c.n);
    for (int i = 0; i < side * side; i++) {
        int y = i / side * small / side, x = i % side * small / side;
        for (int k = 0; k < A + B; k++)
            c.want[i * (A + B) + k] = num_of(k < A ? c.in.v[i * A + k] : c.other.v[(y * small + x) * B + k - A]);
    }
    check_map(&c);
}

Test(tower_ops, join)
{
    check_join(8, 4);
    check_join(7, 4);
}

static void run_pool(const map_case *c, pl_backend *b)
{
    b->tower->pool(b->stream, out_map(c, c->in.channels), c->in);
}

/* Part of a source pixel in an output pixel, along one axis. */
static double pool_part(int from, int to, int n_in, int n_out)
{
    if (n_in % n_out == 0)
        return from / (n_in / n_out) == to ? (double)n_out / n_in : 0;
    double at = fmax((to + 0.5) * n_in / n_out - 0.5, 0);
    double first = floor(at), second = fmin(first + 1, n_in - 1);
    return (from == first ? 1 - (at - first) : 0) + (from == second ? at - first : 0);
}

static void check_pool(int side_in, int side_out)
{
    enum { CHANNELS = 19 };
    map_case c = {.what = "pool",
                  .in = random_map(side_in, side_in, CHANNELS, 1),
                  .n = side_out * side_out * CHANNELS,
                  .height = side_out,
                  .width = side_out,
                  .same_bits = true,
                  .run = run_pool};
    c.want = nums(c.n);
    for (int64_t i = 0; i < c.n; i++) {
        int at = (int)(i / CHANNELS);
        double size = 0;
        for (int from = 0; from < side_in * side_in; from++) {
            double part = pool_part(from / side_in, at / side_out, side_in, side_out) *
                          pool_part(from % side_in, at % side_out, side_in, side_out);
            c.want[i].v += part * c.in.v[from * CHANNELS + i % CHANNELS];
            size += part * fabs(c.in.v[from * CHANNELS + i % CHANNELS]);
        }
        /* places between pixels are known to 4 roundings of numbers up to side_in */
        c.want[i].e = (16 + 8.0 * side_in) * UNIT * (size + 4);
    }
    check_map(&c);
}

Test(tower_ops, pool)
{
    check_pool(12, 4);
    check_pool(8, 8);
    check_pool(14, 16);
    check_pool(10, 4);
}
