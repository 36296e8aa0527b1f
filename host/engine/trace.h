/* A look inside the model as it runs, for `pleiad debug logits --all-tensors` and tests. */
#ifndef PL_ENGINE_TRACE_H
#define PL_ENGINE_TRACE_H

#include "host/base/status.h"

/* One tensor of one step: f32 [streams][rows][width], `streams` 1 for all but the four-stream tensors; rows
 * follow those of earlier steps. Names are those of the goldens: "embeds", "layer.04.mlp_act" ... Layers are
 * numbered as the path counts them: one that it skips has no number. shape: how `width` splits, e.g. heads x
 * head_dim ({8, 256}, 2). */
typedef struct pl_trace_tensor {
    const char *name;
    const float *v;
    int streams; /* 1, or 4 where the tensor has a leading streams axis */
    int64_t rows;
    int64_t width;
    int64_t shape[2];
    int n_shape;
} pl_trace_tensor;

typedef void (*pl_trace_fn)(void *user, const pl_trace_tensor *tensor);

/* From now on each step of this session shows its tensors to fn; NULL: no more. Rows run to the end even
 * where nobody asks for logits. Slow. */
void pl_session_trace(pl_session *session, pl_trace_fn fn, void *user);

#endif
