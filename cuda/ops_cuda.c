/* The ops: each hands its arguments to the launcher of cuda/kernels.h. */
#include "cuda/ops_cuda.h"

#include "cuda/draw.h"
#include "cuda/kernels.h"
#include "cuda/queue.h"

#include <assert.h>

#define QUEUE(s, op, ...)                                                                                              \
    do {                                                                                                               \
        if (pl_card_ready((s)->card))                                                                                  \
            pl_card_note((s)->card, pl_cuda_##op((s)->queue, __VA_ARGS__), #op);                                       \
    } while (0)

static void quantize(pl_stream *s, pl_act *act, int n)
{
    act->rows = n;
    QUEUE(s, quantize, act, n);
}

static void matmul(pl_stream *s, const pl_matmul *jobs, int n_jobs)
{
    int most = 0;
    for (int i = 0; i < n_jobs; i++)
        most = jobs[i].n_rows > most ? jobs[i].n_rows : most;
    if (most <= PL_FUSED_ROWS)
        QUEUE(s, matmul_few, jobs, n_jobs);
    else
        QUEUE(s, matmul_many, jobs, n_jobs);
}

static void embed(pl_stream *s, float *out, const pl_embed_from *from, const int32_t *id, int n)
{
    QUEUE(s, embed, out, from, id, n);
}

static void ple_look(pl_stream *s, float *ple, int64_t ld, const pl_ple_rows *from, const int32_t *id,
                     const int32_t *layers, int n, int p, int32_t *bad)
{
    QUEUE(s, ple_look, ple, ld, from, id, layers, n, p, bad);
}

static void ple_combine(pl_stream *s, float *ple, const float *proj, int64_t ld, const float *w, int n,
                        const int32_t *layers, int p, float proj_scale, float look_scale, float eps)
{
    QUEUE(s, ple_combine, ple, proj, ld, w, n, layers, p, proj_scale, look_scale, eps);
}

static void match_rms(pl_stream *s, float *u, const float *ref, int n, int64_t hidden)
{
    QUEUE(s, match_rms, u, ref, n, hidden);
}

static void altup_predict(pl_stream *s, pl_streams pred, float *x, pl_streams streams, const pl_rows *rows,
                          const pl_altup *altup, const float *norm, float eps)
{
    QUEUE(s, altup_predict, pred, x, streams, rows, altup, norm, eps);
}

static void rope_table(pl_stream *s, float *out, const int32_t *position, int n, const float *inv_freq, int half)
{
    QUEUE(s, rope_table, out, position, n, inv_freq, half);
}

static void qkv_store(pl_stream *s, float *q, float *k, float *v, const pl_kv_layer *kv, const pl_rows *rows,
                      pl_heads heads, const float *q_norm, const float *k_norm, const float *rope, float eps)
{
    QUEUE(s, qkv_store, q, k, v, kv, rows, heads, q_norm, k_norm, rope, eps);
}

static void attention(pl_stream *s, float *out, const float *q, const pl_kv_layer *kv, const pl_rows *rows,
                      pl_heads heads, int window)
{
    assert(s->scratch);
    QUEUE(s, attention, out, q, kv, rows, heads, window, s->max_context, s->scratch);
}

static void attn_residual(pl_stream *s, float *y, float *f, float *laurel, const float *a, const float *x,
                          const float *att, const float *laurel_norm, const float *att_norm, const float *ffn_norm,
                          int n, int64_t hidden, float eps)
{
    QUEUE(s, attn_residual, y, f, laurel, a, x, att, laurel_norm, att_norm, ffn_norm, n, hidden, eps);
}

static void ffn_act(pl_stream *s, float *gate, const float *up, int64_t ld, int n, const int32_t *width, float z)
{
    QUEUE(s, ffn_act, gate, up, ld, n, width, z);
}

static void ffn_stats(pl_stream *s, double *stats, const float *gate, int64_t ld, int n, const int32_t *width)
{
    QUEUE(s, ffn_stats, stats, gate, ld, n, width);
}

static void ffn_act_part(pl_stream *s, float *gate, const float *up, int64_t ld, int n, const int32_t *width,
                         const double *stats, float z)
{
    QUEUE(s, ffn_act_part, gate, up, ld, n, width, stats, z);
}

static void altup_correct(pl_stream *s, pl_streams streams, float *y, float *gate_in, const float *ffn, pl_streams pred,
                          const pl_rows *rows, const pl_altup *altup, const float *norm, float eps)
{
    QUEUE(s, altup_correct, streams, y, gate_in, ffn, pred, rows, altup, norm, eps);
}

static void ple_gate(pl_stream *s, float *gate, const float *ple, int64_t ld, const pl_rows *rows, int p)
{
    QUEUE(s, ple_gate, gate, ple, ld, rows, p);
}

static void ple_add(pl_stream *s, pl_streams streams, float *v, const pl_rows *rows, const float *w, float eps)
{
    QUEUE(s, ple_add, streams, v, rows, w, eps);
}

static void output_norm(pl_stream *s, float *mean, float *out, const float *first, pl_streams rest, int n,
                        const float *w, float eps)
{
    QUEUE(s, output_norm, mean, out, first, rest, n, w, eps);
}

static void check_finite(pl_stream *s, const float *x, int n, int64_t cols, int32_t *bad)
{
    QUEUE(s, check_finite, x, n, cols, bad);
}

static void softcap(pl_stream *s, float *x, int n, int64_t cols, float cap)
{
    QUEUE(s, softcap, x, n, cols, cap);
}

static void draw(pl_stream *s, const float *logits, int64_t vocab, int n, pl_draw *const *draws, pl_drawn *const *drawn)
{
    assert(s->draw_scratch && n <= PL_FUSED_ROWS);
    QUEUE(s, draw, logits, vocab, n, draws, drawn, s->draw_scratch);
}

static void take(pl_stream *s, int32_t *id, const int32_t *from, pl_draw *const *draws, int n)
{
    QUEUE(s, take, id, from, draws, n);
}

const pl_ops pl_cuda_ops = {
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
    .altup_correct = altup_correct,
    .ple_gate = ple_gate,
    .ple_add = ple_add,
    .output_norm = output_norm,
    .check_finite = check_finite,
    .softcap = softcap,
    .draw = draw,
    .take = take,
};

/* ---- several in one ---- */

static void fused_predict(pl_stream *s, pl_streams pred, float *x, pl_act *act, pl_streams streams, float *v,
                          const float *v_norm, const pl_rows *rows, const pl_altup *altup, const float *norm, float eps)
{
    act->rows = rows->n;
    QUEUE(s, fused_predict, pred, x, act, streams, v, v_norm, rows, altup, norm, eps);
}

static void fused_attend(pl_stream *s, float *out, pl_act *act, float *q, float *k, float *v, const pl_kv_layer *kv,
                         const pl_rows *rows, pl_heads heads, int window, const float *q_norm, const float *k_norm,
                         const float *rope, float eps, bool distinct)
{
    assert(s->scratch);
    act->rows = rows->n;
    QUEUE(s, fused_attend, out, act, q, k, v, kv, rows, heads, window, q_norm, k_norm, rope, eps, distinct,
          s->max_context, s->scratch);
}

static void fused_attn_out(pl_stream *s, const pl_matmul *o, const pl_matmul *laurel)
{
    QUEUE(s, fused_attn_out, o, laurel);
}

static void fused_attn_residual(pl_stream *s, float *y, float *f, pl_act *act, float *laurel, const float *a,
                                const float *x, const float *att, const float *laurel_norm, const float *att_norm,
                                const float *ffn_norm, int n, int64_t hidden, float eps)
{
    act->rows = n;
    QUEUE(s, fused_attn_residual, y, f, act, laurel, a, x, att, laurel_norm, att_norm, ffn_norm, n, hidden, eps);
}

static void fused_ffn(pl_stream *s, const pl_ffn *ffn)
{
    ffn->mid->rows = ffn->n;
    QUEUE(s, fused_ffn, ffn);
}

static void fused_altup_correct(pl_stream *s, pl_streams streams, float *y, float *gate_in, pl_act *act,
                                const float *ffn, pl_streams pred, const pl_rows *rows, const pl_altup *altup,
                                const float *norm, float eps)
{
    act->rows = rows->n;
    QUEUE(s, fused_altup_correct, streams, y, gate_in, act, ffn, pred, rows, altup, norm, eps);
}

static void fused_ple(pl_stream *s, const pl_ple_block *ple, const pl_rows *rows)
{
    assert(s->barrier);
    ple->mid->rows = rows->n;
    QUEUE(s, fused_ple, ple, rows, s->barrier);
}

const pl_fused pl_cuda_fused = {
    .most_rows = PL_FUSED_ROWS,
    .predict = fused_predict,
    .attend = fused_attend,
    .attn_out = fused_attn_out,
    .attn_residual = fused_attn_residual,
    .ffn = fused_ffn,
    .altup_correct = fused_altup_correct,
    .ple = fused_ple,
};
