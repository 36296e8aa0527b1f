/* What ran when: spans and instants on tracks, written as a Chrome trace. Made and written by the functions in pleiad.h.
 *
 * Times are those of pl_clock_seconds(). Memory is bounded: when it is full, or cannot be had, what comes then is dropped
 * and counted, and the trace says so. Any thread may record; one that is NULL records nothing, at the cost of a branch:
 *
 *     double begin = pl_timeline_now(t);
 *     ...
 *     pl_timeline_end(t, PL_TIMELINE_MAIN, "step", begin);
 */
#ifndef PL_BASE_TIMELINE_H
#define PL_BASE_TIMELINE_H

#include "host/base/clock.h"
#include "host/base/status.h"

#include <stdio.h>

#define PL_TIMELINE_NAME_BYTES 40 /* longer names are cut */
#define PL_TIMELINE_TRACKS 64
#define PL_TIMELINE_MAIN 0 /* the track that is always there */

/* The track of this name, a new one at its first use; PL_TIMELINE_MAIN when there are too many. Spans of one track
 * should lie within or behind each other: give each thread, and each queue of a card, its own. */
int pl_timeline_track(pl_timeline *t, const char *name);

/* Names are copied. A span that ends before it begins has no length. */
void pl_timeline_span(pl_timeline *t, int track, const char *name, double begin_s, double end_s);
void pl_timeline_instant(pl_timeline *t, int track, const char *name, double at_s);

/* As pl_timeline_write(), to a file that is open; `path` names it in errors. */
pl_status pl_timeline_print(pl_timeline *t, FILE *file, const char *path, pl_error *err);

static inline double pl_timeline_now(const pl_timeline *t)
{
    return t ? pl_clock_seconds() : 0;
}

/* A span from begin_s until now. */
static inline void pl_timeline_end(pl_timeline *t, int track, const char *name, double begin_s)
{
    if (t)
        pl_timeline_span(t, track, name, begin_s, pl_clock_seconds());
}

#endif
