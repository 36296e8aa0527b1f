/* The inside of pl_engine. */
#ifndef PL_ENGINE_ENGINE_H
#define PL_ENGINE_ENGINE_H

#include "host/engine/model.h"
#include "host/engine/placement.h"
#include "host/engine/share.h"
#include "host/engine/soft_rows.h"
#include "host/engine/step.h"
#include "host/engine/tp.h"

#include <pthread.h>

typedef struct pl_towers pl_towers;

struct pl_engine {
    const pl_model *model;
    const pl_config *config;
    pl_tp *ranks; /* NULL: one, whose parts these are; else they are the first one's */
    pl_backend *backend;
    pl_net *net;
    pl_ple *ple;
    pl_ple_rows ple_rows; /* what steps read of it */
    pl_kv *kv;
    pl_draws *draws; /* NULL: the host draws */
    pl_step *step;
    pl_soft_rows *soft; /* NULL, as towers: the model has none */
    pl_towers *towers;
    pl_placement placement;
    pl_timeline *timeline; /* may be NULL */
    int context, batch_rows;
    bool fast_prompts;
    double load_s;
    pthread_mutex_t lock; /* held for each step and whatever else touches kv and step */
    pthread_mutex_t turn; /* held by the next to hold it */
};

/* Who waits for the lock has it next, however soon its last holder wants it again. */
static inline void pl_engine_lock(pl_engine *e)
{
    pthread_mutex_lock(&e->turn);
    pthread_mutex_lock(&e->lock);
    pthread_mutex_unlock(&e->turn);
}

static inline void pl_engine_unlock(pl_engine *e)
{
    pthread_mutex_unlock(&e->lock);
}

/* The place of an engine among several of a process (engines.c). */
typedef struct pl_seat {
    int engines; /* that share the host's memory */
    const int
        *cpus; /* [n_cpus] its part of the processors, on so many cores, in the order in which threads take them */
    int n_cpus, cores;

    /* When the backend is there and nothing else: where the weights come from; NULL: nothing is to be said. *share is NULL
     * at first: from the file. */
    pl_status (*opened)(void *user, pl_engine *engine, const pl_share **share, pl_error *err);
    void *user;
} pl_seat;

/* pl_engine_create() for a seat; NULL: alone. On failure, too, *out is set, to be freed, or NULL. */
pl_status pl_engine_create_at(const pl_model *model, const pl_engine_params *params, const pl_seat *seat,
                              pl_engine **out, pl_error *err);

/* Checks that ids are of the model, and holds what those beyond its vocabulary stand for, behind what *holds has.
 * PL_ERR_ARGUMENT names the first that is none; `what` is what the ids are: "prompt token". */
pl_status pl_engine_hold_ids(pl_engine *e, const int32_t *ids, size_t n, const char *what, pl_soft_holds *holds,
                             pl_error *err);

#endif
