#include "host/tower/audio_parts.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#define NAME_BYTES 128

/* Goes through all weights twice: to count bytes, and to fill them. */
typedef struct loader {
    pl_audio *audio;
    const pl_tower_source *source;
    const pl_tower_turn *turn;
    pl_audio_cutter to;
    float *values, *turned; /* room for the longest vector or convolution */
    char prefix[NAME_BYTES];
    pl_error *err;
} loader;

static const char *full_name(const loader *l, const char *name, char out[2 * NAME_BYTES])
{
    snprintf(out, 2 * NAME_BYTES, "%s%s", l->prefix, name);
    return out;
}

static pl_status ready(loader *l, const pl_tensor *t, pl_tower_matrix *out)
{
    const pl_backend *b = l->audio->backend;
    void *dst = pl_audio_cut(&l->to, b->tower->ready_bytes(t->rows, t->cols, t->type));
    *out = (pl_tower_matrix){.rows = t->rows, .cols = t->cols};
    if (!dst)
        return PL_OK;
    PL_TRY(pl_tower_turn_begin(l->turn, l->err));
    pl_status status = b->tower->ready(b->stream, t, dst, out, l->err);
    pl_tower_turn_end(l->turn);
    return status;
}

static pl_status load_matrix(loader *l, const char *name, int64_t rows, int64_t cols, pl_tower_matrix *out)
{
    char full[2 * NAME_BYTES];
    pl_tensor t = {0};
    PL_TRY(pl_tower_source_matrix(l->source, full_name(l, name, full), rows, cols, &t, l->err));
    PL_TRY(ready(l, &t, out));
    if (l->to.memory)
        pl_tower_source_drop(l->source, &t);
    return PL_OK;
}

/* The values of a tensor into l->values, unless they are only counted. */
static pl_status read_values(loader *l, const char *name, int64_t n)
{
    char full[2 * NAME_BYTES];
    return l->to.memory ? pl_tower_source_vector(l->source, full_name(l, name, full), n, l->values, l->err) : PL_OK;
}

static const float *keep_values(loader *l, const float *values, int64_t n)
{
    float *dst = pl_audio_cut_rows(&l->to, 1, n);
    if (dst)
        l->audio->backend->upload(l->audio->backend->stream, dst, values, (size_t)n * sizeof *values);
    return dst;
}

static pl_status load_vector(loader *l, const char *name, int64_t n, const float **out)
{
    PL_TRY(read_values(l, name, n));
    *out = keep_values(l, l->values, n);
    return PL_OK;
}

/* [out][in][3][3] to [out][3][3][in] */
static pl_status load_convolution(loader *l, const char *name, int64_t n_out, int64_t n_in, pl_tower_matrix *out)
{
    PL_TRY(read_values(l, name, n_out * n_in * 9));
    if (l->to.memory)
        for (int64_t o = 0; o < n_out; o++)
            for (int64_t i = 0; i < n_in; i++)
                for (int64_t k = 0; k < 9; k++)
                    l->turned[(o * 9 + k) * n_in + i] = l->values[(o * n_in + i) * 9 + k];
    pl_tensor t = {name, l->turned, n_out, n_in * 9, PL_F32};
    return ready(l, &t, out);
}

/* [H][1][kernel] to [kernel][H] */
static pl_status load_light_convolution(loader *l, const float **out)
{
    int64_t hidden = l->audio->config.hidden, kernel = l->audio->config.kernel;
    PL_TRY(read_values(l, "lconv1d.depthwise_conv1d.weight", hidden * kernel));
    if (l->to.memory)
        for (int64_t c = 0; c < hidden; c++)
            for (int64_t k = 0; k < kernel; k++)
                l->turned[k * hidden + c] = l->values[c * kernel + k];
    *out = keep_values(l, l->turned, hidden * kernel);
    return PL_OK;
}

/* softplus(w) / softplus(0) / sqrt(values of a head) */
static pl_status load_scale(loader *l, const float **out)
{
    int64_t n = l->audio->config.hidden / l->audio->config.heads;
    PL_TRY(read_values(l, "attention.attn.per_dim_scale", n));
    if (l->to.memory)
        for (int64_t i = 0; i < n; i++) {
            double w = l->values[i], softplus = w > 0 ? w + log1p(exp(-w)) : log1p(exp(w));
            l->values[i] = (float)(softplus / M_LN2 / sqrt((double)n));
        }
    *out = keep_values(l, l->values, n);
    return PL_OK;
}

/* Sines of all frequencies, then cosines, for 0, 1, ... steps back. */
static void make_signals(float *out, int reach, int64_t hidden)
{
    int64_t n = hidden / 2;
    for (int back = 0; back < reach; back++)
        for (int64_t i = 0; i < n; i++) {
            float turn = (float)back * (float)exp(-(double)i * log(1e4) / (double)(n > 1 ? n - 1 : 1));
            out[back * hidden + i] = (float)sin(turn);
            out[back * hidden + n + i] = (float)cos(turn);
        }
}

/* The signals through a projection, which serves no more after that. */
static pl_status project_signals(loader *l, const pl_tensor *projection, float *out)
{
    pl_backend *b = l->audio->backend;
    int64_t hidden = l->audio->config.hidden;
    int reach = l->audio->config.left;
    pl_tower_matrix w;
    size_t ready_bytes = (b->tower->ready_bytes(hidden, hidden, projection->type) + 63) / 64 * 64;
    size_t signal_bytes = (size_t)reach * (size_t)hidden * sizeof(float), bytes = ready_bytes + signal_bytes;
    PL_TRY(pl_tower_turn_begin(l->turn, l->err));
    unsigned char *memory = b->memory_take(b, bytes);
    pl_status status = memory ? b->tower->ready(b->stream, projection, memory, &w, l->err)
                              : pl_backend_fail_memory(b, bytes, "the audio tower's positions", l->err);
    if (status == PL_OK) {
        float *signals = (float *)(memory + ready_bytes);
        make_signals(l->turned, reach, hidden);
        b->upload(b->stream, signals, l->turned, signal_bytes);
        b->tower->product(b->stream, out, hidden, signals, hidden, reach, &w);
        status = b->fetch(b->stream, NULL, 0, NULL, l->err);
        pl_tower_source_drop(l->source, projection);
    }
    b->memory_give(b, memory, bytes);
    pl_tower_turn_end(l->turn);
    return status;
}

static pl_status load_positions(loader *l, const float **out)
{
    char full[2 * NAME_BYTES];
    int64_t hidden = l->audio->config.hidden;
    pl_tensor t = {0};
    PL_TRY(pl_tower_source_matrix(l->source,
                                  full_name(l, "attention.attn.relative_position_embedding.pos_proj.weight", full),
                                  hidden, hidden, &t, l->err));
    float *dst = pl_audio_cut_rows(&l->to, l->audio->config.left, hidden);
    *out = dst;
    return dst ? project_signals(l, &t, dst) : PL_OK;
}

static pl_status load_ffw(loader *l, const char *which, pl_audio_ffw *w)
{
    int64_t hidden = l->audio->config.hidden;
    char name[4][NAME_BYTES];
    static const char *const parts[] = {"pre_layer_norm", "ffw_layer_1", "ffw_layer_2", "post_layer_norm"};
    for (int i = 0; i < 4; i++)
        snprintf(name[i], NAME_BYTES, "%s.%s.weight", which, parts[i]);
    PL_TRY(load_vector(l, name[0], hidden, &w->pre_norm));
    PL_TRY(load_matrix(l, name[1], 0, hidden, &w->up));
    PL_TRY(load_matrix(l, name[2], hidden, w->up.rows, &w->down));
    if (w->up.rows > l->audio->weights.inner)
        l->audio->weights.inner = w->up.rows;
    return load_vector(l, name[3], hidden, &w->post_norm);
}

static pl_status load_layer(loader *l, pl_audio_layer *w)
{
    int64_t hidden = l->audio->config.hidden;
    PL_TRY(load_ffw(l, "ffw_layer_start", &w->first));
    PL_TRY(load_vector(l, "attention.pre_attn_norm.weight", hidden, &w->pre_attention));
    PL_TRY(load_matrix(l, "attention.attn.q_proj.weight", hidden, hidden, &w->q));
    PL_TRY(load_matrix(l, "attention.attn.k_proj.weight", hidden, hidden, &w->k));
    PL_TRY(load_matrix(l, "attention.attn.v_proj.weight", hidden, hidden, &w->v));
    PL_TRY(load_scale(l, &w->scale));
    PL_TRY(load_positions(l, &w->position));
    PL_TRY(load_matrix(l, "attention.post.weight", hidden, hidden, &w->post));
    PL_TRY(load_vector(l, "attention.post_norm.weight", hidden, &w->post_attention));
    PL_TRY(load_vector(l, "lconv1d.pre_layer_norm.weight", hidden, &w->pre_conv));
    PL_TRY(load_matrix(l, "lconv1d.linear_start.weight", 2 * hidden, hidden, &w->start));
    PL_TRY(load_light_convolution(l, &w->conv));
    PL_TRY(load_vector(l, "lconv1d.conv_norm.weight", hidden, &w->conv_norm));
    PL_TRY(load_matrix(l, "lconv1d.linear_end.weight", hidden, hidden, &w->end));
    PL_TRY(load_ffw(l, "ffw_layer_end", &w->last));
    return load_vector(l, "norm.weight", hidden, &w->norm);
}

static pl_status load_all(loader *l)
{
    const pl_audio *audio = l->audio;
    const pl_audio_config *c = &audio->config;
    pl_audio_weights *w = &l->audio->weights;
    snprintf(l->prefix, sizeof l->prefix, "audio_tower.subsample_conv_projection.");
    PL_TRY(load_convolution(l, "conv_0.conv.weight", c->channels[0], 1, &w->conv[0]));
    PL_TRY(load_vector(l, "conv_0.norm.weight", c->channels[0], &w->conv_norm[0]));
    PL_TRY(load_convolution(l, "conv_1.conv.weight", c->channels[1], c->channels[0], &w->conv[1]));
    PL_TRY(load_vector(l, "conv_1.norm.weight", c->channels[1], &w->conv_norm[1]));
    PL_TRY(
        load_matrix(l, "input_proj_linear.weight", c->hidden, (int64_t)audio->widths[1] * c->channels[1], &w->project));
    for (int i = 0; i < c->layers; i++) {
        snprintf(l->prefix, sizeof l->prefix, "audio_tower.conformer.%d.", i);
        PL_TRY(load_layer(l, &w->layer[i]));
    }
    return PL_OK;
}

static int64_t larger(int64_t a, int64_t b)
{
    return a > b ? a : b;
}

pl_status pl_audio_weights_load(pl_audio *audio, const pl_tower_source *source, const pl_tower_turn *turn,
                                pl_error *err)
{
    const pl_audio_config *c = &audio->config;
    pl_audio_weights *w = &audio->weights;
    pl_status status = PL_OK;
    loader l = {.audio = audio, .source = source, .turn = turn, .err = err};
    int64_t longest = larger((int64_t)c->hidden * larger(c->left, c->kernel),
                             (int64_t)c->channels[1] * c->channels[0] * 9);
    longest = larger(longest, (int64_t)c->channels[0] * 9);
    l.values = malloc((size_t)longest * sizeof *l.values);
    l.turned = malloc((size_t)longest * sizeof *l.turned);
    w->layer = calloc((size_t)c->layers, sizeof *w->layer);
    if (!l.values || !l.turned || !w->layer) {
        status = pl_fail_memory(err, (size_t)longest * sizeof *l.values, "the audio tower");
        goto fail;
    }
    PL_TRY_GOTO(load_all(&l));
    w->bytes = l.to.used;
    w->memory = audio->backend->memory_take(audio->backend, w->bytes);
    if (!w->memory) {
        status = pl_backend_fail_memory(audio->backend, w->bytes, "the audio tower's weights", err);
        goto fail;
    }
    l.to = (pl_audio_cutter){.memory = w->memory};
    PL_TRY_GOTO(load_all(&l));
fail:
    free(l.values);
    free(l.turned);
    return status;
}

void pl_audio_weights_free(pl_audio *audio)
{
    audio->backend->memory_give(audio->backend, audio->weights.memory, audio->weights.bytes);
    free(audio->weights.layer);
}
