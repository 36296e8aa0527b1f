/* How far one distribution over the next token is from another, and what a text costs: the sums behind perplexity,
 * KL divergence and agreement. */
#ifndef PL_MEASURE_DIVERGENCE_H
#define PL_MEASURE_DIVERGENCE_H

#include "host/include/pleiad.h"

/* Sums over positions; everything in natural logarithms. */
typedef struct pl_quality {
    int64_t n;                /* positions scored */
    double nll, nll2;         /* of the text's own next token; sum and sum of squares */
    int64_t n_compared;       /* of these, with a reference */
    double ref_nll, ref_nll2; /* the reference's */
    double nll_ref_nll;       /* products, for the error of the ratio */
    double kl, kl2;           /* KL(reference || model) */
    double kl_max;
    double dp, dp2;   /* difference of the probability of the text's token, model - reference */
    int64_t same_top; /* both have the same likeliest token */
} pl_quality;

/* One position: logits f32 [vocab] of the model and, or NULL, the reference's (any constant may be added to either);
 * next: the token that the text has there. */
void pl_quality_add(pl_quality *q, const float *logits, const float *reference, int32_t vocab, int32_t next);

/* The same in two halves, so that positions can be measured by several threads and counted in order. */
typedef struct pl_position {
    double nll, ref_nll, kl, dp;
    bool compared, same_top;
} pl_position;

/* floor: -INFINITY, or the least log-probability that the reference's store could hold: then `reference` holds
 * log-probabilities, those at floor are that or less. They count in ref_nll, not in kl, and nothing is normalised
 * again. Values that are not finite make nll or kl NaN or infinite. */
pl_position pl_position_measure(const float *logits, const float *reference, float floor, int32_t vocab, int32_t next);
void pl_quality_count(pl_quality *q, const pl_position *position);

/* log(sum(exp(logits))), within 3e-7 + 1e-7 |result| */
double pl_log_sum_exp(const float *logits, int32_t vocab);

/* What is reported; NAN where nothing was measured. Errors are standard errors of the mean. */
typedef struct pl_quality_summary {
    double perplexity, perplexity_error;
    double ref_perplexity, perplexity_ratio, perplexity_ratio_error;
    double kl, kl_error, kl_max;
    double dp_rms; /* root mean square of dp */
    double same_top, same_top_error;
} pl_quality_summary;

pl_quality_summary pl_quality_summarise(const pl_quality *q);

#endif
