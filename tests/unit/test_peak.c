#include "host/base/peak.h"

#include "host/base/cpu.h"

#include <criterion/criterion.h>

/* Only features that were allowed and are there are measured. */
Test(peak, of_the_features_allowed)
{
    static const struct {
        unsigned allowed;
        const char *name;
    } cases[] = {{PL_CPU_AVX2, "avx2"},
                 {PL_CPU_AVX2 | PL_CPU_AVX_VNNI, "avx-vnni"},
                 {PL_CPU_AVX2 | PL_CPU_AVX512 | PL_CPU_AVX512_VNNI, "avx512-vnni"}};
    pl_error err;
    pl_peak peak;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        if (pl_cpu_features(cases[i].allowed) != cases[i].allowed)
            continue;
        cr_assert_eq(pl_peak_measure(1, true, cases[i].allowed, &peak, &err), PL_OK, "%s", err.message);
        cr_assert_str_eq(peak.name, cases[i].name);
        cr_assert_gt(peak.ops_per_s, 0);
    }
    cr_assert_eq(pl_peak_measure(1, true, PL_CPU_NONE, &peak, &err), PL_OK);
    cr_assert_str_eq(peak.name, "none");
    cr_assert_eq(peak.ops_per_s, 0);
    cr_assert_eq(pl_peak_measure(2, true, PL_CPU_ALL, &peak, &err), PL_OK, "%s", err.message);
    cr_assert_eq(peak.ops_per_s > 0, (pl_cpu_features(PL_CPU_ALL) & PL_CPU_AVX2) != 0);
}
