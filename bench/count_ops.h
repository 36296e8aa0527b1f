/* A backend that computes nothing: each op adds what it would move and multiply to a list. The model's own walk over
 * it gives the cost of a step of any rows and paths. */
#ifndef PL_BENCH_COUNT_OPS_H
#define PL_BENCH_COUNT_OPS_H

#include "host/ops/backend.h"

#define PL_COUNTED_OPS 32

typedef struct pl_counted {
    const char *op;
    int launches;     /* as the CUDA backend launches it */
    double bytes;     /* read and written in the card's memory */
    double int_ops;   /* of integer products: two for each multiplication with addition */
    double f32_ops;   /* of products in floating point, likewise */
    double bus_bytes; /* from the host's memory */
} pl_counted;

typedef struct pl_counts {
    pl_counted op[PL_COUNTED_OPS];
    int n;
} pl_counts;

/* counts: zeroed; borrowed by the backend. fused: with the fused ops. */
pl_status pl_count_backend(pl_counts *counts, bool fused, pl_backend **out, pl_error *err);

#endif
