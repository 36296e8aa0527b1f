/* What an evaluation has measured so far, kept in a file so that an interrupted one can go on. The sums are written
 * so that they read back equal: it ends with the same numbers as one that was never interrupted.
 *
 *     {"pleiad_eval": 1, "text": fingerprint, "length", "pieces", "reference": FILE or null,
 *      "results": [{"model": FILE, "path", "pieces", "sums": {...}}, ...]}
 *     FILE: {"file", "bytes", "modified"} */
#ifndef PL_MEASURE_EVAL_STATE_H
#define PL_MEASURE_EVAL_STATE_H

#include "host/measure/divergence.h"
#include "host/measure/passages.h"

/* A model or a file of logits, told from others and from later versions of itself. */
typedef struct pl_eval_input {
    char *file;              /* absolute; owned */
    int64_t bytes, modified; /* of a folder: the files in it together, the latest; modified in nanoseconds */
} pl_eval_input;

pl_status pl_eval_input_look(const char *path, pl_eval_input *out, pl_error *err);
void pl_eval_input_free(pl_eval_input *input);

typedef struct pl_eval_result {
    const pl_eval_input *model; /* borrowed, as is path */
    const char *path;
    int32_t done; /* passages */
    pl_quality sums;
} pl_eval_result;

/* Borrows all of it. */
typedef struct pl_eval_state {
    const pl_passages *passages;
    const pl_eval_input *reference; /* NULL: none */
    pl_eval_result *results;
    size_t n;
} pl_eval_state;

/* Takes over what the file holds of state->results, if there is such a file. PL_ERR_ARGUMENT names what differs where
 * it is of another text, length, reference or version of a model, or holds results that are not among those asked
 * for: they would be lost. */
pl_status pl_eval_state_resume(const char *file, pl_eval_state *state, pl_error *err);

/* The file is replaced as a whole. */
pl_status pl_eval_state_save(const char *file, const pl_eval_state *state, pl_error *err);

#endif
