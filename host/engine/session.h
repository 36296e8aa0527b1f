/* The inside of pl_session: the tokens of one sequence, how many of them have K/V, and on which path. */
#ifndef PL_ENGINE_SESSION_H
#define PL_ENGINE_SESSION_H

#include "host/engine/draft.h"
#include "host/engine/engine.h"

#include <stdatomic.h>

struct pl_session {
    pl_engine *engine;
    int32_t sequence;
    int32_t *tokens; /* [context + 1]: what was said, and one token that may not have K/V yet */
    int32_t n_tokens;
    pl_soft_holds holds; /* what they stand for */
    pl_path path;
    pl_step_row *rows; /* [batch_rows] */
    _Atomic bool cancelled;
    pl_trace_fn trace;
    void *trace_user;
    pl_watch_fn watch;
    void *watch_user;
    int32_t top;               /* of the logits that are read: how many of the largest are asked for; 0: all */
    pl_step_result *result[2]; /* of draws in flight; NULL where the host draws */
    pl_draft_sense sense;
};

/* Called with the logits of tokens [first, first + n), f32 [n][vocab], while the engine's lock is held. */
typedef pl_status (*pl_logits_sink)(void *user, int32_t first, int32_t n, const float *logits, pl_error *err);

/* Gives K/V to tokens [pl_kv_length, n) in chunks, and the logits of the last one, or with `all` of every one, to
 * sink; NULL: none are computed. Stops between chunks when the session was cancelled; what was read stays. */
pl_status pl_session_read(pl_session *s, int32_t n, bool all, pl_logits_sink sink, void *user, pl_error *err);

/* Where the ops draw (engine->draws): the same, but the step that reads token n - 1 is only queued, and draws. */
pl_status pl_session_queue_read(pl_session *s, int32_t n, pl_step_result *result, pl_error *err);

/* Queues the step that reads the token drawn last, whatever it will be, and draws the next. */
pl_status pl_session_queue_drawn(pl_session *s, pl_step_result *result, pl_error *err);

/* Waits for such a step: the token that it drew, or PL_DRAW_... */
pl_status pl_session_wait_drawn(pl_session *s, pl_step_result *result, int32_t *token, pl_error *err);

/* Makes the first n tokens of ids the session's, with the holds on them, which it takes over; returns how many of them
 * keep their K/V, at most n - 1. */
int32_t pl_session_adopt(pl_session *s, const int32_t *ids, int32_t n, const pl_soft_holds *holds);

#endif
