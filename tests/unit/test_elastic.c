#include <criterion/criterion.h>

#include "host/engine/elastic.h"

/* e4b, a mix and e2b of a desktop's CPU. */
static const pl_elastic_path usual[] = {{1, 0.010, 0.05, 0}, {0.75, 0.008, 0.04, 0}, {0.5, 0.006, 0.03, 0}};

static pl_elastic_load waiting(int64_t tokens, double now)
{
    return (pl_elastic_load){
        .running = 2, .waiting = tokens > 0, .waiting_tokens = tokens, .max_running = 64, .now_s = now};
}

static pl_elastic_choice choose(int32_t level, pl_wish wish, double first, double token, int32_t prompt)
{
    pl_elastic_state state = {.level = level};
    pl_elastic_ask ask = {
        .wish = wish, .first_token_s = first, .token_s = token, .prompt_tokens = prompt, .answer_tokens = 100};
    return pl_elastic_choose(&state, usual, 3, &ask);
}

Test(elastic, wishes)
{
    for (int32_t level = 0; level < PL_ELASTIC_LEVELS; level++) {
        cr_assert_eq(choose(level, PL_WISH_QUALITY, 0, 0, 5000).path, 0);
        cr_assert_eq(choose(level, PL_WISH_SPEED, 0, 0, 5).path, 2);
    }
    const int32_t balanced[PL_ELASTIC_LEVELS] = {0, 1, 2, 2};
    for (int32_t level = 0; level < PL_ELASTIC_LEVELS; level++)
        cr_assert_eq(choose(level, PL_WISH_BALANCED, 0, 0, 100).path, balanced[level], "level %d", level);
}

Test(elastic, the_widest_path_that_keeps_the_deadline)
{
    cr_assert_eq(choose(0, PL_WISH_QUALITY, 1.06, 0, 100).path, 0);
    pl_elastic_choice c = choose(0, PL_WISH_QUALITY, 0.9, 0, 100);
    cr_assert_eq(c.path, 1);
    cr_assert_str_eq(c.reason, "deadline");
    cr_assert_eq(choose(0, PL_WISH_QUALITY, 0.1, 0, 100).path, 2, "none keeps it: the soonest");
    cr_assert_eq(choose(0, PL_WISH_BALANCED, 0, 0.035, 100).path, 2);
}

Test(elastic, what_is_kept_of_the_prompt_counts)
{
    pl_elastic_path paths[] = {usual[0], usual[1], usual[2]};
    paths[0].reusable = 90;
    pl_elastic_state state = {0};
    pl_elastic_ask ask = {.wish = PL_WISH_BALANCED, .first_token_s = 0.2, .prompt_tokens = 100};
    cr_assert_eq(pl_elastic_choose(&state, paths, 3, &ask).path, 0);
}

Test(elastic, pressure_rises_at_once_and_falls_slowly)
{
    pl_elastic_state state = {0};
    pl_elastic_load load = waiting(900, 10); /* 9 s of reading: more than four times good time */
    pl_elastic_follow(&state, usual, 3, &load);
    cr_assert_eq(state.level, 3);
    for (int i = 0; i < 100; i++) {
        load = waiting(0, 10.01 + 0.01 * i);
        pl_elastic_follow(&state, usual, 3, &load);
    }
    cr_assert_eq(state.level, 3, "one calm second is not enough");
    int32_t last = 3;
    double fell[3] = {0};
    for (int i = 0; i < 1000 && state.level > 0; i++) {
        load = waiting(0, 11.01 + 0.01 * i);
        pl_elastic_follow(&state, usual, 3, &load);
        cr_assert(state.level == last || state.level == last - 1);
        if (state.level < last)
            fell[--last] = load.now_s;
    }
    cr_assert_eq(state.level, 0);
    cr_assert(fell[1] - fell[2] >= 1.99 && fell[0] - fell[1] >= 1.99);
}

Test(elastic, load_that_swings_does_not_make_paths_swing)
{
    pl_elastic_state state = {0};
    int changes = 0;
    int32_t last = 0;
    for (int i = 0; i < 2000; i++) {
        pl_elastic_load load = waiting(i % 2 ? 250 : 0, 1 + 0.05 * i);
        pl_elastic_follow(&state, usual, 3, &load);
        changes += state.level != last;
        last = state.level;
    }
    cr_assert_eq(changes, 1, "%d changes", changes);
}

Test(elastic, one_path_is_no_choice)
{
    pl_elastic_state state = {0};
    pl_elastic_load load = waiting(100000, 1);
    pl_elastic_follow(&state, usual, 1, &load);
    pl_elastic_ask ask = {.wish = PL_WISH_SPEED, .first_token_s = 0.001, .prompt_tokens = 1000};
    cr_assert_eq(state.level, 0);
    cr_assert_eq(pl_elastic_choose(&state, usual, 1, &ask).path, 0);
}

static int32_t move(int32_t level, int32_t present, int32_t reread, int32_t left)
{
    pl_elastic_state state = {.level = level};
    pl_elastic_ask ask = {.wish = PL_WISH_BALANCED, .prompt_tokens = 100};
    return pl_elastic_move(&state, usual, 3, &ask, present, reread, left).path;
}

Test(elastic, moves_when_it_pays)
{
    cr_assert_eq(move(0, 0, 0, 100), 0);
    cr_assert_eq(move(3, 0, 0, 1), 2, "free moves always pay");
    cr_assert_eq(move(3, 0, 200, 100), 0, "2 s saved, 1.2 s to read again: not worth it");
    cr_assert_eq(move(3, 0, 200, 300), 2);
    cr_assert_eq(move(0, 2, 0, 5), 0, "back where it is free");
    cr_assert_eq(move(0, 2, 500, 100), 2);
    cr_assert_eq(move(0, 2, 50, 200), 0);
}
