/* The gated FFN on the card: the bits of the single kernels one after the other, in two launches, reading no panel that
 * no row wants. */
#include "tests/cuda/matmul_fixture.hpp"

#include <sys/mman.h>
#include <unistd.h>

static void insert_card(void)
{
    card_insert(CARD_ANY, 1);
}

TestSuite(ffn, .init = insert_card);

/* A work operand on the card, filled with what nobody wrote. */
struct integers {
    on_card<int8_t> hi_lo;
    on_card<float> scale;
    on_card<int32_t> sum;
    pl_act act;

    integers(int n, int64_t cols, int64_t blocks)
        : hi_lo(std::vector<int8_t>((size_t)(n * blocks) * 64, 99)), scale(floats((size_t)(n * blocks), UNTOUCHED)),
          sum(ints((size_t)(n * blocks) * 2, 99)), act(act_of(nullptr, 0, cols, n, hi_lo.p, scale.p, sum.p))
    {
    }
};

struct shape {
    pl_dtype gate, up, down;
    int64_t hidden, ffn;
    int n;
    ints width;   /* empty: all rows whole */
    int64_t more; /* ld beyond ffn */
};

struct ffn_case {
    matmul_fixture &f;
    shape s;
    ints width;
    int64_t ld, blocks;
    matrix gate, up, down;
    activations x;
    on_card<int32_t> card_width;
    on_card<float> gate_out, up_out, out;
    integers mid;
    pl_ffn ffn;

    ffn_case(matmul_fixture &in, const shape &of)
        : f(in), s(of), width(of.width.empty() ? ints((size_t)of.n, (int32_t)of.ffn) : of.width), ld(of.ffn + of.more),
          blocks((of.ffn + 31) / 32), gate(f.pool, &f.rng, s.gate, s.ffn, s.hidden),
          up(f.pool, &f.rng, s.up, s.ffn, s.hidden), down(f.pool, &f.rng, s.down, s.hidden, s.ffn),
          x(f.pool, make_rows(&f.rng, s.n, s.hidden, s.hidden, nullptr), 0, s.n, s.hidden, s.hidden), card_width(width),
          gate_out(untouched(ld)), up_out(untouched(ld)), out(untouched(s.hidden)), mid(s.n, 0, blocks)
    {
        ffn = {&gate.card, &up.card, &down.card, &x.card, gate_out.p,   up_out.p,
               &mid.act,   ld,       out.p,      s.n,     card_width.p, -INFINITY};
    }
    floats untouched(int64_t columns) const
    {
        return floats((size_t)(s.n * columns), UNTOUCHED);
    }
};

static bool same_bits(const floats &a, const floats &b)
{
    for (size_t i = 0; i < a.size(); i++)
        if (memcmp(&a[i], &b[i], sizeof a[i]) != 0 && !(std::isnan(a[i]) && std::isnan(b[i])))
            return false;
    return a.size() == b.size();
}

/* The single kernels, on buffers of their own: h as ffn_act leaves it, then with zeros beyond each row's width as
 * integers, then the product. */
static void run_single(ffn_case &c, floats *h, integers *mid, floats *out)
{
    cudaStream_t stream = c.f.stream;
    on_card<float> g(c.untouched(c.ld)), u(c.untouched(c.ld)), o(c.untouched(c.s.hidden));
    const pl_matmul jobs[2] = {{&c.gate.card, &c.x.card, g.p, c.ld, c.s.n, c.card_width.p, nullptr},
                               {&c.up.card, &c.x.card, u.p, c.ld, c.s.n, c.card_width.p, nullptr}};
    expect_done(pl_cuda_matmul_few(stream, jobs, 2));
    expect_done(pl_cuda_ffn_act(stream, g.p, u.p, c.ld, c.s.n, c.card_width.p, c.ffn.z));
    expect_done(cudaStreamSynchronize(stream));
    *h = g.get();
    floats zeros = *h;
    for (int i = 0; i < c.s.n; i++)
        for (int64_t k = c.width[(size_t)i]; k < c.ld; k++)
            zeros[(size_t)(i * c.ld + k)] = 0;
    on_card<float> operand(zeros);
    mid->act.f32 = operand.p;
    mid->act.ld = c.ld;
    mid->act.cols = c.s.ffn;
    expect_done(pl_cuda_quantize(stream, &mid->act, c.s.n));
    const pl_matmul down = {&c.down.card, &mid->act, o.p, c.s.hidden, c.s.n, nullptr, c.card_width.p};
    expect_done(pl_cuda_matmul_few(stream, &down, 1));
    expect_done(cudaStreamSynchronize(stream));
    *out = o.get();
}

/* Blocks of 32 that some row wants have the very integers; the others are not looked at. */
static void expect_integers(const ffn_case &c, const integers &want)
{
    std::vector<int8_t> codes = c.mid.hi_lo.get(), want_codes = want.hi_lo.get();
    floats scale = c.mid.scale.get(), want_scale = want.scale.get();
    ints sum = c.mid.sum.get(), want_sum = want.sum.get();
    for (int64_t b = 0; b < (c.width[0] + 31) / 32; b++)
        for (int i = 0; i < c.s.n; i++) {
            int64_t first = b / 8 * 8, span = std::min<int64_t>(8, c.blocks - first);
            size_t at = (size_t)(first * c.s.n + i * span + b - first);
            cr_assert_arr_eq(&codes[at * 64], &want_codes[at * 64], 64, "row %d, block %lld", i, (long long)b);
            cr_assert(scale[at] == want_scale[at] || (std::isnan(scale[at]) && std::isnan(want_scale[at])));
            cr_assert_arr_eq(&sum[at * 2], &want_sum[at * 2], 2 * sizeof(int32_t));
        }
}

static void check(matmul_fixture &f, const shape &s, unsigned launches)
{
    ffn_case c(f, s);
    floats h, out;
    integers mid(s.n, s.ffn, c.blocks);
    run_single(c, &h, &mid, &out);
    unsigned long long before = card_launches();
    card_reseed(pl_rng_next(&f.rng));
    expect_done(pl_cuda_fused_ffn(f.stream, &c.ffn));
    expect_done(cudaStreamSynchronize(f.stream));
    cr_assert(card_launches() - before == launches, "%llu launches", card_launches() - before);
    cr_assert(same_bits(c.gate_out.get(), h), "types %d %d, %lld units, %d rows", (int)s.gate, (int)s.up,
              (long long)s.ffn, s.n);
    cr_assert(same_bits(c.out.get(), out), "types %d %d %d, %lld units, %d rows", (int)s.gate, (int)s.up, (int)s.down,
              (long long)s.ffn, s.n);
    cr_assert(c.mid.act.rows == s.n && c.mid.act.cols == s.ffn && c.mid.act.blocks == c.blocks);
    if (launches == 2)
        expect_integers(c, mid);
}

Test(ffn, gives_the_bits_of_the_single_kernels)
{
    matmul_fixture f(1);
    for (int i = 0; i < 14; i++)
        check(f, {block_types[i], block_types[(i + 5) % 14], block_types[(i + 9) % 14], 256, 512, i + 1, {}, 0}, 2);
}

Test(ffn, every_number_of_rows)
{
    matmul_fixture f(2);
    for (int n = 1; n <= 16; n++)
        check(f, {PL_Q4_0, PL_Q4_0, PL_Q8_0, 320, 160, n, {}, n % 3}, 2);
}

/* k_warps of 1, 2, 4 and 8, the last with spans left over. */
Test(ffn, every_number_of_warps_a_panel)
{
    static const int64_t hidden[] = {256, 512, 1024, 2048, 2560};
    matmul_fixture f(3);
    for (int64_t h : hidden)
        for (int n = 1; n <= 9; n += 4)
            check(f, {PL_Q4_K, PL_Q6_K, PL_Q4_K, h, 256, n, {}, 0}, 2);
}

/* MatFormer's paths; and widths that end within a block, for a down that allows it. */
Test(ffn, rows_of_different_widths)
{
    matmul_fixture f(4);
    check(f, {PL_Q4_0, PL_Q5_0, PL_Q4_0, 256, 512, 4, {512, 256, 256, 128}, 0}, 2);
    check(f, {PL_Q4_0, PL_Q5_0, PL_Q4_0, 256, 512, 3, {256, 96, 32}, 8}, 2);
    check(f, {PL_Q8_0, PL_Q8_0, PL_F16, 256, 208, 5, {201, 177, 50, 16, 3}, 3}, 2);
    check(f, {PL_Q8_0, PL_Q8_0, PL_F32, 64, 52, 2, {52, 17}, 0}, 2);
    check(f,
          {PL_Q4_K,
           PL_Q4_K,
           PL_Q4_0,
           512,
           1024,
           16,
           {1024, 1024, 1024, 512, 512, 512, 512, 512, 512, 512, 256, 256, 256, 256, 64, 32},
           0},
          2);
}

Test(ffn, plain_types_go_the_longer_way)
{
    matmul_fixture f(5);
    check(f, {PL_F16, PL_F16, PL_F16, 256, 160, 3, {}, 0}, 3);
    check(f, {PL_BF16, PL_Q4_0, PL_Q4_0, 256, 160, 2, {160, 64}, 0}, 4);
    check(f, {PL_Q4_0, PL_F32, PL_Q8_0, 256, 160, 5, {}, 0}, 4);
}

/* gate_out is work then. */
Test(ffn, a_cutoff_gives_the_output_of_the_single_kernels)
{
    matmul_fixture f(9);
    for (int n = 1; n <= 9; n += 4) {
        ffn_case c(f, {PL_Q4_0, PL_Q4_0, PL_Q8_0, 256, 512, n, {}, 0});
        c.ffn.z = 1.5f;
        floats h, out;
        integers mid(n, 512, c.blocks);
        run_single(c, &h, &mid, &out);
        expect_done(pl_cuda_fused_ffn(f.stream, &c.ffn));
        expect_done(cudaStreamSynchronize(f.stream));
        cr_assert(same_bits(c.out.get(), out));
    }
}

/* What is not finite stays in its row; and so does a row of zeros. */
Test(ffn, odd_values)
{
    matmul_fixture f(6);
    ffn_case c(f, {PL_Q4_0, PL_Q4_0, PL_Q4_0, 64, 64, 3, {}, 0});
    floats v = make_rows(&f.rng, 3, 64, 64, nullptr);
    v[70] = INFINITY;
    std::fill(v.begin() + 128, v.end(), 0.0f);
    activations x(f.pool, v, 0, 3, 64, 64);
    c.ffn.x = &x.card;
    expect_done(pl_cuda_fused_ffn(f.stream, &c.ffn));
    expect_done(cudaStreamSynchronize(f.stream));
    floats out = c.out.get();
    for (size_t i = 0; i < out.size(); i++)
        cr_assert(i / 64 == 1 ? std::isnan(out[i]) : std::isfinite(out[i]) && (i / 64 != 2 || out[i] == 0));
}

/* A matrix of which only the first panels may be touched: what follows them cannot be read. */
struct fenced {
    uint8_t *memory;
    size_t bytes, page = (size_t)sysconf(_SC_PAGESIZE);
    pl_weight w;

    fenced(const matrix &m, int64_t rows) : w(m.card)
    {
        size_t used = (size_t)pl_panel_count(rows) * pl_panel_bytes(pl_panel_describe(w.type), w.cols);
        bytes = (used + page - 1) / page * page + page;
        memory = (uint8_t *)mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        cr_assert_neq(memory, MAP_FAILED);
        uint8_t *first = memory + bytes - page - used;
        memcpy(first, m.packed.data(), used);
        cr_assert_eq(mprotect(memory + bytes - page, page, PROT_NONE), 0);
        w.data = first;
    }
    fenced(const fenced &) = delete;
    ~fenced()
    {
        munmap(memory, bytes);
    }
};

Test(ffn, reads_no_panel_that_no_row_wants)
{
    matmul_fixture f(7);
    for (int32_t width = 32; width <= 512; width *= 4) {
        ffn_case c(f, {PL_Q4_0, PL_Q8_0, PL_Q4_0, 256, 512, 2, {width, 32}, 0});
        floats h, out;
        integers mid(2, 512, c.blocks);
        run_single(c, &h, &mid, &out);
        fenced gate(c.gate, width), up(c.up, width);
        c.ffn.gate = &gate.w;
        c.ffn.up = &up.w;
        expect_done(pl_cuda_fused_ffn(f.stream, &c.ffn));
        expect_done(cudaStreamSynchronize(f.stream));
        cr_assert(same_bits(c.out.get(), out));
    }
}

Test(ffn, too_many_rows_are_refused)
{
    matmul_fixture f(8);
    ffn_case c(f, {PL_Q4_0, PL_Q4_0, PL_Q4_0, 64, 64, 17, {}, 0});
    cr_assert_eq(pl_cuda_fused_ffn(f.stream, &c.ffn), cudaErrorInvalidValue);
}
