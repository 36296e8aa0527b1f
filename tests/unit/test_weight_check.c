#include <criterion/criterion.h>
#include <math.h>

#include "host/model/weight_check.h"
#include "tests/unit/scratch.h"

#define ROWS 3
#define COLS 1024

static unsigned char data[ROWS * COLS * 4];
static pl_error err;

/* Clean values of any type: zero bits have finite scales. */
static pl_tensor clean(pl_dtype type)
{
    memset(data, 0x11, sizeof data);
    return (pl_tensor){.name = "blk.7.ffn_up.weight", .data = data, .rows = ROWS, .cols = COLS, .type = type};
}

static void put_f32(size_t at, float f)
{
    memcpy(data + 4 * at, &f, 4);
}

static void put_u16(size_t at, uint16_t h)
{
    memcpy(data + at, &h, 2);
}

static void finds(const pl_tensor *t, int64_t row, int64_t col)
{
    char where[64];
    snprintf(where, sizeof where, "row %d, column %d is", (int)row, (int)col);
    expect_failure(pl_tensor_check_finite(t, 0, ROWS, &err), PL_ERR_FORMAT, &err, WORDS("blk.7.ffn_up.weight", where));
    cr_assert_eq(pl_tensor_check_finite(t, 0, row, &err), PL_OK, "rows before the bad one");
    cr_assert_eq(pl_tensor_check_finite(t, row + 1, ROWS - row - 1, &err), PL_OK, "rows after the bad one");
    expect_failure(pl_tensor_check_finite(t, row, 1, &err), PL_ERR_FORMAT, &err, WORDS(where));
}

Test(weight_check, f32_anywhere)
{
    static const float bad[] = {NAN, INFINITY, -INFINITY};
    pl_tensor t = clean(PL_F32);
    put_f32(5, 3e38f);
    put_f32(6, -1e-45f);
    cr_assert_eq(pl_tensor_check_finite(&t, 0, ROWS, &err), PL_OK);
    static const size_t places[] = {0, 1, 511, 512, 1023, 1024, 1500, 3071};
    for (size_t i = 0; i < sizeof places / sizeof places[0]; i++) {
        t = clean(PL_F32);
        put_f32(places[i], bad[i % 3]);
        finds(&t, (int64_t)places[i] / COLS, (int64_t)places[i] % COLS);
    }
}

Test(weight_check, halves_and_brains)
{
    static const uint16_t bad_half[] = {0x7c00, 0xfc00, 0x7c01, 0xffff}, bad_brain[] = {0x7f80, 0xff80, 0x7fc0, 0xffff};
    pl_tensor half = clean(PL_F16);
    put_u16(2 * 9, 0x7bff);
    cr_assert_eq(pl_tensor_check_finite(&half, 0, ROWS, &err), PL_OK);
    pl_tensor brain = clean(PL_BF16);
    put_u16(2 * 9, 0x7f7f);
    put_u16(2 * 10, 0x7c00); /* infinite as a half only */
    cr_assert_eq(pl_tensor_check_finite(&brain, 0, ROWS, &err), PL_OK);
    for (size_t i = 0; i < 4; i++) {
        half = clean(PL_F16);
        put_u16(2 * (1024 + 700), bad_half[i]);
        finds(&half, 1, 700);
        brain = clean(PL_BF16);
        put_u16(2 * (2048 + 1023), bad_brain[i]);
        finds(&brain, 2, 1023);
    }
}

/* Each scale of a block of each type; other bytes may hold anything. */
Test(weight_check, scales_of_blocks)
{
    static const struct {
        pl_dtype type;
        size_t scale;
    } scales[] = {{PL_Q4_0, 0}, {PL_Q4_1, 0},  {PL_Q4_1, 2},   {PL_Q5_0, 0},   {PL_Q5_1, 0},  {PL_Q5_1, 2},
                  {PL_Q8_0, 0}, {PL_Q2_K, 80}, {PL_Q2_K, 82},  {PL_Q3_K, 108}, {PL_Q4_K, 0},  {PL_Q4_K, 2},
                  {PL_Q5_K, 0}, {PL_Q5_K, 2},  {PL_Q6_K, 208}, {PL_IQ4_NL, 0}, {PL_IQ4_XS, 0}};
    for (size_t i = 0; i < sizeof scales / sizeof scales[0]; i++) {
        pl_tensor t = clean(scales[i].type);
        const pl_dtype_info *info = pl_dtype_describe((int)t.type);
        size_t row = pl_tensor_row_bytes(&t), block = (size_t)info->block_bytes;
        size_t clear = scales[i].scale < 80 ? 4 : 0; /* of the scales, which lie at an end */
        memset(data + row + block + clear, 0xff, 8);
        cr_assert_eq(pl_tensor_check_finite(&t, 0, ROWS, &err), PL_OK, "%s: %s", info->name, err.message);
        put_u16(row + 2 * block + scales[i].scale, 0x7c00);
        finds(&t, 1, 2 * info->block_elems);
        cr_assert_not_null(strstr(err.message, "scale of the block"));
    }
}

/* A byte for a scale, and no byte is infinite; but a power of two may be large enough to make values so. */
Test(weight_check, values_of_4_bit_floats)
{
    pl_tensor t = clean(PL_NVFP4);
    memset(data, 0xff, sizeof data);
    cr_assert_eq(pl_tensor_check_finite(&t, 0, ROWS, &err), PL_OK);
    static const struct {
        uint8_t e, code;
        bool finite;
    } values[] = {{252, 7, true},  {252, 15, true}, {253, 5, true}, {253, 6, false}, {253, 15, false}, {254, 3, true},
                  {254, 4, false}, {255, 1, true},  {255, 9, true}, {255, 2, false}, {255, 10, false}, {0, 7, true}};
    for (size_t i = 0; i < sizeof values / sizeof values[0]; i++) {
        t = clean(PL_MXFP4);
        unsigned char *block = data + pl_tensor_row_bytes(&t) + 5 * sizeof(pl_block_mxfp4);
        block[0] = values[i].e;
        block[1 + 9] = (unsigned char)(values[i].code << 4 | 1); /* columns 25 and 9 of the block */
        if (values[i].finite) {
            cr_assert_eq(pl_tensor_check_finite(&t, 0, ROWS, &err), PL_OK, "e = %d: %s", values[i].e, err.message);
        } else {
            finds(&t, 1, 5 * 32 + 25);
            cr_assert_null(strstr(err.message, "block"));
        }
    }
}
