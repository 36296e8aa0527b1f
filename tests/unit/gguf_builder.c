#include "tests/unit/gguf_builder.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

typedef struct bytes {
    unsigned char *data;
    size_t n, room;
} bytes;

static void put(bytes *out, const void *data, size_t n)
{
    if (out->n + n > out->room) {
        out->room = 2 * (out->n + n);
        out->data = realloc(out->data, out->room);
    }
    memcpy(out->data + out->n, data, n);
    out->n += n;
}

static void put_u32(bytes *out, uint32_t v)
{
    put(out, &v, sizeof v);
}

static void put_u64(bytes *out, uint64_t v)
{
    put(out, &v, sizeof v);
}

static void put_text(bytes *out, const char *text)
{
    put_u64(out, strlen(text));
    put(out, text, strlen(text));
}

static void put_zeros(bytes *out, size_t until)
{
    static const unsigned char zero[1];
    while (out->n < until)
        put(out, zero, 1);
}

void gguf_builder_init(gguf_builder *b)
{
    memset(b, 0, sizeof *b);
    memcpy(&b->magic, "GGUF", 4);
    b->version = 3;
    b->alignment = 32;
}

void gguf_builder_free(gguf_builder *b)
{
    for (size_t i = 0; i < b->n_keys; i++)
        free(b->keys[i].value);
    for (size_t i = 0; i < b->n_tensors; i++)
        free(b->tensors[i].data);
    free(b->keys);
    free(b->tensors);
}

static built_key *find_key(gguf_builder *b, const char *key)
{
    for (size_t i = 0; i < b->n_keys; i++)
        if (strcmp(b->keys[i].name, key) == 0)
            return &b->keys[i];
    return NULL;
}

void gguf_builder_raw(gguf_builder *b, const char *key, uint32_t type, const void *value, size_t n)
{
    built_key *slot = find_key(b, key);
    if (!slot) {
        b->keys = realloc(b->keys, (b->n_keys + 1) * sizeof *b->keys);
        slot = &b->keys[b->n_keys++];
        memset(slot, 0, sizeof *slot);
        snprintf(slot->name, sizeof slot->name, "%s", key);
    }
    bytes out = {0};
    put_u32(&out, type);
    put(&out, value, n);
    free(slot->value);
    slot->value = out.data;
    slot->n = out.n;
}

void gguf_builder_u32(gguf_builder *b, const char *key, uint32_t value)
{
    gguf_builder_raw(b, key, PL_GGUF_U32, &value, sizeof value);
}

void gguf_builder_f32(gguf_builder *b, const char *key, float value)
{
    gguf_builder_raw(b, key, PL_GGUF_F32, &value, sizeof value);
}

void gguf_builder_bool(gguf_builder *b, const char *key, bool value)
{
    unsigned char byte = value;
    gguf_builder_raw(b, key, PL_GGUF_BOOL, &byte, 1);
}

void gguf_builder_text(gguf_builder *b, const char *key, const char *value)
{
    bytes out = {0};
    put_text(&out, value);
    gguf_builder_raw(b, key, PL_GGUF_STRING, out.data, out.n);
    free(out.data);
}

void gguf_builder_array(gguf_builder *b, const char *key, uint32_t type, const void *values, uint64_t n, size_t size)
{
    bytes out = {0};
    put_u32(&out, type);
    put_u64(&out, n);
    put(&out, values, size);
    gguf_builder_raw(b, key, PL_GGUF_ARRAY, out.data, out.n);
    free(out.data);
}

void gguf_builder_texts(gguf_builder *b, const char *key, const char *const *values, uint64_t n)
{
    bytes out = {0};
    for (uint64_t i = 0; i < n; i++)
        put_text(&out, values[i]);
    gguf_builder_array(b, key, PL_GGUF_STRING, out.data, n, out.n);
    free(out.data);
}

void gguf_builder_drop_key(gguf_builder *b, const char *key)
{
    built_key *slot = find_key(b, key);
    free(slot->value);
    *slot = b->keys[--b->n_keys];
}

static uint64_t count(const built_tensor *t)
{
    uint64_t n = 1;
    for (uint32_t i = 0; i < t->n_dims; i++)
        n *= t->ne[i];
    return n;
}

/* Bytes with no structure, but scales and floats that are small numbers. */
static void fill(built_tensor *t)
{
    const pl_dtype_info *info = pl_dtype_describe((int)t->type);
    free(t->data);
    t->n = info ? pl_dtype_bytes((pl_dtype)t->type, (int64_t)count(t)) : 64;
    t->data = malloc(t->n + 1);
    for (size_t i = 0; i < t->n; i++)
        t->data[i] = (unsigned char)(i * 37 + strlen(t->name));
    for (size_t i = 0; info && info->block_elems == 1 && i < t->n; i += (size_t)info->block_bytes) {
        float f = 0.25f + (float)(i % 7);
        uint32_t u;
        memcpy(&u, &f, sizeof u);
        uint16_t h = t->type == PL_F16 ? pl_f32_to_f16(f) : (uint16_t)(u >> 16);
        memcpy(t->data + i, t->type == PL_F32 ? (const void *)&f : (const void *)&h, (size_t)info->block_bytes);
    }
    for (size_t i = 0; t->type == PL_Q8_0 && i < t->n; i += sizeof(pl_block_q8_0)) {
        uint16_t d = pl_f32_to_f16(0.01f);
        memcpy(t->data + i, &d, sizeof d);
    }
}

built_tensor *gguf_builder_hollow(gguf_builder *b, const char *name, uint32_t type, uint32_t n_dims, uint64_t ne0,
                                  uint64_t ne1, uint64_t ne2)
{
    b->tensors = realloc(b->tensors, (b->n_tensors + 1) * sizeof *b->tensors);
    built_tensor *t = &b->tensors[b->n_tensors++];
    *t = (built_tensor){.n_dims = n_dims, .ne = {ne0, ne1, ne2, 1}, .type = type};
    snprintf(t->name, sizeof t->name, "%s", name);
    t->n = pl_dtype_describe((int)type) ? pl_dtype_bytes((pl_dtype)type, (int64_t)count(t)) : 64;
    return t;
}

built_tensor *gguf_builder_tensor(gguf_builder *b, const char *name, uint32_t type, uint32_t n_dims, uint64_t ne0,
                                  uint64_t ne1, uint64_t ne2)
{
    built_tensor *t = gguf_builder_hollow(b, name, type, n_dims, ne0, ne1, ne2);
    fill(t);
    return t;
}

built_tensor *gguf_builder_find(gguf_builder *b, const char *name)
{
    for (size_t i = 0; i < b->n_tensors; i++)
        if (strcmp(b->tensors[i].name, name) == 0)
            return &b->tensors[i];
    return NULL;
}

void gguf_builder_drop_tensor(gguf_builder *b, const char *name)
{
    built_tensor *t = gguf_builder_find(b, name);
    free(t->data);
    memmove(t, t + 1, (size_t)(b->tensors + b->n_tensors - t - 1) * sizeof *t);
    b->n_tensors--;
}

void gguf_builder_retype(built_tensor *tensor, uint32_t type)
{
    tensor->type = type;
    fill(tensor);
}

void gguf_builder_reshape(built_tensor *tensor, uint32_t n_dims, uint64_t ne0, uint64_t ne1, uint64_t ne2)
{
    tensor->n_dims = n_dims;
    tensor->ne[0] = ne0;
    tensor->ne[1] = ne1;
    tensor->ne[2] = ne2;
    fill(tensor);
}

void gguf_builder_place(gguf_builder *b)
{
    uint64_t at = 0;
    for (size_t i = 0; i < b->n_tensors; i++) {
        b->tensors[i].offset = at;
        at += (b->tensors[i].n + b->alignment - 1) / b->alignment * b->alignment;
    }
}

static bytes header(const gguf_builder *b)
{
    bytes out = {0};
    put_u32(&out, b->magic);
    put_u32(&out, b->version);
    put_u64(&out, b->n_tensors + b->extra_tensors);
    put_u64(&out, b->n_keys + b->extra_keys);
    for (size_t i = 0; i < b->n_keys; i++) {
        put_text(&out, b->keys[i].name);
        put(&out, b->keys[i].value, b->keys[i].n);
    }
    for (size_t i = 0; i < b->n_tensors; i++) {
        const built_tensor *t = &b->tensors[i];
        put_text(&out, t->name);
        put_u32(&out, t->n_dims);
        put(&out, t->ne, (t->n_dims < 8 ? t->n_dims : 8) * sizeof *t->ne);
        put_u32(&out, t->type);
        put_u64(&out, t->offset);
    }
    return out;
}

size_t gguf_builder_header_bytes(const gguf_builder *b)
{
    bytes out = header(b);
    free(out.data);
    return out.n;
}

unsigned char *gguf_builder_bytes(const gguf_builder *b, size_t *n)
{
    bytes out = header(b);
    put_zeros(&out, (out.n + b->alignment - 1) / b->alignment * b->alignment);
    size_t start = out.n;
    for (size_t i = 0; i < b->n_tensors; i++) {
        const built_tensor *t = &b->tensors[i];
        if (t->offset > (1u << 20))
            continue;
        put_zeros(&out, start + t->offset + (t->n + b->alignment - 1) / b->alignment * b->alignment);
        memcpy(out.data + start + t->offset, t->data, t->n);
    }
    *n = out.n;
    return out.data;
}

const char *gguf_builder_write(const gguf_builder *b, scratch *s, const char *name)
{
    size_t n;
    unsigned char *data = gguf_builder_bytes(b, &n);
    const char *path = scratch_write(s, name, data, n);
    free(data);
    return path;
}

bool gguf_builder_write_hollow(const gguf_builder *b, const char *path)
{
    bytes out = header(b);
    const built_tensor *last = &b->tensors[b->n_tensors - 1];
    uint64_t size = (out.n + b->alignment - 1) / b->alignment * b->alignment + last->offset + last->n;
    FILE *file = fopen(path, "wb");
    bool done = file && fwrite(out.data, 1, out.n, file) == out.n && fflush(file) == 0 &&
                ftruncate(fileno(file), (off_t)size) == 0;
    if (file)
        fclose(file);
    free(out.data);
    return done;
}

static void tiny_layer(gguf_builder *b, int layer)
{
    static const struct {
        const char *name;
        uint32_t type;
        uint64_t ne0, ne1; /* ne1 = 0: a vector */
    } list[] = {
        {"attn_norm", PL_F32, 32, 0},
        {"attn_q", PL_F32, 32, 32},
        {"attn_k", PL_F32, 32, 16},
        {"attn_v", PL_F32, 32, 16},
        {"attn_output", PL_F32, 32, 32},
        {"attn_q_norm", PL_F32, 16, 0},
        {"attn_k_norm", PL_F32, 16, 0},
        {"post_attention_norm", PL_F32, 32, 0},
        {"ffn_norm", PL_F32, 32, 0},
        {"ffn_gate", PL_Q8_0, 32, 64},
        {"ffn_up", PL_Q8_0, 32, 64},
        {"ffn_down", PL_Q8_0, 64, 32},
        {"post_ffw_norm", PL_F32, 32, 0},
        {"inp_gate", PL_F32, 32, 8},
        {"proj", PL_F32, 8, 32},
        {"post_norm", PL_F32, 32, 0},
        {"altup_correct_coef", PL_F32, 4, 4},
        {"altup_correct_scale", PL_F32, 32, 0},
        {"altup_predict_coef", PL_F32, 4, 16},
        {"altup_router", PL_F16, 32, 4},
        {"altup_router_norm", PL_F32, 32, 0},
        {"laurel_l", PL_BF16, 32, 4},
        {"laurel_r", PL_F16, 4, 32},
        {"laurel_post_norm", PL_F32, 32, 0},
    };
    for (size_t i = 0; i < sizeof list / sizeof list[0]; i++) {
        char name[80];
        snprintf(name, sizeof name, "blk.%d.%s.weight", layer, list[i].name);
        gguf_builder_tensor(b, name, list[i].type, list[i].ne1 ? 2 : 1, list[i].ne0, list[i].ne1, 1);
    }
}

static void tiny_keys(gguf_builder *b)
{
    static const int32_t widths[TINY_LAYERS] = {64, 64, 64, 64};
    static const unsigned char local[TINY_LAYERS] = {1, 0, 1, 0};
    const float sparsity[TINY_LAYERS] = {1.6448536f, 1.6448536f, -INFINITY, -INFINITY};
    gguf_builder_text(b, "general.architecture", "gemma3n");
    gguf_builder_text(b, "general.name", "tiny");
    gguf_builder_u32(b, "gemma3n.block_count", TINY_LAYERS);
    gguf_builder_u32(b, "gemma3n.context_length", 128);
    gguf_builder_u32(b, "gemma3n.embedding_length", 32);
    gguf_builder_array(b, "gemma3n.feed_forward_length", PL_GGUF_I32, widths, TINY_LAYERS, sizeof widths);
    gguf_builder_u32(b, "gemma3n.attention.head_count", 2);
    gguf_builder_u32(b, "gemma3n.attention.head_count_kv", 1);
    gguf_builder_u32(b, "gemma3n.attention.key_length", 16);
    gguf_builder_u32(b, "gemma3n.attention.value_length", 16);
    gguf_builder_f32(b, "gemma3n.attention.layer_norm_rms_epsilon", 1e-6f);
    gguf_builder_f32(b, "gemma3n.rope.freq_base", 1e6f);
    gguf_builder_f32(b, "gemma3n.rope.freq_base_swa", 1e4f);
    gguf_builder_u32(b, "gemma3n.attention.sliding_window", 8);
    gguf_builder_array(b, "gemma3n.attention.sliding_window_pattern", PL_GGUF_BOOL, local, TINY_LAYERS, sizeof local);
    gguf_builder_f32(b, "gemma3n.final_logit_softcapping", 30);
    gguf_builder_u32(b, "gemma3n.altup.active_idx", 0);
    gguf_builder_u32(b, "gemma3n.altup.num_inputs", 4);
    gguf_builder_u32(b, "gemma3n.embedding_length_per_layer_input", 8);
    gguf_builder_u32(b, "gemma3n.attention.shared_kv_layers", 2);
    gguf_builder_array(b, "gemma3n.activation_sparsity_scale", PL_GGUF_F32, sparsity, TINY_LAYERS, sizeof sparsity);
}

static void tiny_vocabulary(gguf_builder *b)
{
    static const char *const pieces[TINY_VOCAB] = {
        "<pad>", "<eos>",        "<bos>", "<unk>", "<start_of_turn>", "<end_of_turn>", "a", "b", "ab", "c", "d",
        "\n",    "\xe2\x96\x81", "e",     "f",     "[PAD15]"};
    static const int32_t kinds[TINY_VOCAB] = {3, 3, 3, 3, 3, 3, 1, 1, 1, 1, 1, 4, 1, 1, 1, 5};
    float scores[TINY_VOCAB];
    for (int i = 0; i < TINY_VOCAB; i++)
        scores[i] = (float)-i;
    gguf_builder_text(b, "tokenizer.ggml.model", "llama");
    gguf_builder_texts(b, "tokenizer.ggml.tokens", pieces, TINY_VOCAB);
    gguf_builder_array(b, "tokenizer.ggml.scores", PL_GGUF_F32, scores, TINY_VOCAB, sizeof scores);
    gguf_builder_array(b, "tokenizer.ggml.token_type", PL_GGUF_I32, kinds, TINY_VOCAB, sizeof kinds);
    gguf_builder_u32(b, "tokenizer.ggml.bos_token_id", 2);
    gguf_builder_u32(b, "tokenizer.ggml.eos_token_id", 5);
    gguf_builder_u32(b, "tokenizer.ggml.padding_token_id", 0);
    gguf_builder_bool(b, "tokenizer.ggml.add_space_prefix", false);
    gguf_builder_text(b, "tokenizer.chat_template", "{{ bos_token }}");
}

void gguf_builder_tiny(gguf_builder *b)
{
    gguf_builder_init(b);
    tiny_keys(b);
    tiny_vocabulary(b);
    gguf_builder_tensor(b, "altup_proj.weight", PL_F16, 3, 32, 32, 3);
    gguf_builder_tensor(b, "altup_unembd_proj.weight", PL_F16, 3, 32, 32, 3);
    gguf_builder_tensor(b, "per_layer_model_proj.weight", PL_F16, 2, 32, 8 * TINY_LAYERS, 1);
    gguf_builder_tensor(b, "per_layer_proj_norm.weight", PL_F32, 1, 8, 1, 1);
    gguf_builder_tensor(b, "token_embd.weight", PL_Q8_0, 2, 32, TINY_VOCAB, 1);
    gguf_builder_tensor(b, "per_layer_token_embd.weight", PL_Q8_0, 2, 8 * TINY_LAYERS, TINY_VOCAB, 1);
    gguf_builder_tensor(b, "output_norm.weight", PL_F32, 1, 32, 1, 1);
    for (int l = 0; l < TINY_LAYERS; l++)
        tiny_layer(b, l);
    gguf_builder_place(b);
}
