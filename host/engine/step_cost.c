#include "host/engine/step_cost.h"

#define KEPT 0.95         /* of the weight of older steps, with each new one */
#define GUESS_BYTES_S 5e9 /* weights read a second where nothing is known yet: a slow desktop */
#define GUESS_ROW_SHARE 8 /* rows that cost as much as reading the weights */
#define LEAST_SPREAD 1e-3 /* of the rows' relative variance, to tell slope from base */

pl_step_cost pl_step_cost_start(double bytes)
{
    double base = bytes / GUESS_BYTES_S;
    return (pl_step_cost){.base_s = base, .row_s = base / GUESS_ROW_SHARE};
}

/* Steps that are all alike tell only how far off the whole is. */
static void scale(pl_step_cost *cost, double x, double y)
{
    double expected = pl_step_cost_expect(cost, x), factor = expected > 0 ? y / expected : 1;
    cost->base_s *= factor;
    cost->row_s *= factor;
}

void pl_step_cost_learn(pl_step_cost *cost, double weighted_rows, double seconds)
{
    const double terms[5] = {1, weighted_rows, weighted_rows * weighted_rows, seconds, weighted_rows * seconds};
    for (int i = 0; i < 5; i++)
        cost->sum[i] = KEPT * cost->sum[i] + terms[i];
    double n = cost->sum[0], x = cost->sum[1] / n, y = cost->sum[3] / n;
    double spread = cost->sum[2] / n - x * x;
    if (spread <= LEAST_SPREAD * x * x) {
        scale(cost, x, y);
        return;
    }
    double slope = (cost->sum[4] / n - x * y) / spread;
    double steepest = y / x; /* above it the base would be negative */
    cost->row_s = slope < 0 ? 0 : slope > steepest ? steepest : slope;
    cost->base_s = y - cost->row_s * x;
}

double pl_step_cost_expect(const pl_step_cost *cost, double weighted_rows)
{
    return cost->base_s + cost->row_s * weighted_rows;
}
