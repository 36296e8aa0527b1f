#include "host/engine/shard.h"

#include <string.h>

#define LEAST_BLOCK 32 /* neurons: activations become integers so many at a time */

static int64_t block_elems(pl_dtype type)
{
    return pl_dtype_describe((int)type)->block_elems;
}

/* ---- what splits ---- */

static pl_status split_heads(pl_shard *s, pl_error *err)
{
    const pl_config *c = s->whole;
    int heads = c->n_heads / s->size, group = c->n_heads / c->n_kv_heads;
    if (c->n_heads % s->size)
        return pl_fail(err, PL_ERR_UNSUPPORTED,
                       "%d ranks: the model has %d query heads, which they cannot share evenly", s->size, c->n_heads);
    if (heads % group && group % heads)
        return pl_fail(err, PL_ERR_UNSUPPORTED, "%d ranks: %d query heads of each cannot share K/V heads of %d",
                       s->size, heads, group);
    s->config.n_heads = heads;
    s->config.n_kv_heads = heads > group ? heads / group : 1;
    s->first_head = s->rank * heads;
    s->first_kv_head = s->first_head / group;
    return PL_OK;
}

static pl_status check_columns(const pl_shard *s, const pl_tensor *o, pl_error *err)
{
    int64_t cols = (int64_t)s->config.n_heads * s->config.head_dim;
    if (cols % block_elems(o->type) == 0)
        return PL_OK;
    return pl_fail(err, PL_ERR_UNSUPPORTED, "tensor %s: %d ranks would hold %lld columns each, %s has blocks of %lld",
                   o->name, s->size, (long long)cols, pl_dtype_describe((int)o->type)->name,
                   (long long)block_elems(o->type));
}

static pl_status split_neurons(pl_shard *s, int layer, const pl_tensor *down, pl_error *err)
{
    int width = s->whole->ffn[layer], block = (int)block_elems(down->type);
    if (block < LEAST_BLOCK)
        block = block == 1 && width / s->size < LEAST_BLOCK ? width / s->size : LEAST_BLOCK;
    if (block == 0 || width / block < s->size)
        return pl_fail(err, PL_ERR_UNSUPPORTED, "tensor %s: its %d columns are too few for %d ranks", down->name, width,
                       s->size);
    s->block[layer] = block;
    s->config.ffn[layer] = pl_shard_width(s, layer, width);
    return PL_OK;
}

pl_status pl_shard_make(const pl_checkpoint *checkpoint, int rank, int size, pl_shard *out, pl_error *err)
{
    const pl_weights *w = pl_checkpoint_weights(checkpoint);
    *out = (pl_shard){.rank = rank, .size = size, .whole = pl_checkpoint_config(checkpoint)};
    out->config = *out->whole;
    PL_TRY(split_heads(out, err));
    for (int layer = 0; layer < out->whole->n_layers; layer++) {
        PL_TRY(check_columns(out, &w->layer[layer].o, err));
        PL_TRY(split_neurons(out, layer, &w->layer[layer].down, err));
    }
    return PL_OK;
}

int32_t pl_shard_width(const pl_shard *s, int layer, int32_t width)
{
    int32_t block = s->block[layer], full = width / block, last = full % s->size;
    int32_t mine = full / s->size + (last > s->rank);
    return mine * block + (last == s->rank ? width % block : 0);
}

/* ---- parts of tensors ---- */

static int64_t part_size(const pl_shard *s, int layer, pl_size size, int64_t whole)
{
    switch (size) {
    case PL_SIZE_F:
    case PL_SIZE_K:
    case PL_SIZE_Q: return pl_size_of(&s->config, layer, size);
    default: return whole;
    }
}

pl_tensor pl_shard_part(const pl_shard *s, int layer, pl_role role, const pl_tensor *whole)
{
    const pl_weight_info *info = &pl_weight_table[role];
    pl_tensor part = *whole;
    part.rows = part_size(s, layer, info->rows, whole->rows);
    part.cols = part_size(s, layer, info->cols, whole->cols);
    if (info->rows == PL_SIZE_Q)
        part.data = pl_tensor_row(whole, (int64_t)s->first_head * s->config.head_dim);
    else if (info->rows == PL_SIZE_K)
        part.data = pl_tensor_row(whole, (int64_t)s->first_kv_head * s->config.head_dim);
    else if (info->rows == PL_SIZE_F || part.cols != whole->cols)
        part.data = NULL;
    return part;
}

/* Where neuron i of the rank is in the whole layer. */
static int64_t neuron_at(const pl_shard *s, int layer, int64_t i)
{
    int64_t block = s->block[layer];
    return (i / block * s->size + s->rank) * block + i % block;
}

/* Columns of heads lie together, those of neurons in blocks. */
static void gather_columns(const pl_shard *s, int layer, bool neurons, const pl_tensor *whole, int64_t row,
                           const pl_tensor *part, char *to)
{
    const char *from = pl_tensor_row(whole, row);
    int64_t block = neurons ? s->block[layer] : part->cols;
    for (int64_t col = 0; col < part->cols; col += block) {
        int64_t n = part->cols - col < block ? part->cols - col : block;
        int64_t at = neurons ? neuron_at(s, layer, col) : (int64_t)s->first_head * s->config.head_dim;
        memcpy(to + pl_dtype_bytes(part->type, col), from + pl_dtype_bytes(part->type, at),
               pl_dtype_bytes(part->type, n));
    }
}

void pl_shard_gather(const pl_shard *s, int layer, pl_role role, const pl_tensor *whole, int64_t begin, int64_t end,
                     void *out)
{
    const pl_weight_info *info = &pl_weight_table[role];
    pl_tensor part = pl_shard_part(s, layer, role, whole);
    size_t bytes = pl_tensor_row_bytes(&part);
    for (int64_t row = begin; row < end; row++) {
        char *to = (char *)out + (size_t)row * bytes;
        if (info->rows == PL_SIZE_F)
            memcpy(to, pl_tensor_row(whole, neuron_at(s, layer, row)), bytes);
        else
            gather_columns(s, layer, info->cols == PL_SIZE_F, whole, row, &part, to);
    }
}
