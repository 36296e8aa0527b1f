/* The model, written once: one step takes a batch of tokens, of any sequences and paths, through the layers
 * of the op table.
 *
 * Rows whose logits nobody asks for end after the last layer that owns K/V. */
#ifndef PL_ENGINE_STEP_H
#define PL_ENGINE_STEP_H

#include "host/engine/draws.h"
#include "host/engine/kv.h"
#include "host/engine/net.h"
#include "host/engine/ple.h"
#include "host/engine/soft_rows.h"
#include "host/engine/team.h"
#include "host/engine/trace.h"
#include "host/engine/watch.h"
#include "host/model/path.h"

#define PL_STEP_LOGITS 16 /* rows of logits that are held at once */

typedef struct pl_step pl_step;
typedef struct pl_step_result pl_step_result;

/* One token. Tokens of a sequence stand in order of position; room for them was made by pl_kv_extend(). */
typedef struct pl_step_row {
    int32_t token, position, sequence;
    const pl_path *path;
    bool prompt; /* read, not written: a step of such rows alone may be computed as fast_prompts says */
    bool wanted; /* its logits will be asked for */
    bool drawn;  /* the token is the one that the sequence's last draw chose; `token` is ignored */
    bool draw;   /* wanted, and draws from its logits: rows that draw stand before the other wanted ones */
    int32_t top; /* wanted: 1 to PL_HEAD_TOP, only so many of the largest logits are asked for; 0: all; PL_HEAD_GUESS */
} pl_step_row;

/* Borrows all of them. ple_rows: pl_ple_view(ple); draws may be NULL where no row draws, soft where no token is one of its. */
pl_status pl_step_create(const pl_net *net, pl_kv *kv, pl_ple *ple, const pl_ple_rows *ple_rows, pl_draws *draws,
                         pl_soft_rows *soft, int max_rows, pl_step **out, pl_error *err);
void pl_step_free(pl_step *t);

/* The step of a rank (of net's shard) computes together with the others through its end of their comm; with any of them the
 * K/V are the same. The first rank's runs them all: team, and the steps of the ranks from 1 on; NULL for those. Borrows all.
 * Only the first has logits, and only it brings rows of per-layer embeddings where they are read from one place (ple NULL).
 * Nobody can watch or trace it: no rank has all that would be shown. */
void pl_step_share(pl_step *t, pl_comm *comm, pl_team *team, pl_step *const *others);

/* Bytes of work memory that pl_step_create() takes; wide: on a backend with wide_acts. */
size_t pl_step_bytes(const pl_config *config, int max_rows, bool wide);

/* Who sees the products of the runs from now on (see watch.h); NULL: nobody. Every row must be wanted then. */
void pl_step_watch(pl_step *t, pl_watch_fn watch, void *user);

/* Runs 1 to max_rows rows. trace may be NULL; with one, every row must be wanted, and all
 * on one path. Allocates nothing. */
pl_status pl_step_run(pl_step *t, const pl_step_row *rows, int n, pl_trace_fn trace, void *trace_user, pl_error *err);

/* The same in two halves, nobody watching: queues a step and waits for it. A result serves one step at a time; any
 * number of steps may be queued, each with a result of its own. */
pl_status pl_step_queue(pl_step *t, const pl_step_row *rows, int n, pl_step_result *result, pl_error *err);
pl_status pl_step_wait(pl_step_result *result, pl_error *err);

/* After the wait: the token that the wanted row i drew, or PL_DRAW_... */
int32_t pl_step_drawn(const pl_step_result *result, int i);

pl_status pl_step_result_create(pl_step *t, pl_step_result **out, pl_error *err);
void pl_step_result_free(pl_step_result *result);

/* Logits of the wanted rows [first, first + n) of the last run, counted among wanted rows in the order given; n at
 * most PL_STEP_LOGITS. *logits: f32 [n][vocab], valid until the next call; -FLT_MAX stands for what a row with a `top` did
 * not ask for. */
pl_status pl_step_logits(pl_step *t, int first, int n, const float **logits, pl_error *err);

/* What the head reads for any number of them: *states: f32 [n][hidden], valid until the next call of this or the above. */
pl_status pl_step_hidden(pl_step *t, int first, int n, const float **states, pl_error *err);

#endif
