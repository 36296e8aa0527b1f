/* The CPU's matrix product by several threads: on every set of kernels the bits of one thread. What the bits must be is
 * test_matmul's; here ThreadSanitizer looks on, which makes each access to memory dear. */
#include "host/base/cpu.h"
#include "host/base/rng.h"
#include "host/cpu/matmul.h"
#include "host/cpu/pack.h"
#include "quant/encode.h"
#include "tests/ops/acts.h"

#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

static const unsigned levels[] = {0, PL_CPU_AVX2, PL_CPU_AVX2 | PL_CPU_AVX_VNNI,
                                  PL_CPU_ALL & ~(unsigned)PL_CPU_AMX_BF16, PL_CPU_ALL};
#define COUNT(a) (sizeof(a) / sizeof((a)[0]))

typedef struct team {
    pl_pool *one, *three;
} team;

static pl_pool *make_pool(int threads)
{
    pl_pool *pool;
    pl_error err;
    cr_assert_eq(pl_pool_create(threads, NULL, &pool, &err), PL_OK);
    return pool;
}

static float *random_values(int64_t n)
{
    pl_rng rng;
    pl_rng_seed(&rng, (uint64_t)n);
    float *x = act_room((size_t)n * sizeof *x);
    for (int64_t i = 0; i < n; i++)
        x[i] = (float)(2 * pl_rng_uniform(&rng) - 1);
    return x;
}

/* Random values as the type holds them. */
static pl_tensor make_tensor(pl_dtype type, int64_t rows, int64_t cols)
{
    float *values = random_values(rows * cols);
    void *data = act_room((size_t)rows * pl_dtype_bytes(type, cols));
    pl_encoder_select(0)->encode(type, values, NULL, data, rows * cols);
    free(values);
    return (pl_tensor){"t", data, rows, cols, type};
}

/* Two jobs of one call, as gate and up are. */
static void run(const pl_matmul_kernels *k, pl_pool *pool, const pl_weight *w, pl_act *x, int n_rows, float *out)
{
    if (w->packed)
        k->quantize(pool, x, n_rows);
    pl_matmul jobs[2];
    for (int i = 0; i < 2; i++)
        jobs[i] = (pl_matmul){.w = w, .x = x, .out = out + i * n_rows * w->rows, .out_ld = w->rows, .n_rows = n_rows};
    k->matmul(pool, jobs, 2);
}

static void check_tensor(const team *t, const pl_tensor *tensor, pl_act *x, int n_rows)
{
    pl_weight w;
    void *packed = act_room(pl_pack_bytes(tensor));
    size_t bytes = (size_t)(2 * n_rows * tensor->rows) * sizeof(float);
    float *want = act_room(bytes), *got = act_room(bytes);
    cr_assert_eq(pl_pack(t->three, tensor, packed, &w, NULL), PL_OK);
    const pl_matmul_kernels *last = NULL;
    for (size_t l = 0; l < COUNT(levels); l++) {
        const pl_matmul_kernels *k = pl_matmul_select(pl_cpu_features(levels[l]));
        if (k == last)
            continue;
        last = k;
        for (int rounded = 0; rounded < 2; rounded++) {
            x->rounded = rounded;
            run(k, t->one, &w, x, n_rows, want);
            memset(got, 0x77, bytes);
            run(k, t->three, &w, x, n_rows, got);
            cr_assert(memcmp(got, want, bytes) == 0, "%s, type %d, %lld x %lld, %d rows", k->name, (int)tensor->type,
                      (long long)tensor->rows, (long long)tensor->cols, n_rows);
        }
    }
    free(packed);
    free(want);
    free(got);
}

static void check(const team *t, pl_dtype type, int64_t rows, int64_t cols, int n_rows)
{
    pl_tensor tensor = make_tensor(type, rows, cols);
    float *values = random_values(n_rows * cols);
    pl_act x = act_open(values, cols, n_rows, cols, true);
    check_tensor(t, &tensor, &x, n_rows);
    act_close(&x);
    free(values);
    free((void *)(uintptr_t)tensor.data);
}

/* A row, a few, a tile and a part, so many that they are rounded where asked for, and more than one thread's blocks. */
Test(matmul_threads, give_the_bits_of_one)
{
    static const pl_dtype types[] = {PL_Q4_0, PL_Q8_0, PL_Q4_K, PL_Q6_K, PL_F32, PL_BF16};
    static const int n_rows[] = {1, 5, 19, 70};
    const team t = {make_pool(1), make_pool(3)};
    for (size_t i = 0; i < COUNT(types) * COUNT(n_rows); i++)
        check(&t, types[i / COUNT(n_rows)], 130, 256, n_rows[i % COUNT(n_rows)]);
    check(&t, PL_Q4_0, 20, 64, 600);
    check(&t, PL_Q4_0, 3500, 32, 300); /* both more than caches are asked to hold */
    pl_pool_free(t.one);
    pl_pool_free(t.three);
}
