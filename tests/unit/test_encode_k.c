#include <criterion/criterion.h>
#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "host/base/cpu.h"
#include "host/base/rng.h"
#include "quant/encode_parts.h"
#include "tests/unit/encoded.h"

#define BLOCK 256
#define F16_MOST 65504.0f
#define MAX_BYTES 210 /* of a block */

typedef struct k_case {
    pl_dtype type;
    encode_fn encode;
    int group; /* values */
    int lowest_code, highest_code, lowest_scale, highest_scale;
    double share; /* of the error of plain rounding, on average over kinds of input */
} k_case;

static const k_case cases[] = {
    {PL_Q2_K, pl_encode_k_min_base, 16, 0, 3, 0, 15, 0.402},
    {PL_Q3_K, pl_encode_k_scale_base, 16, -4, 3, -32, 31, 0.626},
    {PL_Q4_K, pl_encode_k_min_base, 32, 0, 15, 0, 63, 0.623},
    {PL_Q5_K, pl_encode_k_min_base, 32, 0, 31, 0, 63, 0.647},
    {PL_Q6_K, pl_encode_k_scale_base, 16, -32, 31, -128, 127, 0.681},
};
#define CASES (sizeof cases / sizeof cases[0])

static const char *name_of(const k_case *c)
{
    return pl_dtype_describe((int)c->type)->name;
}

/* ---- input --------------------------------------------------------------------------------------- */

static float uniform(pl_rng *rng)
{
    return (float)(2 * pl_rng_uniform(rng) - 1);
}

static float normal(pl_rng *rng)
{
    float sum = 0;
    for (int i = 0; i < 12; i++)
        sum += uniform(rng);
    return sum / 2;
}

static int between(pl_rng *rng, int low, int high)
{
    return low + (int)(pl_rng_uniform(rng) * (high - low + 1));
}

enum { NORMAL, HEAVY_TAILS, OUTLIERS, SHIFTED, UNEQUAL_GROUPS, KINDS };

static void fill(int kind, float *x, int n)
{
    pl_rng rng;
    pl_rng_seed(&rng, 7 + (uint64_t)kind);
    float size = 1;
    for (int i = 0; i < n; i++) {
        if (kind == UNEQUAL_GROUPS && i % 16 == 0)
            size = expf(2 * uniform(&rng));
        float v = normal(&rng) * size;
        v = kind == HEAVY_TAILS ? v * fabsf(v) : v;
        v = kind == OUTLIERS && pl_rng_uniform(&rng) < 0.01 ? 20 * v : v;
        x[i] = 0.02f * (kind == SHIFTED ? v - 2 : v);
    }
}

static void fill_weights(float *w, int n)
{
    pl_rng rng;
    pl_rng_seed(&rng, 99);
    for (int i = 0; i < n; i++)
        w[i] = expf(1.5f * normal(&rng));
}

/* ---- help ---------------------------------------------------------------------------------------- */

static void pass_through(const k_case *c, const float *x, const float *w, float *y, int n)
{
    encode_decode(c->encode, c->type, x, w, y, n);
}

static float rounded(float v)
{
    return pl_f16_to_f32(pl_f32_to_f16(v));
}

static float clamped(float v, int low, int high)
{
    return fminf(fmaxf(roundf(v), (float)low), (float)high);
}

/* What anyone would write first: of each group the range, of each block the largest of the ranges. */
static void plain_codes(const k_case *c, const float *x, float *y)
{
    int groups = BLOCK / c->group, has_low = c->lowest_code == 0;
    float step[16], low[16], most_step = 0, most_low = 0;
    for (int g = 0; g < groups; g++) {
        float least = 0, most = 0;
        for (int i = 0; i < c->group; i++) {
            least = fminf(least, x[c->group * g + i]);
            most = fmaxf(most, x[c->group * g + i]);
        }
        low[g] = has_low ? -least : 0;
        step[g] = has_low ? (most - least) / (float)c->highest_code
                          : fmaxf(most / (float)c->highest_code, least / (float)c->lowest_code);
        most_step = fmaxf(most_step, step[g]);
        most_low = fmaxf(most_low, low[g]);
    }
    float d = rounded(most_step / (float)c->highest_scale), dmin = rounded(most_low / (float)c->highest_scale);
    for (int i = 0; i < BLOCK; i++) {
        int g = i / c->group;
        float s = d > 0 ? d * clamped(step[g] / d, c->lowest_scale, c->highest_scale) : 0;
        float l = dmin > 0 ? dmin * clamped(low[g] / dmin, c->lowest_scale, c->highest_scale) : 0;
        y[i] = s * (s > 0 ? clamped((x[i] + l) / s, c->lowest_code, c->highest_code) : 0) - l;
    }
}

/* ---- quality ------------------------------------------------------------------------------------- */

/* Values of a block with scales of the full range, and both ends of the codes in each group. */
static void representable(const k_case *c, pl_rng *rng, float *x)
{
    float d = rounded(0.001f + 0.1f * (float)pl_rng_uniform(rng));
    float dmin = rounded(0.001f + 0.1f * (float)pl_rng_uniform(rng));
    for (int g = 0; g < BLOCK / c->group; g++) {
        int scale = between(rng, c->highest_scale / 3, c->highest_scale), minimum = between(rng, 0, c->highest_scale);
        scale = g == 0 ? c->highest_scale : scale;
        if (c->lowest_scale < 0)
            scale = g == 0 ? c->lowest_scale : g & 1 ? -scale : scale;
        minimum = c->lowest_scale < 0 ? 0 : g == 0 ? c->highest_scale : minimum;
        for (int i = 0; i < c->group; i++) {
            int code = between(rng, c->lowest_code, c->highest_code);
            code = i == 0 ? c->lowest_code : i == 1 ? c->highest_code : code;
            x[c->group * g + i] = d * (float)scale * (float)code - dmin * (float)minimum;
        }
    }
}

Test(encode_k, values_of_a_block_come_back)
{
    pl_rng rng;
    pl_rng_seed(&rng, 3);
    float x[BLOCK], y[BLOCK];
    for (size_t k = 0; k < CASES; k++)
        for (int round = 0; round < 50; round++) {
            representable(&cases[k], &rng, x);
            pass_through(&cases[k], x, NULL, y, BLOCK);
            for (int i = 0; i < BLOCK; i++)
                cr_assert_eq(x[i], y[i], "%s, block %d: value %d is %.9g, was %.9g", name_of(&cases[k]), round, i,
                             (double)y[i], (double)x[i]);
        }
}

/* The error over that of plain rounding, of all blocks and of the worst. */
static double compare_with_plain(const k_case *c, int kind, const float *w, double *worst)
{
    enum { N = 64 * BLOCK };
    static float x[N], y[N];
    float plain[BLOCK];
    double ours = 0, others = 0;
    fill(kind, x, N);
    pass_through(c, x, w, y, N);
    for (int i = 0; i < N; i += BLOCK) {
        plain_codes(c, x + i, plain);
        double error = error_of(x + i, y + i, w ? w + i : NULL, BLOCK);
        double limit = error_of(x + i, plain, w ? w + i : NULL, BLOCK);
        *worst = fmax(*worst, error / limit);
        ours += error;
        others += limit;
    }
    return ours / others;
}

Test(encode_k, error_is_well_below_that_of_plain_rounding)
{
    enum { N = 64 * BLOCK };
    static float w[N];
    fill_weights(w, N);
    for (size_t k = 0; k < CASES; k++) {
        double sum = 0, worst = 0;
        for (int kind = 0; kind < KINDS; kind++)
            sum += compare_with_plain(&cases[k], kind, NULL, &worst) + compare_with_plain(&cases[k], kind, w, &worst);
        cr_assert_leq(sum / (2 * KINDS), cases[k].share, "%s: %g", name_of(&cases[k]), sum / (2 * KINDS));
        cr_assert_leq(worst, 1.1, "%s: %g", name_of(&cases[k]), worst);
    }
}

Test(encode_k, weights_count)
{
    enum { N = 16 * BLOCK };
    static float x[N], w[N], even[N], y[N];
    fill(NORMAL, x, N);
    fill_weights(w, N);
    for (size_t k = 0; k < CASES; k++) {
        pass_through(&cases[k], x, NULL, even, N);
        pass_through(&cases[k], x, w, y, N);
        cr_assert_lt(error_of(x, y, w, N), 0.95 * error_of(x, even, w, N), "%s", name_of(&cases[k]));
        cr_assert_gt(error_of(x, y, NULL, N), error_of(x, even, NULL, N), "%s", name_of(&cases[k]));
    }
}

Test(encode_k, only_the_proportion_of_weights_counts)
{
    enum { N = 4 * BLOCK };
    static float x[N], w[N], scaled[N], expected[N], y[N];
    fill(HEAVY_TAILS, x, N);
    fill_weights(w, N);
    for (size_t k = 0; k < CASES; k++) {
        pass_through(&cases[k], x, w, expected, N);
        for (int exponent = -90; exponent <= 110; exponent += 100) {
            for (int i = 0; i < N; i++)
                scaled[i] = ldexpf(w[i], exponent);
            pass_through(&cases[k], x, scaled, y, N);
            cr_assert_arr_eq(y, expected, sizeof y, "%s, 2^%d", name_of(&cases[k]), exponent);
        }
    }
}

/* ---- instruction sets ---------------------------------------------------------------------------- */

static void same_bytes(const char *isa, encode_fn k_min, encode_fn k_scale)
{
    enum { N = 16 * BLOCK };
    static float x[N], w[N];
    static unsigned char expected[16 * MAX_BYTES], got[16 * MAX_BYTES + 1];
    fill_weights(w, N);
    for (size_t k = 0; k < CASES; k++)
        for (int kind = 0; kind < 2 * KINDS; kind++) {
            const float *weight = kind < KINDS ? NULL : w;
            fill(kind % KINDS, x, N);
            cases[k].encode(cases[k].type, x, weight, expected, N);
            encode_fn encode = cases[k].lowest_code == 0 ? k_min : k_scale;
            encode(cases[k].type, x, weight, got + 1, N); /* any alignment */
            cr_assert_arr_eq(got + 1, expected, pl_dtype_bytes(cases[k].type, N), "%s, %s, kind %d", isa,
                             name_of(&cases[k]), kind);
        }
}

Test(encode_k, every_instruction_set_gives_the_same_bytes)
{
    same_bytes("base", pl_encode_k_min_base, pl_encode_k_scale_base);
#if defined(__x86_64__)
    unsigned features = pl_cpu_features(PL_CPU_ALL);
    if (features & PL_CPU_AVX2)
        same_bytes("avx2", pl_encode_k_min_avx2, pl_encode_k_scale_avx2);
    if (features & PL_CPU_AVX512)
        same_bytes("avx512", pl_encode_k_min_avx512, pl_encode_k_scale_avx512);
#endif
}

/* ---- odd input ----------------------------------------------------------------------------------- */

Test(encode_k, zeros_stay_zeros)
{
    float x[BLOCK] = {0}, y[BLOCK];
    x[3] = -0.0f;
    for (size_t k = 0; k < CASES; k++) {
        pass_through(&cases[k], x, NULL, y, BLOCK);
        pass_through(&cases[k], x, x, y, BLOCK);
        for (int i = 0; i < BLOCK; i++)
            cr_assert_eq(y[i], 0.0f, "%s", name_of(&cases[k]));
    }
}

/* The scale of a block is off by 2^-11 of it at most, or by half of the smallest f16. */
Test(encode_k, constants_are_as_good_as_f16)
{
    const float constants[] = {1, -1, 0.0123f, -0.0123f, 3e4f, -3e4f, 1e-3f, -1e-3f, 0.3f, -0.7f};
    float x[BLOCK], y[BLOCK];
    for (size_t k = 0; k < CASES; k++)
        for (size_t c = 0; c < sizeof constants / sizeof constants[0]; c++) {
            for (int i = 0; i < BLOCK; i++)
                x[i] = constants[c];
            pass_through(&cases[k], x, NULL, y, BLOCK);
            float limit = 0x1p-11f * fabsf(constants[c]);
            limit = fmaxf(limit, 0x1p-25f * (float)(cases[k].highest_scale * cases[k].highest_code));
            for (int i = 0; i < BLOCK; i++)
                cr_assert_leq(fabsf(y[i] - x[i]), limit, "%s: %g becomes %g", name_of(&cases[k]), (double)x[i],
                              (double)y[i]);
        }
}

Test(encode_k, huge_values_become_the_largest_there_are)
{
    float x[BLOCK], y[BLOCK];
    const float huge[] = {1e30f, FLT_MAX, -1e30f, -FLT_MAX};
    for (size_t k = 0; k < CASES; k++)
        for (size_t h = 0; h < 4; h++) {
            const k_case *c = &cases[k];
            float ends = (float)c->highest_scale * F16_MOST;
            float most = ends * (float)c->highest_code, least = -ends;
            if (c->lowest_code < 0)
                least = -(most = (float)(c->lowest_scale * c->lowest_code) * F16_MOST);
            fill(NORMAL, x, BLOCK);
            x[77] = huge[h];
            pass_through(c, x, NULL, y, BLOCK);
            cr_assert_eq(y[77], huge[h] > 0 ? most : least, "%s: %g becomes %g", name_of(c), (double)x[77],
                         (double)y[77]);
        }
}

/* Steps below the smallest f16 are what no choice of scales can help. */
Test(encode_k, tiny_values_use_the_smallest_scales)
{
    enum { N = 4 * BLOCK };
    static float x[N], y[N];
    const float sizes[] = {1e-4f, 1e-5f, 1e-6f, 1e-7f, 1e-9f, 1e-20f, 1e-38f, 1e-42f};
    for (size_t k = 0; k < CASES; k++)
        for (size_t s = 0; s < sizeof sizes / sizeof sizes[0]; s++) {
            fill(NORMAL, x, N);
            for (int i = 0; i < N; i++)
                x[i] *= sizes[s] / 0.02f;
            pass_through(&cases[k], x, NULL, y, N);
            for (int i = 0; i < N; i++) {
                float limit = sizes[s] * 8 / (float)(cases[k].highest_code - cases[k].lowest_code) + 0x1p-25f;
                cr_assert_leq(fabsf(x[i] - y[i]), limit, "%s: %g becomes %g", name_of(&cases[k]), (double)x[i],
                              (double)y[i]);
            }
        }
}

Test(encode_k, values_without_weight_are_still_values)
{
    enum { N = 8 * BLOCK };
    static float x[N], w[N], y[N], zeros[N];
    for (size_t k = 0; k < CASES; k++)
        for (int kind = 0; kind < 4; kind++) {
            fill(NORMAL, x, N);
            for (int i = 0; i < N; i++) /* none, one of a block, one group of a block, one value of each group */
                w[i] = kind == 0 ? 0 : kind == 1 ? i % BLOCK == 9 : kind == 2 ? i % BLOCK < 32 : i % 16 == 5;
            pass_through(&cases[k], x, w, y, N);
            cr_assert_lt(error_of(x, y, NULL, N), 0.3 * error_of(x, zeros, NULL, N), "%s, kind %d", name_of(&cases[k]),
                         kind);
        }
}

/* Bits of any finite floats: nothing may overflow on the way. */
Test(encode_k, any_finite_floats_encode)
{
    enum { N = 32 * BLOCK };
    static float x[N], w[N], y[N];
    pl_rng rng;
    pl_rng_seed(&rng, 21);
    for (int round = 0; round < 8; round++) {
        for (int i = 0; i < N; i++) {
            int wild = i / BLOCK % 4 == 0 ? 270 : 40;
            x[i] = ldexpf(uniform(&rng), between(&rng, -wild / 2, wild / 2) - i / BLOCK % 3 * 10);
            w[i] = ldexpf(fabsf(uniform(&rng)), between(&rng, -120, 120));
            x[i] = isfinite(x[i]) ? x[i] : FLT_MAX;
        }
        for (size_t k = 0; k < CASES; k++) {
            pass_through(&cases[k], x, NULL, y, N);
            pass_through(&cases[k], x, w, y, N);
        }
    }
}
