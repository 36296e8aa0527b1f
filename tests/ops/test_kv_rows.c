#include "host/base/cpu.h"
#include "host/cpu/kv_rows.h"
#include "quant/blocks.h"
#include "tests/ops/ops_fixture.h"

#include <criterion/criterion.h>
#include <float.h>
#include <stdlib.h>
#include <string.h>

typedef struct isa {
    const char *name;
    unsigned needs;
    void (*put)(pl_cache_type type, void *page, int row, const float *x, int dim);
    void (*get)(pl_cache_type type, const void *page, int first, int n, int dim, float *out, const void *next);
} isa;

static const isa isas[] = {
    {"base", 0, pl_kv_put_base, pl_kv_get_base},
#if defined(__x86_64__)
    {"avx2", PL_CPU_AVX2, pl_kv_put_avx2, pl_kv_get_avx2},
    {"avx512", PL_CPU_AVX512_VNNI, pl_kv_put_avx512, pl_kv_get_avx512},
#endif
};

#define ISAS (sizeof isas / sizeof *isas)

static const int dims[] = {1, 16, 20, 32, 33, 250, 256, 320, 512};

#define DIMS (sizeof dims / sizeof *dims)

static bool has(const isa *i)
{
    return (pl_cpu_features(PL_CPU_ALL) & i->needs) == i->needs;
}

/* The distance that one value may have from what is kept of it, in a group with this largest magnitude. q8_0: half a
 * step, the least f16 from largest / 127 on, and the roundings of x times its inverse. */
static double off_at_most(pl_cache_type type, double x, double largest)
{
    if (type == PL_CACHE_F16)
        return fmax(fabs(x) * 0x1p-11, 0x1p-25);
    double step = largest / 127 * (1 + 0x1p-10) + 0x1p-24;
    return step * (0.5 + 127 * 2 * UNIT);
}

static double largest_of_group(const float *x, int i, int dim)
{
    double largest = 0;
    for (int j = i / PL_KV_GROUP * PL_KV_GROUP; j < dim && j < (i / PL_KV_GROUP + 1) * PL_KV_GROUP; j++)
        largest = fmax(largest, fabs((double)x[j]));
    return largest;
}

/* Whole pages: each value within its bound, the same bytes and bits from all instruction sets, the rest untouched. */
static void check_pages(pl_cache_type type, int dim, double deviation)
{
    size_t bytes = pl_kv_head_bytes(type, dim);
    int64_t n = (int64_t)PL_KV_PAGE * dim;
    float *x = normals(n, deviation, (uint64_t)dim), *out = normals(n, 1, 1), *first = normals(n, 1, 2);
    char *page = malloc(bytes + 64), *first_page = malloc(bytes);
    cr_assert(page && first_page);
    for (size_t i = 0; i < ISAS; i++) {
        if (!has(&isas[i]))
            continue;
        memset(page, 0x5a, bytes + 64);
        for (int r = PL_KV_PAGE - 1; r >= 0; r--)
            isas[i].put(type, page, r, x + (int64_t)r * dim, dim);
        for (int e = 0; e < 64; e++)
            cr_assert_eq(page[bytes + (size_t)e], 0x5a, "%s writes behind the page", isas[i].name);
        isas[i].get(type, page, 0, 5, dim, out, NULL);
        isas[i].get(type, page, 5, PL_KV_PAGE - 5, dim, out + 5 * dim, page);
        for (int64_t k = 0; i == 0 && k < n; k++) {
            const float *row = x + k / dim * dim;
            double off = off_at_most(type, x[k], largest_of_group(row, (int)(k % dim), dim));
            cr_assert_leq(fabs((double)out[k] - (double)x[k]), off, "%s, %d values, %g of %g is kept as %g",
                          pl_cache_type_name(type), dim, x[k], largest_of_group(row, (int)(k % dim), dim), out[k]);
        }
        if (i == 0) {
            memcpy(first_page, page, bytes);
            memcpy(first, out, (size_t)n * sizeof *out);
        }
        cr_assert_eq(memcmp(page, first_page, bytes), 0, "%s keeps other bytes", isas[i].name);
        cr_assert_eq(memcmp(out, first, (size_t)n * sizeof *out), 0, "%s reads other values", isas[i].name);
    }
    free(x);
    free(out);
    free(first);
    free(page);
    free(first_page);
}

Test(kv_rows, no_value_is_further_than_half_a_step)
{
    static const double deviations[] = {1, 1e-3, 300, 1e-7, 1e-20};
    for (pl_cache_type type = PL_CACHE_F16; type <= PL_CACHE_Q8_0; type++)
        for (size_t d = 0; d < DIMS; d++)
            for (size_t s = 0; s < sizeof deviations / sizeof *deviations; s++)
                check_pages(type, dims[d], deviations[s]);
}

Test(kv_rows, bytes)
{
    cr_assert_eq(pl_kv_head_bytes(PL_CACHE_F32, 256), 64 * 256 * 4);
    cr_assert_eq(pl_kv_head_bytes(PL_CACHE_F16, 256), 64 * 256 * 2);
    cr_assert_eq(pl_kv_head_bytes(PL_CACHE_Q8_0, 256), 64 * (256 + 8 * 2));
    cr_assert_eq(pl_kv_head_bytes(PL_CACHE_Q8_0, 33), 64 * (33 + 2 * 2));
}

/* Of zeros zeros; the largest of a group comes back as it was where its step is one that f16 has. */
Test(kv_rows, exact_values)
{
    float x[64] = {0}, out[64];
    char page[PL_KV_PAGE * 68];
    for (size_t i = 0; i < ISAS; i++) {
        if (!has(&isas[i]))
            continue;
        memset(x, 0, sizeof x);
        isas[i].put(PL_CACHE_Q8_0, page, 7, x, 64);
        isas[i].get(PL_CACHE_Q8_0, page, 7, 1, 64, out, NULL);
        cr_assert_eq(memcmp(x, out, sizeof x), 0);
        for (int k = 0; k < 64; k++)
            x[k] = (float)(k % 32 * 8 - 127) / 64;
        isas[i].put(PL_CACHE_Q8_0, page, 63, x, 64);
        isas[i].get(PL_CACHE_Q8_0, page, 63, 1, 64, out, NULL);
        cr_assert_eq(memcmp(x, out, sizeof x), 0);
    }
}

/* A value that is not finite, or beyond an f16 scale, makes its group NaN and no other. */
Test(kv_rows, not_finite)
{
    static const float bad[] = {NAN, INFINITY, -INFINITY, FLT_MAX, -65520.0f * 127};
    float x[96], out[96];
    char page[PL_KV_PAGE * 102];
    for (size_t i = 0; i < ISAS; i++)
        for (size_t b = 0; has(&isas[i]) && b < sizeof bad / sizeof *bad; b++) {
            for (int k = 0; k < 96; k++)
                x[k] = (float)k;
            x[40] = bad[b];
            isas[i].put(PL_CACHE_Q8_0, page, 3, x, 96);
            isas[i].get(PL_CACHE_Q8_0, page, 3, 1, 96, out, NULL);
            for (int k = 0; k < 96; k++)
                cr_assert_eq(isnan(out[k]), k / 32 == 1, "%s: %g at 40, value %d", isas[i].name, bad[b], k);
        }
}
