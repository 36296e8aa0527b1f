/* What a batch says of itself: a bar while it runs, with its rates and what it takes of energy, and a summary at the end. A thread
 * of its own also has the results brought to the disk every few seconds. */
#ifndef PL_TOOLS_BATCH_REPORT_H
#define PL_TOOLS_BATCH_REPORT_H

#include "host/base/options.h"
#include "host/batch/dealer.h"

typedef struct pl_batch_report pl_batch_report;

typedef struct pl_batch_report_params {
    const pl_options *options; /* all borrowed */
    pl_dealer *dealer;
    pl_results *results;
    pl_crew *crew; /* NULL: there is only this process */
    int engines;   /* of this process */
    bool answered; /* before: how many of the results are errors is not known */
    bool energy;   /* this machine is all that works */
} pl_batch_report_params;

/* Begins to count and to show. A disk that fails ends the job: pl_dealer_stop(). */
pl_status pl_batch_report_begin(const pl_batch_report_params *params, pl_batch_report **out, pl_error *err);

/* Ends the thread and removes the bar. */
void pl_batch_report_end(pl_batch_report *report);

/* With --json on standard output, else as a note. */
void pl_batch_report_summary(const pl_batch_report *report);
void pl_batch_report_free(pl_batch_report *report); /* NULL: nothing */

#endif
