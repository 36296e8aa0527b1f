/* What ranks hold of a model: together all of it, each what its heads and its neurons need. */
#include "host/engine/shard.h"

#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

#define TINY PL_TEST_DATA "/golden/text/e4b"
#define DEMO PL_TEST_DATA "/../tools/demo_model/demo.gguf"

static pl_checkpoint *open_checkpoint(const char *path)
{
    pl_checkpoint *checkpoint;
    pl_error err;
    cr_assert_eq(pl_checkpoint_open(path, &checkpoint, &err), PL_OK, "%s", err.message);
    return checkpoint;
}

static pl_shard make(const pl_checkpoint *checkpoint, int rank, int size)
{
    pl_shard shard;
    pl_error err;
    cr_assert_eq(pl_shard_make(checkpoint, rank, size, &shard, &err), PL_OK, "%s", err.message);
    return shard;
}

/* ---- tensors ---- */

/* Where each row, or column, of a rank's part is in the whole, said another way than by shard.c. */
static int64_t place_of(const pl_shard *s, int layer, pl_size size, int64_t i)
{
    int group = s->whole->n_heads / s->whole->n_kv_heads, dim = s->whole->head_dim, found = 0;
    switch (size) {
    case PL_SIZE_Q: return (int64_t)s->rank * s->whole->n_heads / s->size * dim + i;
    case PL_SIZE_K: return (int64_t)s->rank * s->whole->n_heads / s->size / group * dim + i;
    case PL_SIZE_F:
        for (int at = 0;; at++)
            if (at / s->block[layer] % s->size == s->rank && found++ == i)
                return at;
    default: return i;
    }
}

static void check_element(const pl_tensor *part, const void *data, const pl_tensor *whole, int64_t row, int64_t col,
                          int64_t whole_row, int64_t whole_col)
{
    int64_t n = pl_dtype_describe((int)whole->type)->block_elems;
    const char *got = (const char *)data + (size_t)row * pl_tensor_row_bytes(part) + pl_dtype_bytes(part->type, col);
    const char *want = (const char *)pl_tensor_row(whole, whole_row) + pl_dtype_bytes(whole->type, whole_col);
    cr_assert_arr_eq(got, want, pl_dtype_bytes(part->type, n), "%s: row %lld, column %lld", whole->name, (long long)row,
                     (long long)col);
}

static void check_tensor(const pl_shard *s, int layer, pl_role role, const pl_tensor *whole, char *held)
{
    const pl_weight_info *info = &pl_weight_table[role];
    pl_tensor part = pl_shard_part(s, layer, role, whole);
    cr_assert_eq(part.rows, info->rows == PL_SIZE_1 ? 1 : pl_size_of(&s->config, layer, info->rows));
    cr_assert_eq(part.cols, pl_size_of(&s->config, layer, info->cols));
    char *gathered = malloc((size_t)part.rows * pl_tensor_row_bytes(&part));
    cr_assert_not_null(gathered);
    if (!part.data) {
        pl_shard_gather(s, layer, role, whole, part.rows / 2, part.rows, gathered);
        pl_shard_gather(s, layer, role, whole, 0, part.rows / 2, gathered);
    }
    int64_t step = pl_dtype_describe((int)whole->type)->block_elems;
    for (int64_t row = 0; row < part.rows; row++)
        for (int64_t col = 0; col < part.cols; col += step) {
            int64_t at = place_of(s, layer, info->rows, row), col_at = place_of(s, layer, info->cols, col);
            check_element(&part, part.data ? part.data : gathered, whole, row, col, at, col_at);
            held[at * whole->cols + col_at] = 1;
        }
    free(gathered);
}

/* All ranks' parts are what they should be, and of each tensor everything is held by somebody. */
static void check_layer(const pl_checkpoint *checkpoint, int layer, int size)
{
    static const pl_role roles[] = {PL_ROLE_Q,  PL_ROLE_K,    PL_ROLE_V,      PL_ROLE_O,        PL_ROLE_GATE,
                                    PL_ROLE_UP, PL_ROLE_DOWN, PL_ROLE_Q_NORM, PL_ROLE_PLE_GATE, PL_ROLE_LAUREL_RIGHT};
    const pl_config *c = pl_checkpoint_config(checkpoint);
    for (size_t i = 0; i < sizeof roles / sizeof *roles; i++) {
        const pl_tensor *whole = pl_weight_at(pl_checkpoint_weights(checkpoint), layer, roles[i]);
        if (!pl_weight_needed(c, layer, roles[i]))
            continue;
        char *held = calloc(1, (size_t)(whole->rows * whole->cols));
        cr_assert_not_null(held);
        for (int rank = 0; rank < size; rank++) {
            pl_shard s = make(checkpoint, rank, size);
            check_tensor(&s, layer, roles[i], whole, held);
        }
        for (int64_t at = 0; at < whole->rows * whole->cols; at += pl_dtype_describe((int)whole->type)->block_elems)
            cr_assert(held[at], "%s: element %lld is nobody's", whole->name, (long long)at);
        free(held);
    }
}

Test(shard, parts_make_the_whole)
{
    pl_checkpoint *tiny = open_checkpoint(TINY), *demo = open_checkpoint(DEMO);
    for (int size = 2; size <= 8; size *= 2)
        check_layer(tiny, 3, size);
    check_layer(tiny, pl_checkpoint_config(tiny)->n_layers - 1, 4);
    check_layer(demo, 0, 2);
    pl_checkpoint_close(tiny);
    pl_checkpoint_close(demo);
}

/* ---- widths ---- */

/* Of any number of first neurons every rank has a prefix of what it holds, and all have them together. */
Test(shard, widths)
{
    pl_checkpoint *checkpoint = open_checkpoint(TINY);
    int32_t most = pl_checkpoint_config(checkpoint)->ffn[0];
    for (int size = 2; size <= 8; size *= 2) {
        int32_t before[8] = {0};
        for (int32_t width = 0; width <= most; width++) {
            int32_t sum = 0;
            for (int rank = 0; rank < size; rank++) {
                pl_shard s = make(checkpoint, rank, size);
                int32_t mine = pl_shard_width(&s, 0, width);
                bool has_last = width > 0 && (width - 1) / s.block[0] % size == rank;
                cr_assert_eq(mine, before[rank] + has_last, "%d of %d: rank %d", size, width, rank);
                before[rank] = mine;
                sum += mine;
            }
            cr_assert_eq(sum, width);
        }
    }
    pl_checkpoint_close(checkpoint);
}

/* ---- refusals ---- */

static void refused(const pl_checkpoint *checkpoint, int size, const char *why)
{
    pl_shard shard;
    pl_error err = {0};
    cr_assert_eq(pl_shard_make(checkpoint, 0, size, &shard, &err), PL_ERR_UNSUPPORTED, "%d ranks", size);
    cr_assert(strstr(err.message, why), "%d ranks: %s", size, err.message);
}

Test(shard, what_does_not_split)
{
    pl_checkpoint *checkpoint = open_checkpoint(TINY);
    refused(checkpoint, 3, "3 ranks: the model has 8 query heads");
    refused(checkpoint, 16, "16 ranks: the model has 8 query heads");
    pl_checkpoint_close(checkpoint);
}
