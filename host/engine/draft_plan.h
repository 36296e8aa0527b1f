/* How many proposed tokens a step should verify: what pays by what was accepted lately and by what rows cost here.
 *
 * Pure functions of numbers. Nothing that they decide changes a token: a proposal is only ever kept where it is the token
 * that is chosen anyway. */
#ifndef PL_ENGINE_DRAFT_PLAN_H
#define PL_ENGINE_DRAFT_PLAN_H

#include <stdbool.h>
#include <stdint.h>

#define PL_DRAFT_MOST 15 /* tokens proposed at once: the logits of one more row are held at once */
#define PL_DRAFT_AUTO 8  /* of them, where what pays decides */

/* ---- what steps cost ---- */

#define PL_DRAFT_COST_ROWS 64

/* Seconds of a step by its rows: a scale, which all steps teach, and a shape. Between known rows it is a line, beyond
 * them one row costs what it does on average, at least a guess. */
typedef struct pl_draft_cost {
    double scale;                         /* 0: no step was timed yet */
    double shape[PL_DRAFT_COST_ROWS + 1]; /* by rows; 0: unknown */
} pl_draft_cost;

void pl_draft_cost_learn(pl_draft_cost *cost, double rows, double seconds);
double pl_draft_cost_expect(const pl_draft_cost *cost, double rows); /* 1 for the first step of all */

/* ---- what is accepted ---- */

/* What a chance belongs to: where a proposal comes from. From PL_DRAFT_KIND_NGRAM on by how many tokens before it
 * agree, those among them that were proposed themselves. */
enum {
    PL_DRAFT_KIND_GIVEN,
    PL_DRAFT_KIND_PATH,
    PL_DRAFT_KIND_NGRAM,                         /* two tokens agree */
    PL_DRAFT_KINDS = PL_DRAFT_KIND_NGRAM + 8 - 1 /* eight or more */
};

/* Of the proposals whose predecessors were all accepted. */
typedef struct pl_draft_chances {
    double accepted[PL_DRAFT_KINDS], seen[PL_DRAFT_KINDS]; /* later ones count more */
} pl_draft_chances;

/* The kind of the i-th proposal of some that begin with `kind`. */
int pl_draft_kind(int kind, int i);

/* n proposals, of which `accepted` were; whether the next one would have been is seen only where accepted < n. */
void pl_draft_chances_learn(pl_draft_chances *chances, int kind, int n, int accepted);

/* One answer's experience, supported by that of all. */
double pl_draft_chance(const pl_draft_chances *own, const pl_draft_chances *all, int kind);

/* ---- the plan ---- */

/* What an answer could verify. */
typedef struct pl_draft_item {
    float reach[PL_DRAFT_MOST]; /* chance that proposals 0 to i are all accepted: falling */
    int most;                   /* proposals */
    int n;                      /* out: to verify */
} pl_draft_item;

/* Fills reach. */
void pl_draft_item_fill(pl_draft_item *item, const pl_draft_chances *own, const pl_draft_chances *all, int kind, int n);

/* What a step is expected to yield and to take. */
typedef struct pl_draft_yield {
    double tokens, seconds;
} pl_draft_yield;

/* Sets n of each item so that a step which has `rows` rows without proposals, at most `room` more, and gives a token to
 * each of `answers` answers yields most tokens a second. Returns what it then yields. */
pl_draft_yield pl_draft_plan(pl_draft_item *const *items, int n_items, double rows, int room, int answers,
                             const pl_draft_cost *cost);

/* How many tokens a path of the model should propose to each of some answers, one step of draft_s for one token of each,
 * before a step of `rows` rows that yields `present`; chance: that a proposal is accepted. 0: that does not pay. */
int pl_draft_plan_path(double chance, double draft_s, int answers, int most, double rows, pl_draft_yield present,
                       const pl_draft_cost *cost);

/* ---- looking again ---- */

/* Where nothing pays, something is tried now and then: this much of the time goes to it. */
#define PL_DRAFT_PROBE_SHARE 0.01

typedef struct pl_draft_probe {
    double saved_s;
} pl_draft_probe;

void pl_draft_probe_earn(pl_draft_probe *probe, double step_s); /* of a step that proposed nothing */
bool pl_draft_probe_take(pl_draft_probe *probe, double cost_s);

#endif
