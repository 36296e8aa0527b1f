#include "host/base/cpu.h"

#include <stdio.h>
#include <string.h>

typedef struct feature_info {
    unsigned feature, needs;
    const char *name;
} feature_info;

/* Each after what it needs. */
static const feature_info feature_table[] = {
    {PL_CPU_AVX2, 0, "avx2"},
    {PL_CPU_AVX_VNNI, PL_CPU_AVX2, "avx-vnni"},
    {PL_CPU_AVX512, PL_CPU_AVX2, "avx512"},
    {PL_CPU_AVX512_VNNI, PL_CPU_AVX512, "avx512-vnni"},
    {PL_CPU_AVX512_BF16, PL_CPU_AVX512, "avx512-bf16"},
    {PL_CPU_AMX_INT8, PL_CPU_AVX512, "amx-int8"},
    {PL_CPU_AMX_BF16, PL_CPU_AVX512, "amx-bf16"},
};

#define N_FEATURES (sizeof feature_table / sizeof feature_table[0])

unsigned pl_cpu_complete(unsigned features)
{
    unsigned kept = 0;
    for (size_t i = 0; i < N_FEATURES; i++)
        if (features & feature_table[i].feature && (kept & feature_table[i].needs) == feature_table[i].needs)
            kept |= feature_table[i].feature;
    return kept;
}

const char *pl_cpu_describe(unsigned features, char *out, size_t size)
{
    size_t n = 0;
    snprintf(out, size, "none");
    for (size_t i = 0; i < N_FEATURES && n < size; i++)
        if (features & feature_table[i].feature)
            n += (size_t)snprintf(out + n, size - n, "%s%s", n ? " " : "", feature_table[i].name);
    return out;
}

#if defined(__x86_64__)

#include <cpuid.h>

/* Bits of XCR0: the register files that the system saves. */
#define SAVES_AVX 0x06u
#define SAVES_AVX512 0xe6u
#define SAVES_TILES 0x60000u

typedef struct cpuid_words {
    unsigned a, b, c, d;
} cpuid_words;

static cpuid_words cpuid(unsigned leaf, unsigned subleaf)
{
    cpuid_words w = {0};
    __get_cpuid_count(leaf, subleaf, &w.a, &w.b, &w.c, &w.d);
    return w;
}

__attribute__((target("xsave"))) static unsigned saved_registers(unsigned leaf1_c)
{
    return leaf1_c & bit_OSXSAVE ? (unsigned)__builtin_ia32_xgetbv(0) : 0;
}

static bool has(unsigned word, unsigned bits)
{
    return (word & bits) == bits;
}

static unsigned detect(void)
{
    cpuid_words leaf1 = cpuid(1, 0), leaf7 = cpuid(7, 0), leaf7_1 = {0};
    if (leaf7.a >= 1)
        leaf7_1 = cpuid(7, 1);
    unsigned saved = saved_registers(leaf1.c), features = 0;
    if (has(saved, SAVES_AVX)) {
        if (has(leaf1.c, bit_AVX | bit_FMA | bit_F16C) && has(leaf7.b, bit_AVX2))
            features |= PL_CPU_AVX2;
        if (has(leaf7_1.a, 1u << 4))
            features |= PL_CPU_AVX_VNNI;
    }
    if (has(saved, SAVES_AVX512)) {
        if (has(leaf7.b, bit_AVX512F | bit_AVX512BW | bit_AVX512DQ | bit_AVX512VL))
            features |= PL_CPU_AVX512;
        if (has(leaf7.c, bit_AVX512VNNI))
            features |= PL_CPU_AVX512_VNNI;
        if (has(leaf7_1.a, 1u << 5))
            features |= PL_CPU_AVX512_BF16;
    }
    if (has(saved, SAVES_TILES) && has(leaf7.d, 1u << 24)) {
        if (has(leaf7.d, 1u << 25))
            features |= PL_CPU_AMX_INT8;
        if (has(leaf7.d, 1u << 22))
            features |= PL_CPU_AMX_BF16;
    }
    return features;
}

#else

static unsigned detect(void)
{
    return 0;
}

#endif

unsigned pl_cpu_features(unsigned allowed)
{
    return pl_cpu_complete(detect() & allowed);
}

#if defined(__x86_64__) && defined(__linux__)

#include <errno.h>
#include <sys/syscall.h>
#include <unistd.h>

#define REQUEST_PERMISSION 0x1023 /* ARCH_REQ_XCOMP_PERM */
#define TILE_DATA 18              /* XFEATURE_XTILEDATA */

pl_status pl_cpu_enable_amx(pl_error *err)
{
    if (syscall(SYS_arch_prctl, REQUEST_PERMISSION, TILE_DATA) != 0)
        return pl_fail(err, PL_ERR_UNSUPPORTED, "the system does not permit AMX: %s", strerror(errno));
    return PL_OK;
}

#else

pl_status pl_cpu_enable_amx(pl_error *err)
{
    return pl_fail(err, PL_ERR_UNSUPPORTED, "AMX is not a feature of this machine");
}

#endif
