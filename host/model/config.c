#include "host/model/config.h"

#include <math.h>

#include "host/model/config_parts.h"

/* Far above any Gemma, low enough that no product of three overflows 64 bits. */
#define WIDTH_MAX (1 << 20)
#define VOCAB_MAX (1 << 24)

float pl_normal_quantile(double p)
{
    if (!(p > 0))
        return -INFINITY;
    /* Solved in the lower tail, where erfc loses nothing. */
    double tail = p > 0.5 ? 1 - p : p, low = -40, high = 0;
    for (int i = 0; i < 100; i++) {
        double middle = (low + high) / 2;
        if (0.5 * erfc(-middle * M_SQRT1_2) < tail)
            low = middle;
        else
            high = middle;
    }
    return (float)(p > 0.5 ? -high : high);
}

pl_status pl_config_add_eos(pl_config *config, int64_t id, const char *where, pl_error *err)
{
    if (id < 0 || id >= config->vocab)
        return pl_fail(err, PL_ERR_FORMAT, "%s: stop token %lld is outside the vocabulary of %d", where, (long long)id,
                       config->vocab);
    for (int i = 0; i < config->n_eos; i++)
        if (config->eos[i] == id)
            return PL_OK;
    if (config->n_eos == PL_MAX_EOS)
        return pl_fail(err, PL_ERR_UNSUPPORTED, "%s: more than %d stop tokens", where, PL_MAX_EOS);
    config->eos[config->n_eos++] = (int32_t)id;
    return PL_OK;
}

static pl_status in_range(const char *where, const char *what, int value, int low, int high, pl_error *err)
{
    if (value < low || value > high)
        return pl_fail(err, PL_ERR_FORMAT, "%s: %s is %d, expected %d to %d", where, what, value, low, high);
    return PL_OK;
}

static pl_status positive(const char *where, const char *what, float value, pl_error *err)
{
    if (!(value > 0 && value < 1e30f))
        return pl_fail(err, PL_ERR_FORMAT, "%s: %s is %g, expected a positive number", where, what, (double)value);
    return PL_OK;
}

static pl_status check_sizes(const pl_config *c, const char *where, pl_error *err)
{
    PL_TRY(in_range(where, "the number of layers", c->n_layers, 1, PL_MAX_LAYERS, err));
    PL_TRY(in_range(where, "the number of layers with K/V of their own", c->n_kv_layers, 1, c->n_layers, err));
    PL_TRY(in_range(where, "the hidden size", c->hidden, 1, WIDTH_MAX, err));
    PL_TRY(in_range(where, "the number of attention heads", c->n_heads, 1, 4096, err));
    PL_TRY(in_range(where, "the number of K/V heads", c->n_kv_heads, 1, c->n_heads, err));
    PL_TRY(in_range(where, "the head size", c->head_dim, 2, 8192, err));
    PL_TRY(in_range(where, "the per-layer input width", c->ple_dim, 1, WIDTH_MAX, err));
    PL_TRY(in_range(where, "the vocabulary", c->vocab, 1, VOCAB_MAX, err));
    PL_TRY(in_range(where, "the per-layer vocabulary", c->ple_vocab, 1, c->vocab, err));
    PL_TRY(in_range(where, "the LAuReL rank", c->laurel_rank, 1, WIDTH_MAX, err));
    PL_TRY(in_range(where, "the sliding window", c->window, 1, 1 << 30, err));
    PL_TRY(in_range(where, "the context length", c->context, 1, 1 << 30, err));
    if (c->n_heads % c->n_kv_heads != 0)
        return pl_fail(err, PL_ERR_FORMAT, "%s: %d attention heads cannot share %d K/V heads evenly", where, c->n_heads,
                       c->n_kv_heads);
    if (c->head_dim % 2 != 0)
        return pl_fail(err, PL_ERR_FORMAT, "%s: head size %d is odd, rotary positions need pairs", where, c->head_dim);
    return PL_OK;
}

static pl_status check_numbers(const pl_config *c, const char *where, pl_error *err)
{
    PL_TRY(positive(where, "the RMS norm epsilon", c->eps, err));
    PL_TRY(positive(where, "the rotary base of global layers", c->rope_base_global, err));
    PL_TRY(positive(where, "the rotary base of local layers", c->rope_base_local, err));
    if (c->softcap != 0)
        PL_TRY(positive(where, "the soft cap of the logits", c->softcap, err));
    for (int l = 0; l < c->n_layers; l++) {
        if (c->ffn[l] < 1 || c->ffn[l] > WIDTH_MAX)
            return pl_fail(err, PL_ERR_FORMAT, "%s: the FFN width of layer %d is %d, expected 1 to %d", where, l,
                           c->ffn[l], WIDTH_MAX);
        float z = c->sparsity_z[l];
        if (isnan(z) || (isinf(z) && z > 0))
            return pl_fail(err, PL_ERR_FORMAT, "%s: the activation sparsity of layer %d is not a usable number", where,
                           l);
    }
    return PL_OK;
}

static pl_status derive_kv_layers(pl_config *c, const char *where, pl_error *err)
{
    for (int l = 0; l < c->n_layers; l++) {
        int donor = l;
        if (l >= c->n_kv_layers)
            for (donor = c->n_kv_layers - 1; donor >= 0 && c->local[donor] != c->local[l]; donor--)
                ;
        if (donor < 0)
            return pl_fail(err, PL_ERR_FORMAT,
                           "%s: layer %d shares the K/V of a %s layer, but none of layers 0 to %d is one", where, l,
                           c->local[l] ? "local" : "global", c->n_kv_layers - 1);
        c->kv_layer[l] = donor;
    }
    return PL_OK;
}

static pl_status check_ids(const pl_config *c, const char *where, pl_error *err)
{
    PL_TRY(in_range(where, "the id of the first token (bos)", c->bos, 0, c->vocab - 1, err));
    PL_TRY(in_range(where, "the id of the padding token (pad)", c->pad, 0, c->vocab - 1, err));
    PL_TRY(in_range(where, "the number of stop tokens", c->n_eos, 0, PL_MAX_EOS, err));
    for (int i = 0; i < c->n_eos; i++)
        PL_TRY(in_range(where, "the id of a stop token (eos)", c->eos[i], 0, c->vocab - 1, err));
    return PL_OK;
}

pl_status pl_config_check(pl_config *config, const char *where, pl_error *err)
{
    PL_TRY(check_sizes(config, where, err));
    PL_TRY(check_numbers(config, where, err));
    PL_TRY(check_ids(config, where, err));
    return derive_kv_layers(config, where, err);
}
