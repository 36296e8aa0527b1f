#include "host/measure/op_timer.h"

#include <stdlib.h>
#include <string.h>

#include "host/base/clock.h"
#include "host/engine/engine.h"
#include "host/engine/step_parts.h"

/* The stream that a timed op is given. */
struct pl_stream {
    const pl_backend *real, *counter;
    pl_counts counts;
    int64_t steps, rows;
    double started, seconds;
    bool counting;
};

struct pl_op_timer {
    pl_backend base; /* of the engine's backend, what a step calls; the first, so that a pointer to it is one to both */
    pl_stream stream;
    pl_ops ops;
    pl_fused fused;
    pl_backend *counter;
    pl_step *step;
};

/* ---- ops ---- */

typedef struct call {
    double begin;
    pl_skipped skipped;
} call;

static call begin_call(const pl_stream *s)
{
    return (call){pl_clock_seconds(), s->real->skipped(s->real)};
}

/* What was left out only the backend knows. */
static void end_call(pl_stream *s, call c)
{
    pl_counted *op = s->counts.latest;
    pl_skipped skipped = s->real->skipped(s->real);
    double bytes = (double)(int64_t)(skipped.bytes - c.skipped.bytes);
    double products = (double)(int64_t)(skipped.products - c.skipped.products);
    op->seconds += pl_clock_seconds() - c.begin;
    op->calls++;
    op->bytes -= bytes;
    op->stored_bytes -= bytes;
    op->int_ops -= products;
}

/* timed_<table>_<op>: counts, then runs and times. */
#define TIMED(table, op, parameters, ...)                                                                              \
    static void timed_##table##_##op parameters                                                                        \
    {                                                                                                                  \
        if (!s->counting) {                                                                                            \
            s->real->table->op(s->real->stream, __VA_ARGS__);                                                          \
            return;                                                                                                    \
        }                                                                                                              \
        s->counter->table->op(s->counter->stream, __VA_ARGS__);                                                        \
        call c = begin_call(s);                                                                                        \
        s->real->table->op(s->real->stream, __VA_ARGS__);                                                              \
        end_call(s, c);                                                                                                \
    }

TIMED(ops, quantize, (pl_stream * s, pl_act *act, int n), act, n)
TIMED(ops, matmul, (pl_stream * s, const pl_matmul *jobs, int n), jobs, n)
TIMED(ops, ple_look,
      (pl_stream * s, float *ple, int64_t ld, const pl_ple_rows *from, const int32_t *id, const int32_t *layers, int n,
       int p, int32_t *bad),
      ple, ld, from, id, layers, n, p, bad)
TIMED(ops, ple_combine,
      (pl_stream * s, float *ple, const float *proj, int64_t ld, const float *w, int n, const int32_t *layers, int p,
       float proj_scale, float look_scale, float eps),
      ple, proj, ld, w, n, layers, p, proj_scale, look_scale, eps)
TIMED(ops, match_rms, (pl_stream * s, float *u, const float *ref, int n, int64_t hidden), u, ref, n, hidden)
TIMED(ops, altup_predict,
      (pl_stream * s, pl_streams pred, float *x, pl_streams streams, const pl_rows *rows, const pl_altup *altup,
       const float *norm, float eps),
      pred, x, streams, rows, altup, norm, eps)
TIMED(ops, rope_table, (pl_stream * s, float *out, const int32_t *position, int n, const float *inv_freq, int half),
      out, position, n, inv_freq, half)
TIMED(ops, qkv_store,
      (pl_stream * s, float *q, float *k, float *v, const pl_kv_layer *kv, const pl_rows *rows, pl_heads heads,
       const float *q_norm, const float *k_norm, const float *rope, float eps),
      q, k, v, kv, rows, heads, q_norm, k_norm, rope, eps)
TIMED(ops, attention,
      (pl_stream * s, float *out, const float *q, const pl_kv_layer *kv, const pl_rows *rows, pl_heads heads,
       int window),
      out, q, kv, rows, heads, window)
TIMED(ops, attn_residual,
      (pl_stream * s, float *y, float *f, float *laurel, const float *a, const float *x, const float *att,
       const float *laurel_norm, const float *att_norm, const float *ffn_norm, int n, int64_t hidden, float eps),
      y, f, laurel, a, x, att, laurel_norm, att_norm, ffn_norm, n, hidden, eps)
TIMED(ops, ffn_act, (pl_stream * s, float *gate, const float *up, int64_t ld, int n, const int32_t *width, float z),
      gate, up, ld, n, width, z)
TIMED(ops, ffn_stats, (pl_stream * s, double *stats, const float *gate, int64_t ld, int n, const int32_t *width), stats,
      gate, ld, n, width)
TIMED(ops, ffn_act_part,
      (pl_stream * s, float *gate, const float *up, int64_t ld, int n, const int32_t *width, const double *stats,
       float z),
      gate, up, ld, n, width, stats, z)
TIMED(ops, ffn_sparse, (pl_stream * s, const pl_ffn *ffn), ffn)
TIMED(ops, ffn_sparse_many, (pl_stream * s, const pl_ffn *ffn), ffn)
TIMED(ops, head_top,
      (pl_stream * s, const pl_weight *head, pl_act *x, float *logits, int n, const int32_t *top, float cap), head, x,
      logits, n, top, cap)
TIMED(ops, altup_correct,
      (pl_stream * s, pl_streams streams, float *y, float *gate_in, const float *ffn, pl_streams pred,
       const pl_rows *rows, const pl_altup *altup, const float *norm, float eps),
      streams, y, gate_in, ffn, pred, rows, altup, norm, eps)
TIMED(ops, ple_gate, (pl_stream * s, float *gate, const float *ple, int64_t ld, const pl_rows *rows, int p), gate, ple,
      ld, rows, p)
TIMED(ops, ple_add, (pl_stream * s, pl_streams streams, float *v, const pl_rows *rows, const float *w, float eps),
      streams, v, rows, w, eps)
TIMED(ops, output_norm,
      (pl_stream * s, float *mean, float *out, const float *first, pl_streams rest, int n, const float *w, float eps),
      mean, out, first, rest, n, w, eps)
TIMED(ops, check_finite, (pl_stream * s, const float *x, int n, int64_t cols, int32_t *bad), x, n, cols, bad)
TIMED(ops, softcap, (pl_stream * s, float *x, int n, int64_t cols, float cap), x, n, cols, cap)
TIMED(ops, draw,
      (pl_stream * s, const float *logits, int64_t vocab, int n, pl_draw *const *draws, pl_drawn *const *drawn), logits,
      vocab, n, draws, drawn)
TIMED(ops, take, (pl_stream * s, int32_t *id, const int32_t *from, pl_draw *const *draws, int n), id, from, draws, n)

TIMED(fused, predict,
      (pl_stream * s, pl_streams pred, float *x, pl_act *act, pl_streams streams, float *v, const float *v_norm,
       const pl_rows *rows, const pl_altup *altup, const float *norm, float eps),
      pred, x, act, streams, v, v_norm, rows, altup, norm, eps)
TIMED(fused, attend,
      (pl_stream * s, float *out, pl_act *act, float *q, float *k, float *v, const pl_kv_layer *kv, const pl_rows *rows,
       pl_heads heads, int window, const float *q_norm, const float *k_norm, const float *rope, float eps,
       bool distinct),
      out, act, q, k, v, kv, rows, heads, window, q_norm, k_norm, rope, eps, distinct)
TIMED(fused, attn_out, (pl_stream * s, const pl_matmul *o, const pl_matmul *laurel), o, laurel)
TIMED(fused, attn_residual,
      (pl_stream * s, float *y, float *f, pl_act *act, float *laurel, const float *a, const float *x, const float *att,
       const float *laurel_norm, const float *att_norm, const float *ffn_norm, int n, int64_t hidden, float eps),
      y, f, act, laurel, a, x, att, laurel_norm, att_norm, ffn_norm, n, hidden, eps)
TIMED(fused, ffn, (pl_stream * s, const pl_ffn *ffn), ffn)
TIMED(fused, altup_correct,
      (pl_stream * s, pl_streams streams, float *y, float *gate_in, pl_act *act, const float *ffn, pl_streams pred,
       const pl_rows *rows, const pl_altup *altup, const float *norm, float eps),
      streams, y, gate_in, act, ffn, pred, rows, altup, norm, eps)
TIMED(fused, ple, (pl_stream * s, const pl_ple_block *block, const pl_rows *rows), block, rows)
TIMED(fused, ffn_act,
      (pl_stream * s, pl_act *act, float *gate, const float *up, int64_t ld, int n, const int32_t *width, float z), act,
      gate, up, ld, n, width, z)
TIMED(fused, ple_gate,
      (pl_stream * s, pl_act *act, float *gate, const float *ple, int64_t ld, const pl_rows *rows, int p), act, gate,
      ple, ld, rows, p)

/* Each step has one of these. */
static void timed_ops_embed(pl_stream *s, float *out, const pl_embed_from *from, const int32_t *id, int n)
{
    s->steps += s->counting;
    s->rows += s->counting ? n : 0;
    if (s->counting)
        s->counter->ops->embed(s->counter->stream, out, from, id, n);
    call c = begin_call(s);
    s->real->ops->embed(s->real->stream, out, from, id, n);
    if (s->counting)
        end_call(s, c);
}

static const pl_ops timed_ops = {
    .quantize = timed_ops_quantize,
    .matmul = timed_ops_matmul,
    .embed = timed_ops_embed,
    .ple_look = timed_ops_ple_look,
    .ple_combine = timed_ops_ple_combine,
    .match_rms = timed_ops_match_rms,
    .altup_predict = timed_ops_altup_predict,
    .rope_table = timed_ops_rope_table,
    .qkv_store = timed_ops_qkv_store,
    .attention = timed_ops_attention,
    .attn_residual = timed_ops_attn_residual,
    .ffn_act = timed_ops_ffn_act,
    .ffn_stats = timed_ops_ffn_stats,
    .ffn_act_part = timed_ops_ffn_act_part,
    .ffn_sparse = timed_ops_ffn_sparse,
    .ffn_sparse_many = timed_ops_ffn_sparse_many,
    .head_top = timed_ops_head_top,
    .altup_correct = timed_ops_altup_correct,
    .ple_gate = timed_ops_ple_gate,
    .ple_add = timed_ops_ple_add,
    .output_norm = timed_ops_output_norm,
    .check_finite = timed_ops_check_finite,
    .softcap = timed_ops_softcap,
    .draw = timed_ops_draw,
    .take = timed_ops_take,
};

static const pl_fused timed_fused = {
    .predict = timed_fused_predict,
    .attend = timed_fused_attend,
    .attn_out = timed_fused_attn_out,
    .attn_residual = timed_fused_attn_residual,
    .ffn = timed_fused_ffn,
    .altup_correct = timed_fused_altup_correct,
    .ple = timed_fused_ple,
    .ffn_act = timed_fused_ffn_act,
    .ple_gate = timed_fused_ple_gate,
};

/* Takes out of a table of ops what the real one has not got. */
static void keep_offered(void *table, const void *real, size_t bytes)
{
    static const char nothing[sizeof(void (*)(void))];
    for (size_t at = 0; at < bytes; at += sizeof nothing)
        if (memcmp((const char *)real + at, nothing, sizeof nothing) == 0)
            memset((char *)table + at, 0, sizeof nothing);
}

/* ---- what else a step calls ---- */

static void timed_copy(pl_stream *s, void *dst, const void *src, size_t bytes)
{
    s->real->copy(s->real->stream, dst, src, bytes);
}

static void timed_upload(pl_stream *s, void *dst, const void *src, size_t bytes)
{
    s->real->upload(s->real->stream, dst, src, bytes);
}

static void timed_download(pl_stream *s, void *dst, const void *src, size_t bytes)
{
    s->real->download(s->real->stream, dst, src, bytes);
}

static pl_status timed_fetch(pl_stream *s, const void *src, size_t bytes, const void **out, pl_error *err)
{
    return s->real->fetch(s->real->stream, src, bytes, out, err);
}

static uint64_t timed_mark(pl_stream *s)
{
    return s->real->mark(s->real->stream);
}

static pl_status timed_wait_for(pl_stream *s, uint64_t mark, pl_error *err)
{
    return s->real->wait_for(s->real->stream, mark, err);
}

static bool timed_begin(pl_stream *s, const void *key, size_t key_bytes)
{
    return s->real->begin(s->real->stream, key, key_bytes);
}

static void timed_end(pl_stream *s)
{
    s->real->end(s->real->stream);
}

static pl_backend *real_of(pl_backend *b)
{
    pl_op_timer *t = (pl_op_timer *)b;
    return t->step->net->backend;
}

static void *timed_memory_take(pl_backend *b, size_t bytes)
{
    return real_of(b)->memory_take(real_of(b), bytes);
}

static void timed_memory_give(pl_backend *b, void *memory, size_t bytes)
{
    real_of(b)->memory_give(real_of(b), memory, bytes);
}

static void *timed_shared_take(pl_backend *b, size_t bytes)
{
    return real_of(b)->shared_take(real_of(b), bytes);
}

static void timed_shared_give(pl_backend *b, void *memory, size_t bytes)
{
    real_of(b)->shared_give(real_of(b), memory, bytes);
}

/* The CPU has one stream: nothing runs beside it. */
static void timed_fork_or_join(pl_backend *b)
{
    (void)b;
}

/* ---- the timer ---- */

static void stand_between(pl_op_timer *t)
{
    const pl_backend *real = t->stream.real;
    t->ops = timed_ops;
    t->fused = timed_fused;
    keep_offered(&t->ops, real->ops, sizeof t->ops);
    if (real->fused) {
        keep_offered(&t->fused, real->fused, sizeof t->fused);
        t->fused.most_rows = real->fused->most_rows;
    }
    t->base = (pl_backend){
        .wide_acts = real->wide_acts,
        .rounds = real->rounds,
        .name = real->name,
        .ops = &t->ops,
        .fused = real->fused ? &t->fused : NULL,
        .stream = &t->stream,
        .side = &t->stream,
        .pool = real->pool,
        .memory_take = timed_memory_take,
        .memory_give = timed_memory_give,
        .shared_take = timed_shared_take,
        .shared_give = timed_shared_give,
        .copy = timed_copy,
        .upload = timed_upload,
        .download = timed_download,
        .fetch = timed_fetch,
        .mark = timed_mark,
        .wait_for = timed_wait_for,
        .begin = timed_begin,
        .end = timed_end,
        .fork = timed_fork_or_join,
        .join = timed_fork_or_join,
    };
    t->step->backend = &t->base;
    t->step->ops = &t->ops;
    t->step->stream = &t->stream;
}

pl_status pl_op_timer_create(pl_engine *engine, pl_op_timer **out, pl_error *err)
{
    if (engine->placement.backend != PL_BACKEND_CPU)
        return pl_fail(err, PL_ERR_UNSUPPORTED, "ops are timed on the CPU only, this engine is on %s",
                       engine->backend->name);
    if (engine->ranks)
        return pl_fail(err, PL_ERR_UNSUPPORTED, "ops are not timed where ranks share the model (--tp)");
    pl_op_timer *t = calloc(1, sizeof *t);
    if (!t)
        return pl_fail_memory(err, sizeof *t, "timing ops");
    pl_status status = pl_count_backend(&t->stream.counts, true, &t->counter, err);
    if (status != PL_OK) {
        free(t);
        return status;
    }
    t->step = engine->step;
    t->stream.real = engine->backend;
    t->stream.counter = t->counter;
    pl_op_timer_clear(t);
    stand_between(t);
    *out = t;
    return PL_OK;
}

void pl_op_timer_free(pl_op_timer *t)
{
    if (!t)
        return;
    t->step->backend = t->step->net->backend;
    t->step->ops = t->step->backend->ops;
    t->step->stream = t->step->backend->stream;
    pl_backend_free(t->counter);
    free(t);
}

void pl_op_timer_clear(pl_op_timer *t)
{
    t->stream.counts = (pl_counts){.split = true};
    t->stream.steps = t->stream.rows = 0;
    t->stream.seconds = 0;
}

void pl_op_timer_start(pl_op_timer *t)
{
    t->stream.counting = true;
    t->stream.started = pl_clock_seconds();
}

void pl_op_timer_stop(pl_op_timer *t)
{
    if (t->stream.counting)
        t->stream.seconds += pl_clock_seconds() - t->stream.started;
    t->stream.counting = false;
}

pl_op_times pl_op_timer_read(const pl_op_timer *t)
{
    return (pl_op_times){
        .counts = &t->stream.counts, .steps = t->stream.steps, .rows = t->stream.rows, .seconds = t->stream.seconds};
}
