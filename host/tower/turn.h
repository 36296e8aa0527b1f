/* Work in pieces, so that the steps of answers come between: a tower calls `begin` before each piece, some milliseconds
 * long, and `end` after it. While a tower is loaded, a piece is a matrix that is made ready. */
#ifndef PL_TOWER_TURN_H
#define PL_TOWER_TURN_H

#include "host/base/status.h"

typedef struct pl_tower_turn {
    pl_status (*begin)(void *user, pl_error *err); /* not PL_OK (cancelled, say): the tower stops with it */
    void (*end)(void *user);
    void *user;
} pl_tower_turn;

/* Of a turn that may be NULL. */
static inline pl_status pl_tower_turn_begin(const pl_tower_turn *turn, pl_error *err)
{
    return turn ? turn->begin(turn->user, err) : PL_OK;
}

static inline void pl_tower_turn_end(const pl_tower_turn *turn)
{
    if (turn)
        turn->end(turn->user);
}

/* What a tower computed on the way, by the reference's names; [rows][cols] f32. For checks against goldens. */
typedef void (*pl_tower_show_fn)(void *user, const char *name, const float *v, int64_t rows, int64_t cols);

typedef struct pl_tower_show {
    pl_tower_show_fn show; /* NULL: nobody looks */
    void *user;
} pl_tower_show;

#endif
