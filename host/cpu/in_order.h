/* 256-bit steps in the order and the place in which they are written. Left alone, gcc adds products up in pairs, for which
 * there are no registers, and a barrier behind an addition costs it a copy; and it reads from memory once for each product
 * what is an operand of several. */
#ifndef PL_CPU_IN_ORDER_H
#define PL_CPU_IN_ORDER_H

#include <immintrin.h>

static inline __attribute__((always_inline)) __m256i pl_add_epi16(__m256i sum, __m256i v)
{
    __asm__("vpaddw %1, %0, %0" : "+x"(sum) : "x"(v));
    return sum;
}

static inline __attribute__((always_inline)) __m256i pl_add_epi32(__m256i sum, __m256i v)
{
    __asm__("vpaddd %1, %0, %0" : "+x"(sum) : "x"(v));
    return sum;
}

static inline __attribute__((always_inline)) __m256 pl_in_register(__m256 v)
{
    __asm__("" : "+x"(v));
    return v;
}

#endif
