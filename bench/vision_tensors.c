#include "bench/vision_tensors.h"

#include <stdio.h>

#define TOWER "vision_tower.timm_model."

typedef struct list {
    vision_tensor_fn add;
    void *user;
    char base[64];
} list;

static void put(const list *l, const char *part, int64_t rows, int64_t cols)
{
    char name[160];
    snprintf(name, sizeof name, "%s%s.weight", l->base, part);
    l->add(l->user, name, rows, cols);
}

static void begin_block(list *l, int stage, int index)
{
    snprintf(l->base, sizeof l->base, TOWER "blocks.%d.%d.", stage, index);
}

static void put_gamma(const list *l, int64_t channels)
{
    char name[160];
    snprintf(name, sizeof name, "%slayer_scale.gamma", l->base);
    l->add(l->user, name, channels, 0);
}

static void put_edge(list *l, int index, int64_t in, int64_t hidden, int64_t out)
{
    begin_block(l, 0, index);
    put(l, "conv_exp", hidden, in * 9);
    put(l, "bn1", hidden, 0);
    put(l, "conv_pwl", out, hidden);
    put(l, "bn2", out, 0);
}

/* start, mid: sides of the depthwise windows, 0: none. */
static void put_bottleneck(list *l, int stage, int index, int start, int mid, int64_t in, int64_t hidden, int64_t out)
{
    begin_block(l, stage, index);
    if (start) {
        put(l, "dw_start.conv", in, start * start);
        put(l, "dw_start.bn", in, 0);
    }
    put(l, "pw_exp.conv", hidden, in);
    put(l, "pw_exp.bn", hidden, 0);
    if (mid) {
        put(l, "dw_mid.conv", hidden, mid * mid);
        put(l, "dw_mid.bn", hidden, 0);
    }
    put(l, "pw_proj.conv", out, hidden);
    put(l, "pw_proj.bn", out, 0);
    put_gamma(l, out);
}

static void put_attention(list *l, int stage, int index, int64_t channels, int64_t heads, int64_t dim, int down)
{
    static const char *const sides[] = {"key", "value"};
    char part[64];
    begin_block(l, stage, index);
    put(l, "norm", channels, 0);
    put(l, "attn.query.proj", heads * dim, channels);
    for (int i = 0; i < 2; i++) {
        snprintf(part, sizeof part, "attn.%s.proj", sides[i]);
        put(l, part, dim, channels);
        if (!down)
            continue;
        snprintf(part, sizeof part, "attn.%s.down_conv", sides[i]);
        put(l, part, channels, down * down);
        snprintf(part, sizeof part, "attn.%s.norm", sides[i]);
        put(l, part, channels, 0);
    }
    put(l, "attn.output.proj", channels, heads * dim);
    put_gamma(l, channels);
}

static void put_blocks(list *l)
{
    put_edge(l, 0, 64, 256, 128);
    put_edge(l, 1, 128, 512, 128);
    put_edge(l, 2, 128, 512, 128);
    put_bottleneck(l, 1, 0, 3, 5, 128, 768, 256);
    for (int i = 1; i <= 4; i++)
        put_bottleneck(l, 1, i, i % 2 ? 5 : 3, 0, 256, 1024, 256);
    put_bottleneck(l, 2, 0, 5, 5, 256, 1536, 640);
    for (int i = 1; i <= 7; i++)
        put_bottleneck(l, 2, i, 5, 0, 640, 2560, 640);
    put_bottleneck(l, 2, 8, 0, 0, 640, 640, 640);
    for (int i = 9; i <= 35; i += 2) {
        put_attention(l, 2, i, 640, 12, 64, 3);
        put_bottleneck(l, 2, i + 1, 0, 0, 640, 1280, 640);
    }
    put_bottleneck(l, 3, 0, 5, 5, 640, 3840, 1280);
    for (int i = 1; i <= 37; i += 2) {
        put_attention(l, 3, i, 1280, 16, 96, 0);
        put_bottleneck(l, 3, i + 1, 0, 0, 1280, 2560, 1280);
    }
}

void vision_tensors(vision_tensor_fn add, void *user, int64_t text)
{
    list l = {add, user, TOWER};
    put(&l, "conv_stem.conv", 64, 27);
    put(&l, "conv_stem.bn", 64, 0);
    put_blocks(&l);
    snprintf(l.base, sizeof l.base, TOWER "msfa.");
    put(&l, "ffn.pw_exp.conv", 3840, 1920);
    put(&l, "ffn.pw_exp.bn", 3840, 0);
    put(&l, "ffn.pw_proj.conv", 2048, 3840);
    put(&l, "ffn.pw_proj.bn", 2048, 0);
    put(&l, "norm", 2048, 0);
    snprintf(l.base, sizeof l.base, "embed_vision.");
    put(&l, "embedding", 128, 2048);
    put(&l, "hard_embedding_norm", 2048, 0);
    put(&l, "soft_embedding_norm", 2048, 0);
    put(&l, "embedding_projection", text, 2048);
}
