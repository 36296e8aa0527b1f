/* Speculation: what is proposed to an answer, and how much of it a step verifies.
 *
 *     find (given, then what the text repeats) -> choose (what pays) -> by path, where that does -> one step for the last
 *     token and the proposals -> the sampler chooses behind each as long as the choice is the proposal -> settle
 *
 * The sampler chooses exactly the tokens, with exactly the random numbers, that it would choose without: behind a proposal
 * that is not the choice nothing is chosen. K/V of proposals that were not accepted are forgotten (pl_kv_truncate). */
#ifndef PL_ENGINE_DRAFT_H
#define PL_ENGINE_DRAFT_H

#include "host/engine/draft_ngram.h"
#include "host/engine/draft_plan.h"
#include "host/include/pleiad.h"

/* What all answers of a session or a scheduler have taught. */
typedef struct pl_draft_sense {
    pl_draft_cost cost, path_cost; /* of steps that choose; of steps of drafting paths */
    pl_draft_chances chances;
    pl_draft_probe probe;
} pl_draft_sense;

/* An answer's. */
typedef struct pl_draft {
    pl_drafting asked; /* its path is not there any more */
    int32_t vocab;
    bool by_path;
    pl_ngrams *ngrams;
    pl_draft_chances chances;
    pl_draft_counts counts;
    pl_draft_item item;
    int kind;                     /* of the proposals at hand */
    int32_t token[PL_DRAFT_MOST]; /* [item.most] found */
} pl_draft;

/* PL_ERR_ARGUMENT names what is wrong; whether the path is one is the caller's to check. */
pl_status pl_drafting_check(const pl_drafting *asked, pl_error *err);

/* room: tokens that prompt and answer may have; proposals end at what is no token of the vocabulary. *out is NULL where drafts
 * are off. */
pl_status pl_draft_create(const pl_drafting *asked, int32_t room, int32_t vocab, pl_draft **out, pl_error *err);
void pl_draft_free(pl_draft *draft);

/* Proposals for what follows tokens[0..n), at most `most`, from the caller and from the text; item.n is 0. */
void pl_draft_find(pl_draft *d, const pl_draft_sense *sense, const int32_t *tokens, int32_t n, int32_t most);

/* Chooses how many of its proposals each draft verifies (item.n), in a step of `rows` rows without them, of which `answers`
 * give a token, with room for `room` more. Returns how many tokens the path should propose to each of those with by_path
 * that verify nothing, at most `by_path_most`; path_share: what a row of it costs, as a share of a row of theirs. */
int pl_drafts_choose(pl_draft_sense *sense, pl_draft *const *drafts, int n, double rows, int answers, int room,
                     int by_path_most, double path_share);

/* Of its item.n proposals so many were accepted. */
void pl_draft_settle(pl_draft *d, pl_draft_sense *sense, int accepted);

#endif
