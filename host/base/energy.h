/* Joules used from a moment on: by NVIDIA cards as NVML counts them (from Volta on), and by the processors' packages as
 * Linux's powercap does, where this process may read it. Neither is needed to build or to run. */
#ifndef PL_BASE_ENERGY_H
#define PL_BASE_ENERGY_H

#include "host/base/status.h"

typedef struct pl_energy pl_energy;

typedef struct pl_energy_params {
    const char *const *pci_ids; /* [n_cards] "0000:01:00.0" */
    int32_t n_cards;
    const char *nvml;     /* library; NULL: "libnvidia-ml.so.1" */
    const char *powercap; /* folder; NULL: "/sys/class/powercap" */
} pl_energy_params;

typedef struct pl_energy_used {
    double cards_j;     /* of all of them together; -1: not known, or not of each */
    double processor_j; /* -1: not known */
} pl_energy_used;

/* Begins to count. What is not there is left out; only PL_ERR_MEMORY. */
pl_status pl_energy_start(const pl_energy_params *params, pl_energy **out, pl_error *err);
void pl_energy_free(pl_energy *energy);

/* Since the start. One thread at a time, and at least every few minutes: the processor's counters begin again at some 10^5 J. */
pl_energy_used pl_energy_read(pl_energy *energy);

#endif
