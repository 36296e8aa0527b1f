#include <criterion/criterion.h>
#include <math.h>

#include "tools/bench_report.h"

Test(bench_report, statistics)
{
    const double v[] = {1, 2, 4, 9};
    cr_assert_float_eq(pl_bench_mean(v, 4), 4, 1e-12);
    cr_assert_float_eq(pl_bench_deviation(v, 4), sqrt(38.0 / 3), 1e-12);
    cr_assert_float_eq(pl_bench_median(v, 4), 3, 1e-12);
    cr_assert_float_eq(pl_bench_median(v, 3), 2, 1e-12);
    cr_assert_eq(pl_bench_deviation(v, 1), 0);
    cr_assert_eq(pl_bench_median(v, 0), 0);
}
