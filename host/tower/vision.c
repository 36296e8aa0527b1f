#include "host/tower/vision.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "host/tower/vision_parts.h"

#define MOST_SIDE 2048
#define TOWER_EPS 1e-6f /* of the tower's norms, in no configuration */

/* A turn's product has so many operations for each thread, about three milliseconds, but at least so many rows. */
#define TURN_OPS 300000000
#define TURN_ROWS 192
#define EXP_OPS 40 /* what an exponential takes */

struct pl_vision {
    pl_backend *backend;
    pl_vision_weights weights;
    pl_embedder *embedder;
    int grid;
    pl_vision_plan plan; /* of the last image; side 0: none yet */
    float *work;
};

/* One image on its way. */
typedef struct walk {
    const pl_vision *v;
    const pl_tower_ops *ops;
    pl_stream *s;
    const pl_tower_turn *turn;
    const pl_tower_show *show;
    const pl_vision_block *block;
    bool inside; /* of a turn */
    pl_map x;    /* what the blocks work on */
    pl_error *err;
} walk;

static pl_status begin_turn(walk *w)
{
    PL_TRY(pl_tower_turn_begin(w->turn, w->err));
    w->inside = true;
    return PL_OK;
}

static void end_turn(walk *w)
{
    if (w->inside)
        pl_tower_turn_end(w->turn);
    w->inside = false;
}

static pl_status next_turn(walk *w)
{
    end_turn(w);
    return begin_turn(w);
}

static pl_status show_as(walk *w, const char *name, pl_map m)
{
    if (!w->show || !w->show->show)
        return PL_OK;
    const pl_backend *b = w->v->backend;
    int64_t rows = (int64_t)m.height * m.width;
    const void *values = NULL;
    PL_TRY(b->fetch(w->s, m.v, (size_t)(rows * m.channels) * sizeof(float), &values, w->err));
    w->show->show(w->show->user, name, values, rows, m.channels);
    return PL_OK;
}

static pl_status show_part(walk *w, const char *part, pl_map m)
{
    char name[64];
    snprintf(name, sizeof name, "block.%d.%d%s", w->block->stage, w->block->index, part);
    return show_as(w, name, m);
}

static pl_map map_at(const walk *w, size_t at, int side, int64_t channels)
{
    return (pl_map){w->v->work + at, side, side, channels};
}

static pl_map map_lines(pl_map m, int y, int n)
{
    return (pl_map){m.v + (int64_t)y * m.width * m.channels, n, m.width, m.channels};
}

/* out = act(norm(x)), over x where it stands */
static void norm_in_place(walk *w, pl_map m, const float *weight, pl_tower_act act)
{
    pl_tower_norm norm = {.weight = weight, .eps = TOWER_EPS, .factor = 1, .act = act};
    w->ops->norm(w->s, m.v, m.v, (int64_t)m.height * m.width, m.channels, &norm);
}

static int64_t rows_at_once(const walk *w, int64_t ops_a_row)
{
    int64_t threads = pl_pool_threads(w->v->backend->pool), rows = TURN_OPS * threads / ops_a_row;
    return rows > TURN_ROWS * threads ? rows : TURN_ROWS * threads;
}

static pl_status product(walk *w, pl_map out, pl_map in, const pl_tower_matrix *matrix)
{
    int64_t n = (int64_t)in.height * in.width, step = rows_at_once(w, 2 * matrix->rows * matrix->cols);
    for (int64_t i = 0; i < n; i += step) {
        if (i > 0)
            PL_TRY(next_turn(w));
        w->ops->product(w->s, out.v + i * out.channels, out.channels, in.v + i * in.channels, in.channels,
                        n - i < step ? n - i : step, matrix);
    }
    return PL_OK;
}

static pl_status convolve(walk *w, pl_map out, pl_map in, const pl_tower_matrix *matrix, pl_kernel_window window)
{
    int64_t lines = rows_at_once(w, 2 * matrix->rows * matrix->cols) / out.width;
    int step = lines < 1 ? 1 : lines < out.height ? (int)lines : out.height, top = window.top;
    for (int y = 0; y < out.height; y += step) {
        pl_map part = map_lines(out, y, out.height - y < step ? out.height - y : step);
        window.top = top - y * window.stride;
        if (y > 0)
            PL_TRY(next_turn(w));
        w->ops->convolve(w->s, part, in, matrix, window);
    }
    return PL_OK;
}

static pl_map depthwise(walk *w, size_t at, pl_map in, const pl_vision_depthwise *d, pl_tower_act act)
{
    pl_map out = map_at(w, at, pl_vision_side(in.height, d->stride), in.channels);
    w->ops->depthwise(w->s, out, in, d->w, pl_vision_window(in.height, d->size, d->stride));
    norm_in_place(w, out, d->norm, act);
    return out;
}

/* ---- blocks ---- */

static pl_status convolutions(walk *w)
{
    const pl_vision_block *b = w->block;
    const pl_vision_plan *p = &w->v->plan;
    pl_map in = w->x, mid;
    if (b->start.size)
        in = depthwise(w, p->other, in, &b->start, PL_TOWER_LINEAR);
    if (b->size > 1) {
        mid = map_at(w, p->wide, pl_vision_side(in.height, b->stride), b->hidden);
        PL_TRY(convolve(w, mid, in, &b->first, pl_vision_window(in.height, b->size, b->stride)));
    } else {
        mid = map_at(w, p->wide, in.height, b->hidden);
        PL_TRY(product(w, mid, in, &b->first));
    }
    PL_TRY(next_turn(w));
    norm_in_place(w, mid, b->first_norm, PL_TOWER_GELU);
    if (b->mid.size)
        mid = depthwise(w, p->other, mid, &b->mid, PL_TOWER_GELU);
    pl_map last = map_at(w, b->mid.size ? p->wide : p->other, mid.height, b->out);
    PL_TRY(next_turn(w));
    PL_TRY(product(w, last, mid, &b->last));
    pl_map out = map_at(w, p->stream[b->stage == w->v->weights.n_stages - 1], last.height, b->out);
    pl_tower_norm norm = {.weight = b->last_norm,
                          .gamma = b->gamma,
                          .residual = b->residual ? w->x.v : NULL,
                          .eps = TOWER_EPS,
                          .factor = 1};
    w->ops->norm(w->s, out.v, last.v, (int64_t)out.height * out.width, b->out, &norm);
    w->x = out;
    return PL_OK;
}

static size_t on_16(size_t floats)
{
    return (floats + 15) / 16 * 16;
}

/* Keys or values, at `at`. */
static pl_status project(walk *w, const char *which, pl_map in, const pl_vision_depthwise *down,
                         const pl_tower_matrix *matrix, size_t at, pl_map *out)
{
    char part[32];
    if (down->size) {
        in = depthwise(w, w->v->plan.small, in, down, PL_TOWER_LINEAR);
        snprintf(part, sizeof part, ".%s.norm", which);
        PL_TRY(show_part(w, part, in));
    }
    *out = map_at(w, at, in.height, matrix->rows);
    PL_TRY(product(w, *out, in, matrix));
    snprintf(part, sizeof part, ".%s.proj", which);
    return show_part(w, part, *out);
}

static pl_status attend(walk *w, pl_map out, pl_map q, pl_map k, pl_map v)
{
    const pl_vision_attention *a = &w->block->attention;
    int64_t keys = (int64_t)k.height * k.width, n = (int64_t)q.height * q.width * a->heads;
    int64_t step = rows_at_once(w, keys * (2 * (a->key_dim + a->value_dim) + EXP_OPS));
    for (int64_t i = 0; i < n; i += step) {
        pl_pixel_attention job = {.q = q.v + i * a->key_dim,
                                  .k = k.v,
                                  .v = v.v,
                                  .n = n - i < step ? n - i : step,
                                  .n_keys = keys,
                                  .key_dim = a->key_dim,
                                  .value_dim = a->value_dim,
                                  .scale = 1.0f / sqrtf((float)a->key_dim)};
        if (i > 0)
            PL_TRY(next_turn(w));
        w->ops->attend(w->s, out.v + i * a->value_dim, &job, w->v->work + w->v->plan.scratch);
    }
    return PL_OK;
}

static pl_status attention(walk *w)
{
    const pl_vision_block *b = w->block;
    const pl_vision_attention *a = &b->attention;
    const pl_vision_plan *p = &w->v->plan;
    int side = w->x.height, keys_side = a->key_down.size ? pl_vision_side(side, a->key_down.stride) : side;
    size_t keys = (size_t)keys_side * (size_t)keys_side, at_k = p->small + on_16(keys * (size_t)b->in);
    size_t at_v = at_k + on_16(keys * (size_t)a->key_dim);
    pl_map in = map_at(w, p->other, side, b->in), q = map_at(w, p->wide, side, (int64_t)a->heads * a->key_dim), k, v;
    pl_tower_norm norm = {.weight = b->norm, .eps = TOWER_EPS, .factor = 1};
    w->ops->norm(w->s, in.v, w->x.v, (int64_t)side * side, b->in, &norm);
    PL_TRY(show_part(w, ".norm", in));
    PL_TRY(product(w, q, in, &a->query));
    PL_TRY(show_part(w, ".query.proj", q));
    PL_TRY(project(w, "key", in, &a->key_down, &a->key, at_k, &k));
    PL_TRY(project(w, "value", in, &a->value_down, &a->value, at_v, &v));
    PL_TRY(next_turn(w));
    pl_map seen = map_at(w, p->other, side, (int64_t)a->heads * a->value_dim);
    PL_TRY(attend(w, seen, q, k, v));
    PL_TRY(show_part(w, ".attn_values", seen));
    pl_map out = map_at(w, p->wide, side, b->out);
    PL_TRY(next_turn(w));
    PL_TRY(product(w, out, seen, &a->output));
    PL_TRY(show_part(w, ".output.proj", out));
    norm = (pl_tower_norm){.gamma = b->gamma, .residual = w->x.v, .factor = 1, .plain = true};
    w->ops->norm(w->s, w->x.v, out.v, (int64_t)side * side, b->out, &norm);
    return PL_OK;
}

/* ---- the whole ---- */

static pl_status stem(walk *w, const uint8_t *rgb)
{
    const pl_vision_weights *weights = &w->v->weights;
    const pl_vision_plan *p = &w->v->plan;
    pl_map in = map_at(w, p->wide, p->side, 4);
    w->x = map_at(w, p->stream[0], pl_vision_side(p->side, 2), weights->stem_channels);
    w->ops->pixels(w->s, in, rgb);
    PL_TRY(convolve(w, w->x, in, &weights->stem, pl_vision_window(p->side, weights->stem_size, 2)));
    norm_in_place(w, w->x, weights->stem_norm, PL_TOWER_GELU);
    return show_as(w, "stem", w->x);
}

/* The last two stages joined, brought to the grid. */
static pl_status adapter(walk *w, pl_map fine, pl_map coarse)
{
    const pl_vision_weights *weights = &w->v->weights;
    const pl_vision_plan *p = &w->v->plan;
    int side = fine.height;
    pl_map joined = map_at(w, p->wide, side, weights->fine + weights->coarse);
    pl_map inner = map_at(w, p->other, side, weights->joined), all = map_at(w, p->wide, side, weights->hidden);
    w->ops->join(w->s, joined, fine, coarse);
    PL_TRY(show_as(w, "msfa.concat", joined));
    PL_TRY(product(w, inner, joined, &weights->join_first));
    PL_TRY(next_turn(w));
    norm_in_place(w, inner, weights->join_first_norm, PL_TOWER_GELU);
    PL_TRY(next_turn(w));
    PL_TRY(product(w, all, inner, &weights->join_last));
    norm_in_place(w, all, weights->join_last_norm, PL_TOWER_LINEAR);
    w->x = map_at(w, p->other, w->v->grid, weights->hidden);
    w->ops->pool(w->s, w->x, all);
    PL_TRY(show_as(w, "msfa.pooled", w->x));
    norm_in_place(w, w->x, weights->out_norm, PL_TOWER_LINEAR);
    return show_as(w, "tower", w->x);
}

static pl_status embed(walk *w, float *rows)
{
    int64_t n = (int64_t)w->x.height * w->x.width, hidden = w->x.channels;
    pl_tower_norm scale = {.factor = sqrtf((float)hidden), .plain = true};
    const void *values = NULL;
    w->ops->norm(w->s, w->x.v, w->x.v, n, hidden, &scale);
    PL_TRY(w->v->backend->fetch(w->s, w->x.v, (size_t)(n * hidden) * sizeof(float), &values, w->err));
    return pl_embedder_soft(w->v->embedder, values, n, rows, w->err);
}

static pl_status run(walk *w, const uint8_t *rgb, float *rows)
{
    const pl_vision_weights *weights = &w->v->weights;
    pl_map fine = {0};
    PL_TRY(begin_turn(w));
    PL_TRY(stem(w, rgb));
    for (int i = 0; i < weights->n_blocks; i++) {
        w->block = &weights->blocks[i];
        if (w->block->stage == weights->n_stages - 1 && w->block->index == 0)
            fine = w->x;
        PL_TRY(next_turn(w));
        PL_TRY(w->block->attends ? attention(w) : convolutions(w));
        PL_TRY(show_part(w, "", w->x));
    }
    PL_TRY(next_turn(w));
    PL_TRY(adapter(w, fine, w->x));
    return embed(w, rows);
}

static void give_work(pl_vision *v)
{
    v->backend->memory_give(v->backend, v->work, v->plan.total * sizeof(float));
    v->work = NULL;
    v->plan = (pl_vision_plan){0};
}

static pl_status plan_for(pl_vision *v, int side, pl_error *err)
{
    pl_vision_plan plan;
    if (v->plan.side == side)
        return PL_OK;
    give_work(v);
    pl_vision_plan_make(&v->weights, v->backend, side, v->grid, &plan);
    v->work = v->backend->memory_take(v->backend, plan.total * sizeof(float));
    if (!v->work)
        return pl_backend_fail_memory(v->backend, plan.total * sizeof(float), "the maps of an image", err);
    v->plan = plan;
    return PL_OK;
}

pl_status pl_vision_encode(pl_vision *vision, const uint8_t *rgb, int side, const pl_tower_turn *turn,
                           const pl_tower_show *show, float *rows, pl_error *err)
{
    if (side < 32 || side > MOST_SIDE || side % 32 != 0)
        return pl_fail(err, PL_ERR_ARGUMENT, "an image of %d pixels a side, expected a multiple of 32 up to %d", side,
                       MOST_SIDE);
    PL_TRY(plan_for(vision, side, err));
    walk w = {.v = vision,
              .ops = vision->backend->tower,
              .s = vision->backend->stream,
              .turn = turn,
              .show = show,
              .err = err};
    pl_status status = run(&w, rgb, rows);
    end_turn(&w);
    return status;
}

pl_status pl_vision_create(const pl_tower_source *source, pl_backend *backend, const pl_tower_turn *turn,
                           pl_vision **out, pl_error *err)
{
    pl_status status;
    pl_vision *v = calloc(1, sizeof *v);
    if (!v)
        return pl_fail_memory(err, sizeof *v, "the vision tower");
    v->backend = backend;
    v->grid = pl_tower_source_vision(source)->grid;
    PL_TRY_GOTO(pl_vision_weights_load(source, backend, turn, &v->weights, err));
    PL_TRY_GOTO(pl_embedder_create(source, PL_TOWER_VISION, backend, turn, &v->embedder, err));
    *out = v;
    return PL_OK;
fail:
    pl_vision_free(v);
    return status;
}

void pl_vision_free(pl_vision *vision)
{
    if (!vision)
        return;
    give_work(vision);
    pl_embedder_free(vision->embedder);
    pl_vision_weights_free(&vision->weights, vision->backend);
    free(vision);
}

size_t pl_vision_bytes(const pl_vision *vision)
{
    return vision->weights.bytes + vision->plan.total * sizeof(float) + pl_embedder_bytes(vision->embedder);
}
