#include "host/engine/step_parts.h"

#include <stdlib.h>

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

static void lay_out_act(layout *l, pl_act *act, const pl_config *c, int64_t rows, bool wide)
{
    int64_t cols = larger(larger(widest_ffn(c), c->hidden),
                          larger((int64_t)c->n_heads * c->head_dim, larger(c->ple_dim, c->laurel_rank)));
    int64_t blocks = (cols + PL_ACT_BLOCK - 1) / PL_ACT_BLOCK;
    act->hi_lo = piece(l, rows * blocks, 2 * PL_ACT_BLOCK);
    act->scale = floats(l, rows * blocks);
    act->sum = piece(l, rows * blocks, 2 * sizeof(int32_t));
    if (wide)
        act->wide = piece(l, 1, pl_act_wide_bytes(rows, blocks));
}

static void lay_out(pl_step *t, layout *l, bool wide)
{
    const pl_config *c = t->config;
    int64_t rows = t->max_rows, hidden = c->hidden;
    int64_t q = (int64_t)c->n_heads * c->head_dim, k = (int64_t)c->n_kv_heads * c->head_dim;
    t->streams = (pl_streams){floats(l, PL_STREAMS * rows * hidden), rows, hidden};
    t->pred = (pl_streams){floats(l, PL_STREAMS * rows * hidden), rows, hidden};
    t->soft = floats(l, rows * hidden);
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
    t->stats = piece(l, PL_FFN_STATS * rows, sizeof *t->stats);
    lay_out_act(l, &t->act, c, rows, wide);
    lay_out_act(l, &t->mid, c, rows < PL_FUSED_ROWS ? rows : PL_FUSED_ROWS, wide);
}

static void set_shape(pl_step *t, const pl_config *config, int max_rows)
{
    t->config = config;
    t->max_rows = max_rows;
    t->ffn_ld = widest_ffn(config);
    t->ple_ld = (int64_t)config->n_layers * config->ple_dim;
    t->heads = (pl_heads){config->n_heads, config->n_kv_heads, config->head_dim};
}

size_t pl_step_bytes(const pl_config *config, int max_rows, bool wide)
{
    pl_step t = {0};
    layout l = {0};
    set_shape(&t, config, max_rows);
    lay_out(&t, &l, wide);
    return l.used;
}

static size_t report_bytes(const pl_step *t)
{
    return (size_t)(PL_STEP_REPORTS + t->max_rows) * sizeof(int32_t);
}

static pl_status take_result(pl_step_result *r, pl_error *err)
{
    size_t rows = (size_t)r->step->max_rows;
    r->report = r->step->backend->shared_take(r->step->backend, report_bytes(r->step));
    r->token = calloc(rows, sizeof *r->token);
    r->position = calloc(rows, sizeof *r->position);
    r->drawn = r->report ? r->report + PL_STEP_REPORTS : NULL;
    return r->report && r->token && r->position
               ? PL_OK
               : pl_backend_fail_memory(r->step->backend, rows * 8, "a step's result", err);
}

pl_status pl_step_result_create(pl_step *t, pl_step_result **out, pl_error *err)
{
    pl_step_result *r = calloc(1, sizeof *r);
    if (!r)
        return pl_fail_memory(err, sizeof *r, "a step's result");
    r->step = t;
    pl_status status = take_result(r, err);
    if (status != PL_OK) {
        pl_step_result_free(r);
        return status;
    }
    *out = r;
    return PL_OK;
}

void pl_step_result_free(pl_step_result *r)
{
    if (!r)
        return;
    r->step->backend->shared_give(r->step->backend, r->report, report_bytes(r->step));
    free(r->token);
    free(r->position);
    free(r);
}

static pl_status take_memory(pl_step *t, pl_error *err)
{
    pl_backend *b = t->backend;
    t->memory_bytes = pl_step_bytes(t->config, t->max_rows, b->wide_acts);
    layout l = {.base = b->memory_take(b, t->memory_bytes)};
    if (!l.base)
        return pl_backend_fail_memory(b, t->memory_bytes, "activations", err);
    t->memory = l.base;
    lay_out(t, &l, b->wide_acts);
    t->wants = calloc((size_t)t->max_rows, sizeof *t->wants);
    if (!t->wants)
        return pl_fail_memory(err, (size_t)t->max_rows * sizeof *t->wants, "rows of a step");
    PL_TRY(pl_step_result_create(t, &t->own, err));
    return pl_step_input_create(t->config, t->net->shard, b, t->max_rows, &t->input, err);
}

pl_status pl_step_create(const pl_net *net, pl_kv *kv, pl_ple *ple, const pl_ple_rows *ple_rows, pl_draws *draws,
                         pl_soft_rows *soft, int max_rows, pl_step **out, pl_error *err)
{
    pl_step *t = calloc(1, sizeof *t);
    if (!t)
        return pl_fail_memory(err, sizeof *t, "step");
    set_shape(t, net->config, max_rows);
    t->net = net;
    t->backend = net->backend;
    t->ops = net->backend->ops;
    t->stream = net->backend->stream;
    t->rank = net->shard ? net->shard->rank : 0;
    t->kv = kv;
    t->ple_source = ple;
    t->ple_rows = ple_rows;
    t->samplers = draws;
    t->soft_source = soft;
    t->show.backend = net->backend;
    pl_status status = take_memory(t, err);
    if (status != PL_OK) {
        pl_step_free(t);
        return status;
    }
    *out = t;
    return PL_OK;
}

void pl_step_free(pl_step *t)
{
    if (!t)
        return;
    pl_step_input_free(t->input);
    free(t->wants);
    pl_step_result_free(t->own);
    t->backend->memory_give(t->backend, t->memory, t->memory_bytes);
    free(t);
}
