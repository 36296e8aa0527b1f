/* What the tests on the card have in common. */
#ifndef PL_TESTS_CUDA_FIXTURE_HPP
#define PL_TESTS_CUDA_FIXTURE_HPP

#include "host/ops/matmul.h"
#include "tests/cuda/card.h"

#include <criterion/criterion.h>
#include <cuda_runtime_api.h>
#include <math.h>
#include <vector>

#define expect_done(call)                                                                                              \
    do {                                                                                                               \
        const cudaError_t expect_e = (call);                                                                           \
        cr_assert(expect_e == cudaSuccess, "%s: %s", #call, cudaGetErrorString(expect_e));                             \
    } while (0)

/* A vector on the card. */
template <class T> struct on_card {
    T *p = nullptr;
    size_t n;

    explicit on_card(size_t count) : n(count)
    {
        expect_done(cudaMalloc(reinterpret_cast<void **>(&p), n * sizeof(T)));
    }
    explicit on_card(const std::vector<T> &v) : on_card(v.size())
    {
        expect_done(cudaMemcpy(p, v.data(), n * sizeof(T), cudaMemcpyHostToDevice));
    }
    on_card(const on_card &) = delete;
    ~on_card()
    {
        cudaFree(p);
    }
    std::vector<T> get() const
    {
        std::vector<T> v(n);
        expect_done(cudaMemcpy(v.data(), p, n * sizeof(T), cudaMemcpyDeviceToHost));
        return v;
    }
};

struct a_stream {
    cudaStream_t s = nullptr;

    a_stream()
    {
        expect_done(cudaStreamCreateWithFlags(&s, cudaStreamNonBlocking));
    }
    a_stream(const a_stream &) = delete;
    ~a_stream()
    {
        cudaStreamDestroy(s);
    }
    operator cudaStream_t() const
    {
        return s;
    }
};

struct an_event {
    cudaEvent_t e = nullptr;

    an_event()
    {
        expect_done(cudaEventCreateWithFlags(&e, cudaEventDisableTiming));
    }
    an_event(const an_event &) = delete;
    ~an_event()
    {
        cudaEventDestroy(e);
    }
    operator cudaEvent_t() const
    {
        return e;
    }
};

/* Rows of activations as numbers, where there are, and as integers. */
static inline pl_act act_of(const float *f32, int64_t ld, int64_t cols, int64_t rows, int8_t *hi_lo, float *scale,
                            int32_t *sum)
{
    pl_act act = {};
    act.f32 = f32;
    act.ld = ld;
    act.cols = cols;
    act.blocks = (cols + PL_ACT_BLOCK - 1) / PL_ACT_BLOCK;
    act.rows = rows;
    act.hi_lo = hi_lo;
    act.scale = scale;
    act.sum = sum;
    return act;
}

/* The same numbers on every machine, in [-1, 1). */
static inline float a_number(uint32_t *state)
{
    *state = *state * 1664525u + 1013904223u;
    return static_cast<float>(static_cast<int32_t>(*state >> 8) - (1 << 23)) / (1 << 23);
}

static inline std::vector<float> numbers(size_t n, uint32_t seed)
{
    std::vector<float> v(n);
    for (float &x : v)
        x = a_number(&seed);
    return v;
}

/* The largest difference; infinite where a value is none. */
static inline double furthest(const std::vector<float> &a, const std::vector<double> &b)
{
    double most = 0;
    for (size_t i = 0; i < a.size(); i++) {
        const double d = fabs(static_cast<double>(a[i]) - b[i]);
        most = d <= most ? most : d < 1e30 ? d : INFINITY;
    }
    return most;
}

#endif
