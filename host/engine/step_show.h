/* Shows what a step computes to those who asked: see trace.h and watch.h. Without anyone, nothing happens. */
#ifndef PL_ENGINE_STEP_SHOW_H
#define PL_ENGINE_STEP_SHOW_H

#include "host/engine/trace.h"
#include "host/engine/watch.h"
#include "host/model/path.h"
#include "host/ops/backend.h"

typedef struct pl_step_show {
    pl_backend *backend;
    pl_trace_fn trace;
    void *trace_user;
    pl_watch_fn watch;
    void *watch_user;
    const pl_path *path; /* trace: that of all rows */
    int n;               /* rows of the step */
    pl_status status;    /* the first thing that went wrong */
    pl_error *err;
} pl_step_show;

static inline bool pl_step_shown(const pl_step_show *s)
{
    return s->trace || s->watch;
}

/* All: f32 in the ops' memory. A tensor of the whole model, [n][width]. */
void pl_show(pl_step_show *s, const char *name, const float *v, int64_t width);

/* One of a layer (of the model; shown under the number that the path counts it as), [streams][n][width]; heads: how a
 * width of heads x width splits; 0: it does not. */
void pl_show_layer(pl_step_show *s, int layer, const char *what, const float *v, int streams, int64_t heads,
                   int64_t width);

/* Rows that stand ld apart. */
void pl_show_layer_rows(pl_step_show *s, int layer, const char *what, const float *v, int64_t width, int64_t ld);

/* Streams [PL_STREAMS][n][width] of the whole model. */
void pl_show_streams(pl_step_show *s, const char *name, const float *v, int64_t width);

/* Per-layer values [n][layers of the model][p], those of the layers that the path keeps, times scale. */
void pl_show_ple(pl_step_show *s, const char *name, const float *v, int n_layers, int p, float scale);

/* To be called behind a product: its operand. n_in: in the host's memory. */
void pl_show_operand(pl_step_show *s, int layer, pl_role role, int index, const pl_act *x, int n, const int32_t *n_in);

#endif
