/* Who has the lines of a batch and hands them out, by demand, to this process and others: each line to one at a time, until all are
 * done. Faulty lines are answered here, and never handed out.
 *
 * A line comes back by `give`, or undone: because its rank is lost, or cannot do it. Results of a rank that was taken for lost are
 * welcome; the second result of a line is passed over. */
#ifndef PL_BATCH_DEALER_H
#define PL_BATCH_DEALER_H

#include "host/batch/crew.h"
#include "host/batch/input.h"
#include "host/batch/results.h"

typedef struct pl_dealer pl_dealer;

typedef struct pl_dealer_params {
    pl_input *input; /* borrowed, as is results; its order is used up */
    pl_results *results;
    int ranks;     /* 0: 1 */
    uint64_t seed; /* of the ids of records: pl_record_seed() */

    /* The model's path for a line that is handed out, valid until the next call (deadline.h); and that a line is done. Called
     * by one thread at a time; may be NULL. */
    const char *(*choose)(void *user, int64_t line);
    void (*done)(void *user, int64_t line);
    void *user;
} pl_dealer_params;

/* Gives the results of faulty lines. */
pl_status pl_dealer_create(const pl_dealer_params *params, pl_dealer **out, pl_error *err);
void pl_dealer_free(pl_dealer *dealer);

/* All from any thread. With `wait` never PL_DEAL_NONE. Where a line cannot be read the job fails. */
pl_deal pl_dealer_take(pl_dealer *dealer, int rank, bool wait, pl_work *out);

/* PL_ERR_FORMAT: no such line or no record. Other failures, of the disk, end the job. After the end, too, results are kept. */
pl_status pl_dealer_give(pl_dealer *dealer, int rank, const pl_work_result *result, pl_error *err);

/* A line, or all lines, that a rank has taken and will not answer: they go to others. What it does not have is passed over. */
void pl_dealer_put_back(pl_dealer *dealer, int rank, int64_t line);
int64_t pl_dealer_lost(pl_dealer *dealer, int rank); /* returns how many */

/* The job ends: nothing is handed out any more. why: NULL where somebody wished so (PL_ERR_CANCELLED); the first reason stays. */
void pl_dealer_stop(pl_dealer *dealer, const pl_error *why);

/* PL_OK as long as nothing has ended the job but that all is done. */
pl_status pl_dealer_error(pl_dealer *dealer, pl_error *err);

typedef struct pl_dealer_stats {
    pl_results_stats results;
    int64_t under_way, left; /* lines handed out; lines in nobody's hands */
    uint64_t bytes_left;     /* of input, of both */
} pl_dealer_stats;

pl_dealer_stats pl_dealer_count(pl_dealer *dealer);

/* The dealer as a worker of this process (rank 0), and as a crew, sees it. */
pl_work_source pl_dealer_source(pl_dealer *dealer);
pl_crew_desk pl_dealer_desk(pl_dealer *dealer);

#endif
