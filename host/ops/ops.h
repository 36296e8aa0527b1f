/* The op table: what a backend computes. The model (host/engine/walk.c) is a walk over these.
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

#include "host/ops/kv_page.h"
#include "host/ops/matmul.h"

#define PL_STREAMS 4
#define PL_HEAD_ROWS 8
#define PL_HEAD_TOP 128
#define PL_HEAD_GUESS (-1)

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
 * head h at k + page * page_stride + (h * PL_KV_PAGE + t % PL_KV_PAGE) * head_dim; V likewise. Of other types than f32
 * (host/ops/kv_page.h), which only the CPU has, head h begins h * pl_kv_head_bytes() behind the page's beginning. */
typedef struct pl_kv_layer {
    float *k, *v;
    int64_t page_stride;  /* in floats, whatever the type */
    const int32_t *table; /* [sequences][table_ld] */
    int64_t table_ld;
    pl_cache_type type;
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

/* Rows of the table of per-layer embeddings, as the file has them.
 *
 * ready == NULL: `base` is the whole table; an id outside [0, vocab) reads row 0. Else the rows of each step are brought
 * to a slot of their own by the PLE service: row i of the step is row i of slot *ticket % slots, and is there as soon as
 * *ready >= *ticket (counted modulo 2^32). */
typedef struct pl_ple_rows {
    const char *name; /* of the tensor, for messages */
    const void *base;
    pl_dtype type;
    size_t row_bytes;
    int32_t vocab;
    const uint32_t *ready;  /* written by the host while the op waits */
    const uint32_t *ticket; /* of this step */
    uint32_t slots;
    size_t slot_bytes;
} pl_ple_rows;

/* The token that a sequence's last draw chose and how many it has drawn, in shared memory (pl_backend.shared_take): the
 * op writes both in one go, eight aligned bytes, while the host may be reading. */
typedef union pl_drawn {
    struct {
        int32_t token;
        uint32_t count;
    };
    uint64_t both;
} pl_drawn;

typedef struct pl_draw pl_draw;

/* Row i of logits, [n][vocab], is drawn[i]'s and draws[i]'s next draw; no two rows are of one sequence. Chooses, moves
 * rng on, appends the token to the history, then writes {token, count} to *drawn[i] (in shared memory) in one go: once
 * the host reads the new count there (an acquire), the draw is done. Nothing is appended for PL_DRAW_... in place of
 * a token. logits are only read. draws, drawn: in the ops' memory.
 * cost: 8 n vocab bytes, then per row a few thousand bytes for each of the k best; orders in which top-p or min-p
 * stand before top-k read a row's 4 vocab bytes tens of times, at the speed of one block */
typedef void (*pl_op_draw)(pl_stream *s, const float *logits, int64_t vocab, int n, pl_draw *const *draws,
                           pl_drawn *const *drawn);

/* id[i] = what draws[from[i]] chose last, 0 if that was no token; from[i] < 0: id[i] stays. All in the ops' memory. */
typedef void (*pl_op_take)(pl_stream *s, int32_t *id, const int32_t *from, pl_draw *const *draws, int n);

#define PL_SPARSE_ROWS 8

/* Whether ffn_sparse_many finds room for its work in rows of H values: each span of 256 becomes 640 bytes. */
static inline bool pl_ffn_sparse_fits(int64_t hidden)
{
    return hidden * 4 >= (hidden + PL_ACT_SPAN - 1) / PL_ACT_SPAN * 640 + 4;
}

#define PL_FFN_STATS 3

/* A gated FFN: out = down . (gelu(cut(gate . x)) * up . x), see ffn_act. */
typedef struct pl_ffn {
    const pl_weight *gate, *up, *down;
    const pl_act *x;
    float *gate_out, *up_out; /* [n][ld] work */
    pl_act *mid;              /* work: the operand of down */
    int64_t ld;
    float *out; /* [n][H] */
    int n;
    const int32_t *width; /* [n] non-increasing */
    float z;
} pl_ffn;

/* The gate of per-layer inputs: out = proj . (gelu(gate . x) * ple), see ple_gate. */
typedef struct pl_ple_block {
    const pl_weight *gate, *proj;
    const pl_act *x;
    float *gate_out; /* [n][p] work */
    pl_act *mid;     /* work: the operand of proj */
    const float *ple;
    int64_t ple_ld;
    float *out; /* [n][H] */
    int p;
} pl_ple_block;

/* What stands at a position of the prompt, by its id: a row of the word table, times scale; of `hard`, ids [first_hard,
 * first_hard + n_hard); or, below 0, row -1 - id of `soft`. */
typedef struct pl_embed_from {
    const pl_weight *table;
    float scale;
    const float *hard, *soft; /* [][H] in the ops' memory; NULL where there are no such ids */
    int32_t first_hard, n_hard;
} pl_embed_from;

typedef struct pl_ops {
    /* Fills act's integer twin from act->f32 (see pl_act). */
    void (*quantize)(pl_stream *s, pl_act *act, int n);

    /* See pl_matmul. */
    void (*matmul)(pl_stream *s, const pl_matmul *jobs, int n_jobs);

    /* out[i] = what id[i] stands for; out: [n][H]. cost: n rows of the table */
    void (*embed)(pl_stream *s, float *out, const pl_embed_from *from, const int32_t *id, int n);

    /* ple[i] = the first layers[i] * p values of row i of `from`; ple: [n][ld]. *bad = 1 + some row of the step that
     * holds something else than finite numbers; left alone where there is none. */
    void (*ple_look)(pl_stream *s, float *ple, int64_t ld, const pl_ple_rows *from, const int32_t *id,
                     const int32_t *layers, int n, int p, int32_t *bad);

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
     * row's width[i] gates (biased std); z = -INFINITY: no cut and no max. gelu: tanh form. In place. A gate at the
     * cut or below it gives 0, whatever up is. */
    void (*ffn_act)(pl_stream *s, float *gate, const float *up, int64_t ld, int n, const int32_t *width, float z);

    /* The same with a finite z in two halves, for a row of whose gates others have other parts: stats[i] = how many these
     * width[i] gates are, their sum, the sum of their squares; then, with those of the whole row, the values. stats:
     * [n][PL_FFN_STATS] */
    void (*ffn_stats)(pl_stream *s, double *stats, const float *gate, int64_t ld, int n, const int32_t *width);
    void (*ffn_act_part)(pl_stream *s, float *gate, const float *up, int64_t ld, int n, const int32_t *width,
                         const double *stats, float z);

    /* A gated FFN with a finite z, for 1 to PL_SPARSE_ROWS rows: the bits of matmul (gate, up), ffn_act, quantize, matmul
     * (down), reading of up (PL_NEURON_ROWS) and down (PL_NEURON_COLUMNS) only what some row's gate lets through. x is
     * there as integers; gate_out, up_out and mid's integers are work. NULL: there is none. */
    void (*ffn_sparse)(pl_stream *s, const pl_ffn *ffn);

    /* The same for any number of rows. H fits (pl_ffn_sparse_fits()). x's integers are work as well, with room for those of
     * `down`; mid's need room for PL_SPARSE_ROWS rows only. NULL: there is none. */
    void (*ffn_sparse_many)(pl_stream *s, const pl_ffn *ffn);

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

    /* *bad = 1 + some row of x, [n][cols], that holds something else than finite numbers; left alone where there is
     * none. */
    void (*check_finite)(pl_stream *s, const float *x, int n, int64_t cols, int32_t *bad);

    /* x = tanh(x / cap) * cap; x: [n][cols] */
    void (*softcap)(pl_stream *s, float *x, int n, int64_t cols, float cap);

    /* x's product with the head as matmul and softcap (cap > 0) give it, for rows of whose outputs only the top[i] largest
     * matter: those have the same bits and stand where they would; any other may be -FLT_MAX instead. x: in f32, its
     * integers are filled. n <= PL_HEAD_ROWS, top[i] 1 to PL_HEAD_TOP, in the host's memory; or all of them PL_HEAD_GUESS:
     * any outputs that are likely to be large will do. NULL: matmul has to do. */
    void (*head_top)(pl_stream *s, const pl_weight *head, pl_act *x, float *logits, int n, const int32_t *top,
                     float cap);

    /* Tokens chosen where the logits are, see host/ops/draw.h; NULL, both: the host does it. */
    pl_op_draw draw;
    pl_op_take take;
} pl_ops;

#define PL_FUSED_ROWS 16

/* Runs of the ops above in one, for 1 to most_rows rows. A result has the bits that the single ops give; what lies
 * between them need not be written: pred beyond its first stream, laurel. act: the op's last f32 result as integers
 * too, over the same rows; where act->integers_only the f32 need not be written. attend, attn_out, ffn and ple may be
 * NULL: then the single ops do it, but for ffn_act and ple_gate, which may be NULL only where ffn and ple are not. */
typedef struct pl_fused {
    int most_rows;

    /* ple_add of the layer before, over the same rows (v NULL: there is none); then altup_predict, quantize x. */
    void (*predict)(pl_stream *s, pl_streams pred, float *x, pl_act *act, pl_streams streams, float *v,
                    const float *v_norm, const pl_rows *rows, const pl_altup *altup, const float *norm, float eps);

    /* qkv_store, attention, quantize out. distinct: no two rows are of one sequence. */
    void (*attend)(pl_stream *s, float *out, pl_act *act, float *q, float *k, float *v, const pl_kv_layer *kv,
                   const pl_rows *rows, pl_heads heads, int window, const float *q_norm, const float *k_norm,
                   const float *rope, float eps, bool distinct);

    /* Two products over the same number of rows, each of its own operand: `o` of one that is there as integers,
     * `laurel` of one that is there in f32 only. */
    void (*attn_out)(pl_stream *s, const pl_matmul *o, const pl_matmul *laurel);

    /* attn_residual, quantize f. */
    void (*attn_residual)(pl_stream *s, float *y, float *f, pl_act *act, float *laurel, const float *a, const float *x,
                          const float *att, const float *laurel_norm, const float *att_norm, const float *ffn_norm,
                          int n, int64_t hidden, float eps);

    /* matmul of gate and up, ffn_act, quantize, matmul of down. */
    void (*ffn)(pl_stream *s, const pl_ffn *ffn);

    /* altup_correct, quantize gate_in. */
    void (*altup_correct)(pl_stream *s, pl_streams streams, float *y, float *gate_in, pl_act *act, const float *ffn,
                          pl_streams pred, const pl_rows *rows, const pl_altup *altup, const float *norm, float eps);

    /* matmul of gate, ple_gate, quantize, matmul of proj. */
    void (*ple)(pl_stream *s, const pl_ple_block *ple, const pl_rows *rows);

    /* ffn_act, quantize gate, each row as far as its width; act may have been what gate was made from. */
    void (*ffn_act)(pl_stream *s, pl_act *act, float *gate, const float *up, int64_t ld, int n, const int32_t *width,
                    float z);

    /* ple_gate, quantize gate. */
    void (*ple_gate)(pl_stream *s, pl_act *act, float *gate, const float *ple, int64_t ld, const pl_rows *rows, int p);
} pl_fused;

#endif
