#include <criterion/criterion.h>
#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "host/engine/sampler.h"
#include "tests/unit/fail_alloc.h"

/* ---- parameters -------------------------------------------------------------------------------- */

static const pl_logit_bias below[] = {{3, 1.0f}, {-1, 1.0f}}, above[] = {{100, 1.0f}}, nan_bias[] = {{7, NAN}},
                           inf_bias[] = {{7, INFINITY}};
static const char *const empty_breaker[] = {"a", ""}, *const null_breaker[] = {NULL};

static void expect_refusal(pl_sampling p, const char *message)
{
    pl_error err;
    pl_sampler *sampler = NULL;
    cr_assert_eq(pl_sampling_check(&p, 100, &err), PL_ERR_ARGUMENT, "%s", message);
    cr_assert_str_eq(err.message, message);
    cr_assert_eq(pl_sampler_create(&p, 100, 10, NULL, NULL, &sampler, NULL), PL_ERR_ARGUMENT);
    cr_assert_null(sampler);
}

#define REFUSED(field, value, message)                                                                                 \
    do {                                                                                                               \
        pl_sampling bad = pl_sampling_default();                                                                       \
        bad.field = value;                                                                                             \
        expect_refusal(bad, "sampling: " message);                                                                     \
    } while (0)

Test(sampling, defaults_are_right)
{
    pl_sampling p = pl_sampling_default();
    cr_assert_eq(pl_sampling_check(&p, 1, NULL), PL_OK);
    cr_assert(p.temperature == 1.0f && p.top_k == 64 && p.top_p == 0.95f);
    cr_assert(p.min_p == 0.0f && p.typical_p == 1.0f && p.dry_multiplier == 0.0f);
    cr_assert(p.repeat_penalty == 1.0f && p.presence_penalty == 0.0f && p.frequency_penalty == 0.0f);
}

Test(sampling, every_bad_number_is_named)
{
    REFUSED(temperature, NAN, "temperature is nan, expected a finite number");
    REFUSED(temperature, INFINITY, "temperature is inf, expected a finite number");
    REFUSED(top_k, -1, "top_k is -1, expected 0 (off) or more");
    REFUSED(top_p, 0.0f, "top_p is 0, expected more than 0 and at most 1 (off)");
    REFUSED(top_p, -0.5f, "top_p is -0.5, expected more than 0 and at most 1 (off)");
    REFUSED(top_p, 1.5f, "top_p is 1.5, expected more than 0 and at most 1 (off)");
    REFUSED(top_p, NAN, "top_p is nan, expected more than 0 and at most 1 (off)");
    REFUSED(min_p, -0.25f, "min_p is -0.25, expected 0 (off) to 1");
    REFUSED(min_p, 1.25f, "min_p is 1.25, expected 0 (off) to 1");
    REFUSED(min_p, NAN, "min_p is nan, expected 0 (off) to 1");
    REFUSED(typical_p, 0.0f, "typical_p is 0, expected more than 0 and at most 1 (off)");
    REFUSED(typical_p, NAN, "typical_p is nan, expected more than 0 and at most 1 (off)");
    REFUSED(repeat_penalty, 0.0f, "repeat_penalty is 0, expected a finite number above 0 (1: off)");
    REFUSED(repeat_penalty, INFINITY, "repeat_penalty is inf, expected a finite number above 0 (1: off)");
    REFUSED(repeat_penalty, NAN, "repeat_penalty is nan, expected a finite number above 0 (1: off)");
    REFUSED(presence_penalty, NAN, "presence_penalty is nan, expected a finite number");
    REFUSED(frequency_penalty, -INFINITY, "frequency_penalty is -inf, expected a finite number");
    REFUSED(penalty_last_n, -2, "penalty_last_n is -2, expected -1 (all) or more");
    REFUSED(dry_multiplier, -1.0f, "dry_multiplier is -1, expected a finite number, 0 (off) or more");
    REFUSED(dry_multiplier, NAN, "dry_multiplier is nan, expected a finite number, 0 (off) or more");
    REFUSED(dry_base, 0.5f, "dry_base is 0.5, expected a finite number, 1 or more");
    REFUSED(dry_base, NAN, "dry_base is nan, expected a finite number, 1 or more");
    REFUSED(dry_allowed_length, 0, "dry_allowed_length is 0, expected 1 or more");
    REFUSED(dry_last_n, -2, "dry_last_n is -2, expected -1 (all) or more");
}

Test(sampling, every_bad_list_is_named)
{
    pl_sampling p = pl_sampling_default();
    p.bias = below;
    p.n_bias = 2;
    expect_refusal(p, "sampling: bias[1] is for token -1, expected 0 to 99");
    p.bias = above;
    p.n_bias = 1;
    expect_refusal(p, "sampling: bias[0] is for token 100, expected 0 to 99");
    p.bias = nan_bias;
    expect_refusal(p, "sampling: bias[0] (token 7) is nan, expected a finite number or -inf");
    p.bias = inf_bias;
    expect_refusal(p, "sampling: bias[0] (token 7) is inf, expected a finite number or -inf");
    p.bias = NULL;
    expect_refusal(p, "sampling: bias is NULL, expected 1 entries");

    p = pl_sampling_default();
    p.n_dry_breakers = 2;
    expect_refusal(p, "sampling: dry_breakers is NULL, expected 2 strings");
    p.dry_breakers = empty_breaker;
    expect_refusal(p, "sampling: dry_breakers[1] is empty");
    p.dry_breakers = null_breaker;
    expect_refusal(p, "sampling: dry_breakers[0] is empty");
}

Test(sampling, bad_orders)
{
    pl_sampling p = pl_sampling_default();
    p.order[3] = PL_SAMPLER_DRY;
    expect_refusal(p, "sampling: order[3] is dry for the second time");
    p.order[3] = (pl_sampler_step)8;
    expect_refusal(p, "sampling: order[3] is 8, expected a step from 0 to 7");
    p.order[0] = (pl_sampler_step)-1;
    expect_refusal(p, "sampling: order[0] is -1, expected a step from 0 to 7");
    p = pl_sampling_default();
    p.order[7] = PL_SAMPLER_TOP_K;
    expect_refusal(p, "sampling: order[7] is top_k for the second time");
    p.order[0] = PL_SAMPLER_END;
    cr_assert_eq(pl_sampling_check(&p, 100, NULL), PL_OK, "no step at all is an order");
}

/* ---- choosing ---------------------------------------------------------------------------------- */

static const char *no_text(void *user, int32_t id, size_t *n)
{
    (void)user;
    (void)id;
    *n = 0;
    return NULL;
}

static pl_candidates room;

static pl_sampler *create(const pl_sampling *params, int32_t vocab)
{
    pl_sampler *sampler = NULL;
    pl_error err;
    cr_assert_eq(pl_sampler_create(params, vocab, 1000, no_text, NULL, &sampler, &err), PL_OK);
    pl_candidates_free(&room);
    cr_assert_eq(pl_candidates_init(&room, vocab, &err), PL_OK);
    return sampler;
}

static int32_t sample(pl_sampler *sampler, const float *logits)
{
    int32_t id = -1;
    pl_error err = {0};
    cr_assert_eq(pl_sampler_sample(sampler, &room, logits, NULL, &id, &err), PL_OK, "%s", err.message);
    return id;
}

/* log of 0.1, 0.4, 0.05, 0.3, 0.15 */
static const float five[5] = {-2.30258509f, -0.916290732f, -2.99573227f, -1.20397280f, -1.89711998f};

/* Draws `draws` times and counts. */
static void count_draws(const pl_sampling *params, const float *logits, int32_t vocab, int draws, int *counts)
{
    pl_sampler *sampler = create(params, vocab);
    memset(counts, 0, (size_t)vocab * sizeof *counts);
    for (int i = 0; i < draws; i++)
        counts[sample(sampler, logits)]++;
    pl_sampler_free(sampler);
}

static double chi_square(const int *counts, const double *p, int n, int draws)
{
    double sum = 0.0;
    for (int i = 0; i < n; i++) {
        double expected = p[i] * draws;
        if (expected > 0.0)
            sum += (counts[i] - expected) * (counts[i] - expected) / expected;
        else
            cr_assert_eq(counts[i], 0, "token %d has no probability", i);
    }
    return sum;
}

/* With the right frequencies the statistic exceeds the bound once in a million seeds: it is the quantile
 * of the chi-square distribution at 1 - 1e-6, 33.38 for 4 degrees of freedom, 27.63 for 2. */
Test(sampler, draws_have_the_right_frequencies)
{
    static const double plain[5] = {0.1, 0.4, 0.05, 0.3, 0.15};
    /* top-k 4 leaves 0.421, 0.316, 0.158 and 0.105; top-p 0.8 the first three; temperature 0.5 squares */
    static const double chain[5] = {0.0, 0.16 / 0.2725, 0.0, 0.09 / 0.2725, 0.0225 / 0.2725};
    int counts[5];
    for (uint64_t seed = 0; seed < 4; seed++) {
        pl_sampling p = pl_sampling_default();
        p.seed = seed;
        p.top_k = 0;
        p.top_p = 1.0f;
        count_draws(&p, five, 5, 200000, counts);
        double statistic = chi_square(counts, plain, 5, 200000);
        cr_assert(statistic < 33.38, "%g", statistic);
        p.top_k = 4;
        p.top_p = 0.8f;
        p.temperature = 0.5f;
        count_draws(&p, five, 5, 200000, counts);
        statistic = chi_square(counts, chain, 5, 200000);
        cr_assert(statistic < 27.63, "%g", statistic);
    }
}

Test(sampler, a_seed_gives_the_same_tokens_everywhere)
{
    static const int32_t expected[16] = {62, 852, 692, 889, 124, 914, 457, 235, 605, 642, 531, 247, 173, 642, 383, 852};
    static const int32_t expected_plain[16] = {50,  843, 692, 877, 101, 891, 457, 210,
                                               581, 643, 507, 235, 150, 643, 374, 840};
    float logits[1000];
    for (int i = 0; i < 1000; i++)
        logits[i] = (float)(i * 7919 % 1000) / 64.0f;
    pl_sampling p = pl_sampling_default();
    p.seed = 1234;
    pl_sampler *sampler = create(&p, 1000);
    for (int round = 0; round < 2; round++) {
        for (int i = 0; i < 16; i++)
            cr_assert_eq(sample(sampler, logits), expected[i], "draw %d", i);
        pl_sampler_reset(sampler);
    }
    pl_sampler_free(sampler);
    p.top_k = 0;
    p.top_p = 1.0f;
    p.temperature = 2.5f;
    sampler = create(&p, 1000);
    for (int i = 0; i < 16; i++)
        cr_assert_eq(sample(sampler, logits), expected_plain[i], "draw %d", i);
    pl_sampler_free(sampler);
}

/* Two of which one has been told what the other drew go on alike. */
Test(sampler, follows_what_was_drawn_elsewhere)
{
    float logits[1000];
    for (int i = 0; i < 1000; i++)
        logits[i] = (float)(i * 7919 % 1000) / 64.0f;
    for (int greedy = 0; greedy < 2; greedy++) {
        pl_sampling p = pl_sampling_default();
        p.temperature = greedy ? 0 : 1;
        p.repeat_penalty = 1.2f;
        pl_sampler *first = create(&p, 1000), *second = create(&p, 1000);
        for (int i = 0; i < 20; i++) {
            int32_t id = sample(first, logits);
            pl_sampler_accept(first, id);
            if (i % 3 == 2) {
                cr_assert_eq(sample(second, logits), id, "draw %d", i);
                pl_sampler_accept(second, id);
            } else {
                pl_sampler_follow(second, id);
            }
        }
        pl_sampler_free(first);
        pl_sampler_free(second);
    }
}

Test(sampler, seeds_differ)
{
    float logits[1000] = {0};
    pl_sampling p = pl_sampling_default();
    p.top_k = 0;
    p.top_p = 1.0f;
    int32_t ids[2][8];
    for (uint64_t seed = 0; seed < 2; seed++) {
        p.seed = seed;
        pl_sampler *sampler = create(&p, 1000);
        for (int i = 0; i < 8; i++)
            ids[seed][i] = sample(sampler, logits);
        pl_sampler_free(sampler);
    }
    cr_assert_neq(memcmp(ids[0], ids[1], sizeof ids[0]), 0);
}

Test(sampler, greedy_takes_the_best_and_the_lowest_of_equals)
{
    const float logits[6] = {1.0f, 3.0f, 2.0f, 3.0f, -1.0f, 3.0f};
    const float temperatures[3] = {0.0f, -1.0f, 1e-7f};
    for (int i = 0; i < 3; i++) {
        pl_sampling p = pl_sampling_default();
        p.temperature = temperatures[i];
        p.typical_p = 0.01f; /* would drop the best */
        pl_sampler *sampler = create(&p, 6);
        for (int j = 0; j < 5; j++)
            cr_assert_eq(sample(sampler, logits), 1);
        pl_sampler_free(sampler);
    }
}

Test(sampler, greedy_comes_after_bias_penalties_and_dry)
{
    const float logits[4] = {1.0f, 3.0f, 2.5f, 0.5f};
    const pl_logit_bias ban[] = {{1, -INFINITY}, {0, 1.0f}, {0, 1.0f}};
    pl_sampling p = pl_sampling_default();
    p.temperature = 0.0f;
    p.bias = ban;
    p.n_bias = 3;
    p.repeat_penalty = 2.0f;
    p.dry_multiplier = 10.0f;
    p.dry_allowed_length = 1;
    pl_sampler *sampler = create(&p, 4);
    cr_assert_eq(sample(sampler, logits), 0, "1 is banned, 0 has 1 + 2");
    pl_sampler_accept(sampler, 0);
    cr_assert_eq(sample(sampler, logits), 2, "0 has 3 / 2");
    pl_sampler_accept(sampler, 2);
    cr_assert_eq(sample(sampler, logits), 0, "0 has 3 / 2, 2 has 2.5 / 2");
    pl_sampler_accept(sampler, 0);
    cr_assert_eq(sample(sampler, logits), 0, "2 would repeat 0 2");
    pl_sampler_reset(sampler);
    cr_assert_eq(sample(sampler, logits), 0);
    pl_sampler_free(sampler);
}

Test(sampler, parameters_are_copied)
{
    const float logits[3] = {3.0f, 2.0f, 1.0f};
    pl_logit_bias ban[] = {{0, -INFINITY}};
    pl_sampling p = pl_sampling_default();
    p.temperature = 0.0f;
    p.bias = ban;
    p.n_bias = 1;
    pl_sampler *sampler = create(&p, 3);
    ban[0].id = 1;
    p.temperature = 100.0f;
    cr_assert_eq(sample(sampler, logits), 1);
    pl_sampler_free(sampler);
}

static void set_order(pl_sampling *p, pl_sampler_step first, pl_sampler_step second)
{
    memset(p->order, 0, sizeof p->order);
    p->order[0] = first;
    p->order[1] = second;
}

Test(sampler, the_order_matters)
{
    int counts[5];
    pl_sampling p = pl_sampling_default();
    p.top_p = 0.5f;
    p.temperature = 0.5f;
    set_order(&p, PL_SAMPLER_TOP_P, PL_SAMPLER_TEMPERATURE);
    count_draws(&p, five, 5, 1000, counts);
    cr_assert(counts[1] > 0 && counts[3] > 0 && counts[1] + counts[3] == 1000, "0.4 alone is not 0.5");
    set_order(&p, PL_SAMPLER_TEMPERATURE, PL_SAMPLER_TOP_P);
    count_draws(&p, five, 5, 1000, counts);
    cr_assert(counts[1] == 1000, "0.16 of 0.275 is");

    p = pl_sampling_default();
    p.top_k = 1;
    p.presence_penalty = 5.0f;
    for (int first = 0; first < 2; first++) {
        if (first)
            set_order(&p, PL_SAMPLER_PENALTIES, PL_SAMPLER_TOP_K);
        else
            set_order(&p, PL_SAMPLER_TOP_K, PL_SAMPLER_PENALTIES);
        pl_sampler *sampler = create(&p, 5);
        pl_sampler_accept(sampler, 1);
        cr_assert_eq(sample(sampler, five), first ? 3 : 1);
        pl_sampler_free(sampler);
    }

    p = pl_sampling_default();
    p.top_k = 1;
    set_order(&p, PL_SAMPLER_TEMPERATURE, PL_SAMPLER_END);
    count_draws(&p, five, 5, 1000, counts);
    for (int i = 0; i < 5; i++)
        cr_assert(counts[i] > 0, "top-k is not in the order");
}

Test(sampler, each_truncation_takes_part)
{
    static const struct {
        int32_t top_k;
        float top_p, min_p, typical_p;
        const char *left;
    } cases[] = {
        {2, 1.0f, 0.0f, 1.0f, "-1-3-"}, {0, 0.8f, 0.0f, 1.0f, "-1-34"}, {0, 1.0f, 0.3f, 1.0f, "-1-34"},
        {0, 1.0f, 0.0f, 0.2f, "---3-"}, {0, 1.0f, 0.0f, 1.0f, "01234"}, {4, 0.999f, 0.4f, 1.0f, "-1-3-"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        pl_sampling p = pl_sampling_default();
        p.top_k = cases[i].top_k;
        p.top_p = cases[i].top_p;
        p.min_p = cases[i].min_p;
        p.typical_p = cases[i].typical_p;
        int counts[5];
        count_draws(&p, five, 5, 2000, counts);
        for (int id = 0; id < 5; id++)
            cr_assert_eq(counts[id] > 0, cases[i].left[id] != '-', "case %zu, token %d", i, id);
    }
}

/* ---- bad logits, bans -------------------------------------------------------------------------- */

Test(sampler, logits_that_are_not_finite)
{
    float logits[200] = {0};
    pl_sampling p = pl_sampling_default();
    for (int greedy = 0; greedy < 2; greedy++) {
        p.temperature = (float)!greedy;
        pl_sampler *sampler = create(&p, 200);
        int32_t id = 77;
        pl_error err;
        logits[150] = INFINITY;
        logits[137] = NAN;
        cr_assert_eq(pl_sampler_sample(sampler, &room, logits, NULL, &id, &err), PL_ERR_NUMERIC);
        cr_assert(!strcmp(err.message, "the logit of token 137 is nan") ||
                  !strcmp(err.message, "the logit of token 137 is -nan"));
        logits[137] = -INFINITY;
        cr_assert_eq(pl_sampler_sample(sampler, &room, logits, NULL, &id, &err), PL_ERR_NUMERIC);
        cr_assert_str_eq(err.message, "the logit of token 137 is -inf");
        logits[137] = 0.0f;
        cr_assert_eq(pl_sampler_sample(sampler, &room, logits, NULL, &id, &err), PL_ERR_NUMERIC);
        cr_assert_str_eq(err.message, "the logit of token 150 is inf");
        cr_assert_eq(id, 77);
        logits[150] = 0.0f;
        sample(sampler, logits);
        pl_sampler_free(sampler);
    }
}

Test(sampler, huge_logits)
{
    const float logits[4] = {FLT_MAX, -FLT_MAX, FLT_MAX, 0.0f};
    pl_sampling p = pl_sampling_default();
    p.temperature = 1e-5f;
    p.repeat_penalty = 1e-3f;
    pl_sampler *sampler = create(&p, 4);
    for (int i = 0; i < 100; i++) {
        int32_t id = sample(sampler, logits);
        cr_assert(id == 0 || id == 2);
        pl_sampler_accept(sampler, id);
    }
    pl_sampler_free(sampler);
}

Test(sampler, bans)
{
    const pl_logit_bias bans[5] = {{0, -INFINITY}, {1, -INFINITY}, {3, -INFINITY}, {4, -INFINITY}, {2, -INFINITY}};
    for (int greedy = 0; greedy < 2; greedy++) {
        pl_sampling p = pl_sampling_default();
        p.temperature = (float)!greedy;
        p.presence_penalty = -100.0f;
        p.repeat_penalty = 3.0f;
        p.bias = bans;
        p.n_bias = 4;
        pl_sampler *sampler = create(&p, 5);
        for (int i = 0; i < 50; i++) {
            cr_assert_eq(sample(sampler, five), 2);
            pl_sampler_accept(sampler, 1);
        }
        pl_sampler_free(sampler);
        p.n_bias = 5;
        sampler = create(&p, 5);
        int32_t id = 77;
        pl_error err;
        cr_assert_eq(pl_sampler_sample(sampler, &room, five, NULL, &id, &err), PL_ERR_ARGUMENT);
        cr_assert_str_eq(err.message, "sampling: the bias bans all 5 tokens");
        cr_assert_eq(id, 77);
        pl_sampler_free(sampler);
    }
}

/* A masked sampler is one whose bias bans the rest, whatever else is on. */
Test(sampler, a_mask_is_a_list_of_bans)
{
    enum { VOCAB = 1111 };
    static float logits[VOCAB];
    static uint32_t mask[(VOCAB + 31) / 32];
    static pl_logit_bias banned[VOCAB];
    uint64_t state = 5;
    for (int round = 0; round < 300; round++) {
        pl_sampling p = pl_sampling_default();
        p.temperature = round % 3 ? 1.3f : 0.0f;
        p.top_k = round % 2 ? 20 : 0;
        p.repeat_penalty = round % 5 ? 1.2f : 1.0f;
        p.min_p = round % 7 ? 0.0f : 0.01f;
        p.seed = (uint64_t)round;
        p.bias = banned;
        memset(mask, round % 4 ? 0 : 0xff, sizeof mask);
        for (int i = 0; i < VOCAB; i++) {
            state = state * 6364136223846793005u + 1442695040888963407u;
            logits[i] = (float)(state >> 40) / 1e6f;
            bool allowed = state >> 33 & 1 || i == VOCAB - 1;
            mask[i / 32] = (mask[i / 32] & ~(1u << i % 32)) | (uint32_t)allowed << i % 32;
            if (!allowed)
                banned[p.n_bias++] = (pl_logit_bias){i, -INFINITY};
        }
        pl_sampler *want = create(&p, VOCAB);
        p.n_bias = 0;
        pl_sampler *masked = create(&p, VOCAB);
        for (int i = 0; i < 5; i++) {
            int32_t id = -1, expected = sample(want, logits);
            cr_assert_eq(pl_sampler_sample(masked, &room, logits, mask, &id, NULL), PL_OK);
            cr_assert_eq(id, expected, "round %d: %d, expected %d", round, id, expected);
            pl_sampler_accept(want, id);
            pl_sampler_accept(masked, id);
        }
        pl_sampler_free(want);
        pl_sampler_free(masked);
    }
}

Test(sampler, a_mask_and_a_bias_that_leave_nothing)
{
    pl_sampling p = pl_sampling_default();
    const pl_logit_bias ban = {2, -INFINITY};
    p.bias = &ban;
    p.n_bias = 1;
    pl_sampler *sampler = create(&p, 5);
    const uint32_t mask = 1u << 2;
    int32_t id = 77;
    pl_error err;
    cr_assert_eq(pl_sampler_sample(sampler, &room, five, &mask, &id, &err), PL_ERR_ARGUMENT);
    cr_assert_str_eq(err.message, "sampling: the bias with the grammar bans all 5 tokens");
    cr_assert_eq(id, 77);
    pl_sampler_free(sampler);
}

Test(sampler, one_token)
{
    const float logits[1] = {-5.0f};
    pl_sampling p = pl_sampling_default();
    p.typical_p = p.top_p = p.min_p = 0.5f;
    pl_sampler *sampler = create(&p, 1);
    cr_assert_eq(sample(sampler, logits), 0);
    pl_sampler_free(sampler);
    cr_assert_eq(pl_sampler_create(&p, 0, 1, NULL, NULL, &sampler, NULL), PL_ERR_ARGUMENT);
    cr_assert_eq(pl_sampler_create(&p, 1, -1, NULL, NULL, &sampler, NULL), PL_ERR_ARGUMENT);
    pl_sampler_free(NULL);
}

/* ---- memory ------------------------------------------------------------------------------------ */

static const pl_logit_bias some_bias[] = {{5, 1.0f}, {9, -INFINITY}};

static pl_sampling everything_on(void)
{
    pl_sampling p = pl_sampling_default();
    p.min_p = 0.01f;
    p.typical_p = 0.9f;
    p.repeat_penalty = 1.1f;
    p.frequency_penalty = 0.1f;
    p.dry_multiplier = 0.8f;
    p.temperature = 0.7f;
    p.bias = some_bias;
    p.n_bias = 2;
    return p;
}

typedef struct answer {
    pl_sampler *sampler;
    float logits[5000];
} answer;

/* Goes past the ends of the history. */
static pl_status answer_at_length(void *ctx, pl_error *err)
{
    const answer *a = ctx;
    for (int i = 0; i < 3000; i++) {
        int32_t id = -1;
        float logprob;
        pl_logprob top[20];
        PL_TRY(pl_sampler_sample(a->sampler, &room, a->logits, NULL, &id, err));
        PL_TRY(pl_sampler_logprobs(a->logits, 5000, id, &logprob, top, 20, err));
        pl_sampler_accept(a->sampler, id);
    }
    return PL_OK;
}

Test(sampler, nothing_is_allocated_after_creation)
{
    static answer a;
    for (int i = 0; i < 5000; i++)
        a.logits[i] = (float)(i * 7919 % 5000) / 300.0f;
    pl_sampling all = everything_on(), plain = pl_sampling_default(), greedy = pl_sampling_default();
    plain.top_k = 0;
    greedy.temperature = 0.0f;
    const pl_sampling *params[3] = {&all, &plain, &greedy};
    for (int i = 0; i < 3; i++) {
        a.sampler = create(params[i], 5000);
        cr_assert_eq(fail_alloc_each(answer_at_length, &a), 0);
        pl_sampler_free(a.sampler);
    }
}

static pl_status create_and_free(void *ctx, pl_error *err)
{
    pl_sampler *sampler = NULL;
    pl_status status = pl_sampler_create(ctx, 100, 50, no_text, NULL, &sampler, err);
    cr_assert_eq(sampler != NULL, status == PL_OK);
    pl_sampler_free(sampler);
    return status;
}

Test(sampler, every_allocation_of_creation_may_fail)
{
    pl_sampling p = everything_on();
    cr_assert_gt(fail_alloc_each(create_and_free, &p), 10);
}

/* ---- logprobs ---------------------------------------------------------------------------------- */

Test(logprobs, by_hand)
{
    float logits[5], logprob = 0.0f;
    for (int i = 0; i < 5; i++)
        logits[i] = five[i] + 20.0f;
    pl_logprob top[5];
    static const int32_t order[5] = {1, 3, 4, 0, 2};
    for (size_t n = 0; n <= 5; n++)
        for (int32_t id = 0; id < 5; id++) {
            cr_assert_eq(pl_sampler_logprobs(logits, 5, id, &logprob, top, n, NULL), PL_OK);
            cr_assert(fabsf(logprob - five[id]) < 4e-6f); /* 2^-19: logits of 20 are multiples of it */
            for (size_t i = 0; i < n; i++) {
                cr_assert_eq(top[i].id, order[i]);
                cr_assert(fabsf(top[i].logprob - five[order[i]]) < 4e-6f);
            }
        }
}

Test(logprobs, equal_ones_come_in_order_of_id)
{
    const float logits[7] = {1, 2, 1, 2, 1, 2, 1};
    static const int32_t order[7] = {1, 3, 5, 0, 2, 4, 6};
    pl_logprob top[7];
    float logprob;
    for (size_t n = 1; n <= 7; n++) {
        cr_assert_eq(pl_sampler_logprobs(logits, 7, 0, &logprob, top, n, NULL), PL_OK);
        for (size_t i = 0; i < n; i++)
            cr_assert_eq(top[i].id, order[i], "%zu of %zu", i, n);
    }
}

static int by_logit(const void *a, const void *b)
{
    const pl_logprob *x = a, *y = b;
    if (x->logprob != y->logprob)
        return x->logprob > y->logprob ? -1 : 1;
    return x->id < y->id ? -1 : 1;
}

Test(logprobs, are_within_their_bound)
{
    enum { VOCAB = 30000 };
    static float logits[VOCAB];
    static pl_logprob sorted[VOCAB], top[VOCAB];
    uint64_t state = 3;
    for (int round = 0; round < 20; round++) {
        double sum = 0.0;
        for (int i = 0; i < VOCAB; i++) {
            state = state * 6364136223846793005u + 1442695040888963407u;
            double u = (double)(state >> 40) * 0x1p-24;
            logits[i] = round % 4 == 0   ? (float)i * 1e-3f
                        : round % 4 == 1 ? 30.0f
                                         : (float)((u - 0.5) * (2 << round % 8));
            sorted[i] = (pl_logprob){i, logits[i]};
        }
        qsort(sorted, VOCAB, sizeof *sorted, by_logit);
        for (int i = 0; i < VOCAB; i++)
            sum += exp((double)logits[i] - sorted[0].logprob);
        size_t n = round % 3 == 0 ? VOCAB : round % 3 == 1 ? 20 : 1;
        int32_t id = (int32_t)(state >> 33) % VOCAB;
        float logprob;
        cr_assert_eq(pl_sampler_logprobs(logits, VOCAB, id, &logprob, top, n, NULL), PL_OK);
        double exact = logits[id] - sorted[0].logprob - log(sum);
        cr_assert(fabs(logprob - exact) <= 1e-6 + fabs(exact) * 0x1p-24);
        for (size_t i = 0; i < n; i++) {
            cr_assert_eq(top[i].id, sorted[i].id);
            exact = (double)sorted[i].logprob - sorted[0].logprob - log(sum);
            cr_assert(fabs(top[i].logprob - exact) <= 1e-6 + fabs(exact) * 0x1p-24);
        }
    }
}

Test(logprobs, bad_input)
{
    float logits[3] = {0.0f, 1.0f, 2.0f}, logprob = 5.0f;
    pl_logprob top[4];
    pl_error err;
    cr_assert_eq(pl_sampler_logprobs(logits, 3, 3, &logprob, top, 1, &err), PL_ERR_ARGUMENT);
    cr_assert_str_eq(err.message, "logprobs: token 3, expected 0 to 2");
    cr_assert_eq(pl_sampler_logprobs(logits, 3, -1, &logprob, top, 1, &err), PL_ERR_ARGUMENT);
    cr_assert_eq(pl_sampler_logprobs(logits, 3, 0, &logprob, top, 4, &err), PL_ERR_ARGUMENT);
    cr_assert_str_eq(err.message, "logprobs: 4 of 3 tokens asked for");
    logits[1] = INFINITY;
    cr_assert_eq(pl_sampler_logprobs(logits, 3, 0, &logprob, top, 1, &err), PL_ERR_NUMERIC);
    cr_assert_str_eq(err.message, "the logit of token 1 is inf");
    cr_assert_eq(logprob, 5.0f);
}
