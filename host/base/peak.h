/* How many multiplications and additions of 8-bit integers this machine's threads do together: the upper limit for
 * reading prompts. */
#ifndef PL_BASE_PEAK_H
#define PL_BASE_PEAK_H

#include "host/base/status.h"

typedef struct pl_peak {
    const char *name; /* the instructions: "amx", "avx512-vnni", "avx-vnni", "avx2"; "none": not measured */
    double ops_per_s; /* two for each multiplication with addition */
} pl_peak;

/* The best of `features` (host/base/cpu.h) that the machine has, on operands in registers, with n_threads threads (0:
 * one per physical core), pinned as an engine's unless no_pin. Takes some hundredths of a second. */
pl_status pl_peak_measure(int n_threads, bool no_pin, unsigned features, pl_peak *out, pl_error *err);

#endif
