/* Sixteen bytes at once as four words, in plain C: operations on codes that never carry into the next byte. */
#ifndef PL_CPU_QUAD_H
#define PL_CPU_QUAD_H

#include <stdint.h>
#include <string.h>

typedef uint32_t pl_quad __attribute__((vector_size(16)));

static inline pl_quad pl_quad_at(const uint8_t *p)
{
    pl_quad v;
    memcpy(&v, p, sizeof v);
    return v;
}

static inline void pl_quad_put(uint8_t *p, pl_quad v)
{
    memcpy(p, &v, sizeof v);
}

#endif
