/* A batch's lines over the ranks of a job. Rank 0 has the lines; all ranks, it too, take them by demand.
 *
 * Each rank has a thread that sends and receives, and shows the others that the rank is alive whatever its engines do. A rank keeps
 * a few lines in stock, twice what it takes while a message goes to rank 0 and back, so that its engines need not wait for the
 * network. Towards the end nobody holds more than its share of what is open (portions.h), and lines in stock may be called back. */
#ifndef PL_BATCH_CREW_H
#define PL_BATCH_CREW_H

#include "host/batch/ranks.h"
#include "host/batch/work.h"

typedef enum pl_deal {
    PL_DEAL_LINE,
    PL_DEAL_NONE, /* all lines are in somebody's hands; some may come back */
    PL_DEAL_OVER, /* all are done, or the job ends */
} pl_deal;

/* Where rank 0 has its lines: the dealer. Called by any thread of rank 0; nothing waits. */
typedef struct pl_crew_desk {
    pl_deal (*take)(void *user, int rank, pl_work *out);
    pl_status (*give)(void *user, int rank, const pl_work_result *result, pl_error *err);
    void (*put_back)(void *user, int rank, int64_t line); /* one that the rank has; others are passed over */
    int64_t (*lost)(void *user, int rank);                /* all that the rank has go back: how many */
    int64_t (*left)(void *user);                          /* lines in nobody's hands */
    void (*fail)(void *user, const pl_error *why);        /* the job cannot go on: it is over */
    bool (*over)(void *user);                             /* all are done, or the job ends */
    pl_status (*outcome)(void *user, pl_error *err);      /* once over: why; PL_OK where all are done */
    void *user;
} pl_crew_desk;

typedef struct pl_crew_params {
    pl_ranks *ranks;          /* borrowed; nobody else calls it until pl_crew_end() has returned */
    const pl_crew_desk *desk; /* of rank 0, borrowed; others: NULL */
    double lost_after_s;      /* a rank that is not heard of for so long is lost; 0: 60 */

    /* May be NULL. Both: from any thread, with nothing to be called back from them. */
    void (*say)(void *user, const char *message); /* rank 0: that a rank is lost, or cannot work */
    void (*stop)(void *user); /* the job ends before all is done: workers should give up what they have */
    void *user;
} pl_crew_params;

typedef struct pl_crew pl_crew;

/* From now on the rank shows that it is alive: to be called before engines are made, which may take minutes. */
pl_status pl_crew_create(const pl_crew_params *params, pl_crew **out, pl_error *err);

/* For the workers of this rank. */
pl_work_source pl_crew_source(pl_crew *crew);

/* This rank has no engine, or none any more, or was told to end by a signal: rank 0 hears why, and the lines go to others. The
 * job fails where nobody is left to work. */
void pl_crew_cannot_work(pl_crew *crew, const pl_error *why);

/* Ranks that work; of rank 0, for progress. */
int pl_crew_working(pl_crew *crew);

/* Waits for the end of the whole job, which others learn from rank 0, and says how it ended: the same on all ranks. *broken: ranks
 * are missing, and ranks->close() would wait for them: end with ranks->abort(). */
pl_status pl_crew_end(pl_crew *crew, bool *broken, pl_error *err);

/* After pl_crew_end(). NULL: nothing. */
void pl_crew_free(pl_crew *crew);

#endif
