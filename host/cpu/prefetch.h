/* Asking for memory before it is read. */
#ifndef PL_CPU_PREFETCH_H
#define PL_CPU_PREFETCH_H

#include <stddef.h>

/* To the second-level cache. */
static inline __attribute__((always_inline)) void pl_prefetch(const void *p, size_t bytes)
{
    for (size_t i = 0; i < bytes; i += 64)
        __builtin_prefetch((const char *)p + i, 0, 2);
}

#endif
