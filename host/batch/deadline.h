/* Which path the lines of a job take so that it ends in time: the widest on which what is left ends with a tenth of the time to
 * spare, else the narrowest. How long lines take is learned from those that are done.
 *
 * Moments are seconds of any clock that only goes forward (pl_clock_seconds()). Calls of a job: from any thread. */
#ifndef PL_BATCH_DEADLINE_H
#define PL_BATCH_DEADLINE_H

#include "host/base/status.h"

#define PL_DEADLINE_PATHS 8

typedef struct pl_deadline_path {
    char name[128]; /* as pl_session_set_path() takes it */
    double cost;    /* of a line, as a share of the widest's: a guess, until lines were done on it */
} pl_deadline_path;

/* The model's paths, the widest first, with the bytes of weights that a token reads as their costs; one as wide as another is
 * left out. Needs a free session for the moment. */
pl_status pl_deadline_find_paths(const pl_model *model, pl_engine *engine, pl_deadline_path out[PL_DEADLINE_PATHS],
                                 int32_t *n, pl_error *err);

/* ---- the choice, a pure function --------------------------------------------------------------- */

typedef struct pl_deadline_left {
    int64_t lines;      /* not handed out yet */
    double under_way_s; /* that those handed out will take */
    double seconds;     /* until the deadline */
} pl_deadline_left;

/* line_s: [n] seconds that a line takes the whole job on each path, the widest first. present: the path now, -1: none yet.
 * A wider one is taken only where a fifth of the time is to spare, so that it does not flap. Returns an index. */
int32_t pl_deadline_plan(const double *line_s, int32_t n, int32_t present, const pl_deadline_left *left);

/* ---- a job ------------------------------------------------------------------------------------- */

typedef struct pl_deadline pl_deadline;

typedef struct pl_deadline_params {
    const pl_deadline_path *paths; /* [n_paths], the widest first; copied */
    int32_t n_paths;
    int64_t lines;       /* of the input; a byte of memory each */
    int64_t left;        /* of them, not yet done */
    double now_s, end_s; /* end_s: the deadline */
    double
        line_s; /* seconds that a line takes the whole job on the widest path, a guess on the high side for as long as
                            nothing is known; 0: 10 */
} pl_deadline_params;

pl_status pl_deadline_create(const pl_deadline_params *params, pl_deadline **out, pl_error *err);
void pl_deadline_free(pl_deadline *d);

/* The path for a line that is handed out now, or again. Lives as long as d. */
const char *pl_deadline_choose(pl_deadline *d, int64_t line, double now_s);

/* A line is done, with an answer or an error; also one that was never handed out. */
void pl_deadline_done(pl_deadline *d, int64_t line, double now_s);

/* Seconds that what is left takes on the path of now. */
double pl_deadline_expect(pl_deadline *d);

#endif
