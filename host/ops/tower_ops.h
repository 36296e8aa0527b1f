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
 * it as the output needs. A negative top leaves out rows of the map: so a convolution is made in pieces. */
typedef struct pl_kernel_window {
    int size, stride, top, left;
} pl_kernel_window;

typedef enum pl_tower_act { PL_TOWER_LINEAR, PL_TOWER_RELU, PL_TOWER_SILU, PL_TOWER_GELU } pl_tower_act;

/* out = act(norm(x; weight)) * gamma * factor + residual, parts that are NULL left out (factor stands always); norm is by
 * the root of the mean square, unless `plain`. */
typedef struct pl_tower_norm {
    const float *weight;   /* [cols]; NULL: ones */
    const float *gamma;    /* [cols] */
    const float *residual; /* [n][cols]; may be out */
    float eps, factor;
    pl_tower_act act;
    bool plain; /* no norm: act(x * weight) and so on */
} pl_tower_norm;

/* Attention of pixels, all to all: n rows of key_dim values over n_keys rows of key_dim and of value_dim. Heads that
 * share keys and values are so many more queries. */
typedef struct pl_pixel_attention {
    const float *q, *k, *v; /* [n][key_dim], [n_keys][key_dim], [n_keys][value_dim] */
    int64_t n, n_keys;
    int key_dim, value_dim;
    float scale; /* of the scores */
} pl_pixel_attention;

/* Attention of steps in time, each to itself and those `reach` - 1 before it. A score is
 *   cap * tanh((scale * q) . (k + position[steps back]) / cap) */
typedef struct pl_tower_look_back {
    const float *q;        /* [n][cols] */
    const float *k, *v;    /* [reach - 1 + n][cols]: the steps before stand first */
    const float *scale;    /* [cols / heads] */
    const float *position; /* [reach][cols] */
    int64_t cols;
    int heads, reach; /* reach: at most PL_TOWER_MOST_REACH */
    int before;       /* how many of the reach - 1 steps before there are: the last ones */
    float cap;
} pl_tower_look_back;

#define PL_TOWER_MOST_REACH 32

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

    /* out: [n][value_dim]; scratch: attend_bytes(), on 64 bytes. */
    size_t (*attend_bytes)(pl_stream *s, int64_t n_keys, int key_dim, int value_dim);
    void (*attend)(pl_stream *s, float *out, const pl_pixel_attention *a, void *scratch);

    /* The pixels of an image as four channels: red, green, blue / 255, and 1, where a bias comes in. rgb: of the host. */
    void (*pixels)(pl_stream *s, pl_map out, const uint8_t *rgb);

    /* out = a's channels, then b's; b is enlarged to a's size by its nearest pixels. */
    void (*join)(pl_stream *s, pl_map out, pl_map a, pl_map b);

    /* To another size: where both sides are whole multiples the mean of each block, else bilinear between the pixels'
     * centres, without antialiasing. */
    void (*pool)(pl_stream *s, pl_map out, pl_map in);

    /* out = x cut to [-limit, limit]; out may be x. */
    void (*clip)(pl_stream *s, float *out, const float *x, int64_t n, int64_t cols, float limit);

    /* x = x * sigmoid(x) */
    void (*silu)(pl_stream *s, float *x, int64_t n, int64_t cols);

    /* x += y */
    void (*add)(pl_stream *s, float *x, const float *y, int64_t n, int64_t cols);

    /* out = x[.. cols) * sigmoid(x[cols .. 2 cols)); x: [n][2 cols] */
    void (*gate)(pl_stream *s, float *out, const float *x, int64_t n, int64_t cols);

    /* Each column by itself over time: out[i] = sum of w[j] x[i + j], j < size; x: [size - 1 + n][cols], the steps before
     * stand first; w: [size][cols]. */
    void (*convolve_back)(pl_stream *s, float *out, const float *x, int64_t n, int64_t cols, const float *w, int size);

    void (*attend_back)(pl_stream *s, float *out, int64_t n, const pl_tower_look_back *a);

    /* x = relu((x - mean) / sqrt(variance + eps) * weight[channel]), of steps of `cols` values, channels innermost. The mean
     * is that of all steps so far; the variance, too, but of each step's values about the mean that was known then.
     * sums: [n + 1][2]; [0]: what the `before` steps have summed, of values and of squares; [i + 1]: up to step i. */
    void (*running_norm)(pl_stream *s, float *x, int64_t n, int64_t cols, const float *weight, int64_t channels,
                         float eps, double (*sums)[2], int64_t before);
} pl_tower_ops;

#endif
