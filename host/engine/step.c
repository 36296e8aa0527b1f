#include "host/engine/step.h"

#include "host/engine/finite.h"
#include "host/engine/layer_rows.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct pl_step {
    const pl_net *net;
    const pl_config *config;
    const pl_ops *ops;
    pl_stream *stream;
    pl_kv *kv;
    const pl_ple *ple_table;
    pl_heads heads;
    int max_rows;
    int64_t ffn_ld; /* widest FFN */
    int64_t ple_ld; /* layers * P */

    void *memory;
    size_t memory_bytes;
    pl_streams streams, pred;
    float *x, *laurel_mid, *laurel, *q, *k, *v, *att, *o, *y, *f, *gate, *up, *ffn_out, *gate_in, *ple_mid;
    float *ple, *ple_proj;
    float *rope_local, *rope_global;
    float *mean, *hidden, *logits;
    pl_act act; /* room for any of the above as integers */

    /* by slot: the rows that are wanted first, else in the order given */
    int32_t *token, *position, *sequence, *ple_layers, *ple_cols;
    const pl_path **path;
    pl_layer_rows *layer_rows;
    int n, wanted;

    pl_trace_fn trace;
    void *trace_user;
    pl_watch_fn watch;
    void *watch_user;
};

/* ---- memory ---- */

/* Hands out pieces of one block; with base NULL it only counts. */
typedef struct layout {
    char *base;
    size_t used;
} layout;

static void *piece(layout *l, int64_t n, size_t size)
{
    void *p = l->base ? l->base + l->used : NULL;
    l->used += ((size_t)n * size + 63) & ~(size_t)63;
    return p;
}

static float *floats(layout *l, int64_t n)
{
    return piece(l, n, sizeof(float));
}

static int64_t larger(int64_t a, int64_t b)
{
    return a > b ? a : b;
}

static int64_t widest_ffn(const pl_config *c)
{
    int64_t width = 0;
    for (int l = 0; l < c->n_layers; l++)
        width = larger(width, c->ffn[l]);
    return width;
}

static void lay_out_act(layout *l, pl_act *act, const pl_config *c, int64_t rows)
{
    int64_t cols = larger(larger(widest_ffn(c), c->hidden),
                          larger((int64_t)c->n_heads * c->head_dim, larger(c->ple_dim, c->laurel_rank)));
    int64_t blocks = (cols + PL_ACT_BLOCK - 1) / PL_ACT_BLOCK;
    act->hi_lo = piece(l, rows * blocks, 2 * PL_ACT_BLOCK);
    act->scale = floats(l, rows * blocks);
    act->sum = piece(l, rows * blocks, 2 * sizeof(int32_t));
}

static void lay_out(pl_step *t, layout *l)
{
    const pl_config *c = t->config;
    int64_t rows = t->max_rows, hidden = c->hidden;
    int64_t q = (int64_t)c->n_heads * c->head_dim, k = (int64_t)c->n_kv_heads * c->head_dim;
    t->streams = (pl_streams){floats(l, PL_STREAMS * rows * hidden), rows, hidden};
    t->pred = (pl_streams){floats(l, PL_STREAMS * rows * hidden), rows, hidden};
    t->x = floats(l, rows * hidden);
    t->laurel_mid = floats(l, rows * c->laurel_rank);
    t->laurel = floats(l, rows * hidden);
    t->q = floats(l, rows * q);
    t->k = floats(l, rows * k);
    t->v = floats(l, rows * k);
    t->att = floats(l, rows * q);
    t->o = floats(l, rows * hidden);
    t->y = floats(l, rows * hidden);
    t->f = floats(l, rows * hidden);
    t->gate = floats(l, rows * t->ffn_ld);
    t->up = floats(l, rows * t->ffn_ld);
    t->ffn_out = floats(l, rows * hidden);
    t->gate_in = floats(l, rows * hidden);
    t->ple_mid = floats(l, rows * c->ple_dim);
    t->ple = floats(l, rows * t->ple_ld);
    t->ple_proj = floats(l, rows * t->ple_ld);
    t->rope_local = floats(l, rows * c->head_dim);
    t->rope_global = floats(l, rows * c->head_dim);
    t->mean = floats(l, rows * hidden);
    t->hidden = floats(l, rows * hidden);
    t->logits = floats(l, (int64_t)PL_STEP_LOGITS * c->vocab);
    lay_out_act(l, &t->act, c, rows);
    t->token = piece(l, rows, sizeof(int32_t));
    t->position = piece(l, rows, sizeof(int32_t));
    t->sequence = piece(l, rows, sizeof(int32_t));
    t->ple_layers = piece(l, rows, sizeof(int32_t));
    t->ple_cols = piece(l, rows, sizeof(int32_t));
    t->path = piece(l, rows, sizeof *t->path);
}

static void set_shape(pl_step *t, const pl_config *config, int max_rows)
{
    t->config = config;
    t->max_rows = max_rows;
    t->ffn_ld = widest_ffn(config);
    t->ple_ld = (int64_t)config->n_layers * config->ple_dim;
    t->heads = (pl_heads){config->n_heads, config->n_kv_heads, config->head_dim};
}

size_t pl_step_bytes(const pl_config *config, int max_rows)
{
    pl_step t = {0};
    layout l = {0};
    set_shape(&t, config, max_rows);
    lay_out(&t, &l);
    return l.used;
}

pl_status pl_step_create(const pl_net *net, pl_kv *kv, const pl_ple *ple, int max_rows, pl_step **out, pl_error *err)
{
    pl_step *t = calloc(1, sizeof *t);
    if (!t)
        return pl_fail_memory(err, sizeof *t, "step");
    set_shape(t, net->config, max_rows);
    t->net = net;
    t->ops = net->backend->ops;
    t->stream = net->backend->stream;
    t->kv = kv;
    t->ple_table = ple;
    t->memory_bytes = pl_step_bytes(net->config, max_rows);
    layout l = {.base = net->backend->memory_take(net->backend, t->memory_bytes)};
    pl_status status = PL_OK;
    if (!l.base) {
        status = pl_fail_memory(err, t->memory_bytes, "activations");
        goto fail;
    }
    t->memory = l.base;
    lay_out(t, &l);
    PL_TRY_GOTO(pl_layer_rows_create(net->config->n_layers, max_rows, &t->layer_rows, err));
    *out = t;
    return PL_OK;
fail:
    pl_step_free(t);
    return status;
}

void pl_step_free(pl_step *t)
{
    if (!t)
        return;
    pl_layer_rows_free(t->layer_rows);
    t->net->backend->memory_give(t->net->backend, t->memory, t->memory_bytes);
    free(t);
}

/* ---- trace: layers are numbered as the path counts them ---- */

/* heads: how the width splits, heads x width; 0: it does not. */
static void show_shaped(const pl_step *t, const char *name, const float *v, int streams, int64_t heads, int64_t width)
{
    pl_trace_tensor tensor = {
        .name = name, .v = v, .streams = streams, .rows = t->n, .width = width, .shape = {width}, .n_shape = 1};
    if (heads > 0) {
        tensor.width = heads * width;
        tensor.shape[0] = heads;
        tensor.shape[1] = width;
        tensor.n_shape = 2;
    }
    t->trace(t->trace_user, &tensor);
}

static void show(const pl_step *t, const char *name, const float *v, int64_t width)
{
    if (t->trace)
        show_shaped(t, name, v, 1, 0, width);
}

static void show_layer(const pl_step *t, int layer, const char *what, const float *v, int streams, int64_t heads,
                       int64_t width)
{
    if (!t->trace)
        return;
    int kept = 0;
    for (int l = 0; l < layer; l++)
        kept += !t->path[0]->skip[l];
    char name[64];
    snprintf(name, sizeof name, "layer.%02d.%s", kept, what);
    show_shaped(t, name, v, streams, heads, width);
}

/* Per-layer values of the layers that the path keeps; goes through ple_proj. */
static void show_ple(const pl_step *t, const char *name, float scale)
{
    if (!t->trace)
        return;
    int64_t p = t->config->ple_dim, at = 0, kept = 0;
    for (int l = 0; l < t->config->n_layers; l++)
        kept += !t->path[0]->skip[l];
    for (int64_t r = 0; r < t->n; r++)
        for (int l = 0; l < t->config->n_layers; l++)
            for (int64_t i = 0; i < p && !t->path[0]->skip[l]; i++)
                t->ple_proj[at++] = t->ple[r * t->ple_ld + l * p + i] * scale;
    show_shaped(t, name, t->ple_proj, 1, kept, p);
}

/* ---- the walk ---- */

/* Products that share their input: n rows of x, `cols` wide, in one pass. */
static void multiply(pl_step *t, const float *x, int64_t ld, int64_t cols, int n, pl_matmul *jobs, int n_jobs)
{
    bool integers = false;
    for (int i = 0; i < n_jobs; i++) {
        jobs[i].x = &t->act;
        jobs[i].n_rows = n;
        integers |= jobs[i].w->packed;
    }
    t->act.f32 = x;
    t->act.ld = ld;
    t->act.cols = cols;
    t->act.blocks = (cols + PL_ACT_BLOCK - 1) / PL_ACT_BLOCK;
    if (integers)
        t->ops->quantize(t->stream, &t->act, n);
    t->ops->matmul(t->stream, jobs, n_jobs);
}

/* To be called behind a product, with what was just multiplied. */
static void show_operand(const pl_step *t, int layer, pl_role role, int index, int n, const int32_t *n_in)
{
    if (!t->watch)
        return;
    pl_watch product = {role, layer, index, t->act.f32, t->act.ld, t->act.cols, n_in, n};
    t->watch(t->watch_user, &product);
}

static void multiply_one(pl_step *t, const pl_weight *w, const float *x, float *out, int n)
{
    pl_matmul job = {.w = w, .out = out, .out_ld = w->rows};
    multiply(t, x, w->cols, w->cols, n, &job, 1);
}

/* Word embeddings and what follows from them: per-layer inputs and the first residual streams. */
static pl_status embed(pl_step *t, pl_error *err)
{
    const pl_config *c = t->config;
    float *e = t->streams.v; /* stream 0 */
    t->ops->embed(t->stream, e, &t->net->embed, t->token, t->n, sqrtf((float)c->hidden));
    show(t, "embeds", e, c->hidden);
    PL_TRY(pl_ple_gather(t->ple_table, t->net->backend->pool, t->token, t->ple_layers, t->n, t->ple, t->ple_ld, err));
    float look_scale = sqrtf((float)c->ple_dim);
    show_ple(t, "ple_lookup", look_scale);

    pl_matmul jobs[PL_ALTUP];
    for (int k = 1; k < PL_ALTUP; k++)
        jobs[k] = (pl_matmul){
            .w = &t->net->altup_proj[k - 1], .out = e + k * t->streams.rows * c->hidden, .out_ld = c->hidden};
    jobs[0] = (pl_matmul){.w = &t->net->ple_model_proj, .out = t->ple_proj, .out_ld = t->ple_ld, .n_out = t->ple_cols};
    multiply(t, e, c->hidden, c->hidden, t->n, jobs, PL_ALTUP);
    show_operand(t, -1, PL_ROLE_PLE_MODEL_PROJ, 0, t->n, NULL);
    for (int k = 1; k < PL_ALTUP; k++)
        show_operand(t, -1, PL_ROLE_ALTUP_PROJ, k - 1, t->n, NULL);
    for (int k = 1; k < PL_ALTUP; k++)
        t->ops->match_rms(t->stream, jobs[k].out, e, t->n, c->hidden);
    t->ops->ple_combine(t->stream, t->ple, t->ple_proj, t->ple_ld, t->net->ple_norm, t->n, t->ple_layers, c->ple_dim,
                        1.0f / sqrtf((float)c->hidden), look_scale, c->eps);
    show_ple(t, "per_layer_inputs", 1);
    if (t->trace)
        show_shaped(t, "altup_init", t->streams.v, PL_STREAMS, 0, c->hidden);
    return PL_OK;
}

/* x -> q, k, v, LAuReL; attention; y = what the FFN starts from, f = its norm. */
static void attend(pl_step *t, int layer, const pl_layer_view *view)
{
    const pl_config *c = t->config;
    const pl_net_layer *w = &t->net->layer[layer];
    const pl_rows *rows = &view->rows;
    bool own = layer < c->n_kv_layers;
    pl_matmul jobs[4] = {{.w = &w->q, .out = t->q, .out_ld = w->q.rows},
                         {.w = &w->laurel_left, .out = t->laurel_mid, .out_ld = c->laurel_rank},
                         {.w = &w->k, .out = t->k, .out_ld = w->k.rows},
                         {.w = &w->v, .out = t->v, .out_ld = w->v.rows}};
    multiply(t, t->x, c->hidden, c->hidden, rows->n, jobs, own ? 4 : 2);
    static const pl_role roles[] = {PL_ROLE_Q, PL_ROLE_LAUREL_LEFT, PL_ROLE_K, PL_ROLE_V};
    for (int i = 0; i < (own ? 4 : 2); i++)
        show_operand(t, layer, roles[i], 0, rows->n, NULL);
    multiply_one(t, &w->laurel_right, t->laurel_mid, t->laurel, rows->n);
    show_operand(t, layer, PL_ROLE_LAUREL_RIGHT, 0, rows->n, NULL);

    pl_kv_layer kv = pl_kv_view(t->kv, c->kv_layer[layer]);
    t->ops->qkv_store(t->stream, t->q, own ? t->k : NULL, own ? t->v : NULL, &kv, rows, t->heads, w->q_norm, w->k_norm,
                      c->local[layer] ? t->rope_local : t->rope_global, c->eps);
    show_layer(t, layer, "q", t->q, 1, c->n_heads, c->head_dim);
    if (own) {
        show_layer(t, layer, "k", t->k, 1, c->n_kv_heads, c->head_dim);
        show_layer(t, layer, "v", t->v, 1, c->n_kv_heads, c->head_dim);
    }
    t->ops->attention(t->stream, t->att, t->q, &kv, rows, t->heads, c->local[layer] ? c->window : 0);
    multiply_one(t, &w->o, t->att, t->o, rows->n);
    show_operand(t, layer, PL_ROLE_O, 0, rows->n, NULL);
    show_layer(t, layer, "attn_out", t->o, 1, 0, c->hidden);
    t->ops->attn_residual(t->stream, t->y, t->f, t->laurel, t->pred.v, t->x, t->o, w->laurel_norm, w->post_attn_norm,
                          w->ffn_norm, rows->n, c->hidden, c->eps);
    show_layer(t, layer, "laurel", t->laurel, 1, 0, c->hidden);
    show_layer(t, layer, "mlp_in", t->f, 1, 0, c->hidden);
}

/* The gated FFN, each row at its own width. */
static void feed_forward(pl_step *t, int layer, const pl_layer_view *view)
{
    const pl_config *c = t->config;
    const pl_net_layer *w = &t->net->layer[layer];
    int n = view->rows.n;
    bool whole = view->width[n - 1] == c->ffn[layer];
    const int32_t *width = whole ? NULL : view->width;
    pl_matmul jobs[2] = {{.w = &w->gate, .out = t->gate, .out_ld = t->ffn_ld, .n_out = width},
                         {.w = &w->up, .out = t->up, .out_ld = t->ffn_ld, .n_out = width}};
    multiply(t, t->f, c->hidden, c->hidden, n, jobs, 2);
    show_operand(t, layer, PL_ROLE_GATE, 0, n, NULL);
    show_operand(t, layer, PL_ROLE_UP, 0, n, NULL);
    t->ops->ffn_act(t->stream, t->gate, t->up, t->ffn_ld, n, view->width, c->sparsity_z[layer]);
    pl_matmul down = {.w = &w->down, .out = t->ffn_out, .out_ld = c->hidden, .n_in = width};
    multiply(t, t->gate, t->ffn_ld, view->width[0], n, &down, 1);
    show_operand(t, layer, PL_ROLE_DOWN, 0, n, width);
    if (t->trace)
        for (int r = 1; r < n; r++) /* rows of one path: close them up for the trace */
            memmove(t->gate + (int64_t)r * view->width[0], t->gate + r * t->ffn_ld,
                    (size_t)view->width[0] * sizeof(float));
    show_layer(t, layer, "mlp_act", t->gate, 1, 0, view->width[0]);
    show_layer(t, layer, "mlp_out", t->ffn_out, 1, 0, c->hidden);
}

static void run_layer(pl_step *t, int layer)
{
    const pl_config *c = t->config;
    const pl_net_layer *w = &t->net->layer[layer];
    pl_layer_view view = pl_layer_rows_at(t->layer_rows, layer);
    const pl_rows *rows = &view.rows;
    if (rows->n == 0)
        return;
    t->ops->altup_predict(t->stream, t->pred, t->x, t->streams, rows, &w->altup, w->attn_norm, c->eps);
    show_layer(t, layer, "predictions", t->pred.v, PL_STREAMS, 0, c->hidden);
    show_layer(t, layer, "normed", t->x, 1, 0, c->hidden);
    attend(t, layer, &view);
    feed_forward(t, layer, &view);
    t->ops->altup_correct(t->stream, t->streams, t->y, t->gate_in, t->ffn_out, t->pred, rows, &w->altup,
                          w->post_ffn_norm, c->eps);
    show_layer(t, layer, "activated", t->y, 1, 0, c->hidden);
    show_layer(t, layer, "corrected", t->streams.v, PL_STREAMS, 0, c->hidden);
    multiply_one(t, &w->ple_gate, t->gate_in, t->ple_mid, rows->n);
    show_operand(t, layer, PL_ROLE_PLE_GATE, 0, rows->n, NULL);
    t->ops->ple_gate(t->stream, t->ple_mid, t->ple + (int64_t)layer * c->ple_dim, t->ple_ld, rows, c->ple_dim);
    multiply_one(t, &w->ple_proj, t->ple_mid, t->gate_in, rows->n);
    show_operand(t, layer, PL_ROLE_PLE_PROJ, 0, rows->n, NULL);
    t->ops->ple_add(t->stream, t->streams, t->gate_in, rows, w->post_ple_norm, c->eps);
    show_layer(t, layer, "pli_out", t->gate_in, 1, 0, c->hidden);
    show_layer(t, layer, "streams", t->streams.v, PL_STREAMS, 0, c->hidden);
}

/* The wanted rows' streams become one hidden state. Wanted rows have the first slots. */
static pl_status finish(pl_step *t, pl_error *err)
{
    const pl_config *c = t->config;
    if (t->wanted == 0)
        return PL_OK;
    for (int k = 1; k < PL_ALTUP; k++) {
        int64_t at = k * t->streams.rows * c->hidden;
        multiply_one(t, &t->net->altup_unembed[k - 1], t->streams.v + at, t->pred.v + at, t->wanted);
        show_operand(t, -1, PL_ROLE_ALTUP_UNEMBED, k - 1, t->wanted, NULL);
        t->ops->match_rms(t->stream, t->pred.v + at, t->streams.v, t->wanted, c->hidden);
    }
    t->ops->output_norm(t->stream, t->mean, t->hidden, t->streams.v, t->pred, t->wanted, t->net->out_norm, c->eps);
    show(t, "final.pre_norm", t->mean, c->hidden);
    show(t, "final.hidden", t->hidden, c->hidden);
    for (int r = 0; r < t->wanted; r++)
        if (!pl_all_finite(t->hidden + (int64_t)r * c->hidden, c->hidden))
            return pl_fail(err, PL_ERR_NUMERIC, "the model's output at position %d is not finite", t->position[r]);
    t->act.f32 = t->hidden;
    t->act.ld = t->act.cols = c->hidden;
    show_operand(t, -1, PL_ROLE_HEAD, 0, t->wanted, NULL);
    return PL_OK;
}

static int fill_slots(pl_step *t, const pl_step_row *rows, int n, bool wanted, int slot)
{
    const pl_config *c = t->config;
    for (int i = 0; i < n; i++) {
        if (rows[i].wanted != wanted)
            continue;
        t->token[slot] = rows[i].token;
        t->position[slot] = rows[i].position;
        t->sequence[slot] = rows[i].sequence;
        t->path[slot] = rows[i].path;
        t->ple_layers[slot] = wanted ? c->n_layers : c->n_kv_layers;
        t->ple_cols[slot] = t->ple_layers[slot] * c->ple_dim;
        slot++;
    }
    return slot;
}

void pl_step_watch(pl_step *t, pl_watch_fn watch, void *user)
{
    t->watch = watch;
    t->watch_user = user;
}

pl_status pl_step_run(pl_step *t, const pl_step_row *rows, int n, pl_trace_fn trace, void *trace_user, pl_error *err)
{
    const pl_config *c = t->config;
    t->trace = trace;
    t->trace_user = trace_user;
    t->n = n;
    t->wanted = fill_slots(t, rows, n, true, 0);
    fill_slots(t, rows, n, false, t->wanted);
    t->streams.rows = t->pred.rows = n;
    pl_layer_rows_plan(t->layer_rows, c, t->path, t->position, t->sequence, n, t->wanted);
    t->ops->rope_table(t->stream, t->rope_local, t->position, n, t->net->rope_local, c->head_dim / 2);
    t->ops->rope_table(t->stream, t->rope_global, t->position, n, t->net->rope_global, c->head_dim / 2);
    PL_TRY(embed(t, err));
    for (int layer = 0; layer < c->n_layers; layer++)
        run_layer(t, layer);
    return finish(t, err);
}

pl_status pl_step_logits(pl_step *t, int first, int n, const float **logits, pl_error *err)
{
    const pl_config *c = t->config;
    if (first < 0 || n < 1 || n > PL_STEP_LOGITS || first + n > t->wanted)
        return pl_fail(err, PL_ERR_ARGUMENT, "logits of rows %d to %d of %d", first, first + n - 1, t->wanted);
    multiply_one(t, &t->net->head, t->hidden + (int64_t)first * c->hidden, t->logits, n);
    if (c->softcap > 0)
        t->ops->softcap(t->stream, t->logits, n, c->vocab, c->softcap);
    *logits = t->logits;
    return PL_OK;
}
