/* For tests that fill blocks with any bytes but choose their scales. */
#ifndef PL_TESTS_OPS_BLOCK_SCALES_H
#define PL_TESTS_OPS_BLOCK_SCALES_H

#include "quant/blocks.h"

/* Where a type's blocks keep f16 scales: byte offsets, -1 for none. */
static inline void scale_offsets(pl_dtype type, int at[2])
{
    at[0] = 0;
    at[1] = -1;
    switch (type) {
    case PL_Q4_1:
    case PL_Q5_1:
    case PL_Q4_K:
    case PL_Q5_K: at[1] = 2; break;
    case PL_Q2_K:
        at[0] = (int)offsetof(pl_block_q2_k, d);
        at[1] = (int)offsetof(pl_block_q2_k, dmin);
        break;
    case PL_Q3_K: at[0] = (int)offsetof(pl_block_q3_k, d); break;
    case PL_Q6_K: at[0] = (int)offsetof(pl_block_q6_k, d); break;
    case PL_MXFP4:
    case PL_NVFP4: at[0] = -1; break;
    default: break;
    }
}

#endif
