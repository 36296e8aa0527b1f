#include <criterion/criterion.h>

#include "host/base/rng.h"
#include "host/engine/step_plan.h"

#define MOST 2000

/* 10 ms a step, and 1 ms a row. */
static const pl_step_cost cost = {.base_s = 0.01, .row_s = 0.001};
static const pl_plan_limits wide = {.rows = 512, .wanted = 512, .sequences = 64, .step_s = 0.1, .now_s = 100};

static pl_plan_item answer(int64_t last_step)
{
    return (pl_plan_item){
        .to_read = 1, .answering = true, .running = true, .ready = true, .weight = 1, .last_step = last_step};
}

static pl_plan_item prompt(int32_t tokens, double arrived)
{
    return (pl_plan_item){.to_read = tokens, .ready = true, .weight = 1, .arrived_s = arrived};
}

static pl_plan plan(pl_plan_item *items, int32_t n, const pl_plan_limits *limits)
{
    static int32_t order[MOST];
    pl_plan out;
    pl_plan_step(items, n, order, &cost, 0.5, limits, &out);
    int32_t rows = 0, wanted = 0, started = 0;
    for (int32_t i = 0; i < n; i++) {
        cr_assert(items[i].rows >= 0 && items[i].rows <= items[i].to_read);
        cr_assert(items[i].rows == 0 || items[i].ready);
        rows += items[i].rows;
        wanted += items[i].rows > 0 && items[i].rows == items[i].to_read;
        started += items[i].rows > 0 && !items[i].running;
    }
    cr_assert(rows == out.rows && wanted == out.wanted);
    cr_assert(rows <= limits->rows && wanted <= limits->wanted && started <= limits->sequences);
    return out;
}

Test(step_plan, a_long_prompt_does_not_stall_answers)
{
    pl_plan_item items[] = {prompt(4000, 1), answer(3), answer(3)};
    pl_plan p = plan(items, 3, &wide);
    cr_assert(items[1].rows == 1 && items[2].rows == 1);
    /* 0.1 s - 10 ms - 2 rows leave 88 ms: 176 rows at half the cost. */
    cr_assert_eq(items[0].rows, 176);
    cr_assert_float_eq(p.weighted_rows, 2 + 88, 1e-9);
}

Test(step_plan, alone_a_prompt_fills_the_step)
{
    pl_plan_item items[] = {prompt(4000, 1)};
    plan(items, 1, &wide);
    cr_assert_eq(items[0].rows, 512);
}

Test(step_plan, prompts_go_on_under_any_load)
{
    pl_plan_item items[601];
    for (int i = 0; i < 600; i++)
        items[i] = answer(i % 7);
    items[600] = prompt(300, 1);
    plan(items, 601, &wide);
    cr_assert_eq(items[600].rows, PL_PLAN_LEAST);
    int32_t answers = 0;
    for (int i = 0; i < 600; i++)
        answers += items[i].rows;
    cr_assert_eq(answers, 512 - PL_PLAN_LEAST);
}

Test(step_plan, answers_that_are_too_many_take_turns)
{
    pl_plan_item items[50];
    pl_plan_limits narrow = wide;
    narrow.wanted = 16;
    for (int i = 0; i < 50; i++)
        items[i] = answer(0);
    for (int step = 1; step <= 100; step++) {
        cr_assert_eq(plan(items, 50, &narrow).rows, 16);
        for (int i = 0; i < 50; i++)
            if (items[i].rows)
                items[i].last_step = step;
            else
                cr_assert(step - items[i].last_step < 4, "%d waits since step %d", i, (int)items[i].last_step);
    }
}

Test(step_plan, a_prompt_can_end_where_few_rows_can_be_wanted)
{
    pl_plan_item items[21];
    pl_plan_limits narrow = wide;
    narrow.wanted = 16;
    for (int i = 0; i < 20; i++)
        items[i] = answer(0);
    items[20] = prompt(30, 1);
    plan(items, 21, &narrow);
    cr_assert_eq(items[20].rows, 30);
}

Test(step_plan, order_of_prompts)
{
    pl_plan_limits tight = wide;
    tight.rows = 10;
    pl_plan_item items[] = {prompt(10, 1), prompt(10, 2), prompt(10, 3), prompt(10, 4), prompt(10, 5)};
    items[0].client_served = 900; /* came first, but was served much */
    items[2].client_served = 50;
    items[1].client_served = 100;
    items[3].due_s = 100.5; /* near */
    items[3].client_served = items[4].client_served = 1000;
    items[4].priority = 1;
    const int expected[] = {4, 3, 2, 1, 0};
    for (int k = 0; k < 5; k++) {
        plan(items, 5, &tight);
        for (int i = 0; i < 5; i++)
            cr_assert_eq(items[i].rows, i == expected[k] ? 10 : 0, "step %d, prompt %d: %d rows", k, i, items[i].rows);
        items[expected[k]].ready = false;
    }
}

Test(step_plan, a_moment_long_gone_or_far_away_is_no_reason)
{
    pl_plan_limits tight = wide;
    tight.rows = 10;
    pl_plan_item items[] = {prompt(10, 1), prompt(10, 2), prompt(10, 3)};
    items[1].due_s = 50;
    items[2].due_s = 150;
    plan(items, 3, &tight);
    cr_assert_eq(items[0].rows, 10);
}

Test(step_plan, without_sequences_only_the_begun_go_on)
{
    pl_plan_limits full = wide;
    full.sequences = 0;
    pl_plan_item items[] = {prompt(10, 1), prompt(10, 2)};
    items[1].running = true;
    plan(items, 2, &full);
    cr_assert(items[0].rows == 0 && items[1].rows == 10);
}

static int32_t below(pl_rng *rng, int32_t n)
{
    return (int32_t)(pl_rng_uniform(rng) * n);
}

Test(step_plan, everything_is_served_in_the_end)
{
    pl_rng rng;
    pl_rng_seed(&rng, 5);
    for (int round = 0; round < 50; round++) {
        static pl_plan_item items[300];
        pl_plan_limits limits = wide;
        limits.rows = 1 + below(&rng, 64);
        limits.wanted = 1 + below(&rng, 20);
        int32_t n = 1 + below(&rng, 300), left[300], room = 1 + below(&rng, 8), running = 0;
        for (int32_t i = 0; i < n; i++) {
            items[i] = prompt(1 + below(&rng, 200), below(&rng, 9));
            items[i].priority = below(&rng, 3);
            items[i].client_served = below(&rng, 5);
            left[i] = below(&rng, 20);
        }
        int64_t step = 0;
        for (int32_t open = n; open > 0; step++) {
            cr_assert_lt(step, 200000, "round %d does not end", round);
            limits.sequences = room - running;
            plan(items, n, &limits);
            for (int32_t i = 0; i < n; i++) {
                if (items[i].rows == 0)
                    continue;
                items[i].last_step = step;
                running += !items[i].running;
                items[i].running = true;
                items[i].to_read -= items[i].rows;
                if (items[i].to_read > 0)
                    continue;
                items[i].to_read = 1;
                items[i].answering = true;
                if (left[i]-- == 0) {
                    items[i].ready = items[i].running = false;
                    running--;
                    open--;
                }
            }
        }
    }
}

Test(step_plan, the_least_of_them_gives_way)
{
    pl_plan_item items[] = {answer(0), answer(0), answer(0), answer(0)};
    for (int i = 0; i < 4; i++)
        items[i].arrived_s = i;
    cr_assert_eq(pl_plan_victim(items, 4, 1), 3);
    cr_assert_eq(pl_plan_victim(items, 4, 3), -1);
    items[0].priority = -1;
    cr_assert_eq(pl_plan_victim(items, 4, 3), 0);
    items[3].running = false;
    items[0].running = false;
    cr_assert_eq(pl_plan_victim(items, 4, 1), 2);
    cr_assert_eq(pl_plan_victim(items, 4, 0), -1, "all others go before it");
}
