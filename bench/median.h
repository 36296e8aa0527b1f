/* Medians, for the benchmarks. */
#ifndef PL_BENCH_MEDIAN_H
#define PL_BENCH_MEDIAN_H

#include <stdlib.h>

static inline int pl_median_order(const void *a, const void *b)
{
    const double *x = a, *y = b;
    return *x < *y ? -1 : *x > *y;
}

/* Sorts v; of an even number the upper of the middle two. */
static inline double pl_median(double *v, size_t n)
{
    qsort(v, n, sizeof *v, pl_median_order);
    return v[n / 2];
}

#endif
