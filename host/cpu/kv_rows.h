/* Keys and values of one head to and from a page (host/ops/kv_page.h). Every instruction set gives the same bits.
 *
 * f16: rounded to nearest even. q8_0: a group's scale is the least f16 from its largest magnitude / 127 on, so that no
 * value is further than half a scale from what is kept of it. A group with a value that is not finite, or beyond what an
 * f16 scale reaches, is kept as NaN. */
#ifndef PL_CPU_KV_ROWS_H
#define PL_CPU_KV_ROWS_H

#include "host/ops/kv_page.h"

#define PL_KV_ROWS(isa)                                                                                                   \
    /* Token `row` of the page becomes x. */                                                                              \
    void pl_kv_put_##isa(pl_cache_type type, void *page, int row, const float *x, int dim);                               \
    /* out = tokens [first, first + n) of the page, [n][dim]; not for f32. Asks on the way for the same tokens of the   \
     * page `next`, which will be wanted soon; may be NULL. */ \
    void pl_kv_get_##isa(pl_cache_type type, const void *page, int first, int n, int dim, float *out, const void *next);

PL_KV_ROWS(base)
PL_KV_ROWS(avx2)
PL_KV_ROWS(avx512)

#endif
