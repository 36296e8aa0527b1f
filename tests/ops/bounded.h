/* Numbers in double precision with a bound on how far an f32 computation of the same formula may be from them.
 * The bound is carried along by the rules of docs/numerics.md; nothing in it is measured except tanh and exp. */
#ifndef PL_TESTS_OPS_BOUNDED_H
#define PL_TESTS_OPS_BOUNDED_H

#include <math.h>
#include <stdint.h>

#define UNIT (1.01 * 0x1p-24) /* one rounding; the hundredth covers products of errors */
#define EXP_UNITS 1.5         /* docs/numerics.md, "exp, tanh, gelu" */
#define TANH_UNITS 2.5

typedef struct num {
    double v, e;
} num;

static inline num num_of(double exact)
{
    return (num){exact, 0};
}

static inline num num_rounded(double v, double e)
{
    return (num){v, e + UNIT * fabs(v)};
}

static inline num num_add(num a, num b)
{
    return num_rounded(a.v + b.v, a.e + b.e);
}

static inline num num_sub(num a, num b)
{
    return num_rounded(a.v - b.v, a.e + b.e);
}

static inline num num_mul(num a, num b)
{
    return num_rounded(a.v * b.v, fabs(a.v) * b.e + fabs(b.v) * a.e);
}

static inline num num_div(num a, num b)
{
    double v = a.v / b.v;
    return num_rounded(v, (a.e + fabs(v) * b.e) / fabs(b.v));
}

static inline num num_sqrt(num a)
{
    double v = sqrt(a.v);
    return num_rounded(v, v > 0 ? a.e / (2 * v) : 0);
}

static inline num num_tanh(num a)
{
    double v = tanh(a.v);
    return (num){v, a.e + TANH_UNITS * UNIT * fabs(v)};
}

static inline num num_exp(num a)
{
    double v = exp(a.v);
    return (num){v, v * (expm1(a.e) + EXP_UNITS * UNIT)};
}

/* Any order that sixteen lanes and a tree allow: n / 16 additions in a lane, four of the tree, the product, the tail. */
static inline double sum_units(int64_t n)
{
    return (double)((n + 15) / 16) + 6;
}

static inline num num_dot(const num *a, const num *b, int64_t n)
{
    double v = 0, size = 0, e = 0;
    for (int64_t i = 0; i < n; i++) {
        v += a[i].v * b[i].v;
        size += fabs(a[i].v * b[i].v);
        e += fabs(a[i].v) * b[i].e + fabs(b[i].v) * a[i].e;
    }
    return (num){v, e + sum_units(n) * UNIT * size};
}

static inline num num_mean_square(const num *x, int64_t n)
{
    return num_div(num_dot(x, x, n), num_of((double)n));
}

/* out = x * (mean(x^2) + eps)^(-1/2) * w; w NULL: 1. out may be x. */
static inline void num_norm(num *out, const num *x, const float *w, int64_t n, double eps)
{
    num factor = num_div(num_of(1), num_sqrt(num_add(num_mean_square(x, n), num_of((float)eps))));
    for (int64_t i = 0; i < n; i++) {
        out[i] = num_mul(x[i], factor);
        if (w)
            out[i] = num_mul(out[i], num_of(w[i]));
    }
}

/* 0.5 x (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3))); where tanh nears -1, the sum keeps the roundings of 1. */
static inline num num_gelu(num x)
{
    num cube = num_mul(num_mul(num_mul(x, x), x), num_of(0.044715));
    cube.e += UNIT * fabs(cube.v); /* the constants are rounded too */
    num inner = num_mul(num_add(x, cube), num_of(0.7978845608028654));
    inner.e += UNIT * fabs(inner.v);
    double slope = 1 - tanh(inner.v) * tanh(inner.v);
    num t = {tanh(inner.v), slope * inner.e + inner.e * inner.e + TANH_UNITS * UNIT * fabs(tanh(inner.v))};
    return num_mul(num_mul(x, num_of(0.5)), num_add(num_of(1), t));
}

#endif
