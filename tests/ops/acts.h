/* Operands of products, with room for their integers, whose values are theirs to fill. */
#ifndef PL_TESTS_OPS_ACTS_H
#define PL_TESTS_OPS_ACTS_H

#include "host/ops/matmul.h"

#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

static inline void *act_room(size_t bytes)
{
    void *p = aligned_alloc(64, (bytes + 127) / 64 * 64);
    cr_assert_not_null(p);
    memset(p, 0x5a, bytes);
    return p;
}

/* x: borrowed, rows `ld` apart; wide: with room for what products of many rows make of them. */
static inline pl_act act_open(const float *x, int64_t ld, int rows, int64_t cols, bool wide)
{
    int64_t blocks = (cols + PL_ACT_BLOCK - 1) / PL_ACT_BLOCK;
    size_t n = (size_t)(rows * blocks);
    return (pl_act){.f32 = x,
                    .ld = ld,
                    .cols = cols,
                    .blocks = blocks,
                    .hi_lo = act_room(n * 2 * PL_ACT_BLOCK),
                    .scale = act_room(n * sizeof(float)),
                    .sum = act_room(n * 2 * sizeof(int32_t)),
                    .wide = wide ? act_room(pl_act_wide_bytes(rows, blocks)) : NULL};
}

static inline void act_close(const pl_act *x)
{
    free(x->hi_lo);
    free(x->scale);
    free(x->sum);
    free(x->wide);
}

#endif
