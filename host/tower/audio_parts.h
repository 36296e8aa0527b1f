/* What the files of the audio tower share. All values are the backend's and f32; H is the tower's width. */
#ifndef PL_TOWER_AUDIO_PARTS_H
#define PL_TOWER_AUDIO_PARTS_H

#include "host/tower/audio.h"

/* Frames that go through the tower together: 128 steps, whose values stay in the caches. */
#define PL_AUDIO_BATCH 512

/* Two convolutions halve time. Each output needs three inputs from the even one on, so that up to two of these wait for
 * what comes. */
#define PL_AUDIO_WAITING 2
#define PL_AUDIO_MOST_FRAMES (PL_AUDIO_BATCH + PL_AUDIO_WAITING)
#define PL_AUDIO_MOST_HALVES (PL_AUDIO_MOST_FRAMES / 2 + PL_AUDIO_WAITING)
#define PL_AUDIO_MOST_STEPS ((PL_AUDIO_MOST_HALVES + 1) / 2)

typedef struct pl_audio_ffw {
    pl_tower_matrix up, down; /* [F,H] [H,F] */
    const float *pre_norm, *post_norm;
} pl_audio_ffw;

typedef struct pl_audio_layer {
    pl_audio_ffw first, last;
    pl_tower_matrix q, k, v, post; /* [H,H] */
    pl_tower_matrix start, end;    /* [2H,H] [H,H] */
    const float *pre_attention, *post_attention, *pre_conv, *conv_norm, *norm;
    const float *scale;    /* [H / heads], of queries */
    const float *position; /* [reach][H] */
    const float *conv;     /* [kernel][H] */
} pl_audio_layer;

typedef struct pl_audio_weights {
    pl_tower_matrix conv[2]; /* [channels][3][3][channels before] */
    const float *conv_norm[2];
    pl_tower_matrix project; /* [H, widths[1] * channels[1]] */
    pl_audio_layer *layer;
    int64_t inner; /* the largest F */
    void *memory;
    size_t bytes;
} pl_audio_weights;

/* Room for one batch. K, V and the gated values stand behind those of the steps before. */
typedef struct pl_audio_work {
    float *frames, *halves, *quarters; /* before the first, second convolution, after it */
    double (*sums)[2];
    float *x, *normed, *q, *k, *v, *attended, *gated, *wide, *kept;
    void *memory;
    size_t bytes;
} pl_audio_work;

struct pl_audio {
    pl_audio_config config;
    int widths[2]; /* frequencies after each convolution */
    pl_backend *backend;
    pl_embedder *embedder;
    pl_audio_weights weights;
    pl_audio_work work;
};

/* What a layer keeps of the steps before: [reach - 1][H] twice, [kernel - 1][H] */
typedef struct pl_audio_past {
    float *k, *v, *gated;
} pl_audio_past;

struct pl_audio_stream {
    pl_audio *audio;
    int64_t heard, halves, steps; /* frames, outputs of the first convolution, of the second */
    bool ended;
    float *waiting[2]; /* inputs of each convolution that wait: [PL_AUDIO_WAITING] */
    double (*sums[2])[2];
    pl_audio_past *past; /* [layers] */
    void *memory;
    size_t bytes;
};

/* Cuts memory into aligned pieces; memory NULL: only counts. */
typedef struct pl_audio_cutter {
    unsigned char *memory;
    size_t used;
} pl_audio_cutter;

static inline void *pl_audio_cut(pl_audio_cutter *cutter, size_t bytes)
{
    void *at = cutter->memory ? cutter->memory + cutter->used : NULL;
    cutter->used += (bytes + 63) / 64 * 64;
    return at;
}

static inline float *pl_audio_cut_rows(pl_audio_cutter *cutter, int64_t rows, int64_t cols)
{
    return pl_audio_cut(cutter, (size_t)rows * (size_t)cols * sizeof(float));
}

/* audio->config, backend are set. */
pl_status pl_audio_weights_load(pl_audio *audio, const pl_tower_source *source, const pl_tower_turn *turn,
                                pl_error *err);
void pl_audio_weights_free(pl_audio *audio);

/* For `show`: "layer.3.q_proj", or the name alone where layer < 0. */
pl_status pl_audio_show(const pl_audio *audio, const pl_tower_show *show, int layer, const char *name, const float *v,
                        int64_t rows, int64_t cols, pl_error *err);

/* n steps in work.x through a layer. */
pl_status pl_audio_layer_run(pl_audio_stream *stream, int layer, int64_t n, const pl_tower_show *show, pl_error *err);

#endif
