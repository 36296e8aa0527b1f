/* Which path a request that left it to the engine takes: a pure function of what is known, so that it can be tested, and
 * replayed over recorded arrivals (bench/simulate_elastic.c).
 *
 * The wider path answers better, the narrower one sooner. `quality` takes the widest that keeps the request's own deadline;
 * `speed` the narrowest; `balanced` the widest while the engine keeps up: while those who wait would be served, at the speed
 * measured lately, in good time. A level of pressure, shared by all requests, follows the load with hysteresis: it
 * rises at once, and falls one step after the load has stayed below for a while, so that paths do not flap. */
#ifndef PL_ENGINE_ELASTIC_H
#define PL_ENGINE_ELASTIC_H

#include "host/base/status.h"

#define PL_ELASTIC_PATHS 8

/* A path as far as the choice goes; [0] is the widest. */
typedef struct pl_elastic_path {
    double cost;           /* bytes of weights a token reads, as a share of the widest's */
    double prompt_token_s; /* expected time to read a token of a prompt: step_cost.h */
    double token_s;        /* expected time of a decode step with the rows that are there now and one more */
    int32_t reusable;      /* tokens of this request's prompt that are kept for this path */
} pl_elastic_path;

typedef struct pl_elastic_load {
    int32_t running, waiting; /* requests */
    double longest_wait_s;    /* of those who have no token yet, since their submission */
    int64_t waiting_tokens;   /* of prompts not yet read, this request's not among them */
    int32_t max_running;
    double kv_share; /* of K/V room that requests hold, 0 to 1 */
    double now_s;    /* of a clock that only goes forward */
} pl_elastic_load;

typedef struct pl_elastic_ask {
    pl_wish wish;
    double first_token_s, token_s; /* 0: none asked for */
    double waited_s;               /* since submission */
    int32_t prompt_tokens;
    int32_t answer_tokens; /* at most, or -1 */
} pl_elastic_ask;

/* The pressure, kept from choice to choice; zero at the start. */
typedef struct pl_elastic_state {
    int32_t level;       /* 0: none, up to PL_ELASTIC_LEVELS - 1 */
    double calm_since_s; /* 0: not calm */
} pl_elastic_state;

#define PL_ELASTIC_LEVELS 4

typedef struct pl_elastic_choice {
    int32_t path;       /* index */
    const char *reason; /* a constant: "balanced", "deadline", "load", "speed asked for" ... */
} pl_elastic_choice;

/* To be called before choices and once a step: follows the load. */
void pl_elastic_follow(pl_elastic_state *state, const pl_elastic_path *paths, int32_t n_paths,
                       const pl_elastic_load *load);

pl_elastic_choice pl_elastic_choose(const pl_elastic_state *state, const pl_elastic_path *paths, int32_t n_paths,
                                    const pl_elastic_ask *ask);

/* For an answer under way on paths[present] that may move: where it should go on. Moves only when it pays: reread_tokens
 * must be read again first (0 where nothing need be), left_tokens are expected to come. */
pl_elastic_choice pl_elastic_move(const pl_elastic_state *state, const pl_elastic_path *paths, int32_t n_paths,
                                  const pl_elastic_ask *ask, int32_t present, int32_t reread_tokens,
                                  int32_t left_tokens);

#endif
