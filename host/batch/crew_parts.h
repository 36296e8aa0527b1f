/* Inside a crew: what rank 0 (crew_serve.c) and the others (crew_join.c) have in common. */
#ifndef PL_BATCH_CREW_PARTS_H
#define PL_BATCH_CREW_PARTS_H

#include <pthread.h>

#include "host/batch/crew.h"
#include "host/batch/crew_message.h"

/* hear and turn: on the crew's thread, without the lock; a failure of theirs breaks the crew. The others: on any thread, with it. */
typedef struct pl_crew_role {
    pl_status (*hear)(pl_crew *c, int from, int kind, const void *data, size_t n, double now, pl_error *err);
    pl_status (*turn)(pl_crew *c, double now, pl_error *err); /* sends what is due */
    bool (*take)(pl_crew *c, pl_work *out);                   /* false: nothing is there now */
    void (*give_back)(pl_crew *c, const pl_work *work);
    pl_status (*give)(pl_crew *c, const pl_work_result *result, pl_error *err); /* without the lock */
    void (*free)(void *state);
} pl_crew_role;

struct pl_crew {
    pl_crew_params params;
    pl_crew_desk desk;
    const pl_crew_role *role;
    void *state; /* the role's */
    pthread_t thread;
    bool started;

    pthread_mutex_t lock; /* for the role's state and all below */
    pthread_cond_t wake;  /* the thread has something to do */
    pthread_cond_t changed;
    bool poked;  /* `wake` was signalled */
    int waiting; /* takers that find nothing */
    bool unable; /* pl_crew_cannot_work() was called */
    pl_error why;
    bool over;     /* no more lines */
    bool finished; /* the thread ends */
    bool broken;
    pl_error outcome;
    int working;
};

extern const pl_crew_role pl_crew_serve_role, pl_crew_join_role;
pl_status pl_crew_serve_create(pl_crew *c, pl_error *err); /* sets c->state */
pl_status pl_crew_join_create(pl_crew *c, pl_error *err);

/* With the lock. */
void pl_crew_poke(pl_crew *c);
void pl_crew_over(pl_crew *c, const pl_error *outcome);
void pl_crew_finish(pl_crew *c, bool broken);

/* Seals and sends what is in buf, and clears it. */
pl_status pl_crew_send(pl_crew *c, int to, pl_crew_kind kind, pl_strbuf *buf, pl_error *err);

static inline double pl_crew_pulse_s(const pl_crew *c)
{
    return c->params.lost_after_s < 20 ? c->params.lost_after_s / 4 : 5;
}

#endif
