/* A dealer without files: lines of a batch that are only counted. */
#ifndef PL_TESTS_BATCH_LIST_DESK_H
#define PL_TESTS_BATCH_LIST_DESK_H

#include <pthread.h>

#include "host/batch/crew.h"

typedef struct list_line {
    int owner;   /* -1: nobody */
    int results; /* that came for it */
} list_line;

typedef struct list_desk {
    pthread_mutex_t lock;
    list_line *lines; /* [n] */
    int64_t n, left, done;
    int64_t next;      /* none before it is in nobody's hands */
    int64_t fail_at;   /* the give after so many fails; 0: none */
    size_t text_bytes; /* of each line */
    bool stopped;
    pl_error why;
} list_desk;

void list_desk_open(list_desk *d, int64_t n, size_t text_bytes);
void list_desk_close(list_desk *d);
pl_crew_desk list_desk_of(list_desk *d);

/* As a signal does it. */
void list_desk_interrupt(list_desk *d);

#endif
