#include <criterion/criterion.h>
#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "host/base/cpu.h"
#include "quant/encode.h"
#include "tests/unit/encoded.h"

static const pl_dtype types[] = {PL_F32,  PL_F16,  PL_BF16,   PL_Q4_0,   PL_Q4_1,  PL_Q5_0,
                                 PL_Q5_1, PL_Q8_0, PL_IQ4_NL, PL_IQ4_XS, PL_MXFP4, PL_NVFP4};
#define N_TYPES (sizeof types / sizeof types[0])
#define FIRST_BLOCK_TYPE 3
#define N 5120 /* whole blocks of all types, and at the end not as many as are encoded at once */

/* ---- input --------------------------------------------------------------------------------------------------- */

static uint32_t random_bits(uint32_t *state)
{
    *state = *state * 1664525u + 1013904223u;
    return *state >> 8;
}

static float uniform(uint32_t *state) /* (-1, 1) */
{
    return (float)random_bits(state) / 8388608.0f - 1;
}

static float normal(uint32_t *state)
{
    float sum = 0;
    for (int i = 0; i < 8; i++)
        sum += uniform(state);
    return sum * 0.6f;
}

enum { NORMAL, HEAVY_TAILS, OUTLIERS, SHIFTED, N_KINDS };

static void fill(int kind, float *x, int n)
{
    uint32_t state = 77u + (uint32_t)kind;
    for (int i = 0; i < n; i++) {
        float v = normal(&state);
        switch (kind) {
        case HEAVY_TAILS: v = v * v * v; break;
        case OUTLIERS: v *= random_bits(&state) % 100 ? 1 : 30; break;
        case SHIFTED: v += 1.5f; break;
        default: break;
        }
        x[i] = 0.02f * v;
    }
}

static void fill_weights(float *w, int n)
{
    uint32_t state = 5;
    for (int i = 0; i < n; i++)
        w[i] = 0.01f + powf(uniform(&state), 4);
}

/* ---- help ---------------------------------------------------------------------------------------------------- */

static const pl_encoder *fastest(void)
{
    return pl_encoder_select(pl_cpu_features(PL_CPU_ALL));
}

static const char *name_of(pl_dtype type)
{
    return pl_dtype_describe((int)type)->name;
}

/* ---- plain types --------------------------------------------------------------------------------------------- */

Test(encode, halves_are_the_nearest_and_finite)
{
    enum { COUNT = 70001 };
    float *x = malloc(COUNT * sizeof *x);
    uint16_t *got = malloc(COUNT * sizeof *got);
    uint32_t state = 1;
    for (int i = 0; i < COUNT; i++)
        x[i] = i < 65536 && (i >> 10 & 31) != 31 ? nextafterf(pl_f16_to_f32((uint16_t)i) * 1.00024414f, uniform(&state))
                                                 : ldexpf(uniform(&state), (int)(random_bits(&state) % 60) - 30);
    x[0] = 1e30f;
    x[1] = -65519.0f;
    fastest()->encode(PL_F16, x, NULL, got, COUNT);
    for (int i = 0; i < COUNT; i++) {
        uint16_t expected = pl_f32_to_f16(x[i]);
        if ((expected & 0x7fff) == 0x7c00)
            expected--;
        cr_assert_eq(got[i], expected, "%a", (double)x[i]);
    }
    cr_assert_eq(got[0], 0x7bff);
    cr_assert_eq(got[1], 0xfbff);
    free(x);
    free(got);
}

Test(encode, brain_floats_round_to_even_and_stay_finite)
{
    const float x[] = {1.0f,    0x1.01p0f, 0x1.010002p0f, 0x1.03p0f, -0x1.03p0f,
                       FLT_MAX, -FLT_MAX,  -0.0f,         1e-45f,    0x1p-133f};
    const uint16_t expected[] = {0x3f80, 0x3f80, 0x3f81, 0x3f82, 0xbf82, 0x7f7f, 0xff7f, 0x8000, 0x0000, 0x0001};
    unsigned char raw[1 + sizeof expected];
    uint16_t got[10];
    fastest()->encode(PL_BF16, x, NULL, raw + 1, 10); /* of any alignment */
    memcpy(got, raw + 1, sizeof got);
    for (int i = 0; i < 10; i++)
        cr_assert_eq(got[i], expected[i], "%a: %04x", (double)x[i], got[i]);
}

/* ---- blocks -------------------------------------------------------------------------------------------------- */

/* Blocks whose scales the largest value tells, with every code. */
static void fill_block(pl_dtype type, unsigned char *b, uint32_t *state)
{
    const pl_dtype_info *info = pl_dtype_describe((int)type);
    for (int i = 0; i < info->block_bytes; i++)
        b[i] = (unsigned char)random_bits(state);
    uint16_t d = pl_f32_to_f16(0.01f + fabsf(uniform(state))), m = pl_f32_to_f16(uniform(state));
    if (type != PL_MXFP4 && type != PL_NVFP4)
        memcpy(b, &d, 2);
    switch (type) {
    case PL_Q4_0: ((pl_block_q4_0 *)(void *)b)->q[3] = 0xf0; break;
    case PL_Q4_1:
    case PL_Q5_1: memcpy(b + 2, &m, 2); /* fallthrough */
    case PL_Q5_0:
        if (type == PL_Q4_1) {
            ((pl_block_q4_1 *)(void *)b)->q[3] = 0xf0;
        } else {
            unsigned char *high = b + (type == PL_Q5_1 ? 4 : 2), *q = high + 4;
            high[0] &= 0xf7; /* the value of 3 is the lowest, that of 19 the highest */
            high[2] |= 0x08;
            q[3] = 0xf0;
        }
        break;
    case PL_Q8_0:
        for (int i = 2; i < 34; i++)
            b[i] = b[i] == 0x80 ? 0 : b[i];
        b[9] = 0x81;
        break;
    case PL_IQ4_NL: b[7] = 0x50; break;
    case PL_IQ4_XS:
        b[4] &= 0xf0; /* the first group's scale is -32 */
        b[2] &= 0xfc;
        for (int group = 0; group < 8; group++)
            b[8 + 16 * group] = 0x70;
        break;
    case PL_MXFP4:
        b[0] = (uint8_t)(100 + b[0] % 50);
        b[5] = 0x7f;
        break;
    default:
        for (int i = 0; i < 4; i++) {
            b[i] = (uint8_t)(8 + b[i] % 119);
            b[4 + 8 * i] = 0xf7;
        }
    }
}

Test(encode, what_a_block_can_hold_comes_back)
{
    uint32_t state = 3;
    for (size_t t = FIRST_BLOCK_TYPE; t < N_TYPES; t++) {
        const pl_dtype_info *info = pl_dtype_describe((int)types[t]);
        for (int round = 0; round < 50; round++) {
            unsigned char block[256];
            float x[256], y[256], w[256];
            fill_block(types[t], block, &state);
            fill_weights(w, 256);
            pl_decode(types[t], block, x, info->block_elems);
            encode_decode(fastest()->encode, types[t], x, round % 2 ? w : NULL, y, info->block_elems);
            for (int i = 0; i < info->block_elems; i++)
                cr_assert_eq(x[i], y[i], "%s: value %d of block %d is %g, expected %g", info->name, i, round,
                             (double)y[i], (double)x[i]);
        }
    }
}

/* Values on the grid low + d * lo..hi nearest to x. */
static void nearest_on_line(const float *x, float d, float low, float lo, float hi, float *y, int n)
{
    for (int i = 0; i < n; i++)
        y[i] = low + d * fminf(fmaxf(d != 0 ? roundf((x[i] - low) / d) : 0, lo), hi);
}

static void nearest_in_table(const float *x, float d, const int8_t table[16], float *y, int n)
{
    for (int i = 0; i < n; i++) {
        y[i] = d * (float)table[0];
        for (int k = 1; k < 16; k++)
            if (fabsf(d * (float)table[k] - x[i]) < fabsf(y[i] - x[i]))
                y[i] = d * (float)table[k];
    }
}

/* The plainest choice of scales: so that the value farthest from zero, or the two ends, can be held. */
static void plain_group(pl_dtype type, const float *x, float *y, int n)
{
    float low = x[0], high = x[0];
    for (int i = 1; i < n; i++) {
        low = fminf(low, x[i]);
        high = fmaxf(high, x[i]);
    }
    float peak = high < -low ? low : high, size = fabsf(peak);
    int exponent;
    frexpf(size, &exponent);
    switch (type) {
    case PL_Q4_0: nearest_on_line(x, pl_f16_to_f32(pl_f32_to_f16(peak / -8)), 0, -8, 7, y, n); return;
    case PL_Q5_0: nearest_on_line(x, pl_f16_to_f32(pl_f32_to_f16(peak / -16)), 0, -16, 15, y, n); return;
    case PL_Q8_0: nearest_on_line(x, pl_f16_to_f32(pl_f32_to_f16(peak / 127)), 0, -127, 127, y, n); return;
    case PL_Q4_1:
    case PL_Q5_1: {
        float top = type == PL_Q4_1 ? 15 : 31, d = pl_f16_to_f32(pl_f32_to_f16((high - low) / top));
        nearest_on_line(x, d, pl_f16_to_f32(pl_f32_to_f16(low)), 0, top, y, n);
        return;
    }
    case PL_MXFP4: nearest_in_table(x, ldexpf(0.5f, exponent - 3), pl_e2m1_doubled, y, n); return;
    case PL_NVFP4: {
        int best = 0;
        for (int e = 1; e < 127; e++) {
            float wanted = size / 12, now = pl_nvfp4_half_scale((uint8_t)best);
            if (fabsf(pl_nvfp4_half_scale((uint8_t)e) - wanted) < fabsf(now - wanted))
                best = e;
        }
        nearest_in_table(x, pl_nvfp4_half_scale((uint8_t)best), pl_e2m1_doubled, y, n);
        return;
    }
    default: nearest_in_table(x, pl_f16_to_f32(pl_f32_to_f16(peak / -127)), pl_iq4_values, y, n); return;
    }
}

static int group_of(pl_dtype type)
{
    return type == PL_NVFP4 ? 16 : 32;
}

/* How much of the plain choice's error may be left over all values of a kind: what is known to be possible. */
static double allowed(pl_dtype type, int weighted)
{
    switch (type) {
    case PL_Q4_0:
    case PL_Q5_0: return weighted ? 0.92 : 0.99;
    case PL_Q4_1:
    case PL_Q5_1: return weighted ? 0.75 : 0.9;
    case PL_IQ4_NL: return weighted ? 0.9 : 0.99;
    case PL_IQ4_XS: return weighted ? 0.92 : 1;
    default: return weighted ? 0.97 : 0.99;
    }
}

static void check_against_plain(pl_dtype type, int kind, const float *w)
{
    static float x[N], y[N], plain[N];
    int n = group_of(type);
    fill(kind, x, N);
    encode_decode(fastest()->encode, type, x, w, y, N);
    for (int i = 0; i < N; i += n) {
        plain_group(type, x + i, plain + i, n);
        double mine = error_of(x + i, y + i, w ? w + i : NULL, n),
               theirs = error_of(x + i, plain + i, w ? w + i : NULL, n);
        if (type != PL_IQ4_NL && type != PL_IQ4_XS)
            cr_assert_leq(mine, theirs * 1.00001, "%s, values of kind %d, group %d: %g, plainly %g", name_of(type),
                          kind, i / n, mine, theirs);
    }
    double ratio = error_of(x, y, w, N) / error_of(x, plain, w, N);
    cr_assert_leq(ratio, allowed(type, w != NULL), "%s, values of kind %d%s: error %.4f of the plain one",
                  name_of(type), kind, w ? ", weighted" : "", ratio);
}

Test(encode, errors_are_below_those_of_the_plain_choice)
{
    static float w[N];
    fill_weights(w, N);
    for (size_t t = FIRST_BLOCK_TYPE; t < N_TYPES; t++)
        for (int kind = 0; kind < N_KINDS; kind++) {
            check_against_plain(types[t], kind, NULL);
            check_against_plain(types[t], kind, w);
        }
}

Test(encode, weights_count)
{
    static float x[N], w[N], y[N], unweighted[N];
    fill(HEAVY_TAILS, x, N);
    for (int i = 0; i < N; i++)
        w[i] = i % 16 == i / 16 % 16 ? 1e6f : 1;
    for (size_t t = FIRST_BLOCK_TYPE; t < N_TYPES; t++) {
        encode_decode(fastest()->encode, types[t], x, w, y, N);
        encode_decode(fastest()->encode, types[t], x, NULL, unweighted, N);
        double error = error_of(x, y, w, N), without = error_of(x, unweighted, w, N);
        /* MXFP4 has powers of two to choose from, NVFP4 a few scales, IQ4_XS steps of one; Q8_0 is good already. */
        double most = types[t] == PL_MXFP4 ? 0.95 : types[t] == PL_NVFP4 || types[t] == PL_IQ4_XS ? 0.4 : 0.1;
        if (types[t] == PL_Q8_0)
            most = 0.6;
        cr_assert_lt(error, most * without, "%s: %g, without weights %g", name_of(types[t]), error, without);
    }
}

Test(encode, one_heavy_value_is_kept)
{
    const pl_dtype exact[] = {PL_Q4_0, PL_Q4_1, PL_Q5_0, PL_Q5_1, PL_Q8_0, PL_IQ4_NL};
    float x[32], w[32], y[32];
    fill(NORMAL, x, 32);
    for (size_t t = 0; t < sizeof exact / sizeof exact[0]; t++)
        for (int heavy = 0; heavy < 32; heavy++) {
            for (int i = 0; i < 32; i++)
                w[i] = i == heavy ? 1e6f : 1;
            encode_decode(fastest()->encode, exact[t], x, w, y, 32);
            cr_assert_lt(fabsf(x[heavy] - y[heavy]), 0.0001f, "%s: %g became %g", name_of(exact[t]), (double)x[heavy],
                         (double)y[heavy]);
        }
}

Test(encode, what_has_no_weight_may_be_anything)
{
    static float x[N], w[N], y[N];
    for (size_t t = FIRST_BLOCK_TYPE; t < N_TYPES; t++)
        for (int others = 0; others < 2; others++) {
            fill(NORMAL, x, N);
            for (int i = 0; i < N; i++)
                w[i] = i % 7 != 0;
            for (int i = 0; i < N; i += 7)
                x[i] = others ? (i % 2 ? FLT_MAX : -FLT_MAX) : 0;
            encode_decode(fastest()->encode, types[t], x, w, y, N);
            double error = error_of(x, y, w, N), energy = error_of(x, (float[N]){0}, w, N);
            cr_assert_lt(error, 0.02 * energy, "%s: %g of %g", name_of(types[t]), error, energy);
        }
}

/* ---- extremes ------------------------------------------------------------------------------------------------ */

enum { ZEROS, ONE_HUGE, LARGEST, SMALLEST, SMALL_SCALES, SAME, SAME_NEGATIVE, FAR_SHIFTED, MIXED, N_EXTREMES };

static void fill_extreme(int kind, float *x, int n)
{
    uint32_t state = 9u + (uint32_t)kind;
    for (int i = 0; i < n; i++) {
        float v = normal(&state);
        switch (kind) {
        case ZEROS: x[i] = i % 3 ? 0.0f : -0.0f; break;
        case ONE_HUGE: x[i] = i % 64 == 5 ? 1e30f : v; break;
        case LARGEST: x[i] = i % 2 ? FLT_MAX : -FLT_MAX; break;
        case SMALLEST: x[i] = v * 1e-44f; break;
        case SMALL_SCALES: x[i] = v * 1e-6f; break;
        case SAME: x[i] = 0.37f; break;
        case SAME_NEGATIVE: x[i] = -1e5f; break;
        case FAR_SHIFTED: x[i] = 1000 + v; break;
        default: x[i] = ldexpf(v, (int)(random_bits(&state) % 240) - 120); break;
        }
    }
}

static void fill_extreme_weights(int kind, float *w, int n)
{
    uint32_t state = 21;
    for (int i = 0; i < n; i++)
        switch (kind) {
        case 0: w[i] = 0; break;
        case 1: w[i] = random_bits(&state) % 4 ? 0 : 1; break;
        case 2: w[i] = ldexpf(1, (int)(random_bits(&state) % 250) - 125); break;
        default: w[i] = FLT_MAX; break;
        }
}

Test(encode, extremes_stay_finite)
{
    static float x[N], w[N], y[N];
    for (size_t t = 0; t < N_TYPES; t++)
        for (int kind = 0; kind < N_EXTREMES; kind++) {
            fill_extreme(kind, x, N);
            for (int weights = -1; weights < 4; weights++) {
                fill_extreme_weights(weights, w, N);
                encode_decode(fastest()->encode, types[t], x, weights < 0 ? NULL : w, y, N);
                for (int i = 0; i < N; i++)
                    cr_assert(isfinite(y[i]) && (kind != ZEROS || y[i] == 0),
                              "%s, extreme %d, weights %d: value %d is %g", name_of(types[t]), kind, weights, i,
                              (double)y[i]);
            }
            encode_decode(fastest()->encode, types[t], x, NULL, y, N);
            cr_assert_leq(error_of(x, y, NULL, N), 1.000001 * error_of(x, (float[N]){0}, NULL, N), "%s, extreme %d",
                          name_of(types[t]), kind);
        }
}

Test(encode, zeros_have_scales_of_zero)
{
    const float x[256] = {0};
    for (size_t t = FIRST_BLOCK_TYPE; t < N_TYPES; t++) {
        unsigned char block[256];
        fastest()->encode(types[t], x, NULL, block, pl_dtype_describe((int)types[t])->block_elems);
        cr_assert_eq(block[0], 0, "%s", name_of(types[t]));
        if (types[t] != PL_MXFP4)
            cr_assert_eq(block[1] & 0x7f, 0, "%s", name_of(types[t])); /* -0 will do */
    }
}

Test(encode, constants_are_held)
{
    float x[256], y[256];
    for (size_t t = FIRST_BLOCK_TYPE; t < N_TYPES; t++) {
        for (int i = 0; i < 256; i++)
            x[i] = 0.37f;
        encode_decode(fastest()->encode, types[t], x, NULL, y, 256);
        for (int i = 0; i < 256; i++)
            cr_assert_float_eq(y[i], 0.37f, types[t] == PL_MXFP4 ? 0.05f : 0.005f, "%s", name_of(types[t]));
    }
}

/* ---- the same bytes ------------------------------------------------------------------------------------------ */

static void check_same_bytes(pl_dtype type, const float *x, const float *w)
{
    static unsigned char base[4 * N], other[4 * N];
    const unsigned features = pl_cpu_features(PL_CPU_ALL), sets[] = {PL_CPU_AVX2, PL_CPU_ALL};
    size_t bytes = pl_dtype_bytes(type, N);
    pl_encoder_select(PL_CPU_NONE)->encode(type, x, w, base, N);
    for (int i = 0; i < 2; i++) {
        const pl_encoder *encoder = pl_encoder_select(pl_cpu_complete(features & sets[i]));
        encoder->encode(type, x, w, other, N);
        cr_assert_arr_eq(base, other, bytes, "%s: %s differs", name_of(type), encoder->name);
    }
}

Test(encode, every_instruction_set_gives_the_same_bytes)
{
    static float x[N], w[N];
    for (size_t t = 0; t < N_TYPES; t++) {
        fill_weights(w, N);
        for (int kind = 0; kind < N_KINDS; kind++) {
            fill(kind, x, N);
            check_same_bytes(types[t], x, NULL);
            check_same_bytes(types[t], x, w);
        }
        for (int kind = 0; kind < N_EXTREMES; kind++) {
            fill_extreme(kind, x, N);
            fill_extreme_weights(kind % 4, w, N);
            check_same_bytes(types[t], x, NULL);
            check_same_bytes(types[t], x, w);
        }
    }
}

Test(encode, a_block_does_not_depend_on_others)
{
    static float x[N], w[N];
    static unsigned char all[4 * N];
    unsigned char one[1 + 256]; /* of any alignment */
    fill(HEAVY_TAILS, x, N);
    fill_weights(w, N);
    for (size_t t = FIRST_BLOCK_TYPE; t < N_TYPES; t++) {
        const pl_dtype_info *info = pl_dtype_describe((int)types[t]);
        fastest()->encode(types[t], x, w, all, N);
        for (int b = 0; b < N / info->block_elems; b++) {
            int64_t i = (int64_t)b * info->block_elems;
            fastest()->encode(types[t], x + i, w + i, one + 1, info->block_elems);
            cr_assert_arr_eq(one + 1, all + b * info->block_bytes, (size_t)info->block_bytes, "%s, block %d",
                             info->name, b);
        }
    }
}

Test(encode, the_fastest_encoder_is_chosen)
{
    cr_assert_str_eq(pl_encoder_select(PL_CPU_NONE)->name, "base");
#if defined(__x86_64__)
    cr_assert_str_eq(pl_encoder_select(PL_CPU_AVX2)->name, "avx2");
    cr_assert_str_eq(pl_encoder_select(PL_CPU_ALL)->name, "avx512");
#endif
}

/* ---- the measure --------------------------------------------------------------------------------------------- */

Test(encode, errors_are_measured)
{
    float a[100], b[100], w[100];
    fill(NORMAL, a, 100);
    fill(HEAVY_TAILS, b, 100);
    fill_weights(w, 100);
    for (int n = 0; n <= 100; n++)
        for (int weighted = 0; weighted < 2; weighted++) {
            const float *weight = weighted ? w : NULL, zeros[100] = {0};
            pl_encode_error e = fastest()->measure(a, b, weight, n);
            cr_assert_float_eq(e.error, error_of(a, b, weight, n), 1e-12 * e.error);
            cr_assert_float_eq(e.energy, error_of(a, zeros, weight, n), 1e-12 * e.energy);
            pl_encode_error base = pl_encoder_select(PL_CPU_NONE)->measure(a, b, weight, n);
            cr_assert_eq(memcmp(&e, &base, sizeof e), 0);
        }
    const float huge[2] = {FLT_MAX, -FLT_MAX};
    cr_assert(isfinite(fastest()->measure(huge, huge + 1, NULL, 1).error));
}
