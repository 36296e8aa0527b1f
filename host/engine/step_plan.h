/* What the next step does: a pure function over the requests that are there.
 *
 *   1. Every answer under way gets its token: one row each, in turns where they are more than a step can hold.
 *   2. What is left of the step's rows, and of its time, goes to prompts: so many rows that the step takes step_s by
 *      what steps cost here. Where the answers alone take most of that, prompts add to it, in proportion to how many of
 *      them there are for each answer, at least PL_PLAN_PROMPT_SHARE of what the answers take, and never less than PL_PLAN_LEAST
 *      rows. Without answers under way, as many rows as a step holds.
 *   3. Prompts are taken by priority, then by deadline where one is near, then by client: the one that has been served
 *      least lately (its tokens, as a virtual clock that never lets a newcomer or a returning client collect credit),
 *      then in order of arrival. One that has begun is finished before the client's next. */
#ifndef PL_ENGINE_STEP_PLAN_H
#define PL_ENGINE_STEP_PLAN_H

#include "host/engine/step_cost.h"

#define PL_PLAN_LEAST 16
#define PL_PLAN_PROMPT_SHARE 0.5

/* A request as the plan sees it. */
typedef struct pl_plan_item {
    int32_t to_read; /* tokens that still have to be read before the next one can be chosen; 1: an answer under way */
    bool answering;  /* it has had a token before */
    bool running;    /* it has a sequence */
    bool ready;      /* false: not to be planned now */
    int32_t priority;
    double weight;        /* of a row: its path's cost, 0 to 1 */
    double client_served; /* the client's virtual clock */
    double arrived_s;
    double due_s;      /* when its first token should be there; 0: no such wish */
    int64_t last_step; /* in which it had rows */
    int32_t rows;      /* out: tokens to read now; 0: none */
} pl_plan_item;

typedef struct pl_plan_limits {
    int32_t rows;      /* a step holds */
    int32_t wanted;    /* rows whose logits a step can give */
    int32_t sequences; /* that can be started: items not running beyond these get no rows */
    double step_s;
    double now_s;
} pl_plan_limits;

typedef struct pl_plan {
    int32_t rows, wanted;
    double weighted_rows; /* for pl_step_cost_learn(), prompt rows that end early weighted by prompt_weight */
} pl_plan;

/* Sets `rows` of each item. order: [n] room for indices. prompt_weight: what a row costs that ends after the last layer with
 * K/V, as a share of one that goes on. */
void pl_plan_step(pl_plan_item *items, int32_t n, int32_t *order, const pl_step_cost *cost, double prompt_weight,
                  const pl_plan_limits *limits, pl_plan *out);

/* Which request gives up its sequence when K/V room is short: the lowest priority, then the one that arrived last; -1
 * when only `needy` itself has one, or all others go before it. */
int32_t pl_plan_victim(const pl_plan_item *items, int32_t n, int32_t needy);

#endif
