/* A text cut into passages of equal length, as llama.cpp's perplexity and imatrix tools cut it: all of it is tokenised
 * with <bos> first; passage i holds tokens [i * length, (i + 1) * length), its first one replaced by <bos>. */
#ifndef PL_MEASURE_PASSAGES_H
#define PL_MEASURE_PASSAGES_H

#include "host/include/pleiad.h"

typedef struct pl_passages {
    int32_t *ids; /* [n][length] */
    int32_t n, length;
    bool *scored;         /* [n][length] what follows this position counts; NULL: see pl_passage_first() */
    uint64_t fingerprint; /* of ids and scored: tells whether a later run measures the same */
} pl_passages;

/* limit: at most so many passages; -1: all. A text too short for one is PL_ERR_ARGUMENT that says how long it is;
 * `where` names it. */
pl_status pl_passages_cut(const pl_model *model, const char *text, size_t n_bytes, int32_t length, int32_t limit,
                          const char *where, pl_passages *out, pl_error *err);

/* The same for a text that holds chats in Gemma's form: "<start_of_turn>" and the like are control tokens, and what
 * counts is only what the model itself says, from the first answer to a question that is in the passage, too. A text
 * without any is PL_ERR_ARGUMENT. */
pl_status pl_passages_cut_chats(const pl_model *model, const char *text, size_t n_bytes, int32_t length, int32_t limit,
                                const char *where, pl_passages *out, pl_error *err);

void pl_passages_free(pl_passages *passages);

/* Whether the token after position `at` counts. */
bool pl_passages_scores(const pl_passages *passages, int32_t passage, int32_t at);

/* How many do in the first n passages. */
int64_t pl_passages_scored(const pl_passages *passages, int32_t n);

/* Which tokens of a passage without marks are scored, as llama.cpp does it: what follows positions
 * [first, first + scored). */
static inline int32_t pl_passage_first(int32_t length)
{
    return length / 2;
}

static inline int32_t pl_passage_scored(int32_t length)
{
    return length - 1 - length / 2;
}

#endif
