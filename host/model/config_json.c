/* config.json of Hugging Face transformers, versions 4.53 to 5: the text section nested or alone. Keys that
 * are absent have the value that transformers' configuration class gives them. */
#include <math.h>
#include <string.h>

#include "host/model/config_parts.h"

#define SIZE_MAX_VALUE (1 << 30)

typedef struct reader {
    const json_t *text; /* the text model's section */
    const char *where;
    pl_config *config;
    pl_error *err;
} reader;

static pl_status read_size(const reader *r, const char *key, int fallback, int *out)
{
    *out = fallback;
    return pl_member_int(r->text, key, r->where, 0, SIZE_MAX_VALUE, out, r->err);
}

static pl_status unsupported(const reader *r, const char *key, const char *what)
{
    return pl_fail(r->err, PL_ERR_UNSUPPORTED, "%s: %s: %s", r->where, key, what);
}

static pl_status read_sizes(const reader *r)
{
    pl_config *c = r->config;
    int shared;
    PL_TRY(read_size(r, "num_hidden_layers", 35, &c->n_layers));
    if (c->n_layers < 1 || c->n_layers > PL_MAX_LAYERS)
        return pl_fail(r->err, PL_ERR_FORMAT, "%s: num_hidden_layers is %d, expected 1 to %d", r->where, c->n_layers,
                       PL_MAX_LAYERS);
    PL_TRY(read_size(r, "num_kv_shared_layers", 15, &shared));
    if (shared >= c->n_layers)
        return pl_fail(r->err, PL_ERR_FORMAT, "%s: num_kv_shared_layers is %d, expected less than the %d layers",
                       r->where, shared, c->n_layers);
    c->n_kv_layers = c->n_layers - shared;
    PL_TRY(read_size(r, "hidden_size", 2048, &c->hidden));
    PL_TRY(read_size(r, "num_attention_heads", 8, &c->n_heads));
    PL_TRY(read_size(r, "num_key_value_heads", 2, &c->n_kv_heads));
    PL_TRY(read_size(r, "head_dim", 256, &c->head_dim));
    PL_TRY(read_size(r, "hidden_size_per_layer_input", 256, &c->ple_dim));
    PL_TRY(read_size(r, "vocab_size_per_layer_input", 262144, &c->ple_vocab));
    PL_TRY(read_size(r, "vocab_size", 262400, &c->vocab));
    PL_TRY(read_size(r, "laurel_rank", 64, &c->laurel_rank));
    PL_TRY(read_size(r, "sliding_window", 512, &c->window));
    return read_size(r, "max_position_embeddings", 32768, &c->context);
}

static pl_status read_ffn(const reader *r)
{
    pl_config *c = r->config;
    const json_t *value = pl_member_get(r->text, "intermediate_size");
    int width = 16384;
    if (!json_is_array(value)) {
        PL_TRY(read_size(r, "intermediate_size", width, &width));
        for (int l = 0; l < c->n_layers; l++)
            c->ffn[l] = width;
        return PL_OK;
    }
    if (json_array_size(value) != (size_t)c->n_layers)
        return pl_fail(r->err, PL_ERR_FORMAT, "%s: intermediate_size has %zu values for %d layers", r->where,
                       json_array_size(value), c->n_layers);
    for (int l = 0; l < c->n_layers; l++) {
        const json_t *item = json_array_get(value, (size_t)l);
        json_int_t number = json_integer_value(item);
        if (!json_is_integer(item) || number < 1 || number > SIZE_MAX_VALUE)
            return pl_fail(r->err, PL_ERR_FORMAT, "%s: intermediate_size of layer %d is not a width", r->where, l);
        c->ffn[l] = (int)number;
    }
    return PL_OK;
}

/* Files cut from a larger model may keep its longer list: the first values count. */
static pl_status read_layer_types(const reader *r)
{
    pl_config *c = r->config;
    const json_t *value = pl_member_get(r->text, "layer_types");
    for (int l = 0; l < c->n_layers; l++)
        c->local[l] = pl_config_local_by_rule(l);
    if (!value)
        return PL_OK;
    if (!json_is_array(value) || json_array_size(value) < (size_t)c->n_layers)
        return pl_fail(r->err, PL_ERR_FORMAT, "%s: layer_types is not a list of %d types", r->where, c->n_layers);
    for (int l = 0; l < c->n_layers; l++) {
        const char *type = json_string_value(json_array_get(value, (size_t)l));
        if (!type || (strcmp(type, "sliding_attention") != 0 && strcmp(type, "full_attention") != 0))
            return pl_fail(r->err, PL_ERR_UNSUPPORTED,
                           "%s: layer_types of layer %d is %s, expected sliding_attention or full_attention", r->where,
                           l, type ? type : "not a string");
        c->local[l] = strcmp(type, "sliding_attention") == 0;
    }
    return PL_OK;
}

static pl_status read_sparsity(const reader *r)
{
    static const char key[] = "activation_sparsity_pattern";
    pl_config *c = r->config;
    const json_t *value = pl_member_get(r->text, key);
    if (value && (!json_is_array(value) || json_array_size(value) < (size_t)c->n_layers))
        return pl_fail(r->err, PL_ERR_FORMAT, "%s: %s is not a list of %d numbers", r->where, key, c->n_layers);
    for (int l = 0; l < c->n_layers; l++) {
        double p = c->n_layers > PL_DEFAULT_SPARSE_LAYERS && l < PL_DEFAULT_SPARSE_LAYERS ? PL_DEFAULT_SPARSITY : 0;
        const json_t *item = json_array_get(value, (size_t)l);
        if (value)
            p = json_is_number(item) ? json_number_value(item) : -1;
        if (!(p >= 0 && p < 1))
            return pl_fail(r->err, PL_ERR_FORMAT, "%s: %s of layer %d is not a number from 0 to below 1", r->where, key,
                           l);
        c->sparsity_z[l] = pl_normal_quantile(p);
    }
    return PL_OK;
}

static pl_status read_rope_of(const reader *r, const json_t *parameters, const char *key, float *base)
{
    const json_t *section = NULL;
    const char *type = "default";
    PL_TRY(pl_member_object(parameters, key, r->where, &section, r->err));
    if (!section)
        return pl_fail(r->err, PL_ERR_FORMAT, "%s: rope_parameters has no %s", r->where, key);
    PL_TRY(pl_member_text(section, "rope_type", r->where, &type, r->err));
    if (strcmp(type, "default") != 0)
        return pl_fail(r->err, PL_ERR_UNSUPPORTED, "%s: rope_parameters.%s.rope_type is %s, only default is supported",
                       r->where, key, type);
    return pl_member_float(section, "rope_theta", r->where, base, r->err);
}

static pl_status read_rope(const reader *r)
{
    pl_config *c = r->config;
    const json_t *parameters = NULL;
    c->rope_base_global = 1e6f;
    c->rope_base_local = 1e4f;
    if (pl_member_get(r->text, "rope_scaling"))
        return unsupported(r, "rope_scaling", "scaled rotary positions are not supported, expected null");
    PL_TRY(pl_member_float(r->text, "rope_theta", r->where, &c->rope_base_global, r->err));
    PL_TRY(pl_member_float(r->text, "rope_local_base_freq", r->where, &c->rope_base_local, r->err));
    PL_TRY(pl_member_object(r->text, "rope_parameters", r->where, &parameters, r->err));
    if (!parameters)
        return PL_OK;
    PL_TRY(read_rope_of(r, parameters, "full_attention", &c->rope_base_global));
    return read_rope_of(r, parameters, "sliding_attention", &c->rope_base_local);
}

static pl_status read_numbers(const reader *r)
{
    pl_config *c = r->config;
    c->eps = 1e-6f;
    PL_TRY(pl_member_float(r->text, "rms_norm_eps", r->where, &c->eps, r->err));
    const json_t *cap = json_object_get(r->text, "final_logit_softcapping");
    c->softcap = cap && json_is_null(cap) ? 0 : 30;
    PL_TRY(pl_member_float(r->text, "final_logit_softcapping", r->where, &c->softcap, r->err));
    c->altup_correct_scale = true;
    return pl_member_bool(r->text, "altup_correct_scale", r->where, &c->altup_correct_scale, r->err);
}

/* What the equations take for granted. */
static pl_status refuse_other_models(const reader *r)
{
    int streams, active;
    bool bias = false;
    const char *activation = "gelu_pytorch_tanh";
    PL_TRY(read_size(r, "altup_num_inputs", PL_ALTUP, &streams));
    if (streams != PL_ALTUP)
        return unsupported(r, "altup_num_inputs", "only 4 is supported");
    PL_TRY(read_size(r, "altup_active_idx", 0, &active));
    if (active != 0)
        return unsupported(r, "altup_active_idx", "only 0 is supported");
    PL_TRY(pl_member_bool(r->text, "attention_bias", r->where, &bias, r->err));
    if (bias)
        return unsupported(r, "attention_bias", "biases are not supported");
    PL_TRY(pl_member_text(r->text, "hidden_activation", r->where, &activation, r->err));
    if (strcmp(activation, "gelu_pytorch_tanh") != 0)
        return pl_fail(r->err, PL_ERR_UNSUPPORTED, "%s: hidden_activation is %s, only gelu_pytorch_tanh is supported",
                       r->where, activation);
    return PL_OK;
}

/* The first of several objects that states the key, or NULL. */
static const json_t *first_with(const json_t *const *objects, int n, const char *key)
{
    for (int i = 0; i < n; i++) {
        const json_t *value = objects[i] ? pl_member_get(objects[i], key) : NULL;
        if (value)
            return value;
    }
    return NULL;
}

static pl_status read_id(const reader *r, const json_t *value, const char *key, int32_t *out)
{
    if (!value)
        return PL_OK;
    if (!json_is_integer(value))
        return pl_fail(r->err, PL_ERR_FORMAT, "%s: %s is %s, expected an integer", r->where, key,
                       pl_member_kind(value));
    json_int_t id = json_integer_value(value);
    if (id < 0 || id >= r->config->vocab)
        return pl_fail(r->err, PL_ERR_FORMAT, "%s: %s %" JSON_INTEGER_FORMAT " is outside the vocabulary of %d",
                       r->where, key, id, r->config->vocab);
    *out = (int32_t)id;
    return PL_OK;
}

static pl_status read_ids(const reader *r, const json_t *root, const json_t *generation)
{
    const json_t *objects[] = {generation, root, r->text};
    pl_config *c = r->config;
    c->bos = 2;
    c->pad = 0;
    PL_TRY(read_id(r, first_with(objects, 3, "bos_token_id"), "bos_token_id", &c->bos));
    PL_TRY(read_id(r, first_with(objects, 3, "pad_token_id"), "pad_token_id", &c->pad));
    const json_t *eos = first_with(objects, 3, "eos_token_id");
    size_t n = json_is_array(eos) ? json_array_size(eos) : 1;
    for (size_t i = 0; i < n; i++) {
        int32_t id = 1;
        PL_TRY(read_id(r, json_is_array(eos) ? json_array_get(eos, i) : eos, "eos_token_id", &id));
        PL_TRY(pl_config_add_eos(c, id, r->where, r->err));
    }
    return PL_OK;
}

static pl_status find_text_section(const json_t *root, const char *where, const json_t **out, pl_error *err)
{
    const json_t *section = NULL;
    const char *type = NULL;
    PL_TRY(pl_member_object(root, "text_config", where, &section, err));
    if (!section)
        section = root;
    PL_TRY(pl_member_text(section, "model_type", where, &type, err));
    if (!type)
        PL_TRY(pl_member_text(root, "model_type", where, &type, err));
    if (!type)
        return pl_fail(err, PL_ERR_FORMAT, "%s: model_type is missing, expected gemma3n", where);
    if (strcmp(type, "gemma3n") != 0 && strcmp(type, "gemma3n_text") != 0)
        return pl_fail(err, PL_ERR_UNSUPPORTED, "%s: model_type '%s' is not Gemma 3n", where, type);
    *out = section;
    return PL_OK;
}

pl_status pl_config_from_tree(const json_t *root, const json_t *generation, const char *where, pl_config *out,
                              pl_error *err)
{
    pl_config config = {0};
    reader r = {.where = where, .config = &config, .err = err};
    PL_TRY(find_text_section(root, where, &r.text, err));
    PL_TRY(refuse_other_models(&r));
    PL_TRY(read_sizes(&r));
    PL_TRY(read_ffn(&r));
    PL_TRY(read_layer_types(&r));
    PL_TRY(read_sparsity(&r));
    PL_TRY(read_rope(&r));
    PL_TRY(read_numbers(&r));
    PL_TRY(read_ids(&r, root, generation));
    PL_TRY(pl_config_check(&config, where, err));
    *out = config;
    return PL_OK;
}

pl_status pl_config_from_json(const char *json, size_t n, const char *generation, size_t n_generation,
                              const char *where, pl_config *out, pl_error *err)
{
    json_t *root = NULL, *extra = NULL;
    pl_status status;
    PL_TRY_GOTO(pl_member_parse(json, n, where, &root, err));
    if (generation)
        PL_TRY_GOTO(pl_member_parse(generation, n_generation, "generation_config.json", &extra, err));
    status = pl_config_from_tree(root, extra, where, out, err);
fail:
    json_decref(extra);
    json_decref(root);
    return status;
}
