/* Values without blocks, and the measure of errors. */
#include "host/base/isa.h"
#include "quant/encode_parts.h"
#include "quant/lanes.h"

/* ---- plain types --------------------------------------------------------------------------------------------- */

/* bf16 bits, rounded to nearest even; what is finite stays so. */
PL_INLINE pl_lanesi to_bf16(pl_lanes x)
{
    pl_lanesi size = (pl_lanesi)x & 0x7fffffff, most = lanes_seti(0x7f7f);
    pl_lanesi rounded = (size + 0x7fff + (size >> 16 & 1)) >> 16;
    return lanes_selecti(rounded > most, most, rounded) | ((pl_lanesi)x >> 16 & 0x8000);
}

typedef uint16_t half_lanes __attribute__((vector_size(2 * PL_WIDTH)));

PL_INLINE half_lanes to_half(pl_lanes x, int brain)
{
    return __builtin_convertvector(brain ? to_bf16(x) : lanes_to_f16(x), half_lanes);
}

PL_INLINE void encode_halves(const float *src, unsigned char *dst, int64_t n, int brain)
{
    int64_t i = 0;
    for (; i + PL_WIDTH <= n; i += PL_WIDTH) {
        half_lanes h = to_half(lanes_load(src + i), brain);
        memcpy(dst + 2 * i, &h, sizeof h);
    }
    if (i < n) {
        float last[PL_WIDTH] = {0};
        memcpy(last, src + i, (size_t)(n - i) * sizeof *last);
        half_lanes h = to_half(lanes_load(last), brain);
        memcpy(dst + 2 * i, &h, (size_t)(n - i) * 2);
    }
}

void PL_ISA_NAME(pl_encode_plain)(pl_dtype type, const float *src, void *dst, int64_t n)
{
    if (type == PL_F32)
        memcpy(dst, src, (size_t)n * sizeof *src);
    else if (type == PL_BF16)
        encode_halves(src, dst, n, 1);
    else
        encode_halves(src, dst, n, 0);
}

/* ---- errors -------------------------------------------------------------------------------------------------- */

/* The number of values summed side by side, for every instruction set: it decides the last bits of the sums. */
#define SIDE 8

typedef float side_values __attribute__((vector_size(4 * SIDE)));
typedef double side_sums __attribute__((vector_size(8 * SIDE)));

PL_INLINE side_sums wide(const float *p)
{
    side_values v;
    memcpy(&v, p, sizeof v);
    return __builtin_convertvector(v, side_sums);
}

typedef struct sums {
    side_sums error, energy;
} sums;

PL_INLINE void add(sums *s, const float *a, const float *b, const float *weight, int64_t n)
{
    sums t = *s;
    for (int64_t i = 0; i < n; i += SIDE) {
        side_sums x = wide(a + i), r = x - wide(b + i);
        side_sums w = weight ? wide(weight + i) : (side_sums){0} + 1;
        t.error += w * (r * r);
        t.energy += w * (x * x);
    }
    *s = t;
}

PL_INLINE double total(side_sums v)
{
    double sum = 0;
    for (int i = 0; i < SIDE; i++)
        sum += v[i];
    return sum;
}

PL_INLINE pl_encode_error measure(const float *a, const float *b, const float *weight, int64_t n)
{
    sums s = {{0}, {0}};
    int64_t whole = n - n % SIDE;
    size_t rest = (size_t)(n - whole) * sizeof *a;
    add(&s, a, b, weight, whole);
    float last[3][SIDE] = {{0}};
    memcpy(last[0], a + whole, rest);
    memcpy(last[1], b + whole, rest);
    if (weight)
        memcpy(last[2], weight + whole, rest);
    add(&s, last[0], last[1], weight ? last[2] : NULL, SIDE);
    return (pl_encode_error){total(s.error), total(s.energy)};
}

pl_encode_error PL_ISA_NAME(pl_encode_measure)(const float *a, const float *b, const float *weight, int64_t n)
{
    return weight ? measure(a, b, weight, n) : measure(a, b, NULL, n);
}
