#include "host/base/cpu.h"
#include "tests/ops/ops_fixture.h"
#include "tests/ops/ple_table.h"

#include <criterion/criterion.h>

#define VOCAB 23

typedef struct look_case {
    op_case base;
    pl_ple_rows from;
    unsigned char *table;
    int32_t id[ROOM], layers[ROOM];
    int64_t ld;
    int p;
    int32_t bad;
} look_case;

static void run(const op_case *base, pl_backend *b, int first, int n)
{
    const look_case *c = (const look_case *)base;
    int32_t bad = 0;
    b->ops->ple_look(b->stream, base->out[0].now + first * c->ld, c->ld, &c->from, c->id + first, c->layers + first, n,
                     c->p, &bad);
    cr_assert_eq(bad, 0);
}

static int32_t row_of(int32_t id)
{
    return id >= 0 && id < VOCAB ? id : 0;
}

static look_case make_case(pl_dtype type, int rows, int max_layers, int p, int64_t cols)
{
    look_case c = {.base = {.what = pl_dtype_describe((int)type)->name, .rows = rows, .run = run}, .p = p};
    size_t row_bytes = pl_dtype_bytes(type, cols);
    c.table = malloc(VOCAB * row_bytes);
    cr_assert_not_null(c.table);
    fill_table(c.table, VOCAB * row_bytes, (uint64_t)type);
    for (size_t r = 0; type == PL_NVFP4 && r < VOCAB; r++)
        c.table[r * row_bytes] = 127; /* a scale that counts as none */
    c.from = (pl_ple_rows){.base = c.table, .type = type, .row_bytes = row_bytes, .vocab = VOCAB};
    c.ld = cols;
    for (int i = 0; i < ROOM; i++) {
        c.id[i] = i % 7 == 5 ? -1 : i % 7 == 6 ? VOCAB + i : i * 5 % VOCAB;
        c.layers[i] = i % 3 == 2 ? (max_layers + 1) / 2 : max_layers;
    }
    return c;
}

/* The first values have the decoder's bits, what lies behind them is left alone. */
static void check(pl_dtype type, int rows, int max_layers, int p, int64_t cols)
{
    look_case c = make_case(type, rows, max_layers, p, cols);
    float *before = normals(rows * cols, 1, 2), *row = malloc((size_t)cols * sizeof *row);
    num *want = nums_of(before, rows * cols);
    cr_assert_not_null(row);
    for (int r = 0; r < rows; r++) {
        int64_t n = (int64_t)c.layers[r] * p;
        first_values(type, c.table + (size_t)row_of(c.id[r]) * c.from.row_bytes, cols, row, n);
        for (int64_t i = 0; i < n; i++)
            want[r * cols + i] = num_of(row[i]);
    }
    case_output(&c.base, before, want, rows * cols);
    check_case(&c.base);
    free(c.table);
    free(before);
    free(row);
    free(want);
}

Test(ple_look, every_type)
{
    for (int id = -1; next_type(&id);) {
        check((pl_dtype)id, 1, 3, 256, 768);
        check((pl_dtype)id, 17, 10, 256, 2560);
    }
}

/* The end of what is wanted lies within a block. */
Test(ple_look, layers_that_are_no_whole_blocks)
{
    for (int id = -1; next_type(&id);) {
        check((pl_dtype)id, 5, 5, 48, 256);
        check((pl_dtype)id, 3, 3, 21, 256);
    }
    check(PL_F32, 5, 3, 5, 15);
    check(PL_BF16, 5, 3, 5, 15);
}

/* Row 4 of the step has what no number is: in its last wanted column or in the one after it. */
static void check_bad(pl_backend *b, pl_dtype type, bool wanted)
{
    look_case c = make_case(type, 9, 4, 256, 1536);
    float out[9 * 1536];
    unsigned char *row = c.table + (size_t)c.id[4] * c.from.row_bytes;
    size_t at = pl_dtype_bytes(type, 4 * 256), block = (size_t)pl_dtype_describe((int)type)->block_bytes;
    memset(row + at - (wanted ? block : 0), 0xff, block);
    int32_t bad = 0;
    b->ops->ple_look(b->stream, out, c.ld, &c.from, c.id, c.layers, 9, c.p, &bad);
    cr_assert_eq(bad, wanted ? 5 : 0, "%s: %d", c.base.what, bad);
    free(c.table);
}

/* Rows that were brought for the step: in its order, in the slot of its ticket, whatever the ids. */
Test(ple_look, rows_of_a_step)
{
    pl_backend *b = open_backend((pl_backend_shape){.max_rows = ROOM, .max_context = PL_KV_PAGE, .heads = {1, 1, 16}},
                                 3, PL_CPU_ALL);
    look_case c = make_case(PL_Q4_0, 7, 3, 256, 768);
    uint32_t ticket = 5;
    int32_t bad = 0;
    float got[7 * 768], want[768];
    c.from.slots = 3; /* the ticket's is the last */
    c.from.slot_bytes = 7 * c.from.row_bytes;
    c.from.ready = c.from.ticket = &ticket;
    b->ops->ple_look(b->stream, got, c.ld, &c.from, c.id, c.layers, 7, c.p, &bad);
    for (int r = 0; r < 7; r++) {
        pl_decode(PL_Q4_0, c.table + (size_t)(14 + r) * c.from.row_bytes, want, 768);
        cr_assert_arr_eq(got + r * 768, want, (size_t)(c.layers[r] * c.p) * sizeof *want, "row %d", r);
    }
    free(c.table);
    pl_backend_free(b);
}

Test(ple_look, says_what_is_not_finite)
{
    pl_backend *b = open_backend((pl_backend_shape){.max_rows = ROOM, .max_context = PL_KV_PAGE, .heads = {1, 1, 16}},
                                 3, PL_CPU_ALL);
    for (int id = -1; next_type(&id);)
        if (id != PL_NVFP4) { /* its scales are finite, whatever the bits */
            check_bad(b, (pl_dtype)id, true);
            check_bad(b, (pl_dtype)id, false);
        }
    pl_backend_free(b);
}
