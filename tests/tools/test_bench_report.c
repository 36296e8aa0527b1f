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

Test(bench_report, names_of_tests)
{
    static const struct {
        pl_bench_case test;
        const char *name;
    } cases[] = {{{.n_prompt = 512, .parallel = 1}, "pp512"},
                 {{.n_prompt = 512, .depth = 4096, .parallel = 1}, "pp512 @4096"},
                 {{.n_gen = 32, .parallel = 4}, "tg32 x4"},
                 {{.n_gen = 2147483647, .parallel = 256, .depth = 2147483647}, "tg2147483647 x256 @2147483647"}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char name[PL_BENCH_TEST_NAME];
        pl_bench_test_name(&cases[i].test, name);
        cr_assert_str_eq(name, cases[i].name);
    }
}
