/* GGUF metadata of architecture gemma3n. Where llama.cpp has a constant instead of reading a key, a file
 * without the key means that constant. */
#include <math.h>
#include <string.h>

#include "host/model/config_parts.h"

#define SIZE_MAX_VALUE (1 << 30)

/* llama.cpp: the first 20 layers own K/V. */
#define DEFAULT_KV_LAYERS 20

typedef struct reader {
    const pl_gguf *file;
    pl_config *config;
    pl_error *err;
} reader;

static pl_status need_size(const reader *r, const char *key, int *out)
{
    if (!pl_gguf_find(r->file, key))
        return pl_gguf_missing(r->file, key, r->err);
    return pl_gguf_int(r->file, key, 1, SIZE_MAX_VALUE, out, r->err);
}

static pl_status need_float(const reader *r, const char *key, float *out)
{
    if (!pl_gguf_find(r->file, key))
        return pl_gguf_missing(r->file, key, r->err);
    return pl_gguf_float(r->file, key, out, r->err);
}

/* A number for all layers, or a list of one for each. */
static pl_status need_layer_sizes(const reader *r, const char *key, int *out)
{
    const pl_config *c = r->config;
    const pl_gguf_value *value = pl_gguf_find(r->file, key);
    if (!value || !value->is_array) {
        PL_TRY(need_size(r, key, &out[0]));
        for (int l = 1; l < c->n_layers; l++)
            out[l] = out[0];
        return PL_OK;
    }
    if (!pl_gguf_is_integer(value->type))
        return pl_fail(r->err, PL_ERR_FORMAT, "%s: key %s is an array of %s, expected integers", r->file->where, key,
                       pl_gguf_type_name(value->type));
    if (value->n != (uint64_t)c->n_layers)
        return pl_fail(r->err, PL_ERR_FORMAT, "%s: key %s has %llu values for %d layers", r->file->where, key,
                       (unsigned long long)value->n, c->n_layers);
    for (int l = 0; l < c->n_layers; l++) {
        int64_t size = pl_gguf_integer_at(value, (uint64_t)l);
        if (size < 1 || size > SIZE_MAX_VALUE)
            return pl_fail(r->err, PL_ERR_FORMAT, "%s: key %s of layer %d is not a size", r->file->where, key, l);
        out[l] = (int)size;
    }
    return PL_OK;
}

/* The same where all layers must agree. */
static pl_status need_even_size(const reader *r, const char *key, int *out)
{
    int sizes[PL_MAX_LAYERS] = {0};
    PL_TRY(need_layer_sizes(r, key, sizes));
    for (int l = 1; l < r->config->n_layers; l++)
        if (sizes[l] != sizes[0])
            return pl_fail(r->err, PL_ERR_UNSUPPORTED, "%s: key %s differs between layers 0 and %d", r->file->where,
                           key, l);
    *out = sizes[0];
    return PL_OK;
}

static pl_status read_sizes(const reader *r)
{
    pl_config *c = r->config;
    int value_length, rope_dims, shared;
    PL_TRY(need_size(r, "gemma3n.block_count", &c->n_layers));
    if (c->n_layers > PL_MAX_LAYERS)
        return pl_fail(r->err, PL_ERR_FORMAT, "%s: key gemma3n.block_count is %d, expected 1 to %d", r->file->where,
                       c->n_layers, PL_MAX_LAYERS);
    PL_TRY(need_size(r, "gemma3n.context_length", &c->context));
    PL_TRY(need_size(r, "gemma3n.embedding_length", &c->hidden));
    PL_TRY(need_layer_sizes(r, "gemma3n.feed_forward_length", c->ffn));
    PL_TRY(need_even_size(r, "gemma3n.attention.head_count", &c->n_heads));
    PL_TRY(need_even_size(r, "gemma3n.attention.head_count_kv", &c->n_kv_heads));
    c->head_dim = c->n_heads > 0 ? c->hidden / c->n_heads : 0;
    PL_TRY(pl_gguf_int(r->file, "gemma3n.attention.key_length", 1, SIZE_MAX_VALUE, &c->head_dim, r->err));
    value_length = rope_dims = c->head_dim;
    PL_TRY(pl_gguf_int(r->file, "gemma3n.attention.value_length", c->head_dim, c->head_dim, &value_length, r->err));
    PL_TRY(pl_gguf_int(r->file, "gemma3n.rope.dimension_count", c->head_dim, c->head_dim, &rope_dims, r->err));
    PL_TRY(need_size(r, "gemma3n.attention.sliding_window", &c->window));
    c->ple_dim = 256;
    PL_TRY(pl_gguf_int(r->file, "gemma3n.embedding_length_per_layer_input", 1, SIZE_MAX_VALUE, &c->ple_dim, r->err));
    shared = c->n_layers > DEFAULT_KV_LAYERS ? c->n_layers - DEFAULT_KV_LAYERS : 0;
    PL_TRY(pl_gguf_int(r->file, "gemma3n.attention.shared_kv_layers", 0, c->n_layers - 1, &shared, r->err));
    c->n_kv_layers = c->n_layers - shared;
    return PL_OK;
}

static pl_status read_pattern(const reader *r)
{
    static const char key[] = "gemma3n.attention.sliding_window_pattern";
    pl_config *c = r->config;
    const pl_gguf_value *value = pl_gguf_find(r->file, key);
    for (int l = 0; l < c->n_layers; l++)
        c->local[l] = pl_config_local_by_rule(l);
    if (!value)
        return PL_OK;
    if (!value->is_array) {
        int period = 5;
        PL_TRY(pl_gguf_int(r->file, key, 1, PL_MAX_LAYERS, &period, r->err));
        for (int l = 0; l < c->n_layers; l++)
            c->local[l] = (l + 1) % period != 0;
        return PL_OK;
    }
    PL_TRY(pl_gguf_array(r->file, key, PL_GGUF_BOOL, &value, r->err));
    if (value->n < (uint64_t)c->n_layers)
        return pl_fail(r->err, PL_ERR_FORMAT, "%s: key %s has %llu values for %d layers", r->file->where, key,
                       (unsigned long long)value->n, c->n_layers);
    for (int l = 0; l < c->n_layers; l++)
        c->local[l] = value->data[l] != 0;
    return PL_OK;
}

static pl_status read_sparsity(const reader *r)
{
    static const char key[] = "gemma3n.activation_sparsity_scale";
    pl_config *c = r->config;
    const pl_gguf_value *value;
    for (int l = 0; l < c->n_layers; l++)
        c->sparsity_z[l] = l < PL_DEFAULT_SPARSE_LAYERS ? pl_normal_quantile(PL_DEFAULT_SPARSITY) : -INFINITY;
    PL_TRY(pl_gguf_array(r->file, key, PL_GGUF_F32, &value, r->err));
    if (!value)
        return PL_OK;
    if (value->n < (uint64_t)c->n_layers)
        return pl_fail(r->err, PL_ERR_FORMAT, "%s: key %s has %llu values for %d layers", r->file->where, key,
                       (unsigned long long)value->n, c->n_layers);
    memcpy(c->sparsity_z, value->data, (size_t)c->n_layers * sizeof(float));
    return PL_OK;
}

static pl_status read_numbers(const reader *r)
{
    pl_config *c = r->config;
    c->rope_base_local = 1e4f;
    c->softcap = 30;
    c->altup_correct_scale = true;
    PL_TRY(need_float(r, "gemma3n.attention.layer_norm_rms_epsilon", &c->eps));
    PL_TRY(need_float(r, "gemma3n.rope.freq_base", &c->rope_base_global));
    PL_TRY(pl_gguf_float(r->file, "gemma3n.rope.freq_base_swa", &c->rope_base_local, r->err));
    return pl_gguf_float(r->file, "gemma3n.final_logit_softcapping", &c->softcap, r->err);
}

/* What the equations take for granted. */
static pl_status refuse_other_models(const reader *r)
{
    int streams = PL_ALTUP, active = 0;
    const char *scaling;
    size_t n;
    PL_TRY(pl_gguf_int(r->file, "gemma3n.altup.num_inputs", 0, INT32_MAX, &streams, r->err));
    if (streams != PL_ALTUP)
        return pl_fail(r->err, PL_ERR_UNSUPPORTED, "%s: key gemma3n.altup.num_inputs is %d, only %d is supported",
                       r->file->where, streams, PL_ALTUP);
    PL_TRY(pl_gguf_int(r->file, "gemma3n.altup.active_idx", 0, INT32_MAX, &active, r->err));
    if (active != 0)
        return pl_fail(r->err, PL_ERR_UNSUPPORTED, "%s: key gemma3n.altup.active_idx is %d, only 0 is supported",
                       r->file->where, active);
    PL_TRY(pl_gguf_text(r->file, "gemma3n.rope.scaling.type", &scaling, &n, r->err));
    if (scaling && !(n == 4 && memcmp(scaling, "none", 4) == 0))
        return pl_fail(r->err, PL_ERR_UNSUPPORTED,
                       "%s: key gemma3n.rope.scaling.type: scaled rotary positions are not supported", r->file->where);
    return PL_OK;
}

pl_status pl_config_from_gguf(const pl_gguf *file, pl_config *out, pl_error *err)
{
    pl_config config = {0};
    reader r = {file, &config, err};
    PL_TRY(refuse_other_models(&r));
    PL_TRY(read_sizes(&r));
    PL_TRY(read_pattern(&r));
    PL_TRY(read_sparsity(&r));
    PL_TRY(read_numbers(&r));
    *out = config;
    return PL_OK;
}
