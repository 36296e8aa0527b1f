/* Any finite values and weights to blocks of every type: what they decode to is finite, and each instruction set
 * gives the same bytes. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "host/base/cpu.h"
#include "quant/encode.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define VALUES 512

static void require(bool holds)
{
    if (!holds)
        abort();
}

/* The i-th four bytes of data, over and over, as a finite value. */
static float value_at(const uint8_t *data, size_t n, size_t i)
{
    uint32_t bits;
    memcpy(&bits, data + 4 * (i % n), sizeof bits);
    if ((bits & 0x7f800000) == 0x7f800000)
        bits ^= 0x40000000;
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

static void check(pl_dtype type, const float *x, const float *weight)
{
    static uint8_t blocks[4 * VALUES], other[4 * VALUES];
    static float decoded[VALUES];
    const unsigned features = pl_cpu_features(PL_CPU_ALL), sets[] = {PL_CPU_AVX2, PL_CPU_ALL};
    pl_encoder_select(PL_CPU_NONE)->encode(type, x, weight, blocks, VALUES);
    for (int i = 0; i < 2; i++) {
        pl_encoder_select(pl_cpu_complete(features & sets[i]))->encode(type, x, weight, other, VALUES);
        require(memcmp(blocks, other, pl_dtype_bytes(type, VALUES)) == 0);
    }
    pl_decode(type, blocks, decoded, VALUES);
    for (int i = 0; i < VALUES; i++)
        require(isfinite(decoded[i]));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static float x[VALUES], weight[VALUES];
    size_t n = size / 8;
    if (n == 0)
        return 0;
    for (size_t i = 0; i < VALUES; i++) {
        x[i] = value_at(data, n, i);
        weight[i] = fabsf(value_at(data + 4 * n, n, i));
    }
    for (int type = 0; type <= PL_NVFP4; type++)
        if (pl_dtype_describe(type)) {
            check((pl_dtype)type, x, NULL);
            check((pl_dtype)type, x, weight);
        }
    return 0;
}
