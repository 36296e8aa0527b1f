/* The model, written once: a walk over the op table, for any mix of rows and paths. */
#include "host/engine/step_parts.h"

#include <math.h>

static void set_operand(pl_act *act, const float *x, int64_t ld, int64_t cols)
{
    act->f32 = x;
    act->ld = ld;
    act->cols = cols;
    act->blocks = (cols + PL_ACT_BLOCK - 1) / PL_ACT_BLOCK;
    act->integers_only = false;
}

/* Products that share t->act, n rows; quantized: it is there as integers already. */
static void multiply_operand(pl_step *t, int n, pl_matmul *jobs, int n_jobs, bool quantized)
{
    bool integers = false;
    for (int i = 0; i < n_jobs; i++) {
        jobs[i].x = &t->act;
        jobs[i].n_rows = n;
        integers |= jobs[i].w->packed;
    }
    if (integers && !quantized)
        t->ops->quantize(t->stream, &t->act, n);
    t->ops->matmul(t->stream, jobs, n_jobs);
}

/* Products that share their input: n rows of x, `cols` wide, in one pass. */
static void multiply(pl_step *t, const float *x, int64_t ld, int64_t cols, int n, pl_matmul *jobs, int n_jobs)
{
    set_operand(&t->act, x, ld, cols);
    multiply_operand(t, n, jobs, n_jobs, false);
}

static void multiply_one(pl_step *t, const pl_weight *w, const float *x, float *out, int n)
{
    pl_matmul job = {.w = w, .out = out, .out_ld = w->rows};
    multiply(t, x, w->cols, w->cols, n, &job, 1);
}

/* Products with columns that ranks share are parts of a sum. [n][H] */
static void sum_parts(pl_step *t, float *v, int n)
{
    if (t->comm)
        t->comm->sum_f32(t->comm, t->stream, v, (size_t)n * (size_t)t->config->hidden);
}

/* To be called behind a product, with what was just multiplied. n_in: in the host's memory. */
static void show_operand(pl_step *t, int layer, pl_role role, int index, int n, const int32_t *n_in)
{
    pl_show_operand(&t->show, layer, role, index, &t->act, n, n_in);
}

/* Per-layer embeddings are looked up beside the products that the word embeddings go through. */
static void look_up(pl_step *t)
{
    const pl_config *c = t->config;
    pl_ple_rows from = *t->ple_rows;
    from.ticket = t->slots.ticket;
    t->backend->fork(t->backend);
    t->ops->ple_look(t->backend->side, t->ple, t->ple_ld, &from, t->slots.token, t->slots.ple_layers, t->n, c->ple_dim,
                     &t->slots.report[PL_REPORT_PLE]);
}

/* Word embeddings and what follows from them: per-layer inputs and the first residual streams. */
static void embed(pl_step *t)
{
    const pl_config *c = t->config;
    float *e = t->streams.v; /* stream 0 */
    float look_scale = sqrtf((float)c->ple_dim);
    look_up(t);
    pl_embed_from from = {.table = &t->net->embed,
                          .scale = sqrtf((float)c->hidden),
                          .hard = t->net->hard,
                          .soft = t->soft,
                          .first_hard = t->net->first_hard,
                          .n_hard = t->net->n_hard};
    t->ops->embed(t->stream, e, &from, t->slots.token, t->n);
    pl_show(&t->show, "embeds", e, c->hidden);

    pl_matmul jobs[PL_ALTUP];
    for (int k = 1; k < PL_ALTUP; k++)
        jobs[k] = (pl_matmul){
            .w = &t->net->altup_proj[k - 1], .out = e + k * t->streams.rows * c->hidden, .out_ld = c->hidden};
    jobs[0] = (pl_matmul){
        .w = &t->net->ple_model_proj, .out = t->ple_proj, .out_ld = t->ple_ld, .n_out = t->slots.ple_cols};
    multiply(t, e, c->hidden, c->hidden, t->n, jobs, PL_ALTUP);
    show_operand(t, -1, PL_ROLE_PLE_MODEL_PROJ, 0, t->n, NULL);
    for (int k = 1; k < PL_ALTUP; k++)
        show_operand(t, -1, PL_ROLE_ALTUP_PROJ, k - 1, t->n, NULL);
    for (int k = 1; k < PL_ALTUP; k++)
        t->ops->match_rms(t->stream, jobs[k].out, e, t->n, c->hidden);
    t->backend->join(t->backend);
    pl_show_ple(&t->show, "ple_lookup", t->ple, c->n_layers, c->ple_dim, look_scale);
    t->ops->ple_combine(t->stream, t->ple, t->ple_proj, t->ple_ld, t->net->ple_norm, t->n, t->slots.ple_layers,
                        c->ple_dim, 1.0f / sqrtf((float)c->hidden), look_scale, c->eps);
    pl_show_ple(&t->show, "per_layer_inputs", t->ple, c->n_layers, c->ple_dim, 1);
    pl_show_streams(&t->show, "altup_init", t->streams.v, c->hidden);
}

static void add_ple(pl_step *t, int layer, const pl_rows *rows)
{
    t->ops->ple_add(t->stream, t->streams, t->gate_in, rows, t->net->layer[layer].post_ple_norm, t->config->eps);
}

/* What the layer before has left to do, where this one cannot do it on the way. */
static void settle(pl_step *t)
{
    if (t->pending < 0)
        return;
    pl_layer_view view = pl_step_input_layer_ops(t->input, t->pending);
    add_ple(t, t->pending, &view.rows);
    t->pending = -1;
}

/* x = the norm of the first prediction, and, with fused ops, t->act. */
static void predict(pl_step *t, int layer, const pl_rows *rows)
{
    const pl_config *c = t->config;
    const pl_net_layer *w = &t->net->layer[layer];
    if (!t->fused) {
        t->ops->altup_predict(t->stream, t->pred, t->x, t->streams, rows, &w->altup, w->attn_norm, c->eps);
        return;
    }
    bool chained = t->chained[layer / 64] >> layer % 64 & 1;
    if (!chained)
        settle(t);
    float *v = t->pending >= 0 ? t->gate_in : NULL;
    const float *v_norm = v ? t->net->layer[t->pending].post_ple_norm : NULL;
    set_operand(&t->act, t->x, c->hidden, c->hidden);
    t->fused->predict(t->stream, t->pred, t->x, &t->act, t->streams, v, v_norm, rows, &w->altup, w->attn_norm, c->eps);
    t->pending = -1;
}

/* x -> q, k, v, LAuReL's half. */
static void project(pl_step *t, int layer, const pl_rows *rows)
{
    const pl_config *c = t->config;
    const pl_net_layer *w = &t->net->layer[layer];
    static const pl_role roles[] = {PL_ROLE_Q, PL_ROLE_LAUREL_LEFT, PL_ROLE_K, PL_ROLE_V};
    int n_jobs = layer < c->n_kv_layers ? 4 : 2;
    pl_matmul jobs[4] = {{.w = &w->q, .out = t->q, .out_ld = w->q.rows},
                         {.w = &w->laurel_left, .out = t->laurel_mid, .out_ld = c->laurel_rank},
                         {.w = &w->k, .out = t->k, .out_ld = w->k.rows},
                         {.w = &w->v, .out = t->v, .out_ld = w->v.rows}};
    set_operand(&t->act, t->x, c->hidden, c->hidden);
    multiply_operand(t, rows->n, jobs, n_jobs, t->fused != NULL);
    for (int i = 0; i < n_jobs; i++)
        show_operand(t, layer, roles[i], 0, rows->n, NULL);
}

/* Attention over the cache and its product: o; LAuReL's other half. */
static void attend(pl_step *t, int layer, const pl_rows *rows)
{
    const pl_config *c = t->config;
    const pl_net_layer *w = &t->net->layer[layer];
    bool own = layer < c->n_kv_layers;
    float *k = own ? t->k : NULL, *v = own ? t->v : NULL;
    const float *rope = c->local[layer] ? t->rope_local : t->rope_global;
    int window = c->local[layer] ? c->window : 0;
    pl_kv_layer kv = pl_kv_view(t->kv, t->rank, c->kv_layer[layer]);
    if (t->fused && t->fused->attend) {
        set_operand(&t->act, t->att, w->o.cols, w->o.cols);
        t->fused->attend(t->stream, t->att, &t->act, t->q, k, v, &kv, rows, t->heads, window, w->q_norm, w->k_norm,
                         rope, c->eps, t->distinct);
        set_operand(&t->mid, t->laurel_mid, c->laurel_rank, c->laurel_rank);
        pl_matmul o = {.w = &w->o, .x = &t->act, .out = t->o, .out_ld = c->hidden, .n_rows = rows->n};
        pl_matmul laurel = {
            .w = &w->laurel_right, .x = &t->mid, .out = t->laurel, .out_ld = c->hidden, .n_rows = rows->n};
        t->fused->attn_out(t->stream, &o, &laurel);
        return;
    }
    multiply_one(t, &w->laurel_right, t->laurel_mid, t->laurel, rows->n);
    show_operand(t, layer, PL_ROLE_LAUREL_RIGHT, 0, rows->n, NULL);
    t->ops->qkv_store(t->stream, t->q, k, v, &kv, rows, t->heads, w->q_norm, w->k_norm, rope, c->eps);
    pl_show_layer(&t->show, layer, "q", t->q, 1, c->n_heads, c->head_dim);
    if (own) {
        pl_show_layer(&t->show, layer, "k", t->k, 1, c->n_kv_heads, c->head_dim);
        pl_show_layer(&t->show, layer, "v", t->v, 1, c->n_kv_heads, c->head_dim);
    }
    t->ops->attention(t->stream, t->att, t->q, &kv, rows, t->heads, window);
    multiply_one(t, &w->o, t->att, t->o, rows->n);
    show_operand(t, layer, PL_ROLE_O, 0, rows->n, NULL);
    pl_show_layer(&t->show, layer, "attn_out", t->o, 1, 0, c->hidden);
}

/* y = what the FFN starts from, f = its norm and, with fused ops, t->act. */
static void add_attention(pl_step *t, int layer, int n)
{
    const pl_config *c = t->config;
    const pl_net_layer *w = &t->net->layer[layer];
    sum_parts(t, t->o, n);
    if (t->fused) {
        set_operand(&t->act, t->f, c->hidden, c->hidden);
        t->act.integers_only = w->gate.packed && w->up.packed;
        t->fused->attn_residual(t->stream, t->y, t->f, &t->act, t->laurel, t->pred.v, t->x, t->o, w->laurel_norm,
                                w->post_attn_norm, w->ffn_norm, n, c->hidden, c->eps);
        return;
    }
    t->ops->attn_residual(t->stream, t->y, t->f, t->laurel, t->pred.v, t->x, t->o, w->laurel_norm, w->post_attn_norm,
                          w->ffn_norm, n, c->hidden, c->eps);
    pl_show_layer(&t->show, layer, "laurel", t->laurel, 1, 0, c->hidden);
    pl_show_layer(&t->show, layer, "mlp_in", t->f, 1, 0, c->hidden);
}

typedef void (*sparse_op)(pl_stream *s, const pl_ffn *ffn);

/* What leaves out what the gates leave out, or NULL. Nobody sees the activations then. */
static sparse_op choose_sparse(const pl_step *t, int layer, int n)
{
    const pl_net_layer *w = &t->net->layer[layer];
    if (!isfinite(t->config->sparsity_z[layer]) || w->up.layout != PL_NEURON_ROWS ||
        w->down.layout != PL_NEURON_COLUMNS || pl_step_shown(&t->show))
        return NULL;
    if (n <= PL_SPARSE_ROWS)
        return t->ops->ffn_sparse;
    return pl_ffn_sparse_fits(t->config->hidden) ? t->ops->ffn_sparse_many : NULL;
}

static pl_ffn ffn_of(pl_step *t, int layer, const pl_layer_view *view)
{
    const pl_net_layer *w = &t->net->layer[layer];
    return (pl_ffn){&w->gate, &w->up,    &w->down,   &t->act,      t->gate,     t->up,
                    &t->mid,  t->ffn_ld, t->ffn_out, view->rows.n, view->width, t->config->sparsity_z[layer]};
}

/* Whether a layer's cutoff follows from gates of all ranks. */
static bool shares_gates(const pl_step *t, int layer)
{
    return t->comm && isfinite(t->config->sparsity_z[layer]);
}

/* The gates become activations, as far as the widest row goes; true: t->act has them as integers as well. */
static bool activate(pl_step *t, int layer, const pl_layer_view *view, int64_t widest)
{
    float z = t->config->sparsity_z[layer];
    int n = view->rows.n;
    set_operand(&t->act, t->gate, t->ffn_ld, widest);
    if (shares_gates(t, layer)) {
        t->ops->ffn_stats(t->stream, t->stats, t->gate, t->ffn_ld, n, view->width);
        t->comm->sum_f64(t->comm, t->stream, t->stats, PL_FFN_STATS * (size_t)n);
        if (widest > 0)
            t->ops->ffn_act_part(t->stream, t->gate, t->up, t->ffn_ld, n, view->width, t->stats, z);
        return widest == 0;
    }
    if (widest == 0) /* of a rank that has none of these neurons */
        return true;
    if (t->fused && t->fused->ffn_act) {
        t->act.integers_only = t->net->layer[layer].down.packed;
        t->fused->ffn_act(t->stream, &t->act, t->gate, t->up, t->ffn_ld, n, view->width, z);
        return true;
    }
    t->ops->ffn_act(t->stream, t->gate, t->up, t->ffn_ld, n, view->width, z);
    return false;
}

/* The gated FFN, each row at its own width. */
static void feed_forward(pl_step *t, int layer, const pl_layer_view *view)
{
    const pl_config *c = t->config;
    const pl_net_layer *w = &t->net->layer[layer];
    int n = view->rows.n;
    if (t->fused && t->fused->ffn && !shares_gates(t, layer)) {
        pl_ffn ffn = ffn_of(t, layer, view);
        t->fused->ffn(t->stream, &ffn);
        return;
    }
    set_operand(&t->act, t->f, c->hidden, c->hidden);
    sparse_op sparse = choose_sparse(t, layer, n);
    if (sparse) {
        pl_ffn ffn = ffn_of(t, layer, view);
        if (!t->fused)
            t->ops->quantize(t->stream, &t->act, n);
        sparse(t->stream, &ffn);
        return;
    }
    const int32_t *seen_width = pl_step_input_layer_host(t->input, layer).width;
    bool whole = seen_width[n - 1] == c->ffn[layer];
    const int32_t *width = whole ? NULL : view->width;
    pl_matmul jobs[2] = {{.w = &w->gate, .out = t->gate, .out_ld = t->ffn_ld, .n_out = width},
                         {.w = &w->up, .out = t->up, .out_ld = t->ffn_ld, .n_out = width}};
    multiply_operand(t, n, jobs, 2, t->fused != NULL);
    show_operand(t, layer, PL_ROLE_GATE, 0, n, NULL);
    show_operand(t, layer, PL_ROLE_UP, 0, n, NULL);
    bool quantized = activate(t, layer, view, seen_width[0]);
    pl_matmul down = {.w = &w->down, .out = t->ffn_out, .out_ld = c->hidden, .n_in = width};
    multiply_operand(t, n, &down, 1, quantized);
    show_operand(t, layer, PL_ROLE_DOWN, 0, n, whole ? NULL : seen_width);
    pl_show_layer_rows(&t->show, layer, "mlp_act", t->gate, seen_width[0], t->ffn_ld);
    pl_show_layer(&t->show, layer, "mlp_out", t->ffn_out, 1, 0, c->hidden);
}

static void correct(pl_step *t, int layer, const pl_rows *rows)
{
    const pl_config *c = t->config;
    const pl_net_layer *w = &t->net->layer[layer];
    sum_parts(t, t->ffn_out, rows->n);
    if (t->fused) {
        set_operand(&t->act, t->gate_in, c->hidden, c->hidden);
        t->act.integers_only = w->ple_gate.packed;
        t->fused->altup_correct(t->stream, t->streams, t->y, t->gate_in, &t->act, t->ffn_out, t->pred, rows, &w->altup,
                                w->post_ffn_norm, c->eps);
        return;
    }
    t->ops->altup_correct(t->stream, t->streams, t->y, t->gate_in, t->ffn_out, t->pred, rows, &w->altup,
                          w->post_ffn_norm, c->eps);
    pl_show_layer(&t->show, layer, "activated", t->y, 1, 0, c->hidden);
    pl_show_layer(&t->show, layer, "corrected", t->streams.v, PL_STREAMS, 0, c->hidden);
}

/* The layer's per-layer input enters the streams; with fused ops the last part of it in the next layer. */
static void add_per_layer(pl_step *t, int layer, const pl_rows *rows)
{
    const pl_config *c = t->config;
    const pl_net_layer *w = &t->net->layer[layer];
    const float *ple = t->ple + (int64_t)layer * c->ple_dim;
    if (t->fused && t->fused->ple) {
        pl_ple_block block = {&w->ple_gate, &w->ple_proj, &t->act,    t->ple_mid, &t->mid,
                              ple,          t->ple_ld,    t->gate_in, c->ple_dim};
        t->fused->ple(t->stream, &block, rows);
        t->pending = layer;
        return;
    }
    pl_matmul gate = {.w = &w->ple_gate, .out = t->ple_mid, .out_ld = c->ple_dim};
    pl_matmul proj = {.w = &w->ple_proj, .out = t->gate_in, .out_ld = c->hidden};
    set_operand(&t->act, t->gate_in, c->hidden, c->hidden);
    multiply_operand(t, rows->n, &gate, 1, t->fused != NULL);
    show_operand(t, layer, PL_ROLE_PLE_GATE, 0, rows->n, NULL);
    set_operand(&t->act, t->ple_mid, c->ple_dim, c->ple_dim);
    if (t->fused) {
        t->fused->ple_gate(t->stream, &t->act, t->ple_mid, ple, t->ple_ld, rows, c->ple_dim);
        multiply_operand(t, rows->n, &proj, 1, true);
        t->pending = layer;
        return;
    }
    t->ops->ple_gate(t->stream, t->ple_mid, ple, t->ple_ld, rows, c->ple_dim);
    multiply_operand(t, rows->n, &proj, 1, false);
    show_operand(t, layer, PL_ROLE_PLE_PROJ, 0, rows->n, NULL);
    add_ple(t, layer, rows);
    pl_show_layer(&t->show, layer, "pli_out", t->gate_in, 1, 0, c->hidden);
    pl_show_layer(&t->show, layer, "streams", t->streams.v, PL_STREAMS, 0, c->hidden);
}

static void run_layer(pl_step *t, int layer)
{
    pl_layer_view view = pl_step_input_layer_ops(t->input, layer);
    if (view.rows.n == 0)
        return;
    predict(t, layer, &view.rows);
    pl_show_layer(&t->show, layer, "predictions", t->pred.v, PL_STREAMS, 0, t->config->hidden);
    pl_show_layer(&t->show, layer, "normed", t->x, 1, 0, t->config->hidden);
    project(t, layer, &view.rows);
    attend(t, layer, &view.rows);
    add_attention(t, layer, view.rows.n);
    feed_forward(t, layer, &view);
    correct(t, layer, &view.rows);
    add_per_layer(t, layer, &view.rows);
}

void pl_step_walk_head(pl_step *t, int first, int n)
{
    const pl_config *c = t->config;
    const float *x = t->hidden + (int64_t)first * c->hidden;
    if (t->only_top) {
        set_operand(&t->act, x, c->hidden, c->hidden);
        t->ops->head_top(t->stream, &t->net->head, &t->act, t->logits, n, t->top + first, c->softcap);
        return;
    }
    multiply_one(t, &t->net->head, x, t->logits, n);
    if (c->softcap > 0)
        t->ops->softcap(t->stream, t->logits, n, c->vocab, c->softcap);
}

/* Of many rows in groups, each from logits of its own: reading the head again costs less than bringing 1 MB of logits a row
 * to the host, or than another step. By bench/roofline a step of 64 rows takes 7.8 ms on an RTX 4090 (e4b, 4 bits), four of
 * 16 rows 19.4 ms; 64 rows of logits take 2.6 ms over its bus, and then the host chooses. */
static void draw(pl_step *t)
{
    for (int first = 0; first < t->draws; first += PL_STEP_LOGITS) {
        int n = t->draws - first < PL_STEP_LOGITS ? t->draws - first : PL_STEP_LOGITS;
        if (t->logits_rows == 0)
            pl_step_walk_head(t, first, n);
        t->ops->draw(t->stream, t->logits, t->config->vocab, n, t->slots.draws + first, t->slots.drawns + first);
    }
}

/* The wanted rows' streams become one hidden state. Wanted rows have the first slots. */
static void finish(pl_step *t)
{
    const pl_config *c = t->config;
    for (int k = 1; k < PL_ALTUP; k++) {
        int64_t at = k * t->streams.rows * c->hidden;
        multiply_one(t, &t->net->altup_unembed[k - 1], t->streams.v + at, t->pred.v + at, t->wanted);
        show_operand(t, -1, PL_ROLE_ALTUP_UNEMBED, k - 1, t->wanted, NULL);
        t->ops->match_rms(t->stream, t->pred.v + at, t->streams.v, t->wanted, c->hidden);
    }
    t->ops->output_norm(t->stream, t->mean, t->hidden, t->streams.v, t->pred, t->wanted, t->net->out_norm, c->eps);
    pl_show(&t->show, "final.pre_norm", t->mean, c->hidden);
    pl_show(&t->show, "final.hidden", t->hidden, c->hidden);
    t->ops->check_finite(t->stream, t->hidden, t->wanted, c->hidden, &t->slots.report[PL_REPORT_OUTPUT]);
    set_operand(&t->act, t->hidden, c->hidden, c->hidden);
    show_operand(t, -1, PL_ROLE_HEAD, 0, t->wanted, NULL);
    if (t->logits_rows > 0)
        pl_step_walk_head(t, 0, t->logits_rows);
    draw(t);
}

void pl_step_walk(pl_step *t)
{
    const pl_config *c = t->config;
    t->pending = -1;
    if (t->takes)
        t->ops->take(t->stream, t->slots.token, t->slots.drawn, pl_draws_all(t->samplers), t->n);
    t->ops->rope_table(t->stream, t->rope_local, t->slots.position, t->n, t->net->rope_local, c->head_dim / 2);
    t->ops->rope_table(t->stream, t->rope_global, t->slots.position, t->n, t->net->rope_global, c->head_dim / 2);
    embed(t);
    for (int layer = 0; layer < c->n_layers; layer++)
        run_layer(t, layer);
    if (t->rank > 0) /* the streams are the same on all: the first one makes what is asked for of them */
        return;
    settle(t);
    if (t->wanted > 0)
        finish(t);
}
