/* The tile registers' shapes, for the kernels on AMX. */
#ifndef PL_CPU_AMX_H
#define PL_CPU_AMX_H

#include <immintrin.h>
#include <stdatomic.h>
#include <stdint.h>

typedef struct pl_tile_config {
    uint8_t palette, start_row, reserved[14];
    uint16_t row_bytes[16];
    uint8_t rows[16];
} __attribute__((aligned(64))) pl_tile_config;

/* All eight have `rows` rows of 64 bytes. The compilers do not know what a configuration's instruction reads: stores to a
 * volatile one are not left out. */
static inline void pl_tiles_fill(volatile pl_tile_config *c, int rows)
{
    for (int t = 0; t < 8; t++) {
        c->rows[t] = (uint8_t)rows;
        c->row_bytes[t] = 64;
    }
}

static inline void pl_tiles_configure(const volatile pl_tile_config *c)
{
    atomic_signal_fence(memory_order_seq_cst);
    _tile_loadconfig((const void *)(uintptr_t)c);
}

#endif
