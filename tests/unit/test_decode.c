#include <criterion/criterion.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "quant/blocks.h"

static unsigned char *read_all(const char *path, size_t *n)
{
    FILE *file = fopen(path, "rb");
    cr_assert_not_null(file, "%s", path);
    fseek(file, 0, SEEK_END);
    *n = (size_t)ftell(file);
    rewind(file);
    unsigned char *data = malloc(*n);
    cr_assert_eq(fread(data, 1, *n, file), *n);
    fclose(file);
    return data;
}

static uint32_t bits(float f)
{
    uint32_t u;
    memcpy(&u, &f, sizeof u);
    return u;
}

/* The values of one record of decode.bin; returns the bytes that the record takes. */
static size_t check_record(const unsigned char *record)
{
    uint32_t head[2];
    memcpy(head, record, sizeof head);
    const pl_dtype_info *info = pl_dtype_describe((int)head[0]);
    cr_assert_not_null(info, "type %u", head[0]);
    size_t n = (size_t)head[1] * (size_t)info->block_elems, bytes = (size_t)head[1] * (size_t)info->block_bytes;
    cr_assert_eq(pl_dtype_bytes((pl_dtype)head[0], (int64_t)n), bytes);
    float *got = malloc(n * sizeof *got);
    pl_decode((pl_dtype)head[0], record + sizeof head, got, (int64_t)n);
    for (size_t i = 0; i < n; i++) {
        float expected;
        memcpy(&expected, record + sizeof head + bytes + i * sizeof expected, sizeof expected);
        if (isnan(expected))
            cr_assert(isnan(got[i]), "%s: value %zu is %g, expected NaN", info->name, i, (double)got[i]);
        else
            cr_assert_eq(bits(got[i]), bits(expected), "%s: value %zu is %.9g, expected %.9g", info->name, i,
                         (double)got[i], (double)expected);
    }
    free(got);
    return sizeof head + bytes + n * sizeof(float);
}

Test(decode, quantised_blocks_match_gguf_py_bit_for_bit)
{
    size_t n, at = 0, records = 0;
    unsigned char *data = read_all(PL_TEST_DATA "/golden/quant/decode.bin", &n);
    for (; at < n; records++)
        at += check_record(data + at);
    cr_assert_eq(at, n);
    cr_assert_eq(records, 14);
    free(data);
}

Test(decode, every_half_is_its_value)
{
    for (int h = 0; h < 65536; h++) {
        int exponent = h >> 10 & 31, fraction = h & 1023;
        float f = pl_f16_to_f32((uint16_t)h);
        cr_assert_eq(signbit(f) != 0, h >> 15);
        if (exponent == 31) {
            cr_assert(fraction ? isnan(f) : isinf(f), "%04x", h);
            continue;
        }
        double expected = exponent ? ldexp(1024 + fraction, exponent - 25) : ldexp(fraction, -24);
        cr_assert_eq(fabs((double)f), expected, "%04x", h);
        cr_assert_eq(pl_f32_to_f16(f), h, "%04x", h);
    }
}

Test(decode, halves_round_to_nearest_even)
{
    for (int h = 0; h < 0x7bff; h++) {
        float low = pl_f16_to_f32((uint16_t)h), high = pl_f16_to_f32((uint16_t)(h + 1));
        float middle = (low + high) / 2; /* exact: one more bit than a half has */
        int even = h & 1 ? h + 1 : h;
        cr_assert_eq(pl_f32_to_f16(middle), even, "%04x", h);
        cr_assert_eq(pl_f32_to_f16(nextafterf(middle, 0)), h, "%04x", h);
        cr_assert_eq(pl_f32_to_f16(nextafterf(middle, 1e9f)), h + 1, "%04x", h);
        cr_assert_eq(pl_f32_to_f16(-middle), even | 0x8000, "%04x", h);
    }
    cr_assert_eq(pl_f32_to_f16(65519.996f), 0x7bff);
    cr_assert_eq(pl_f32_to_f16(65520.0f), 0x7c00);
    cr_assert_eq(pl_f32_to_f16(-INFINITY), 0xfc00);
    cr_assert_eq(pl_f32_to_f16(1e-30f), 0);
    cr_assert(isnan(pl_f16_to_f32(pl_f32_to_f16(NAN))));
}

Test(decode, plain_types_at_any_address)
{
    unsigned char raw[1 + 3 * 4];
    float values[3] = {1.5f, -0.0f, 3e38f}, out[3];
    memcpy(raw + 1, values, sizeof values);
    pl_decode(PL_F32, raw + 1, out, 3);
    cr_assert_eq(memcmp(out, values, sizeof out), 0);
    uint16_t halves[3] = {0x3e00, 0x8000, 0x0001}, brains[3] = {0x3fc0, 0x8000, 0x7f80};
    memcpy(raw + 1, halves, sizeof halves);
    pl_decode(PL_F16, raw + 1, out, 3);
    cr_assert(out[0] == 1.5f && signbit(out[1]) && out[2] == 0x1p-24f);
    memcpy(raw + 1, brains, sizeof brains);
    pl_decode(PL_BF16, raw + 1, out, 3);
    cr_assert(out[0] == 1.5f && signbit(out[1]) && isinf(out[2]));
}

Test(decode, other_types_are_not_described)
{
    const int unknown[] = {-1, 4, 5, 9, 15, 19, 21, 29, 31, 38, 41, 1 << 30};
    for (size_t i = 0; i < sizeof unknown / sizeof unknown[0]; i++)
        cr_assert_null(pl_dtype_describe(unknown[i]), "%d", unknown[i]);
    cr_assert_str_eq(pl_dtype_describe(PL_Q4_K)->name, "Q4_K");
}
