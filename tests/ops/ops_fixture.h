/* Runs an op on every instruction set of this machine and compares it with a bounded reference. */
#ifndef PL_TESTS_OPS_OPS_FIXTURE_H
#define PL_TESTS_OPS_OPS_FIXTURE_H

#include "host/ops/backend.h"
#include "tests/ops/bounded.h"

#define EPS 1e-6f
#define ROOM 40 /* slots of a step */
#define MAX_OUTPUTS 4

typedef struct op_output {
    int64_t n;
    float *before; /* [n] what is there when the op starts */
    num *want;     /* [n]; bound 0: exactly this, for values that must stay */
    float *now;    /* [n] between guards, while the op runs */
} op_output;

typedef struct op_case op_case;
struct op_case {
    const char *what;
    int rows;
    int n_outputs;
    op_output out[MAX_OUTPUTS];
    pl_backend_shape shape;
    bool fused; /* instruction sets with fused multiply-add may differ from the one without */
    /* Rows [first, first + n) of the case. */
    void (*run)(const op_case *c, pl_backend *b, int first, int n);
};

/* For each instruction set, with one thread and with three: all rows at once are within the bounds; row by row,
 * backwards, gives the same bits; all instruction sets give the same bits; nothing else is written. */
void check_case(op_case *c);

/* Adds an output that starts with these values (borrowed) and ends as `want` (borrowed). */
void case_output(op_case *c, float *before, num *want, int64_t n);

/* A backend for one level of `allowed`. */
pl_backend *open_backend(pl_backend_shape shape, int threads, unsigned allowed);

/* Allocation that ends the test when there is no memory; the values are normal with this deviation. */
float *normals(int64_t n, double deviation, uint64_t seed);
num *nums_of(const float *x, int64_t n);
num *nums(int64_t n);

/* Scattered slots, positions 0.., one sequence. Static: the same for all. */
pl_rows scattered_rows(int n);
pl_rows rows_from(pl_rows rows, int first, int n);

#endif
