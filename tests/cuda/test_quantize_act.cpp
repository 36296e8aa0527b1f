/* Activations to integers on the card: the CPU's bits, and nothing beyond them. */
extern "C" {
#include "host/base/rng.h"
#include "host/cpu/matmul.h"
}
#include "cuda/kernels.h"
#include "tests/cuda/fixture.hpp"

#include <cmath>
#include <cstring>

static const size_t guard = 5;

struct integers {
    std::vector<int8_t> hi_lo;
    std::vector<float> scale;
    std::vector<int32_t> sum;

    explicit integers(size_t blocks)
        : hi_lo(blocks * 64 + guard, 99), scale(blocks + guard, 99), sum(2 * blocks + guard, 99)
    {
    }
};

/* Ordinary values, with a block of zeros, of those about the least that counts; ties; and what is not finite. */
static std::vector<float> values(int rows, int64_t ld, uint64_t seed)
{
    static const float odd[] = {0, -0.0f, 0x1p-149f, 0x1p-101f, 0x1p-100f, 3e38f, -3e38f, INFINITY, -INFINITY, NAN};
    pl_rng rng;
    pl_rng_seed(&rng, seed);
    std::vector<float> x((size_t)(rows * ld));
    for (size_t i = 0; i < x.size(); i++) {
        size_t block = i / 32 % 13;
        x[i] = (float)(2 * pl_rng_uniform(&rng) - 1) * (block == 3 ? 0x1p-103f : block == 5 ? 0.0f : 7.0f);
        if (block == 7)
            x[i] = (float)(i % 32) * 0.5f - 8128 * (i % 32 == 31); /* the largest is 8112.5: ties all over */
        if (block == 3 && i % 32 == 9)
            x[i] = i / 32 % 2 ? 0x1p-100f : -0x1.fffffep-101f;
        if (block % 4 == 2 && i % 32 == 9)
            x[i] = odd[pl_rng_next(&rng) % (sizeof odd / sizeof odd[0])];
    }
    return x;
}

static bool same_floats(const std::vector<float> &a, const std::vector<float> &b)
{
    for (size_t i = 0; i < a.size(); i++)
        if (memcmp(&a[i], &b[i], sizeof a[i]) != 0 && !(std::isnan(a[i]) && std::isnan(b[i])))
            return false;
    return true;
}

static void check(pl_pool *pool, cudaStream_t stream, int rows, int64_t cols, int64_t ld)
{
    int64_t blocks = (cols + 31) / 32;
    std::vector<float> x = values(rows, ld, (uint64_t)(rows * 10000 + cols));
    integers want((size_t)(rows * blocks));
    pl_act act = act_of(x.data(), ld, cols, 0, want.hi_lo.data(), want.scale.data(), want.sum.data());
    pl_matmul_select(0)->quantize(pool, &act, rows);
    integers got((size_t)(rows * blocks));
    on_card<float> card_x(x), card_scale(got.scale);
    on_card<int8_t> card_hi_lo(got.hi_lo);
    on_card<int32_t> card_sum(got.sum);
    pl_act card = act_of(card_x.p, ld, cols, 0, card_hi_lo.p, card_scale.p, card_sum.p);
    expect_done(pl_cuda_quantize(stream, &card, rows));
    expect_done(cudaStreamSynchronize(stream));
    cr_assert(card_hi_lo.get() == want.hi_lo, "codes of %d x %lld", rows, (long long)cols);
    cr_assert(card_sum.get() == want.sum, "sums of %d x %lld", rows, (long long)cols);
    cr_assert(same_floats(card_scale.get(), want.scale), "scales of %d x %lld", rows, (long long)cols);
}

Test(quantize_act, gives_the_bits_of_the_cpu)
{
    static const int64_t widths[] = {1, 31, 32, 33, 64, 250, 256, 257, 512, 1000, 2048, 2080};
    card_insert(CARD_ANY, 7);
    pl_pool *pool;
    pl_error err;
    cr_assert_eq(pl_pool_create(1, nullptr, &pool, &err), PL_OK);
    {
        a_stream stream;
        for (int64_t cols : widths)
            for (int rows = 0; rows <= 17; rows += rows < 3 ? 1 : 14) {
                card_reseed((uint64_t)(cols + rows));
                check(pool, stream, rows, cols, cols);
                check(pool, stream, rows, cols, cols + 3);
            }
    }
    pl_pool_free(pool);
}
