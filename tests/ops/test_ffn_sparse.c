/* The FFN with a cutoff: read neuron by neuron it has the bits of the single ops over panels, for every type, number of
 * rows, width, share of live neurons and instruction set. */
#include "host/base/cpu.h"
#include "host/base/rng.h"
#include "host/cpu/neuron.h"
#include "host/cpu/pack.h"
#include "tests/ops/acts.h"
#include "tests/ops/block_scales.h"
#include "tests/ops/ops_fixture.h"

#include <criterion/criterion.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

static const pl_dtype block_types[] = {PL_Q4_0, PL_Q4_1, PL_Q5_0, PL_Q5_1,   PL_Q8_0,   PL_Q2_K,  PL_Q3_K,
                                       PL_Q4_K, PL_Q5_K, PL_Q6_K, PL_IQ4_NL, PL_IQ4_XS, PL_MXFP4, PL_NVFP4};
static const unsigned levels[] = {PL_CPU_NONE, PL_CPU_AVX2, PL_CPU_ALL & ~PL_CPU_AMX_BF16, PL_CPU_ALL};
#define COUNT(a) (sizeof(a) / sizeof((a)[0]))

/* ---- operands ---- */

static void *take(size_t bytes)
{
    void *p = aligned_alloc(64, (bytes + 127) / 64 * 64);
    cr_assert_not_null(p);
    memset(p, 0x5a, (bytes + 127) / 64 * 64);
    return p;
}

static float uniform(pl_rng *rng)
{
    return (float)(2 * pl_rng_uniform(rng) - 1);
}

/* Any codes, scales of a moderate size. */
static pl_tensor make_tensor(pl_rng *rng, pl_dtype type, int64_t rows, int64_t cols)
{
    size_t bytes = (size_t)rows * pl_dtype_bytes(type, cols);
    size_t block_bytes = (size_t)pl_dtype_describe((int)type)->block_bytes;
    uint8_t *data = take(bytes);
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
    return (pl_tensor){"blocks", data, rows, cols, type};
}

static void free_tensor(const pl_tensor *t)
{
    free((void *)(uintptr_t)t->data);
}

static pl_weight load(pl_backend *b, const pl_tensor *t, pl_weight_layout layout)
{
    pl_weight w;
    pl_error err;
    void *dst = take(b->weight_bytes(b, t));
    cr_assert_eq(b->weight_load_neurons(b, t, layout, dst, &w, &err), PL_OK, "%s", err.message);
    return w;
}

static void free_weight(const pl_weight *w)
{
    free((void *)(uintptr_t)w->data);
}

/* ---- the layouts ---- */

static const char *type_name(pl_dtype type)
{
    return pl_dtype_describe((int)type)->name;
}

/* Every row as the file has it, however many rows and columns there are. */
Test(neuron, rows_come_back)
{
    static const int64_t shapes[][2] = {{16, 256}, {192, 512}, {512, 768}, {513, 256}, {1000, 256}};
    pl_rng rng;
    pl_rng_seed(&rng, 1);
    pl_backend *b = open_backend((pl_backend_shape){.max_rows = 1, .max_context = PL_KV_PAGE, .heads = {1, 1, 16}}, 3,
                                 PL_CPU_ALL);
    for (size_t i = 0; i < COUNT(block_types); i++) {
        for (size_t s = 0; s < COUNT(shapes); s++) {
            for (pl_weight_layout layout = PL_NEURON_ROWS; layout <= PL_NEURON_COLUMNS; layout++) {
                int64_t cols = shapes[s][1];
                pl_tensor t = make_tensor(&rng, block_types[i], shapes[s][0], cols);
                pl_weight w = load(b, &t, layout);
                float *want = take((size_t)cols * sizeof *want), *got = take((size_t)cols * sizeof *got);
                for (int64_t r = 0; r < t.rows; r++) {
                    pl_decode(t.type, pl_tensor_row(&t, r), want, cols);
                    pl_weight_row(&w, r, got);
                    cr_assert(memcmp(want, got, (size_t)cols * sizeof *want) == 0, "%s, layout %d, row %lld of %lld",
                              type_name(t.type), layout, (long long)r, (long long)t.rows);
                }
                free(want);
                free(got);
                free_weight(&w);
                free_tensor(&t);
            }
        }
    }
    pl_backend_free(b);
}

/* Matrices of real models are laid out, and no layout takes more room than panels. */
Test(neuron, takes_no_more_room)
{
    for (size_t i = 0; i < COUNT(block_types); i++) {
        cr_assert(pl_neuron_fits(block_types[i], 2048, 8192, PL_NEURON_COLUMNS));
        cr_assert(pl_neuron_fits(block_types[i], 2048, 16384, PL_NEURON_COLUMNS));
        cr_assert_not(pl_neuron_fits(block_types[i], 1040, 16384, PL_NEURON_COLUMNS) && block_types[i] != PL_Q8_0);
    }
    cr_assert_not(pl_neuron_fits(PL_F16, 2048, 8192, PL_NEURON_ROWS));
    cr_assert_not(pl_neuron_fits(PL_Q4_0, 2048, 131072, PL_NEURON_COLUMNS), "columns of more than 16 bits");
}

Test(neuron, names_the_row_of_a_scale_that_is_not_finite)
{
    pl_rng rng;
    pl_rng_seed(&rng, 2);
    pl_backend *b = open_backend((pl_backend_shape){.max_rows = 1, .max_context = PL_KV_PAGE, .heads = {1, 1, 16}}, 2,
                                 PL_CPU_ALL);
    for (pl_weight_layout layout = PL_NEURON_ROWS; layout <= PL_NEURON_COLUMNS; layout++) {
        pl_tensor t = make_tensor(&rng, PL_Q4_0, 128, 64);
        const uint16_t infinite = 0x7c00;
        memcpy((uint8_t *)(uintptr_t)pl_tensor_row(&t, 77), &infinite, sizeof infinite);
        void *dst = take(b->weight_bytes(b, &t));
        pl_weight w;
        pl_error err;
        cr_assert_eq(b->weight_load_neurons(b, &t, layout, dst, &w, &err), PL_ERR_FORMAT);
        cr_assert_not_null(strstr(err.message, "row 77"), "%s", err.message);
        free(dst);
        free_tensor(&t);
    }
    pl_backend_free(b);
}

/* ---- the op ---- */

typedef struct sparse_case {
    pl_dtype type, down_type;
    int64_t hidden, ffn;
    int rows;
    float z;
    bool narrow; /* every second row */
} sparse_case;

typedef struct sparse_run {
    const sparse_case *c;
    pl_tensor gate, up, down;
    float *x;
    int32_t *width;
} sparse_run;

/* What the single ops make of it. */
static void run_dense(pl_backend *b, const sparse_run *r, pl_weight_layout up, pl_weight_layout down, float *out)
{
    const sparse_case *c = r->c;
    pl_weight w[3] = {load(b, &r->gate, PL_PANELS), load(b, &r->up, up), load(b, &r->down, down)};
    pl_act x = act_open(r->x, c->hidden, c->rows, c->hidden, false), mid = act_open(NULL, 0, c->rows, c->ffn, false);
    float *h[2] = {take((size_t)(c->rows * c->ffn) * sizeof(float)), take((size_t)(c->rows * c->ffn) * sizeof(float))};
    pl_matmul jobs[2];
    for (int i = 0; i < 2; i++)
        jobs[i] = (pl_matmul){.w = &w[i], .x = &x, .out = h[i], .out_ld = c->ffn, .n_rows = c->rows, .n_out = r->width};
    b->ops->quantize(b->stream, &x, c->rows);
    b->ops->matmul(b->stream, jobs, 2);
    b->ops->ffn_act(b->stream, h[0], h[1], c->ffn, c->rows, r->width, c->z);
    mid.f32 = h[0];
    mid.ld = c->ffn;
    b->ops->quantize(b->stream, &mid, c->rows);
    pl_matmul last = {.w = &w[2], .x = &mid, .out = out, .out_ld = c->hidden, .n_rows = c->rows, .n_in = r->width};
    b->ops->matmul(b->stream, &last, 1);
    for (int i = 0; i < 3; i++)
        free_weight(&w[i]);
    for (int i = 0; i < 2; i++)
        free(h[i]);
    act_close(&x);
    act_close(&mid);
}

typedef void (*sparse_op)(pl_stream *s, const pl_ffn *f);

static void run_sparse(pl_backend *b, sparse_op op, const sparse_run *r, int first, int n, float *out)
{
    const sparse_case *c = r->c;
    pl_weight w[3] = {load(b, &r->gate, PL_PANELS), load(b, &r->up, PL_NEURON_ROWS),
                      load(b, &r->down, PL_NEURON_COLUMNS)};
    cr_assert(w[1].layout == PL_NEURON_ROWS && w[2].layout == PL_NEURON_COLUMNS);
    int64_t most = c->hidden > c->ffn ? c->hidden : c->ffn; /* x gives way to the integers of `down` */
    pl_act x = act_open(r->x + first * c->hidden, c->hidden, n, most, false), mid = act_open(NULL, 0, n, c->ffn, false);
    float *h[2] = {take((size_t)(n * c->ffn) * sizeof(float)), take((size_t)(n * c->ffn) * sizeof(float))};
    x.cols = c->hidden;
    x.blocks = (c->hidden + PL_ACT_BLOCK - 1) / PL_ACT_BLOCK;
    b->ops->quantize(b->stream, &x, n);
    pl_ffn f = {&w[0], &w[1], &w[2], &x, h[0], h[1], &mid, c->ffn, out + first * c->hidden, n, r->width + first, c->z};
    op(b->stream, &f);
    for (int i = 0; i < 3; i++)
        free_weight(&w[i]);
    for (int i = 0; i < 2; i++)
        free(h[i]);
    act_close(&x);
    act_close(&mid);
}

static sparse_run make_run(const sparse_case *c, pl_rng *rng)
{
    sparse_run r = {.c = c,
                    .gate = make_tensor(rng, c->type, c->ffn, c->hidden),
                    .up = make_tensor(rng, c->type, c->ffn, c->hidden),
                    .down = make_tensor(rng, c->down_type, c->hidden, c->ffn),
                    .x = take((size_t)(c->rows * c->hidden) * sizeof(float)),
                    .width = take((size_t)c->rows * sizeof(int32_t))};
    for (int64_t i = 0; i < c->rows * c->hidden; i++)
        r.x[i] = uniform(rng);
    for (int i = 0; i < c->rows; i++)
        r.width[i] = (int32_t)(c->narrow && 2 * i >= c->rows ? c->ffn / 2 : c->ffn);
    return r;
}

static void free_run(sparse_run *r)
{
    free_tensor(&r->gate);
    free_tensor(&r->up);
    free_tensor(&r->down);
    free(r->x);
    free(r->width);
}

static void check_same(const sparse_case *c, const float *want, const float *got, const char *what, unsigned level)
{
    for (int64_t i = 0; i < c->rows * c->hidden; i++)
        cr_assert(memcmp(&want[i], &got[i], sizeof *want) == 0 || (isnan(want[i]) && isnan(got[i])),
                  "%s: %s, %lld x %lld, %d rows, z %g, level %x: row %lld, output %lld is %a, expected %a", what,
                  type_name(c->type), (long long)c->ffn, (long long)c->hidden, c->rows, (double)c->z, level,
                  (long long)(i / c->hidden), (long long)(i % c->hidden), (double)got[i], (double)want[i]);
}

/* Want: plain C, panels. Then for each instruction set the single ops over the layouts, and the ops, all rows at once and,
 * where they are few, one by one. */
static void check_run(const sparse_case *c, const sparse_run *r)
{
    size_t bytes = (size_t)(c->rows * c->hidden) * sizeof(float);
    float *want = take(bytes), *got = take(bytes);
    for (size_t l = 0; l < COUNT(levels); l++) {
        pl_backend *b = open_backend(
            (pl_backend_shape){.max_rows = c->rows, .max_context = PL_KV_PAGE, .heads = {1, 1, 16}}, l % 2 ? 3 : 1,
            levels[l]);
        if (l == 0)
            run_dense(b, r, PL_PANELS, PL_PANELS, want);
        run_dense(b, r, PL_NEURON_ROWS, PL_NEURON_COLUMNS, got);
        check_same(c, want, got, "single ops", levels[l]);
        if (b->ops->ffn_sparse_many && pl_ffn_sparse_fits(c->hidden)) {
            memset(got, 0x77, bytes);
            run_sparse(b, b->ops->ffn_sparse_many, r, 0, c->rows, got);
            check_same(c, want, got, "as many rows", levels[l]);
        }
        if (c->rows <= PL_SPARSE_ROWS) {
            memset(got, 0x77, bytes);
            run_sparse(b, b->ops->ffn_sparse, r, 0, c->rows, got);
            check_same(c, want, got, "all rows", levels[l]);
            memset(got, 0x77, bytes);
            for (int i = c->rows - 1; i >= 0; i--)
                run_sparse(b, b->ops->ffn_sparse, r, i, 1, got);
            check_same(c, want, got, "row by row", levels[l]);
        }
        pl_backend_free(b);
    }
    free(want);
    free(got);
}

static void check(sparse_case c)
{
    pl_rng rng;
    pl_rng_seed(&rng, 3);
    sparse_run r = make_run(&c, &rng);
    check_run(&c, &r);
    free_run(&r);
}

Test(ffn_sparse, every_type)
{
    for (size_t i = 0; i < COUNT(block_types); i++) {
        check((sparse_case){block_types[i], block_types[i], 512, 1024, 1, 1.6448536f, false});
        check((sparse_case){block_types[i], block_types[i], 512, 1024, 3, 1.0f, true});
    }
}

/* From none at all to all of them: the gates are spread evenly, at most 1.73 deviations from their mean. */
Test(ffn_sparse, any_share)
{
    static const float cuts[] = {-10, -1, 0, 0.5f, 1.2f, 1.6448536f, 2.5f, 3.2f, 100};
    for (size_t i = 0; i < COUNT(cuts); i++) {
        check((sparse_case){PL_Q4_0, PL_Q4_0, 256, 2560, 1, cuts[i], false});
        check((sparse_case){PL_Q4_K, PL_Q6_K, 512, 1024, 2, cuts[i], true});
    }
}

Test(ffn_sparse, rows)
{
    for (int rows = 1; rows <= PL_SPARSE_ROWS; rows++)
        check((sparse_case){PL_Q4_0, PL_Q8_0, 256, 1024, rows, 1.6448536f, rows % 2 == 0});
}

/* Numbers of rows that fill no portion, no list, no batch and no block; pieces of outputs with one slab. */
Test(ffn_sparse, many_rows)
{
    static const int rows[] = {9, 15, 16, 17, 24, 25, 32, 40, 63, 64, 65, 255, 257, 511, 513};
    for (size_t i = 0; i < COUNT(rows); i++) {
        check((sparse_case){PL_Q4_0, PL_Q4_0, 256, 640, rows[i], 1.6448536f, rows[i] % 2 == 1});
        check((sparse_case){PL_Q4_K, PL_Q6_K, 256, 512, rows[i], 1.0f, rows[i] % 2 == 0});
    }
    for (size_t i = 0; i < COUNT(block_types); i++)
        check((sparse_case){block_types[i], block_types[i], 512, 512, 70, 1.2f, true});
    for (size_t i = 0; i < COUNT(block_types); i++)
        check((sparse_case){block_types[i], block_types[i], 512, 1024, 19, 1.6448536f, true});
}

/* Hidden sizes that are no whole slabs or spans. */
Test(ffn_sparse, shapes)
{
    check((sparse_case){PL_Q8_0, PL_Q8_0, 192, 640, 2, 1.6448536f, true});
    check((sparse_case){PL_Q8_0, PL_Q8_0, 64, 32, 1, 1.0f, false});
    check((sparse_case){PL_Q8_0, PL_Q8_0, 64 * 11, 4128, 1, 1.6448536f, false});
    check((sparse_case){PL_Q4_0, PL_Q4_0, 128 * 9, 96, 4, 1.0f, false});
    check((sparse_case){PL_Q5_1, PL_Q8_0, 192, 640, 100, 1.0f, true});
    check((sparse_case){PL_Q8_0, PL_Q8_0, 64 * 7, 352, 40, 0.0f, false});
}

/* A row that is no number is none afterwards, and its neighbours do not notice. */
Test(ffn_sparse, not_a_number)
{
    static const sparse_case few[] = {{PL_Q4_0, PL_Q4_0, 256, 1024, 3, 1.6448536f, false},
                                      {PL_Q4_K, PL_Q6_K, 256, 1024, 3, 1.6448536f, false}};
    pl_rng rng;
    pl_rng_seed(&rng, 4);
    sparse_run r;
    for (size_t i = 0; i < COUNT(few); i++) {
        r = make_run(&few[i], &rng);
        r.x[256 + 7] = NAN;
        check_run(&few[i], &r);
        free_run(&r);
    }
    static const sparse_case many[] = {{PL_Q4_K, PL_Q6_K, 256, 512, 20, 1.6448536f, false},
                                       {PL_Q4_K, PL_Q6_K, 256, 512, 80, 1.6448536f, false}};
    for (size_t i = 0; i < COUNT(many); i++) {
        r = make_run(&many[i], &rng);
        r.x[256 * (many[i].rows - 3) + 7] = NAN;
        check_run(&many[i], &r);
        free_run(&r);
    }
}

/* Groups of activations that are too small to count, beside others. */
Test(ffn_sparse, tiny_values)
{
    const sparse_case c = {PL_Q4_0, PL_Q4_0, 256, 1024, 2, 1.6448536f, false};
    pl_rng rng;
    pl_rng_seed(&rng, 5);
    sparse_run r = make_run(&c, &rng);
    for (int i = 0; i < 256; i++)
        r.x[i] *= 0x1p-50f;
    check_run(&c, &r);
    free_run(&r);
}

static void check_share(double share)
{
    cr_assert(share > 0.85 && share < 0.97, "%g", share);
}

/* What was left out is counted: all of up and down but the live share, which is a twentieth or, with whole groups' scales,
 * somewhat more. */
Test(ffn_sparse, counts_what_it_leaves_out)
{
    const sparse_case c = {PL_Q4_0, PL_Q4_0, 512, 4096, 70, 1.6448536f, false};
    pl_rng rng;
    pl_rng_seed(&rng, 6);
    sparse_run r = make_run(&c, &rng);
    float *out = take((size_t)(c.rows * c.hidden) * sizeof *out);
    pl_backend *b = open_backend((pl_backend_shape){.max_rows = c.rows, .max_context = PL_KV_PAGE, .heads = {1, 1, 16}},
                                 2, PL_CPU_ALL);
    double bytes = (double)(b->weight_bytes(b, &r.up) + b->weight_bytes(b, &r.down));
    double products = 2 * 2 * (double)c.ffn * (double)c.hidden;
    cr_assert_eq(b->skipped(b).bytes, 0);
    cr_assert_eq(b->skipped(b).products, 0);
    run_sparse(b, b->ops->ffn_sparse, &r, 0, 1, out);
    pl_skipped one = b->skipped(b);
    check_share((double)one.bytes / bytes);
    check_share((double)one.products / products);
    if (b->ops->ffn_sparse_many) {
        run_sparse(b, b->ops->ffn_sparse_many, &r, 0, c.rows, out);
        cr_assert_eq(b->skipped(b).bytes, one.bytes);
        check_share((double)(b->skipped(b).products - one.products) / (c.rows * products));
    }
    free(out);
    pl_backend_free(b);
    free_run(&r);
}
