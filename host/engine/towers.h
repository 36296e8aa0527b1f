/* The towers of an engine, which turn images and sound into rows of a prompt: loaded when they are needed first, given up
 * when they have not been for some time.
 *
 * They run on the engine's backend, between its steps, or where that has no ops for them on a backend of their own on the
 * CPU, beside the steps. Thread-safe; one tower computes at a time. */
#ifndef PL_ENGINE_TOWERS_H
#define PL_ENGINE_TOWERS_H

#include "host/engine/engine.h"
#include "host/media/mel.h"
#include "host/tower/audio.h"
#include "host/tower/vision.h"

#define PL_TOWERS_KEEP_S 300

/* Borrows the engine, of which backend and net are there. keep_s: as of pl_engine_params. */
pl_status pl_towers_create(pl_engine *e, double keep_s, pl_towers **out, pl_error *err);
void pl_towers_free(pl_towers *t);

/* The rows of the ids of their own: [*n][text hidden], free(); *first is the first of them. */
pl_status pl_towers_hard_rows(pl_towers *t, float **rows, int32_t *first, int32_t *n, pl_error *err);

/* Who is asked between pieces of the work, loading included, whether it should end; all zero, or NULL: nobody. */
typedef struct pl_tower_asker {
    bool (*stop)(void *user);
    void *user;
} pl_tower_asker;

/* rgb: [side][side][3]; rows: [grid * grid][text hidden]. PL_ERR_CANCELLED: stop said so. */
pl_status pl_towers_see(pl_towers *t, const uint8_t *rgb, int side, const pl_tower_asker *asker, float *rows,
                        pl_error *err);

/* Sound as it comes. The tower stays as long as there is one. */
typedef struct pl_ear pl_ear;

/* asker: while the tower is loaded. */
pl_status pl_ear_create(pl_towers *t, const pl_tower_asker *asker, pl_ear **out, pl_error *err);
void pl_ear_free(pl_ear *ear);

/* All samples of the clip so far, those of the calls before at its beginning; last: there will be none. *rows [*n][text
 * hidden]: those that are final now and were not before, valid until the next call. */
pl_status pl_ear_hear(pl_ear *ear, const float *samples, size_t n_samples, bool last, const pl_tower_asker *asker,
                      const float **rows, int *n, pl_error *err);

/* An image or a clip was found among those that are remembered. */
void pl_towers_count_hit(pl_towers *t);

void pl_towers_describe(pl_towers *t, pl_tower_stats *out);

/* Gives up towers that nobody uses now and has for so many seconds, unless some are at work; idle_s below 0: as long as
 * keep_s says. */
void pl_towers_drop(pl_towers *t, double idle_s);

#endif
