/* Blocks of sixteen rows, as the file has them, to codes and scales. */
#ifndef PL_CPU_BLOCK_ROWS_H
#define PL_CPU_BLOCK_ROWS_H

#include "host/cpu/panel.h"

/* `rows` rows, 1 to PL_PANEL_ROWS, `stride` bytes apart, from some column on; any alignment. */
typedef struct pl_block_rows {
    const uint8_t *first;
    size_t stride;
    int rows;
} pl_block_rows;

/* Groups 0 to n_groups - 1 behind `from`, which is the beginning of a block. Leaves alone in out what the type does not
 * have, and rows that there are not. */
void pl_block_rows_read(pl_dtype type, const pl_block_rows *from, int n_groups, pl_panel_group *out);

#endif
