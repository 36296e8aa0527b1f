/* Block types on AVX-VNNI. */
#include "host/cpu/matmul_tile_256.h"

void pl_unpack_avxvnni(pl_dtype type, const uint8_t *span, int groups, pl_span_codes *out)
{
    unpack(type, span, groups, out);
}

void pl_tile_avxvnni(pl_dtype type, const pl_span_codes *w, int n_panels, int groups, const pl_tile_rows *rows,
                     float *acc, int64_t acc_ld)
{
    tile(type, w, n_panels, groups, rows, acc, acc_ld);
}

void pl_direct_avxvnni(pl_dtype type, const uint8_t *const *span, int n_panels, int groups, const pl_tile_rows *rows,
                       float *acc)
{
    direct(type, span, n_panels, groups, rows, acc);
}
