/* What the files of the results share. */
#ifndef PL_BATCH_RESULTS_PARTS_H
#define PL_BATCH_RESULTS_PARTS_H

#include <pthread.h>

#include "host/batch/journal.h"
#include "host/batch/results.h"

struct pl_results {
    pthread_mutex_t lock; /* of what add changes: tail, vouched, done, stats, and the files' ends */
    char *out, *part, *journal_path;
    pl_journal *journal;
    int fd;                 /* of the part; of OUT where that is the part already; -1: OUT was finished before */
    bool renamed;           /* OUT is the part */
    bool finished;          /* OUT is what it will be */
    uint64_t tail, vouched; /* bytes of the part; of them those of results */
    uint64_t *done;         /* a bit a line */
    pl_results_stats stats;
};

/* Marks a line as done. */
void pl_results_mark(pl_results *results, const pl_journal_entry *entry);

#endif
