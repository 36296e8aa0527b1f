/* Sums over distributions, against closed forms and against the same in double precision. */
#include <criterion/criterion.h>
#include <float.h>
#include <math.h>
#include <stdlib.h>

#include "host/base/rng.h"
#include "host/measure/divergence.h"

#define CLOSE 5e-7 /* exp within 2 ulp, its argument rounded to f32, each sum in double */

static void expect_close(double got, double want, double bound, const char *what)
{
    cr_expect(fabs(got - want) <= bound, "%s is %.17g, expected %.17g", what, got, want);
}

static pl_position measure(const float *logits, const float *reference, int32_t vocab, int32_t next)
{
    return pl_position_measure(logits, reference, -INFINITY, vocab, next);
}

static void fill_random(float *v, int32_t n, uint64_t seed, double spread)
{
    pl_rng rng;
    pl_rng_seed(&rng, seed);
    for (int32_t i = 0; i < n; i++)
        v[i] = (float)((pl_rng_uniform(&rng) - 0.5) * spread);
}

static double log_sum_exp(const float *v, int32_t n)
{
    double top = -INFINITY, sum = 0;
    for (int32_t i = 0; i < n; i++)
        top = v[i] > top ? v[i] : top;
    for (int32_t i = 0; i < n; i++)
        sum += exp(v[i] - top);
    return top + log(sum);
}

Test(divergence, known_distributions)
{
    const float uneven[] = {logf(0.625f), logf(0.125f), logf(0.125f), logf(0.125f)};
    const float even[] = {0, 0, 0, 0};
    pl_position p = measure(even, uneven, 4, 1);
    expect_close(p.nll, log(4), CLOSE, "nll");
    expect_close(p.ref_nll, log(8), CLOSE, "ref_nll");
    expect_close(p.kl, 0.625 * log(2.5) - 0.375 * log(2), CLOSE, "kl");
    expect_close(p.dp, 0.25 - 0.125, CLOSE, "dp");
    cr_expect(p.compared && p.same_top); /* of equal ones the first counts */
    p = measure(uneven, even, 4, 0);     /* the other way round it is another number */
    expect_close(p.nll, -log(0.625), CLOSE, "nll");
    expect_close(p.kl, 0.75 * log(2) - 0.25 * log(2.5), CLOSE, "kl");
    expect_close(p.dp, 0.625 - 0.25, CLOSE, "dp");
    p = measure(even, NULL, 4, 3);
    cr_expect(!p.compared && p.kl == 0 && p.ref_nll == 0);
}

Test(divergence, any_vocabulary_agrees_with_double_precision)
{
    static const int32_t vocabs[] = {2, 3, 15, 16, 17, 31, 33, 250, 4096, 5003};
    static const double spreads[] = {0.01, 3, 60, 400};
    for (size_t i = 0; i < sizeof vocabs / sizeof *vocabs; i++)
        for (size_t j = 0; j < 4; j++) {
            int32_t n = vocabs[i], next = n - 1;
            float *x = malloc((size_t)n * sizeof *x), *r = malloc((size_t)n * sizeof *r);
            fill_random(x, n, i, spreads[j]);
            fill_random(r, n, i + 100, spreads[j]);
            double lx = log_sum_exp(x, n), lr = log_sum_exp(r, n), kl = 0;
            for (int32_t k = 0; k < n; k++)
                kl += exp(r[k] - lr) * (r[k] - lr - (x[k] - lx));
            pl_position p = measure(x, r, n, next);
            expect_close(p.nll, lx - x[next], CLOSE, "nll");
            expect_close(p.ref_nll, lr - r[next], CLOSE, "ref_nll");
            expect_close(p.kl, kl, CLOSE * (1 + spreads[j]), "kl");
            expect_close(pl_log_sum_exp(x, n), lx, CLOSE, "log_sum_exp");
            free(x);
            free(r);
        }
}

Test(divergence, nothing_between_a_distribution_and_itself)
{
    enum { N = 1003 };
    float x[N], shifted[N];
    fill_random(x, N, 7, 60);
    pl_position p = measure(x, x, N, 5);
    cr_expect(p.kl == 0 && p.dp == 0 && p.nll == p.ref_nll && p.same_top);
    for (int i = 0; i < N; i++) {
        x[i] = roundf(x[i] * 64) / 64; /* so that adding 1024 is exact */
        shifted[i] = x[i] + 1024;
    }
    p = measure(x, shifted, N, 5);
    expect_close(p.kl, 0, 1e-12, "kl");
    expect_close(p.dp, 0, 1e-12, "dp");
    cr_expect(p.same_top);
}

Test(divergence, never_negative)
{
    enum { N = 777 };
    float x[N], r[N];
    for (uint64_t seed = 0; seed < 200; seed++) {
        fill_random(x, N, seed, 20);
        for (int i = 0; i < N; i++)
            r[i] = nextafterf(x[i], i % 2 ? 100 : -100);
        pl_position p = measure(x, r, N, 0);
        cr_expect(p.kl >= 0 && p.kl < CLOSE, "kl is %g", p.kl);
    }
}

Test(divergence, huge_logits)
{
    const float x[] = {-1e30f, 1e30f, 0}, r[] = {1e30f, -1e30f, 0};
    pl_position p = measure(x, r, 3, 0);
    expect_close(p.nll / 2e30, 1, 1e-6, "nll / 2e30");
    expect_close(p.kl / 2e30, 1, 1e-6, "kl / 2e30");
    cr_expect(p.ref_nll == 0 && p.dp == -1 && !p.same_top);
    /* What has no probability does not count, however far apart. */
    const float a[] = {0, -1e30f, -2e30f}, b[] = {0, -FLT_MAX, -1e30f};
    p = measure(a, b, 3, 0);
    cr_expect(p.kl == 0 && p.nll == 0 && p.same_top);
    cr_expect_eq(measure(b, a, 3, 0).kl, 0);
    const float top[] = {FLT_MAX, FLT_MAX, -FLT_MAX};
    p = measure(top, top, 3, 1);
    cr_expect(p.kl == 0 && p.nll >= 0 && p.nll < 1); /* ln 2 is less than the rounding of such a number */
}

Test(divergence, one_token_and_ties)
{
    const float one[] = {-3};
    pl_position p = measure(one, one, 1, 0);
    cr_expect(p.nll == 0 && p.kl == 0 && p.same_top);
    const float x[] = {1, 5, 5, 0}, same[] = {0, 9, 2, 9}, other[] = {0, 1, 9, 9};
    cr_expect(measure(x, same, 4, 0).same_top);
    cr_expect(!measure(x, other, 4, 0).same_top);
}

Test(divergence, values_that_are_no_numbers_show)
{
    float x[40] = {0}, r[40] = {0};
    x[37] = NAN;
    cr_expect(isnan(measure(x, NULL, 40, 0).nll));
    cr_expect(!isfinite(measure(r, x, 40, 0).kl));
    x[37] = INFINITY;
    cr_expect(!isfinite(measure(x, NULL, 40, 0).nll));
    cr_expect(!isfinite(measure(r, x, 40, 0).kl));
}

Test(divergence, what_lies_below_a_floor_counts_only_as_the_next_token)
{
    /* 0.5 and 0.25 are known; the rest is at most e^-16 each, which cannot be all of it: nothing is made up */
    enum { N = 20 };
    float stored[N], x[N] = {0};
    for (int i = 0; i < N; i++)
        stored[i] = -16;
    stored[3] = logf(0.5f);
    stored[18] = logf(0.25f);
    pl_position p = pl_position_measure(x, stored, -16, N, 2);
    expect_close(p.ref_nll, 16, CLOSE, "ref_nll");
    expect_close(p.kl, 0.5 * log(0.5 * N) + 0.25 * log(0.25 * N), CLOSE, "kl");
    expect_close(p.dp, 1.0 / N - exp(-16), CLOSE, "dp");
    cr_expect(!p.same_top);
}

Test(divergence, summary)
{
    pl_quality q = {0};
    pl_quality_summary s = pl_quality_summarise(&q);
    cr_expect(isnan(s.perplexity) && isnan(s.kl) && isnan(s.same_top) && isnan(s.perplexity_ratio));

    const float x[] = {0, logf(3)}, r[] = {logf(3), 0};
    pl_quality_add(&q, x, NULL, 2, 0);
    s = pl_quality_summarise(&q);
    expect_close(s.perplexity, 4, 1e-5, "perplexity");
    cr_expect(isnan(s.perplexity_error) && isnan(s.kl) && isnan(s.ref_perplexity));

    q = (pl_quality){0};
    pl_quality_add(&q, x, r, 2, 0); /* nll ln 4 and ln 4/3 */
    pl_quality_add(&q, x, x, 2, 1); /* both ln 4/3 */
    s = pl_quality_summarise(&q);
    double a = log(4), b = log(4.0 / 3), kl = 0.5 * log(3);
    expect_close(s.perplexity, exp((a + b) / 2), 1e-5, "perplexity");
    expect_close(s.perplexity_error, exp((a + b) / 2) * (a - b) / 2, 1e-5, "perplexity_error");
    expect_close(s.ref_perplexity, exp(b), 1e-5, "ref_perplexity");
    expect_close(s.perplexity_ratio, exp((a - b) / 2), 1e-5, "perplexity_ratio");
    expect_close(s.perplexity_ratio_error, exp((a - b) / 2) * (a - b) / 2, 1e-5, "perplexity_ratio_error");
    expect_close(s.kl, kl / 2, 1e-6, "kl");
    expect_close(s.kl_error, kl / 2, 1e-6, "kl_error");
    expect_close(s.kl_max, kl, 1e-6, "kl_max");
    expect_close(s.dp_rms, sqrt(0.25 / 2), 1e-6, "dp_rms");
    expect_close(s.same_top, 0.5, 0, "same_top");
    expect_close(s.same_top_error, 0.5, 1e-12, "same_top_error");
    cr_expect(q.n == 2 && q.n_compared == 2 && q.same_top == 1);
}
