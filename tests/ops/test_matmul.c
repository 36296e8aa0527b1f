/* The CPU's matrix product: plain C against the exact product of the decoded weights, everything else against
 * plain C, bit for bit. The bounds are derived in docs/numerics.md. */
#include "host/base/cpu.h"
#include "host/base/rng.h"
#include "host/base/threads.h"
#include "host/cpu/matmul.h"
#include "host/cpu/pack.h"

#include <criterion/criterion.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

static const pl_dtype block_types[] = {PL_Q4_0, PL_Q4_1, PL_Q5_0, PL_Q5_1, PL_Q8_0, PL_Q4_K, PL_Q5_K, PL_Q6_K};
static const pl_dtype plain_types[] = {PL_F32, PL_F16, PL_BF16};
#define COUNT(a) (sizeof(a) / sizeof((a)[0]))

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

/* Where a type's blocks keep f16 scales: byte offsets, -1 for none. */
static void scale_offsets(pl_dtype type, int at[2])
{
    at[0] = type == PL_Q6_K ? (int)offsetof(pl_block_q6_k, d) : 0;
    at[1] = type == PL_Q4_1 || type == PL_Q5_1 || type == PL_Q4_K || type == PL_Q5_K ? 2 : -1;
}

static pl_tensor make_tensor(pl_rng *rng, pl_dtype type, int64_t rows, int64_t cols)
{
    const pl_dtype_info *info = pl_dtype_describe((int)type);
    size_t bytes = (size_t)rows * pl_dtype_bytes(type, cols);
    uint8_t *data = take(bytes);
    if (info->block_elems == 1) {
        for (int64_t i = 0; i < rows * cols; i++) {
            float f = uniform(rng);
            uint16_t h = pl_f32_to_f16(f);
            uint32_t u;
            memcpy(&u, &f, sizeof u);
            if (type == PL_BF16)
                h = (uint16_t)(u >> 16);
            memcpy(data + i * info->block_bytes, type == PL_F32 ? (void *)&f : (void *)&h, (size_t)info->block_bytes);
        }
        return (pl_tensor){"plain", data, rows, cols, type};
    }
    int at[2];
    scale_offsets(type, at);
    for (size_t i = 0; i < bytes; i++)
        data[i] = (uint8_t)pl_rng_next(rng);
    for (size_t b = 0; b < bytes; b += (size_t)info->block_bytes) {
        for (int i = 0; i < 2; i++) {
            uint16_t h = pl_f32_to_f16(uniform(rng) * 0.02f);
            if (at[i] >= 0)
                memcpy(data + b + at[i], &h, sizeof h);
        }
    }
    return (pl_tensor){"blocks", data, rows, cols, type};
}

typedef struct operand {
    pl_weight w;
    void *packed;
} operand;

static operand pack(pl_pool *pool, const pl_tensor *t)
{
    operand o = {.packed = take(pl_pack_bytes(t))};
    pl_error err;
    cr_assert_eq(pl_pack(pool, t, o.packed, &o.w, &err), PL_OK);
    return o;
}

static pl_act make_act(pl_rng *rng, int rows, int64_t cols)
{
    int64_t blocks = (cols + PL_ACT_BLOCK - 1) / PL_ACT_BLOCK, ld = cols + 3;
    float *x = take((size_t)(rows * ld) * sizeof *x);
    for (int64_t i = 0; i < rows * ld; i++)
        x[i] = uniform(rng) * (i % 37 ? 1.0f : 30.0f);
    return (pl_act){.f32 = x,
                    .ld = ld,
                    .cols = cols,
                    .blocks = blocks,
                    .hi_lo = take((size_t)(rows * blocks) * 2 * PL_ACT_BLOCK),
                    .scale = take((size_t)(rows * blocks) * sizeof(float)),
                    .sum = take((size_t)(rows * blocks) * 2 * sizeof(int32_t))};
}

static void free_act(pl_act *x)
{
    free((void *)(uintptr_t)x->f32);
    free(x->hi_lo);
    free(x->scale);
    free(x->sum);
}

static void free_tensor(pl_tensor *t)
{
    free((void *)(uintptr_t)t->data);
}

static pl_pool *make_pool(int threads)
{
    pl_pool *pool;
    pl_error err;
    cr_assert_eq(pl_pool_create(threads, NULL, &pool, &err), PL_OK);
    return pool;
}

/* Every set of kernels that this machine can run, plain C first. */
static size_t all_kernels(const pl_matmul_kernels *out[4])
{
    static const unsigned levels[] = {0, PL_CPU_AVX2, PL_CPU_AVX2 | PL_CPU_AVX_VNNI, PL_CPU_ALL};
    size_t n = 0;
    for (size_t i = 0; i < COUNT(levels); i++) {
        const pl_matmul_kernels *k = pl_matmul_select(pl_cpu_features(levels[i]));
        if (n == 0 || k != out[n - 1])
            out[n++] = k;
    }
    return n;
}

#define UNTOUCHED 12345.0f

static void run(const pl_matmul_kernels *k, pl_pool *pool, pl_matmul job)
{
    for (int64_t i = 0; i < job.n_rows * job.out_ld; i++)
        job.out[i] = UNTOUCHED;
    pl_act x = *job.x;
    if (job.w->packed)
        k->quantize(pool, &x, job.n_rows);
    job.x = &x;
    k->matmul(pool, &job, 1);
}

/* ---- against the exact product ---- */

/* The largest |d * code| + |m| that the block can hold. */
static double amplitude(pl_dtype type, const uint8_t *block)
{
    int at[2];
    scale_offsets(type, at);
    uint16_t d, m = 0;
    memcpy(&d, block + at[0], sizeof d);
    if (at[1] >= 0)
        memcpy(&m, block + at[1], sizeof m);
    double k_scale = type == PL_Q6_K ? 128 : type == PL_Q4_K || type == PL_Q5_K ? 63 : 1;
    double code = type == PL_Q8_0 ? 128 : 32;
    return k_scale * (code * fabs((double)pl_f16_to_f32(d)) + fabs((double)pl_f16_to_f32(m)));
}

static double block_error(const pl_tensor *t, int64_t row, const float *w, const float *x)
{
    const pl_dtype_info *info = pl_dtype_describe((int)t->type);
    const uint8_t *src = pl_tensor_row(t, row);
    double error = 0, steps = (double)t->cols / 16 + 7;
    for (int64_t b = 0; b < t->cols / PL_ACT_BLOCK; b++) {
        double largest = 0, w_sum = 0, x_sum = 0;
        for (int64_t k = b * PL_ACT_BLOCK; k < (b + 1) * PL_ACT_BLOCK; k++) {
            largest = fmax(largest, fabs((double)x[k]));
            w_sum += fabs((double)w[k]);
            x_sum += fabs((double)x[k]);
        }
        double a = amplitude(t->type, src + b * PL_ACT_BLOCK / info->block_elems * info->block_bytes);
        error += 0.504 / 16256 * largest * w_sum + steps * 0x1p-24 * a * x_sum;
    }
    return error;
}

static void check_exact(const pl_tensor *t, const pl_act *x, const float *out, int64_t out_ld, int n_rows)
{
    float *w = take((size_t)t->cols * sizeof *w);
    for (int64_t n = 0; n < t->rows; n++) {
        pl_decode(t->type, pl_tensor_row(t, n), w, t->cols);
        for (int i = 0; i < n_rows; i++) {
            const float *row = x->f32 + i * x->ld;
            double sum = 0, size = 0;
            for (int64_t k = 0; k < t->cols; k++) {
                sum += (double)w[k] * (double)row[k];
                size += fabs((double)w[k] * (double)row[k]);
            }
            double bound = pl_pack_bytes(t) ? block_error(t, n, w, row)
                                            : ((double)((t->cols + 15) / 16) + 5) * 0x1p-24 * size;
            double error = fabs((double)out[i * out_ld + n] - sum);
            cr_assert(error <= bound, "type %d, %lld x %lld, row %d, output %lld: error %g, bound %g", (int)t->type,
                      (long long)t->rows, (long long)t->cols, i, (long long)n, error, bound);
        }
    }
    free(w);
}

static void check_type_exact(pl_dtype type, int64_t rows, int64_t cols)
{
    pl_rng rng;
    pl_rng_seed(&rng, (uint64_t)(cols + 1000 * rows + type));
    pl_pool *pool = make_pool(1);
    pl_tensor t = make_tensor(&rng, type, rows, cols);
    operand o = pack(pool, &t);
    pl_act x = make_act(&rng, 3, cols);
    int64_t ld = rows + 5;
    float *out = take((size_t)(3 * ld) * sizeof *out);
    for (int n = 1; n <= 3; n += 2) {
        run(pl_matmul_select(0), pool, (pl_matmul){.w = &o.w, .x = &x, .out = out, .out_ld = ld, .n_rows = n});
        check_exact(&t, &x, out, ld, n);
        for (int i = 0; i < n; i++)
            cr_assert_eq(out[i * ld + rows], UNTOUCHED);
    }
    free(out);
    free(o.packed);
    free_act(&x);
    free_tensor(&t);
    pl_pool_free(pool);
}

Test(matmul, plain_c_is_within_the_derived_bound_of_the_exact_product)
{
    for (size_t i = 0; i < COUNT(block_types); i++) {
        check_type_exact(block_types[i], 19, 256);
        check_type_exact(block_types[i], 16, 2048);
        if (pl_dtype_describe((int)block_types[i])->block_elems == 32) {
            check_type_exact(block_types[i], 1, 32);
            check_type_exact(block_types[i], 33, 96);
            check_type_exact(block_types[i], 8, 288);
        }
    }
    for (size_t i = 0; i < COUNT(plain_types); i++) {
        static const int64_t cols[] = {1, 4, 8, 16, 17, 96, 160, 250};
        for (size_t c = 0; c < COUNT(cols); c++)
            check_type_exact(plain_types[i], (int64_t)c * 9 + 1, cols[c]);
    }
}

/* ---- kernels, rows and threads against plain C with one row at a time ---- */

typedef struct prefix {
    int32_t n_out[320], n_in[320];
} prefix;

/* Widths in steps, as paths of different sizes give: a few rows each. */
static void make_prefix(prefix *p, const pl_tensor *t, int n_rows)
{
    int elems = pl_dtype_describe((int)t->type)->block_elems;
    for (int i = 0; i < n_rows; i++) {
        int64_t out = t->rows - t->rows * (i / 3) / (n_rows / 3 + 1);
        int64_t in = t->cols / elems - t->cols / elems * (i / 4) / (n_rows / 4 + 1);
        p->n_out[i] = (int32_t)out;
        p->n_in[i] = (int32_t)(in * elems);
    }
}

/* want: each row alone by plain C. */
static void reference_rows(pl_pool *pool, pl_matmul job)
{
    const pl_act *x = job.x;
    for (int i = 0; i < job.n_rows; i++) {
        pl_act one = *x;
        one.f32 = x->f32 + i * x->ld;
        pl_matmul single = job;
        single.x = &one;
        single.out = job.out + i * job.out_ld;
        single.n_rows = 1;
        single.n_out = job.n_out ? job.n_out + i : NULL;
        single.n_in = job.n_in ? job.n_in + i : NULL;
        run(pl_matmul_select(0), pool, single);
    }
}

typedef struct fixture {
    pl_pool *one, *three;
    const pl_matmul_kernels *kernels[4];
    size_t n_kernels;
} fixture;

static fixture make_fixture(void)
{
    fixture f = {.one = make_pool(1), .three = make_pool(3)};
    f.n_kernels = all_kernels(f.kernels);
    return f;
}

static void free_fixture(fixture *f)
{
    pl_pool_free(f->one);
    pl_pool_free(f->three);
}

static void check_same_bits(const fixture *f, pl_dtype type, int64_t rows, int64_t cols, int n_rows)
{
    pl_rng rng;
    pl_rng_seed(&rng, (uint64_t)(cols + 1000 * rows + 77 * n_rows + type));
    pl_tensor t = make_tensor(&rng, type, rows, cols);
    operand o = pack(f->three, &t);
    pl_act x = make_act(&rng, n_rows, cols);
    int64_t ld = rows + 3;
    size_t bytes = (size_t)(n_rows * ld) * sizeof(float);
    float *want = take(bytes), *got = take(bytes);
    prefix p;
    make_prefix(&p, &t, n_rows);
    for (int mode = 0; mode < 4; mode++) {
        pl_matmul job = {.w = &o.w,
                         .x = &x,
                         .out = want,
                         .out_ld = ld,
                         .n_rows = n_rows,
                         .n_out = mode & 1 ? p.n_out : NULL,
                         .n_in = mode & 2 ? p.n_in : NULL};
        reference_rows(f->one, job);
        job.out = got;
        for (size_t k = 0; k < f->n_kernels; k++) {
            run(f->kernels[k], k & 1 ? f->one : f->three, job);
            cr_assert_arr_eq(got, want, bytes, "%s: type %d, %lld x %lld, %d rows, mode %d", f->kernels[k]->name,
                             (int)type, (long long)rows, (long long)cols, n_rows, mode);
        }
    }
    free(want);
    free(got);
    free(o.packed);
    free_act(&x);
    free_tensor(&t);
}

Test(matmul, block_types_give_the_same_bits_on_every_kernel_for_any_rows_and_threads)
{
    fixture f = make_fixture();
    for (size_t i = 0; i < COUNT(block_types); i++) {
        for (int n = 1; n <= 19; n++)
            check_same_bits(&f, block_types[i], 41, 256, n);
        check_same_bits(&f, block_types[i], 130, 768, 33);
        check_same_bits(&f, block_types[i], 16, 2048, 2);
        if (pl_dtype_describe((int)block_types[i])->block_elems == 32) {
            check_same_bits(&f, block_types[i], 1, 32, 5);
            check_same_bits(&f, block_types[i], 50, 64, 7);
            check_same_bits(&f, block_types[i], 8, 96, 1);
            check_same_bits(&f, block_types[i], 24, 352, 10);
        }
    }
    check_same_bits(&f, PL_Q4_0, 20, 512, 300);
    free_fixture(&f);
}

Test(matmul, plain_types_give_the_same_bits_on_every_kernel_for_any_rows_and_threads)
{
    fixture f = make_fixture();
    static const int64_t cols[] = {4, 8, 16, 17, 96, 160, 250};
    for (size_t i = 0; i < COUNT(plain_types); i++) {
        for (size_t c = 0; c < COUNT(cols); c++)
            for (int n = 1; n <= 19; n += c < 2 ? 1 : 3)
                check_same_bits(&f, plain_types[i], 8 + 7 * (int64_t)c, cols[c], n);
        check_same_bits(&f, plain_types[i], 113, 96, 33);
    }
    free_fixture(&f);
}

Test(matmul, several_jobs_share_a_call)
{
    fixture f = make_fixture();
    pl_rng rng;
    pl_rng_seed(&rng, 5);
    static const pl_dtype types[] = {PL_Q4_0, PL_F16, PL_Q8_0};
    static const int64_t rows[] = {100, 9, 48};
    pl_act x = make_act(&rng, 7, 288);
    pl_tensor t[3];
    operand o[3];
    pl_matmul jobs[3];
    for (int i = 0; i < 3; i++) {
        t[i] = make_tensor(&rng, types[i], rows[i], 288);
        o[i] = pack(f.one, &t[i]);
        jobs[i] = (pl_matmul){
            .w = &o[i].w, .x = &x, .out_ld = rows[i], .n_rows = 7, .out = take((size_t)(7 * rows[i]) * sizeof(float))};
    }
    for (size_t k = 0; k < f.n_kernels; k++) {
        f.kernels[k]->quantize(f.three, &x, 7);
        f.kernels[k]->matmul(f.three, jobs, 3);
        for (int i = 0; i < 3; i++)
            check_exact(&t[i], &x, jobs[i].out, rows[i], 7);
    }
    for (int i = 0; i < 3; i++) {
        free(jobs[i].out);
        free(o[i].packed);
        free_tensor(&t[i]);
    }
    free_act(&x);
    free_fixture(&f);
}

/* ---- activations ---- */

Test(matmul, integers_stand_for_activations_to_half_a_step)
{
    fixture f = make_fixture();
    pl_rng rng;
    pl_rng_seed(&rng, 8);
    int64_t cols = 256 + 5 * 32 + 9;
    pl_act x = make_act(&rng, 4, cols);
    for (size_t k = 0; k < f.n_kernels; k++) {
        f.kernels[k]->quantize(f.three, &x, 4);
        for (int64_t b = 0; b < 4 * x.blocks; b++) {
            int64_t span_end = b < 4 * 8 ? 8 : x.blocks, in_span = b % 32 % (span_end - b / 32 * 8);
            int64_t row = b % 32 / (span_end - b / 32 * 8);
            int32_t sum[2] = {0, 0};
            for (int i = 0; i < 32; i++) {
                int64_t col = (b / 32 * 8 + in_span) * 32 + i;
                int hi = x.hi_lo[64 * b + i], lo = x.hi_lo[64 * b + 32 + i], q = 128 * hi + lo;
                double want = col < cols ? (double)x.f32[row * x.ld + col] : 0;
                sum[i / 16] += q;
                cr_assert(hi >= -127 && hi <= 127 && lo >= -64 && lo <= 63);
                cr_assert_leq(fabs((double)x.scale[b] * q - want), 0.504 * (double)x.scale[b]);
            }
            cr_assert_eq(x.sum[2 * b], sum[0]);
            cr_assert_eq(x.sum[2 * b + 1], sum[1]);
        }
    }
    free_act(&x);
    free_fixture(&f);
}

Test(matmul, values_that_are_not_finite_show_in_their_row_alone)
{
    fixture f = make_fixture();
    pl_rng rng;
    pl_rng_seed(&rng, 9);
    pl_tensor t = make_tensor(&rng, PL_Q4_0, 32, 64);
    operand o = pack(f.one, &t);
    pl_act x = make_act(&rng, 3, 64);
    float *values = (float *)(uintptr_t)x.f32, out[3 * 32];
    values[x.ld + 5] = INFINITY;
    values[2 * x.ld + 40] = NAN;
    for (size_t k = 0; k < f.n_kernels; k++) {
        run(f.kernels[k], f.one, (pl_matmul){.w = &o.w, .x = &x, .out = out, .out_ld = 32, .n_rows = 3});
        for (int n = 0; n < 32; n++)
            cr_assert(isfinite(out[n]) && isnan(out[32 + n]) && isnan(out[64 + n]));
    }
    free(o.packed);
    free_act(&x);
    free_tensor(&t);
    free_fixture(&f);
}

Test(matmul, zeros_and_the_smallest_values_give_zero)
{
    fixture f = make_fixture();
    pl_rng rng;
    pl_rng_seed(&rng, 10);
    pl_tensor t = make_tensor(&rng, PL_Q8_0, 16, 32);
    operand o = pack(f.one, &t);
    pl_act x = make_act(&rng, 2, 32);
    float *values = (float *)(uintptr_t)x.f32, out[2 * 16];
    for (int i = 0; i < 32; i++) {
        values[i] = 0;
        values[x.ld + i] = 1e-42f;
    }
    for (size_t k = 0; k < f.n_kernels; k++) {
        run(f.kernels[k], f.one, (pl_matmul){.w = &o.w, .x = &x, .out = out, .out_ld = 16, .n_rows = 2});
        for (int n = 0; n < 32; n++)
            cr_assert_eq(out[n], 0);
    }
    free(o.packed);
    free_act(&x);
    free_tensor(&t);
    free_fixture(&f);
}

/* ---- packing ---- */

Test(pack, rows_come_back_as_the_decoder_gives_them)
{
    pl_pool *pool = make_pool(2);
    pl_rng rng;
    pl_rng_seed(&rng, 11);
    for (size_t i = 0; i < COUNT(block_types) + COUNT(plain_types); i++) {
        pl_dtype type = i < COUNT(block_types) ? block_types[i] : plain_types[i - COUNT(block_types)];
        int64_t cols = pl_dtype_describe((int)type)->block_elems == 32 ? 352 : 512;
        pl_tensor t = make_tensor(&rng, type, 37, cols);
        operand o = pack(pool, &t);
        float want[512], got[512];
        for (int64_t r = 0; r < 37; r++) {
            pl_decode(type, pl_tensor_row(&t, r), want, cols);
            pl_weight_row(&o.w, r, got);
            cr_assert_arr_eq(got, want, (size_t)cols * sizeof *got, "type %d, row %lld", (int)type, (long long)r);
        }
        free(o.packed);
        free_tensor(&t);
    }
    pl_pool_free(pool);
}

Test(pack, panels_are_hardly_larger_than_the_file)
{
    for (size_t i = 0; i < COUNT(block_types); i++) {
        pl_tensor t = {"t", NULL, 2048, 16384, block_types[i]};
        double file = 2048.0 * (double)pl_tensor_row_bytes(&t);
        cr_assert_leq((double)pl_pack_bytes(&t), 1.03 * file, "type %d", (int)block_types[i]);
    }
    cr_assert_eq(pl_pack_bytes(&(pl_tensor){"t", NULL, 8, 8, PL_F16}), 0);
}

Test(pack, a_scale_that_is_not_finite_is_reported_with_its_row)
{
    pl_pool *pool = make_pool(2);
    pl_rng rng;
    pl_rng_seed(&rng, 12);
    for (size_t i = 0; i < COUNT(block_types); i++) {
        const pl_dtype_info *info = pl_dtype_describe((int)block_types[i]);
        pl_tensor t = make_tensor(&rng, block_types[i], 100, 256);
        int at[2];
        scale_offsets(block_types[i], at);
        for (int s = 0; s < 2 && at[s] >= 0; s++) {
            uint8_t *block = (uint8_t *)(uintptr_t)pl_tensor_row(&t, 70 - s) +
                             256 / info->block_elems * info->block_bytes - info->block_bytes;
            uint16_t infinity = 0x7c00;
            memcpy(block + at[s], &infinity, sizeof infinity);
            pl_weight w;
            pl_error err;
            void *dst = take(pl_pack_bytes(&t));
            cr_assert_eq(pl_pack(pool, &t, dst, &w, &err), PL_ERR_FORMAT);
            cr_assert_not_null(strstr(err.message, "blocks"));
            cr_assert_not_null(strstr(err.message, s ? "row 69" : "row 70"), "%s", err.message);
            free(dst);
        }
        free_tensor(&t);
    }
    pl_pool_free(pool);
}
