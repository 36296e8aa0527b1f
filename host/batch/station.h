/* An engine of a worker, and all that keeps it busy:
 *
 *     feeder     takes lines from the source, parses them and posts their requests
 *     loop       has them answered by the service's handlers, makes the records and gives them; tries refused lines again
 *     scheduler  runs the steps
 *
 * A line that was refused waits until fewer are under way, half as many each time. At last it is tried alone: what it is then
 * told is its answer. As long as there are such lines, the feeder takes no others. */
#ifndef PL_BATCH_STATION_H
#define PL_BATCH_STATION_H

#include "host/batch/worker.h"

#include <pthread.h>

typedef struct pl_station_line pl_station_line;

typedef struct pl_station_params {
    const pl_model *model;
    pl_engine *engine;
    const pl_service_params *service;
    const pl_work_source *source;
    uint64_t seed; /* of the ids of records */
    int32_t window;
    size_t bytes;
    void (*fail)(void *user, const pl_error *why); /* the worker cannot go on */
    void *user;
} pl_station_params;

typedef struct pl_station {
    pl_station_params params;
    pl_scheduler *scheduler;
    pl_service *service;
    pl_http *http;
    pthread_t loop, feeder;
    bool started;
    pl_station_line *refused, **refused_end; /* the loop's */

    pthread_mutex_t lock; /* of what follows */
    pthread_cond_t change;
    int32_t lines;   /* taken, and neither given nor given back */
    int32_t waiting; /* of them, to be tried again */
    int32_t careful; /* of them, tried again at least once, or waiting for it */
    size_t bytes;    /* of all of them */
    bool ended;      /* takes no more, and gives back what has no answer */
    pl_error lost;   /* the card */
    pl_worker_stats count;
} pl_station;

pl_status pl_station_open(pl_station *s, const pl_station_params *params, pl_error *err);
void pl_station_close(pl_station *s); /* also of one that is all zero */

pl_status pl_station_start(pl_station *s, pl_error *err);
void pl_station_stop(pl_station *s);   /* from any thread, until it is closed */
void pl_station_finish(pl_station *s); /* waits for the end; then nothing is left of its lines */
void pl_station_count(pl_station *s, pl_worker_stats *sum);

/* station_line.c. take: from the feeder, of a line that is the station's now; the others on the loop. */
void pl_station_take(pl_station *s, pl_work *work);
void pl_station_try_again(void *station);
void pl_station_give_back_refused(pl_station *s);

#endif
