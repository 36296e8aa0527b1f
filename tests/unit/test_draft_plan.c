#include "host/engine/draft_plan.h"

#include "host/base/rng.h"

#include <criterion/criterion.h>
#include <math.h>

/* ---- costs ---- */

/* A step that reads weights once: 10 ms, and 1 ms for each row. */
static double seconds(double rows)
{
    return 0.009 + 0.001 * rows;
}

static pl_draft_cost learned(void)
{
    pl_draft_cost cost = {0};
    for (int i = 0; i < 200; i++)
        pl_draft_cost_learn(&cost, 1 + i % 9, seconds(1 + i % 9));
    return cost;
}

Test(draft_plan, costs_are_those_measured)
{
    pl_draft_cost cost = learned();
    for (int rows = 1; rows <= 9; rows++)
        cr_assert_float_eq(pl_draft_cost_expect(&cost, rows), seconds(rows), 0.02 * seconds(rows), "%d rows: %g", rows,
                           pl_draft_cost_expect(&cost, rows));
    cr_assert_gt(pl_draft_cost_expect(&cost, 20), pl_draft_cost_expect(&cost, 9));
    cr_assert_gt(pl_draft_cost_expect(&cost, 500), pl_draft_cost_expect(&cost, 64));
}

Test(draft_plan, costs_follow_a_machine_that_slows_down)
{
    pl_draft_cost cost = learned();
    for (int i = 0; i < 60; i++)
        pl_draft_cost_learn(&cost, 1, 4 * seconds(1));
    cr_assert_float_eq(pl_draft_cost_expect(&cost, 1), 4 * seconds(1), 0.1 * seconds(1));
    cr_assert_gt(pl_draft_cost_expect(&cost, 5), 1.7 * seconds(5), "the others have learned nothing");
}

Test(draft_plan, one_interrupted_step_is_forgotten)
{
    pl_draft_cost cost = learned();
    pl_draft_cost_learn(&cost, 3, 5);
    cr_assert_lt(pl_draft_cost_expect(&cost, 3), 1.3 * seconds(3));
    pl_draft_cost_learn(&cost, 3, NAN);
    pl_draft_cost_learn(&cost, NAN, 1);
    pl_draft_cost_learn(&cost, 3, 0);
    cr_assert(pl_draft_cost_expect(&cost, 3) > 0);
}

/* ---- chances ---- */

Test(draft_plan, chances_are_those_seen)
{
    pl_draft_chances all = {0}, own = {0};
    for (int i = 0; i < 200; i++)
        pl_draft_chances_learn(&all, PL_DRAFT_KIND_PATH, 4, i % 5);
    /* After 0, 1, 2, 3 accepted of four one has failed; after 4 none. */
    cr_assert_float_eq(pl_draft_chance(&own, &all, PL_DRAFT_KIND_PATH), 10.0 / 14, 0.05);
    for (int i = 0; i < 100; i++)
        pl_draft_chances_learn(&own, PL_DRAFT_KIND_PATH, 1, 0);
    cr_assert_lt(pl_draft_chance(&own, &all, PL_DRAFT_KIND_PATH), 0.2, "an answer's own experience counts for more");
    cr_assert_float_eq(pl_draft_chance(&own, &all, PL_DRAFT_KIND_NGRAM), 0.6, 0.001, "nothing is known of n-grams");
}

Test(draft_plan, what_is_accepted_makes_a_match_longer)
{
    pl_draft_chances all = {0}, own = {0};
    for (int i = 0; i < 50; i++)
        pl_draft_chances_learn(&all, PL_DRAFT_KIND_NGRAM, 3, 1);
    cr_assert_gt(pl_draft_chance(&own, &all, PL_DRAFT_KIND_NGRAM), 0.9);
    cr_assert_lt(pl_draft_chance(&own, &all, PL_DRAFT_KIND_NGRAM + 1), 0.2);
    cr_assert_eq(all.seen[PL_DRAFT_KIND_NGRAM + 2], 0, "nobody knows whether the third would have been");
    cr_assert_eq(pl_draft_kind(PL_DRAFT_KIND_NGRAM, 20), PL_DRAFT_KINDS - 1);
    cr_assert_eq(pl_draft_kind(PL_DRAFT_KIND_PATH, 3), PL_DRAFT_KIND_PATH);
}

/* ---- the plan ---- */

static pl_draft_item item_of(double chance, int most)
{
    pl_draft_item item = {.most = most};
    for (int i = 0; i < most; i++)
        item.reach[i] = (float)pow(chance, i + 1);
    return item;
}

static int planned(double chance, int most, int room, const pl_draft_cost *cost)
{
    pl_draft_item item = item_of(chance, most), *items[1] = {&item};
    pl_draft_plan(items, 1, 1, room, 1, cost);
    return item.n;
}

/* The length with most tokens a second, by trying all; within the least gain of what was chosen. */
Test(draft_plan, one_answer_gets_the_length_that_pays_most)
{
    pl_draft_cost cost = learned();
    for (int percent = 0; percent <= 100; percent += 5) {
        double chance = percent / 100.0, best = 0;
        for (int n = 0; n <= 8; n++) {
            double tokens = 1;
            for (int i = 1; i <= n; i++)
                tokens += pow(chance, i);
            best = fmax(best, tokens / pl_draft_cost_expect(&cost, 1 + n));
        }
        double tokens = 1;
        int n = planned(chance, 8, 8, &cost);
        for (int i = 1; i <= n; i++)
            tokens += pow(chance, i);
        cr_assert_geq(tokens / pl_draft_cost_expect(&cost, 1 + n), best / 1.021, "%d %%: %d proposals", percent, n);
    }
    cr_assert_eq(planned(0.03, 8, 8, &cost), 0);
    cr_assert_eq(planned(0.99, 8, 8, &cost), 8);
    cr_assert_eq(planned(0.99, 8, 3, &cost), 3, "there is no more room");
    cr_assert_eq(planned(0.99, 2, 8, &cost), 2, "there are no more proposals");
}

Test(draft_plan, nothing_pays_where_every_row_costs_a_step)
{
    pl_draft_cost cost = {0};
    for (int i = 0; i < 100; i++)
        pl_draft_cost_learn(&cost, 1 + i % 9, 0.01 * (1 + i % 9));
    cr_assert_eq(planned(0.9, 8, 8, &cost), 0);
}

/* With more answers in a step the rows are no longer almost free. */
Test(draft_plan, many_answers_leave_no_room)
{
    pl_draft_cost cost = {0};
    for (int i = 0; i < 600; i++) {
        double rows = 1 + i % 60;
        pl_draft_cost_learn(&cost, rows, rows < 8 ? 0.010 : 0.010 + 0.002 * (rows - 8));
    }
    int total[2] = {0};
    for (int many = 0; many < 2; many++) {
        pl_draft_item item[24], *items[24];
        int n = many ? 24 : 2;
        for (int i = 0; i < n; i++) {
            item[i] = item_of(0.5, 4);
            items[i] = &item[i];
        }
        pl_draft_plan(items, n, n, 64, n, &cost);
        for (int i = 0; i < n; i++)
            total[many] += item[i].n;
    }
    cr_assert_geq(total[0], 4);
    cr_assert_eq(total[1], 0, "%d rows", total[1]);
}

Test(draft_plan, the_likeliest_proposals_go_first)
{
    pl_draft_cost cost = learned();
    pl_draft_item good = item_of(0.95, 6), bad = item_of(0.2, 6), *items[2] = {&bad, &good};
    pl_draft_plan(items, 2, 2, 5, 2, &cost);
    cr_assert_eq(good.n, 5);
    cr_assert_eq(bad.n, 0);
}

Test(draft_plan, a_path_pays_by_its_cost_and_its_chance)
{
    pl_draft_cost cost = learned();
    pl_draft_yield alone = {1, pl_draft_cost_expect(&cost, 1)};
    cr_assert_eq(pl_draft_plan_path(0.9, 0.010, 1, 8, 1, alone, &cost), 0, "as slow as the path itself");
    cr_assert_eq(pl_draft_plan_path(0.5, 0.006, 1, 8, 1, alone, &cost), 0, "0.6 of it, and half is accepted");
    cr_assert_gt(pl_draft_plan_path(0.9, 0.006, 1, 8, 1, alone, &cost), 0);
    cr_assert_gt(pl_draft_plan_path(0.9, 0.002, 1, 8, 1, alone, &cost),
                 pl_draft_plan_path(0.9, 0.006, 1, 8, 1, alone, &cost));
    cr_assert_leq(pl_draft_plan_path(1, 0.001, 1, 3, 1, alone, &cost), 3);
}

Test(draft_plan, probing_costs_its_share)
{
    pl_draft_probe probe = {0};
    double spent = 0, all = 0;
    for (int i = 0; i < 10000; i++) {
        if (pl_draft_probe_take(&probe, 0.004))
            spent += 0.004;
        pl_draft_probe_earn(&probe, 0.010);
        all += 0.010;
    }
    cr_assert_leq(spent, PL_DRAFT_PROBE_SHARE * all);
    cr_assert_geq(spent, 0.9 * PL_DRAFT_PROBE_SHARE * all);
}
