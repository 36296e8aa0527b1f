#include <criterion/criterion.h>
#include <math.h>

#include "host/engine/step_cost.h"

static double noise(uint32_t *state)
{
    *state = *state * 1664525u + 1013904223u;
    return (double)(*state >> 8) / (1 << 24) - 0.5;
}

Test(step_cost, finds_base_and_slope_of_mixed_steps)
{
    pl_step_cost cost = pl_step_cost_start(3e9);
    uint32_t seed = 1;
    for (int i = 0; i < 400; i++) {
        double rows = 1 + (i * 37) % 300;
        pl_step_cost_learn(&cost, rows, (0.02 + 0.0005 * rows) * (1 + 0.1 * noise(&seed)));
    }
    cr_assert_float_eq(pl_step_cost_expect(&cost, 1), 0.0205, 0.006);
    cr_assert_float_eq(pl_step_cost_expect(&cost, 300), 0.17, 0.01);
}

Test(step_cost, follows_a_machine_that_slows_down)
{
    pl_step_cost cost = pl_step_cost_start(3e9);
    for (int i = 0; i < 200; i++)
        pl_step_cost_learn(&cost, 1 + i % 50, 0.01);
    for (int i = 0; i < 200; i++)
        pl_step_cost_learn(&cost, 1 + i % 50, 0.04);
    cr_assert_float_eq(pl_step_cost_expect(&cost, 20), 0.04, 0.001);
}

Test(step_cost, steps_that_are_alike_scale_the_guess)
{
    pl_step_cost cost = pl_step_cost_start(3e9);
    for (int i = 0; i < 50; i++)
        pl_step_cost_learn(&cost, 4, 0.008);
    cr_assert_float_eq(pl_step_cost_expect(&cost, 4), 0.008, 1e-4);
    cr_assert_gt(pl_step_cost_expect(&cost, 100), pl_step_cost_expect(&cost, 4));
}

Test(step_cost, never_expects_less_than_nothing)
{
    uint32_t seed = 7;
    pl_step_cost cost = pl_step_cost_start(1e6);
    for (int i = 0; i < 2000; i++) {
        pl_step_cost_learn(&cost, 1 + 100 * (noise(&seed) + 0.5), 0.001 + 0.05 * (noise(&seed) + 0.5));
        for (double rows = 0; rows < 1000; rows += 100)
            cr_assert(pl_step_cost_expect(&cost, rows) >= 0 && isfinite(pl_step_cost_expect(&cost, rows)));
    }
}
