/* Times the ops of an engine on the CPU, one by one, and counts what each moves and multiplies, while the engine does
 * whatever it is made to do. */
#ifndef PL_MEASURE_OP_TIMER_H
#define PL_MEASURE_OP_TIMER_H

#include "host/measure/count_ops.h"

typedef struct pl_op_timer pl_op_timer;

/* Stands between the engine's steps and its ops from now on, but counts nothing before pl_op_timer_start(). The engine
 * must outlive it and be at rest here and in pl_op_timer_free(). PL_ERR_UNSUPPORTED: it is on a card. */
pl_status pl_op_timer_create(pl_engine *engine, pl_op_timer **out, pl_error *err);
void pl_op_timer_free(pl_op_timer *timer);

/* While the engine is at rest, or from within its steps. Counts add up until they are cleared. */
void pl_op_timer_clear(pl_op_timer *timer);
void pl_op_timer_start(pl_op_timer *timer);
void pl_op_timer_stop(pl_op_timer *timer);

typedef struct pl_op_times {
    const pl_counts *counts; /* split; `bytes` as a card would move them */
    int64_t steps;
    int64_t rows;   /* of all steps */
    double seconds; /* between start and stop */
} pl_op_times;

/* Valid until the timer is used again. */
pl_op_times pl_op_timer_read(const pl_op_timer *timer);

#endif
