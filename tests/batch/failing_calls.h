/* Stands between the results of a batch and the system: calls that write can fail, write less than asked for, or be the last that a
 * process ever comes to. Links with WRAP FAILING_CALLS' names: fdatasync fsync ftruncate linkat pwrite rename unlink. Syncs are only
 * counted. */
#ifndef PL_TESTS_BATCH_FAILING_CALLS_H
#define PL_TESTS_BATCH_FAILING_CALLS_H

#include <stdbool.h>

typedef struct failing_calls {
    int calls;   /* so far */
    int fail_at; /* this one and, where `on` is set, all behind it fail; -1: none */
    bool on;
    int error;         /* how */
    int kill_at;       /* the process ends before this one; -1: never */
    bool short_writes; /* half of what is asked for, and half of it where they fail */
} failing_calls;

extern failing_calls failing;

/* Nothing fails, from now on; the count begins again. */
void failing_reset(void);

#define FAILING_KILLED 99 /* exit code */

#endif
