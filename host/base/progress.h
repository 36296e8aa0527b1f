/* A line on standard error that says how far something is, with its rate and the time left.
 * Silent unless standard error is a terminal, and for work that is done within a second. */
#ifndef PL_BASE_PROGRESS_H
#define PL_BASE_PROGRESS_H

#include "host/base/status.h"

typedef struct pl_progress {
    const char *label; /* borrowed */
    const char *unit;  /* "B" counts bytes in kB, MB, ...; other units as they are; NULL: no rate */
    const char *more;  /* said behind the rate; borrowed, NULL: nothing */
    double total;
    double start, drawn; /* seconds; drawn: 0 when no line is shown */
    bool on;
} pl_progress;

/* wanted: false keeps it silent (--quiet). */
void pl_progress_start(pl_progress *progress, const char *label, const char *unit, double total, bool wanted);
void pl_progress_update(pl_progress *progress, double done);

/* The same as a pl_progress_fn, whose user is the pl_progress. */
void pl_progress_show(void *progress, const char *what, double fraction);

/* Removes the line until the next update: for those who print something else. */
void pl_progress_hide(pl_progress *progress);

/* Removes the line. */
void pl_progress_finish(pl_progress *progress);

/* The line itself, at most `columns` wide, cut to `size`: "label [=====>    ]  42 %  1.3 GB/s  0:07 left". */
void pl_progress_format(const pl_progress *progress, double done, double elapsed_s, int columns, char *out,
                        size_t size);

#endif
