/* Proposals by another path of the model, which reads the same K/V as the answer's own: what the wider path has written
 * serves the narrower as well, if not quite as its own would. What it writes itself is forgotten at once. */
#ifndef PL_ENGINE_DRAFT_PATH_H
#define PL_ENGINE_DRAFT_PATH_H

#include "host/engine/draft.h"
#include "host/engine/engine.h"
#include "host/engine/reply.h"

/* An answer that proposals are made for. */
typedef struct pl_draft_by_path {
    pl_draft *draft; /* in: item.n is 0; out: item, kind, token */
    const pl_reply *reply;
    const pl_path *path;
    int32_t sequence, held; /* tokens in K/V */
    int32_t last;           /* the token at `held`, for which there may be room already */
    int32_t length;         /* of the sequence, before and after */
} pl_draft_by_path;

/* `steps` steps, each with a row of every answer; the engine's lock is held. Every answer gets as many proposals as there
 * was K/V room for. rows: [n] room. A step that fails ends it early; the proposals so far serve. */
void pl_draft_by_path_run(pl_engine *e, pl_draft_sense *sense, pl_candidates *room, pl_draft_by_path *answers, int n,
                          int steps, pl_step_row *rows);

#endif
