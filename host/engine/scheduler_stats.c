#include "host/engine/scheduler_parts.h"

#include "host/base/clock.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#define LEAST_RETRY_S 0.1

double pl_histogram_bound(int i)
{
    return ldexp(0.0005, i);
}

void pl_stats_add(pl_histogram *h, double seconds)
{
    int i = 0;
    while (i < PL_HISTOGRAM_BUCKETS && seconds > pl_histogram_bound(i))
        i++;
    h->count[i]++;
    h->sum += seconds;
}

/* Where a path is counted; once all places are taken, the last one is for the rest. */
static int32_t find_path(pl_scheduler_stats *stats, const char *path)
{
    char name[sizeof stats->paths[0].path];
    snprintf(name, sizeof name, "%s", path);
    for (int32_t i = 0; i < stats->n_paths; i++)
        if (strcmp(stats->paths[i].path, name) == 0)
            return i;
    if (stats->n_paths == PL_STATS_PATHS)
        return PL_STATS_PATHS - 1;
    pl_path_stats *place = &stats->paths[stats->n_paths];
    memcpy(place->path, stats->n_paths == PL_STATS_PATHS - 1 ? "other" : name, sizeof name);
    return stats->n_paths++;
}

int32_t pl_stats_lane(pl_scheduler *s, pl_lane *lane)
{
    if (lane->counts < 0)
        lane->counts = find_path(&s->count, lane->path.name);
    return lane->counts;
}

void pl_stats_show(pl_scheduler *s)
{
    double since = s->last_start_s > 0 ? pl_clock_seconds() - s->last_start_s : 0;
    s->count.running = s->n_running;
    s->count.retry_after_s = since > s->start_pace_s ? since : s->start_pace_s;
    s->shown = s->count;
}

/* When the queue is full there is room again as soon as another request starts. */
static double retry_after(const pl_scheduler *s, int32_t waiting)
{
    if (waiting < s->max_waiting)
        return 0;
    return s->shown.retry_after_s > LEAST_RETRY_S ? s->shown.retry_after_s : LEAST_RETRY_S;
}

void pl_scheduler_count(pl_scheduler *s, pl_scheduler_stats *out)
{
    pthread_mutex_lock(&s->lock);
    *out = s->shown;
    out->submitted = s->submitted;
    out->refused = s->refused;
    out->waiting = s->n_live - out->running;
    out->retry_after_s = retry_after(s, out->waiting);
    pthread_mutex_unlock(&s->lock);
}
