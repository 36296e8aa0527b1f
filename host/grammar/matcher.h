/* Runs a grammar over bytes: an automaton with a stack, its states found as they are needed and kept.
 *
 * A state is the set of all stacks that the bytes so far allow. States and stacks are shared (each exists once), and so
 * are the transitions by byte, so that a byte costs a look-up once its state has been seen. Repetitions count in the
 * stack. Not thread-safe: pl_grammar locks. */
#ifndef PL_GRAMMAR_MATCHER_H
#define PL_GRAMMAR_MATCHER_H

#include "host/grammar/program.h"

typedef struct pl_matcher pl_matcher;

/* Owns rules (finished) from now on, also on failure. max_bytes bounds what the states may take: see pl_matcher_full().
 * longest: bytes over which pl_matcher_canonical() may not tell states apart; 0 where that is not used. */
pl_status pl_matcher_create(pl_rules *rules, uint32_t longest, size_t max_bytes, pl_matcher **out, pl_error *err);
void pl_matcher_free(pl_matcher *matcher);

#define PL_STATE_DEAD 0u  /* no text of the grammar begins so */
#define PL_STATE_START 1u /* before the first byte */
#define PL_STATE_FAILED UINT32_MAX

/* The state after one more byte. PL_STATE_FAILED: pl_matcher_failure() says why. */
static inline uint32_t pl_matcher_step(pl_matcher *matcher, uint32_t state, uint8_t byte);

/* Whether the text may end in a state. -1: failed. */
static inline int pl_matcher_ends(pl_matcher *matcher, uint32_t state);

/* The first state that goes on as this one does for `longest` bytes and may end when this one may: repetitions further
 * than that from their bounds count alike. */
uint32_t pl_matcher_canonical(pl_matcher *matcher, uint32_t state);

/* Why the last call failed: no memory, or PL_ERR_UNSUPPORTED where a grammar has too many ways at once. */
pl_status pl_matcher_failure(const pl_matcher *matcher, pl_error *err);

/* True when the states take more than max_bytes. pl_matcher_forget() then drops all but the held ones, whose numbers it
 * changes, and counts up `age`. On failure nothing has changed. */
bool pl_matcher_full(const pl_matcher *matcher);
pl_status pl_matcher_forget(pl_matcher *matcher, uint32_t *const *held, size_t n, pl_error *err);

/* How much of a text the grammar allows, and whether it may end there. */
pl_status pl_matcher_read(pl_matcher *matcher, const char *text, size_t n, size_t *allowed, bool *may_end,
                          pl_error *err);

/* ---- inside, for those who look for masks ---- */

#define PL_NODE_BOTTOM 0u /* under the first frame */
#define PL_NODE_REPEAT 0x80000000u

/* A frame on those below it. */
typedef struct pl_node {
    uint32_t parent;    /* node */
    uint32_t where;     /* group to go on with; or PL_NODE_REPEAT | edge */
    uint32_t count;     /* of a repetition: rounds begun */
    uint32_t canonical; /* node */
    uint32_t chain;     /* the next with the same hash */
    uint32_t seen;      /* of the search for what follows */
} pl_node;

#define PL_STATE_NOTES 5

typedef struct pl_state {
    uint32_t nodes, n_nodes;       /* in words: the tops of its stacks, ascending */
    uint32_t ways, n_ways;         /* in words: set, node and group behind each byte that may follow */
    uint32_t row;                  /* in words: states by class of the byte; 0: none yet */
    uint32_t chain;                /* the next with the same hash */
    uint32_t canonical;            /* 0: not known */
    uint32_t note[PL_STATE_NOTES]; /* of the matcher's user; 0 at first */
    bool searched, ends;           /* ways and ends are known */
} pl_state;

#define PL_ROW_UNKNOWN UINT32_MAX

typedef struct pl_hash_heads {
    uint32_t *head; /* [1 << bits] */
    uint32_t bits;
} pl_hash_heads;

struct pl_matcher {
    pl_rules *rules;
    const pl_program *program;
    uint32_t longest;
    size_t max_bytes;
    uint32_t age;
    pl_node *node;
    pl_state *state;
    uint32_t *words;
    size_t n_nodes, node_room, n_states, state_room, n_words, word_room;
    pl_hash_heads node_heads, state_heads;
    uint32_t search; /* number of the last */
    uint32_t *todo, *found;
    size_t n_todo, todo_room, n_found, found_room;
    pl_status failed;
    const char *why;
};

uint32_t pl_matcher_step_new(pl_matcher *matcher, uint32_t state, uint8_t byte);
bool pl_matcher_search(pl_matcher *matcher, uint32_t state);

/* The state with one stack. PL_STATE_FAILED */
uint32_t pl_matcher_state_of(pl_matcher *matcher, uint32_t node);

/* The node with this frame on nothing. UINT32_MAX: failed. */
uint32_t pl_matcher_alone(pl_matcher *matcher, uint32_t node);

static inline uint32_t pl_matcher_step(pl_matcher *matcher, uint32_t state, uint8_t byte)
{
    uint32_t row = matcher->state[state].row;
    uint32_t next = matcher->words[row + matcher->program->class_of[byte]];
    return next != PL_ROW_UNKNOWN ? next : pl_matcher_step_new(matcher, state, byte);
}

static inline int pl_matcher_ends(pl_matcher *matcher, uint32_t state)
{
    if (!matcher->state[state].searched && !pl_matcher_search(matcher, state))
        return -1;
    return matcher->state[state].ends;
}

#endif
