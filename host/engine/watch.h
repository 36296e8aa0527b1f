/* The operands of the matrix products as a session's steps make them, for measuring what each weight is worth. */
#ifndef PL_ENGINE_WATCH_H
#define PL_ENGINE_WATCH_H

#include "host/model/weight_table.h"

/* One product: each of n rows of x, f32, row i at x + i * ld, with one weight. The rows are tokens, in no order that
 * means anything. */
typedef struct pl_watch {
    pl_role role; /* PL_ROLE_HEAD: the head, also where it is the embedding */
    int layer;    /* as in the weights, whatever the path skips; -1: of the whole model */
    int index;    /* which of several, as in the AltUp projections */
    const float *x;
    int64_t ld, cols;    /* cols: of the widest row */
    const int32_t *n_in; /* [n] columns of each row, non-increasing; NULL: cols */
    int n;
} pl_watch;

typedef void (*pl_watch_fn)(void *user, const pl_watch *product);

/* From now on each step of this session shows fn its products, each row with each weight that its path uses; NULL: no
 * more. Rows run to the end even where nobody asks for logits; the head's operand is shown for all of them, whether
 * or not it is multiplied. fn is called between ops, on the thread that runs the step; it may use the backend's
 * pool. */
void pl_session_watch(pl_session *session, pl_watch_fn fn, void *user);

#endif
