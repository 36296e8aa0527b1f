/* One conformer layer: feed-forward, attention to the steps before, light convolution, feed-forward, norm. */
#include "host/tower/audio_parts.h"

#include <stdio.h>

typedef struct run {
    const pl_audio *audio;
    const pl_audio_work *work;
    const pl_tower_ops *ops;
    pl_stream *s;
    const pl_audio_config *config;
    int layer;
    int64_t n, hidden;
    const pl_tower_show *show;
    pl_error *err;
} run;

pl_status pl_audio_show(const pl_audio *audio, const pl_tower_show *show, int layer, const char *name, const float *v,
                        int64_t rows, int64_t cols, pl_error *err)
{
    char full[64];
    const void *here = NULL;
    if (!show || !show->show)
        return PL_OK;
    PL_TRY(audio->backend->fetch(audio->backend->stream, v, (size_t)rows * (size_t)cols * sizeof *v, &here, err));
    if (layer >= 0)
        snprintf(full, sizeof full, "layer.%d.%s", layer, name);
    else
        snprintf(full, sizeof full, "%s", name);
    show->show(show->user, full, here, rows, cols);
    return PL_OK;
}

static pl_status show_rows(const run *r, const char *name, const float *v)
{
    return pl_audio_show(r->audio, r->show, r->layer, name, v, r->n, r->hidden, r->err);
}

/* out = norm(x cut; weight) */
static void clipped_norm(const run *r, float *out, const float *x, const float *weight, pl_tower_act act)
{
    pl_tower_norm norm = {.weight = weight, .eps = r->config->eps, .factor = 1, .act = act};
    r->ops->clip(r->s, out, x, r->n, r->hidden, r->config->clip);
    r->ops->norm(r->s, out, out, r->n, r->hidden, &norm);
}

/* work.x += norm(x cut; weight) * factor */
static void add_clipped_norm(const run *r, float *x, const float *weight, float factor)
{
    pl_tower_norm norm = {.weight = weight, .residual = r->work->x, .eps = r->config->eps, .factor = factor};
    r->ops->clip(r->s, x, x, r->n, r->hidden, r->config->clip);
    r->ops->norm(r->s, r->work->x, x, r->n, r->hidden, &norm);
}

static pl_status feed_forward(const run *r, const pl_audio_ffw *w, const char *name)
{
    const pl_audio_work *m = r->work;
    int64_t inner = w->up.rows;
    clipped_norm(r, m->normed, m->x, w->pre_norm, PL_TOWER_LINEAR);
    r->ops->product(r->s, m->wide, inner, m->normed, r->hidden, r->n, &w->up);
    r->ops->silu(r->s, m->wide, r->n, inner);
    r->ops->product(r->s, m->normed, r->hidden, m->wide, inner, r->n, &w->down);
    add_clipped_norm(r, m->normed, w->post_norm, r->config->residual_weight);
    return show_rows(r, name, m->x);
}

/* Puts what is kept of the steps before in front of n new ones, and keeps the last of them all. */
static void with_past(const run *r, float *rows, float *past, int64_t kept)
{
    size_t row = (size_t)r->hidden * sizeof *rows, bytes = (size_t)kept * row;
    if (kept == 0)
        return;
    r->audio->backend->copy(r->s, rows, past, bytes);
    r->audio->backend->copy(r->s, past, rows + r->n * r->hidden, bytes);
}

static pl_status attention(const run *r, const pl_audio_layer *w, const pl_audio_past *past, int64_t steps)
{
    const pl_audio_work *m = r->work;
    int reach = r->config->left;
    int64_t before = reach - 1, hidden = r->hidden;
    float *k = m->k + before * hidden, *v = m->v + before * hidden;
    clipped_norm(r, m->normed, m->x, w->pre_attention, PL_TOWER_LINEAR);
    r->ops->product(r->s, m->q, hidden, m->normed, hidden, r->n, &w->q);
    r->ops->product(r->s, k, hidden, m->normed, hidden, r->n, &w->k);
    r->ops->product(r->s, v, hidden, m->normed, hidden, r->n, &w->v);
    PL_TRY(show_rows(r, "q_proj", m->q));
    PL_TRY(show_rows(r, "k_proj", k));
    PL_TRY(show_rows(r, "v_proj", v));
    with_past(r, m->k, past->k, before);
    with_past(r, m->v, past->v, before);
    pl_tower_look_back look = {m->q,
                               m->k,
                               m->v,
                               w->scale,
                               w->position,
                               hidden,
                               r->config->heads,
                               reach,
                               .before = (int)(steps < before ? steps : before),
                               .cap = r->config->logit_cap};
    r->ops->attend_back(r->s, m->attended, r->n, &look);
    PL_TRY(show_rows(r, "context", m->attended));
    r->ops->product(r->s, m->normed, hidden, m->attended, hidden, r->n, &w->post);
    add_clipped_norm(r, m->normed, w->post_attention, 1);
    return show_rows(r, "attention", m->x);
}

static pl_status light_convolution(const run *r, const pl_audio_layer *w, const pl_audio_past *past)
{
    const pl_audio_work *m = r->work;
    int64_t hidden = r->hidden, before = r->config->kernel - 1;
    pl_tower_norm pre = {.weight = w->pre_conv, .eps = r->config->eps, .factor = 1};
    r->ops->norm(r->s, m->normed, m->x, r->n, hidden, &pre);
    r->ops->product(r->s, m->wide, 2 * hidden, m->normed, hidden, r->n, &w->start);
    PL_TRY(pl_audio_show(r->audio, r->show, r->layer, "lconv1d.linear_start", m->wide, r->n, 2 * hidden, r->err));
    r->ops->gate(r->s, m->gated + before * hidden, m->wide, r->n, hidden);
    with_past(r, m->gated, past->gated, before);
    r->ops->convolve_back(r->s, m->normed, m->gated, r->n, hidden, w->conv, r->config->kernel);
    PL_TRY(show_rows(r, "lconv1d.depthwise", m->normed));
    clipped_norm(r, m->normed, m->normed, w->conv_norm, PL_TOWER_SILU);
    r->ops->product(r->s, m->attended, hidden, m->normed, hidden, r->n, &w->end);
    r->ops->add(r->s, m->x, m->attended, r->n, hidden);
    return show_rows(r, "lconv1d", m->x);
}

pl_status pl_audio_layer_run(pl_audio_stream *stream, int layer, int64_t n, const pl_tower_show *show, pl_error *err)
{
    const pl_audio *audio = stream->audio;
    const pl_audio_layer *w = &audio->weights.layer[layer];
    run r = {.audio = audio,
             .work = &audio->work,
             .ops = audio->backend->tower,
             .s = audio->backend->stream,
             .config = &audio->config,
             .layer = layer,
             .n = n,
             .hidden = audio->config.hidden,
             .show = show,
             .err = err};
    PL_TRY(feed_forward(&r, &w->first, "ffw_start"));
    PL_TRY(attention(&r, w, &stream->past[layer], stream->steps));
    PL_TRY(light_convolution(&r, w, &stream->past[layer]));
    PL_TRY(feed_forward(&r, &w->last, "ffw_end"));
    clipped_norm(&r, audio->work.x, audio->work.x, w->norm, PL_TOWER_LINEAR);
    return show_rows(&r, "out", audio->work.x);
}
