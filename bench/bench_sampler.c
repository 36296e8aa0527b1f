/* How long it takes to choose one of 262,400 tokens.
 *
 *     bench_sampler
 *
 * Prints one line of CSV for each chain: the median of RUNS runs on one thread. The logits are made: a
 * few likely tokens over a broad rest, as a language model gives them, or all of them alike. */
#include "bench/median.h"
#include "host/base/clock.h"
#include "host/base/rng.h"
#include "host/engine/sampler.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#define RUNS 31
#define VOCAB 262400
#define HISTORY 4096

static double normal(pl_rng *rng)
{
    double radius = sqrt(-2.0 * log(1.0 - pl_rng_uniform(rng)));
    return radius * cos(6.283185307179586 * pl_rng_uniform(rng));
}

static void fill(float *logits, double deviation, int likely)
{
    pl_rng rng;
    pl_rng_seed(&rng, 1);
    for (int i = 0; i < VOCAB; i++)
        logits[i] = (float)(-5.0 + deviation * normal(&rng));
    for (int i = 0; i < likely; i++)
        logits[pl_rng_next(&rng) % VOCAB] = (float)(20.0 - 0.3 * i);
}

static const char *token_text(void *user, int32_t id, size_t *n)
{
    (void)user;
    *n = 1;
    return id % 20 ? "a" : "\n";
}

static pl_status bench(const char *what, const char *logits_kind, const float *logits, pl_sampling params,
                       pl_error *err)
{
    pl_sampler *sampler = NULL;
    pl_candidates room;
    double s[RUNS];
    PL_TRY(pl_candidates_init(&room, VOCAB, err));
    pl_status status = pl_sampler_create(&params, VOCAB, HISTORY, token_text, NULL, &sampler, err);
    for (int i = 0; i < HISTORY && status == PL_OK; i++)
        pl_sampler_accept(sampler, i * 7919 % 1000);
    for (int i = 0; i < RUNS && status == PL_OK; i++) {
        int32_t id;
        double start = pl_clock_seconds();
        status = pl_sampler_sample(sampler, &room, logits, NULL, &id, err);
        s[i] = pl_clock_seconds() - start;
    }
    pl_sampler_free(sampler);
    pl_candidates_free(&room);
    if (status == PL_OK)
        printf("%s,%s,%.0f,us\n", what, logits_kind, 1e6 * pl_median(s, RUNS));
    return status;
}

static pl_status bench_logprobs(const char *logits_kind, const float *logits, pl_error *err)
{
    double s[RUNS];
    for (int i = 0; i < RUNS; i++) {
        float logprob;
        pl_logprob top[20];
        double start = pl_clock_seconds();
        PL_TRY(pl_sampler_logprobs(logits, VOCAB, 7, &logprob, top, 20, err));
        s[i] = pl_clock_seconds() - start;
    }
    printf("20 logprobs,%s,%.0f,us\n", logits_kind, 1e6 * pl_median(s, RUNS));
    return PL_OK;
}

static pl_status bench_chains(const char *logits_kind, const float *logits, pl_error *err)
{
    pl_sampling greedy = pl_sampling_default(), plain = greedy, top_p = greedy, min_p = greedy, typical = greedy,
                all = greedy;
    greedy.temperature = 0.0f;
    plain.top_k = top_p.top_k = min_p.top_k = typical.top_k = 0;
    plain.top_p = min_p.top_p = typical.top_p = 1.0f;
    min_p.min_p = 0.05f;
    typical.typical_p = 0.95f;
    all.repeat_penalty = 1.1f;
    all.penalty_last_n = -1;
    all.dry_multiplier = 0.8f;
    all.temperature = 0.8f;
    PL_TRY(bench("greedy", logits_kind, logits, greedy, err));
    PL_TRY(bench("default: top-k 64 top-p 0.95", logits_kind, logits, pl_sampling_default(), err));
    PL_TRY(bench("default and penalties and DRY over 4096", logits_kind, logits, all, err));
    PL_TRY(bench("no truncation", logits_kind, logits, plain, err));
    PL_TRY(bench("top-p 0.95 alone", logits_kind, logits, top_p, err));
    PL_TRY(bench("min-p 0.05 alone", logits_kind, logits, min_p, err));
    PL_TRY(bench("typical 0.95 alone", logits_kind, logits, typical, err));
    return bench_logprobs(logits_kind, logits, err);
}

int main(void)
{
    float *logits = malloc(VOCAB * sizeof *logits);
    if (!logits)
        return 1;
    pl_error err = {0};
    printf("what,logits,value,unit\n");
    fill(logits, 3.0, 40);
    pl_status status = bench_chains("peaked", logits, &err);
    fill(logits, 0.5, 0);
    if (status == PL_OK)
        status = bench_chains("flat", logits, &err);
    if (status != PL_OK)
        fprintf(stderr, "%s\n", err.message);
    free(logits);
    return status != PL_OK;
}
