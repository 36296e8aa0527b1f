/* Probes: quantises one part of a resident model at a time and measures how far its answers drift. What comes out is
 * what `quantize --fit` weighs types with. */
#ifndef PL_MEASURE_PROBE_H
#define PL_MEASURE_PROBE_H

#include "host/convert/sensitivity.h"
#include "host/measure/passages.h"

typedef struct pl_probe_params {
    const pl_passages *passages;
    const char *const *paths; /* as pl_session_set_path() takes them; the divergence counts over all of them */
    size_t n_paths;
    pl_progress_fn progress; /* may be NULL */
    void *user;
    bool (*cancelled)(void *user); /* may be NULL: PL_ERR_CANCELLED at the next passage */
} pl_probe_params;

/* Each role, in each third of the depth, is put to 4 bits while the rest stays as it is; out->value is the mean KL
 * divergence from the untouched model over the positions that count, divided by the mean relative squared error of the part's
 * tensors. Names (out->model, text) are the caller's. The engine is as before afterwards; nobody else may use it
 * meanwhile. Takes twice as many runs over the passages as there are parts. */
pl_status pl_probe_sensitivity(pl_engine *engine, const pl_probe_params *params, pl_sensitivity *out, pl_error *err);

#endif
