/* The product for many rows on the card. Weights in panels: the CPU's bits, whatever the tile. Plain weights: within
 * the bound that cuda/matmul_many_plain.cu derives, and the same bits for a row whatever else is in the step. */
extern "C" {
#include "host/base/cpu.h"
#include "host/cpu/matmul.h"
#include "host/cpu/pack.h"
#include "quant/encode.h"
}
#include "cuda/kernels.h"
#include "tests/cuda/fixture.hpp"

#include <cmath>
#include <string.h>

typedef std::vector<float> floats;
typedef std::vector<int32_t> ints;
typedef std::vector<uint8_t> bytes;

#define UNTOUCHED 12345.0f

/* ---- operands */

static pl_pool *make_pool()
{
    pl_pool *pool;
    pl_error err;
    cr_assert_eq(pl_pool_create(1, nullptr, &pool, &err), PL_OK);
    return pool;
}

static int block_elems(pl_dtype type)
{
    return pl_dtype_describe(type)->block_elems;
}

/* A matrix as a file has it, in the CPU's layout and on the card. */
struct matrix {
    bytes file, packed;
    pl_weight host = {}, card = {};
    on_card<uint8_t> *copy;

    matrix(pl_dtype type, const bytes &blocks, int64_t rows, int64_t cols) : file(blocks)
    {
        pl_pool *pool = make_pool();
        pl_tensor t = {"matrix", file.data(), rows, cols, type};
        pl_error err;
        packed.resize(pl_pack_bytes(&t));
        cr_assert_eq(pl_pack(pool, &t, packed.data(), &host, &err), PL_OK);
        pl_pool_free(pool);
        copy = new on_card<uint8_t>(packed.empty() ? file : packed);
        card = host;
        card.data = copy->p;
    }
    matrix(pl_dtype type, int64_t rows, int64_t cols, uint32_t seed)
        : matrix(type, blocks(type, rows, cols, seed), rows, cols)
    {
    }
    matrix(const matrix &) = delete;
    ~matrix()
    {
        delete copy;
    }

    static bytes blocks(pl_dtype type, int64_t rows, int64_t cols, uint32_t seed)
    {
        bytes b(static_cast<size_t>(rows) * pl_dtype_bytes(type, cols));
        const floats values = numbers(static_cast<size_t>(rows * cols), seed);
        pl_encoder_select(pl_cpu_features(PL_CPU_ALL))->encode(type, values.data(), nullptr, b.data(), rows * cols);
        return b;
    }
};

/* Per row, falling: how many outputs it wants and how many columns it has. */
struct widths {
    ints out, in;

    /* Of n rows; columns in multiples of `elems`. */
    widths(int elems, int64_t rows, int64_t cols, int n)
    {
        const int64_t blocks = cols / elems;
        for (int i = 0; i < n; i++) {
            out.push_back(static_cast<int32_t>(rows - rows * (i / 5) / (n / 5 + 1)));
            in.push_back(static_cast<int32_t>((blocks - blocks * (i / 4) / (n / 4 + 1)) * elems));
        }
    }
};

/* Rows of x; what a row has beyond its width is no number. */
struct activations {
    floats x;
    std::vector<int8_t> hi_lo;
    floats scale;
    ints sum;
    pl_act host = {}, card = {};
    on_card<float> *card_x, *card_scale;
    on_card<int8_t> *card_hi_lo;
    on_card<int32_t> *card_sum;

    activations(const floats &rows, int n, int64_t cols, int64_t ld, const widths *w = nullptr) : x(rows)
    {
        const int64_t blocks = (cols + PL_ACT_BLOCK - 1) / PL_ACT_BLOCK;
        const size_t all = static_cast<size_t>(n * blocks);
        for (int i = 0; w && i < n; i++)
            for (int64_t k = w->in[i]; k < cols; k++)
                x[i * ld + k] = NAN;
        hi_lo.resize(all * 2 * PL_ACT_BLOCK);
        scale.resize(all);
        sum.resize(2 * all);
        host = act_of(x.data(), ld, cols, n, hi_lo.data(), scale.data(), sum.data());
        pl_pool *pool = make_pool();
        pl_matmul_select(0)->quantize(pool, &host, n);
        pl_pool_free(pool);
        card_x = new on_card<float>(x);
        card_scale = new on_card<float>(scale);
        card_hi_lo = new on_card<int8_t>(hi_lo);
        card_sum = new on_card<int32_t>(sum);
        card = act_of(card_x->p, ld, cols, n, card_hi_lo->p, card_scale->p, card_sum->p);
    }
    activations(const activations &) = delete;
    ~activations()
    {
        delete card_x;
        delete card_scale;
        delete card_hi_lo;
        delete card_sum;
    }
};

static floats make_rows(int n, int64_t ld, uint32_t seed)
{
    floats x = numbers(static_cast<size_t>(n * ld), seed);
    for (size_t i = 0; i < x.size(); i += 37)
        x[i] *= 30;
    return x;
}

/* ---- a product, on the CPU and on the card */

struct product {
    const matrix *m;
    const widths *w;
    int modes; /* 1: outputs as in w, 2: columns as in w */
    int64_t out_ld;
    floats want, got;

    product(const matrix &of, const widths *prefixes, int what, int64_t ld)
        : m(&of), w(prefixes), modes(what), out_ld(ld)
    {
    }
    int64_t outputs(int row) const
    {
        return modes & 1 ? w->out[row] : m->host.rows;
    }
    int64_t columns(int row) const
    {
        return modes & 2 ? w->in[row] : m->host.cols;
    }
};

static void on_cpu(product *p, const activations &a)
{
    const int n = static_cast<int>(a.host.rows);
    pl_pool *pool = make_pool();
    p->want.assign(static_cast<size_t>(n * p->out_ld), UNTOUCHED);
    const pl_matmul job = {&p->m->host,
                           &a.host,
                           p->want.data(),
                           p->out_ld,
                           n,
                           p->modes & 1 ? p->w->out.data() : nullptr,
                           p->modes & 2 ? p->w->in.data() : nullptr};
    pl_matmul_select(pl_cpu_features(PL_CPU_ALL))->matmul(pool, &job, 1);
    pl_pool_free(pool);
}

static void on_the_card(std::vector<product *> products, const activations &a,
                        decltype(pl_cuda_matmul_many) *multiply = pl_cuda_matmul_many)
{
    const a_stream stream;
    const int n = static_cast<int>(a.host.rows);
    std::vector<pl_matmul> jobs;
    std::vector<on_card<float> *> outs;
    std::vector<on_card<int32_t> *> prefixes;
    for (const product *p : products) {
        outs.push_back(new on_card<float>(floats(static_cast<size_t>(n * p->out_ld), UNTOUCHED)));
        pl_matmul job = {&p->m->card, &a.card, outs.back()->p, p->out_ld, n, nullptr, nullptr};
        if (p->modes & 1)
            job.n_out = prefixes.emplace_back(new on_card<int32_t>(p->w->out))->p;
        if (p->modes & 2)
            job.n_in = prefixes.emplace_back(new on_card<int32_t>(p->w->in))->p;
        jobs.push_back(job);
    }
    expect_done(multiply(stream, jobs.data(), static_cast<int>(jobs.size())));
    expect_done(cudaStreamSynchronize(stream));
    for (size_t i = 0; i < products.size(); i++) {
        products[i]->got = outs[i]->get();
        delete outs[i];
    }
    for (on_card<int32_t> *p : prefixes)
        delete p;
}

/* How far a plain type's result may be from the CPU's, where sum is of |w x|. Parts: see cuda/matmul_many_plain.cu.
 * A stage of 32 columns is two instructions for each of up to six products, of 16 columns each, all of which may be
 * added one after the other and cut off instead of rounded; the CPU adds k / 16 + 5 times. */
static double plain_bound(pl_dtype type, int64_t k, double sum)
{
    const double u = 0x1p-24, parts = type == PL_F32 ? 0x1p-25 : type == PL_F16 ? 0x1p-17 : 0x1p-18;
    const double steps = 2 * 12 * 17 + static_cast<double>(k) / 32 + static_cast<double>(k) / 16 + 6;
    return 1.01 * (parts + steps * u) * sum + 0x1p-120;
}

static double magnitude(const product &p, const activations &a, int row, int64_t n)
{
    floats w(static_cast<size_t>(p.m->host.cols));
    pl_decode(p.m->host.type, p.m->file.data() + n * pl_dtype_bytes(p.m->host.type, p.m->host.cols), w.data(),
              p.m->host.cols);
    double sum = 0;
    for (int64_t k = 0; k < p.columns(row); k++)
        sum += fabs(static_cast<double>(w[k]) * a.x[row * a.host.ld + k]);
    return sum;
}

static void expect_right(const product &p, const activations &a)
{
    for (int i = 0; i < a.host.rows; i++)
        for (int64_t n = 0; n < p.out_ld; n++) {
            const float got = p.got[i * p.out_ld + n], want = p.want[i * p.out_ld + n];
            double bound = 0;
            if (!p.m->host.packed && n < p.outputs(i))
                bound = plain_bound(p.m->host.type, p.columns(i), magnitude(p, a, i, n));
            cr_assert(fabs(static_cast<double>(got) - want) <= bound,
                      "type %d, %lld x %lld, modes %d, row %d of %lld, output %lld: %.9g, expected %.9g +- %g",
                      p.m->host.type, static_cast<long long>(p.m->host.rows), static_cast<long long>(p.m->host.cols),
                      p.modes, i, static_cast<long long>(a.host.rows), static_cast<long long>(n),
                      static_cast<double>(got), static_cast<double>(want), bound);
        }
}

/* ---- cases */

/* n rows times a matrix of each type, in one call. modes: see product. */
static void check(const std::vector<pl_dtype> &types, int64_t rows, int64_t cols, int n, int modes)
{
    int elems = 1;
    for (pl_dtype type : types)
        elems = block_elems(type) > elems ? block_elems(type) : elems;
    const widths w(elems, rows, cols, n);
    const int64_t ld = cols + modes;
    const activations a(make_rows(n, ld, static_cast<uint32_t>(cols + n)), n, cols, ld, modes & 2 ? &w : nullptr);
    std::vector<matrix *> matrices;
    std::vector<product *> products;
    for (pl_dtype type : types) {
        matrices.push_back(new matrix(type, rows, cols, static_cast<uint32_t>(type + rows)));
        products.push_back(new product(*matrices.back(), &w, modes, rows + 3));
        on_cpu(products.back(), a);
    }
    on_the_card(products, a);
    for (size_t i = 0; i < products.size(); i++) {
        expect_right(*products[i], a);
        delete products[i];
        delete matrices[i];
    }
    cr_assert_eq(card_bank_conflicts(), 0);
}

static const std::vector<pl_dtype> blocks_of_32 = {PL_Q4_0, PL_Q4_1, PL_Q5_0, PL_Q5_1, PL_Q8_0, PL_IQ4_NL, PL_MXFP4};
static const std::vector<pl_dtype> blocks_of_256 = {PL_Q2_K, PL_Q3_K, PL_Q4_K, PL_Q5_K, PL_Q6_K, PL_IQ4_XS, PL_NVFP4};
static const std::vector<pl_dtype> plain = {PL_F32, PL_F16, PL_BF16};

/* Every type, on the small tile and on the medium one. */
Test(matmul_many, panels_give_the_bits_of_the_cpu)
{
    for (uint32_t seed = 0; seed < 3; seed++) {
        card_insert(static_cast<card_mode>(seed % CARD_MODES), seed);
        check(blocks_of_32, 41, 288, 17, 0);
        check(blocks_of_256, 70, 512, 32, 0);
        check(blocks_of_32, 130, 96, 33, 0);
        check(blocks_of_256, 33, 768, 70, 0);
    }
}

Test(matmul_many, tails_and_few_rows)
{
    card_insert(CARD_ANY, 7);
    check(blocks_of_32, 1, 32, 1, 0);
    check(blocks_of_32, 17, 64, 5, 0);
    check({PL_NVFP4}, 16, 64, 19, 0);
    check({PL_NVFP4}, 50, 448, 20, 0);
    check({PL_Q4_0, PL_Q8_0}, 64, 352, 31, 0);
    check({PL_Q4_K}, 200, 2048, 18, 0);
}

/* 121 tiles of 128 outputs for each of two tiles of rows. */
Test(matmul_many, large_matrices_give_the_bits_of_the_cpu)
{
    card_insert(CARD_EAGER, 3);
    check({PL_Q4_0}, 15400, 32, 66, 0);
    check({PL_Q5_1}, 15400, 96, 90, 3);
    check({PL_NVFP4}, 15400, 64, 67, 2);
    card_insert(CARD_ASKED, 4);
    check({PL_Q4_K}, 15400, 256, 65, 1);
    check({PL_Q2_K}, 15400, 256, 70, 0);
}

Test(matmul_many, rows_of_different_widths)
{
    for (int modes = 1; modes < 4; modes++) {
        card_insert(CARD_ANY, static_cast<uint64_t>(modes));
        check(blocks_of_32, 150, 416, 37, modes);
        check(blocks_of_256, 75, 1024, 27, modes);
        check(blocks_of_32, 70, 160, 140, modes);
        check(plain, 70, 333, 45, modes);
    }
}

/* Nine of a type are two launches, other types more. */
Test(matmul_many, jobs_of_one_type_share_a_launch)
{
    card_insert(CARD_ANY, 5);
    const unsigned long long before = card_launches();
    std::vector<pl_dtype> types(9, PL_Q4_0);
    types.insert(types.begin() + 4, {PL_Q8_0, PL_BF16});
    check(types, 20, 64, 18, 0);
    cr_assert_eq(card_launches() - before, 4);
}

Test(matmul_many, plain_types_are_within_the_derived_bound)
{
    static const int64_t cols[] = {1, 7, 8, 31, 32, 33, 160, 250, 1032};
    for (uint32_t seed = 0; seed < 2; seed++) {
        card_insert(CARD_ANY, seed);
        for (int64_t c : cols)
            check(plain, 30, c, 20, 0);
        check(plain, 64, 64, 64, 0);
        check(plain, 130, 96, 70, 0);
    }
}

/* A row of a product, alone, by the kernel for few rows. */
static void expect_bits_of_few(const product &p, const activations &a, int row)
{
    const float *x = a.x.data() + row * a.host.ld;
    widths w = *p.w;
    w.out = {w.out[row]};
    w.in = {w.in[row]};
    const activations one(floats(x, x + a.host.ld), 1, a.host.cols, a.host.ld, p.modes & 2 ? &w : nullptr);
    product alone(*p.m, &w, p.modes, p.out_ld);
    on_the_card({&alone}, one, pl_cuda_matmul_few);
    cr_assert_arr_eq(alone.got.data(), p.got.data() + row * p.out_ld, p.out_ld * sizeof(float),
                     "type %d, modes %d, row %d", p.m->host.type, p.modes, row);
}

/* Turing has no products of bf16. */
Test(matmul_many, before_ampere_plain_types_have_the_bits_of_few_rows)
{
    const int n = 45;
    const int64_t rows = 70, cols = 352;
    const widths w(32, rows, cols, n);
    for (int modes = 0; modes < 4; modes++) {
        card_insert(CARD_ANY, static_cast<uint64_t>(modes));
        card_set_capability(7, 5);
        const activations a(make_rows(n, cols, 21), n, cols, cols, modes & 2 ? &w : nullptr);
        const matrix f32(PL_F32, rows, cols, 22), q8_0(PL_Q8_0, rows, cols, 23), bf16(PL_BF16, rows, cols, 24),
            f16(PL_F16, rows, cols, 25), other(PL_F32, 33, cols, 26);
        product products[] = {{f32, &w, modes, rows + 1},
                              {q8_0, &w, modes, rows},
                              {bf16, &w, modes, rows},
                              {f16, &w, modes, rows + 2},
                              {other, &w, modes & 2, 33}};
        const unsigned long long before = card_launches();
        on_the_card({products, products + 1, products + 2, products + 3, products + 4}, a);
        cr_assert_eq(card_launches() - before, 4 * 3 + 1);
        for (product &p : products)
            for (int row = 0; row < n && !p.m->host.packed; row += 4)
                expect_bits_of_few(p, a, row);
        on_cpu(&products[1], a);
        expect_right(products[1], a);
    }
}

/* A row among others, at any place, has the bits that it has alone. */
Test(matmul_many, a_row_does_not_depend_on_others)
{
    card_insert(CARD_ANY, 9);
    const int n = 70;
    const int64_t cols = 100;
    const floats x = make_rows(n, cols, 11);
    for (pl_dtype type : plain) {
        const matrix m(type, 66, cols, 12);
        const activations all(x, n, cols, cols);
        product among(m, nullptr, 0, 66);
        on_the_card({&among}, all);
        for (int i = 0; i < n; i += 23) {
            const activations one(floats(x.begin() + i * cols, x.begin() + (i + 1) * cols), 1, cols, cols);
            product alone(m, nullptr, 0, 66);
            on_the_card({&alone}, one);
            cr_assert_arr_eq(alone.got.data(), among.got.data() + i * 66, 66 * sizeof(float));
        }
    }
}

/* Codes and activations at their ends: the sums are as large as they get. */
Test(matmul_many, the_largest_integers_stay_exact)
{
    card_insert(CARD_EAGER, 0);
    floats x(20 * 64, 1.0f);
    for (size_t i = 0; i < x.size(); i++)
        x[i] = i % 64 < 32 || i % 3 ? 1.0f : -1.0f;
    const activations a(x, 20, 64, 64);
    for (int8_t code : {-128, 127}) {
        pl_block_q8_0 block = {0x3c00, {0}};
        bytes file;
        memset(block.q, code, sizeof block.q);
        for (int i = 0; i < 16 * 2; i++)
            file.insert(file.end(), reinterpret_cast<uint8_t *>(&block), reinterpret_cast<uint8_t *>(&block + 1));
        const matrix m(PL_Q8_0, file, 16, 64);
        product p(m, nullptr, 0, 16);
        on_cpu(&p, a);
        on_the_card({&p}, a);
        expect_right(p, a);
    }
}

Test(matmul_many, what_is_not_finite_stays_in_its_row)
{
    card_insert(CARD_EAGER, 0);
    floats x = make_rows(18, 256, 1);
    x[5 * 256 + 77] = INFINITY;
    const activations a(x, 18, 256, 256);
    for (pl_dtype type : {PL_Q4_K, PL_Q8_0, PL_BF16}) {
        const matrix m(type, 16, 256, 2);
        product p(m, nullptr, 0, 16);
        on_the_card({&p}, a);
        for (int i = 0; i < 18 * 16; i++)
            cr_assert_eq(std::isfinite(p.got[static_cast<size_t>(i)]), i / 16 != 5);
    }
}

Test(matmul_many, no_rows_and_no_jobs_are_no_work)
{
    card_insert(CARD_EAGER, 0);
    const a_stream stream;
    const activations a(make_rows(1, 32, 1), 1, 32, 32);
    const matrix m(PL_Q4_0, 16, 32, 2);
    const pl_matmul job = {&m.card, &a.card, nullptr, 16, 0, nullptr, nullptr};
    expect_done(pl_cuda_matmul_many(stream, &job, 1));
    expect_done(pl_cuda_matmul_many(stream, nullptr, 0));
    cr_assert_eq(card_launches(), 0);
}
