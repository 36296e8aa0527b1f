/* The fused ops of whole rows: the bits of the single ops one after the other, in one launch. */
#include "cuda/kernels.h"
#include "tests/cuda/fixture.hpp"

#include <cstring>
#include <memory>

typedef std::vector<float> floats;

static const int room = 19; /* slots of a step */
static const float eps = 1e-6f;

/* What an op works on, twice the same: for the single ops and for the fused one. */
struct operands {
    std::vector<std::unique_ptr<on_card<float>>> kept;
    std::vector<std::unique_ptr<on_card<int32_t>>> ints;
    std::unique_ptr<on_card<int8_t>> hi_lo;
    uint32_t seed;
    int64_t hidden;
    int n;
    pl_act act = {};

    operands(uint32_t data_seed, int64_t columns, int rows) : seed(data_seed), hidden(columns), n(rows)
    {
        size_t blocks = (size_t)(room * ((columns + 31) / 32));
        hi_lo.reset(new on_card<int8_t>(std::vector<int8_t>(blocks * 64, 77)));
        act.hi_lo = hi_lo->p;
        act.scale = take(blocks);
        act.sum = take_ints(std::vector<int32_t>(2 * blocks, 77));
    }
    operands(const operands &) = delete;

    /* odd: the first row holds what is not finite. */
    float *take(size_t count, bool odd = false)
    {
        floats v = numbers(count, seed += 77);
        if (odd)
            v[(size_t)hidden / 2] = seed % 2 ? NAN : INFINITY;
        kept.emplace_back(new on_card<float>(v));
        return kept.back()->p;
    }
    int32_t *take_ints(const std::vector<int32_t> &v)
    {
        ints.emplace_back(new on_card<int32_t>(v));
        return ints.back()->p;
    }
    float *take_rows(bool odd = false)
    {
        return take((size_t)(room * hidden), odd);
    }
    float *take_row()
    {
        return take((size_t)hidden);
    }
    pl_streams take_streams(int rows)
    {
        return {take((size_t)(PL_STREAMS * rows * hidden)), rows, hidden};
    }
    pl_rows take_rows_of_layer()
    {
        std::vector<int32_t> slot((size_t)n);
        for (int i = 0; i < n; i++)
            slot[(size_t)i] = (i * 7 + (int)(seed % 5)) % room;
        return {n, take_ints(slot), nullptr, nullptr};
    }
    pl_altup take_altup()
    {
        return {take_row(), take((size_t)(4 * hidden)), take(64), take(16), take_row()};
    }
};

static void expect_same_bits(const operands &got, const operands &want, const char *what)
{
    cr_assert_eq(got.kept.size(), want.kept.size());
    for (size_t i = 0; i < got.kept.size(); i++) {
        floats g = got.kept[i]->get(), w = want.kept[i]->get();
        for (size_t at = 0; at < g.size(); at++)
            cr_assert(memcmp(&g[at], &w[at], sizeof g[at]) == 0,
                      "%s, %d rows of %lld: buffer %zu [%zu] is %.9g, expected %.9g", what, got.n,
                      (long long)got.hidden, i, at, (double)g[at], (double)w[at]);
    }
    for (size_t i = 0; i < got.ints.size(); i++)
        cr_assert(got.ints[i]->get() == want.ints[i]->get(), "%s, %d rows of %lld: sums", what, got.n,
                  (long long)got.hidden);
    cr_assert(got.hi_lo->get() == want.hi_lo->get(), "%s, %d rows of %lld: codes", what, got.n, (long long)got.hidden);
}

static void expect_act(const pl_act &act, const float *f32, int n, int64_t hidden)
{
    cr_assert(act.f32 == f32 && act.ld == hidden && act.cols == hidden && act.blocks == (hidden + 31) / 32 &&
              act.rows == n);
}

static void quantize(cudaStream_t s, operands &o, const float *x)
{
    o.act.f32 = x;
    o.act.ld = o.act.cols = o.hidden;
    o.act.blocks = (o.hidden + 31) / 32;
    o.act.rows = o.n;
    expect_done(pl_cuda_quantize(s, &o.act, o.n));
}

/* ---- ops; odd: something is not finite */

static void predict(cudaStream_t s, operands &o, bool fused, bool add, bool odd)
{
    pl_streams pred = o.take_streams(room - 2), streams = o.take_streams(room);
    float *x = o.take_rows(), *v = o.take_rows(odd), *v_norm = o.take_row(), *norm = o.take_row();
    pl_rows rows = o.take_rows_of_layer();
    pl_altup altup = o.take_altup();
    if (fused) {
        expect_done(pl_cuda_fused_predict(s, pred, x, &o.act, streams, add ? v : nullptr, add ? v_norm : nullptr, &rows,
                                          &altup, norm, eps));
        expect_act(o.act, x, o.n, o.hidden);
        return;
    }
    if (add)
        expect_done(pl_cuda_ple_add(s, streams, v, &rows, v_norm, eps));
    expect_done(pl_cuda_altup_predict(s, pred, x, streams, &rows, &altup, norm, eps));
    quantize(s, o, x);
}

static void predict_first(cudaStream_t s, operands &o, bool fused, bool odd)
{
    predict(s, o, fused, false, odd);
}

static void predict_after_ple(cudaStream_t s, operands &o, bool fused, bool odd)
{
    predict(s, o, fused, true, odd);
}

static void correct_scaled(cudaStream_t s, operands &o, bool fused, bool odd, bool scaled)
{
    pl_streams streams = o.take_streams(room), pred = o.take_streams(room - 3);
    float *y = o.take_rows(), *gate_in = o.take_rows(), *ffn = o.take_rows(odd), *norm = o.take_row();
    pl_rows rows = o.take_rows_of_layer();
    pl_altup altup = o.take_altup();
    if (!scaled)
        altup.scale = nullptr;
    if (fused) {
        expect_done(pl_cuda_fused_altup_correct(s, streams, y, gate_in, &o.act, ffn, pred, &rows, &altup, norm, eps));
        expect_act(o.act, gate_in, o.n, o.hidden);
        return;
    }
    expect_done(pl_cuda_altup_correct(s, streams, y, gate_in, ffn, pred, &rows, &altup, norm, eps));
    quantize(s, o, gate_in);
}

static void correct(cudaStream_t s, operands &o, bool fused, bool odd)
{
    correct_scaled(s, o, fused, odd, true);
}

static void correct_unscaled(cudaStream_t s, operands &o, bool fused, bool odd)
{
    correct_scaled(s, o, fused, odd, false);
}

/* y is att, as the walk has it. */
static void residual(cudaStream_t s, operands &o, bool fused, bool odd)
{
    float *y = o.take_rows(odd), *f = o.take_rows(), *laurel = o.take_rows(), *a = o.take_rows(), *x = o.take_rows();
    float *w[3] = {o.take_row(), o.take_row(), o.take_row()};
    if (fused) {
        expect_done(
            pl_cuda_fused_attn_residual(s, y, f, &o.act, laurel, a, x, y, w[0], w[1], w[2], o.n, o.hidden, eps));
        expect_act(o.act, f, o.n, o.hidden);
        return;
    }
    expect_done(pl_cuda_attn_residual(s, y, f, laurel, a, x, y, w[0], w[1], w[2], o.n, o.hidden, eps));
    quantize(s, o, f);
}

/* ---- cases */

typedef void (*op)(cudaStream_t s, operands &o, bool fused, bool odd);

static void check(op run, const char *what, int64_t hidden, int n, uint32_t seed, bool odd)
{
    a_stream stream;
    operands want(seed, hidden, n), got(seed, hidden, n);
    run(stream, want, false, odd);
    expect_done(cudaStreamSynchronize(stream));
    card_reseed(seed * 31 + (uint32_t)n);
    unsigned long long before = card_launches();
    run(stream, got, true, odd);
    expect_done(cudaStreamSynchronize(stream));
    cr_assert_eq(card_launches() - before, n > 0, "%s: %llu launches", what, card_launches() - before);
    expect_same_bits(got, want, what);
}

static void check_all(op run, const char *what)
{
    static const int64_t widths[] = {32, 100, 101, 256, 260, 1000, 2048, 2052, 2300, 2560, 3072};
    for (int mode = 0; mode < CARD_MODES; mode++)
        for (size_t w = 0; w < sizeof widths / sizeof *widths; w++) {
            card_insert((card_mode)mode, (uint64_t)mode + w);
            int n = 1 + (int)(w * 7 + (size_t)mode * 3) % 16;
            check(run, what, widths[w], n, (uint32_t)(w + 100), false);
            check(run, what, widths[w], 1 + n % 3, (uint32_t)(w + 200), w % 2);
        }
    card_insert(CARD_ANY, 3);
    for (int n = 0; n <= PL_FUSED_ROWS; n++)
        check(run, what, 256, n, (uint32_t)(300 + n), false);
}

Test(fused_rows, predict_of_the_first_layer)
{
    check_all(predict_first, "predict");
}

Test(fused_rows, predict_after_ple_add)
{
    check_all(predict_after_ple, "ple_add, predict");
}

Test(fused_rows, altup_correct)
{
    check_all(correct, "altup_correct");
    check_all(correct_unscaled, "altup_correct without scale");
}

Test(fused_rows, attn_residual)
{
    check_all(residual, "attn_residual");
}

Test(fused_rows, too_wide_is_refused)
{
    card_insert(CARD_EAGER, 0);
    a_stream stream;
    operands o(1, 32, 1);
    pl_rows rows = {1, nullptr, nullptr, nullptr};
    pl_altup altup = {};
    pl_streams wide = {nullptr, room, PL_CUDA_MAX_HIDDEN + 1};
    cr_assert_eq(
        pl_cuda_fused_predict(stream, wide, nullptr, &o.act, wide, nullptr, nullptr, &rows, &altup, nullptr, eps),
        cudaErrorInvalidValue);
    cr_assert_eq(
        pl_cuda_fused_altup_correct(stream, wide, nullptr, nullptr, &o.act, nullptr, wide, &rows, &altup, nullptr, eps),
        cudaErrorInvalidValue);
    cr_assert_eq(pl_cuda_fused_attn_residual(stream, nullptr, nullptr, &o.act, nullptr, nullptr, nullptr, nullptr,
                                             nullptr, nullptr, nullptr, 1, PL_CUDA_MAX_HIDDEN + 1, eps),
                 cudaErrorInvalidValue);
}
