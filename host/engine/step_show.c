#include "host/engine/step_show.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* The values where the host sees them, or NULL. */
static const float *visible(pl_step_show *s, const float *v, int64_t n)
{
    const void *seen = NULL;
    if (s->status == PL_OK)
        s->status = s->backend->fetch(s->backend->stream, v, (size_t)n * sizeof *v, &seen, s->err);
    return s->status == PL_OK ? seen : NULL;
}

static float *take_work(pl_step_show *s, int64_t n)
{
    float *work = malloc((size_t)n * sizeof *work);
    if (!work && s->status == PL_OK)
        s->status = pl_fail_memory(s->err, (size_t)n * sizeof *work, "a trace");
    return work;
}

static int kept_layers(const pl_step_show *s, int below)
{
    int kept = 0;
    for (int l = 0; l < below; l++)
        kept += !s->path->skip[l];
    return kept;
}

/* v: in the host's memory; heads: how the width splits, heads x width; 0: it does not. */
static void emit(const pl_step_show *s, const char *name, const float *v, int streams, int64_t heads, int64_t width)
{
    pl_trace_tensor tensor = {
        .name = name, .v = v, .streams = streams, .rows = s->n, .width = width, .shape = {width}, .n_shape = 1};
    if (heads > 0) {
        tensor.width = heads * width;
        tensor.shape[0] = heads;
        tensor.shape[1] = width;
        tensor.n_shape = 2;
    }
    s->trace(s->trace_user, &tensor);
}

static void emit_layer(const pl_step_show *s, int layer, const char *what, const float *v, int streams, int64_t heads,
                       int64_t width)
{
    char name[64];
    snprintf(name, sizeof name, "layer.%02d.%s", kept_layers(s, layer), what);
    emit(s, name, v, streams, heads, width);
}

void pl_show(pl_step_show *s, const char *name, const float *v, int64_t width)
{
    if (!s->trace)
        return;
    const float *seen = visible(s, v, s->n * width);
    if (seen)
        emit(s, name, seen, 1, 0, width);
}

void pl_show_streams(pl_step_show *s, const char *name, const float *v, int64_t width)
{
    if (!s->trace)
        return;
    const float *seen = visible(s, v, PL_STREAMS * s->n * width);
    if (seen)
        emit(s, name, seen, PL_STREAMS, 0, width);
}

void pl_show_layer(pl_step_show *s, int layer, const char *what, const float *v, int streams, int64_t heads,
                   int64_t width)
{
    if (!s->trace)
        return;
    const float *seen = visible(s, v, streams * s->n * (heads > 0 ? heads : 1) * width);
    if (seen)
        emit_layer(s, layer, what, seen, streams, heads, width);
}

void pl_show_layer_rows(pl_step_show *s, int layer, const char *what, const float *v, int64_t width, int64_t ld)
{
    if (!s->trace)
        return;
    const float *seen = visible(s, v, (s->n - 1) * ld + width);
    float *closed = seen ? take_work(s, s->n * width) : NULL;
    if (!closed)
        return;
    for (int r = 0; r < s->n; r++)
        memcpy(closed + r * width, seen + r * ld, (size_t)width * sizeof *closed);
    emit_layer(s, layer, what, closed, 1, 0, width);
    free(closed);
}

void pl_show_ple(pl_step_show *s, const char *name, const float *v, int n_layers, int p, float scale)
{
    if (!s->trace)
        return;
    const float *seen = visible(s, v, (int64_t)s->n * n_layers * p);
    float *kept = seen ? take_work(s, (int64_t)s->n * n_layers * p) : NULL;
    if (!kept)
        return;
    int64_t at = 0;
    for (int64_t row = 0; row < s->n; row++)
        for (int l = 0; l < n_layers; l++)
            for (int i = 0; i < p && !s->path->skip[l]; i++)
                kept[at++] = seen[(row * n_layers + l) * p + i] * scale;
    emit(s, name, kept, 1, kept_layers(s, n_layers), p);
    free(kept);
}

void pl_show_operand(pl_step_show *s, int layer, pl_role role, int index, const pl_act *x, int n, const int32_t *n_in)
{
    if (!s->watch || n == 0)
        return;
    const float *seen = visible(s, x->f32, (n - 1) * x->ld + x->cols);
    if (!seen)
        return;
    pl_watch product = {role, layer, index, seen, x->ld, x->cols, n_in, n};
    s->watch(s->watch_user, &product);
}
