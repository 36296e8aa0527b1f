/* How keys and values lie in a page, by type. A head's K (or V) of the page's PL_KV_PAGE tokens:
 *
 *     f32, f16   [PL_KV_PAGE][dim] values
 *     q8_0       [PL_KV_PAGE][dim] int8, then [PL_KV_PAGE][groups] scales, f16: a group is PL_KV_GROUP values of a head,
 *                the last may be shorter; a value is its int8 times its group's scale */
#ifndef PL_OPS_KV_PAGE_H
#define PL_OPS_KV_PAGE_H

#include "host/include/pleiad.h"

#include <stddef.h>
#include <stdint.h>

#define PL_KV_PAGE 64 /* tokens */
#define PL_KV_GROUP 32

static inline int pl_kv_groups(int dim)
{
    return (dim + PL_KV_GROUP - 1) / PL_KV_GROUP;
}

/* Bytes of a head's K in a page: a multiple of 64. */
static inline size_t pl_kv_head_bytes(pl_cache_type type, int dim)
{
    switch (type) {
    case PL_CACHE_F32: break;
    case PL_CACHE_F16: return (size_t)PL_KV_PAGE * (size_t)dim * sizeof(uint16_t);
    case PL_CACHE_Q8_0: return (size_t)PL_KV_PAGE * ((size_t)dim + (size_t)pl_kv_groups(dim) * sizeof(uint16_t));
    }
    return (size_t)PL_KV_PAGE * (size_t)dim * sizeof(float);
}

#endif
