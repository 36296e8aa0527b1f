/* The op table: what a backend computes. The model (host/engine/step.c) is a walk over these.
 *
 * Conventions
 *   Matrices are row-major f32 unless said otherwise; `ld` is the distance between rows in elements.
 *   H hidden, P per-layer width, Q heads * head_dim, K kv_heads * head_dim, F FFN width, A = 4 streams.
 *   A step has slots: one per token, in the order given. A layer works on n <= slots of them; `slot[i]`
 *   says which slot row i stands for. Residual streams are stored by slot, everything else by row.
 *   Ops never allocate and never synchronise with the host, and what changes from step to step reaches
 *   them through memory (ids, positions, slots, widths, page tables), so that a step can be captured and
 *   replayed.
 *   A row's result never depends on the other rows of the step: bit for bit.
 *   Numerics: f32 throughout; docs/numerics.md bounds the difference between backends.
 * Source of the formulas: Gemma 3n as in Hugging Face transformers, modeling_gemma3n. */
#ifndef PL_OPS_OPS_H
#define PL_OPS_OPS_H

#include "host/ops/matmul.h"

#define PL_STREAMS 4

typedef struct pl_stream pl_stream; /* a backend's queue of work; the CPU's runs at once */

/* The four residual streams, or any four like them: stream k, row i at v + (k * rows + i) * H. */
typedef struct pl_streams {
    float *v;
    int64_t rows; /* room for rows in each stream */
    int64_t hidden;
} pl_streams;

typedef struct pl_altup {
    const float *router_norm; /* [H] */
    const float *router;      /* [A][H] */
    const float *predict;     /* [A*A][A]: coefficient of stream j in prediction k is row A*k + j */
    const float *correct;     /* [A][A] */
    const float *scale;       /* [H], or NULL: the gate reads stream 0 unscaled */
} pl_altup;

/* One layer's K/V in paged memory. Token t of a sequence lies in page table[t / PL_KV_PAGE]; there, K of
 * head h at k + page * page_stride + (h * PL_KV_PAGE + t % PL_KV_PAGE) * head_dim; V likewise. */
#define PL_KV_PAGE 64
typedef struct pl_kv_layer {
    float *k, *v;
    int64_t page_stride;  /* in elements */
    const int32_t *table; /* [sequences][table_ld] */
    int64_t table_ld;
} pl_kv_layer;

/* The rows of a layer. */
typedef struct pl_rows {
    int n;
    const int32_t *slot;
    const int32_t *position; /* [n] of the token in its sequence, from 0 */
    const int32_t *sequence; /* [n] row of the page table */
} pl_rows;

typedef struct pl_heads {
    int heads, kv_heads, dim;
} pl_heads;

typedef struct pl_ops {
    /* Fills act's integer twin from act->f32 (see pl_act). */
    void (*quantize)(pl_stream *s, pl_act *act, int n);

    /* See pl_matmul. */
    void (*matmul)(pl_stream *s, const pl_matmul *jobs, int n_jobs);

    /* out[i] = scale * table[id[i]]; out: [n][H]. cost: n rows of the table */
    void (*embed)(pl_stream *s, float *out, const pl_weight *table, const int32_t *id, int n, float scale);

    /* ple[i][l] = (norm(proj[i][l] * proj_scale; w) + ple[i][l] * look_scale) / sqrt(2), each over P values,
     * for the first layers[i] layers. ple, proj: [n][ld] */
    void (*ple_combine)(pl_stream *s, float *ple, const float *proj, int64_t ld, const float *w, int n,
                        const int32_t *layers, int p, float proj_scale, float look_scale, float eps);

    /* u[i] *= rms(ref[i]) / sqrt(max(mean(u[i]^2), 1e-5)); u, ref: [n][H]. cost: 12 n H bytes */
    void (*match_rms)(pl_stream *s, float *u, const float *ref, int n, int64_t hidden);

    /* AltUp prediction and the input norm: pred[k][i] = S[k] + sum_j c[k][j] S[j] with S = streams at slot[i];
     * x[i] = norm(pred[0][i]; norm). cost: 36 n H bytes */
    void (*altup_predict)(pl_stream *s, pl_streams pred, float *x, pl_streams streams, const pl_rows *rows,
                          const pl_altup *altup, const float *norm, float eps);

    /* cos and sin of position * inv_freq: out [n][2][half]; inv_freq [half] */
    void (*rope_table)(pl_stream *s, float *out, const int32_t *position, int n, const float *inv_freq, int half);

    /* q in place: norm per head, then rotation; k likewise into the cache, v normed without weight into the
     * cache (k == NULL: a layer without own K/V). rope: [slots][dim] as rope_table writes it, read at
     * slot[i]. q: [n][Q]; k, v: [n][K], left normed and rotated. */
    void (*qkv_store)(pl_stream *s, float *q, float *k, float *v, const pl_kv_layer *kv, const pl_rows *rows,
                      pl_heads heads, const float *q_norm, const float *k_norm, const float *rope, float eps);

    /* out[i] = softmax(q[i] . K) V over the keys that row i sees: its own position and before, at most `window`
     * of them (0: all). Scale 1. out, q: [n][Q], may not overlap. cost: K/V bytes seen */
    void (*attention)(pl_stream *s, float *out, const float *q, const pl_kv_layer *kv, const pl_rows *rows,
                      pl_heads heads, int window);

    /* laurel[i] = x[i] + norm(laurel[i]; laurel_norm);  y[i] = (a[i] + norm(att[i]; att_norm) + laurel[i]) / sqrt(2);
     * f[i] = norm(y[i]; ffn_norm). All [n][H]; y may be att. cost: 24 n H bytes */
    void (*attn_residual)(pl_stream *s, float *y, float *f, float *laurel, const float *a, const float *x,
                          const float *att, const float *laurel_norm, const float *att_norm, const float *ffn_norm,
                          int n, int64_t hidden, float eps);

    /* gate[i][j] = gelu(max(0, gate[i][j] - cut[i])) * up[i][j] for j < width[i], with cut = mean + z * std of the
     * row's width[i] gates (biased std); z = -INFINITY: no cut and no max. gelu: tanh form. In place. */
    void (*ffn_act)(pl_stream *s, float *gate, const float *up, int64_t ld, int n, const int32_t *width, float z);

    /* y[i] += norm(ffn[i]; norm);  S[k] at slot[i] = pred[k] + c[k] * (y - pred[0]);  gate_in[i] = S[0] * scale */
    void (*altup_correct)(pl_stream *s, pl_streams streams, float *y, float *gate_in, const float *ffn, pl_streams pred,
                          const pl_rows *rows, const pl_altup *altup, const float *norm, float eps);

    /* gate[i] = gelu(gate[i]) * ple[slot[i]]; gate: [n][P]; ple: P values at ple + slot * ld */
    void (*ple_gate)(pl_stream *s, float *gate, const float *ple, int64_t ld, const pl_rows *rows, int p);

    /* v[i] = norm(v[i]; w); S[k] at slot[i] += v[i] for k = 1, 2, 3 */
    void (*ple_add)(pl_stream *s, pl_streams streams, float *v, const pl_rows *rows, const float *w, float eps);

    /* mean[i] = (first[i] + rest[1][i] + rest[2][i] + rest[3][i]) / 4; out[i] = norm(mean[i]; w) */
    void (*output_norm)(pl_stream *s, float *mean, float *out, const float *first, pl_streams rest, int n,
                        const float *w, float eps);

    /* x = tanh(x / cap) * cap; x: [n][cols] */
    void (*softcap)(pl_stream *s, float *x, int n, int64_t cols, float cap);
} pl_ops;

#endif
