#include "host/base/rng.h"
#include "host/cpu/pack.h"
#include "tests/ops/ops_fixture.h"

#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

#define TOKENS 50
#define HARD 5 /* the last ids, where there are such */
#define SOFT 7

typedef struct embed_case {
    op_case base;
    pl_weight table;
    int32_t id[ROOM];
    const float *hard, *soft;
} embed_case;

static void run(const op_case *base, pl_backend *b, int first, int n)
{
    const embed_case *c = (const embed_case *)base;
    pl_embed_from from = {.table = &c->table,
                          .scale = 11.3137085f,
                          .hard = c->hard,
                          .soft = c->soft,
                          .first_hard = TOKENS - HARD,
                          .n_hard = c->hard ? HARD : 0};
    b->ops->embed(b->stream, base->out[0].now + first * c->table.cols, &from, c->id + first, n);
}

/* x becomes a value that 16 bits hold; returns these. */
static uint16_t shorten(pl_dtype type, float *x)
{
    if (type == PL_F16) {
        uint16_t half = pl_f32_to_f16(*x);
        *x = pl_f16_to_f32(half);
        return half;
    }
    uint32_t bits;
    memcpy(&bits, x, sizeof bits);
    bits &= 0xffff0000;
    memcpy(x, &bits, sizeof bits);
    return (uint16_t)(bits >> 16);
}

/* Exactly one rounding: that of the product. */
static void check(int64_t hidden, int rows, pl_dtype type)
{
    embed_case c = {.base = {.what = "embed", .rows = rows, .run = run}};
    float *values = normals(TOKENS * hidden, 1, 1);
    uint16_t *short_values = calloc((size_t)(TOKENS * hidden), sizeof *short_values);
    cr_assert_not_null(short_values);
    for (int64_t i = 0; type != PL_F32 && i < TOKENS * hidden; i++)
        short_values[i] = shorten(type, &values[i]);
    c.table = (pl_weight){.name = "table",
                          .data = type == PL_F32 ? (void *)values : short_values,
                          .rows = TOKENS,
                          .cols = hidden,
                          .type = type};
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

/* Words, ids of the towers and rows of images, mixed: only words are scaled. */
Test(embed, rows_that_are_there)
{
    const int64_t hidden = 101;
    float *values = normals(TOKENS * hidden, 1, 1), *hard = normals(HARD * hidden, 1, 2);
    float *soft = normals(SOFT * hidden, 1, 3), *before = normals(ROOM * hidden, 1, 4);
    embed_case c = {.base = {.what = "embed", .rows = ROOM, .run = run}, .hard = hard, .soft = soft};
    c.table = (pl_weight){.name = "table", .data = values, .rows = TOKENS, .cols = hidden, .type = PL_F32};
    num *want = nums(ROOM * hidden);
    for (int r = 0; r < ROOM; r++) {
        int32_t id = r % 3 == 0 ? -1 - r % SOFT : r % 3 == 1 ? TOKENS - HARD + r % HARD : r % (TOKENS - HARD);
        c.id[r] = id;
        for (int64_t i = 0; i < hidden; i++) {
            float word = values[(id < 0 ? 0 : id) * hidden + i] * 11.3137085f;
            float row = id < 0                ? soft[(-1 - id) * hidden + i]
                        : id >= TOKENS - HARD ? hard[(id - TOKENS + HARD) * hidden + i]
                                              : word;
            want[r * hidden + i] = num_of(row);
        }
    }
    case_output(&c.base, before, want, ROOM * hidden);
    check_case(&c.base);
    free(values);
    free(hard);
    free(soft);
    free(before);
    free(want);
}

Test(embed, plain_tables)
{
    static const int64_t widths[] = {16, 64, 96, 101, 2048};
    for (size_t w = 0; w < sizeof widths / sizeof *widths; w++) {
        check(widths[w], 1, PL_F32);
        check(widths[w], 33, PL_F16);
        check(widths[w], 33, PL_BF16);
    }
}

/* Random blocks whose f16 scales are finite, packed: the decoder's values, scaled. */
static void check_blocks(pl_dtype type, int64_t hidden)
{
    embed_case c = {.base = {.what = "embed", .rows = ROOM, .run = run}};
    pl_tensor t = {"table", NULL, TOKENS, hidden, type};
    size_t bytes = TOKENS * pl_tensor_row_bytes(&t);
    uint8_t *blocks = malloc(bytes);
    void *packed = malloc(pl_pack_bytes(&t));
    float *row = malloc((size_t)hidden * sizeof *row), *before = normals(ROOM * hidden, 1, 2);
    cr_assert(blocks && packed && row);
    pl_rng rng;
    pl_rng_seed(&rng, (uint64_t)type);
    for (size_t i = 0; i < bytes; i++)
        blocks[i] = (uint8_t)pl_rng_next(&rng) & 0xbb;
    t.data = blocks;
    pl_pool *pool;
    pl_error err;
    cr_assert_eq(pl_pool_create(1, NULL, &pool, &err), PL_OK);
    cr_assert_eq(pl_pack(pool, &t, packed, &c.table, &err), PL_OK, "%s", err.message);
    num *want = nums(ROOM * hidden);
    for (int r = 0; r < ROOM; r++) {
        c.id[r] = r * 17 % TOKENS;
        pl_decode(type, pl_tensor_row(&t, c.id[r]), row, hidden);
        for (int64_t i = 0; i < hidden; i++)
            want[r * hidden + i] = num_of(row[i] * 11.3137085f);
    }
    case_output(&c.base, before, want, ROOM * hidden);
    check_case(&c.base);
    pl_pool_free(pool);
    free(blocks);
    free(packed);
    free(row);
    free(before);
    free(want);
}

Test(embed, packed_tables)
{
    for (int id = 0; id <= PL_NVFP4; id++) {
        const pl_dtype_info *info = pl_dtype_describe(id);
        if (info && info->block_elems > 1)
            check_blocks((pl_dtype)id, info->block_elems < 256 ? 5 * info->block_elems : 512);
    }
}
