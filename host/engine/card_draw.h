/* Samplers that draw on the card (host/ops/draw.h). */
#ifndef PL_ENGINE_CARD_DRAW_H
#define PL_ENGINE_CARD_DRAW_H

#include "host/engine/sampler.h"
#include "host/ops/draw.h"

/* Whether the card can draw with these parameters, which must be valid (pl_sampling_check). capacity: the most tokens
 * that a window of "all" looks back on, as for pl_sampler_create(). */
bool pl_card_draw_fits(const pl_sampling *params, int32_t capacity);

/* Writes *out (in the host's memory; the caller uploads it) as pl_sampler_create() and pl_sampler_accept() of
 * tokens[0..n) would leave a sampler; no mask. Checks params as that does; PL_ERR_UNSUPPORTED where they do not fit.
 * tokens: those of vocab and more are passed over; those beyond the window are not read. */
pl_status pl_card_draw_start(const pl_sampling *params, int32_t vocab, int32_t capacity, const int32_t *tokens,
                             size_t n, pl_draw *out, pl_error *err);

/* The same for a sampler that has accepted `tokens`: *out goes on with its random numbers. */
pl_status pl_card_draw_copy(const pl_sampler *sampler, int32_t vocab, int32_t capacity, const int32_t *tokens, size_t n,
                            pl_draw *out, pl_error *err);

/* Says what PL_DRAW_... in place of a token means. */
pl_status pl_card_draw_check(int32_t token, int32_t vocab, pl_error *err);

#endif
