/* The CPU's matrix product: plain C against the exact product of the decoded weights, everything else against
 * plain C, bit for bit. The bounds are derived in docs/numerics.md. */
#include "host/base/cpu.h"
#include "host/base/rng.h"
#include "host/base/threads.h"
#include "host/cpu/matmul.h"
#include "host/cpu/pack.h"
#include "host/cpu/panel.h"
#include "tests/ops/acts.h"
#include "tests/ops/block_scales.h"

#include <criterion/criterion.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

static const pl_dtype block_types[] = {PL_Q4_0, PL_Q4_1, PL_Q5_0, PL_Q5_1,   PL_Q8_0,   PL_Q2_K,  PL_Q3_K,
                                       PL_Q4_K, PL_Q5_K, PL_Q6_K, PL_IQ4_NL, PL_IQ4_XS, PL_MXFP4, PL_NVFP4};
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

/* Scales of a moderate size for all blocks; any byte is one in NVFP4. */
static void set_scales(pl_rng *rng, const pl_tensor *t)
{
    size_t block_bytes = (size_t)pl_dtype_describe((int)t->type)->block_bytes;
    size_t bytes = (size_t)t->rows * pl_tensor_row_bytes(t);
    uint8_t *data = (uint8_t *)(uintptr_t)t->data;
    int at[2];
    scale_offsets(t->type, at);
    for (size_t b = 0; b < bytes; b += block_bytes) {
        for (int i = 0; i < 2; i++) {
            uint16_t h = pl_f32_to_f16(uniform(rng) * 0.02f);
            if (at[i] >= 0)
                memcpy(data + b + at[i], &h, sizeof h);
        }
        if (t->type == PL_MXFP4)
            data[b] = (uint8_t)(115 + data[b] % 16);
    }
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
    for (size_t i = 0; i < bytes; i++)
        data[i] = (uint8_t)pl_rng_next(rng);
    pl_tensor t = {"blocks", data, rows, cols, type};
    set_scales(rng, &t);
    return t;
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
    int64_t ld = cols + 3;
    float *x = take((size_t)(rows * ld) * sizeof *x);
    for (int64_t i = 0; i < rows * ld; i++)
        x[i] = uniform(rng) * (i % 37 ? 1.0f : 30.0f);
    return act_open(x, ld, rows, cols, true);
}

static void free_act(pl_act *x)
{
    free((void *)(uintptr_t)x->f32);
    act_close(x);
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
static size_t all_kernels(const pl_matmul_kernels *out[5])
{
    static const unsigned levels[] = {0, PL_CPU_AVX2, PL_CPU_AVX2 | PL_CPU_AVX_VNNI,
                                      PL_CPU_ALL & ~(unsigned)PL_CPU_AMX_BF16, PL_CPU_ALL};
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

/* Largest scale of a K-quant's group and largest |code - offset|. */
static void largest_codes(pl_dtype type, double *scale, double *code)
{
    static const struct {
        pl_dtype type;
        int scale, code;
    } table[] = {{PL_Q4_0, 1, 8},     {PL_Q4_1, 1, 15},     {PL_Q5_0, 1, 16},  {PL_Q5_1, 1, 31},  {PL_Q8_0, 1, 128},
                 {PL_Q2_K, 15, 3},    {PL_Q3_K, 32, 4},     {PL_Q4_K, 63, 15}, {PL_Q5_K, 63, 31}, {PL_Q6_K, 128, 32},
                 {PL_IQ4_NL, 1, 127}, {PL_IQ4_XS, 32, 127}, {PL_MXFP4, 1, 12}, {PL_NVFP4, 1, 12}};
    size_t i = 0;
    while (table[i].type != type)
        i++;
    *scale = table[i].scale;
    *code = table[i].code;
}

/* The largest |d * (code - offset)| + |m| that the block can hold. */
static double amplitude(pl_dtype type, const uint8_t *block)
{
    int at[2];
    double k_scale, code, d = 0, m = 0;
    uint16_t h;
    scale_offsets(type, at);
    largest_codes(type, &k_scale, &code);
    for (int i = 0; i < 4 && type == PL_NVFP4; i++)
        d = fmax(d, (double)pl_nvfp4_half_scale(block[i]));
    if (type == PL_MXFP4)
        d = (double)pl_mxfp4_half_scale(block[0]);
    if (at[0] >= 0) {
        memcpy(&h, block + at[0], sizeof h);
        d = fabs((double)pl_f16_to_f32(h));
    }
    if (at[1] >= 0) {
        memcpy(&h, block + at[1], sizeof h);
        m = fabs((double)pl_f16_to_f32(h));
    }
    return k_scale * (code * d + m);
}

/* What a product of block-typed weights may lose, besides `rounding` of its own size: activations a share of `step` of
 * their largest in a block, sums so many roundings more. */
typedef struct loss {
    double step, rounding;
    bool centred; /* minima stand for what is taken off the codes as well */
} loss;

static const loss of_15_bits = {0.504 / 16256, 0, false};

static double block_error(const pl_tensor *t, int64_t row, const float *w, const float *x, loss l)
{
    const pl_dtype_info *info = pl_dtype_describe((int)t->type);
    const uint8_t *src = pl_tensor_row(t, row);
    int columns_a_step = t->type == PL_Q2_K ? 8 : 16; /* two steps for 16 columns with a minimum */
    double error = 0, steps = (double)t->cols / columns_a_step + 7;
    if (l.centred) /* by a product and a sum; 16 d and a minimum of 16 d more where there were 31 d */
        steps = (steps + 2) * 32 / 31;
    for (int64_t b = 0; b < t->cols / PL_ACT_BLOCK; b++) {
        double largest = 0, w_sum = 0, x_sum = 0;
        for (int64_t k = b * PL_ACT_BLOCK; k < (b + 1) * PL_ACT_BLOCK; k++) {
            largest = fmax(largest, fabs((double)x[k]));
            w_sum += fabs((double)w[k]);
            x_sum += fabs((double)x[k]);
        }
        double a = amplitude(t->type, src + b * PL_ACT_BLOCK / info->block_elems * info->block_bytes);
        error += l.step * largest * w_sum + steps * 0x1p-24 * a * x_sum;
    }
    return error;
}

static void check_exact(const pl_tensor *t, const pl_act *x, loss l, const float *out, int64_t out_ld, int n_rows)
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
            double bound = pl_pack_bytes(t) ? (1 + l.rounding) * block_error(t, n, w, row, l) + l.rounding * size
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
        check_exact(&t, &x, of_15_bits, out, ld, n);
        for (int i = 0; i < n; i++)
            cr_assert_eq(out[i * ld + rows], UNTOUCHED);
    }
    free(out);
    free(o.packed);
    free_act(&x);
    free_tensor(&t);
    pl_pool_free(pool);
}

/* ---- rounded ---- */

/* Two operands of eight bits, half a unit in the last place each, and a sum of `cols` products in f32. */
static double rounding_of(int64_t cols)
{
    return 0x1p-8 + 0x1p-18 + (double)cols * 0x1p-23;
}

/* The f32 values of 128 * hi alone, the nearest of 8 bits, in place of x's. */
static pl_act rounded_act(const pl_act *x, int n_rows)
{
    pl_act y = *x;
    float *f = take((size_t)(n_rows * x->ld) * sizeof *f);
    for (int r = 0; r < n_rows; r++) {
        for (int64_t i = 0; i < x->cols; i++) {
            int64_t ld, at = pl_act_at(x, r, i / PL_ACT_SPAN, &ld) + i % PL_ACT_SPAN / PL_ACT_BLOCK;
            f[r * x->ld + i] = 128 * x->scale[at] * x->hi_lo[at * 2 * PL_ACT_BLOCK + i % PL_ACT_BLOCK];
        }
    }
    y.f32 = f;
    return y;
}

static bool can_round(const pl_matmul_kernels *k, pl_dtype type)
{
    return pl_code_bits(pl_panel_describe(type)) <= k->rounded_bits;
}

static void check_rounded(const pl_matmul_kernels *k, const pl_tensor *t, const pl_act *x, const float *out, int64_t ld,
                          int n_rows)
{
    if (!can_round(k, t->type)) {
        check_exact(t, x, of_15_bits, out, ld, n_rows);
        return;
    }
    if (k->rounding == PL_ROUNDS_BOTH) {
        check_exact(t, x, (loss){0.504 / 16256, rounding_of(t->cols), false}, out, ld, n_rows);
        return;
    }
    pl_act y = rounded_act(x, n_rows);
    check_exact(t, &y, (loss){0, 0, true}, out, ld, n_rows);
    free((void *)(uintptr_t)y.f32);
}

static void check_rounded_away(const pl_matmul_kernels *k, pl_matmul job, bool rounds)
{
    uint64_t products = k->rounding == PL_ROUNDS_ACTS && rounds ? (uint64_t)(job.n_rows * job.w->rows * job.w->cols)
                                                                : 0;
    cr_assert_eq(k->rounded_away(&job, 1), products, "%s, type %d", k->name, (int)job.w->type);
}

static void check_type_rounded(const pl_matmul_kernels *k, pl_dtype type, int64_t rows, int64_t cols, int n_rows)
{
    pl_rng rng;
    pl_rng_seed(&rng, (uint64_t)(cols + 1000 * rows + type));
    pl_pool *pool = make_pool(2);
    pl_tensor t = make_tensor(&rng, type, rows, cols);
    operand o = pack(pool, &t);
    pl_act x = make_act(&rng, n_rows, cols);
    int64_t ld = rows + 5;
    float *out = take((size_t)(n_rows * ld) * sizeof *out), *exact = take((size_t)(n_rows * ld) * sizeof *out);
    run(k, pool, (pl_matmul){.w = &o.w, .x = &x, .out = exact, .out_ld = ld, .n_rows = n_rows});
    x.rounded = true;
    run(k, pool, (pl_matmul){.w = &o.w, .x = &x, .out = out, .out_ld = ld, .n_rows = n_rows});
    x.rows = n_rows;
    check_rounded(k, &t, &x, out, ld, n_rows);
    bool same = memcmp(out, exact, (size_t)(n_rows * ld) * sizeof *out) == 0;
    cr_assert_eq(same, !can_round(k, type), "%s: type %d, %d rows", k->name, (int)type, n_rows);
    check_rounded_away(k, (pl_matmul){.w = &o.w, .x = &x, .n_rows = n_rows}, can_round(k, type));
    check_rounded_away(k, (pl_matmul){.w = &o.w, .x = &x, .n_rows = 63}, false);
    run(k, pool, (pl_matmul){.w = &o.w, .x = &x, .out = out, .out_ld = ld, .n_rows = 63});
    cr_assert_arr_eq(out, exact, 63 * (size_t)ld * sizeof *out, "%s, type %d: few rows are not rounded", k->name,
                     (int)type);
    free(out);
    free(exact);
    free(o.packed);
    free_act(&x);
    free_tensor(&t);
    pl_pool_free(pool);
}

Test(matmul, rounded_products_are_within_the_derived_bound_where_there_are_any)
{
    const pl_matmul_kernels *kernels[5];
    size_t n = all_kernels(kernels);
    for (size_t i = 0; i < n * COUNT(block_types); i++) {
        const pl_matmul_kernels *k = kernels[i / COUNT(block_types)];
        pl_dtype type = block_types[i % COUNT(block_types)];
        check_type_rounded(k, type, 19, 512, 64);
        check_type_rounded(k, type, 300, 256, 99);
        int elems = pl_dtype_describe((int)type)->block_elems;
        if (elems < 256)
            check_type_rounded(k, type, 33, 10 * elems, 150);
    }
}

Test(matmul, plain_c_is_within_the_derived_bound_of_the_exact_product)
{
    for (size_t i = 0; i < COUNT(block_types); i++) {
        check_type_exact(block_types[i], 19, 256);
        check_type_exact(block_types[i], 16, 2048);
        int elems = pl_dtype_describe((int)block_types[i])->block_elems;
        if (elems < 256) {
            check_type_exact(block_types[i], 1, elems);
            check_type_exact(block_types[i], 33, 3 * elems);
            check_type_exact(block_types[i], 8, 9 * elems);
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
    int32_t n_out[600], n_in[600];
} prefix;

/* Widths in steps, as paths of different sizes give: a few rows each. */
static void make_prefix(prefix *p, const pl_tensor *t, int n_rows)
{
    int elems = pl_dtype_describe((int)t->type)->block_elems;
    for (int i = 0; i < n_rows; i++) {
        int64_t out = t->rows - t->rows * (i / 3) / (n_rows / 3 + 1);
        int64_t in = t->cols / elems - t->cols / elems * (i / 5) / (n_rows / 5 + 1);
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
    const pl_matmul_kernels *kernels[5];
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

/* All kernels, threads and prefixes give what plain C gives a row alone. */
static void check_tensor_same_bits(const fixture *f, const pl_tensor *t, const pl_act *x, int n_rows)
{
    operand o = pack(f->three, t);
    int64_t ld = t->rows + 3;
    size_t bytes = (size_t)(n_rows * ld) * sizeof(float);
    float *want = take(bytes), *got = take(bytes);
    prefix p;
    make_prefix(&p, t, n_rows);
    for (int mode = 0; mode < 4; mode++) {
        pl_matmul job = {.w = &o.w,
                         .x = x,
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
                             (int)t->type, (long long)t->rows, (long long)t->cols, n_rows, mode);
        }
    }
    free(want);
    free(got);
    free(o.packed);
}

static void check_same_bits(const fixture *f, pl_dtype type, int64_t rows, int64_t cols, int n_rows)
{
    pl_rng rng;
    pl_rng_seed(&rng, (uint64_t)(cols + 1000 * rows + 77 * n_rows + type));
    pl_tensor t = make_tensor(&rng, type, rows, cols);
    pl_act x = make_act(&rng, n_rows, cols);
    check_tensor_same_bits(f, &t, &x, n_rows);
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
        check_same_bits(&f, block_types[i], 41, 512, 47);
        check_same_bits(&f, block_types[i], 16, 2048, 2);
        int elems = pl_dtype_describe((int)block_types[i])->block_elems;
        if (elems < 256) {
            check_same_bits(&f, block_types[i], 1, elems, 5);
            check_same_bits(&f, block_types[i], 50, 2 * elems, 7);
            check_same_bits(&f, block_types[i], 8, 3 * elems, 1);
            check_same_bits(&f, block_types[i], 24, 11 * elems, 10);
            check_same_bits(&f, block_types[i], 40, 11 * elems, 38);
        }
    }
    check_same_bits(&f, PL_Q4_0, 20, 512, 600);
    check_same_bits(&f, PL_Q4_0, 7000, 64, 310); /* more than caches are asked to hold */
    free_fixture(&f);
}

/* Codes at their ends, activations at theirs: the sums are as large as they get. */
Test(matmul, the_largest_integers_stay_exact)
{
    enum { ROWS = 72 }; /* enough to be rounded */
    static const uint8_t fills[] = {0x00, 0xff, 0x88, 0x77};
    fixture f = make_fixture();
    pl_rng rng;
    pl_rng_seed(&rng, 6);
    for (size_t i = 0; i < COUNT(block_types) * COUNT(fills); i++) {
        pl_dtype type = block_types[i / COUNT(fills)];
        pl_tensor t = make_tensor(&rng, type, 20, 256);
        uint8_t *data = (uint8_t *)(uintptr_t)t.data;
        memset(data, fills[i % COUNT(fills)], 20 * pl_tensor_row_bytes(&t));
        set_scales(&rng, &t);
        pl_act x = make_act(&rng, ROWS, 256);
        float *values = (float *)(uintptr_t)x.f32, out[ROWS * 20];
        for (int64_t k = 0; k < ROWS * x.ld; k++)
            values[k] = k / x.ld % 4 < 2 ? 1.0f : k & 1 ? -1.0f : 127.4f / 128;
        operand o = pack(f.one, &t);
        run(f.kernels[0], f.one, (pl_matmul){.w = &o.w, .x = &x, .out = out, .out_ld = 20, .n_rows = ROWS});
        check_exact(&t, &x, of_15_bits, out, 20, ROWS);
        check_tensor_same_bits(&f, &t, &x, ROWS);
        x.rounded = true;
        x.rows = ROWS;
        for (size_t k = 0; k < f.n_kernels; k++) {
            run(f.kernels[k], f.one, (pl_matmul){.w = &o.w, .x = &x, .out = out, .out_ld = 20, .n_rows = ROWS});
            check_rounded(f.kernels[k], &t, &x, out, 20, ROWS);
        }
        free(o.packed);
        free_act(&x);
        free_tensor(&t);
    }
    free_fixture(&f);
}

/* A row for each power of two, subnormal ones among them, and a half for each byte of E4M3. */
Test(matmul, scales_of_4_bit_floats_from_end_to_end)
{
    fixture f = make_fixture();
    pl_rng rng;
    pl_rng_seed(&rng, 7);
    for (int large = 0; large < 2; large++) {
        pl_tensor t = make_tensor(&rng, PL_MXFP4, 226, 64);
        uint8_t *data = (uint8_t *)(uintptr_t)t.data;
        for (int b = 0; b < 2 * 226; b++)
            data[b * (int)sizeof(pl_block_mxfp4)] = (uint8_t)(b / 2);
        pl_act x = make_act(&rng, 7, 64);
        for (int64_t k = 0; k < 7 * x.ld && large; k++)
            ((float *)(uintptr_t)x.f32)[k] *= 1e5f;
        check_tensor_same_bits(&f, &t, &x, 7);
        free_act(&x);
        free_tensor(&t);
    }
    pl_tensor t = make_tensor(&rng, PL_NVFP4, 64, 64);
    pl_act x = make_act(&rng, 7, 64);
    for (int s = 0; s < 256; s++)
        ((uint8_t *)(uintptr_t)t.data)[s / 4 * (int)sizeof(pl_block_nvfp4) + s % 4] = (uint8_t)s;
    check_tensor_same_bits(&f, &t, &x, 7);
    free_act(&x);
    free_tensor(&t);
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
            check_exact(&t[i], &x, of_15_bits, jobs[i].out, rows[i], 7);
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
        int elems = pl_dtype_describe((int)type)->block_elems;
        int64_t cols = elems == 1 || elems == 256 ? 512 : 7 * elems;
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

/* A block for each byte; the largest powers of two make values infinite. */
Test(pack, scales_of_one_byte_come_back_as_the_decoder_gives_them)
{
    pl_pool *pool = make_pool(1);
    pl_rng rng;
    pl_rng_seed(&rng, 13);
    pl_tensor mx = make_tensor(&rng, PL_MXFP4, 256, 32), nv = make_tensor(&rng, PL_NVFP4, 256, 64);
    for (int r = 0; r < 256; r++) {
        *(uint8_t *)(uintptr_t)pl_tensor_row(&mx, r) = (uint8_t)r;
        memset((void *)(uintptr_t)pl_tensor_row(&nv, r), r, 4);
    }
    operand m = pack(pool, &mx), n = pack(pool, &nv);
    for (int r = 0; r < 256; r++) {
        float want[96], got[96];
        pl_decode(PL_MXFP4, pl_tensor_row(&mx, r), want, 32);
        pl_decode(PL_NVFP4, pl_tensor_row(&nv, r), want + 32, 64);
        pl_weight_row(&m.w, r, got);
        pl_weight_row(&n.w, r, got + 32);
        cr_assert_arr_eq(got, want, sizeof got, "byte %d", r);
    }
    free(m.packed);
    free(n.packed);
    free_tensor(&mx);
    free_tensor(&nv);
    pl_pool_free(pool);
}

Test(pack, panels_are_hardly_larger_than_the_file)
{
    for (size_t i = 0; i < COUNT(block_types); i++) {
        pl_tensor t = {"t", NULL, 2048, 16384, block_types[i]};
        double file = 2048.0 * (double)pl_tensor_row_bytes(&t);
        double most = block_types[i] == PL_Q3_K ? 1.06 : 1.03; /* a byte instead of six bits a scale */
        cr_assert_leq((double)pl_pack_bytes(&t), most * file, "type %d", (int)block_types[i]);
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
