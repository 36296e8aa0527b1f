/* What a text costs a model on one path, and how far the model is from a reference: the loop over passages.
 *
 * Positions before the first that counts only make K/V; of the others, at most PL_EVALUATE_ROWS are held at a time, the
 * model's logits and the reference's. Files of logits go with passages whose second half counts. */
#ifndef PL_MEASURE_EVALUATE_H
#define PL_MEASURE_EVALUATE_H

#include "host/measure/divergence.h"
#include "host/measure/logits_file.h"

#define PL_EVALUATE_ROWS 64

/* Buffers and threads, for any number of runs over one vocabulary. */
typedef struct pl_evaluator pl_evaluator;

pl_status pl_evaluator_create(int32_t vocab, int threads, pl_evaluator **out, pl_error *err);
void pl_evaluator_free(pl_evaluator *evaluator);

typedef struct pl_evaluation {
    pl_session *session;                  /* on the path to measure */
    pl_session *reference;                /* on the same path; or NULL */
    const pl_logits_file *reference_file; /* instead of a session; or NULL. Checked: pl_logits_file_check() */
    const pl_passages *passages;
    pl_logits_writer *save; /* takes the logits of `session`; or NULL */

    /* Called after every few tokens with how many of the current passage are done; false stops. May be NULL. */
    bool (*on_tokens)(void *user, int32_t tokens);
    /* Called after each passage, when *done and *q count it. May be NULL. */
    pl_status (*on_passage)(void *user, pl_error *err);
    void *user;
} pl_evaluation;

/* Measures passages [*done, passages->n) into *q, which holds the sums of those before. Both change passage by
 * passage: whatever is returned, *q is of the first *done. The sums do not depend on threads or interruptions.
 * PL_ERR_CANCELLED when on_tokens or pl_session_cancel() said so. */
pl_status pl_evaluate(pl_evaluator *evaluator, const pl_evaluation *what, int32_t *done, pl_quality *q, pl_error *err);

/* What can be said before an engine exists: whether the model has the path, and the name of the one through all
 * of it. */
pl_status pl_evaluate_check_path(const pl_model *model, const char *path, pl_error *err);
const char *pl_evaluate_default_path(const pl_model *model);

#endif
