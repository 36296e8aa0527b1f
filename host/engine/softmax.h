/* Sums of exponentials over a vocabulary. Built from additions, multiplications and comparisons in a fixed
 * order, no libm: the same bits on every machine, provided that the compiler does not fuse them
 * (-ffp-contract=off where the target has fused multiply-add). */
#ifndef PL_ENGINE_SOFTMAX_H
#define PL_ENGINE_SOFTMAX_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* The largest of x[0..n), n > 0, into *max; false when one is not finite (then *max means nothing). */
bool pl_max_finite(const float *x, size_t n, float *max);

/* The largest of x[0..n), which may hold -INFINITY; -INFINITY when n is 0. */
float pl_max(const float *x, size_t n);

/* The first i >= from with x[i] >= low, or n. */
size_t pl_find_from(const float *x, size_t from, size_t n, float low);

/* The sum of exp(x[i] - max), summed in double, max no less than any x[i]. p[0..n), unless NULL, gets the
 * terms. numerics: each term within 2^-22 of its value, relatively, or 0 where it is under e^-87; an
 * x[i] of -INFINITY gives 0. */
double pl_exp_sum(const float *x, size_t n, float max, float *p);

/* The same terms into p, and the sum of their masses (host/ops/draw_math.h): the same however the sum is split. */
uint64_t pl_exp_mass(const float *x, size_t n, float max, float *p);

/* The natural logarithm of a positive normal number, within 4 ulp (absolutely 1e-16 around 1). */
double pl_log(double x);

#endif
