/* The sparse FFN on the card against the single ops on the card, bit for bit; and that it leaves unread what only zeros
 * are multiplied with. */
#include "tests/cuda/matmul_fixture.hpp"

#include "cuda/ffn_sparse.h"

#include <algorithm>
#include <sys/mman.h>
#if defined(EMU_ASAN)
#include <sanitizer/asan_interface.h>
#endif

#define ONE_IN_TWENTY 1.6448536f

/* ---- cases */

struct shape {
    pl_dtype gate, up, down;
    int64_t hidden, ffn;
    int n;
    float z;
    bool paths;      /* rows of different widths */
    int64_t ld_more; /* than ffn */
};

/* Activations as integers, made by the card. */
struct integers {
    int64_t blocks;
    on_card<int8_t> hi_lo;
    on_card<float> scale;
    on_card<int32_t> sum;
    pl_act act;

    integers(int rows, int64_t cols)
        : blocks((cols + 31) / 32), hi_lo((size_t)(rows * blocks) * 64), scale((size_t)(rows * blocks)),
          sum((size_t)(rows * blocks) * 2), act(act_of(nullptr, cols, cols, rows, hi_lo.p, scale.p, sum.p))
    {
    }
};

static ints widths_of(const shape &s)
{
    int elems = std::max(PL_GROUP, block_elems(s.down));
    int64_t units = s.ffn / elems;
    ints w;
    for (int i = 0; i < s.n; i++)
        w.push_back((int32_t)((s.paths ? units - units * (i / 2) / (s.n / 2 + 1) : units) * elems));
    if (s.paths && s.n > 5)
        w.back() = 0;
    return w;
}

static void insert_card(void)
{
    card_insert(CARD_ANY, 1);
}

TestSuite(ffn_sparse, .init = insert_card);

/* One FFN: weights as they are to lie on the card, rows of x, and what it takes to run it in either way. */
struct network {
    enum { GATE, UP, DOWN };
    shape s;
    bytes data[3];
    pl_weight weight[3];
    floats x;
    ints width;
    int64_t ld;

    network(matmul_fixture &f, const shape &of)
        : s(of), x((size_t)(s.n * s.hidden)), width(widths_of(s)), ld(s.ffn + s.ld_more)
    {
        const pl_dtype types[3] = {s.gate, s.up, s.down};
        for (int i = 0; i < 3; i++) {
            matrix m(f.pool, &f.rng, types[i], i == DOWN ? s.hidden : s.ffn, i == DOWN ? s.ffn : s.hidden);
            data[i] = m.packed.empty() ? m.file : m.packed;
            weight[i] = m.host;
        }
        for (float &v : x)
            v = uniform(&f.rng);
    }

    /* what: runs it, given the operands on the card. before: called with the copies of `up` and `down`. */
    template <class WHAT, class BEFORE> floats run(cudaStream_t stream, floats *act, BEFORE before, WHAT what) const
    {
        on_card<uint8_t> gate(data[GATE]), up(data[UP]), down(data[DOWN]);
        pl_weight w[3] = {weight[GATE], weight[UP], weight[DOWN]};
        w[GATE].data = gate.p;
        w[UP].data = up.p;
        w[DOWN].data = down.p;
        on_card<float> card_x(x), gate_out((size_t)(s.n * ld)), up_out((size_t)(s.n * ld));
        on_card<float> out(floats((size_t)(s.n * s.hidden), UNTOUCHED));
        on_card<int32_t> card_width(width);
        integers in(s.n, s.hidden), mid(s.n, s.ffn);
        in.act.f32 = card_x.p;
        expect_done(pl_cuda_quantize(stream, &in.act, s.n));
        expect_done(cudaStreamSynchronize(stream));
        pl_ffn ffn = {&w[GATE], &w[UP], &w[DOWN], &in.act, gate_out.p,   up_out.p,
                      &mid.act, ld,     out.p,    s.n,     card_width.p, s.z};
        before(up.p, down.p);
        expect_done(what(stream, ffn));
        expect_done(cudaStreamSynchronize(stream));
        if (act)
            *act = gate_out.get();
        return out.get();
    }
};

static void nothing(uint8_t *, uint8_t *)
{
}

static cudaError_t run_single_ops(cudaStream_t stream, const pl_ffn &f)
{
    pl_matmul jobs[2] = {{f.gate, f.x, f.gate_out, f.ld, f.n, f.width, nullptr},
                         {f.up, f.x, f.up_out, f.ld, f.n, f.width, nullptr}};
    pl_act mid = *f.mid;
    pl_matmul down = {f.down, &mid, f.out, f.down->rows, f.n, nullptr, f.width};
    mid.f32 = f.gate_out;
    mid.ld = f.ld;
    cudaError_t e = pl_cuda_matmul_few(stream, jobs, 2);
    if (!e)
        e = pl_cuda_ffn_act(stream, f.gate_out, f.up_out, f.ld, f.n, f.width, f.z);
    if (!e)
        e = pl_cuda_quantize(stream, &mid, f.n);
    return e ? e : pl_cuda_matmul_few(stream, &down, 1);
}

static cudaError_t run_sparse(cudaStream_t stream, const pl_ffn &f)
{
    unsigned long long before = card_launches();
    pl_act *mid = f.mid;
    mid->ld = mid->cols = mid->blocks = mid->rows = -1;
    cudaError_t e = pl_cuda_ffn_sparse(stream, &f);
    cr_assert_leq(card_launches() - before, 3);
    cr_assert(mid->cols == f.down->cols && mid->blocks == f.down->cols / 32 && mid->rows == f.n);
    return e;
}

static void expect_same(const shape &s, const floats &got, const floats &want)
{
    for (size_t i = 0; i < want.size(); i++)
        cr_assert(memcmp(&got[i], &want[i], sizeof(float)) == 0 || (std::isnan(got[i]) && std::isnan(want[i])),
                  "types %d %d %d, H %lld, F %lld, z %g, row %d of %d, output %d: %.9g, expected %.9g", (int)s.gate,
                  (int)s.up, (int)s.down, (long long)s.hidden, (long long)s.ffn, (double)s.z,
                  (int)((int64_t)i / s.hidden), s.n, (int)((int64_t)i % s.hidden), (double)got[i], (double)want[i]);
}

static void check(matmul_fixture &f, const shape &s)
{
    network net(f, s);
    floats want = net.run(f.stream, nullptr, nothing, run_single_ops);
    card_reseed(pl_rng_next(&f.rng));
    expect_same(s, net.run(f.stream, nullptr, nothing, run_sparse), want);
}

/* Nothing, a twentieth, half and all of it above the cutoff. */
static const float cuts[] = {200, ONE_IN_TWENTY, 0, -200};

Test(ffn_sparse, every_number_of_rows)
{
    matmul_fixture f(1);
    for (int n = 1; n <= 16; n++)
        for (float z : cuts) {
            check(f, {PL_Q4_0, PL_Q4_0, PL_Q4_0, 256, 1024, n, z, false, 0});
            check(f, {PL_Q4_0, PL_Q8_0, PL_Q4_0, 64, 352, n, z, n % 2 == 0, 4});
        }
}

Test(ffn_sparse, all_types)
{
    matmul_fixture f(2);
    for (pl_dtype type : block_types)
        for (int n = 1; n <= 4; n++)
            for (float z : cuts)
                check(f, {type, type, type, 256, 512, n, z, n > 2, 0});
    check(f, {PL_F16, PL_Q4_K, PL_Q6_K, 256, 768, 1, ONE_IN_TWENTY, false, 0});
    check(f, {PL_Q4_K, PL_Q6_K, PL_Q4_0, 512, 768, 2, ONE_IN_TWENTY, true, 0});
    check(f, {PL_Q8_0, PL_Q4_K, PL_Q6_K, 512, 1024, 3, ONE_IN_TWENTY, true, 0});
}

/* Tails: of spans, of a word of the mask, a single group, rows of output that are no whole panel. */
Test(ffn_sparse, odd_widths)
{
    static const int64_t ffn[] = {32, 64, 96, 160, 288, 416, 1056, 2080};
    matmul_fixture f(3);
    for (int64_t width : ffn)
        for (int n = 1; n <= 6; n++) {
            check(f, {PL_Q4_0, PL_Q4_0, PL_Q4_0, 96, width, n, ONE_IN_TWENTY, n > 2, 0});
            check(f, {PL_Q5_1, PL_IQ4_NL, PL_Q8_0, 32, width, n, 0.5f, n > 1, 8});
        }
}

/* A row that fills the block's registers; more panels than blocks take at once; more spans than warps. */
Test(ffn_sparse, wide)
{
    matmul_fixture f(4);
    for (float z : cuts)
        for (int n = 1; n <= 3; n++)
            check(f, {PL_Q4_0, PL_Q4_0, PL_Q4_0, 32, 16384, n, z, false, 0});
    check(f, {PL_Q4_0, PL_Q4_0, PL_Q4_0, 2304, 4352, 2, ONE_IN_TWENTY, false, 0});
    check(f, {PL_Q4_K, PL_Q4_K, PL_Q6_K, 256, 8192, 1, ONE_IN_TWENTY, false, 0});
}

/* Done by the single ops. */
Test(ffn_sparse, what_it_was_not_made_for)
{
    matmul_fixture f(5);
    const shape shapes[] = {
        {PL_Q4_0, PL_Q4_0, PL_F16, 64, 128, 2, ONE_IN_TWENTY, false, 0},
        {PL_Q4_0, PL_F32, PL_Q4_0, 64, 128, 3, ONE_IN_TWENTY, true, 0},
        {PL_Q4_0, PL_Q4_0, PL_Q4_0, 64, 128, 2, ONE_IN_TWENTY, false, 1},
        {PL_Q4_0, PL_Q4_0, PL_Q4_0, 64, 128, 2, -INFINITY, false, 0},
    };
    for (const shape &s : shapes) {
        network net(f, s);
        floats want = net.run(f.stream, nullptr, nothing, run_single_ops);
        floats got = net.run(f.stream, nullptr, nothing,
                             [](cudaStream_t stream, const pl_ffn &ffn) { return pl_cuda_ffn_sparse(stream, &ffn); });
        expect_same(s, got, want);
    }
}

Test(ffn_sparse, how_many_rows)
{
    pl_act mid = {};
    pl_ffn ffn = {};
    ffn.mid = &mid;
    cr_assert_eq(pl_cuda_ffn_sparse(nullptr, &ffn), cudaSuccess);
    ffn.n = 17;
    cr_assert_eq(pl_cuda_ffn_sparse(nullptr, &ffn), cudaErrorInvalidValue);
}

/* A row that is not finite has no cutoff, and says so; the others stay as they are. */
Test(ffn_sparse, what_is_not_finite_stays_in_its_row)
{
    matmul_fixture f(6);
    for (int n = 2; n <= 4; n += 2) {
        network net(f, {PL_Q4_K, PL_Q4_K, PL_Q4_K, 256, 512, n, ONE_IN_TWENTY, false, 0});
        net.x[256 + 77] = INFINITY;
        floats want = net.run(f.stream, nullptr, nothing, run_single_ops);
        floats got = net.run(f.stream, nullptr, nothing, run_sparse);
        expect_same(net.s, got, want);
        for (int i = 0; i < n * 256; i++)
            cr_assert_eq(std::isnan(got[(size_t)i]), i / 256 == 1);
    }
}

/* ---- what is not read */

/* Until it is freed, whoever touches it is reported, under AddressSanitizer. */
static void forbid([[maybe_unused]] const uint8_t *p, [[maybe_unused]] size_t n)
{
#if defined(EMU_ASAN)
    __asan_poison_memory_region(p, n);
#endif
}

/* For each group of F, which of its eight chunks some row has a value in. */
static bytes live_chunks(const network &net, const floats &act)
{
    bytes live((size_t)net.s.ffn / PL_GROUP);
    for (int r = 0; r < net.s.n; r++)
        for (int i = 0; i < net.width[(size_t)r]; i++)
            if (act[(size_t)(r * net.ld + i)] != 0)
                live[(size_t)i / PL_GROUP] |= (uint8_t)(1 << i % PL_GROUP / 4);
    return live;
}

/* Calls forget(offset, bytes) for all of `down` that is not needed. */
template <class F> static void for_dead_pieces(const pl_weight &down, const bytes &live, F forget)
{
    pl_panel_type t = pl_panel_describe(down.type);
    int64_t panels = pl_panel_count(down.rows);
    size_t panel_bytes = pl_panel_bytes(t, down.cols);
    for (int64_t p = 0; p < panels; p++)
        for (size_t g = 0; g < live.size(); g++) {
            size_t span = (size_t)p * panel_bytes + g / PL_SPAN_GROUPS * pl_span_bytes(t), in_span = g % PL_SPAN_GROUPS;
            size_t body = span + (size_t)t.head_bytes + in_span * (size_t)pl_group_bytes(t);
            int m = live[g], any = (m | m >> 4) & 15;
            if (t.head_bytes == 256 && !m) /* f16 d [8][16] */
                forget(span + in_span * 32, (size_t)32);
            for (int j = 0; j < (t.bits == 8 ? 8 : 4); j++)
                if (!((t.bits == 8 ? m : any) >> j & 1))
                    forget(body + (size_t)j * PL_CHUNK_BYTES, (size_t)PL_CHUNK_BYTES);
            if (t.bits == 6 && !(m & 15))
                forget(body + 4 * PL_CHUNK_BYTES, (size_t)PL_CHUNK_BYTES);
            if (t.bits == 6 && !(m >> 4))
                forget(body + 5 * PL_CHUNK_BYTES, (size_t)PL_CHUNK_BYTES);
        }
}

template <class F> static void for_dead_panels(const pl_weight &up, const bytes &live, F forget)
{
    size_t panel_bytes = pl_panel_bytes(pl_panel_describe(up.type), up.cols);
    for (size_t p = 0; p < 2 * live.size(); p++)
        if (!(live[p / 2] >> 4 * (p % 2) & 15))
            forget(p * panel_bytes, panel_bytes);
}

/* A scale that is no number where it is not needed would show, were it used; so would, in a program that watches
 * addresses, the reading. */
static void check_unread(matmul_fixture &f, const shape &s)
{
    network net(f, s);
    floats act;
    size_t dead = 0;
    floats want = net.run(f.stream, &act, nothing, run_single_ops);
    bytes live = live_chunks(net, act);
    network poisoned = net;
    for_dead_panels(net.weight[network::UP], live,
                    [&](size_t at, size_t n) { memset(&poisoned.data[network::UP][at], 0xff, n); });
    for_dead_pieces(net.weight[network::DOWN], live, [&](size_t at, size_t n) {
        memset(&poisoned.data[network::DOWN][at], 0xff, n);
        dead += n;
    });
    cr_assert_gt(dead, net.data[network::DOWN].size() / 10);
    floats got = poisoned.run(
        f.stream, nullptr,
        [&](uint8_t *up, uint8_t *down) {
            if (s.n <= 2)
                for_dead_panels(net.weight[network::UP], live, [&](size_t at, size_t n) { forbid(up + at, n); });
            for_dead_pieces(net.weight[network::DOWN], live, [&](size_t at, size_t n) { forbid(down + at, n); });
        },
        run_sparse);
    expect_same(s, got, want);
}

Test(ffn_sparse, what_only_zeros_need_is_not_used)
{
    matmul_fixture f(7);
    for (int n = 1; n <= 4; n++) {
        check_unread(f, {PL_Q4_0, PL_Q4_0, PL_Q4_0, 256, 1024, n, ONE_IN_TWENTY, n > 2, 0});
        check_unread(f, {PL_Q4_K, PL_Q4_K, PL_Q8_0, 256, 1024, n, ONE_IN_TWENTY, n > 2, 0});
        check_unread(f, {PL_Q6_K, PL_Q8_0, PL_Q6_K, 256, 1024, n, 2 * ONE_IN_TWENTY, n > 2, 0});
    }
}

/* Whole pages of what nothing needs, out of reach. */
static size_t close_pages(uint8_t *begin, size_t bytes)
{
    const uintptr_t page = 4096, from = ((uintptr_t)begin + page - 1) / page * page;
    const uintptr_t end = ((uintptr_t)begin + bytes) / page * page;
    if (from >= end)
        return 0;
    cr_assert_eq(mprotect((void *)from, end - from, PROT_NONE), 0);
    return end - from;
}

static void check_pages(matmul_fixture &f, int n)
{
    const shape s = {PL_Q4_0, PL_Q4_0, PL_Q4_0, 512, 4096, n, ONE_IN_TWENTY, false, 0};
    network net(f, s);
    pl_panel_type t = pl_panel_describe(PL_Q4_0);
    size_t panel = pl_panel_bytes(t, s.hidden), from = 64, to = 192; /* panels whose gates are all zero */
    for (size_t p = from; p < to; p++)
        for (int64_t span = 0; span < s.hidden / PL_SPAN; span++)
            memset(&net.data[network::GATE][p * panel + (size_t)span * pl_span_bytes(t)], 0, (size_t)t.head_bytes);
    floats want = net.run(f.stream, nullptr, nothing, run_single_ops);
    uint8_t *ups = nullptr, *downs = nullptr;
    floats got = net.run(
        f.stream, nullptr,
        [&](uint8_t *up, uint8_t *down) {
            ups = up;
            downs = down;
            if (n <= 2)
                cr_assert_gt(close_pages(up + from * panel, (to - from) * panel), 0);
            size_t row = pl_panel_bytes(t, s.ffn), span = pl_span_bytes(t);
            for (size_t p = 0; p < 32; p++)
                cr_assert_gt(close_pages(down + p * row + from / 16 * span, (to - from) / 16 * span), 0);
        },
        [&](cudaStream_t stream, const pl_ffn &ffn) {
            cudaError_t e = run_sparse(stream, ffn);
            cudaStreamSynchronize(stream);
            mprotect(ups, net.data[network::UP].size(), PROT_READ | PROT_WRITE);
            mprotect(downs, net.data[network::DOWN].size(), PROT_READ | PROT_WRITE);
            return e;
        });
    expect_same(s, got, want);
}

Test(ffn_sparse, what_only_zeros_need_is_not_read)
{
    matmul_fixture f(8);
    for (int n = 1; n <= 4; n++)
        check_pages(f, n);
}
