/* A backend that computes nothing: each op adds what it would move and multiply to a list. The model's own walk over
 * it gives the cost of a step of any rows and paths. */
#ifndef PL_MEASURE_COUNT_OPS_H
#define PL_MEASURE_COUNT_OPS_H

#include "host/ops/backend.h"

#define PL_COUNTED_OPS 64
#define PL_COUNTED_NAME 48

typedef struct pl_counted {
    char op[PL_COUNTED_NAME];
    int launches;        /* as the CUDA backend launches it */
    double bytes;        /* read and written in the card's memory */
    double stored_bytes; /* of these, of weights and K/V: what no cache holds until the next step */
    double int_ops;      /* of integer products: two for each, by operation or by byte of the activation */
    double f32_ops;      /* of products in floating point, likewise */
    double bus_bytes;    /* from the host's memory */
    int calls;           /* that a timer saw (host/measure/op_timer.h) */
    double seconds;      /* that they took */
} pl_counted;

typedef struct pl_counts {
    pl_counted op[PL_COUNTED_OPS];
    int n;
    bool split;         /* lists products by the first of their weights, attention by whether it has a window */
    pl_counted *latest; /* what was counted last */
} pl_counts;

/* counts: zeroed; borrowed by the backend. fused: with the fused ops. */
pl_status pl_count_backend(pl_counts *counts, bool fused, pl_backend **out, pl_error *err);

#endif
