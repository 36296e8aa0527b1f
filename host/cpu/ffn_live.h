/* Which neurons of an FFN with a cutoff are live. */
#ifndef PL_CPU_FFN_LIVE_H
#define PL_CPU_FFN_LIVE_H

#include "host/base/vec.h"
#include "host/cpu/panel.h"

/* Bit i: gate i of up to 32 is above the cutoff, or there is no telling. */
static inline uint32_t live_bits(const float *gate, int64_t n, float cut)
{
    uint32_t bits = 0;
    int i = 0;
    for (; i < PL_GROUP && i + PL_PART_LANES <= n; i += PL_PART_LANES) {
        pl_part g = part_load(gate + i);
#if defined(__AVX512F__)
        bits |= (uint32_t)_mm512_cmp_ps_mask((__m512)g, _mm512_set1_ps(cut), _CMP_NLE_UQ) << i;
#elif defined(__AVX__)
        bits |= (uint32_t)_mm256_movemask_ps(_mm256_cmp_ps((__m256)g, _mm256_set1_ps(cut), _CMP_NLE_UQ)) << i;
#else
        for (int lane = 0; lane < PL_PART_LANES; lane++)
            bits |= (uint32_t) !(g[lane] <= cut) << (i + lane);
#endif
    }
    for (; i < PL_GROUP && i < n; i++)
        bits |= (uint32_t) !(gate[i] <= cut) << i;
    return bits;
}

#endif
