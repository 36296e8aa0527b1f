/* What this processor can do that our kernels make use of. */
#ifndef PL_BASE_CPU_H
#define PL_BASE_CPU_H

#include "host/base/status.h"

/* A feature is there when the processor has it and the operating system saves its registers. */
typedef enum pl_cpu_feature {
    PL_CPU_AVX2 = 1 << 0,     /* AVX2, FMA and F16C */
    PL_CPU_AVX_VNNI = 1 << 1, /* vpdpbusd on 256 bits, VEX-coded */
    PL_CPU_AVX512 = 1 << 2,   /* AVX-512 F, BW, DQ and VL */
    PL_CPU_AVX512_VNNI = 1 << 3,
    PL_CPU_AVX512_BF16 = 1 << 4,
    PL_CPU_AMX_INT8 = 1 << 5, /* usable after pl_cpu_enable_amx() */
    PL_CPU_AMX_BF16 = 1 << 6,
} pl_cpu_feature;

#define PL_CPU_NONE 0u
#define PL_CPU_ALL 0x7fu

/* The features of this machine that are also in `allowed` (PL_CPU_ALL for all), without those that build
 * on one that is not there: AVX512_VNNI needs AVX512, AMX and AVX512 need AVX2. Empty on machines that
 * are not x86-64. */
unsigned pl_cpu_features(unsigned allowed);

/* The rule above, alone. */
unsigned pl_cpu_complete(unsigned features);

/* Asks Linux to let this process, all its threads, use the tile registers. */
pl_status pl_cpu_enable_amx(pl_error *err);

/* "avx2 avx-vnni ...", "none"; returns out. */
const char *pl_cpu_describe(unsigned features, char *out, size_t size);

#endif
