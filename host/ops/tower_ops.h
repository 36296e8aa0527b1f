/* The op table of the towers: what turns images and sound into rows of a prompt. The towers themselves
 * (host/tower/vision.c, audio.c) are walks over these, as the text model is over host/ops/ops.h.
 *
 * Conventions
 *   All values are f32. A map has its channels innermost, so that a pixel is a row, a 1 x 1 convolution a product
 *   and every norm one over rows.
 *   Ops never allocate (but for `ready`), `out` overlaps no input unless said so.
 *   A row's result never depends on how many rows there are, nor on the number of threads: bit for bit. So sound may be
 *   encoded in pieces of any length.
 *   Instruction sets differ in the last bits; docs/numerics.md bounds it.
 * Source of the formulas: timm's mobilenetv5_300m_enc, transformers' modeling_gemma3n. */
#ifndef PL_OPS_TOWER_OPS_H
#define PL_OPS_TOWER_OPS_H

#include "host/ops/ops.h"

/* A matrix made ready by the backend, in memory of the caller's. Products with it are as exact as sums in f32. */
typedef struct pl_tower_matrix {
    const char *name;
    const void *data;
    int64_t rows, cols;
    pl_dtype type; /* of what it was made from: how many parts each value has */
    size_t bytes;
} pl_tower_matrix;

typedef struct pl_map {
    float *v; /* [height][width][channels] */
    int height, width;
    int64_t channels;
} pl_map;

/* A square window that moves by `stride`; `top` rows and `left` columns of zeros stand before the map, and as many behind
 * it as the output needs. */
typedef struct pl_kernel_window {
    int size, stride, top, left;
} pl_kernel_window;

typedef enum pl_tower_act { PL_TOWER_LINEAR, PL_TOWER_RELU, PL_TOWER_SILU, PL_TOWER_GELU } pl_tower_act;

/* out = act(norm(x; weight)) * gamma * factor + residual, parts that are NULL left out (factor stands always); norm is by
 * the root of the mean square. */
typedef struct pl_tower_norm {
    const float *weight;   /* [cols]; NULL: ones */
    const float *gamma;    /* [cols] */
    const float *residual; /* [n][cols]; may be out */
    float eps, factor;
    pl_tower_act act;
} pl_tower_norm;

typedef struct pl_tower_ops {
    /* Bytes that `ready` will take for a matrix of this size and type. */
    size_t (*ready_bytes)(int64_t rows, int64_t cols, pl_dtype type);

    /* Puts t, plain or of blocks, into the backend's layout at dst. PL_ERR_FORMAT names the first row with a value that is
     * not finite. For values made by ops: t->type PL_F32, name for messages. */
    pl_status (*ready)(pl_stream *s, const pl_tensor *t, void *dst, pl_tower_matrix *out, pl_error *err);

    /* out[i] = W x[i] for n rows; x: [n][ld_x], out: [n][ld_out] */
    void (*product)(pl_stream *s, float *out, int64_t ld_out, const float *x, int64_t ld_x, int64_t n,
                    const pl_tower_matrix *w);

    /* Dense convolution; w: [out.channels][size][size][in.channels]. */
    void (*convolve)(pl_stream *s, pl_map out, pl_map in, const pl_tower_matrix *w, pl_kernel_window window);

    /* Each channel by itself; w: [size][size][channels]. */
    void (*depthwise)(pl_stream *s, pl_map out, pl_map in, const float *w, pl_kernel_window window);

    /* n rows of cols values; out may be x. */
    void (*norm)(pl_stream *s, float *out, const float *x, int64_t n, int64_t cols, const pl_tower_norm *norm);
} pl_tower_ops;

#endif
