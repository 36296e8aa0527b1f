/* The towers' products against sums in double; the bounds are derived in docs/numerics.md. */
#include "host/base/cpu.h"
#include "host/base/rng.h"
#include "host/cpu/gemm.h"
#include "tests/ops/block_scales.h"
#include "tests/ops/bounded.h"

#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

#define COUNT(a) (sizeof(a) / sizeof((a)[0]))
#define UNTOUCHED 12345.0f
#define THREADS 3

/* ---- operands ---- */

static void *take(size_t bytes)
{
    void *p = aligned_alloc(64, (bytes + 127) / 64 * 64);
    cr_assert_not_null(p);
    return p;
}

static float uniform(pl_rng *rng)
{
    return (float)(2 * pl_rng_uniform(rng) - 1);
}

static float *random_values(pl_rng *rng, int64_t n)
{
    float *x = take((size_t)n * sizeof *x);
    for (int64_t i = 0; i < n; i++)
        x[i] = uniform(rng) * (i % 37 ? 1.0f : 30.0f);
    return x;
}

static void fill_plain(pl_rng *rng, pl_dtype type, void *data, int64_t n)
{
    for (int64_t i = 0; i < n; i++) {
        float f = uniform(rng);
        uint32_t u;
        memcpy(&u, &f, sizeof u);
        if (type == PL_F32)
            ((float *)data)[i] = f;
        else
            ((uint16_t *)data)[i] = type == PL_F16 ? pl_f32_to_f16(f) : (uint16_t)(u >> 16);
    }
}

static void fill_blocks(pl_rng *rng, pl_dtype type, uint8_t *data, size_t bytes)
{
    size_t block_bytes = (size_t)pl_dtype_describe((int)type)->block_bytes;
    int at[2];
    scale_offsets(type, at);
    for (size_t i = 0; i < bytes; i++)
        data[i] = (uint8_t)pl_rng_next(rng);
    for (size_t b = 0; b < bytes; b += block_bytes) {
        for (int i = 0; i < 2; i++) {
            uint16_t h = pl_f32_to_f16(uniform(rng) * 0.02f);
            if (at[i] >= 0)
                memcpy(data + b + at[i], &h, sizeof h);
        }
        if (type == PL_MXFP4)
            data[b] = (uint8_t)(115 + data[b] % 16);
    }
}

static pl_tensor make_tensor(pl_rng *rng, pl_dtype type, int64_t rows, int64_t cols)
{
    size_t bytes = (size_t)rows * pl_dtype_bytes(type, cols);
    void *data = take(bytes);
    if (pl_dtype_describe((int)type)->block_elems == 1)
        fill_plain(rng, type, data, rows * cols);
    else
        fill_blocks(rng, type, data, bytes);
    return (pl_tensor){"weights", data, rows, cols, type};
}

static void free_tensor(pl_tensor *t)
{
    free((void *)(uintptr_t)t->data);
}

/* ---- products ---- */

/* Every set of kernels that this machine can run. */
static size_t all_kernels(const pl_gemm_kernels *out[4])
{
    static const unsigned levels[] = {0, PL_CPU_AVX2, PL_CPU_ALL & ~(unsigned)PL_CPU_AMX_BF16, PL_CPU_ALL};
    size_t n = 0;
    for (size_t i = 0; i < COUNT(levels); i++) {
        const pl_gemm_kernels *k = pl_gemm_select(pl_cpu_features(levels[i]));
        if (n == 0 || k != out[n - 1])
            out[n++] = k;
    }
    return n;
}

typedef struct setting {
    pl_pool *pool;
    float *scratch;
} setting;

static setting make_setting(int threads)
{
    setting s;
    pl_error err;
    cr_assert_eq(pl_pool_create(threads, NULL, &s.pool, &err), PL_OK);
    size_t bytes = (size_t)threads * PL_GEMM_SCRATCH_FLOATS * sizeof(float);
    s.scratch = take(bytes);
    memset(s.scratch, 0xff, bytes); /* all NaN */
    return s;
}

static void free_setting(setting *s)
{
    pl_pool_free(s->pool);
    free(s->scratch);
}

static pl_tower_matrix pack(const setting *s, const pl_gemm_kernels *k, const pl_tensor *t)
{
    pl_tower_matrix w;
    k->pack(s->pool, t, take(k->bytes(t->rows, t->cols, t->type)), &w);
    return w;
}

static void free_matrix(pl_tower_matrix *w)
{
    free((void *)(uintptr_t)w->data);
}

/* A row of out has three values more than there are outputs, and there is one row more than there are rows. */
static float *multiply(const setting *s, const pl_gemm_kernels *k, const pl_gemm_rows *rows, int64_t n,
                       const pl_tower_matrix *w)
{
    int64_t ld = w->rows + 3;
    float *out = take((size_t)((n + 1) * ld) * sizeof *out);
    for (int64_t i = 0; i < (n + 1) * ld; i++)
        out[i] = UNTOUCHED;
    k->multiply(s->pool, s->scratch, out, ld, rows, n, w);
    for (int64_t i = 0; i < (n + 1) * ld; i++)
        if (i % ld >= w->rows || i / ld == n)
            cr_assert_eq(out[i], UNTOUCHED, "%s writes beyond its outputs", k->name);
    return out;
}

/* What a sum of absolute products may be off by, in units of it. */
static double error_share(const pl_gemm_kernels *k, pl_dtype type, int64_t cols)
{
    if (strcmp(k->name, "amx-bf16") != 0)
        return (double)(cols + 1) * UNIT;
    int64_t steps = (cols + 31) / 32;
    double left_out = type == PL_BF16 ? 0x1p-16 : type == PL_F32 ? 2.1 * 0x1p-24 : 3 * 0x1p-16;
    return left_out + (double)((type == PL_F32 ? 6 : 3) * steps + 17) * UNIT * 1.02;
}

/* share: of the sum of absolute products. */
static void expect_exact(const pl_gemm_kernels *k, const pl_tensor *t, const float *x, int64_t ld_x, int64_t n,
                         const float *out, double share)
{
    float *w = take((size_t)(t->rows * t->cols) * sizeof *w);
    pl_decode(t->type, t->data, w, t->rows * t->cols);
    for (int64_t i = 0; i < n; i++) {
        for (int64_t j = 0; j < t->rows; j++) {
            double sum = 0, size = 0;
            for (int64_t c = 0; c < t->cols; c++) {
                double product = (double)w[j * t->cols + c] * (double)x[i * ld_x + c];
                sum += product;
                size += fabs(product);
            }
            double error = fabs((double)out[i * (t->rows + 3) + j] - sum);
            cr_assert(error <= share * size, "%s %s %ldx%ld, row %ld, output %ld: off by %g, allowed %g", k->name,
                      pl_dtype_describe((int)t->type)->name, (long)t->rows, (long)t->cols, (long)i, (long)j, error,
                      share * size);
        }
    }
    free(w);
}

static void check_product(const setting *s, pl_rng *rng, pl_dtype type, int64_t n, int64_t rows, int64_t cols)
{
    pl_tensor t = make_tensor(rng, type, rows, cols);
    int64_t ld = cols + 5;
    float *x = random_values(rng, n * ld);
    for (int64_t i = 0; i < n * ld; i++)
        x[i] = i % ld < cols ? x[i] : NAN;
    const pl_gemm_kernels *kernels[4];
    for (size_t i = all_kernels(kernels); i-- > 0;) {
        pl_tower_matrix w = pack(s, kernels[i], &t);
        float *out = multiply(s, kernels[i], &(pl_gemm_rows){.x = x, .ld = ld}, n, &w);
        expect_exact(kernels[i], &t, x, ld, n, out, error_share(kernels[i], type, cols));
        free(out);
        free_matrix(&w);
    }
    free(x);
    free_tensor(&t);
}

Test(gemm, plain_weights_of_any_size)
{
    static const int64_t sizes[][3] = {{1, 1, 1},      {5, 33, 27},   {16, 64, 256},  {17, 70, 64},
                                       {33, 32, 1152}, {49, 16, 513}, {193, 31, 259}, {400, 95, 31}};
    static const pl_dtype types[] = {PL_F32, PL_F16, PL_BF16};
    setting s = make_setting(THREADS);
    pl_rng rng;
    pl_rng_seed(&rng, 1);
    for (size_t i = 0; i < COUNT(sizes); i++)
        for (size_t j = 0; j < COUNT(types); j++)
            check_product(&s, &rng, types[j], sizes[i][0], sizes[i][1], sizes[i][2]);
    free_setting(&s);
}

Test(gemm, weights_of_blocks)
{
    static const pl_dtype types[] = {PL_Q4_0, PL_Q4_1, PL_Q5_0, PL_Q5_1,   PL_Q8_0,   PL_Q2_K,  PL_Q3_K,
                                     PL_Q4_K, PL_Q5_K, PL_Q6_K, PL_IQ4_NL, PL_IQ4_XS, PL_MXFP4, PL_NVFP4};
    setting s = make_setting(THREADS);
    pl_rng rng;
    pl_rng_seed(&rng, 2);
    for (size_t i = 0; i < COUNT(types); i++)
        check_product(&s, &rng, types[i], 7, 45, pl_dtype_describe((int)types[i])->block_elems == 256 ? 512 : 320);
    free_setting(&s);
}

Test(gemm, values_in_f32_count_to_the_last_bit)
{
    const int64_t n = 50, cols = 2;
    setting s = make_setting(1);
    pl_rng rng;
    pl_rng_seed(&rng, 7);
    pl_tensor t = make_tensor(&rng, PL_F32, 60, cols);
    float *x = random_values(&rng, n * cols);
    const pl_gemm_kernels *kernels[4];
    for (size_t i = all_kernels(kernels); i-- > 0;) {
        pl_tower_matrix w = pack(&s, kernels[i], &t);
        float *out = multiply(&s, kernels[i], &(pl_gemm_rows){.x = x, .ld = cols}, n, &w);
        expect_exact(kernels[i], &t, x, cols, n, out, error_share(kernels[i], PL_F32, cols));
        free(out);
        free_matrix(&w);
    }
    free(x);
    free_tensor(&t);
    free_setting(&s);
}

/* ---- windows ---- */

typedef struct convolution {
    int height, width;
    int64_t channels;
    pl_kernel_window window;
    int out_height, out_width;
} convolution;

/* Each pixel's window written out as a row. */
static float *write_windows(const convolution *c, const float *map)
{
    int size = c->window.size;
    int64_t cols = size * size * c->channels;
    float *x = take((size_t)(c->out_height * c->out_width * cols) * sizeof *x);
    for (int64_t i = 0; i < c->out_height * c->out_width * cols; i++) {
        int64_t pixel = i / cols, tap = i % cols / c->channels;
        int64_t at_y = pixel / c->out_width * c->window.stride - c->window.top + tap / size;
        int64_t at_x = pixel % c->out_width * c->window.stride - c->window.left + tap % size;
        bool inside = at_y >= 0 && at_y < c->height && at_x >= 0 && at_x < c->width;
        x[i] = inside ? map[(at_y * c->width + at_x) * c->channels + i % c->channels] : 0;
    }
    return x;
}

static void check_windows(const setting *s, pl_rng *rng, const convolution *c)
{
    int64_t cols = c->window.size * c->window.size * c->channels, n = (int64_t)c->out_height * c->out_width;
    pl_tensor t = make_tensor(rng, PL_F32, 37, cols);
    pl_map map = {random_values(rng, c->height * c->width * c->channels), c->height, c->width, c->channels};
    float *x = write_windows(c, map.v);
    const pl_gemm_kernels *kernels[4];
    for (size_t i = all_kernels(kernels); i-- > 0;) {
        pl_tower_matrix w = pack(s, kernels[i], &t);
        float *expected = multiply(s, kernels[i], &(pl_gemm_rows){.x = x, .ld = cols}, n, &w);
        pl_gemm_rows rows = {.map = &map, .window = c->window, .out_width = c->out_width};
        float *out = multiply(s, kernels[i], &rows, n, &w);
        cr_assert_arr_eq(out, expected, (size_t)(n * (t.rows + 3)) * sizeof *out, "%s: %dx%d by %d, stride %d",
                         kernels[i]->name, c->height, c->width, c->window.size, c->window.stride);
        free(out);
        free(expected);
        free_matrix(&w);
    }
    free(x);
    free(map.v);
    free_tensor(&t);
}

Test(gemm, windows_of_a_map)
{
    static const convolution cases[] = {
        {9, 11, 3, {3, 2, 0, 0}, 5, 6},    /* as TensorFlow pads: behind the map only */
        {9, 11, 3, {3, 2, 1, 1}, 5, 6},    /* on both sides */
        {6, 7, 40, {3, 1, 1, 1}, 6, 7},    /* windows of more than a slab */
        {5, 6, 100, {3, 1, 1, 1}, 5, 6},   /* a slab within a row of it */
        {4, 3, 5, {5, 1, 2, 2}, 4, 3},     /* wider than the map */
        {8, 20, 128, {1, 2, 0, 0}, 4, 10}, /* every other pixel */
        {2, 2, 7, {3, 3, 4, 5}, 4, 4},     /* whole windows outside of it */
    };
    setting s = make_setting(THREADS);
    pl_rng rng;
    pl_rng_seed(&rng, 3);
    for (size_t i = 0; i < COUNT(cases); i++)
        check_windows(&s, &rng, &cases[i]);
    free_setting(&s);
}

/* ---- what a row depends on ---- */

static void check_alone(const setting *one, const setting *many, const pl_gemm_kernels *k, const pl_tensor *t,
                        const float *x, int64_t n)
{
    pl_tower_matrix w = pack(many, k, t);
    int64_t ld = t->rows + 3;
    float *company = multiply(many, k, &(pl_gemm_rows){.x = x, .ld = t->cols}, n, &w);
    float *one_thread = multiply(one, k, &(pl_gemm_rows){.x = x, .ld = t->cols}, n, &w);
    cr_assert_arr_eq(company, one_thread, (size_t)(n * ld) * sizeof *company, "%s: threads matter", k->name);
    for (int64_t i = 0; i < n; i += 7) {
        for (int64_t some = 1; some <= 20 && i + some <= n; some += 19) {
            float *out = multiply(many, k, &(pl_gemm_rows){.x = x + i * t->cols, .ld = t->cols}, some, &w);
            cr_assert_arr_eq(out, company + i * ld, (size_t)(some * ld) * sizeof *out,
                             "%s: row %ld differs among %ld rows", k->name, (long)i, (long)some);
            free(out);
        }
    }
    free(company);
    free(one_thread);
    free_matrix(&w);
}

Test(gemm, a_row_is_the_same_in_any_company_and_on_any_threads)
{
    setting one = make_setting(1), many = make_setting(THREADS);
    pl_rng rng;
    pl_rng_seed(&rng, 4);
    const int64_t n = 250;
    pl_tensor t = make_tensor(&rng, PL_F32, 170, 600);
    float *x = random_values(&rng, n * t.cols);
    const pl_gemm_kernels *kernels[4];
    for (size_t i = all_kernels(kernels); i-- > 0;)
        check_alone(&one, &many, kernels[i], &t, x, n);
    free(x);
    free_tensor(&t);
    free_setting(&one);
    free_setting(&many);
}

Test(gemm, a_value_that_is_not_finite_spoils_its_row_alone)
{
    setting s = make_setting(THREADS);
    pl_rng rng;
    pl_rng_seed(&rng, 5);
    const int64_t n = 40, bad[] = {3, 30, 39};
    float values[] = {NAN, INFINITY, -INFINITY};
    memset(&values[0], 0xff, sizeof values[0]); /* the NaN next to zero, for whoever counts on */
    pl_tensor t = make_tensor(&rng, PL_BF16, 50, 300);
    float *x = random_values(&rng, n * t.cols);
    const pl_gemm_kernels *kernels[4];
    for (size_t i = all_kernels(kernels); i-- > 0;) {
        pl_tower_matrix w = pack(&s, kernels[i], &t);
        float *clean = multiply(&s, kernels[i], &(pl_gemm_rows){.x = x, .ld = t.cols}, n, &w), kept[COUNT(bad)];
        for (size_t b = 0; b < COUNT(bad); b++) {
            kept[b] = x[bad[b] * t.cols + 299];
            x[bad[b] * t.cols + 299] = values[b];
        }
        float *out = multiply(&s, kernels[i], &(pl_gemm_rows){.x = x, .ld = t.cols}, n, &w);
        for (int64_t row = 0; row < n; row++) {
            bool spoiled = row == bad[0] || row == bad[1] || row == bad[2];
            for (int64_t j = row * (t.rows + 3); j < row * (t.rows + 3) + t.rows; j++)
                cr_assert(spoiled ? !isfinite(out[j]) : out[j] == clean[j], "%s: row %ld", kernels[i]->name, (long)row);
        }
        for (size_t b = 0; b < COUNT(bad); b++)
            x[bad[b] * t.cols + 299] = kept[b];
        free(out);
        free(clean);
        free_matrix(&w);
    }
    free(x);
    free_tensor(&t);
    free_setting(&s);
}

Test(gemm, no_rows_are_no_work)
{
    setting s = make_setting(1);
    pl_rng rng;
    pl_rng_seed(&rng, 6);
    pl_tensor t = make_tensor(&rng, PL_F32, 3, 4);
    const pl_gemm_kernels *kernels[4];
    for (size_t i = all_kernels(kernels); i-- > 0;) {
        pl_tower_matrix w = pack(&s, kernels[i], &t);
        free(multiply(&s, kernels[i], &(pl_gemm_rows){.ld = 4}, 0, &w));
        free_matrix(&w);
    }
    free_tensor(&t);
    free_setting(&s);
}
