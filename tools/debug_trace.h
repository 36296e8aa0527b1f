/* The tensors that a session shows while it runs, put together over its steps. */
#ifndef PL_TOOLS_DEBUG_TRACE_H
#define PL_TOOLS_DEBUG_TRACE_H

#include "host/engine/trace.h"
#include "host/model/safetensors_writer.h"

typedef struct pl_debug_tensor {
    char *name;
    float *v; /* [rows][streams][width]: in the order of arrival */
    int streams, n_shape;
    int64_t rows, room, width, shape[2];
} pl_debug_tensor;

typedef struct pl_debug_trace {
    pl_debug_tensor *tensors;
    size_t n, capacity;
    pl_error error; /* the first thing that went wrong; status PL_OK: nothing */
} pl_debug_trace;   /* all zero: empty */

/* A pl_trace_fn; user: pl_debug_trace. */
void pl_debug_trace_take(void *user, const pl_trace_tensor *tensor);
void pl_debug_trace_free(pl_debug_trace *trace);

/* Tensor i as it is written, streams outermost: rearranges it. Borrows from the trace. */
pl_status pl_debug_trace_finish(pl_debug_trace *trace, size_t i, pl_out_tensor *out, pl_error *err);

#endif
