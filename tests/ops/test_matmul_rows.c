/* The parts of the matrix product that work on whole rows: dot products of plain types, activations to integers. Each
 * instruction set gives the bits of plain C. */
#include "host/base/cpu.h"
#include "host/cpu/matmul_tile.h"
#include "tests/ops/ops_fixture.h"

#include <criterion/criterion.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#if defined(__x86_64__)

#define MOST_ROWS 101
#define MOST_COLS 2069
#define MOST_OUTPUTS 13

typedef void dot_fn(pl_dtype type, const char *w, size_t w_ld, int n_w, const float *x, int64_t x_ld, int n_x,
                    int64_t k, float *out, int64_t out_ld);
typedef void quantize_fn(const float *x, int64_t cols, int8_t *hi_lo, float *scale, int32_t *sum);

static void check_dot(dot_fn *dot, const char *isa, pl_dtype type, const char *w, const float *x)
{
    static const struct {
        int n_w, n_x, k;
    } sizes[] = {{13, 1, 100}, {13, 23, 33}, {13, 101, 64}, {8, 26, 1024}, {3, 25, MOST_COLS}, {9, 24, 1040}};
    static float want[MOST_ROWS * MOST_OUTPUTS], got[MOST_ROWS * MOST_OUTPUTS];
    size_t w_ld = pl_dtype_bytes(type, MOST_COLS);
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        memset(want, 1, sizeof want);
        memset(got, 1, sizeof got);
        pl_dot_base(type, w, w_ld, sizes[i].n_w, x, MOST_COLS, sizes[i].n_x, sizes[i].k, want, MOST_OUTPUTS);
        dot(type, w, w_ld, sizes[i].n_w, x, MOST_COLS, sizes[i].n_x, sizes[i].k, got, MOST_OUTPUTS);
        cr_assert(memcmp(want, got, sizeof want) == 0, "%s, type %d: %d x %d over %d", isa, (int)type, sizes[i].n_w,
                  sizes[i].n_x, sizes[i].k);
    }
}

Test(matmul_rows, dot_products)
{
    static const pl_dtype types[] = {PL_F32, PL_F16, PL_BF16};
    float *x = normals(MOST_ROWS * MOST_COLS, 1, 1), *w = normals(MOST_OUTPUTS * MOST_COLS, 1, 2);
    uint16_t *h = malloc(MOST_OUTPUTS * MOST_COLS * sizeof *h);
    cr_assert(h);
    for (int i = 0; i < MOST_OUTPUTS * MOST_COLS; i++)
        h[i] = (uint16_t)(0x3800 + 37 * i % 0x700 + (i % 3 == 0 ? 0x8000 : 0)); /* near 1 as either type */
    for (int t = 0; t < 3; t++) {
        const void *weights = types[t] == PL_F32 ? (const void *)w : h;
        if (pl_cpu_features(PL_CPU_ALL) & PL_CPU_AVX2)
            check_dot(pl_dot_avx2, "AVX2", types[t], weights, x);
        if (pl_cpu_features(PL_CPU_ALL) & PL_CPU_AVX512_VNNI)
            check_dot(pl_dot_avx512, "AVX-512", types[t], weights, x);
    }
    free(x);
    free(w);
    free(h);
}

static void check_quantize(quantize_fn *quantize, const char *isa, const float *x, int64_t cols)
{
    int8_t hi_lo[2][20 * 64] = {{0}};
    float scale[2][20] = {{0}};
    int32_t sum[2][40] = {{0}};
    pl_quantize_row_base(x, cols, hi_lo[0], scale[0], sum[0]);
    quantize(x, cols, hi_lo[1], scale[1], sum[1]);
    for (int b = 0; b < 20; b++)
        cr_assert(memcmp(&scale[0][b], &scale[1][b], sizeof scale[0][b]) == 0 ||
                      (isnan(scale[0][b]) && isnan(scale[1][b])),
                  "%s: block %d's scale is %g, elsewhere %g", isa, b, scale[1][b], scale[0][b]);
    cr_assert(memcmp(hi_lo[0], hi_lo[1], sizeof hi_lo[0]) == 0 && memcmp(sum[0], sum[1], sizeof sum[0]) == 0, "%s",
              isa);
}

/* In turn all blocks ordinary, and one of them not. */
Test(matmul_rows, integers)
{
    enum { KINDS = 9 };
    static const float odd[KINDS] = {1, NAN, INFINITY, -INFINITY, 0, 0x1p-101f, 0x1p-120f, 0x1p-149f, 3e38f};
    float *x = normals(20 * 32, 3, 3);
    for (size_t i = 0; i < 9 * KINDS; i++) {
        float row[20 * 32];
        memcpy(row, x, sizeof row);
        for (int k = 0; k < 32; k++)
            row[i / KINDS * 32 + (size_t)k] = k == 7 || odd[i % KINDS] == 0 ? odd[i % KINDS]
                                                                            : x[k] * fminf(1, fabsf(odd[i % KINDS]));
        for (int64_t cols = 600; cols <= 640; cols += 20) {
            if (pl_cpu_features(PL_CPU_ALL) & PL_CPU_AVX2)
                check_quantize(pl_quantize_row_avx2, "AVX2", row, cols);
            if (pl_cpu_features(PL_CPU_ALL) & PL_CPU_AVX512_VNNI)
                check_quantize(pl_quantize_row_avx512, "AVX-512", row, cols);
        }
    }
    free(x);
}

#endif
