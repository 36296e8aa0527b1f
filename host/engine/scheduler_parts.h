/* The inside of pl_scheduler.
 *
 *     submit -> incoming -> task[] -> a sequence -> rows of steps -> ended -> on_done
 *                             ^          |
 *                             +----------+  preempted
 *
 * scheduler.c is its face and its thread's loop; scheduler_task.c makes and ends requests; scheduler_room.c gives and takes
 * sequences and K/V; scheduler_path.c chooses paths; scheduler_step.c says what a step reads and tells what came of it,
 * scheduler_draft.c proposes tokens to be verified with it, scheduler_run.c runs it; scheduler_stats.c counts.
 *
 * Where the ops draw (host/ops/draw.h), they choose for every request that they can choose for; the sampler of its reply
 * follows, so that it can go on elsewhere, and the ops' one is a copy that is made when its sequence needs one. Rows of
 * both kinds go through a step together, and only the logits of the host's rows are brought to it.
 *
 * Two locks: `lock` guards what other threads touch and is never held for long; the engine's is held for a step and what
 * else touches K/V. The thread takes neither while it calls back. */
#ifndef PL_ENGINE_SCHEDULER_PARTS_H
#define PL_ENGINE_SCHEDULER_PARTS_H

#include "host/engine/draft_path.h"
#include "host/engine/elastic.h"
#include "host/engine/engine.h"
#include "host/engine/prefix.h"
#include "host/engine/reply.h"
#include "host/engine/step_plan.h"

#include <stdatomic.h>

#define PL_TASK_STRETCHES 8

/* A path that requests run on; each exists once, so that a step's rows of equal paths are seen to be so. */
typedef struct pl_lane {
    struct pl_lane *next;
    pl_path path;
    double weight;  /* bytes of weights a token reads, as a share of the whole model's */
    int32_t counts; /* index into the statistics' paths */
    int32_t users;  /* guarded by `lock` */
} pl_lane;

/* Whose turns requests share. Guarded by `lock`, but that the thread reads `served` of those that live. */
typedef struct pl_client {
    struct pl_client *next;
    uint64_t id;
    double served; /* weighted rows: a virtual clock */
    int32_t live;  /* requests */
} pl_client;

/* Tokens from `from` on are read on this lane, up to the next stretch. */
typedef struct pl_stretch {
    int32_t from;
    pl_lane *lane;
} pl_stretch;

/* A request. */
typedef struct pl_task {
    struct pl_task *next; /* among incoming ones */
    uint64_t id;
    atomic_bool cancelled;
    pl_request asked; /* its prompt, path and generation's lists are not there any more */
    pl_client *client;
    pl_lane *own_lane; /* the path asked for; NULL: "auto" */
    pl_reply *reply;   /* NULL: to embed */
    bool drawn;        /* the ops choose its tokens */
    int32_t *tokens;   /* prompt and answer */
    int32_t n_prompt, n_tokens;
    pl_soft_holds holds; /* what they stand for */
    double *sum;         /* [hidden] to embed, else NULL: of the states of the tokens held */
    float *mean;         /* likewise, in the end */

    int32_t sequence; /* -1: none */
    int32_t held;     /* tokens of which the sequence has K/V */
    int32_t furthest; /* the most that it ever held, or took over */
    pl_stretch stretch[PL_TASK_STRETCHES];
    int32_t n_stretches;  /* 0: the path is not chosen yet */
    uint64_t not_before;  /* releases that must have been before it is tried again */
    int32_t rows, wanted; /* of the step at hand; the first of its wanted rows */
    pl_draft *draft;      /* NULL: nothing is proposed */
    pl_lane *draft_lane;  /* NULL: not by a path */
    int32_t proposed;     /* the last rows of the step at hand, behind the task's tokens */
    bool sampling;        /* its sequence's draws go on from where its reply is */

    double arrived_s, started_s, first_s, last_s; /* started_s: 0 before its first step */
    int64_t last_step;
    double charge; /* weighted rows that its client has not been charged for yet */
    const char *reason;
    int32_t reused, preempted, moved;
    bool chosen; /* the step at hand gave it a token */
    bool ended;
    pl_status status;
    pl_error failure;
} pl_task;

struct pl_scheduler {
    pl_engine *engine;
    pl_prefixes *prefixes; /* NULL: nothing is kept */
    char *prefix_file;
    uint64_t fingerprint; /* of the model, where there is a file */
    uint64_t laps;        /* of the ids of images and sound, as kept prefixes know them */
    int32_t max_waiting, max_running;
    double step_s;
    double whole_bytes;   /* of weights that a token of the whole model reads */
    double prompt_weight; /* of a row that ends after the last layer with K/V, as a share of one that goes on */
    pl_lane *elastic_lane[PL_ELASTIC_PATHS];
    int32_t n_elastic;

    pthread_t thread;
    bool started;
    pthread_mutex_t lock;
    pthread_cond_t wake;

    /* ---- guarded by lock ---- */
    bool stop;
    pl_task *incoming, **incoming_end;
    int32_t n_live; /* tasks, incoming ones among them */
    uint64_t last_id, submitted, refused;
    pl_client *clients;
    pl_lane *lanes;
    pl_error lost;            /* status PL_OK as long as the engine works */
    pl_scheduler_stats shown; /* `count` as of the last step */

    /* ---- the thread's; task[] and n_tasks are changed with the lock held ---- */
    pl_task **task; /* [capacity] in order of arrival */
    int32_t n_tasks, capacity;
    int32_t n_running;
    pl_plan_item *item; /* [capacity] */
    int32_t *order;     /* [capacity] */
    pl_task **picked;   /* [capacity] of the step at hand */
    int32_t n_picked;
    bool read_last;      /* the last step was of prompts alone, though answers had rows too */
    pl_step_row *row;    /* [batch_rows] */
    pl_candidates *room; /* [threads of the pool] */
    pl_draw *sampler;    /* room for one on its way to the ops; NULL: they do not draw */
    pl_step_result *result, *next_result;
    pl_task **ahead; /* [capacity] of the step that is queued behind the one at hand */
    int32_t n_ahead; /* 0: there is none. As long as there is, nobody's sequence is taken back */
    pl_step_cost cost;
    pl_draft_sense sense;
    pl_task **proposing;       /* [capacity] answers of the step at hand that could verify something */
    pl_draft **draft;          /* [capacity] theirs */
    pl_draft_by_path *by_path; /* [capacity] */
    double equal_rows;         /* of the step at hand: as many that choose would take as long */
    pl_elastic_state elastic;
    uint64_t releases; /* of sequences so far */
    int64_t step;
    double last_end_s;                 /* of a step */
    double last_start_s, start_pace_s; /* when a request was started last; mean time between starts */
    pl_scheduler_stats count;
};

/* ---- scheduler_task.c ---- */

/* A lane for a path, which is counted as a user of it; `lock` is held. */
pl_status pl_lane_take(pl_scheduler *s, const pl_path *path, pl_lane **out, pl_error *err);
void pl_lane_drop(pl_scheduler *s, pl_lane *lane);

/* Checks a request and makes a task of it. */
pl_status pl_task_create(pl_scheduler *s, const pl_request *request, pl_task **out, pl_error *err);
void pl_task_free(pl_task *task);

/* Counts it among its client's, and no more; `lock` is held. Who leaves gives up the path as well. */
pl_status pl_task_join(pl_scheduler *s, pl_task *task, pl_error *err);
void pl_task_leave(pl_scheduler *s, pl_task *task);

/* why: NULL with PL_OK. */
void pl_task_end(pl_task *task, pl_status status, const pl_error *why);

/* Tells the caller. */
void pl_task_report(const pl_scheduler *s, const pl_task *task);

/* The lane at a position, the last one's lane, and whether all K/V are of one path. */
pl_lane *pl_task_lane(const pl_task *task, int32_t position);
static inline pl_lane *pl_task_last_lane(const pl_task *task)
{
    return task->n_stretches ? task->stretch[task->n_stretches - 1].lane : NULL;
}
/* Whether the step at hand gives it a token. */
static inline bool pl_task_chooses(const pl_task *task)
{
    return task->reply && task->held + task->rows - task->proposed == task->n_tokens;
}
static inline bool pl_task_pure(const pl_task *task)
{
    return task->n_stretches == 1;
}

/* ---- scheduler_room.c; the engine's lock is held ---- */

/* Fills item[] for the plan. */
void pl_room_describe(pl_scheduler *s);

/* Gives the i-th task a sequence, with what is kept of its beginning. False: not now. */
bool pl_room_admit(pl_scheduler *s, int32_t i, double now);

/* Makes room for the rows planned for the i-th task, taking it from others where it must. False: it has none and reads
 * nothing in this step; it may have ended. */
bool pl_room_extend(pl_scheduler *s, int32_t i);

/* Keeps what the task has read for others; with `all`, as it is about to be closed. */
void pl_room_keep(pl_scheduler *s, pl_task *task, bool all);

/* Takes back its sequence. */
void pl_room_close(pl_scheduler *s, pl_task *task);

/* Makes an empty sequence hold what is kept of the task's tokens. */
void pl_room_adopt(pl_scheduler *s, pl_task *task);

/* ---- scheduler_path.c; the engine's lock is held ---- */

/* The lanes that "auto" chooses from. */
pl_status pl_lanes_start(pl_scheduler *s, pl_error *err);

/* Once a step: the load as it is now, and moves of answers under way. */
void pl_lanes_follow(pl_scheduler *s, double now);

/* For a task that has none yet. */
void pl_lanes_choose(pl_scheduler *s, pl_task *task, double now);

/* ---- scheduler_draft.c; the engine's lock is held ---- */

pl_status pl_proposals_start(pl_scheduler *s, pl_error *err);
void pl_proposals_stop(pl_scheduler *s);

/* Adds proposals to the rows of picked[], as far as there is room that nobody else has to give up for it. */
void pl_proposals_add(pl_scheduler *s);

/* Takes a task's proposals out of the step. */
void pl_proposals_drop(pl_task *task);

/* After the step: forgets those that were not chosen. */
void pl_proposals_settle(pl_scheduler *s, pl_task *task);

/* ---- scheduler_run.c; the engine's lock is held ---- */

pl_status pl_run_start(pl_scheduler *s, pl_error *err);
void pl_run_stop(pl_scheduler *s);

/* Runs picked[], who have room for their rows. Who fails has ended, with rows of 0. */
void pl_run_picked(pl_scheduler *s);

/* Where a step is queued ahead: makes it the one at hand, for pl_run_picked(). False: there is none. */
bool pl_run_take_ahead(pl_scheduler *s);

/* Waits for it, and takes it back. */
void pl_run_drop_ahead(pl_scheduler *s);

/* ---- scheduler_step.c ---- */

/* One step for all. False: there was nothing that could be done. */
bool pl_scheduler_step(pl_scheduler *s);

/* Ends tasks that have been cancelled, or all with `why`, and reports those that have ended. */
void pl_scheduler_sweep(pl_scheduler *s, const pl_error *why);

/* ---- scheduler_stats.c ---- */

void pl_stats_add(pl_histogram *h, double seconds);
int32_t pl_stats_lane(pl_scheduler *s, pl_lane *lane);

/* Makes what has been counted visible; `lock` is held. */
void pl_stats_show(pl_scheduler *s);

#endif
