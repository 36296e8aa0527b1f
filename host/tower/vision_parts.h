/* The vision tower's inside: its structure, as the tensors state it, and its weights in the backend's memory. */
#ifndef PL_TOWER_VISION_PARTS_H
#define PL_TOWER_VISION_PARTS_H

#include "host/base/arena.h"
#include "host/tower/vision.h"

/* A convolution of each channel by itself, then a norm. size 0: there is none. */
typedef struct pl_vision_depthwise {
    const float *w;    /* [size][size][channels] */
    const float *norm; /* [channels] */
    int size, stride;
} pl_vision_depthwise;

/* Pixels that look at all pixels; all heads share keys and values. */
typedef struct pl_vision_attention {
    pl_tower_matrix query, key, value, output;
    pl_vision_depthwise key_down, value_down;
    int heads, key_dim, value_dim;
} pl_vision_attention;

/* An edge residual or an inverted bottleneck
 *     [start] -> first (size x size), norm, GELU -> [mid, GELU] -> last, norm, gamma -> + input
 * or an attention block
 *     norm -> attention -> gamma -> + input */
typedef struct pl_vision_block {
    int stage, index;
    bool attends, residual;
    int64_t in, hidden, out; /* channels; hidden: between first and last */
    int size, stride;        /* of first: its window; of the block: 1 or 2 */
    pl_vision_depthwise start, mid;
    pl_tower_matrix first, last;
    const float *first_norm, *last_norm;
    const float *gamma; /* [out] or NULL */
    const float *norm;  /* of an attention block: [in] */
    pl_vision_attention attention;
} pl_vision_block;

typedef struct pl_vision_weights {
    int64_t stem_channels;
    int stem_size;
    pl_tower_matrix stem; /* over red, green, blue and 1 */
    const float *stem_norm;
    pl_vision_block *blocks;
    int n_blocks;
    int n_stages;   /* the output of the last two is joined */
    int64_t fine;   /* channels of the last stage but one */
    int64_t coarse; /* of the last one */
    int64_t joined; /* the adapter's inner channels */
    int64_t hidden; /* of the output */
    pl_tower_matrix join_first, join_last;
    const float *join_first_norm, *join_last_norm, *out_norm;
    void *memory; /* of the backend */
    size_t bytes;
    pl_arena *arena;
} pl_vision_weights;

pl_status pl_vision_weights_load(const pl_tower_source *source, pl_backend *backend, const pl_tower_turn *turn,
                                 pl_vision_weights *out, pl_error *err);
void pl_vision_weights_free(pl_vision_weights *weights, pl_backend *backend);

/* Where in its work memory, counted in floats, an image of a side has what. */
typedef struct pl_vision_plan {
    int side;
    size_t stream[2];   /* the map that blocks work on: until the last stage but one, in the last one */
    size_t wide, other; /* between their parts */
    size_t small;       /* of attention: keys, values and what they come from */
    size_t scratch;     /* of attention */
    size_t total;
} pl_vision_plan;

void pl_vision_plan_make(const pl_vision_weights *weights, pl_backend *backend, int side, int grid,
                         pl_vision_plan *out);

/* Of a convolution with TensorFlow's "same" padding: the smaller half of what is missing stands before. */
pl_kernel_window pl_vision_window(int side, int size, int stride);
static inline int pl_vision_side(int side, int stride)
{
    return (side + stride - 1) / stride;
}

#endif
