#include "host/model/weights_bind.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#define NAME_BYTES 320
#define SHAPE_BYTES 200

/* The sizes that shapes are made of, as checkpoint.h writes them. */
typedef enum size_name { ONE, A, AA, D, F, H, K, LP, P, Q, R, V } size_name;

typedef enum condition { ALWAYS, OWNS_KV, SCALED } condition;

typedef struct weight {
    const char *hf, *gguf; /* after the prefix */
    size_t field;
    size_name rows, cols;
    condition when;
} weight;

#define LAYER(field) offsetof(pl_layer_weights, field)
#define WHOLE(field) offsetof(pl_weights, field)

static const weight layer_weights[] = {
    {"input_layernorm.weight", "attn_norm.weight", LAYER(attn_norm), ONE, H, ALWAYS},
    {"post_attention_layernorm.weight", "post_attention_norm.weight", LAYER(post_attn_norm), ONE, H, ALWAYS},
    {"pre_feedforward_layernorm.weight", "ffn_norm.weight", LAYER(ffn_norm), ONE, H, ALWAYS},
    {"post_feedforward_layernorm.weight", "post_ffw_norm.weight", LAYER(post_ffn_norm), ONE, H, ALWAYS},
    {"post_per_layer_input_norm.weight", "post_norm.weight", LAYER(post_ple_norm), ONE, H, ALWAYS},
    {"self_attn.q_proj.weight", "attn_q.weight", LAYER(q), Q, H, ALWAYS},
    {"self_attn.k_proj.weight", "attn_k.weight", LAYER(k), K, H, OWNS_KV},
    {"self_attn.v_proj.weight", "attn_v.weight", LAYER(v), K, H, OWNS_KV},
    {"self_attn.o_proj.weight", "attn_output.weight", LAYER(o), H, Q, ALWAYS},
    {"self_attn.q_norm.weight", "attn_q_norm.weight", LAYER(q_norm), ONE, D, ALWAYS},
    {"self_attn.k_norm.weight", "attn_k_norm.weight", LAYER(k_norm), ONE, D, OWNS_KV},
    {"mlp.gate_proj.weight", "ffn_gate.weight", LAYER(gate), F, H, ALWAYS},
    {"mlp.up_proj.weight", "ffn_up.weight", LAYER(up), F, H, ALWAYS},
    {"mlp.down_proj.weight", "ffn_down.weight", LAYER(down), H, F, ALWAYS},
    {"laurel.linear_left.weight", "laurel_l.weight", LAYER(laurel_left), R, H, ALWAYS},
    {"laurel.linear_right.weight", "laurel_r.weight", LAYER(laurel_right), H, R, ALWAYS},
    {"laurel.post_laurel_norm.weight", "laurel_post_norm.weight", LAYER(laurel_norm), ONE, H, ALWAYS},
    {"altup.modality_router.weight", "altup_router.weight", LAYER(altup_router), A, H, ALWAYS},
    {"altup.router_norm.weight", "altup_router_norm.weight", LAYER(altup_router_norm), ONE, H, ALWAYS},
    {"altup.prediction_coefs.weight", "altup_predict_coef.weight", LAYER(altup_predict), AA, A, ALWAYS},
    {"altup.correction_coefs.weight", "altup_correct_coef.weight", LAYER(altup_correct), A, A, ALWAYS},
    {"altup.correct_output_scale", "altup_correct_scale.weight", LAYER(altup_scale), ONE, H, SCALED},
    {"per_layer_input_gate.weight", "inp_gate.weight", LAYER(ple_gate), P, H, ALWAYS},
    {"per_layer_projection.weight", "proj.weight", LAYER(ple_proj), H, P, ALWAYS},
};

static const weight whole_weights[] = {
    {"embed_tokens.weight", "token_embd.weight", WHOLE(embed), V, H, ALWAYS},
    {"per_layer_model_projection.weight", "per_layer_model_proj.weight", WHOLE(ple_model_proj), LP, H, ALWAYS},
    {"per_layer_projection_norm.weight", "per_layer_proj_norm.weight", WHOLE(ple_norm), ONE, P, ALWAYS},
    {"norm.weight", "output_norm.weight", WHOLE(out_norm), ONE, H, ALWAYS},
};

static int64_t size_of(const pl_config *c, int layer, size_name name)
{
    switch (name) {
    case ONE: return 1;
    case A: return PL_ALTUP;
    case AA: return PL_ALTUP * PL_ALTUP;
    case D: return c->head_dim;
    case F: return c->ffn[layer];
    case H: return c->hidden;
    case K: return (int64_t)c->n_kv_heads * c->head_dim;
    case LP: return (int64_t)c->n_layers * c->ple_dim;
    case P: return c->ple_dim;
    case Q: return (int64_t)c->n_heads * c->head_dim;
    case R: return c->laurel_rank;
    case V: return c->vocab;
    }
    return 0;
}

static bool needed(const pl_config *c, int layer, condition when)
{
    switch (when) {
    case ALWAYS: return true;
    case OWNS_KV: return layer < c->n_kv_layers;
    case SCALED: return c->altup_correct_scale;
    }
    return true;
}

static void write_shape(const int64_t *dims, int n, char *out)
{
    size_t at = (size_t)snprintf(out, SHAPE_BYTES, "[");
    for (int i = 0; i < n; i++)
        at += (size_t)snprintf(out + at, SHAPE_BYTES - at, "%s%" PRId64, i > 0 ? ", " : "", dims[i]);
    snprintf(out + at, SHAPE_BYTES - at, "]");
}

/* Leading sizes of 1 say nothing: GGUF drops them. */
static bool same_shape(const int64_t *a, int n_a, const int64_t *b, int n_b)
{
    while (n_a > 0 && a[0] == 1)
        a++, n_a--;
    while (n_b > 0 && b[0] == 1)
        b++, n_b--;
    return n_a == n_b && (n_a == 0 || memcmp(a, b, (size_t)n_a * sizeof *a) == 0);
}

static pl_status check_shape(const pl_binder *b, const pl_entry *entry, const int64_t *expected, int n)
{
    if (same_shape(entry->dims, entry->n_dims, expected, n))
        return PL_OK;
    char is[SHAPE_BYTES], should[SHAPE_BYTES];
    write_shape(entry->dims, entry->n_dims, is);
    write_shape(expected, n, should);
    return pl_fail(b->err, PL_ERR_FORMAT, "%s: tensor %s is %s, expected %s", entry->where, entry->name, is, should);
}

static pl_status check_type(const pl_binder *b, const pl_entry *entry)
{
    if (pl_dtype_describe(entry->type))
        return PL_OK;
    return pl_fail(
        b->err, PL_ERR_UNSUPPORTED,
        "%s: tensor %s has type %s; supported are F32, F16, BF16, Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, Q4_K, Q5_K and Q6_K",
        entry->where, entry->name, entry->type_name);
}

/* A view of rows of an entry whose shape and type were checked. */
static pl_status view(const pl_binder *b, const pl_entry *entry, int64_t row, int64_t rows, int64_t cols,
                      pl_tensor *out)
{
    pl_tensor t = {.name = entry->name, .rows = rows, .cols = cols, .type = (pl_dtype)entry->type};
    size_t row_bytes = pl_tensor_row_bytes(&t);
    t.data = entry->data + (size_t)row * row_bytes;
    const pl_dtype_info *info = pl_dtype_describe(entry->type);
    if (info->block_elems == 1 && (uintptr_t)t.data % (size_t)info->block_bytes != 0) {
        void *copy = pl_arena_take(b->arena, (size_t)rows, row_bytes);
        if (!copy)
            return pl_fail_memory(b->err, (size_t)rows * row_bytes, entry->name);
        t.data = memcpy(copy, t.data, (size_t)rows * row_bytes);
    }
    *out = t;
    return PL_OK;
}

static pl_status find(const pl_binder *b, const char *name, const pl_entry **out)
{
    *out = pl_tensor_list_find(b->list, name);
    if (!*out)
        return pl_fail(b->err, PL_ERR_FORMAT, "%s: tensor %s is missing", b->where, name);
    return check_type(b, *out);
}

pl_status pl_weights_bind_one(const pl_binder *b, const char *name, int64_t rows, int64_t cols, pl_tensor *out)
{
    const pl_entry *entry;
    PL_TRY(find(b, name, &entry));
    int64_t expected[] = {rows, cols};
    PL_TRY(check_shape(b, entry, rows == 1 ? expected + 1 : expected, rows == 1 ? 1 : 2));
    return view(b, entry, 0, rows, cols, out);
}

static void write_name(const pl_binder *b, int layer, const char *rest, char *out)
{
    const char *blocks = b->format == PL_CHECKPOINT_HF ? "layers" : "blk";
    if (layer < 0)
        snprintf(out, NAME_BYTES, "%s%s", b->prefix, rest);
    else
        snprintf(out, NAME_BYTES, "%s%s.%d.%s", b->prefix, blocks, layer, rest);
}

static pl_status bind_weight(const pl_binder *b, int layer, const weight *w, pl_tensor *out)
{
    char name[NAME_BYTES];
    write_name(b, layer, b->format == PL_CHECKPOINT_HF ? w->hf : w->gguf, name);
    return pl_weights_bind_one(b, name, size_of(b->config, layer, w->rows), size_of(b->config, layer, w->cols), out);
}

/* q, k and v in one tensor, in that order. */
static pl_status bind_fused(const pl_binder *b, int layer, const pl_entry *entry, pl_layer_weights *out)
{
    const pl_config *c = b->config;
    int64_t q = size_of(c, layer, Q), k = size_of(c, layer, K), hidden = c->hidden;
    int64_t expected[] = {q + 2 * k, hidden};
    PL_TRY(check_type(b, entry));
    PL_TRY(check_shape(b, entry, expected, 2));
    PL_TRY(view(b, entry, 0, q, hidden, &out->q));
    if (!needed(c, layer, OWNS_KV))
        return PL_OK;
    PL_TRY(view(b, entry, q, k, hidden, &out->k));
    return view(b, entry, q + k, k, hidden, &out->v);
}

static bool is_attention_input(const weight *w)
{
    return w->field == LAYER(q) || w->field == LAYER(k) || w->field == LAYER(v);
}

static pl_status bind_layer(const pl_binder *b, int layer, pl_layer_weights *out)
{
    char name[NAME_BYTES];
    write_name(b, layer, "attn_qkv.weight", name);
    const pl_entry *fused = b->format == PL_CHECKPOINT_GGUF ? pl_tensor_list_find(b->list, name) : NULL;
    if (fused)
        PL_TRY(bind_fused(b, layer, fused, out));
    for (size_t i = 0; i < sizeof layer_weights / sizeof layer_weights[0]; i++) {
        const weight *w = &layer_weights[i];
        if (!needed(b->config, layer, w->when) || (fused && is_attention_input(w)))
            continue;
        PL_TRY(bind_weight(b, layer, w, (pl_tensor *)((char *)out + w->field)));
    }
    return PL_OK;
}

/* Three matrices: one tensor each, or stacked in one. */
static pl_status bind_altup(const pl_binder *b, const char *hf, const char *gguf, pl_tensor *out)
{
    int64_t hidden = b->config->hidden, stacked[] = {PL_ALTUP - 1, hidden, hidden};
    char name[NAME_BYTES];
    if (b->format == PL_CHECKPOINT_HF) {
        for (int i = 0; i < PL_ALTUP - 1; i++) {
            snprintf(name, sizeof name, "%s%s.%d.weight", b->prefix, hf, i);
            PL_TRY(pl_weights_bind_one(b, name, hidden, hidden, &out[i]));
        }
        return PL_OK;
    }
    const pl_entry *entry;
    PL_TRY(find(b, gguf, &entry));
    PL_TRY(check_shape(b, entry, stacked, 3));
    for (int i = 0; i < PL_ALTUP - 1; i++)
        PL_TRY(view(b, entry, i * hidden, hidden, hidden, &out[i]));
    return PL_OK;
}

/* GGUF pads the table with rows for ids that it does not serve. */
static pl_status bind_ple_table(const pl_binder *b, pl_tensor *out)
{
    char name[NAME_BYTES];
    const pl_entry *entry;
    bool padded = b->format == PL_CHECKPOINT_GGUF;
    write_name(b, -1, padded ? "per_layer_token_embd.weight" : "embed_tokens_per_layer.weight", name);
    PL_TRY(find(b, name, &entry));
    int64_t expected[] = {b->config->ple_vocab, size_of(b->config, 0, LP)};
    if (padded && entry->n_dims == 2 && entry->dims[0] > expected[0])
        expected[0] = entry->dims[0];
    PL_TRY(check_shape(b, entry, expected, 2));
    return view(b, entry, 0, expected[0], expected[1], out);
}

pl_status pl_weights_bind(const pl_binder *b, pl_weights *out)
{
    for (size_t i = 0; i < sizeof whole_weights / sizeof whole_weights[0]; i++)
        PL_TRY(bind_weight(b, -1, &whole_weights[i], (pl_tensor *)((char *)out + whole_weights[i].field)));
    PL_TRY(bind_ple_table(b, &out->ple_table));
    PL_TRY(bind_altup(b, "altup_projections", "altup_proj.weight", out->altup_proj));
    PL_TRY(bind_altup(b, "altup_unembed_projections", "altup_unembd_proj.weight", out->altup_unembed));
    for (int l = 0; l < b->config->n_layers; l++)
        PL_TRY(bind_layer(b, l, &out->layer[l]));
    return PL_OK;
}
