/* Sizes that attention's scratch memory follows from. */
#ifndef PL_CPU_ATTENTION_H
#define PL_CPU_ATTENTION_H

#include "host/ops/ops.h"

#define PL_ATTENTION_SEGMENT 128    /* keys whose softmax is one unit of work; whole pages */
#define PL_ATTENTION_KEYS 16        /* keys or values that are made f32 at once, so that they stay in the first cache */
#define PL_ATTENTION_SPLIT_TASKS 16 /* with at most this many (row, K/V head) pairs, segments are spread over threads */
#define PL_ATTENTION_MAX_GROUP 64   /* query heads of a K/V head */
#define PL_ATTENTION_BLOCK 64       /* query heads of neighbouring rows that share one pass over a K/V head */

/* Rows whose query heads of one K/V head make up a block. */
static inline int pl_attention_block_rows(pl_heads heads)
{
    int group = heads.heads / heads.kv_heads;
    return group < PL_ATTENTION_BLOCK ? PL_ATTENTION_BLOCK / group : 1;
}

/* dim, in whole lines of the cache. */
static inline int64_t pl_attention_dim_floats(pl_heads heads)
{
    return (heads.dim + 15) / 16 * 16;
}

/* One segment's part of the result for one query head: weighted values; maximum score and sum behind them. */
static inline int64_t pl_attention_part_floats(pl_heads heads)
{
    return pl_attention_dim_floats(heads) + 16;
}

/* Scratch of one thread: scores of a segment and one part, for each query head of a block; keys or values in f32. */
static inline int64_t pl_attention_thread_floats(pl_heads heads)
{
    int64_t queries = (int64_t)pl_attention_block_rows(heads) * (heads.heads / heads.kv_heads);
    return queries * (PL_ATTENTION_SEGMENT + pl_attention_part_floats(heads)) +
           PL_ATTENTION_KEYS * pl_attention_dim_floats(heads);
}

/* Partial results of all segments, for steps small enough to be split. */
static inline int64_t pl_attention_partial_floats(pl_heads heads, int max_context)
{
    int64_t segments = (max_context + PL_ATTENTION_SEGMENT - 1) / PL_ATTENTION_SEGMENT;
    int64_t tasks = PL_ATTENTION_SPLIT_TASKS * (heads.heads / heads.kv_heads);
    return tasks * segments * pl_attention_part_floats(heads);
}

#endif
