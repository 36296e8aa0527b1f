/* Panels, byte by byte: what kernels of every instruction set and of cards read. */
#include "host/base/rng.h"
#include "host/cpu/pack.h"
#include "host/cpu/panel.h"
#include "tests/ops/block_scales.h"

#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

#define COLS_MOST 1024

typedef struct packing {
    pl_dtype type;
    uint64_t hash; /* of the panels of all shapes below, as host/cpu/panel.h describes them */
} packing;

static const packing packings[] = {
    {PL_Q4_0, 0x85400573eb9a936d},  {PL_Q4_1, 0xd34983463ab34d14},   {PL_Q5_0, 0x5ba26ff784e920d3},
    {PL_Q5_1, 0x379461333a3fdd14},  {PL_Q8_0, 0xd8d41b95cf647a74},   {PL_Q2_K, 0x553a6e502385906d},
    {PL_Q3_K, 0x631802ad4da9d351},  {PL_Q4_K, 0x5e1ad858d667dc85},   {PL_Q5_K, 0x1e58d378919962c9},
    {PL_Q6_K, 0x668b583482d723fd},  {PL_IQ4_NL, 0x85400573eb9a936d}, {PL_IQ4_XS, 0x150d2760c0cb2599},
    {PL_MXFP4, 0xeaea42305e3be0ed}, {PL_NVFP4, 0xc0fcccb367966db0},
};

/* Any bytes but scales that are finite. The blocks begin at an odd address: files promise none. */
static pl_tensor make_blocks(pl_dtype type, int64_t rows, int64_t cols)
{
    pl_tensor t = {"t", NULL, rows, cols, type};
    size_t bytes = (size_t)rows * pl_tensor_row_bytes(&t), step = (size_t)pl_dtype_describe((int)type)->block_bytes;
    uint8_t *room = malloc(bytes + 1), *data = room + 1;
    int at[2];
    pl_rng rng;
    pl_rng_seed(&rng, (uint64_t)(rows * COLS_MOST + cols));
    for (size_t i = 0; i < bytes; i++)
        data[i] = (uint8_t)(pl_rng_next(&rng) >> 32);
    scale_offsets(type, at);
    for (size_t b = 0; b < bytes; b += step)
        for (int i = 0; i < 2 && at[i] >= 0; i++)
            data[b + (size_t)at[i] + 1] &= 0xbf; /* an exponent of less than 16 */
    t.data = data;
    return t;
}

static void free_blocks(const pl_tensor *t)
{
    free((uint8_t *)(uintptr_t)t->data - 1);
}

/* Into memory that holds something else. */
static void *pack(pl_pool *pool, const pl_tensor *t)
{
    pl_weight w;
    pl_error err;
    void *panels = aligned_alloc(64, pl_pack_bytes(t));
    memset(panels, 0xa5, pl_pack_bytes(t));
    cr_assert_eq(pl_pack(pool, t, panels, &w, &err), PL_OK, "%s", err.message);
    return panels;
}

static uint64_t fnv1a(uint64_t hash, const unsigned char *p, size_t n)
{
    for (size_t i = 0; i < n; i++)
        hash = (hash ^ p[i]) * 0x100000001b3;
    return hash;
}

static uint64_t hash_of(pl_pool *pool, pl_dtype type, uint64_t hash)
{
    static const int64_t rows[] = {1, 15, 16, 17, 37, 64};
    int64_t block = pl_dtype_describe((int)type)->block_elems, cols[] = {block, 3 * block, 256, COLS_MOST - block};
    for (size_t r = 0; r < sizeof rows / sizeof *rows; r++)
        for (size_t c = 0; c < sizeof cols / sizeof *cols; c++) {
            pl_tensor t = make_blocks(type, rows[r], cols[c]);
            unsigned char *panels = pack(pool, &t);
            hash = fnv1a(hash, panels, pl_pack_bytes(&t));
            free(panels);
            free_blocks(&t);
        }
    return hash;
}

Test(pack, every_type_has_the_bytes_that_kernels_and_cards_expect)
{
    for (int threads = 1; threads <= 3; threads += 2) {
        pl_pool *pool;
        pl_error err;
        cr_assert_eq(pl_pool_create(threads, NULL, &pool, &err), PL_OK);
        for (size_t i = 0; i < sizeof packings / sizeof *packings; i++) {
            uint64_t hash = hash_of(pool, packings[i].type, 0xcbf29ce484222325);
            cr_expect_eq(hash, packings[i].hash, "type %d, %d threads: %#llx", (int)packings[i].type, threads,
                         (unsigned long long)hash);
        }
        pl_pool_free(pool);
    }
}

Test(pack, some_rows_alone_are_packed_as_among_all)
{
    pl_pool *pool;
    pl_error err;
    cr_assert_eq(pl_pool_create(2, NULL, &pool, &err), PL_OK);
    for (size_t i = 0; i < sizeof packings / sizeof *packings; i++) {
        pl_tensor t = make_blocks(packings[i].type, 53, 512);
        char *all = pack(pool, &t);
        size_t panel = pl_pack_bytes(&t) / 4;
        char *some = malloc(2 * panel);
        cr_assert_eq(pl_pack_rows(pool, &t, 32, 21, some, &err), PL_OK);
        cr_assert_arr_eq(some, all + 2 * panel, 2 * panel, "type %d", (int)packings[i].type);
        free(some);
        free(all);
        free_blocks(&t);
    }
    pl_pool_free(pool);
}
