#include "host/engine/softmax.h"

#include <math.h>
#include <string.h>

#include "host/ops/draw_math.h"

/* Four lanes exist everywhere; WIDTH elements a turn keep the additions of several turns in flight. */
typedef float f32x4 __attribute__((vector_size(16)));
typedef int32_t i32x4 __attribute__((vector_size(16)));

#define LANES 4
#define TURNS 4
#define WIDTH (LANES * TURNS)

static inline f32x4 load(const float *x)
{
    f32x4 v;
    memcpy(&v, x, sizeof v);
    return v;
}

static inline f32x4 larger(f32x4 a, f32x4 b)
{
    i32x4 first = a > b;
    return (f32x4)((first & (i32x4)a) | (~first & (i32x4)b));
}

static inline f32x4 splat(float x)
{
    return (f32x4){x, x, x, x};
}

bool pl_max_finite(const float *x, size_t n, float *max)
{
    f32x4 m[TURNS], poison[TURNS]; /* poison: 0, or NaN once an x was NaN or infinite */
    for (size_t j = 0; j < TURNS; j++) {
        m[j] = splat(-INFINITY);
        poison[j] = splat(0.0f);
    }
    size_t i = 0;
    for (; i + WIDTH <= n; i += WIDTH)
        for (size_t j = 0; j < TURNS; j++) {
            f32x4 v = load(x + i + LANES * j);
            m[j] = larger(v, m[j]);
            poison[j] += v * splat(0.0f);
        }
    float largest = -INFINITY, sum = 0.0f;
    for (size_t j = 0; j < WIDTH; j++) {
        float v = m[j / LANES][j % LANES];
        largest = v > largest ? v : largest;
        sum += poison[j / LANES][j % LANES];
    }
    for (; i < n; i++) {
        largest = x[i] > largest ? x[i] : largest;
        sum += x[i] * 0.0f;
    }
    *max = largest;
    return sum == 0.0f;
}

float pl_max(const float *x, size_t n)
{
    f32x4 m[TURNS];
    for (size_t j = 0; j < TURNS; j++)
        m[j] = splat(-INFINITY);
    size_t i = 0;
    for (; i + WIDTH <= n; i += WIDTH)
        for (size_t j = 0; j < TURNS; j++)
            m[j] = larger(load(x + i + LANES * j), m[j]);
    float largest = -INFINITY;
    for (size_t j = 0; j < WIDTH; j++) {
        float v = m[j / LANES][j % LANES];
        largest = v > largest ? v : largest;
    }
    for (; i < n; i++)
        largest = x[i] > largest ? x[i] : largest;
    return largest;
}

size_t pl_find_from(const float *x, size_t from, size_t n, float low)
{
    size_t i = from;
    for (; i + WIDTH <= n; i += WIDTH) {
        i32x4 hits = load(x + i) >= splat(low);
        for (size_t j = 1; j < TURNS; j++)
            hits |= load(x + i + LANES * j) >= splat(low);
        if (hits[0] | hits[1] | hits[2] | hits[3])
            break;
    }
    while (i < n && !(x[i] >= low))
        i++;
    return i;
}

/* p[j] = e^(x[j] - max) for j < WIDTH. */
static inline void terms(const float *x, float max, float *p)
{
    for (size_t j = 0; j < WIDTH; j++)
        p[j] = pl_exp_negative(x[j] - max);
}

double pl_exp_sum(const float *x, size_t n, float max, float *p)
{
    double sum[WIDTH] = {0};
    float e[WIDTH];
    size_t i = 0;
    for (; i + WIDTH <= n; i += WIDTH) {
        terms(x + i, max, e);
        for (size_t j = 0; j < WIDTH; j++)
            sum[j] += e[j];
        if (p)
            memcpy(p + i, e, sizeof e);
    }
    double total = 0.0;
    for (size_t j = 0; j < WIDTH; j++)
        total += sum[j];
    for (; i < n; i++) {
        e[0] = pl_exp_negative(x[i] - max);
        total += e[0];
        if (p)
            p[i] = e[0];
    }
    return total;
}

uint64_t pl_exp_mass(const float *x, size_t n, float max, float *p)
{
    uint64_t sum[WIDTH] = {0};
    size_t i = 0;
    for (; i + WIDTH <= n; i += WIDTH) {
        terms(x + i, max, p + i);
        for (size_t j = 0; j < WIDTH; j++)
            sum[j] += pl_mass(p[i + j]);
    }
    uint64_t total = 0;
    for (size_t j = 0; j < WIDTH; j++)
        total += sum[j];
    for (; i < n; i++) {
        p[i] = pl_exp_negative(x[i] - max);
        total += pl_mass(p[i]);
    }
    return total;
}

/* log(m 2^k) = k ln 2 + 2 artanh(s), s = (m - 1) / (m + 1), m in [sqrt(1/2), sqrt(2)): |s| < 0.172, and the
 * first term left out, s^23 / 23, is under 1e-18. */
double pl_log(double x)
{
    int k;
    double m = frexp(x, &k);
    if (m < 0.70710678118654752) {
        m *= 2.0;
        k--;
    }
    double s = (m - 1.0) / (m + 1.0), z = s * s, series = 0.0;
    for (int i = 21; i >= 1; i -= 2)
        series = series * z + 1.0 / i;
    return k * 0.69314718055994531 + 2.0 * s * series;
}
