#include <criterion/criterion.h>
#include <stdint.h>
#include <string.h>

#include "host/base/arena.h"

/* Writes where AddressSanitizer would stop it. */
__attribute__((no_sanitize("address"), noinline)) static void poke(volatile unsigned char *p)
{
    *p ^= 0x40;
}

static pl_arena *arena_of(size_t chunk_bytes)
{
    pl_arena *arena;
    cr_assert_eq(pl_arena_create(chunk_bytes, &arena, NULL), PL_OK);
    return arena;
}

Test(arena, blocks_are_aligned_zeroed_and_apart)
{
    pl_arena *arena = arena_of(1000);
    unsigned char *blocks[200];
    size_t total = 0;
    for (size_t i = 0; i < 200; i++) {
        blocks[i] = pl_arena_take(arena, i, 7); /* from nothing to more than a chunk */
        cr_assert_not_null(blocks[i]);
        cr_assert_eq((uintptr_t)blocks[i] % PL_ARENA_ALIGN, 0);
        for (size_t j = 0; j < 7 * i; j++)
            cr_assert_eq(blocks[i][j], 0);
        memset(blocks[i], (int)i + 1, 7 * i);
        total += 7 * i;
    }
    for (size_t i = 0; i < 200; i++)
        for (size_t j = 0; j < 7 * i; j++)
            cr_assert_eq(blocks[i][j], (unsigned char)(i + 1));
    cr_assert_eq(pl_arena_used_bytes(arena), total);
    cr_assert(pl_arena_check(arena));
    pl_arena_free(arena);
}

Test(arena, text)
{
    pl_arena *arena = arena_of(256);
    char *copy = pl_arena_text(arena, "Pleione and Atlas", 7);
    cr_assert_str_eq(copy, "Pleione");
    cr_assert_str_eq(pl_arena_text(arena, NULL, 0), "");
    pl_arena_free(arena);
}

Test(arena, reset_keeps_the_memory)
{
    pl_arena *arena = arena_of(512);
    unsigned char *small = pl_arena_take(arena, 1, 100);
    unsigned char *large = pl_arena_take(arena, 1, 5000);
    memset(small, 1, 100);
    memset(large, 1, 5000);
    pl_arena_reset(arena);
    cr_assert_eq(pl_arena_used_bytes(arena), 0);
    cr_assert(pl_arena_check(arena));
    cr_assert_eq(pl_arena_take(arena, 1, 100), small);
    cr_assert_eq(pl_arena_take(arena, 1, 4000), large);
    cr_assert_eq(small[99], 0);
    cr_assert_eq(large[3999], 0);
    cr_assert(pl_arena_check(arena));
    pl_arena_free(arena);
}

Test(arena, check_finds_writes_around_a_block)
{
    static const int offsets[] = {-1, -PL_ARENA_ALIGN, 100, 127, 128, 128 + PL_ARENA_ALIGN - 1};
    for (size_t i = 0; i < sizeof offsets / sizeof *offsets; i++) {
        pl_arena *arena = arena_of(4096);
        pl_arena_take(arena, 1, 64);
        unsigned char *block = pl_arena_take(arena, 1, 100);
        pl_arena_take(arena, 1, 64);
        cr_assert(pl_arena_check(arena));
        poke(block + offsets[i]);
        cr_assert_not(pl_arena_check(arena), "offset %d", offsets[i]);
        poke(block + offsets[i]);
        cr_assert(pl_arena_check(arena));
        pl_arena_free(arena);
    }
}

Test(arena, sizes_that_overflow)
{
    pl_arena *arena = arena_of(4096);
    cr_assert_null(pl_arena_take(arena, SIZE_MAX / 2, 3));
    cr_assert_null(pl_arena_take(arena, SIZE_MAX, 1));
    cr_assert_null(pl_arena_take(arena, SIZE_MAX / 2 - 1, 1));
    cr_assert_null(pl_arena_text(arena, "", SIZE_MAX));
    cr_assert_not_null(pl_arena_take(arena, 0, SIZE_MAX));
    pl_arena_free(arena);
    pl_error err;
    cr_assert_eq(pl_arena_create(SIZE_MAX, &arena, &err), PL_ERR_ARGUMENT);
    pl_arena_free(NULL);
}
