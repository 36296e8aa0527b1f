/* Keeps engines busy: takes lines from a source, has each answered by the handlers of the server (host/serve), without a
 * socket, and gives the records of what came of them.
 *
 * Each engine has a scheduler, a service and a loop of its own, and a thread that takes another line as long as fewer than
 * `window` are under way there. So unequal engines take by their own demand and finish together. */
#ifndef PL_BATCH_WORKER_H
#define PL_BATCH_WORKER_H

#include "host/batch/work.h"
#include "host/serve/service.h"

typedef struct pl_worker pl_worker;

typedef struct pl_worker_params {
    const pl_model *model;
    pl_engine *const *engines; /* [n_engines], of the model; borrowed, and used by nobody else meanwhile */
    int32_t n_engines;
    pl_service_params service; /* name, path and sampling for lines that say nothing; any_model as wished */
    pl_work_source source;
    uint64_t seed; /* of the ids of records: pl_record_seed() */
    int32_t
        window; /* lines under way an engine, at most; 0: a little more than its sessions, which fills steps; at most 512 */
    size_t bytes; /* no more is taken while those under way of an engine have so many; 0: 256 MiB */
} pl_worker_params;

pl_status pl_worker_create(const pl_worker_params *params, pl_worker **out, pl_error *err);
void pl_worker_free(pl_worker *worker);

/* Works until the source has no more lines; then all that were taken are given, or given back. A line is given only with its
 * answer, or with an error that is its own: where a queue is full or memory short it is tried again, at last alone; an engine
 * whose card is lost gives its lines back and takes no more. Once.
 *
 * PL_ERR_DEVICE: no engine is left. PL_ERR_CANCELLED: it was stopped. Else what ended it: the failure of a give. */
pl_status pl_worker_run(pl_worker *worker, pl_error *err);

/* Ends what is under way: its lines are given back. Any thread, no signal handler. A source that waits in `take` must be
 * ended by its owner. */
void pl_worker_stop(pl_worker *worker);

typedef struct pl_worker_stats {
    int64_t given, failed; /* lines; failed are among the given */
    int64_t given_back, tried_again;
    int32_t under_way;
    int32_t engines;                                     /* that are not lost */
    int64_t prompt_tokens, reused_tokens, answer_tokens; /* so far, of lines under way too; prompt_tokens: read */
} pl_worker_stats;

pl_worker_stats pl_worker_count(pl_worker *worker); /* any thread */

/* Why an engine's card was lost; "": it was not. Lives as long as the worker; after pl_worker_run(). */
const char *pl_worker_lost(const pl_worker *worker, int32_t engine);

#endif
