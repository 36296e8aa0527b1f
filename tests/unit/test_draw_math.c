#include <criterion/criterion.h>

#include "host/base/rng.h"
#include "host/engine/softmax.h"
#include "host/ops/draw_math.h"

Test(draw_math, a_mass_is_the_nearest_multiple_of_a_unit)
{
    pl_rng rng;
    pl_rng_seed(&rng, 1);
    cr_assert_eq(pl_mass(0.0f), 0);
    cr_assert_eq(pl_mass(1.0f), (uint64_t)1 << 39);
    cr_assert_eq(pl_mass(0x1p-39f), 1);
    cr_assert_eq(pl_mass(0x1p-40f), 0, "half a unit: to even");
    cr_assert_eq(pl_mass(0x1.8p-39f), 2, "one and a half: to even");
    for (int i = 0; i < 100000; i++) {
        float term = (float)ldexp(pl_rng_uniform(&rng), -(int)(pl_rng_next(&rng) % 45));
        cr_assert_eq(pl_mass(term), (uint64_t)nearbyint((double)term * 0x1p39), "%a", term);
    }
}

Test(draw_math, a_share_is_reached_and_never_more_than_all)
{
    cr_assert_eq(pl_mass_share(0.5, 10), 5);
    cr_assert_eq(pl_mass_share(0.5, 11), 6);
    cr_assert_eq(pl_mass_share(1e-300, 10), 1);
    cr_assert_eq(pl_mass_share(1.0, 10), 10);
    cr_assert_eq(pl_mass_share(nextafter(1.0, 0.0), (uint64_t)1 << 63), ((uint64_t)1 << 63) - 1024);
    cr_assert_eq(pl_mass_share(nextafter(1.0, 0.0), ((uint64_t)1 << 53) + 1), ((uint64_t)1 << 53) - 1);
}

Test(draw_math, a_point_lies_within)
{
    const double most = nextafter(1.0, 0.0);
    cr_assert_eq(pl_mass_point(0.0, 10), 0);
    cr_assert_eq(pl_mass_point(0.5, 10), 5);
    for (int bits = 0; bits < 64; bits++)
        for (int off = -1; off <= 1; off++) {
            uint64_t total = ((uint64_t)1 << bits) + (uint64_t)off;
            if (total > 0 && total <= (uint64_t)1 << 63)
                cr_assert_lt(pl_mass_point(most, total), total);
        }
}

Test(draw_math, keys_order_as_logits_then_ids)
{
    const float x[] = {-INFINITY, -FLT_MAX, -1.0f, -FLT_MIN, -0x1p-149f, 0.0f, 0x1p-149f, 1.0f, FLT_MAX};
    const size_t n = sizeof x / sizeof *x;
    for (size_t i = 0; i + 1 < n; i++) {
        cr_assert_lt(pl_rank_of(x[i]), pl_rank_of(x[i + 1]));
        cr_assert(pl_make_key(pl_rank_of(x[i]), 0) < pl_make_key(pl_rank_of(x[i + 1]), 1000000));
        cr_assert_eq(pl_rank_value(pl_rank_of(x[i])), x[i]);
    }
    cr_assert_eq(pl_rank_of(-0.0f), pl_rank_of(0.0f));
    cr_assert_eq(pl_rank_of(-INFINITY), PL_RANK_BANNED);
    cr_assert_gt(pl_make_key(7, 3), pl_make_key(7, 4));
    cr_assert_eq(pl_key_index(pl_make_key(7, 123456)), 123456);
}

Test(draw_math, sums_do_not_depend_on_how_they_are_split)
{
    static float x[1000], p[1000], q[1000];
    pl_rng rng;
    pl_rng_seed(&rng, 2);
    for (int i = 0; i < 1000; i++)
        x[i] = (float)(-40.0 * pl_rng_uniform(&rng));
    uint64_t all = pl_exp_mass(x, 1000, 0.0f, p), one_by_one = 0;
    double sum = pl_exp_sum(x, 1000, 0.0f, q);
    cr_assert_eq(memcmp(p, q, sizeof p), 0);
    cr_assert(fabs((double)all * PL_MASS_UNIT - sum) <= 1000 * 0x1p-40);
    for (size_t i = 0; i < 1000; i++)
        one_by_one += pl_mass(pl_exp_negative(x[i]));
    cr_assert_eq(one_by_one, all);
    cr_assert_eq(pl_exp_mass(x, 77, 0.0f, p) + pl_exp_mass(x + 77, 923, 0.0f, p), all);
}
