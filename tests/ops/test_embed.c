#include "tests/ops/ops_fixture.h"

#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

#define TOKENS 50

typedef struct embed_case {
    op_case base;
    pl_weight table;
    int32_t id[ROOM];
} embed_case;

static void run(const op_case *base, pl_backend *b, int first, int n)
{
    const embed_case *c = (const embed_case *)base;
    b->ops->embed(b->stream, base->out[0].now + first * c->table.cols, &c->table, c->id + first, n, 11.3137085f);
}

static uint16_t bf16_of(float x)
{
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    return (uint16_t)(bits >> 16);
}

/* Exactly one rounding: that of the product. */
static void check(int64_t hidden, int rows, bool bf16)
{
    embed_case c = {.base = {.what = "embed", .rows = rows, .run = run}};
    float *values = normals(TOKENS * hidden, 1, 1);
    uint16_t *short_values = calloc((size_t)(TOKENS * hidden), sizeof *short_values);
    cr_assert_not_null(short_values);
    for (int64_t i = 0; bf16 && i < TOKENS * hidden; i++) {
        short_values[i] = bf16_of(values[i]);
        uint32_t bits = (uint32_t)short_values[i] << 16;
        memcpy(&values[i], &bits, sizeof bits);
    }
    c.table = (pl_weight){.name = "table",
                          .data = bf16 ? (void *)short_values : values,
                          .rows = TOKENS,
                          .cols = hidden,
                          .type = bf16 ? PL_BF16 : PL_F32};
    num *want = nums(rows * hidden);
    for (int r = 0; r < rows; r++) {
        c.id[r] = r * 17 % TOKENS;
        for (int64_t i = 0; i < hidden; i++)
            want[r * hidden + i] = num_of(values[c.id[r] * hidden + i] * 11.3137085f);
    }
    float *before = normals(rows * hidden, 1, 2);
    case_output(&c.base, before, want, rows * hidden);
    check_case(&c.base);
    free(values);
    free(short_values);
    free(before);
    free(want);
}

Test(embed, plain_tables)
{
    static const int64_t widths[] = {16, 64, 96, 100, 2048};
    for (size_t w = 0; w < sizeof widths / sizeof *widths; w++) {
        check(widths[w], 1, false);
        check(widths[w], 33, true);
    }
}
