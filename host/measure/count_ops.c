#include "host/measure/count_ops.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define ATTENTION_TILE 64 /* rows of a prompt that share one pass over the keys */

struct pl_stream {
    pl_counts *counts;
};

typedef struct counting {
    pl_backend base;
    pl_stream stream;
} counting;

static pl_counted *entry(pl_stream *s, const char *op)
{
    pl_counts *c = s->counts;
    for (int i = 0; i < c->n; i++)
        if (!strcmp(c->op[i].op, op))
            return c->latest = &c->op[i];
    if (c->n == PL_COUNTED_OPS) /* the last takes the rest */
        return c->latest = &c->op[c->n - 1];
    c->latest = &c->op[c->n++];
    *c->latest = (pl_counted){.calls = 0};
    snprintf(c->latest->op, sizeof c->latest->op, "%s", op);
    return c->latest;
}

static void add(pl_stream *s, const char *op, int launches, double floats)
{
    pl_counted *e = entry(s, op);
    e->launches += launches;
    e->bytes += 4 * floats;
}

/* ---- products ---- */

/* Weights and operand read, result written; a row reads as far as it is wide. */
static void add_product(pl_stream *s, const char *op, const pl_matmul *job)
{
    const pl_weight *w = job->w;
    pl_counted *e = entry(s, op);
    double out = job->n_out ? job->n_out[0] : (double)w->rows, in = job->n_in ? job->n_in[0] : (double)w->cols;
    double weights = (double)w->bytes * out / (double)w->rows * in / (double)w->cols;
    e->bytes += weights;
    e->stored_bytes += weights;
    for (int i = 0; i < job->n_rows; i++) {
        double row_out = job->n_out ? job->n_out[i] : (double)w->rows;
        double row_in = job->n_in ? job->n_in[i] : (double)w->cols;
        e->bytes += 2.5 * row_in + 4 * row_out;
        *(w->packed ? &e->int_ops : &e->f32_ops) += 2 * row_in * row_out;
    }
}

/* "matmul" and, of a weight's name, the last part that tells something: "matmul ffn_gate". */
static void name_product(char out[PL_COUNTED_NAME], const char *weight)
{
    char name[PL_COUNTED_NAME * 4];
    snprintf(name, sizeof name, "%s", weight);
    char *dot;
    while ((dot = strrchr(name, '.')) && (!strcmp(dot, ".weight") || isdigit((unsigned char)dot[1])))
        *dot = '\0';
    snprintf(out, PL_COUNTED_NAME, "matmul %.*s", PL_COUNTED_NAME - 8, dot ? dot + 1 : name);
}

static void matmul(pl_stream *s, const pl_matmul *jobs, int n_jobs)
{
    char op[PL_COUNTED_NAME] = "matmul";
    if (s->counts->split)
        name_product(op, jobs[0].w->name);
    for (int i = 0; i < n_jobs; i++)
        add_product(s, op, &jobs[i]);
    entry(s, op)->launches++;
}

static void quantize(pl_stream *s, pl_act *act, int n)
{
    act->rows = n;
    add(s, "quantize", 1, 1.6 * n * (double)act->cols);
}

/* ---- the others ---- */

static void embed(pl_stream *s, float *out, const pl_embed_from *from, const int32_t *id, int n)
{
    (void)out, (void)id;
    add(s, "embed", 1, n * (double)from->table->cols * 1.3);
}

static void ple_look(pl_stream *s, float *ple, int64_t ld, const pl_ple_rows *from, const int32_t *id,
                     const int32_t *layers, int n, int p, int32_t *bad)
{
    (void)ple, (void)ld, (void)id, (void)bad;
    pl_counted *e = entry(s, "ple_look");
    e->launches++;
    for (int i = 0; i < n; i++) {
        e->bytes += 4.0 * layers[i] * p;
        e->bus_bytes += (double)pl_dtype_bytes(from->type, (int64_t)layers[i] * p);
    }
}

static void ple_combine(pl_stream *s, float *ple, const float *proj, int64_t ld, const float *w, int n,
                        const int32_t *layers, int p, float proj_scale, float look_scale, float eps)
{
    (void)ple, (void)proj, (void)ld, (void)w, (void)proj_scale, (void)look_scale, (void)eps;
    for (int i = 0; i < n; i++)
        add(s, "ple_combine", i == 0, 3.0 * layers[i] * p);
}

static void match_rms(pl_stream *s, float *u, const float *ref, int n, int64_t hidden)
{
    (void)u, (void)ref;
    add(s, "match_rms", 1, 3.0 * n * (double)hidden);
}

static void altup_predict(pl_stream *s, pl_streams pred, float *x, pl_streams streams, const pl_rows *rows,
                          const pl_altup *altup, const float *norm, float eps)
{
    (void)pred, (void)x, (void)altup, (void)norm, (void)eps;
    add(s, "altup_predict", 1, 9.0 * rows->n * (double)streams.hidden);
}

static void rope_table(pl_stream *s, float *out, const int32_t *position, int n, const float *inv_freq, int half)
{
    (void)out, (void)position, (void)inv_freq;
    add(s, "rope_table", 1, 2.0 * n * half);
}

static void qkv_store(pl_stream *s, float *q, float *k, float *v, const pl_kv_layer *kv, const pl_rows *rows,
                      pl_heads heads, const float *q_norm, const float *k_norm, const float *rope, float eps)
{
    (void)q, (void)v, (void)kv, (void)q_norm, (void)k_norm, (void)rope, (void)eps;
    add(s, "qkv_store", 1, 2.0 * rows->n * heads.dim * (heads.heads + (k ? 2 * heads.kv_heads : 0)));
}

static void add_attention(pl_stream *s, const char *op, const pl_kv_layer *kv, const pl_rows *rows, pl_heads heads,
                          int window)
{
    char name[PL_COUNTED_NAME];
    snprintf(name, sizeof name, "%s%s", op, !s->counts->split ? "" : window ? ", window" : ", all");
    pl_counted *e = entry(s, name);
    e->launches++;
    for (int i = 0; i < rows->n; i++) {
        double keys = rows->position[i] + 1;
        if (window && keys > window)
            keys = window;
        double pass = 2 * keys * heads.kv_heads * (double)pl_kv_head_bytes(kv->type, heads.dim) / PL_KV_PAGE;
        pass = rows->n <= PL_FUSED_ROWS ? pass : pass / ATTENTION_TILE;
        e->bytes += pass + 8.0 * heads.heads * heads.dim;
        e->stored_bytes += pass;
        e->f32_ops += 4 * keys * heads.heads * heads.dim;
    }
}

static void attention(pl_stream *s, float *out, const float *q, const pl_kv_layer *kv, const pl_rows *rows,
                      pl_heads heads, int window)
{
    (void)out, (void)q;
    add_attention(s, "attention", kv, rows, heads, window);
}

static void attn_residual(pl_stream *s, float *y, float *f, float *laurel, const float *a, const float *x,
                          const float *att, const float *laurel_norm, const float *att_norm, const float *ffn_norm,
                          int n, int64_t hidden, float eps)
{
    (void)y, (void)f, (void)laurel, (void)a, (void)x, (void)att, (void)laurel_norm, (void)att_norm, (void)ffn_norm;
    (void)eps;
    add(s, "attn_residual", 1, 7.0 * n * (double)hidden);
}

static void ffn_act(pl_stream *s, float *gate, const float *up, int64_t ld, int n, const int32_t *width, float z)
{
    (void)gate, (void)up, (void)ld, (void)z;
    for (int i = 0; i < n; i++)
        add(s, "ffn_act", i == 0, 3.0 * width[i]);
}

static void ffn_stats(pl_stream *s, double *stats, const float *gate, int64_t ld, int n, const int32_t *width)
{
    (void)stats, (void)gate, (void)ld;
    for (int i = 0; i < n; i++)
        add(s, "ffn_stats", i == 0, width[i]);
}

static void ffn_act_part(pl_stream *s, float *gate, const float *up, int64_t ld, int n, const int32_t *width,
                         const double *stats, float z)
{
    (void)stats;
    ffn_act(s, gate, up, ld, n, width, z);
}

/* As if all were read: what is not, the backend knows alone (pl_skipped). */
static void ffn_sparse(pl_stream *s, const pl_ffn *ffn)
{
    pl_matmul gate = {.w = ffn->gate, .x = ffn->x, .n_rows = ffn->n, .n_out = ffn->width};
    pl_matmul up = gate, down = {.w = ffn->down, .x = ffn->mid, .n_rows = ffn->n, .n_in = ffn->width};
    up.w = ffn->up;
    add_product(s, "ffn, sparse", &gate);
    add_product(s, "ffn, sparse", &up);
    add_product(s, "ffn, sparse", &down);
}

/* Likewise. */
static void head_top(pl_stream *s, const pl_weight *head, pl_act *x, float *logits, int n, const int32_t *top,
                     float cap)
{
    (void)logits, (void)top, (void)cap;
    add_product(s, "head, top", &(pl_matmul){.w = head, .x = x, .n_rows = n});
}

static void altup_correct(pl_stream *s, pl_streams streams, float *y, float *gate_in, const float *ffn, pl_streams pred,
                          const pl_rows *rows, const pl_altup *altup, const float *norm, float eps)
{
    (void)y, (void)gate_in, (void)ffn, (void)pred, (void)altup, (void)norm, (void)eps;
    add(s, "altup_correct", 1, 12.0 * rows->n * (double)streams.hidden);
}

static void ple_gate(pl_stream *s, float *gate, const float *ple, int64_t ld, const pl_rows *rows, int p)
{
    (void)gate, (void)ple, (void)ld;
    add(s, "ple_gate", 1, 3.0 * rows->n * p);
}

static void ple_add(pl_stream *s, pl_streams streams, float *v, const pl_rows *rows, const float *w, float eps)
{
    (void)v, (void)w, (void)eps;
    add(s, "ple_add", 1, 8.0 * rows->n * (double)streams.hidden);
}

static void output_norm(pl_stream *s, float *mean, float *out, const float *first, pl_streams rest, int n,
                        const float *w, float eps)
{
    (void)mean, (void)out, (void)first, (void)w, (void)eps;
    add(s, "output_norm", 1, 6.0 * n * (double)rest.hidden);
}

static void check_finite(pl_stream *s, const float *x, int n, int64_t cols, int32_t *bad)
{
    (void)x, (void)bad;
    add(s, "check_finite", 1, n * (double)cols);
}

static void softcap(pl_stream *s, float *x, int n, int64_t cols, float cap)
{
    (void)x, (void)cap;
    add(s, "softcap", 1, 2.0 * n * (double)cols);
}

static void draw(pl_stream *s, const float *logits, int64_t vocab, int n, pl_draw *const *draws, pl_drawn *const *drawn)
{
    (void)logits, (void)draws, (void)drawn;
    add(s, "draw", 2, 3.0 * n * (double)vocab);
}

static void take(pl_stream *s, int32_t *id, const int32_t *from, pl_draw *const *draws, int n)
{
    (void)id, (void)from, (void)draws;
    add(s, "take", 1, n);
}

static const pl_ops single_ops = {
    .quantize = quantize,
    .matmul = matmul,
    .embed = embed,
    .ple_look = ple_look,
    .ple_combine = ple_combine,
    .match_rms = match_rms,
    .altup_predict = altup_predict,
    .rope_table = rope_table,
    .qkv_store = qkv_store,
    .attention = attention,
    .attn_residual = attn_residual,
    .ffn_act = ffn_act,
    .ffn_stats = ffn_stats,
    .ffn_act_part = ffn_act_part,
    .ffn_sparse = ffn_sparse,
    .ffn_sparse_many = ffn_sparse,
    .head_top = head_top,
    .altup_correct = altup_correct,
    .ple_gate = ple_gate,
    .ple_add = ple_add,
    .output_norm = output_norm,
    .check_finite = check_finite,
    .softcap = softcap,
    .draw = draw,
    .take = take,
};

/* ---- several in one: what stays between them is not moved ---- */

static void fused_predict(pl_stream *s, pl_streams pred, float *x, pl_act *act, pl_streams streams, float *v,
                          const float *v_norm, const pl_rows *rows, const pl_altup *altup, const float *norm, float eps)
{
    (void)pred, (void)x, (void)act, (void)v_norm, (void)altup, (void)norm, (void)eps;
    add(s, "predict", 1, (v ? 14.6 : 9.6) * rows->n * (double)streams.hidden);
}

static void fused_attend(pl_stream *s, float *out, pl_act *act, float *q, float *k, float *v, const pl_kv_layer *kv,
                         const pl_rows *rows, pl_heads heads, int window, const float *q_norm, const float *k_norm,
                         const float *rope, float eps, bool distinct)
{
    (void)out, (void)act, (void)q, (void)k, (void)v, (void)q_norm, (void)k_norm, (void)rope, (void)eps;
    add_attention(s, "attend", kv, rows, heads, window);
    if (!distinct)
        s->counts->latest->launches++;
}

static void fused_attn_out(pl_stream *s, const pl_matmul *o, const pl_matmul *laurel)
{
    add_product(s, "attn_out", o);
    add_product(s, "attn_out", laurel);
    entry(s, "attn_out")->launches++;
}

static void fused_attn_residual(pl_stream *s, float *y, float *f, pl_act *act, float *laurel, const float *a,
                                const float *x, const float *att, const float *laurel_norm, const float *att_norm,
                                const float *ffn_norm, int n, int64_t hidden, float eps)
{
    (void)y, (void)f, (void)act, (void)laurel, (void)a, (void)x, (void)att, (void)laurel_norm, (void)att_norm;
    (void)ffn_norm, (void)eps;
    add(s, "attn_residual", 1, 7.6 * n * (double)hidden);
}

/* The share of units that are not cut, z deviations above the mean of a normal distribution, and of groups of `group`
 * of them that hold one. */
static double share_left(float z, int group)
{
    double left = z > 0 ? 0.05 : 1, none = 1; /* z is 1.645 in every published model */
    for (int i = 0; i < group; i++)
        none *= 1 - left;
    return 1 - none;
}

static void fused_ffn(pl_stream *s, const pl_ffn *ffn)
{
    const char *op = ffn->z > 0 ? "ffn, sparse" : "ffn";
    pl_matmul gate = {.w = ffn->gate, .x = ffn->x, .n_rows = ffn->n, .n_out = ffn->width};
    pl_matmul up = gate, down = {.w = ffn->down, .x = ffn->mid, .n_rows = ffn->n, .n_in = ffn->width};
    pl_weight needed_up = *ffn->up, needed_down = *ffn->down;
    int of_up = ffn->up->layout == PL_PANELS ? 16 : 1, of_down = ffn->down->layout == PL_PANELS ? 8 : 1;
    needed_up.bytes = (size_t)((double)needed_up.bytes * share_left(ffn->z, of_up * ffn->n));
    needed_down.bytes = (size_t)((double)needed_down.bytes * share_left(ffn->z, of_down * ffn->n));
    up.w = &needed_up;
    down.w = &needed_down;
    add_product(s, op, &gate);
    add_product(s, op, &up);
    add_product(s, op, &down);
    entry(s, op)->launches += ffn->z > 0 ? 3 : 2;
}

static void fused_altup_correct(pl_stream *s, pl_streams streams, float *y, float *gate_in, pl_act *act,
                                const float *ffn, pl_streams pred, const pl_rows *rows, const pl_altup *altup,
                                const float *norm, float eps)
{
    (void)y, (void)gate_in, (void)act, (void)ffn, (void)pred, (void)altup, (void)norm, (void)eps;
    add(s, "altup_correct", 1, 12.6 * rows->n * (double)streams.hidden);
}

static void fused_ple(pl_stream *s, const pl_ple_block *ple, const pl_rows *rows)
{
    pl_matmul gate = {.w = ple->gate, .x = ple->x, .n_rows = rows->n};
    pl_matmul proj = {.w = ple->proj, .x = ple->mid, .n_rows = rows->n};
    add_product(s, "ple", &gate);
    add_product(s, "ple", &proj);
    entry(s, "ple")->launches += rows->n <= 4 ? 1 : 2;
}

static void fused_ffn_act(pl_stream *s, pl_act *act, float *gate, const float *up, int64_t ld, int n,
                          const int32_t *width, float z)
{
    (void)act, (void)gate, (void)up, (void)ld, (void)z;
    for (int i = 0; i < n; i++)
        add(s, "ffn_act", i == 0, 2.6 * width[i]);
}

static void fused_ple_gate(pl_stream *s, pl_act *act, float *gate, const float *ple, int64_t ld, const pl_rows *rows,
                           int p)
{
    (void)act, (void)gate, (void)ple, (void)ld;
    add(s, "ple_gate", 1, 3.6 * rows->n * p);
}

static const pl_fused fused_ops = {
    .most_rows = PL_FUSED_ROWS,
    .predict = fused_predict,
    .attend = fused_attend,
    .attn_out = fused_attn_out,
    .attn_residual = fused_attn_residual,
    .ffn = fused_ffn,
    .altup_correct = fused_altup_correct,
    .ple = fused_ple,
    .ffn_act = fused_ffn_act,
    .ple_gate = fused_ple_gate,
};

/* ---- the backend ---- */

static size_t weight_bytes(const pl_backend *b, const pl_tensor *t)
{
    (void)b, (void)t;
    return 0;
}

static pl_status weight_load(pl_backend *b, const pl_tensor *t, void *dst, pl_weight *out, pl_error *err)
{
    (void)b, (void)dst, (void)err;
    size_t packed = pl_backend_cpu_weight_bytes(t);
    *out = (pl_weight){.name = t->name,
                       .data = t->data,
                       .rows = t->rows,
                       .cols = t->cols,
                       .type = t->type,
                       .packed = packed > 0,
                       .bytes = packed ? packed : (size_t)t->rows * pl_tensor_row_bytes(t)};
    return PL_OK;
}

static void *memory_take(pl_backend *b, size_t bytes)
{
    (void)b;
    return calloc(1, bytes);
}

static void memory_give(pl_backend *b, void *memory, size_t bytes)
{
    (void)b, (void)bytes;
    free(memory);
}

static void copy(pl_stream *s, void *dst, const void *src, size_t bytes)
{
    (void)s;
    memcpy(dst, src, bytes);
}

static pl_status fetch(pl_stream *s, const void *src, size_t bytes, const void **out, pl_error *err)
{
    (void)s, (void)bytes, (void)err;
    if (out)
        *out = src;
    return PL_OK;
}

static uint64_t mark(pl_stream *s)
{
    (void)s;
    return 1;
}

static pl_status wait_for(pl_stream *s, uint64_t at, pl_error *err)
{
    (void)s, (void)at, (void)err;
    return PL_OK;
}

static bool begin(pl_stream *s, const void *key, size_t key_bytes)
{
    (void)s, (void)key, (void)key_bytes;
    return true;
}

static void end(pl_stream *s)
{
    (void)s;
}

static void fork_or_join(pl_backend *b)
{
    (void)b;
}

static void destroy(pl_backend *b)
{
    pl_pool_free(b->pool);
    free(b);
}

pl_status pl_count_backend(pl_counts *counts, bool fused, pl_backend **out, pl_error *err)
{
    counting *c = calloc(1, sizeof *c);
    if (!c)
        return pl_fail_memory(err, sizeof *c, "counting");
    c->stream.counts = counts;
    c->base = (pl_backend){
        .name = "counting",
        .ops = &single_ops,
        .fused = fused ? &fused_ops : NULL,
        .stream = &c->stream,
        .side = &c->stream,
        .weight_bytes = weight_bytes,
        .weight_load = weight_load,
        .memory_take = memory_take,
        .memory_give = memory_give,
        .shared_take = memory_take,
        .shared_give = memory_give,
        .upload = copy,
        .copy = copy,
        .download = copy,
        .fetch = fetch,
        .mark = mark,
        .wait_for = wait_for,
        .begin = begin,
        .end = end,
        .fork = fork_or_join,
        .join = fork_or_join,
        .destroy = destroy,
    };
    pl_status status = pl_pool_create(1, NULL, &c->base.pool, err);
    if (status != PL_OK) {
        free(c);
        return status;
    }
    *out = &c->base;
    return PL_OK;
}
