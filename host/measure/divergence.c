#include "host/measure/divergence.h"

#include <math.h>

#include "host/base/vec.h"

/* ---- sums over a vocabulary ----------------------------------------------------------------------- */

#define LEAST_EXPONENT (-87.0f) /* what is further below the maximum counts as nothing */

typedef double wide __attribute__((vector_size(128))); /* PL_LANES lanes, too */

#define INLINE static inline __attribute__((always_inline))

INLINE wide widen(pl_vec v)
{
    return __builtin_convertvector(v, wide);
}

static double wide_sum(const wide *v)
{
    double sum = 0;
    for (int i = 0; i < PL_LANES; i++)
        sum += (*v)[i];
    return sum;
}

/* The first n lanes. */
static pl_veci lanes_below(int32_t n)
{
    pl_veci lane = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
    return lane < n;
}

static float largest(const float *v, int32_t n)
{
    pl_vec most = vec_set(v[0]);
    int32_t i = 0;
    for (; i + PL_LANES <= n; i += PL_LANES)
        most = vec_max(most, vec_load(v + i));
    float top = vec_largest(most);
    for (; i < n; i++)
        top = v[i] > top ? v[i] : top;
    return top;
}

static int32_t first_of(const float *v, int32_t n, float value)
{
    int32_t i = 0;
    while (i < n - 1 && v[i] != value)
        i++;
    return i;
}

/* exp(v - top); a NaN stays one. */
INLINE pl_vec weight(pl_vec v, float top)
{
    pl_vec x = v - top;
    pl_vec e = vec_select(x < LEAST_EXPONENT, vec_set(0), vec_exp(x));
    return vec_select(x == x, e, x);
}

static double sum_weights(const float *v, int32_t n, float top)
{
    wide sum = {0};
    int32_t i = 0;
    for (; i + PL_LANES <= n; i += PL_LANES)
        sum += widen(weight(vec_load(v + i), top));
    if (i < n)
        sum += widen(vec_select(lanes_below(n - i), weight(vec_load_part(v + i, n - i), top), vec_set(0)));
    return wide_sum(&sum);
}

double pl_log_sum_exp(const float *logits, int32_t vocab)
{
    float top = largest(logits, vocab);
    return (double)top + log(sum_weights(logits, vocab, top));
}

typedef struct differences {
    wide weights, products;
} differences;

INLINE void add_differences(differences *d, pl_vec logit, pl_vec reference, pl_vec w)
{
    wide v = widen(w);
    d->weights += v;
    d->products += v * (widen(reference) - widen(logit));
}

/* *sum: of the reference's weights above floor; returns the sum of weight * (reference - logit). */
static double sum_differences(const float *logits, const float *reference, float floor, int32_t n, float top,
                              double *sum)
{
    differences d = {.weights = {0}};
    int32_t i = 0;
    for (; i + PL_LANES <= n; i += PL_LANES) {
        pl_vec r = vec_load(reference + i);
        add_differences(&d, vec_load(logits + i), r, vec_select(r <= floor, vec_set(0), weight(r, top)));
    }
    if (i < n) {
        pl_vec r = vec_load_part(reference + i, n - i);
        pl_veci counts = lanes_below(n - i) & ~(r <= floor);
        add_differences(&d, vec_load_part(logits + i, n - i), r, vec_select(counts, weight(r, top), vec_set(0)));
    }
    *sum = wide_sum(&d.weights);
    return wide_sum(&d.products);
}

/* ---- one position --------------------------------------------------------------------------------- */

static void compare(pl_position *p, const float *logits, double lse, int32_t best, const float *reference, float floor,
                    int32_t vocab, int32_t next)
{
    float top = largest(reference, vocab);
    double sum;
    double products = sum_differences(logits, reference, floor, vocab, top, &sum);
    bool stored = floor > -INFINITY;
    double ref_lse = stored ? 0 : (double)top + log(sum);
    double whole = stored ? exp(-(double)top) : sum; /* what the weights of all tokens sum up to */
    double kl = (products + sum * (lse - ref_lse)) / whole;
    p->compared = true;
    p->kl = kl < 0 ? 0 : kl;
    p->ref_nll = ref_lse - (double)reference[next];
    p->dp = exp(-p->nll) - exp(-p->ref_nll);
    p->same_top = best == first_of(reference, vocab, top);
}

pl_position pl_position_measure(const float *logits, const float *reference, float floor, int32_t vocab, int32_t next)
{
    pl_position p = {.compared = false};
    float top = largest(logits, vocab);
    double lse = (double)top + log(sum_weights(logits, vocab, top));
    p.nll = lse - (double)logits[next];
    if (reference)
        compare(&p, logits, lse, first_of(logits, vocab, top), reference, floor, vocab, next);
    return p;
}

/* ---- all of them ---------------------------------------------------------------------------------- */

void pl_quality_count(pl_quality *q, const pl_position *p)
{
    q->n++;
    q->nll += p->nll;
    q->nll2 += p->nll * p->nll;
    if (!p->compared)
        return;
    q->n_compared++;
    q->ref_nll += p->ref_nll;
    q->ref_nll2 += p->ref_nll * p->ref_nll;
    q->nll_ref_nll += p->nll * p->ref_nll;
    q->kl += p->kl;
    q->kl2 += p->kl * p->kl;
    q->kl_max = p->kl > q->kl_max ? p->kl : q->kl_max;
    q->dp += p->dp;
    q->dp2 += p->dp * p->dp;
    q->same_top += p->same_top;
}

void pl_quality_add(pl_quality *q, const float *logits, const float *reference, int32_t vocab, int32_t next)
{
    pl_position p = pl_position_measure(logits, reference, -INFINITY, vocab, next);
    pl_quality_count(q, &p);
}

/* Of the means of n pairs, given the sums of both and of their products; NAN for fewer than two. */
static double covariance_of_means(double a, double b, double ab, double n)
{
    return n < 2 ? NAN : (ab / n - (a / n) * (b / n)) / (n - 1);
}

/* Rounding may leave a variance of nothing slightly below it. */
static double root(double variance)
{
    return variance < 0 ? 0 : sqrt(variance);
}

static double error_of_mean(double sum, double sum2, double n)
{
    return root(covariance_of_means(sum, sum, sum2, n));
}

static void summarise_comparison(const pl_quality *q, pl_quality_summary *s)
{
    double n = (double)q->n_compared;
    s->ref_perplexity = exp(q->ref_nll / n);
    s->kl = q->kl / n;
    s->kl_error = error_of_mean(q->kl, q->kl2, n);
    s->kl_max = q->kl_max;
    s->dp_rms = sqrt(q->dp2 / n);
    s->same_top = (double)q->same_top / n;
    s->same_top_error = n < 2 ? NAN : sqrt(s->same_top * (1 - s->same_top) / (n - 1));
    if (q->n_compared != q->n)
        return;
    double variance = covariance_of_means(q->nll, q->nll, q->nll2, n) +
                      covariance_of_means(q->ref_nll, q->ref_nll, q->ref_nll2, n) -
                      2 * covariance_of_means(q->nll, q->ref_nll, q->nll_ref_nll, n);
    s->perplexity_ratio = exp((q->nll - q->ref_nll) / n);
    s->perplexity_ratio_error = s->perplexity_ratio * root(variance);
}

pl_quality_summary pl_quality_summarise(const pl_quality *q)
{
    pl_quality_summary s = {NAN, NAN, NAN, NAN, NAN, NAN, NAN, NAN, NAN, NAN, NAN};
    double n = (double)q->n;
    if (q->n > 0) {
        s.perplexity = exp(q->nll / n);
        s.perplexity_error = s.perplexity * error_of_mean(q->nll, q->nll2, n);
    }
    if (q->n_compared > 0)
        summarise_comparison(q, &s);
    return s;
}
