/* Activations to integers (see pl_act). Compiled for every instruction set; each operation is exact or
 * correctly rounded and none is contracted, so that all give the same bits. */
#include "host/base/isa.h"
#include "host/cpu/matmul_tile.h"
#include "host/ops/matmul.h"

#include <math.h>
#include <string.h>

#define LARGEST 16256 /* 128 * 127 */

/* As integers, magnitudes order like floats, infinity and NaN above all others. */
static uint32_t largest_magnitude(const float *x)
{
    uint32_t largest = 0;
    for (int i = 0; i < PL_ACT_BLOCK; i++) {
        uint32_t bits;
        memcpy(&bits, x + i, sizeof bits);
        bits &= 0x7fffffff;
        largest = bits > largest ? bits : largest;
    }
    return largest;
}

static void quantize_block(const float *x, int8_t *hi_lo, float *scale, int32_t *sum)
{
    uint32_t bits = largest_magnitude(x);
    float largest;
    memcpy(&largest, &bits, sizeof largest);
    if (!(largest >= 0x1p-100f && largest < INFINITY)) {
        memset(hi_lo, 0, 2 * PL_ACT_BLOCK);
        sum[0] = sum[1] = 0;
        *scale = bits >= 0x7f800000 ? NAN : 0;
        return;
    }
    *scale = largest / LARGEST;
    float inverse = LARGEST / largest;
    const float round = 0x1.8p23f; /* adding it leaves no room for a fraction: nearest, ties to even */
    for (int h = 0; h < 2; h++) {
        int32_t total = 0;
        for (int i = 16 * h; i < 16 * h + 16; i++) {
            int32_t q = (int32_t)((x[i] * inverse + round) - round);
            int32_t hi = (q + 64) >> 7;
            hi_lo[i] = (int8_t)hi;
            hi_lo[PL_ACT_BLOCK + i] = (int8_t)(q - 128 * hi);
            total += q;
        }
        sum[h] = total;
    }
}

void PL_ISA_NAME(pl_quantize_row)(const float *x, int64_t cols, int8_t *hi_lo, float *scale, int32_t *sum)
{
    int64_t whole = cols / PL_ACT_BLOCK, b = 0;
    for (; b < whole; b++)
        quantize_block(x + b * PL_ACT_BLOCK, hi_lo + b * 2 * PL_ACT_BLOCK, scale + b, sum + 2 * b);
    if (cols % PL_ACT_BLOCK) {
        float last[PL_ACT_BLOCK] = {0};
        memcpy(last, x + b * PL_ACT_BLOCK, (size_t)(cols % PL_ACT_BLOCK) * sizeof *x);
        quantize_block(last, hi_lo + b * 2 * PL_ACT_BLOCK, scale + b, sum + 2 * b);
    }
}
