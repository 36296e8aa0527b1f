/* Sums in the order in which they are written, of 256-bit integers. */
#ifndef PL_CPU_IN_ORDER_H
#define PL_CPU_IN_ORDER_H

#include <immintrin.h>

/* Left alone, gcc adds products up in pairs, for which there are no registers. */
static inline __attribute__((always_inline)) __m256i pl_in_order(__m256i sum)
{
    __asm__("" : "+x"(sum));
    return sum;
}

#endif
