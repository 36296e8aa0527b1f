/* What passes between who has the lines of a batch and who answers them: a line goes out, a record comes back.
 *
 *     dealer    (rank 0) knows which lines are left; hands them out by demand
 *     worker    keeps an engine busy: takes lines, gives records
 *     crew      the same two calls, over the ranks of a job on many machines */
#ifndef PL_BATCH_WORK_H
#define PL_BATCH_WORK_H

#include "host/base/status.h"

#define PL_WORK_PATH 128

/* A line to be answered. */
typedef struct pl_work {
    int64_t line; /* counted from 0 */
    char *text;   /* [n] as the input has it, without its end of line; free() */
    size_t n;
    char path[PL_WORK_PATH]; /* of the model, where the line names none; "": the worker's own */
} pl_work;

/* What came of it. */
typedef struct pl_work_result {
    int64_t line;
    const char *record; /* [n] JSON in one line, with its end of line; borrowed */
    size_t n;
    bool failed; /* the record tells of an error */
    int64_t prompt_tokens, answer_tokens;
} pl_work_result;

/* Where a worker gets its lines. All calls: from any thread. Each line that was taken is given or given back, once. */
typedef struct pl_work_source {
    /* Waits for the next line. False: there will be none any more, all is done or the job ends. */
    bool (*take)(void *user, pl_work *out);

    /* Hands over what came of a line that was taken; each line once. A failure ends the job: take returns false from then on. */
    pl_status (*give)(void *user, const pl_work_result *result, pl_error *err);

    /* Instead of give: a line that is not answered here (a card was lost, the worker was stopped) and may be by others. work is the
     * source's from then on, text too. */
    void (*give_back)(void *user, pl_work *work);
    void *user;
} pl_work_source;

#endif
