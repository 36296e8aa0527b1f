/* exp, tanh and gelu of host/base/vec.h over the whole range of f32, in steps that share no factor with powers of two. */
#include "host/base/cpu.h"
#include "host/base/vec.h"
#include "tests/ops/ops_fixture.h"

#include <criterion/criterion.h>
#include <stdlib.h>

#define STEP 1009 /* in units of the last place */

static float float_of(uint32_t bits)
{
    float x;
    memcpy(&x, &bits, sizeof x);
    return x;
}

static uint32_t bits_of(float x)
{
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    return bits;
}

/* The next sixteen values of the walk through (0, largest], with alternating signs. */
static pl_vec next_lanes(uint32_t *bits)
{
    pl_vec x = {0};
    for (int i = 0; i < PL_LANES; i++, *bits += STEP)
        x[i] = i % 2 ? -float_of(*bits) : float_of(*bits);
    return x;
}

static double units_off(float got, double want)
{
    return fabs(got - want) / (fabs(want) * 0x1p-24);
}

Test(vec, exp_is_within_its_bound)
{
    double worst = 0;
    for (uint32_t bits = bits_of(0x1p-40f); bits < bits_of(86.9f) - 16 * STEP;) {
        pl_vec x = next_lanes(&bits), y = vec_exp(x);
        for (int i = 0; i < PL_LANES; i++)
            worst = fmax(worst, units_off(y[i], exp(x[i])));
    }
    cr_assert_leq(worst, EXP_UNITS, "exp is %g units of 2^-24 off", worst);
}

Test(vec, exp_stays_finite_and_ordered)
{
    pl_vec x = {-INFINITY, -1000, -87.5f, -87, -0.0f, 0, 88, 88.5f, 1000, INFINITY};
    pl_vec y = vec_exp(x);
    for (int i = 0; i < 10; i++)
        cr_assert(isnormal(y[i]) && y[i] > 0, "exp(%g) = %g", x[i], y[i]);
    for (int i = 1; i < 10; i++)
        cr_assert_geq(y[i], y[i - 1]);
    cr_assert(y[4] == 1 && y[5] == 1);
}

Test(vec, tanh_is_within_its_bound)
{
    double worst = 0;
    for (uint32_t bits = bits_of(0x1p-60f); bits < bits_of(100) - 16 * STEP;) {
        pl_vec x = next_lanes(&bits), y = vec_tanh(x);
        for (int i = 0; i < PL_LANES; i++) {
            worst = fmax(worst, units_off(y[i], tanh(x[i])));
            cr_assert(fabsf(y[i]) <= 1);
        }
    }
    cr_assert_leq(worst, TANH_UNITS, "tanh is %g units of 2^-24 off", worst);
}

Test(vec, gelu_is_within_its_bound)
{
    for (uint32_t bits = bits_of(0x1p-40f); bits < bits_of(50) - 16 * STEP;) {
        pl_vec x = next_lanes(&bits), y = vec_gelu(x);
        for (int i = 0; i < PL_LANES; i++) {
            num want = num_gelu(num_of(x[i]));
            cr_assert(fabs(y[i] - want.v) <= want.e, "gelu(%.9g) = %.9g, expected %.9g +- %.3g", x[i], y[i], want.v,
                      want.e);
        }
    }
}

Test(vec, not_a_number_stays)
{
    pl_vec x = {NAN, -NAN, INFINITY, -INFINITY};
    pl_vec t = vec_tanh(x), g = vec_gelu(x);
    cr_assert(isnan(t[0]) && isnan(t[1]) && t[2] == 1 && t[3] == -1);
    cr_assert(isnan(g[0]) && isnan(g[1]) && g[2] == INFINITY);
}

static void run_gelu(const op_case *c, pl_backend *b, int first, int n)
{
    static float one[2 * PL_LANES * 64];
    int32_t width[2] = {PL_LANES * 64, PL_LANES * 64};
    for (int i = 0; i < 2 * PL_LANES * 64; i++)
        one[i] = 1;
    b->ops->ffn_act(b->stream, c->out[0].now + first * PL_LANES * 64, one, PL_LANES * 64, n, width, -INFINITY);
}

/* Compiled for other instruction sets the functions give the same bits: seen through an op that is little else. */
Test(vec, gelu_on_every_instruction_set)
{
    int64_t n = 2 * PL_LANES * 64;
    op_case c = {.what = "gelu", .rows = 2, .run = run_gelu};
    float *x = normals(n, 3, 1);
    num *want = nums(n);
    for (int64_t i = 0; i < n; i++) {
        pl_vec lanes = {x[i]};
        want[i] = num_of(vec_gelu(lanes)[0]);
    }
    case_output(&c, x, want, n);
    check_case(&c);
    free(x);
    free(want);
}
