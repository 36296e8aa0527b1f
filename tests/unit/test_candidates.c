#include <criterion/criterion.h>
#include <float.h>
#include <math.h>
#include <stdlib.h>

#include "host/engine/candidates.h"
#include "host/engine/softmax.h"

static uint64_t random_state;

static uint64_t random_bits(void)
{
    random_state ^= random_state << 13;
    random_state ^= random_state >> 7;
    random_state ^= random_state << 17;
    return random_state;
}

static double random_unit(void)
{
    return (double)(random_bits() >> 11) * 0x1p-53;
}

/* ---- sums -------------------------------------------------------------------------------------- */

Test(softmax, terms_are_within_their_bound)
{
    float x[1000], p[1000];
    for (int round = 0; round < 500; round++) {
        for (int i = 0; i < 1000; i++)
            x[i] = -(float)((round * 1000 + i) * (86.9 / 500000.0));
        double sum = pl_exp_sum(x, 1000, 0.0f, p), expected = 0.0;
        for (int i = 0; i < 1000; i++) {
            double e = exp((double)x[i]);
            expected += e;
            cr_assert(fabs(p[i] - e) <= e * 0x1p-22, "exp(%g) = %g, not %g", x[i], p[i], e);
        }
        cr_assert(fabs(sum - expected) <= expected * 0x1p-22);
    }
}

Test(softmax, far_below_is_zero)
{
    const float x[3] = {-87.5f, -INFINITY, -FLT_MAX};
    float p[3];
    cr_assert_eq(pl_exp_sum(x, 3, 0.0f, p), 0.0);
    const float best[1] = {FLT_MAX};
    cr_assert_eq(pl_exp_sum(best, 1, FLT_MAX, p), 1.0);
}

Test(softmax, logarithm_is_within_its_bound)
{
    random_state = 1;
    for (int i = 0; i < 200000; i++) {
        double x = exp(random_unit() * 100.0 - 50.0), expected = log(x);
        cr_assert(fabs(pl_log(x) - expected) <= 4.0 * DBL_EPSILON * fabs(expected), "log(%g)", x);
    }
    cr_assert_eq(pl_log(1.0), 0.0);
}

Test(softmax, what_is_not_finite_is_seen_everywhere)
{
    const float bad[3] = {NAN, INFINITY, -INFINITY};
    float x[45], max;
    for (size_t n = 1; n <= 45; n++)
        for (size_t at = 0; at < n; at++)
            for (size_t b = 0; b < 3; b++) {
                for (size_t i = 0; i < n; i++)
                    x[i] = (float)i - 20.0f;
                cr_assert(pl_max_finite(x, n, &max) && max == (float)(n - 1) - 20.0f);
                cr_assert_eq(pl_max(x, n), max);
                cr_assert_eq(pl_find_from(x, 0, n, x[at]), at);
                x[at] = bad[b];
                cr_assert(!pl_max_finite(x, n, &max));
            }
    cr_assert_eq(pl_max(x, 0), -INFINITY);
    cr_assert_eq(pl_find_from(x, 0, 45, 1000.0f), 45);
    cr_assert_eq(pl_find_from(x, 45, 45, -1000.0f), 45);
}

/* ---- small cases, by hand ---------------------------------------------------------------------- */

typedef struct fixture {
    pl_candidates c;
    float x[8];
} fixture;

/* Probabilities to logits. */
static void start(fixture *f, size_t n, const double *p)
{
    pl_error err;
    cr_assert_eq(pl_candidates_init(&f->c, (int32_t)n, &err), PL_OK);
    for (size_t i = 0; i < n; i++)
        f->x[i] = (float)log(p[i]);
    pl_candidates_start(&f->c, f->x);
}

static void expect_ids(fixture *f, size_t n, const int32_t *ids)
{
    cr_assert_eq(f->c.n, n, "%zu left, expected %zu", f->c.n, n);
    for (size_t i = 0; i < n; i++) {
        int32_t id = f->c.id ? f->c.id[i] : (int32_t)i;
        cr_assert_eq(id, ids[i], "candidate %zu is %d, expected %d", i, id, ids[i]);
        cr_assert_eq(f->c.x[i], f->x[id], "candidate %zu has another's logit", i);
    }
    pl_candidates_free(&f->c);
}

#define EXPECT(f, ...) expect_ids(f, sizeof((int32_t[]){__VA_ARGS__}) / sizeof(int32_t), (int32_t[]){__VA_ARGS__})

static const double five[5] = {0.1, 0.4, 0.05, 0.3, 0.15};

Test(candidates, top_k)
{
    fixture f;
    start(&f, 5, five);
    pl_candidates_top_k(&f.c, 3);
    EXPECT(&f, 1, 3, 4);
    start(&f, 5, five);
    pl_candidates_top_k(&f.c, 1);
    EXPECT(&f, 1);
    start(&f, 5, five);
    pl_candidates_top_k(&f.c, 5);
    EXPECT(&f, 0, 1, 2, 3, 4);
    start(&f, 5, five);
    pl_candidates_top_k(&f.c, 1000000);
    EXPECT(&f, 0, 1, 2, 3, 4);
}

Test(candidates, top_p)
{
    const struct {
        double p;
        size_t n;
        int32_t ids[5];
    } cases[] = {
        {0.3, 1, {1}},
        {0.39, 1, {1}},
        {0.41, 2, {1, 3}},
        {0.69, 2, {1, 3}},
        {0.71, 3, {1, 3, 4}},
        {0.84, 3, {1, 3, 4}},
        {0.86, 4, {0, 1, 3, 4}},
        {0.96, 5, {0, 1, 2, 3, 4}},
        {1.0, 5, {0, 1, 2, 3, 4}},
        {1e-30, 1, {1}},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        fixture f;
        start(&f, 5, five);
        pl_candidates_top_p(&f.c, cases[i].p);
        expect_ids(&f, cases[i].n, cases[i].ids);
    }
}

Test(candidates, min_p)
{
    fixture f;
    start(&f, 5, five);
    pl_candidates_min_p(&f.c, 0.3); /* 0.12 and more */
    EXPECT(&f, 1, 3, 4);
    start(&f, 5, five);
    pl_candidates_min_p(&f.c, 0.12);
    EXPECT(&f, 0, 1, 2, 3, 4);
    start(&f, 5, five);
    pl_candidates_min_p(&f.c, 0.13);
    EXPECT(&f, 0, 1, 3, 4);
    start(&f, 5, five);
    pl_candidates_min_p(&f.c, 1.0);
    EXPECT(&f, 1);
}

Test(candidates, typical)
{
    /* Entropy 1.3918; surprises 2.303, 0.916, 2.996, 1.204, 1.897: nearest first 3 (0.188), 1 (0.476),
     * 4 (0.505), 0 (0.911), 2 (1.604). */
    const struct {
        double p;
        size_t n;
        int32_t ids[5];
    } cases[] = {
        {0.2, 1, {3}}, {0.31, 2, {1, 3}}, {0.71, 3, {1, 3, 4}}, {0.86, 4, {0, 1, 3, 4}}, {0.96, 5, {0, 1, 2, 3, 4}},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        fixture f;
        start(&f, 5, five);
        pl_candidates_typical(&f.c, cases[i].p);
        expect_ids(&f, cases[i].n, cases[i].ids);
    }
}

Test(candidates, lower_ids_win_ties)
{
    const double p[6] = {0.1, 0.2, 0.2, 0.1, 0.2, 0.2};
    fixture f;
    start(&f, 6, p);
    pl_candidates_top_k(&f.c, 3);
    EXPECT(&f, 1, 2, 4);
    start(&f, 6, p);
    pl_candidates_top_k(&f.c, 5);
    EXPECT(&f, 0, 1, 2, 4, 5);
    start(&f, 6, p);
    pl_candidates_top_p(&f.c, 0.5);
    EXPECT(&f, 1, 2, 4);
    start(&f, 6, p);
    cr_assert_eq(pl_candidates_best(&f.c), 1);
    pl_candidates_min_p(&f.c, 1.0);
    EXPECT(&f, 1, 2, 4, 5);

    start(&f, 3, (double[]){1.0, 1.0, 1.0});
    f.x[0] = -0.0f;
    pl_candidates_top_k(&f.c, 1);
    EXPECT(&f, 0);
}

Test(candidates, each_step_sees_what_is_left)
{
    fixture f;
    start(&f, 5, five); /* after top-k 2: 0.571, 0.429 */
    pl_candidates_top_k(&f.c, 2);
    pl_candidates_top_p(&f.c, 0.5);
    EXPECT(&f, 1);
    start(&f, 5, five);
    pl_candidates_top_p(&f.c, 0.5);
    pl_candidates_top_k(&f.c, 2);
    EXPECT(&f, 1, 3);
}

Test(candidates, temperature)
{
    fixture f;
    start(&f, 5, five);
    pl_candidates_temperature(&f.c, 0.5f);
    for (int i = 0; i < 5; i++)
        cr_assert_eq(f.c.x[i], f.x[i] / 0.5f);
    pl_candidates_free(&f.c);

    start(&f, 3, (double[]){1.0, 1.0, 1.0});
    f.x[0] = -INFINITY;
    f.x[1] = FLT_MAX;
    f.x[2] = -FLT_MAX;
    pl_candidates_temperature(&f.c, 1e-6f);
    cr_assert_eq(f.c.x[0], -INFINITY);
    cr_assert_eq(f.c.x[1], FLT_MAX);
    cr_assert_eq(f.c.x[2], -FLT_MAX);
    pl_candidates_free(&f.c);
}

Test(candidates, banned_tokens_are_never_kept_nor_drawn)
{
    const double p[6] = {0.0, 0.5, 0.0, 0.25, 0.25, 0.0};
    fixture f;
    start(&f, 6, p);
    pl_candidates_top_k(&f.c, 5);
    EXPECT(&f, 1, 3, 4);
    start(&f, 6, p);
    pl_candidates_top_p(&f.c, 0.999);
    EXPECT(&f, 1, 3, 4);
    start(&f, 6, p);
    pl_candidates_min_p(&f.c, 1e-30);
    EXPECT(&f, 1, 3, 4);
    start(&f, 6, p);
    pl_candidates_typical(&f.c, 0.999);
    EXPECT(&f, 1, 3, 4);

    start(&f, 6, p);
    cr_assert_eq(pl_candidates_draw(&f.c, 0.0), 1);
    cr_assert_eq(pl_candidates_draw(&f.c, 0.49999), 1);
    cr_assert_eq(pl_candidates_draw(&f.c, 0.50001), 3);
    cr_assert_eq(pl_candidates_draw(&f.c, 0.74999), 3);
    cr_assert_eq(pl_candidates_draw(&f.c, 0.75001), 4);
    cr_assert_eq(pl_candidates_draw(&f.c, nextafter(1.0, 0.0)), 4);
    pl_candidates_free(&f.c);
}

Test(candidates, all_banned)
{
    fixture f;
    start(&f, 4, (double[]){0.0, 0.0, 0.0, 0.0});
    pl_candidates_top_k(&f.c, 2);
    pl_candidates_top_p(&f.c, 0.5);
    pl_candidates_min_p(&f.c, 0.5);
    pl_candidates_typical(&f.c, 0.5);
    pl_candidates_temperature(&f.c, 0.5f);
    cr_assert_eq(pl_candidates_best(&f.c), -1);
    cr_assert_eq(pl_candidates_draw(&f.c, 0.5), -1);
    pl_candidates_free(&f.c);
}

/* ---- against the plain way: sort everything, walk ---------------------------------------------- */

#define MANY 5000

typedef struct ranked {
    double score; /* larger comes first */
    double p;
    int32_t id;
} ranked;

static int compare(const void *a, const void *b)
{
    const ranked *x = a, *y = b;
    if (x->score != y->score)
        return x->score > y->score ? -1 : 1;
    return x->id < y->id ? -1 : 1;
}

/* Several shapes: smooth, full of ties, rising, one peak, huge spread; some tokens banned. */
static void fill(float *x, size_t n, int shape)
{
    for (size_t i = 0; i < n; i++) {
        double u = random_unit();
        double v = shape == 0   ? 8.0 * (u + random_unit() + random_unit() - 1.5)
                   : shape == 1 ? floor(u * 6.0)
                   : shape == 2 ? (double)i / 500.0
                   : shape == 3 ? (i == n / 2 ? 30.0 : u)
                                : (u - 0.5) * 1e30;
        x[i] = (float)v;
        if (random_bits() % 16 == 0 && i != n / 2)
            x[i] = -INFINITY;
    }
}

static size_t rank_all(const float *x, size_t n, ranked *r)
{
    float best = pl_max(x, n);
    double sum = 0.0;
    size_t m = 0;
    for (size_t i = 0; i < n; i++)
        if (x[i] > -INFINITY) {
            r[m++] = (ranked){.score = (double)x[i], .p = exp((double)x[i] - best), .id = (int32_t)i};
            sum += r[m - 1].p;
        }
    for (size_t i = 0; i < m; i++)
        r[i].p /= sum;
    return m;
}

/* Ids ascend, and are those of r[0..c->n) where `exact`. */
static void expect_prefix(const pl_candidates *c, const ranked *r)
{
    static bool kept[MANY];
    for (size_t i = 0; i < MANY; i++)
        kept[i] = false;
    for (size_t i = 0; i < c->n; i++) {
        cr_assert(!i || c->id[i - 1] < c->id[i]);
        kept[c->id[i]] = true;
    }
    for (size_t i = 0; i < c->n; i++)
        cr_assert(kept[r[i].id], "rank %zu of %zu, token %d, is missing", i, c->n, r[i].id);
}

/* The sum reaches p with r[n - 1] and not without it, up to rounding: 2^-22 a term. */
static void expect_mass(const ranked *r, size_t n, double p)
{
    double sum = 0.0;
    for (size_t i = 0; i + 1 < n; i++)
        sum += r[i].p;
    cr_assert(sum < p + 5e-7, "%zu kept, %.9g without the last, for %.9g", n, sum, p);
    cr_assert(sum + r[n - 1].p > p - 5e-7, "%zu kept, only %.9g, for %.9g", n, sum + r[n - 1].p, p);
}

Test(candidates, steps_equal_the_plain_way)
{
    static float x[MANY];
    static ranked r[MANY];
    random_state = 42;
    for (int round = 0; round < 300; round++) {
        size_t n = round % 3 == 0 ? MANY : 1 + random_bits() % (round % 3 == 1 ? 40 : 1500);
        pl_candidates c;
        cr_assert_eq(pl_candidates_init(&c, (int32_t)n, NULL), PL_OK);
        fill(x, n, round % 5);
        size_t m = rank_all(x, n, r);
        qsort(r, m, sizeof *r, compare);

        size_t k = 1 + random_bits() % n;
        pl_candidates_start(&c, x);
        pl_candidates_top_k(&c, k);
        if (k < n) {
            cr_assert_eq(c.n, k < m ? k : m);
            expect_prefix(&c, r);
        }

        double p = round % 7 ? random_unit() : 1.0 - 1e-5 * random_unit();
        pl_candidates_start(&c, x);
        pl_candidates_top_p(&c, p);
        expect_prefix(&c, r);
        expect_mass(r, c.n, p);

        pl_candidates_start(&c, x);
        pl_candidates_min_p(&c, 0.01 + 0.98 * p);
        expect_prefix(&c, r);
        double limit = log(0.01 + 0.98 * p), slack = 1e-6 * (1.0 + fabs(r[0].score));
        cr_assert(r[c.n - 1].score - r[0].score >= limit - slack);
        cr_assert(c.n == m || r[c.n].score - r[0].score < limit + slack);
        pl_candidates_free(&c);
    }
}

Test(candidates, top_k_tells_neighbours_apart)
{
    static float x[MANY];
    pl_candidates c;
    cr_assert_eq(pl_candidates_init(&c, MANY, NULL), PL_OK);
    for (int k = 2; k < 1000; k += 7) {
        for (int i = 0; i < MANY; i++)
            x[i] = i < k ? 1.0f : 0.0f;
        x[MANY - 1] = 1.0f + FLT_EPSILON;
        pl_candidates_start(&c, x);
        pl_candidates_top_k(&c, (size_t)k);
        cr_assert_eq(c.n, (size_t)k);
        for (int i = 0; i < k; i++)
            cr_assert_eq(c.id[i], i < k - 1 ? i : MANY - 1);
    }
    pl_candidates_free(&c);
}

Test(candidates, typical_equals_the_plain_way)
{
    static float x[MANY];
    static ranked r[MANY];
    static bool kept[MANY];
    random_state = 43;
    for (int round = 0; round < 200; round++) {
        size_t n = round % 2 ? MANY : 1 + random_bits() % 60;
        pl_candidates c;
        cr_assert_eq(pl_candidates_init(&c, (int32_t)n, NULL), PL_OK);
        fill(x, n, round % 4);
        size_t m = rank_all(x, n, r);
        double entropy = 0.0, p = random_unit(), sum = 0.0, last = 0.0, furthest = 0.0, nearest = INFINITY;
        for (size_t i = 0; i < m; i++)
            entropy -= r[i].p * log(r[i].p);
        pl_candidates_start(&c, x);
        pl_candidates_typical(&c, p);
        for (size_t i = 0; i < n; i++)
            kept[i] = false;
        for (size_t i = 0; i < c.n; i++)
            kept[c.id[i]] = true;
        for (size_t i = 0; i < m; i++) {
            double distance = fabs(-log(r[i].p) - entropy);
            if (kept[r[i].id]) {
                sum += r[i].p;
                last = distance >= furthest ? r[i].p : last;
                furthest = fmax(furthest, distance);
            } else {
                nearest = fmin(nearest, distance);
            }
        }
        cr_assert(furthest <= nearest + 1e-5, "%g kept, %g not", furthest, nearest);
        cr_assert(sum > p - 5e-7);
        cr_assert(sum - last < p + 1e-5);
        pl_candidates_free(&c);
    }
}

Test(candidates, draws_equal_the_plain_way)
{
    static float x[MANY];
    random_state = 44;
    for (int round = 0; round < 200; round++) {
        size_t n = round % 2 ? MANY : 1 + random_bits() % 3000;
        pl_candidates c;
        cr_assert_eq(pl_candidates_init(&c, (int32_t)n, NULL), PL_OK);
        fill(x, n, round % 5);
        float best = pl_max(x, n);
        double sum = 0.0, u = random_unit(), before = 0.0;
        for (size_t i = 0; i < n; i++)
            sum += exp((double)x[i] - best);
        pl_candidates_start(&c, x);
        int32_t id = pl_candidates_draw(&c, u);
        for (int32_t i = 0; i < id; i++)
            before += exp((double)x[i] - best);
        cr_assert(x[id] > -INFINITY);
        cr_assert(before / sum <= u + 5e-7);
        cr_assert((before + exp((double)x[id] - best)) / sum > u - 5e-7);
        pl_candidates_free(&c);
    }
}
