/* How long steps take here, learned from those that ran: seconds = a + b x weighted rows, rows of a path weighted by their
 * cost and prompt rows by the layers they run through. Recent steps count most. Before there are any, guesses from the
 * bytes of the weights that err on the slow side. */
#ifndef PL_ENGINE_STEP_COST_H
#define PL_ENGINE_STEP_COST_H

#include "host/base/status.h"

typedef struct pl_step_cost {
    double sum[5];        /* decayed: weight, x, x^2, y, xy */
    double base_s, row_s; /* the fit, never negative */
} pl_step_cost;

/* bytes: of weights of the widest path. */
pl_step_cost pl_step_cost_start(double bytes);

void pl_step_cost_learn(pl_step_cost *cost, double weighted_rows, double seconds);
double pl_step_cost_expect(const pl_step_cost *cost, double weighted_rows);

#endif
