/* The product for few rows on the card: against the CPU's plain C, whose terms are the same f32 values, added in
 * another order; and each row and each job against itself alone, bit for bit. */
#include "tests/cuda/matmul_fixture.hpp"

#include <algorithm>

#define UNIT (1.01 * 0x1p-24)

/* ---- how far two orders of addition may differ */

/* Sum of the magnitudes of what is added up for one output; *steps: how many values. */
static double packed_size(const matrix &m, const activations &a, int row, int64_t n, int64_t k_end, int64_t *steps)
{
    pl_panel_type t = pl_panel_describe(m.host.type);
    int halves = pl_has_halves(t.kind), minimum = pl_has_minimum(t.kind);
    const uint8_t *panel = m.packed.data() + (size_t)(n / PL_PANEL_ROWS) * pl_panel_bytes(t, m.host.cols);
    double size = 0;
    for (int64_t g = 0; g < k_end / PL_GROUP; g++) {
        int64_t span = g / PL_SPAN_GROUPS;
        int64_t ld = std::min<int64_t>(PL_SPAN_GROUPS, a.host.blocks - span * PL_SPAN_GROUPS);
        int64_t at = span * PL_SPAN_GROUPS * a.host.rows + row * ld + g % PL_SPAN_GROUPS;
        pl_group_values v;
        pl_panel_get(m.host.type, panel + (size_t)span * pl_span_bytes(t), (int)(g % PL_SPAN_GROUPS),
                     (int)(n % PL_PANEL_ROWS), &v);
        double s[2] = {0, 0}, x_sum[2] = {0, 0};
        for (int i = 0; i < PL_GROUP; i++) {
            const int8_t *q = a.hi_lo.data() + at * 2 * PL_GROUP + i;
            s[halves ? i / 16 : 0] += (v.code[i] - t.offset) * (128 * q[0] + q[PL_GROUP]);
            x_sum[halves ? i / 16 : 0] += 128 * q[0] + q[PL_GROUP];
        }
        for (int h = 0; h <= halves; h++)
            size += (double)a.scale[(size_t)at] *
                    (std::fabs(s[h] * (double)v.d[h]) + (minimum ? std::fabs(x_sum[h] * (double)v.m[h]) : 0));
    }
    *steps = k_end / PL_GROUP * (1 + halves) * (1 + minimum);
    return size;
}

static double plain_size(const matrix &m, const activations &a, int row, int64_t n, int64_t k_end, int64_t *steps)
{
    floats w((size_t)m.host.cols);
    pl_decode(m.host.type, m.file.data() + (size_t)n * pl_dtype_bytes(m.host.type, m.host.cols), w.data(), m.host.cols);
    double size = 0;
    for (int64_t k = 0; k < k_end; k++)
        size += std::fabs((double)w[(size_t)k] * (double)a.x[(size_t)(row * a.host.ld + k)]);
    *steps = k_end / 16 + 8;
    return size;
}

/* Each order rounds every step once, at most at the sum of all magnitudes; eight more steps where eight warps' sums
 * are added, eight where lanes' are. */
static double order_bound(const matrix &m, const activations &a, int row, int64_t n, int64_t k_end)
{
    int64_t steps;
    double size = m.host.packed ? packed_size(m, a, row, n, k_end, &steps) : plain_size(m, a, row, n, k_end, &steps);
    return 2 * (double)(steps + 16) * UNIT * size + 0x1p-140;
}

/* ---- cases */

struct product {
    const matrix *m;
    const widths *w; /* or NULL: all */
    bool out_widths, in_widths;
};

static void on_cpu(pl_pool *pool, const product &p, const activations &a, floats &out, int64_t ld)
{
    pl_matmul job = {&p.m->host,
                     &a.host,
                     out.data(),
                     ld,
                     (int)a.host.rows,
                     p.out_widths ? p.w->out.data() : nullptr,
                     p.in_widths ? p.w->in.data() : nullptr};
    pl_matmul_select(0)->matmul(pool, &job, 1);
}

/* Rows [first, first + n) of a job's widths on the card. */
static const int32_t *put(std::vector<std::unique_ptr<on_card<int32_t>>> &kept, const ints &width, int first, int n)
{
    kept.emplace_back(new on_card<int32_t>(ints(width.begin() + first, width.begin() + first + n)));
    return kept.back()->p;
}

/* The products of a's rows, which are rows [first, ...) of the widths, in one call. */
static void on_the_card(cudaStream_t stream, const std::vector<product> &products, const activations &a, int first,
                        const std::vector<floats *> &outs, const std::vector<int64_t> &lds)
{
    int n = (int)a.host.rows;
    std::vector<pl_matmul> jobs;
    std::vector<std::unique_ptr<on_card<float>>> card_out;
    std::vector<std::unique_ptr<on_card<int32_t>>> widths;
    for (size_t i = 0; i < products.size(); i++) {
        const product &p = products[i];
        card_out.emplace_back(new on_card<float>(*outs[i]));
        jobs.push_back({&p.m->card, &a.card, card_out[i]->p, lds[i], n,
                        p.out_widths ? put(widths, p.w->out, first, n) : nullptr,
                        p.in_widths ? put(widths, p.w->in, first, n) : nullptr});
    }
    expect_done(pl_cuda_matmul_few(stream, jobs.data(), (int)jobs.size()));
    expect_done(cudaStreamSynchronize(stream));
    for (size_t i = 0; i < products.size(); i++)
        *outs[i] = card_out[i]->get();
}

static void expect_close(const product &p, const activations &a, const floats &got, const floats &want, int64_t ld)
{
    int64_t rows = p.m->host.rows;
    for (int i = 0; i < (int)a.host.rows; i++)
        for (int64_t n = 0; n < ld; n++) {
            float g = got[(size_t)(i * ld + n)], w = want[(size_t)(i * ld + n)];
            bool wanted = n < (p.out_widths ? p.w->out[(size_t)i] : rows);
            int64_t k_end = p.in_widths ? p.w->in[(size_t)i] : p.m->host.cols;
            double bound = wanted ? order_bound(*p.m, a, i, n, k_end) : 0;
            cr_assert(std::fabs((double)g - (double)w) <= bound,
                      "type %d, %lld x %lld, row %d of %d, output %lld: %.9g, expected %.9g +- %.3g",
                      (int)p.m->host.type, (long long)rows, (long long)p.m->host.cols, i, (int)a.host.rows,
                      (long long)n, (double)g, (double)w, bound);
        }
}

static void insert_card(void)
{
    card_insert(CARD_ANY, 1);
}

TestSuite(matmul_few, .init = insert_card);

/* Eight jobs a launch; one each for rows that do not begin at multiples of 16 bytes. */
static unsigned long long launches_of(const std::vector<product> &products, const activations &a)
{
    unsigned together = 0, alone = 0;
    for (const product &p : products) {
        size_t row = pl_dtype_bytes(p.m->host.type, p.m->host.cols);
        bool aligned = p.m->host.packed || (row % 16 == 0 && a.host.ld % 4 == 0);
        aligned ? together++ : alone++;
    }
    return (together + 7) / 8 + alone;
}

/* All products of the case in one call; then rows alone, each product in a call of its own. mode: 1 widths of outputs,
 * 2 of inputs, 4 rows of x that are not aligned. */
static void check(matmul_fixture &f, const std::vector<pl_dtype> &types, int64_t rows, int64_t cols, int n, int mode)
{
    size_t count = types.size();
    std::vector<std::unique_ptr<matrix>> matrices;
    std::vector<product> products;
    std::vector<floats> want(count), got(count);
    std::vector<floats *> outs;
    std::vector<int64_t> lds;
    widths w(types[0], rows, cols, n);
    int64_t x_ld = cols + (mode & 4 ? 3 : 4);
    floats x = make_rows(&f.rng, n, cols, x_ld, mode & 2 ? &w : nullptr);
    activations all(f.pool, x, 0, n, cols, x_ld);
    for (size_t i = 0; i < count; i++) {
        matrices.emplace_back(new matrix(f.pool, &f.rng, types[i], rows, cols));
        products.push_back({matrices[i].get(), &w, (mode & 1) != 0, (mode & 2) != 0});
        lds.push_back(rows + (int64_t)i);
        want[i].assign((size_t)(n * lds[i]), UNTOUCHED);
        got[i] = want[i];
        on_cpu(f.pool, products[i], all, want[i], lds[i]);
        outs.push_back(&got[i]);
    }
    unsigned long long launches = card_launches();
    on_the_card(f.stream, products, all, 0, outs, lds);
    cr_assert(card_launches() - launches == launches_of(products, all), "%llu launches", card_launches() - launches);
    for (size_t i = 0; i < count; i++)
        expect_close(products[i], all, got[i], want[i], lds[i]);
    for (int r = 0; r < n && n > 1; r += n > 4 ? 3 : 1) {
        activations one(f.pool, x, r, 1, cols, x_ld);
        card_reseed(pl_rng_next(&f.rng));
        for (size_t i = 0; i < count; i++) {
            floats alone((size_t)lds[i], UNTOUCHED);
            on_the_card(f.stream, {products[i]}, one, r, {&alone}, {lds[i]});
            cr_assert_arr_eq(alone.data(), &got[i][(size_t)(r * lds[i])], (size_t)lds[i] * sizeof(float),
                             "type %d: row %d alone differs from itself among %d", (int)types[i], r, n);
        }
    }
}

static const std::vector<pl_dtype> of_32 = {PL_Q4_0, PL_Q4_1,   PL_Q5_0,  PL_Q5_1, PL_Q8_0,
                                            PL_F16,  PL_IQ4_NL, PL_MXFP4, PL_F32,  PL_BF16};
static const std::vector<pl_dtype> of_256 = {PL_Q2_K, PL_Q3_K, PL_Q4_K, PL_Q5_K, PL_Q6_K, PL_IQ4_XS};

/* Fourteen jobs of block types are two launches. */
Test(matmul_few, all_types_in_one_call)
{
    matmul_fixture f(1);
    std::vector<pl_dtype> all(block_types, block_types + 14);
    all.insert(all.end(), plain_types, plain_types + 3);
    check(f, all, 41, 256, 3, 0);
    check(f, all, 16, 2048, 1, 0);
    check(f, all, 50, 768, 16, 4);
}

Test(matmul_few, every_number_of_rows)
{
    matmul_fixture f(2);
    for (int n = 1; n <= 16; n++) {
        check(f, {PL_Q4_0, PL_Q6_K, PL_BF16}, 35, 512, n, 0);
        check(f, {PL_Q4_K, PL_Q2_K, PL_F16}, 20, 256, n, 3);
    }
}

Test(matmul_few, rows_of_different_widths)
{
    matmul_fixture f(3);
    for (int mode = 1; mode < 4; mode++) {
        check(f, of_32, 70, 288, 7, mode);
        check(f, of_256, 70, 1024, 11, mode);
        check(f, {PL_NVFP4}, 40, 448, 16, mode);
        check(f, {PL_BF16, PL_F32}, 40, 333, 9, mode);
        check(f, {PL_F32, PL_F16, PL_BF16}, 23, 344, 9, mode); /* aligned rows, widths that are not */
    }
}

Test(matmul_few, tails_and_single_blocks)
{
    matmul_fixture f(4);
    check(f, of_32, 1, 32, 5, 0);
    check(f, of_32, 17, 96, 1, 4);
    check(f, of_32, 33, 352, 2, 0);
    check(f, {PL_NVFP4}, 18, 64, 4, 0);
    static const int64_t cols[] = {1, 4, 7, 8, 16, 17, 160, 250, 2056};
    for (int64_t c : cols)
        check(f, {PL_F32, PL_F16, PL_BF16}, 9, c, 3, c % 2 ? 4 : 0);
}

/* More spans than warps; then more panels than blocks of one panel each. */
Test(matmul_few, large_matrices)
{
    matmul_fixture f(5);
    check(f, {PL_Q4_0, PL_BF16}, 18, 4352, 2, 0);
    check(f, {PL_Q6_K}, 16, 2560, 6, 2);
    check(f, {PL_Q4_0}, 66000, 32, 1, 0);
}

/* Codes at their ends, activations at theirs: the sums are as large as they get. And the smallest scales of MXFP4. */
Test(matmul_few, the_largest_integers_stay_exact)
{
    static const uint8_t fills[] = {0x00, 0xff, 0x88, 0x77};
    matmul_fixture f(6);
    floats x(2 * 512);
    for (size_t i = 0; i < x.size(); i++)
        x[i] = i < 512 ? 1.0f : i % 3 ? -1.0f : 1.0f;
    activations a(f.pool, x, 0, 2, 512, 512);
    for (pl_dtype type : block_types)
        for (uint8_t fill : fills) {
            matrix m(f.pool, &f.rng, type, 16, 512);
            size_t block_bytes = (size_t)pl_dtype_describe((int)type)->block_bytes;
            int at[2];
            scale_offsets(type, at);
            for (size_t i = 0; i < m.file.size(); i++) {
                int in_block = (int)(i % block_bytes);
                bool scale = (in_block >= at[0] && in_block < at[0] + 2) || (in_block >= at[1] && in_block < at[1] + 2);
                if (!scale || at[0] < 0)
                    m.file[i] = type == PL_MXFP4 && in_block == 0 ? (fill & 8 ? 0 : fill & 1 ? 1 : 120) : fill;
            }
            pl_tensor t = {"filled", m.file.data(), 16, 512, type};
            pl_error err;
            cr_assert_eq(pl_pack(f.pool, &t, m.packed.data(), &m.host, &err), PL_OK);
            m.copy.reset(new on_card<uint8_t>(m.packed));
            m.card.data = m.copy->p;
            product p = {&m, nullptr, false, false};
            floats want(2 * 16), got(2 * 16);
            on_cpu(f.pool, p, a, want, 16);
            on_the_card(f.stream, {p}, a, 0, {&got}, {16});
            expect_close(p, a, got, want, 16);
        }
}

/* A row that is not finite says so, and only that one. */
Test(matmul_few, what_is_not_finite_stays_in_its_row)
{
    matmul_fixture f(7);
    floats x = make_rows(&f.rng, 3, 256, 256, nullptr);
    x[256 + 77] = INFINITY;
    activations a(f.pool, x, 0, 3, 256, 256);
    matrix m(f.pool, &f.rng, PL_Q4_K, 16, 256);
    floats got(3 * 16);
    on_the_card(f.stream, {{&m, nullptr, false, false}}, a, 0, {&got}, {16});
    for (int i = 0; i < 48; i++)
        cr_assert_eq(std::isnan(got[(size_t)i]), i / 16 == 1);
}

Test(matmul_few, too_many_rows_are_refused)
{
    matmul_fixture f(8);
    floats x((size_t)17 * 32);
    activations a(f.pool, x, 0, 17, 32, 32);
    matrix m(f.pool, &f.rng, PL_Q4_0, 16, 32);
    pl_matmul job = {&m.card, &a.card, nullptr, 16, 17, nullptr, nullptr};
    cr_assert_eq(pl_cuda_matmul_few(f.stream, &job, 1), cudaErrorInvalidValue);
}

/* ---- jobs with operands of their own */

struct own_job {
    std::unique_ptr<matrix> m;
    std::unique_ptr<activations> x;
    std::unique_ptr<widths> w;
    std::unique_ptr<on_card<int32_t>> n_out, n_in;
    std::unique_ptr<on_card<float>> out;
    pl_matmul job;

    own_job(matmul_fixture &f, pl_dtype type, int64_t rows, int64_t cols, int n, bool paths)
    {
        m.reset(new matrix(f.pool, &f.rng, type, rows, cols));
        w.reset(new widths(type, rows, cols, n));
        floats v = make_rows(&f.rng, n, cols, cols + 4, paths ? w.get() : nullptr);
        if (n > 2)
            v[(size_t)(cols + 4) + 5] = INFINITY;
        for (int64_t k = 0; k < 32 && n > 3; k++)
            v[(size_t)(2 * (cols + 4) + k)] *= 0x1p-102f;
        x.reset(new activations(f.pool, v, 0, n, cols, cols + 4));
        n_out.reset(new on_card<int32_t>(w->out));
        n_in.reset(new on_card<int32_t>(w->in));
        job = {&m->card, &x->card, nullptr, rows + 1, n, paths ? n_out->p : nullptr, paths ? n_in->p : nullptr};
        clear();
    }
    void clear()
    {
        out.reset(new on_card<float>(floats((size_t)(job.n_rows * job.out_ld), UNTOUCHED)));
        job.out = out->p;
    }
};

static bool same_bits(const floats &a, const floats &b)
{
    for (size_t i = 0; i < a.size(); i++)
        if (memcmp(&a[i], &b[i], sizeof a[i]) != 0 && !(std::isnan(a[i]) && std::isnan(b[i])))
            return false;
    return true;
}

/* What each job gives in a call of its own. */
static std::vector<floats> one_by_one(matmul_fixture &f, std::vector<own_job> &jobs)
{
    std::vector<floats> outs;
    for (own_job &j : jobs) {
        expect_done(pl_cuda_matmul_few(f.stream, &j.job, 1));
        expect_done(cudaStreamSynchronize(f.stream));
        outs.push_back(j.out->get());
        j.clear();
    }
    return outs;
}

static void expect_outputs(const std::vector<own_job> &jobs, const std::vector<floats> &want)
{
    for (size_t i = 0; i < jobs.size(); i++)
        cr_assert(same_bits(jobs[i].out->get(), want[i]), "job %zu of %zu, type %d, %d rows", i, jobs.size(),
                  (int)jobs[i].m->host.type, jobs[i].job.n_rows);
}

static void check_together(matmul_fixture &f, std::vector<own_job> &jobs)
{
    std::vector<floats> want = one_by_one(f, jobs);
    std::vector<pl_matmul> all;
    for (own_job &j : jobs)
        all.push_back(j.job);
    unsigned long long launches = card_launches();
    card_reseed(pl_rng_next(&f.rng));
    expect_done(pl_cuda_matmul_few(f.stream, all.data(), (int)all.size()));
    expect_done(cudaStreamSynchronize(f.stream));
    cr_assert(card_launches() - launches == 1, "%llu launches", card_launches() - launches);
    expect_outputs(jobs, want);
}

/* Matrices of all types and many shapes, up to eight in a launch, each with its own x. */
Test(matmul_few, jobs_of_any_type_and_operand_go_in_one_launch)
{
    matmul_fixture f(9);
    std::vector<pl_dtype> all(block_types, block_types + 14);
    all.insert(all.end(), plain_types, plain_types + 3);
    size_t at = 0;
    for (int n = 1; n <= 16; n++) {
        std::vector<own_job> jobs;
        for (int i = 0; i < 2 + n % 7; i++, at += 7) {
            pl_dtype type = all[at % all.size()];
            int64_t cols = (1 + (int64_t)(at % 5)) * (block_elems(type) == 1 ? 72 : std::max(64, block_elems(type)));
            jobs.emplace_back(f, type, 5 + 13 * (int64_t)(at % 4), cols, n, n % 3 == 0);
        }
        check_together(f, jobs);
    }
}

/* As in published files: LAuReL's matrices in F16 beside packed ones. */
Test(matmul_few, one_plain_job_among_packed_ones)
{
    matmul_fixture f(10);
    for (int n = 1; n <= 16; n += n < 5 ? 1 : 3)
        for (int place = 0; place < 4; place++) {
            std::vector<own_job> jobs;
            for (int i = 0; i < 4; i++)
                jobs.emplace_back(f, i == place ? PL_F16 : PL_Q4_0, 40, 288, n, false);
            check_together(f, jobs);
        }
}

/* ---- o and LAuReL */

static void check_attn_out(matmul_fixture &f, pl_dtype o_type, pl_dtype laurel_type, int64_t rank, int n, bool paths)
{
    std::vector<own_job> jobs;
    jobs.emplace_back(f, o_type, 52, 512, n, paths);
    jobs.emplace_back(f, laurel_type, 52, rank, n, paths);
    std::vector<floats> want = one_by_one(f, jobs);
    pl_act no_integers = *jobs[1].job.x;
    no_integers.hi_lo = nullptr;
    no_integers.scale = nullptr;
    no_integers.sum = nullptr;
    jobs[1].job.x = &no_integers;
    unsigned long long launches = card_launches();
    card_reseed(pl_rng_next(&f.rng));
    expect_done(pl_cuda_fused_attn_out(f.stream, &jobs[0].job, &jobs[1].job));
    expect_done(cudaStreamSynchronize(f.stream));
    cr_assert(card_launches() - launches == 1, "%llu launches", card_launches() - launches);
    expect_outputs(jobs, want);
}

Test(matmul_few, attn_out_of_all_types)
{
    static const pl_dtype o_types[] = {PL_Q4_0, PL_Q6_K, PL_F16, PL_F32};
    matmul_fixture f(11);
    std::vector<pl_dtype> all(block_types, block_types + 14);
    all.insert(all.end(), plain_types, plain_types + 3);
    int n = 0;
    for (pl_dtype o : o_types)
        for (pl_dtype laurel : all)
            for (int i = 0; i < 2; i++, n++)
                check_attn_out(f, o, laurel, block_elems(laurel) == 256 ? 256 * (1 + i) : 64 * (1 + i), n % 16 + 1,
                               n % 5 == 0);
}

Test(matmul_few, attn_out_of_all_ranks)
{
    static const int64_t ranks[] = {32, 96, 288, 1024, 1056};
    matmul_fixture f(12);
    for (int64_t rank : ranks)
        for (int n = 1; n <= 16; n += n == 1 ? 3 : 4)
            check_attn_out(f, PL_Q4_K, rank % 64 ? PL_Q8_0 : PL_Q4_1, rank, n, n > 8);
}
