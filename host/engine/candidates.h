/* The tokens that sampling still chooses from, and the steps that thin them out.
 *
 * Candidates stay in ascending order of id, whatever the steps; where logits are equal the lower id is the
 * better one. So every result follows from the numbers alone. A token of probability 0 (logit -INFINITY)
 * is banned: it may stay in the list but is never chosen. Shares are sums of whole numbers (pl_mass), so no
 * order of adding matters.
 * Cost: each step is a few passes over the list; nothing is ever sorted whole. */
#ifndef PL_ENGINE_CANDIDATES_H
#define PL_ENGINE_CANDIDATES_H

#include "host/base/status.h"

typedef struct pl_candidates {
    const float *x;    /* [n] logits: the caller's, until a step changes them */
    const int32_t *id; /* [n], or NULL: candidate i is token i */
    size_t n;
    size_t vocab;
    float *own_x; /* [vocab], as the rest: room to work in */
    int32_t *own_id;
    float *p;
    uint64_t *key;
    uint64_t *kept; /* a bit per candidate */
    uint64_t *part; /* the mass of every PL_DRAW_PART candidates */
} pl_candidates;

#define PL_DRAW_PART 1024

/* Room for vocab tokens; 20 bytes for each, of which only what is used gets touched. */
pl_status pl_candidates_init(pl_candidates *c, int32_t vocab, pl_error *err);
void pl_candidates_free(pl_candidates *c);

/* All tokens; logits [vocab], without NaN and +INFINITY, are read until the last step. */
void pl_candidates_start(pl_candidates *c, const float *logits);

/* The logits, to be changed in place. */
float *pl_candidates_write(pl_candidates *c);

/* Keeps the tokens whose bit in mask is set (bit id % 32 of word id / 32). Before any step that drops some. */
void pl_candidates_mask(pl_candidates *c, const uint32_t *mask);

/* Keeps the k best; k >= 1. */
void pl_candidates_top_k(pl_candidates *c, size_t k);

/* Keeps the fewest best whose probabilities sum to top_p or more. */
void pl_candidates_top_p(pl_candidates *c, double top_p);

/* Keeps those at least min_p times as probable as the best; 0 < min_p <= 1. */
void pl_candidates_min_p(pl_candidates *c, double min_p);

/* Keeps the fewest whose probabilities sum to typical_p or more, taking first those whose surprise (-log p)
 * is nearest to the entropy. Source: Meister et al., Locally Typical Sampling, 2022. */
void pl_candidates_typical(pl_candidates *c, double typical_p);

/* Divides the logits; temperature > 0. */
void pl_candidates_temperature(pl_candidates *c, float temperature);

/* The best token, or -1 when all are banned. */
int32_t pl_candidates_best(const pl_candidates *c);

/* The token at u of the cumulated probabilities, in order of id; 0 <= u < 1; -1 when all are banned. */
int32_t pl_candidates_draw(pl_candidates *c, double u);

#endif
