/* Opening GGUF files: a small right one, and everything that can be wrong with it. */
#include <math.h>
#include <sys/stat.h>

#include "host/model/checkpoint_parts.h"
#include "tests/unit/gguf_builder.h"
#include "tests/unit/scratch.h"

static gguf_builder b;
static scratch s;
static pl_checkpoint *checkpoint;
static pl_error err;

static void setup(void)
{
    gguf_builder_tiny(&b);
    scratch_open(&s);
}

static void teardown(void)
{
    pl_checkpoint_close(checkpoint);
    gguf_builder_free(&b);
    scratch_close(&s);
}

TestSuite(checkpoint_gguf, .init = setup, .fini = teardown);

static pl_status open_path(const char *path)
{
    pl_checkpoint_close(checkpoint);
    checkpoint = NULL;
    memset(&err, 0, sizeof err);
    return pl_checkpoint_open(path, &checkpoint, &err);
}

static pl_status open_built(void)
{
    gguf_builder_place(&b);
    return open_path(gguf_builder_write(&b, &s, "model.gguf"));
}

static void accepts(void)
{
    cr_assert_eq(open_built(), PL_OK, "%s", err.message);
}

static void refuses(pl_status status, const char *const *words)
{
    expect_failure(open_built(), status, &err, words);
    expect_failure(err.status, status, &err, WORDS("model.gguf"));
}

static const pl_weights *weights(void)
{
    return pl_checkpoint_weights(checkpoint);
}

static const pl_config *config(void)
{
    return pl_checkpoint_config(checkpoint);
}

static bool views(const pl_tensor *t, const char *name, size_t offset)
{
    const built_tensor *built = gguf_builder_find(&b, name);
    size_t n = (size_t)t->rows * pl_tensor_row_bytes(t);
    return t->data && strcmp(t->name, name) == 0 && offset + n <= built->n &&
           memcmp(t->data, built->data + offset, n) == 0;
}

Test(checkpoint_gguf, facts)
{
    accepts();
    const pl_config *c = config();
    cr_assert(c->n_layers == 4 && c->n_kv_layers == 2 && c->hidden == 32 && c->ffn[3] == 64 && c->n_heads == 2 &&
              c->n_kv_heads == 1);
    cr_assert(c->head_dim == 16 && c->ple_dim == 8 && c->vocab == 16 && c->ple_vocab == 16 && c->laurel_rank == 4 &&
              c->window == 8);
    cr_assert(c->context == 128 && c->eps == 1e-6f && c->softcap == 30 && c->rope_base_global == 1e6f &&
              c->rope_base_local == 1e4f);
    cr_assert(c->local[0] && !c->local[1] && c->kv_layer[2] == 0 && c->kv_layer[3] == 1 && c->altup_correct_scale);
    cr_assert(c->sparsity_z[1] == 1.6448536f && c->sparsity_z[2] == -INFINITY);
    cr_assert(c->bos == 2 && c->pad == 0 && c->n_eos == 2 && c->eos[0] == 5 && c->eos[1] == 1);
    cr_assert_eq(pl_checkpoint_kind(checkpoint), PL_CHECKPOINT_GGUF);
    cr_assert_str_eq(pl_checkpoint_name(checkpoint), "tiny");
    cr_assert_str_eq(pl_checkpoint_chat_template(checkpoint), "{{ bos_token }}");
    const pl_tensor *all;
    cr_assert_eq(pl_checkpoint_tensors(checkpoint, &all), b.n_tensors);
    cr_assert(all[0].rows == 96 && all[0].cols == 32);
}

Test(checkpoint_gguf, weights_are_views_of_the_right_bytes)
{
    accepts();
    const pl_weights *w = weights();
    const pl_layer_weights *l = &w->layer[1];
    cr_assert(views(&w->embed, "token_embd.weight", 0) && w->embed.rows == 16 && w->embed.cols == 32 &&
              w->embed.type == PL_Q8_0);
    cr_assert(views(&w->ple_table, "per_layer_token_embd.weight", 0) && w->ple_table.rows == 16 &&
              w->ple_table.cols == 32);
    cr_assert_null(w->head.data);
    for (size_t i = 0; i < 3; i++) {
        cr_assert(views(&w->altup_proj[i], "altup_proj.weight", i * 32 * 32 * 2) && w->altup_proj[i].rows == 32);
        cr_assert(views(&w->altup_unembed[i], "altup_unembd_proj.weight", i * 32 * 32 * 2));
    }
    cr_assert(views(&l->gate, "blk.1.ffn_gate.weight", 0) && l->gate.rows == 64 && l->gate.cols == 32);
    cr_assert(views(&l->down, "blk.1.ffn_down.weight", 0) && l->down.rows == 32 && l->down.cols == 64);
    cr_assert(views(&l->k, "blk.1.attn_k.weight", 0) && l->k.rows == 16 &&
              views(&l->k_norm, "blk.1.attn_k_norm.weight", 0));
    cr_assert(views(&l->altup_predict, "blk.1.altup_predict_coef.weight", 0) && l->altup_predict.rows == 16 &&
              l->altup_predict.cols == 4);
    cr_assert(views(&l->post_ple_norm, "blk.1.post_norm.weight", 0) && l->post_ple_norm.rows == 1 &&
              l->post_ple_norm.cols == 32);
    cr_assert(views(&l->ple_proj, "blk.1.proj.weight", 0) && l->ple_proj.rows == 32 && l->ple_proj.cols == 8);
    cr_assert(!w->layer[2].k.data && !w->layer[2].v.data && !w->layer[2].k_norm.data, "decoys are dropped");
    pl_checkpoint_drop(checkpoint, &l->gate);
    cr_assert(views(&l->gate, "blk.1.ffn_gate.weight", 0), "dropped pages come back");
}

Test(checkpoint_gguf, vocabulary)
{
    accepts();
    const pl_pieces *p = pl_checkpoint_pieces(checkpoint);
    cr_assert_eq(p->n, 16);
    cr_assert(p->offset[9] - p->offset[8] == 2 && memcmp(p->text + p->offset[8], "ab", 2) == 0);
    cr_assert(p->score[3] == -3 && p->kind[0] == 3 && p->kind[11] == 4);
}

/* What transformers 5 saves: no K/V of layers that share them. */
Test(checkpoint_gguf, shared_layers_need_no_kv)
{
    for (int l = 2; l < 4; l++) {
        char name[64];
        static const char *const parts[] = {"attn_k", "attn_v", "attn_k_norm"};
        for (int i = 0; i < 3; i++) {
            snprintf(name, sizeof name, "blk.%d.%s.weight", l, parts[i]);
            gguf_builder_drop_tensor(&b, name);
        }
    }
    accepts();
}

Test(checkpoint_gguf, fused_attention_input)
{
    gguf_builder_drop_tensor(&b, "blk.1.attn_q.weight");
    gguf_builder_drop_tensor(&b, "blk.1.attn_k.weight");
    gguf_builder_drop_tensor(&b, "blk.1.attn_v.weight");
    gguf_builder_tensor(&b, "blk.1.attn_qkv.weight", PL_Q8_0, 2, 32, 64, 1);
    gguf_builder_tensor(&b, "blk.2.attn_qkv.weight", PL_F32, 2, 32, 64, 1);
    accepts();
    const pl_layer_weights *l = &weights()->layer[1];
    cr_assert(views(&l->q, "blk.1.attn_qkv.weight", 0) && l->q.rows == 32);
    cr_assert(views(&l->k, "blk.1.attn_qkv.weight", 32 * 34) && l->k.rows == 16);
    cr_assert(views(&l->v, "blk.1.attn_qkv.weight", 48 * 34) && l->v.rows == 16);
    cr_assert(views(&weights()->layer[2].q, "blk.2.attn_qkv.weight", 0) && !weights()->layer[2].k.data);
    gguf_builder_reshape(gguf_builder_find(&b, "blk.1.attn_qkv.weight"), 2, 32, 60, 1);
    refuses(PL_ERR_FORMAT, WORDS("blk.1.attn_qkv.weight is [60, 32], expected [64, 32]"));
}

Test(checkpoint_gguf, untied_head)
{
    gguf_builder_tensor(&b, "output.weight", PL_F16, 2, 32, TINY_VOCAB, 1);
    accepts();
    cr_assert(views(&weights()->head, "output.weight", 0));
    gguf_builder_reshape(gguf_builder_find(&b, "output.weight"), 2, 32, 17, 1);
    refuses(PL_ERR_FORMAT, WORDS("output.weight is [17, 32], expected [16, 32]"));
}

/* Zero rows at the end of the per-layer table are padding, whatever their type calls zero. */
Test(checkpoint_gguf, padded_per_layer_table)
{
    built_tensor *t = gguf_builder_find(&b, "per_layer_token_embd.weight");
    size_t row = t->n / TINY_VOCAB;
    memset(t->data + 13 * row, 0, 3 * row);
    accepts();
    cr_assert_eq(config()->ple_vocab, 13);
    cr_assert_eq(weights()->ple_table.rows, 16);
    gguf_builder_retype(t, PL_Q4_0);
    row = t->n / TINY_VOCAB;
    memset(t->data + 14 * row, 0x88, 2 * row);
    for (int i = 14; i < 16; i++)
        memset(t->data + (size_t)i * row, 0x80, 2);
    memset(t->data + 14 * row, 0, 1);
    memset(t->data + 15 * row, 0, 1);
    accepts();
    cr_assert_eq(config()->ple_vocab, 14, "%d", config()->ple_vocab);
    gguf_builder_reshape(t, 2, 32, 11, 1);
    accepts();
    cr_assert_eq(config()->ple_vocab, 11, "a table that is not padded");
    memset(t->data, 0, t->n);
    accepts();
    cr_assert_eq(config()->ple_vocab, 11, "zeros that are no padding");
}

Test(checkpoint_gguf, every_needed_key_is_missed_by_name)
{
    static const char *const needed[] = {
        "general.architecture",
        "gemma3n.block_count",
        "gemma3n.context_length",
        "gemma3n.embedding_length",
        "gemma3n.feed_forward_length",
        "gemma3n.attention.head_count",
        "gemma3n.attention.head_count_kv",
        "gemma3n.attention.layer_norm_rms_epsilon",
        "gemma3n.rope.freq_base",
        "gemma3n.attention.sliding_window",
        "tokenizer.ggml.model",
        "tokenizer.ggml.tokens",
        "tokenizer.ggml.scores",
        "tokenizer.ggml.token_type",
    };
    for (size_t i = 0; i < sizeof needed / sizeof needed[0]; i++) {
        gguf_builder_free(&b);
        gguf_builder_tiny(&b);
        gguf_builder_drop_key(&b, needed[i]);
        refuses(PL_ERR_FORMAT, WORDS(needed[i], "missing"));
    }
}

Test(checkpoint_gguf, every_key_of_a_wrong_type_is_named)
{
    static const unsigned char nothing[8];
    for (size_t i = 0; i < b.n_keys; i++) {
        char key[80];
        memcpy(key, b.keys[i].name, sizeof key);
        gguf_builder_raw(&b, key, PL_GGUF_F64, nothing, 8);
        refuses(PL_ERR_FORMAT, WORDS(key, "is f64, expected"));
        gguf_builder_free(&b);
        gguf_builder_tiny(&b);
        gguf_builder_array(&b, key, PL_GGUF_F64, nothing, 1, 8);
        refuses(PL_ERR_FORMAT, WORDS(key, "array of f64"));
        gguf_builder_free(&b);
        gguf_builder_tiny(&b);
    }
}

/* llama.cpp's constants, where it has one instead of the key. */
Test(checkpoint_gguf, keys_that_may_be_absent)
{
    static const char *const optional[] = {
        "gemma3n.attention.key_length",
        "gemma3n.attention.value_length",
        "gemma3n.rope.freq_base_swa",
        "gemma3n.final_logit_softcapping",
        "gemma3n.altup.active_idx",
        "gemma3n.altup.num_inputs",
        "gemma3n.attention.shared_kv_layers",
        "gemma3n.activation_sparsity_scale",
        "gemma3n.attention.sliding_window_pattern",
        "tokenizer.chat_template",
        "general.name",
        "tokenizer.ggml.bos_token_id",
        "tokenizer.ggml.eos_token_id",
        "tokenizer.ggml.padding_token_id",
    };
    for (size_t i = 0; i < sizeof optional / sizeof optional[0]; i++)
        gguf_builder_drop_key(&b, optional[i]);
    accepts();
    const pl_config *c = config();
    cr_assert(c->head_dim == 16 && c->rope_base_local == 1e4f && c->softcap == 30 && c->n_kv_layers == 4 &&
              c->local[1]);
    cr_assert_float_eq(c->sparsity_z[3], 1.6448536f, 1e-6f);
    cr_assert(c->bos == 2 && c->pad == 0 && c->n_eos == 2 && c->eos[0] == 1 && c->eos[1] == 5);
    cr_assert_null(pl_checkpoint_chat_template(checkpoint));
    cr_assert_str_eq(pl_checkpoint_name(checkpoint), "model");
    gguf_builder_drop_key(&b, "gemma3n.embedding_length_per_layer_input");
    refuses(PL_ERR_FORMAT, WORDS("per_layer_model_proj.weight", "expected [1024, 32]"));
}

Test(checkpoint_gguf, keys_with_other_forms)
{
    static const uint32_t heads[] = {2, 2, 2, 2}, uneven[] = {2, 2, 1, 2};
    gguf_builder_u32(&b, "gemma3n.feed_forward_length", 64);
    gguf_builder_u32(&b, "gemma3n.attention.sliding_window_pattern", 2);
    gguf_builder_array(&b, "gemma3n.attention.head_count", PL_GGUF_U32, heads, 4, sizeof heads);
    gguf_builder_f32(&b, "gemma3n.final_logit_softcapping", 0);
    accepts();
    cr_assert(config()->ffn[3] == 64 && config()->local[2] && !config()->local[3] && config()->softcap == 0);
    gguf_builder_array(&b, "gemma3n.attention.head_count", PL_GGUF_U32, uneven, 4, sizeof uneven);
    refuses(PL_ERR_UNSUPPORTED, WORDS("gemma3n.attention.head_count", "layers 0 and 2"));
}

Test(checkpoint_gguf, values_out_of_range)
{
    static const struct {
        const char *key;
        uint32_t value;
        pl_status status;
        const char *word;
    } bad[] = {
        {"gemma3n.block_count", 0, PL_ERR_FORMAT, "gemma3n.block_count"},
        {"gemma3n.block_count", 129, PL_ERR_FORMAT, "gemma3n.block_count"},
        {"gemma3n.block_count", UINT32_MAX, PL_ERR_FORMAT, "gemma3n.block_count"},
        {"gemma3n.block_count", 5, PL_ERR_FORMAT, "gemma3n.feed_forward_length has 4 values for 5 layers"},
        {"gemma3n.block_count", 3, PL_ERR_FORMAT, "gemma3n.feed_forward_length has 4 values for 3 layers"},
        {"gemma3n.embedding_length", 0, PL_ERR_FORMAT, "gemma3n.embedding_length"},
        {"gemma3n.embedding_length", 64, PL_ERR_FORMAT, "token_embd.weight is [16, 32], expected [16, 64]"},
        {"gemma3n.attention.head_count", 3, PL_ERR_FORMAT, "attn_q.weight is [32, 32], expected [48, 32]"},
        {"gemma3n.attention.head_count_kv", 4, PL_ERR_FORMAT, "K/V heads"},
        {"gemma3n.attention.key_length", 15, PL_ERR_FORMAT, "gemma3n.attention.value_length is 16, expected 15 to 15"},
        {"gemma3n.attention.shared_kv_layers", 4, PL_ERR_FORMAT, "gemma3n.attention.shared_kv_layers"},
        {"gemma3n.attention.shared_kv_layers", 3, PL_ERR_FORMAT, "global layer"},
        {"gemma3n.attention.sliding_window", 0, PL_ERR_FORMAT, "gemma3n.attention.sliding_window"},
        {"gemma3n.context_length", 0, PL_ERR_FORMAT, "gemma3n.context_length"},
        {"gemma3n.altup.num_inputs", 2, PL_ERR_UNSUPPORTED, "gemma3n.altup.num_inputs"},
        {"gemma3n.altup.active_idx", 1, PL_ERR_UNSUPPORTED, "gemma3n.altup.active_idx"},
        {"gemma3n.rope.dimension_count", 8, PL_ERR_FORMAT, "gemma3n.rope.dimension_count"},
        {"gemma3n.vocab_size", 17, PL_ERR_FORMAT, "gemma3n.vocab_size"},
        {"tokenizer.ggml.bos_token_id", 16, PL_ERR_FORMAT, "tokenizer.ggml.bos_token_id"},
        {"tokenizer.ggml.eos_token_id", UINT32_MAX, PL_ERR_FORMAT, "tokenizer.ggml.eos_token_id"},
        {"tokenizer.ggml.padding_token_id", 99, PL_ERR_FORMAT, "tokenizer.ggml.padding_token_id"},
        {"split.count", 5000, PL_ERR_FORMAT, "split.count"},
    };
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        gguf_builder_free(&b);
        gguf_builder_tiny(&b);
        gguf_builder_u32(&b, bad[i].key, bad[i].value);
        refuses(bad[i].status, WORDS(bad[i].word));
    }
}

Test(checkpoint_gguf, numbers_that_are_not_usable)
{
    const float z[] = {1.6f, NAN, -INFINITY, -INFINITY}, plus[] = {1.6f, INFINITY, 0, 0};
    gguf_builder_f32(&b, "gemma3n.attention.layer_norm_rms_epsilon", 0);
    refuses(PL_ERR_FORMAT, WORDS("epsilon"));
    gguf_builder_f32(&b, "gemma3n.attention.layer_norm_rms_epsilon", NAN);
    refuses(PL_ERR_FORMAT, WORDS("layer_norm_rms_epsilon", "not a finite number"));
    gguf_builder_f32(&b, "gemma3n.attention.layer_norm_rms_epsilon", 1e-6f);
    gguf_builder_array(&b, "gemma3n.activation_sparsity_scale", PL_GGUF_F32, z, 4, sizeof z);
    refuses(PL_ERR_FORMAT, WORDS("sparsity of layer 1"));
    gguf_builder_array(&b, "gemma3n.activation_sparsity_scale", PL_GGUF_F32, plus, 4, sizeof plus);
    refuses(PL_ERR_FORMAT, WORDS("sparsity of layer 1"));
    gguf_builder_array(&b, "gemma3n.activation_sparsity_scale", PL_GGUF_F32, z, 3, 12);
    refuses(PL_ERR_FORMAT, WORDS("gemma3n.activation_sparsity_scale has 3 values for 4 layers"));
}

static bool is_decoy(const char *name)
{
    return (strstr(name, "blk.2.") || strstr(name, "blk.3.")) && (strstr(name, "attn_k") || strstr(name, "attn_v"));
}

Test(checkpoint_gguf, every_needed_tensor_is_missed_by_name)
{
    for (size_t i = 0; i < b.n_tensors; i++) {
        char name[80];
        memcpy(name, b.tensors[i].name, sizeof name);
        gguf_builder_drop_tensor(&b, name);
        if (is_decoy(name))
            accepts();
        else
            refuses(PL_ERR_FORMAT, WORDS(name, "missing"));
        gguf_builder_free(&b);
        gguf_builder_tiny(&b);
    }
}

Test(checkpoint_gguf, every_wrong_shape_is_named)
{
    for (size_t i = 0; i < b.n_tensors; i++) {
        built_tensor *t = &b.tensors[i];
        if (is_decoy(t->name))
            continue;
        gguf_builder_reshape(t, t->n_dims, t->ne[0] + 32, t->ne[1], t->ne[2]);
        refuses(PL_ERR_FORMAT, WORDS(t->name, ", expected ["));
        gguf_builder_reshape(t, t->n_dims, t->ne[0] - 32, t->ne[1], t->ne[2]);
        gguf_builder_reshape(t, 3, t->ne[0], t->ne[1], t->ne[2] + 1);
        refuses(PL_ERR_FORMAT, WORDS(t->name));
        gguf_builder_free(&b);
        gguf_builder_tiny(&b);
    }
    gguf_builder_reshape(gguf_builder_find(&b, "blk.3.ffn_up.weight"), 2, 32, 32, 1);
    refuses(PL_ERR_FORMAT, WORDS("tensor blk.3.ffn_up.weight is [32, 32], expected [64, 32]"));
}

Test(checkpoint_gguf, types_that_are_not_read)
{
    for (size_t i = 0; i < b.n_tensors; i++) {
        built_tensor *t = &b.tensors[i];
        uint32_t before = t->type;
        t->type = 28; /* F64 */
        t->data = realloc(t->data, t->n = 8 * 32 * 32 * 3);
        memset(t->data, 0, t->n);
        if (is_decoy(t->name))
            accepts();
        else
            refuses(PL_ERR_UNSUPPORTED, WORDS(t->name, "has type F64", "Q4_K"));
        gguf_builder_retype(t, before);
    }
    gguf_builder_tensor(&b, "v.blk.0.weight", 10, 1, 256, 1, 1);
    gguf_builder_tensor(&b, "what.weight", 4242, 1, 256, 1, 1);
    accepts();
}

/* A rank of 1 is written with one dimension. */
Test(checkpoint_gguf, sizes_of_one)
{
    for (int l = 0; l < TINY_LAYERS; l++) {
        char name[64];
        snprintf(name, sizeof name, "blk.%d.laurel_l.weight", l);
        gguf_builder_reshape(gguf_builder_find(&b, name), 1, 32, 1, 1);
        snprintf(name, sizeof name, "blk.%d.laurel_r.weight", l);
        gguf_builder_reshape(gguf_builder_find(&b, name), 2, 1, 32, 1);
    }
    accepts();
    cr_assert(config()->laurel_rank == 1 && weights()->layer[3].laurel_left.rows == 1 &&
              weights()->layer[3].laurel_right.cols == 1);
}

/* Where the alignment lets a plain tensor stand anywhere, the view is a copy. */
Test(checkpoint_gguf, misaligned_tensors)
{
    b.alignment = 1;
    gguf_builder_u32(&b, "general.alignment", 1);
    gguf_builder_text(&b, "general.name", "odd");
    size_t copies = 0;
    for (int i = 0; i < 4; i++) {
        gguf_builder_text(&b, "pad", &"1234"[i]);
        accepts();
        const pl_tensor *t = &weights()->layer[0].attn_norm;
        cr_assert(views(t, "blk.0.attn_norm.weight", 0));
        cr_assert_eq((uintptr_t)t->data % 4, 0);
        cr_assert_eq((uintptr_t)weights()->altup_proj[1].data % 2, 0);
        const unsigned char *file = checkpoint->files[0].data;
        copies += (const unsigned char *)t->data < file ||
                  (const unsigned char *)t->data >= file + checkpoint->files[0].size;
    }
    cr_assert_eq(copies, 3);
}

Test(checkpoint_gguf, vocabulary_that_disagrees)
{
    static const char *const pieces[20] = {"a", "b", "c", "d", "e", "f", "g", "h", "i", "j",
                                           "k", "l", "m", "n", "o", "p", "q", "r", "s", "t"};
    float scores[20] = {0};
    int32_t kinds[20] = {1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1};
    gguf_builder_texts(&b, "tokenizer.ggml.tokens", pieces, 20);
    refuses(PL_ERR_FORMAT, WORDS("tokenizer.ggml.tokens has 20 entries", "token_embd.weight has 16 rows"));
    gguf_builder_texts(&b, "tokenizer.ggml.tokens", pieces, 12);
    refuses(PL_ERR_FORMAT, WORDS("tokenizer.ggml.tokens has 12 entries", "token_embd.weight has 16 rows"));
    gguf_builder_texts(&b, "tokenizer.ggml.tokens", pieces, 16);
    gguf_builder_array(&b, "tokenizer.ggml.scores", PL_GGUF_F32, scores, 15, 60);
    refuses(PL_ERR_FORMAT, WORDS("tokenizer.ggml.scores has 15 entries"));
    scores[7] = NAN;
    gguf_builder_array(&b, "tokenizer.ggml.scores", PL_GGUF_F32, scores, 16, 64);
    refuses(PL_ERR_FORMAT, WORDS("tokenizer.ggml.scores", "entry 7"));
    scores[7] = 0;
    gguf_builder_array(&b, "tokenizer.ggml.scores", PL_GGUF_F32, scores, 16, 64);
    kinds[9] = 7;
    gguf_builder_array(&b, "tokenizer.ggml.token_type", PL_GGUF_I32, kinds, 16, 64);
    refuses(PL_ERR_FORMAT, WORDS("tokenizer.ggml.token_type", "entry 9 is 7"));
    gguf_builder_text(&b, "tokenizer.ggml.model", "gpt2");
    refuses(PL_ERR_UNSUPPORTED, WORDS("tokenizer.ggml.model", "gpt2"));
    gguf_builder_text(&b, "tokenizer.ggml.model", "llama");
    gguf_builder_bool(&b, "tokenizer.ggml.add_space_prefix", true);
    refuses(PL_ERR_UNSUPPORTED, WORDS("tokenizer.ggml.add_space_prefix"));
}

Test(checkpoint_gguf, other_architectures)
{
    gguf_builder_text(&b, "general.architecture", "llama");
    refuses(PL_ERR_UNSUPPORTED, WORDS("architecture 'llama' is not Gemma 3n"));
    gguf_builder_text(&b, "general.architecture", "clip");
    refuses(PL_ERR_UNSUPPORTED, WORDS("image and audio encoders"));
    gguf_builder_text(&b, "general.architecture", "gemma3n\x1b[2J");
    refuses(PL_ERR_UNSUPPORTED, WORDS("gemma3n?[2J"));
}

Test(checkpoint_gguf, files_that_are_no_models)
{
    expect_failure(open_path(scratch_path(&s, "none.gguf")), PL_ERR_IO, &err, WORDS("none.gguf", "No such file"));
    expect_failure(open_path(scratch_text(&s, "empty.gguf", "")), PL_ERR_FORMAT, &err, WORDS("empty.gguf", "empty"));
    expect_failure(open_path(scratch_text(&s, "short.gguf", "GGU")), PL_ERR_FORMAT, &err,
                   WORDS("neither a GGUF file nor"));
    expect_failure(open_path(scratch_text(&s, "four.gguf", "GGUF")), PL_ERR_FORMAT, &err,
                   WORDS("four.gguf", "cut short"));
    expect_failure(open_path(scratch_text(&s, "text", "hello, world")), PL_ERR_FORMAT, &err,
                   WORDS("neither a GGUF file nor"));
    expect_failure(open_path(PL_TEST_DATA "/golden/text/e4b/model.safetensors"), PL_ERR_UNSUPPORTED, &err,
                   WORDS("safetensors", "folder"));
    expect_failure(open_path("/dev/null"), PL_ERR_IO, &err, WORDS("/dev/null"));
    const char *path = gguf_builder_write(&b, &s, "locked.gguf");
    chmod(path, 0);
    if (access(path, R_OK) != 0)
        expect_failure(open_path(path), PL_ERR_IO, &err, WORDS("locked.gguf", "denied"));
}

/* Whole checkpoints, cut: every offset of the header region, some of the data. */
Test(checkpoint_gguf, cut_files)
{
    size_t n;
    unsigned char *data = gguf_builder_bytes(&b, &n);
    size_t header = gguf_builder_header_bytes(&b);
    for (size_t cut = 4; cut < n - 32; cut += cut < header ? 13 : 2003) {
        expect_failure(open_path(scratch_write(&s, "cut.gguf", data, cut)), PL_ERR_FORMAT, &err, WORDS("cut.gguf"));
        cr_assert(strstr(err.message, "cut short") || strstr(err.message, "cannot be right"), "%zu: %s", cut,
                  err.message);
    }
    free(data);
}

Test(checkpoint_gguf, declared_paths)
{
    gguf_builder_text(&b, "pleiad.path.e2b", "mix:widths=32;skip=2-3");
    gguf_builder_text(&b, "pleiad.path.tail", "mix:widths=64,64,32,32");
    accepts();
    const pl_named_path *paths;
    cr_assert_eq(pl_checkpoint_paths(checkpoint, &paths), 2);
    cr_assert_str_eq(paths[0].name, "e2b");
    cr_assert_str_eq(paths[1].spec, "mix:widths=64,64,32,32");
    gguf_builder_text(&b, "pleiad.path.tail", "mix:widths=65");
    refuses(PL_ERR_FORMAT, WORDS("path tail", "width 65", "layer 0"));
    gguf_builder_text(&b, "pleiad.path.tail", "e2b");
    refuses(PL_ERR_FORMAT, WORDS("path tail", "'e2b'"));
    gguf_builder_u32(&b, "pleiad.path.tail", 7);
    refuses(PL_ERR_FORMAT, WORDS("pleiad.path.tail is u32"));
}

/* The first `n` tensors go to one file, the rest to another, which is left in b2. */
static void split(gguf_builder *b2, size_t n)
{
    gguf_builder_init(b2);
    while (b.n_tensors > n) {
        const built_tensor *t = &b.tensors[n];
        built_tensor *copy = gguf_builder_tensor(b2, t->name, t->type, t->n_dims, t->ne[0], t->ne[1], t->ne[2]);
        memcpy(copy->data, t->data, t->n);
        char name[80];
        memcpy(name, t->name, sizeof name);
        gguf_builder_drop_tensor(&b, name);
    }
    gguf_builder *parts[] = {&b, b2};
    for (int i = 0; i < 2; i++) {
        uint16_t number = (uint16_t)i, count = 2;
        gguf_builder_raw(parts[i], "split.no", PL_GGUF_U16, &number, 2);
        gguf_builder_raw(parts[i], "split.count", PL_GGUF_U16, &count, 2);
        gguf_builder_place(parts[i]);
    }
    gguf_builder_u32(&b, "split.tensors.count", (uint32_t)(b.n_tensors + b2->n_tensors));
}

Test(checkpoint_gguf, split_files)
{
    gguf_builder b2;
    split(&b2, 20);
    const char *second = gguf_builder_write(&b2, &s, "m-00002-of-00002.gguf");
    expect_failure(open_path(second), PL_ERR_ARGUMENT, &err, WORDS("part 2 of 2", "first part"));
    const char *first = gguf_builder_write(&b, &s, "m-00001-of-00002.gguf");
    cr_assert_eq(open_path(first), PL_OK, "%s", err.message);
    cr_assert(views(&weights()->altup_proj[2], "altup_proj.weight", 2 * 32 * 32 * 2));
    cr_assert_eq(checkpoint->n_files, 2);
    const built_tensor *t = gguf_builder_find(&b2, "blk.3.ffn_up.weight");
    cr_assert_eq(memcmp(weights()->layer[3].up.data, t->data, t->n), 0);
    pl_checkpoint_drop(checkpoint, &weights()->layer[3].up);
    expect_failure(open_path(gguf_builder_write(&b, &s, "odd-name.gguf")), PL_ERR_FORMAT, &err,
                   WORDS("must end in -00001-of-00002.gguf"));
    gguf_builder_u32(&b, "split.tensors.count", 7);
    expect_failure(open_path(gguf_builder_write(&b, &s, "m-00001-of-00002.gguf")), PL_ERR_FORMAT, &err,
                   WORDS("split.tensors.count"));
    gguf_builder_drop_key(&b, "split.tensors.count");
    gguf_builder_tensor(&b2, "output_norm.weight", PL_F32, 1, 32, 1, 1);
    gguf_builder_place(&b2);
    gguf_builder_write(&b2, &s, "m-00002-of-00002.gguf");
    expect_failure(open_path(gguf_builder_write(&b, &s, "m-00001-of-00002.gguf")), PL_ERR_FORMAT, &err,
                   WORDS("output_norm.weight is both in", "m-00001-of-00002.gguf", "m-00002-of-00002.gguf"));
    gguf_builder_u32(&b2, "split.no", 3);
    second = gguf_builder_write(&b2, &s, "m-00002-of-00002.gguf");
    first = gguf_builder_write(&b, &s, "m-00001-of-00002.gguf");
    expect_failure(open_path(first), PL_ERR_FORMAT, &err, WORDS("m-00002-of-00002.gguf", "split.no is 3"));
    remove(second);
    expect_failure(open_path(first), PL_ERR_IO, &err, WORDS("m-00002-of-00002.gguf", "No such file"));
    gguf_builder_free(&b2);
}
