#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>

#include "host/base/cpu.h"
#include "host/base/progress.h"

Test(cpu, features_bring_what_they_need)
{
    cr_assert_eq(pl_cpu_complete(PL_CPU_ALL), PL_CPU_ALL);
    cr_assert_eq(pl_cpu_complete(PL_CPU_ALL & ~(unsigned)PL_CPU_AVX2), PL_CPU_NONE);
    cr_assert_eq(pl_cpu_complete(PL_CPU_ALL & ~(unsigned)PL_CPU_AVX512), PL_CPU_AVX2 | PL_CPU_AVX_VNNI);
    cr_assert_eq(pl_cpu_complete(PL_CPU_AVX512_VNNI), PL_CPU_NONE);
}

Test(cpu, allowed_features_are_a_limit)
{
    unsigned all = pl_cpu_features(PL_CPU_ALL);
    cr_assert_eq(pl_cpu_features(PL_CPU_NONE), PL_CPU_NONE);
    cr_assert_eq(pl_cpu_features(PL_CPU_AVX2), all & PL_CPU_AVX2);
    cr_assert_eq(pl_cpu_features(PL_CPU_AVX512_VNNI), PL_CPU_NONE);
    cr_assert_eq(all, pl_cpu_complete(all));
}

/* Linux lists a feature only when it saves the registers, as we do. */
Test(cpu, agrees_with_linux)
{
    static const struct {
        unsigned feature;
        const char *flag;
    } flags[] = {{PL_CPU_AVX2, " avx2 "},
                 {PL_CPU_AVX_VNNI, " avx_vnni "},
                 {PL_CPU_AVX512, " avx512bw "},
                 {PL_CPU_AVX512_VNNI, " avx512_vnni "},
                 {PL_CPU_AVX512_BF16, " avx512_bf16 "},
                 {PL_CPU_AMX_INT8, " amx_int8 "},
                 {PL_CPU_AMX_BF16, " amx_bf16 "}};
    static char line[8192];
    FILE *f = fopen("/proc/cpuinfo", "r");
    bool found = false;
    while (f && !found && fgets(line, sizeof line, f))
        found = strncmp(line, "flags", 5) == 0;
    if (f)
        fclose(f);
    if (!found)
        return;
    line[strcspn(line, "\n")] = ' ';
    unsigned features = pl_cpu_features(PL_CPU_ALL);
    for (size_t i = 0; i < sizeof flags / sizeof *flags; i++)
        cr_assert_eq((features & flags[i].feature) != 0, strstr(line, flags[i].flag) != NULL, "%s", flags[i].flag);
}

Test(cpu, amx_permission)
{
    pl_error err;
    if (pl_cpu_features(PL_CPU_AMX_INT8 | PL_CPU_AVX512 | PL_CPU_AVX2) & PL_CPU_AMX_INT8)
        cr_assert_eq(pl_cpu_enable_amx(&err), PL_OK, "%s", err.message);
}

Test(cpu, description)
{
    char text[128];
    cr_assert_str_eq(pl_cpu_describe(PL_CPU_NONE, text, sizeof text), "none");
    cr_assert_str_eq(pl_cpu_describe(PL_CPU_AVX2 | PL_CPU_AVX512, text, sizeof text), "avx2 avx512");
    pl_cpu_describe(PL_CPU_ALL, text, 8);
    cr_assert_eq(strlen(text), 7);
}

static void shows(double total, const char *unit, double done, double elapsed_s, int columns, const char *expected)
{
    char line[256];
    pl_progress p = {.label = "load", .unit = unit, .total = total};
    pl_progress_format(&p, done, elapsed_s, columns, line, sizeof line);
    cr_assert_str_eq(line, expected);
    cr_assert_leq(strlen(line), (size_t)columns);
}

Test(progress, line)
{
    shows(4e9, "B", 1e9, 2, 80, "load [=======>                      ]  25 %  500 MB/s  0:06 left");
    shows(100, "tokens", 50, 10, 60, "load [===========>          ]  50 %  5.0 tokens/s  0:10 left");
    shows(1, NULL, 0.01, 100, 80, "load [>                             ]   1 %  2:45:00 left");
    shows(1, NULL, 1, 0.1, 80, "load [==============================] 100 %");
    shows(0, NULL, 0, 1, 80, "load [>                             ]   0 %");
    shows(1, NULL, 5, 1, 12, "load [] 100 ");

    char more[256];
    pl_progress p = {.label = "load", .unit = "requests", .more = "  7 tokens/s", .total = 100};
    pl_progress_format(&p, 50, 10, 70, more, sizeof more);
    cr_assert_str_eq(more, "load [=========>        ]  50 %  5.0 requests/s  7 tokens/s  0:10 left");
}
