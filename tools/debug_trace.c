#include "tools/debug_trace.h"

#include <stdlib.h>
#include <string.h>

void pl_debug_trace_free(pl_debug_trace *trace)
{
    for (size_t i = 0; i < trace->n; i++) {
        free(trace->tensors[i].name);
        free(trace->tensors[i].v);
    }
    free(trace->tensors);
    *trace = (pl_debug_trace){.tensors = NULL};
}

static pl_debug_tensor *find(pl_debug_trace *trace, const pl_trace_tensor *t)
{
    for (size_t i = 0; i < trace->n; i++)
        if (strcmp(trace->tensors[i].name, t->name) == 0)
            return &trace->tensors[i];
    if (trace->n == trace->capacity) {
        size_t capacity = 2 * trace->capacity + 64;
        pl_debug_tensor *tensors = realloc(trace->tensors, capacity * sizeof *tensors);
        if (!tensors)
            return NULL;
        trace->tensors = tensors;
        trace->capacity = capacity;
    }
    char *name = strdup(t->name);
    if (!name)
        return NULL;
    trace->tensors[trace->n] = (pl_debug_tensor){.name = name,
                                                 .streams = t->streams,
                                                 .width = t->width,
                                                 .shape = {t->shape[0], t->shape[1]},
                                                 .n_shape = t->n_shape};
    return &trace->tensors[trace->n++];
}

static bool reserve(pl_debug_tensor *tensor, int64_t rows)
{
    if (tensor->rows + rows <= tensor->room)
        return true;
    int64_t room = 2 * tensor->room + rows;
    float *v = realloc(tensor->v, (size_t)room * (size_t)tensor->streams * (size_t)tensor->width * sizeof *v);
    if (!v)
        return false;
    tensor->v = v;
    tensor->room = room;
    return true;
}

/* Arrives as [streams][rows][width]; kept as [rows][streams][width], so that rows can be added. Rows of a path with a
 * narrower FFN are filled up with zeros. */
static void append(pl_debug_tensor *tensor, const pl_trace_tensor *t)
{
    size_t width = (size_t)tensor->width, streams = (size_t)tensor->streams, rows = (size_t)t->rows;
    size_t narrow = (size_t)t->width;
    for (size_t s = 0; s < streams; s++)
        for (size_t r = 0; r < rows; r++) {
            float *to = tensor->v + (((size_t)tensor->rows + r) * streams + s) * width;
            memcpy(to, t->v + (s * rows + r) * narrow, narrow * sizeof *to);
            memset(to + narrow, 0, (width - narrow) * sizeof *to);
        }
    tensor->rows += t->rows;
}

void pl_debug_trace_take(void *user, const pl_trace_tensor *t)
{
    pl_debug_trace *trace = user;
    if (trace->error.status != PL_OK)
        return;
    pl_debug_tensor *tensor = find(trace, t);
    if (!tensor || !reserve(tensor, t->rows))
        pl_fail_memory(&trace->error, (size_t)(t->rows * t->width) * (size_t)t->streams * sizeof *t->v, t->name);
    else if (t->width > tensor->width)
        pl_fail(&trace->error, PL_ERR_UNSUPPORTED,
                "%s is %lld wide, %lld on the path before: with all tensors a switch must not widen the path", t->name,
                (long long)t->width, (long long)tensor->width);
    else
        append(tensor, t);
}

static pl_status streams_first(pl_debug_tensor *tensor, pl_error *err)
{
    size_t width = (size_t)tensor->width, streams = (size_t)tensor->streams, rows = (size_t)tensor->rows;
    float *v = malloc(rows * streams * width * sizeof *v + 1);
    if (!v)
        return pl_fail_memory(err, rows * streams * width * sizeof *v, tensor->name);
    for (size_t r = 0; r < rows; r++)
        for (size_t s = 0; s < streams; s++)
            memcpy(v + (s * rows + r) * width, tensor->v + (r * streams + s) * width, width * sizeof *v);
    free(tensor->v);
    tensor->v = v;
    return PL_OK;
}

pl_status pl_debug_trace_finish(pl_debug_trace *trace, size_t i, pl_out_tensor *out, pl_error *err)
{
    pl_debug_tensor *tensor = &trace->tensors[i];
    *out = (pl_out_tensor){.name = tensor->name, .dtype = PL_OUT_F32};
    if (tensor->streams > 1) {
        PL_TRY(streams_first(tensor, err));
        out->dims[out->n_dims++] = tensor->streams;
    }
    out->dims[out->n_dims++] = tensor->rows;
    for (int d = 0; d < tensor->n_shape; d++)
        out->dims[out->n_dims++] = tensor->shape[d];
    if (tensor->n_shape == 0)
        out->dims[out->n_dims++] = tensor->width;
    out->data = tensor->v;
    return PL_OK;
}
