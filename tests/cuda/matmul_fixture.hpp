/* Matrices and their operands for tests on the card: random ones of all types, in the CPU's layout and on the card. */
#ifndef PL_TESTS_CUDA_MATMUL_FIXTURE_HPP
#define PL_TESTS_CUDA_MATMUL_FIXTURE_HPP

extern "C" {
#include "host/base/rng.h"
#include "host/cpu/matmul.h"
#include "host/cpu/pack.h"
#include "host/cpu/panel.h"
}
#include "cuda/kernels.h"
#include "tests/cuda/fixture.hpp"
#include "tests/ops/block_scales.h"

#include <cmath>
#include <cstring>
#include <memory>

typedef std::vector<float> floats;
typedef std::vector<int32_t> ints;
typedef std::vector<uint8_t> bytes;

static const pl_dtype block_types[] = {PL_Q4_0, PL_Q4_1, PL_Q5_0, PL_Q5_1,   PL_Q8_0,   PL_Q2_K,  PL_Q3_K,
                                       PL_Q4_K, PL_Q5_K, PL_Q6_K, PL_IQ4_NL, PL_IQ4_XS, PL_MXFP4, PL_NVFP4};
static const pl_dtype plain_types[] = {PL_F32, PL_F16, PL_BF16};

#define UNTOUCHED 12345.0f

/* ---- weights */

static inline float uniform(pl_rng *rng)
{
    return (float)(2 * pl_rng_uniform(rng) - 1);
}

static inline int block_elems(pl_dtype type)
{
    return pl_dtype_describe((int)type)->block_elems;
}

static inline void fill_blocks(pl_rng *rng, pl_dtype type, bytes &data)
{
    size_t block_bytes = (size_t)pl_dtype_describe((int)type)->block_bytes;
    int at[2];
    scale_offsets(type, at);
    for (uint8_t &b : data)
        b = (uint8_t)pl_rng_next(rng);
    for (size_t b = 0; b < data.size(); b += block_bytes) {
        for (int i = 0; i < 2; i++) {
            uint16_t h = pl_f32_to_f16(uniform(rng) * 0.02f);
            if (at[i] >= 0)
                memcpy(&data[b + at[i]], &h, sizeof h);
        }
        if (type == PL_MXFP4 && pl_rng_next(rng) % 4)
            data[b] = (uint8_t)(115 + data[b] % 16);
        else if (type == PL_MXFP4)
            data[b] = (uint8_t)(data[b] % 4);
    }
}

static inline void fill_plain(pl_rng *rng, pl_dtype type, bytes &data)
{
    size_t size = (size_t)pl_dtype_describe((int)type)->block_bytes;
    for (size_t i = 0; i < data.size(); i += size) {
        float f = uniform(rng);
        uint32_t u;
        memcpy(&u, &f, sizeof u);
        uint16_t h = type == PL_BF16 ? (uint16_t)(u >> 16) : pl_f32_to_f16(f);
        if (type == PL_F32)
            memcpy(&data[i], &f, size);
        else
            memcpy(&data[i], &h, size);
    }
}

/* A matrix as a file has it, in the CPU's layout and on the card. */
struct matrix {
    bytes file, packed;
    pl_weight host = {}, card = {};
    std::unique_ptr<on_card<uint8_t>> copy;

    matrix(pl_pool *pool, pl_rng *rng, pl_dtype type, int64_t rows, int64_t cols)
    {
        file.resize((size_t)rows * pl_dtype_bytes(type, cols));
        if (block_elems(type) > 1)
            fill_blocks(rng, type, file);
        else
            fill_plain(rng, type, file);
        pl_tensor t = {"matrix", file.data(), rows, cols, type};
        packed.resize(pl_pack_bytes(&t));
        pl_error err;
        cr_assert_eq(pl_pack(pool, &t, packed.data(), &host, &err), PL_OK);
        copy.reset(new on_card<uint8_t>(packed.empty() ? file : packed));
        card = host;
        card.data = copy->p;
    }
    matrix(const matrix &) = delete;
};

/* ---- activations */

struct activations {
    floats x;
    std::vector<int8_t> hi_lo;
    floats scale;
    ints sum;
    pl_act host = {}, card = {};
    std::unique_ptr<on_card<float>> card_x, card_scale;
    std::unique_ptr<on_card<int8_t>> card_hi_lo;
    std::unique_ptr<on_card<int32_t>> card_sum;

    /* Rows of `from` from `first` on. */
    activations(pl_pool *pool, const floats &from, int first, int rows, int64_t cols, int64_t ld)
        : x(from.begin() + first * ld, from.begin() + (first + rows) * ld)
    {
        int64_t blocks = (cols + PL_ACT_BLOCK - 1) / PL_ACT_BLOCK;
        hi_lo.resize((size_t)(rows * blocks) * 2 * PL_ACT_BLOCK);
        scale.resize((size_t)(rows * blocks));
        sum.resize((size_t)(rows * blocks) * 2);
        host = act_of(x.data(), ld, cols, rows, hi_lo.data(), scale.data(), sum.data());
        pl_matmul_select(0)->quantize(pool, &host, rows);
        card_x.reset(new on_card<float>(x));
        card_hi_lo.reset(new on_card<int8_t>(hi_lo));
        card_scale.reset(new on_card<float>(scale));
        card_sum.reset(new on_card<int32_t>(sum));
        card = act_of(card_x->p, ld, cols, rows, card_hi_lo->p, card_scale->p, card_sum->p);
    }
    activations(const activations &) = delete;
};

/* ---- cases */

/* Widths in steps, as paths of different sizes give. */
struct widths {
    ints out, in;

    widths(pl_dtype type, int64_t rows, int64_t cols, int n)
    {
        int elems = block_elems(type) < PL_GROUP ? 1 : block_elems(type);
        for (int i = 0; i < n; i++) {
            out.push_back((int32_t)(rows - rows * (i / 3) / (n / 3 + 1)));
            in.push_back((int32_t)((cols / elems - cols / elems * (i / 4) / (n / 4 + 1)) * elems));
        }
    }
};

/* A fresh card; each launch has an order of threads and blocks of its own. */
struct matmul_fixture {
    pl_pool *pool = nullptr;
    pl_rng rng;
    a_stream stream;

    explicit matmul_fixture(uint64_t seed)
    {
        pl_error err;
        cr_assert_eq(pl_pool_create(1, nullptr, &pool, &err), PL_OK);
        pl_rng_seed(&rng, seed);
        card_reseed(seed);
    }
    matmul_fixture(const matmul_fixture &) = delete;
    ~matmul_fixture()
    {
        pl_pool_free(pool);
    }
};

/* Rows of x; behind a row's width it holds what is not a number. */
static inline floats make_rows(pl_rng *rng, int n, int64_t cols, int64_t ld, const widths *w)
{
    floats x((size_t)(n * ld));
    for (int i = 0; i < n; i++)
        for (int64_t k = 0; k < ld; k++)
            x[(size_t)(i * ld + k)] = k >= (w ? w->in[(size_t)i] : cols) ? NAN : uniform(rng) * (k % 37 ? 1.0f : 30.0f);
    return x;
}

#endif
