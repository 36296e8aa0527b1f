/* Names of the towers' tensors: Hugging Face's, which all code uses, and those of llama.cpp's mmproj files. */
#include <stdio.h>
#include <string.h>

#include "host/tower/source_parts.h"

typedef struct name_pair {
    const char *gguf, *ours;
} name_pair;

static const name_pair whole[] = {
    {"mm.input_projection.weight", "embed_vision.embedding_projection.weight"},
    {"mm.soft_emb_norm.weight", "embed_vision.soft_embedding_norm.weight"},
    {"mm.embedding.weight", "embed_vision.embedding.weight"},
    {"mm.hard_emb_norm.weight", "embed_vision.hard_embedding_norm.weight"},
    {"mm.a.input_projection.weight", "embed_audio.embedding_projection.weight"},
    {"mm.a.soft_emb_norm.weight", "embed_audio.soft_embedding_norm.weight"},
    {"mm.a.embedding.weight", "embed_audio.embedding.weight"},
    {"mm.a.hard_emb_norm.weight", "embed_audio.hard_embedding_norm.weight"},
    {"a.conv1d.0.weight", "audio_tower.subsample_conv_projection.conv_0.conv.weight"},
    {"a.conv1d.0.norm.weight", "audio_tower.subsample_conv_projection.conv_0.norm.weight"},
    {"a.conv1d.1.weight", "audio_tower.subsample_conv_projection.conv_1.conv.weight"},
    {"a.conv1d.1.norm.weight", "audio_tower.subsample_conv_projection.conv_1.norm.weight"},
    {"a.pre_encode.out.weight", "audio_tower.subsample_conv_projection.input_proj_linear.weight"},
};

/* Behind a.blk.L. and audio_tower.conformer.L. */
static const name_pair audio_block[] = {
    {"ffn_norm.weight", "ffw_layer_start.pre_layer_norm.weight"},
    {"ffn_up.weight", "ffw_layer_start.ffw_layer_1.weight"},
    {"ffn_down.weight", "ffw_layer_start.ffw_layer_2.weight"},
    {"ffn_post_norm.weight", "ffw_layer_start.post_layer_norm.weight"},
    {"ffn_norm_1.weight", "ffw_layer_end.pre_layer_norm.weight"},
    {"ffn_up_1.weight", "ffw_layer_end.ffw_layer_1.weight"},
    {"ffn_down_1.weight", "ffw_layer_end.ffw_layer_2.weight"},
    {"ffn_post_norm_1.weight", "ffw_layer_end.post_layer_norm.weight"},
    {"ln1.weight", "attention.pre_attn_norm.weight"},
    {"attn_q.weight", "attention.attn.q_proj.weight"},
    {"attn_k.weight", "attention.attn.k_proj.weight"},
    {"attn_v.weight", "attention.attn.v_proj.weight"},
    {"linear_pos.weight", "attention.attn.relative_position_embedding.pos_proj.weight"},
    {"per_dim_scale", "attention.attn.per_dim_scale"},
    {"attn_out.weight", "attention.post.weight"},
    {"ln2.weight", "attention.post_norm.weight"},
    {"norm_conv.weight", "lconv1d.pre_layer_norm.weight"},
    {"conv_pw1.weight", "lconv1d.linear_start.weight"},
    {"conv_dw.weight", "lconv1d.depthwise_conv1d.weight"},
    {"conv_norm.weight", "lconv1d.conv_norm.weight"},
    {"conv_pw2.weight", "lconv1d.linear_end.weight"},
    {"layer_pre_norm.weight", "norm.weight"},
};

static const char *find_pair(const name_pair *pairs, size_t n, const char *gguf)
{
    for (size_t i = 0; i < n; i++)
        if (strcmp(pairs[i].gguf, gguf) == 0)
            return pairs[i].ours;
    return NULL;
}

static bool write_name(char *out, const char *prefix, const char *rest)
{
    return snprintf(out, PL_TOWER_NAME_BYTES, "%s%s", prefix, rest) < PL_TOWER_NAME_BYTES;
}

static const char *behind(const char *name, const char *prefix)
{
    size_t n = strlen(prefix);
    return strncmp(name, prefix, n) == 0 ? name + n : NULL;
}

bool pl_tower_name_from_gguf(const char *name, char out[PL_TOWER_NAME_BYTES])
{
    const char *rest = find_pair(whole, sizeof whole / sizeof whole[0], name);
    if (rest)
        return write_name(out, "", rest);
    if ((rest = behind(name, "v.blk.")))
        return write_name(out, "vision_tower.timm_model.blocks.", rest);
    if ((rest = behind(name, "v.")))
        return write_name(out, "vision_tower.timm_model.", rest);
    if (!(rest = behind(name, "a.blk.")))
        return false;
    size_t digits = strspn(rest, "0123456789");
    if (digits == 0 || digits > 4 || rest[digits] != '.')
        return false;
    const char *ours = find_pair(audio_block, sizeof audio_block / sizeof audio_block[0], rest + digits + 1);
    if (!ours)
        return false;
    int n = snprintf(out, PL_TOWER_NAME_BYTES, "audio_tower.conformer.%.*s.%s", (int)digits, rest, ours);
    return n < PL_TOWER_NAME_BYTES;
}

bool pl_tower_name_from_folder(const char *name, char out[PL_TOWER_NAME_BYTES])
{
    static const char *const roots[] = {"vision_tower.", "embed_vision.", "audio_tower.", "embed_audio."};
    const char *rest = behind(name, "model.");
    if (!rest)
        rest = name;
    for (size_t i = 0; i < sizeof roots / sizeof roots[0]; i++)
        if (behind(rest, roots[i]))
            return write_name(out, "", rest);
    return false;
}
