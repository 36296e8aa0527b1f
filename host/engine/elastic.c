#include "host/engine/elastic.h"

#include <math.h>

#define GOOD_WAIT_S 2.0  /* in which the prompts that wait should have been read */
#define GOOD_TOKEN_S 0.1 /* a token for each answer: slower is slower than people read */
#define KV_FULL 0.8      /* share of K/V room from which new answers should be short of life */
#define CALM_S 2.0       /* of lower load before the level falls by one */
#define WORTH 2.0        /* a narrower path must save this many times what moving costs */
#define BEARABLE 0.1     /* share of the rest of an answer that moving to a wider path may cost */

/* How hard the engine is pressed, were all on the widest path: 1 is as much as it bears well. */
static double pressure(const pl_elastic_path *widest, const pl_elastic_load *load)
{
    double backlog = (double)load->waiting_tokens * widest->prompt_token_s / GOOD_WAIT_S;
    double wait = load->longest_wait_s / GOOD_WAIT_S;
    double pace = load->running > 0 ? widest->token_s / GOOD_TOKEN_S : 0;
    /* Full K/V memory is a reason only where somebody waits for it. */
    double room = load->waiting > 0 ? load->kv_share / KV_FULL : 0;
    return fmax(fmax(backlog, wait), fmax(pace, room));
}

static int32_t level_of(double p)
{
    return p < 1 ? 0 : p < 2 ? 1 : p < 4 ? 2 : PL_ELASTIC_LEVELS - 1;
}

void pl_elastic_follow(pl_elastic_state *state, const pl_elastic_path *paths, int32_t n_paths,
                       const pl_elastic_load *load)
{
    int32_t level = n_paths > 1 ? level_of(pressure(&paths[0], load)) : 0;
    if (level >= state->level) {
        state->level = level;
        state->calm_since_s = 0;
    } else if (state->calm_since_s == 0) {
        state->calm_since_s = load->now_s;
    } else if (load->now_s - state->calm_since_s >= CALM_S) {
        state->level--;
        state->calm_since_s = load->now_s;
    }
}

/* The widest path that the level allows. */
static int32_t path_at(int32_t level, int32_t n_paths)
{
    return (level * (n_paths - 1) + PL_ELASTIC_LEVELS - 2) / (PL_ELASTIC_LEVELS - 1);
}

static bool keeps_promise(const pl_elastic_path *path, const pl_elastic_ask *ask)
{
    double first = ask->waited_s + (ask->prompt_tokens - path->reusable) * path->prompt_token_s + path->token_s;
    return (ask->first_token_s == 0 || first <= ask->first_token_s) &&
           (ask->token_s == 0 || path->token_s <= ask->token_s);
}

pl_elastic_choice pl_elastic_choose(const pl_elastic_state *state, const pl_elastic_path *paths, int32_t n_paths,
                                    const pl_elastic_ask *ask)
{
    pl_elastic_choice choice = {0, "quality asked for"};
    if (ask->wish == PL_WISH_SPEED)
        return (pl_elastic_choice){n_paths - 1, "speed asked for"};
    if (ask->wish == PL_WISH_BALANCED)
        choice = (pl_elastic_choice){path_at(state->level, n_paths), state->level > 0 ? "load" : "no load"};
    for (; choice.path < n_paths - 1 && !keeps_promise(&paths[choice.path], ask); choice.path++)
        choice.reason = "deadline";
    return choice;
}

pl_elastic_choice pl_elastic_move(const pl_elastic_state *state, const pl_elastic_path *paths, int32_t n_paths,
                                  const pl_elastic_ask *ask, int32_t present, int32_t reread_tokens,
                                  int32_t left_tokens)
{
    pl_elastic_ask rest = *ask;
    rest.first_token_s = 0; /* it is there already */
    pl_elastic_choice choice = pl_elastic_choose(state, paths, n_paths, &rest);
    const pl_elastic_path *to = &paths[choice.path], *from = &paths[present];
    double reread = reread_tokens * to->prompt_token_s;
    bool pays = choice.path > present ? (from->token_s - to->token_s) * left_tokens >= WORTH * reread
                                      : reread <= BEARABLE * to->token_s * left_tokens;
    return choice.path == present || pays ? choice : (pl_elastic_choice){present, "not worth moving"};
}
