/* What a product needs of a row's sums alone (see pl_row_terms). Compiled for every instruction set. */
#include "host/base/isa.h"
#include "host/cpu/matmul_tile.h"

static inline void fill(pl_panel_type t, const int32_t *sum, const float *scale, int groups, pl_row_terms *out)
{
    switch (t.kind) {
    case PL_PANEL_OFFSET:
        for (int g = 0; g < groups; g++)
            out->start[g] = -t.offset * (sum[2 * g] + sum[2 * g + 1]);
        break;
    case PL_PANEL_HALVES:
        for (int h = 0; h < 2 * groups; h++)
            out->start[h] = -t.offset * sum[h];
        break;
    case PL_PANEL_MIN:
        for (int g = 0; g < groups; g++)
            out->shift[g] = scale[g] * (float)(sum[2 * g] + sum[2 * g + 1]);
        break;
    case PL_PANEL_MIN_HALVES:
        for (int h = 0; h < 2 * groups; h++)
            out->shift[h] = scale[h / 2] * (float)sum[h];
        break;
    }
}

void PL_ISA_NAME(pl_terms)(pl_panel_type type, const int32_t *sum, const float *scale, int groups, pl_row_terms *out)
{
    if (groups == PL_SPAN_GROUPS)
        fill(type, sum, scale, PL_SPAN_GROUPS, out); /* a number that the compiler knows */
    else
        fill(type, sum, scale, groups, out);
}
