#include <criterion/criterion.h>
#include <math.h>
#include <string.h>

#include "host/base/rng.h"
#include "host/batch/portions.h"

static pl_portion portion(double rate, int64_t held)
{
    return (pl_portion){.works = true, .held = held, .done = rate * 10, .since = 100};
}
#define NOW 110.0

Test(portions, shares_are_as_rates)
{
    pl_portion p[] = {portion(1, 0), portion(3, 20), {.held = 5}};
    int64_t room[3];
    pl_portion_rooms(p, 3, 75, NOW, room);
    cr_assert_eq(room[0], 25); /* of 100 that are open */
    cr_assert_eq(room[1], 75 - 20);
    cr_assert_leq(room[2], 0, "one that does not work");
}

Test(portions, who_has_nothing_may_have_one)
{
    pl_portion p[] = {portion(1000, 0), portion(0.001, 0)};
    int64_t room[2];
    pl_portion_rooms(p, 2, 3, NOW, room);
    cr_assert_eq(room[1], 1);
    pl_portion_took(&p[1], 1, NOW);
    pl_portion_rooms(p, 2, 2, NOW, room);
    cr_assert_eq(room[1], 0);
}

Test(portions, who_is_new_counts_like_the_others_as_long_as_it_can)
{
    pl_portion p[] = {portion(2, 10), {.works = true}};
    int64_t room[2];
    pl_portion_rooms(p, 2, 90, NOW, room);
    cr_assert_eq(room[1], 50);
    pl_portion_took(&p[1], 4, NOW - 8); /* and nothing came of them: half a line a second at most */
    pl_portion_rooms(p, 2, 86, NOW, room);
    cr_assert_eq(room[1], 20 - 4);
    pl_portion none[] = {{.works = true}, {.works = true}};
    pl_portion_rooms(none, 2, 9, NOW, room);
    cr_assert(room[0] == 5 && room[1] == 5);
}

Test(portions, rates_follow_what_ranks_do_now)
{
    pl_portion p = {.works = true};
    double t = 1;
    pl_portion_took(&p, 100000, t);
    for (int i = 0; i < 5000; i++)
        pl_portion_gave(&p, 1, t += 0.01);
    cr_assert_float_eq(pl_portion_rate(&p, t), 100, 1);
    for (int i = 0; i < 1000; i++)
        pl_portion_gave(&p, 1, t += 0.1);
    cr_assert_float_eq(pl_portion_rate(&p, t), 10, 0.5);
    cr_assert_lt(pl_portion_rate(&p, t + 1000), 0.2);
}

Test(portions, the_stock_grows_with_demand_and_shrinks_slowly)
{
    int64_t wanted = 1;
    for (int i = 0; i < 5; i++)
        wanted = pl_stock_wanted(wanted, wanted / 2, true);
    cr_assert_eq(wanted, 32);
    cr_assert_eq(pl_stock_wanted(32, 20, false), 40);
    cr_assert_eq(pl_stock_wanted(32, 3, false), 28);
    for (int i = 0; i < 60; i++)
        wanted = pl_stock_wanted(wanted, 0, false);
    cr_assert_eq(wanted, 1);
}

/* Ranks with eight lines at hand, as long as they may: at the end none waits for longer than the slowest takes
 * for three or four. (What is only in stock then is called back, but not here.) */
static void end_together(const double *line_s, int n, int64_t lines, uint64_t seed)
{
    enum { MOST = 8 };
    pl_portion p[MOST];
    double until[MOST], last[MOST] = {0}, now = 1, slowest = 0;
    int64_t room[MOST], left = lines, held = 0;
    pl_rng rng;
    pl_rng_seed(&rng, seed);
    for (int i = 0; i < n; i++) {
        p[i] = (pl_portion){.works = true};
        until[i] = INFINITY;
        slowest = fmax(slowest, line_s[i]);
    }
    while (left > 0 || held > 0) {
        int first = 0;
        pl_portion_rooms(p, n, left, now, room);
        for (int i = 0; i < n; i++) { /* eight at hand, done one after another */
            int64_t more = 8 - p[i].held < room[i] ? 8 - p[i].held : room[i];
            more = more < left ? more : left;
            if (more <= 0)
                continue;
            if (p[i].held == 0)
                until[i] = now + line_s[i] * (0.5 + pl_rng_uniform(&rng));
            pl_portion_took(&p[i], more, now);
            left -= more;
            held += more;
        }
        for (int i = 1; i < n; i++)
            first = until[i] < until[first] ? i : first;
        now = last[first] = until[first];
        pl_portion_gave(&p[first], 1, now);
        held--;
        until[first] = p[first].held ? now + line_s[first] * (0.5 + pl_rng_uniform(&rng)) : INFINITY;
    }
    for (int i = 0; i < n; i++)
        cr_assert_leq(now - last[i], 4 * slowest, "%d of %d ranks waited %g s (lines take up to %g s)", i, n,
                      now - last[i], slowest);
}

Test(portions, ranks_end_together)
{
    static const double line_s[][4] = {{1, 1, 1, 1}, {0.1, 1, 1, 1}, {0.01, 0.1, 1, 2}, {1, 4, 4, 0.5}};
    for (size_t k = 0; k < sizeof line_s / sizeof line_s[0]; k++)
        for (uint64_t seed = 0; seed < 20; seed++)
            for (int n = 1; n <= 4; n++)
                end_together(line_s[k], n, 4000, seed);
}
