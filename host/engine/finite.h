/* Whether all of some values are finite numbers: one pass without a branch. */
#ifndef PL_ENGINE_FINITE_H
#define PL_ENGINE_FINITE_H

#include <math.h>
#include <stdbool.h>
#include <stdint.h>

static inline bool pl_all_finite(const float *v, int64_t n)
{
    float zero = 0; /* infinity times zero is NaN, and stays */
    for (int64_t i = 0; i < n; i++)
        zero += v[i] * 0.0f;
    return !isnan(zero);
}

#endif
