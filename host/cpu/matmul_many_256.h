/* What products of many rows on 256-bit registers have in common, exact and rounded ones. */
#ifndef PL_CPU_MATMUL_MANY_256_H
#define PL_CPU_MATMUL_MANY_256_H

#include "host/cpu/matmul_tile.h"

#include <immintrin.h>

#define INLINE static inline __attribute__((always_inline))

/* Adds a part's sums of half a panel's rows, from row n on, to the f32 sums at acc. */
INLINE void add_sums(pl_panel_kind kind, __m256i sum, const pl_wide_codes *w, int part, int n, __m256 scale,
                     __m256 shift, float *acc)
{
    __m256 d = _mm256_mul_ps(scale, _mm256_load_ps(w->d[part] + n));
    __m256 v = _mm256_fmadd_ps(_mm256_cvtepi32_ps(sum), d, _mm256_loadu_ps(acc + n));
    if (pl_has_minimum(kind))
        v = _mm256_fmadd_ps(shift, _mm256_load_ps(w->m[part] + n), v);
    _mm256_storeu_ps(acc + n, v);
}

#endif
