#include "host/convert/metadata.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "host/convert/metadata_parts.h"
#include "host/model/model_json.h"

#define QUANTIZATION_VERSION 2 /* of the block layouts, as ggml counts */

/* ---- for every source ---------------------------------------------------------------------------- */

/* "6.9B": two digits at least, as llama.cpp's converter writes it. */
static void put_size_label(pl_gguf_writer *w, const pl_export *e)
{
    static const struct {
        double unit;
        char letter;
    } scales[] = {{1e12, 'T'}, {1e9, 'B'}, {1e6, 'M'}, {1e3, 'K'}};
    double n = 0;
    char text[32];
    size_t s = 0;
    for (size_t i = 0; i < e->n; i++)
        n += (double)e->tensors[i].n_rows * (double)e->tensors[i].n_cols;
    while (s < 3 && n <= scales[s].unit)
        s++;
    n /= scales[s].unit;
    snprintf(text, sizeof text, "%.*f%c", round(n) >= 10 ? 0 : round(n) >= 1 ? 1 : 2, n, scales[s].letter);
    pl_gguf_put_text(w, "general.size_label", text);
}

/* What a slice changes. */
static const char *const sliced_keys[] = {
    "gemma3n.activation_sparsity_scale",
    "gemma3n.attention.shared_kv_layers",
    "gemma3n.attention.sliding_window_pattern",
    "gemma3n.block_count",
    "gemma3n.feed_forward_length",
};

static void put_layers(pl_gguf_writer *w, const pl_config *c)
{
    int32_t ffn[PL_MAX_LAYERS];
    unsigned char local[PL_MAX_LAYERS];
    uint64_t n = (uint64_t)c->n_layers;
    for (int l = 0; l < c->n_layers; l++) {
        ffn[l] = c->ffn[l];
        local[l] = c->local[l];
    }
    pl_gguf_put_u32(w, "gemma3n.block_count", (uint32_t)c->n_layers);
    pl_gguf_put_array(w, "gemma3n.feed_forward_length", PL_GGUF_I32, ffn, n);
    pl_gguf_put_array(w, "gemma3n.attention.sliding_window_pattern", PL_GGUF_BOOL, local, n);
    pl_gguf_put_u32(w, "gemma3n.attention.shared_kv_layers", (uint32_t)(c->n_layers - c->n_kv_layers));
    pl_gguf_put_array(w, "gemma3n.activation_sparsity_scale", PL_GGUF_F32, c->sparsity_z, n);
}

static pl_status put_paths(pl_gguf_writer *w, const pl_export *e, pl_error *err)
{
    for (size_t i = 0; i < e->n_paths; i++) {
        char key[300];
        int n = snprintf(key, sizeof key, "pleiad.path.%s", e->paths[i].name);
        if (n < 0 || (size_t)n >= sizeof key)
            return pl_fail(err, PL_ERR_FORMAT, "%s: the name of path %.40s... is too long for GGUF",
                           pl_checkpoint_path(e->source), e->paths[i].name);
        pl_gguf_put_text(w, key, e->paths[i].spec);
    }
    return PL_OK;
}

static bool is_slice(const pl_export *e)
{
    const pl_config *from = pl_checkpoint_config(e->source);
    return from->n_layers != e->config.n_layers ||
           memcmp(from->ffn, e->config.ffn, (size_t)from->n_layers * sizeof *from->ffn) != 0;
}

/* ---- from GGUF ----------------------------------------------------------------------------------- */

static bool starts_with(const char *text, const char *start)
{
    return strncmp(text, start, strlen(start)) == 0;
}

/* True for keys that are put anew or that tell of how the source was stored. */
static bool is_replaced(const pl_export *e, const char *key)
{
    for (size_t i = 0; i < sizeof sliced_keys / sizeof sliced_keys[0]; i++)
        if (strcmp(key, sliced_keys[i]) == 0)
            return true;
    return strcmp(key, "general.architecture") == 0 || strcmp(key, "general.file_type") == 0 ||
           strcmp(key, "general.quantization_version") == 0 || strcmp(key, "general.alignment") == 0 ||
           starts_with(key, "split.") || starts_with(key, "pleiad.path.") ||
           (strcmp(key, "general.size_label") == 0 && is_slice(e));
}

static int compare_places(const void *a, const void *b)
{
    const pl_gguf_value *x = *(const pl_gguf_value *const *)a, *y = *(const pl_gguf_value *const *)b;
    return x->data < y->data ? -1 : x->data > y->data;
}

/* In the order in which the source has them. */
static pl_status copy_values(pl_gguf_writer *w, const pl_export *e, pl_error *err)
{
    const pl_gguf_value *values;
    size_t n = pl_checkpoint_gguf_values(e->source, &values);
    const pl_gguf_value **order = malloc((n + 1) * sizeof *order);
    if (!order)
        return pl_fail_memory(err, (n + 1) * sizeof *order, "the list of keys");
    for (size_t i = 0; i < n; i++)
        order[i] = &values[i];
    qsort(order, n, sizeof *order, compare_places);
    for (size_t i = 0; i < n; i++)
        if (!is_replaced(e, order[i]->key))
            pl_gguf_put_value(w, order[i]);
    free(order);
    return PL_OK;
}

/* ---- from a Hugging Face folder ------------------------------------------------------------------ */

static void put_sizes(pl_gguf_writer *w, const pl_config *c)
{
    pl_gguf_put_u32(w, "gemma3n.context_length", (uint32_t)c->context);
    pl_gguf_put_u32(w, "gemma3n.embedding_length", (uint32_t)c->hidden);
    pl_gguf_put_u32(w, "gemma3n.attention.head_count", (uint32_t)c->n_heads);
    pl_gguf_put_u32(w, "gemma3n.attention.head_count_kv", (uint32_t)c->n_kv_heads);
    pl_gguf_put_f32(w, "gemma3n.rope.freq_base", c->rope_base_global);
    pl_gguf_put_f32(w, "gemma3n.rope.freq_base_swa", c->rope_base_local);
    pl_gguf_put_f32(w, "gemma3n.attention.layer_norm_rms_epsilon", c->eps);
    pl_gguf_put_u32(w, "gemma3n.attention.key_length", (uint32_t)c->head_dim);
    pl_gguf_put_u32(w, "gemma3n.attention.value_length", (uint32_t)c->head_dim);
    pl_gguf_put_f32(w, "gemma3n.final_logit_softcapping", c->softcap);
    pl_gguf_put_u32(w, "gemma3n.attention.sliding_window", (uint32_t)c->window);
    pl_gguf_put_u32(w, "gemma3n.altup.active_idx", 0);
    pl_gguf_put_u32(w, "gemma3n.altup.num_inputs", PL_ALTUP);
    pl_gguf_put_u32(w, "gemma3n.embedding_length_per_layer_input", (uint32_t)c->ple_dim);
}

/* Sampling that the model's makers recommend. */
static void put_sampling(pl_gguf_writer *w, const json_t *generation)
{
    static const struct {
        const char *from, *to;
        bool whole;
    } list[] = {
        {"top_k", "general.sampling.top_k", true},
        {"top_p", "general.sampling.top_p", false},
        {"min_p", "general.sampling.min_p", false},
        {"temperature", "general.sampling.temp", false},
        {"repetition_penalty", "general.sampling.penalty_repeat", false},
    };
    for (size_t i = 0; i < sizeof list / sizeof list[0]; i++) {
        const json_t *value = json_object_get(generation, list[i].from);
        double number = json_number_value(value);
        if (!json_is_number(value) || fabs(number) > INT32_MAX)
            continue;
        if (list[i].whole)
            pl_gguf_put_i32(w, list[i].to, (int32_t)number);
        else
            pl_gguf_put_f32(w, list[i].to, (float)number);
    }
}

static pl_status put_folder(pl_gguf_writer *w, const pl_export *e, pl_error *err)
{
    const char *folder = pl_checkpoint_path(e->source), *template = pl_checkpoint_chat_template(e->source);
    json_t *generation = NULL, *tokenizer = NULL;
    pl_status status;
    PL_TRY_GOTO(pl_folder_json(folder, "generation_config.json", &generation, err));
    PL_TRY_GOTO(pl_folder_json(folder, "tokenizer_config.json", &tokenizer, err));
    pl_gguf_put_text(w, "general.type", "model");
    put_sampling(w, generation);
    pl_gguf_put_text(w, "general.name", pl_checkpoint_name(e->source));
    put_sizes(w, &e->config);
    PL_TRY_GOTO(pl_metadata_put_vocabulary(w, e, tokenizer, err));
    if (template)
        pl_gguf_put_text(w, "tokenizer.chat_template", template);
fail:
    json_decref(tokenizer);
    json_decref(generation);
    return status;
}

pl_status pl_metadata_put(pl_gguf_writer *w, const pl_export *e, uint32_t file_type, pl_error *err)
{
    bool gguf = pl_checkpoint_kind(e->source) == PL_CHECKPOINT_GGUF;
    pl_gguf_put_text(w, "general.architecture", "gemma3n");
    PL_TRY(gguf ? copy_values(w, e, err) : put_folder(w, e, err));
    if (!gguf || is_slice(e))
        put_size_label(w, e);
    put_layers(w, &e->config);
    pl_gguf_put_u32(w, "general.file_type", file_type);
    pl_gguf_put_u32(w, "general.quantization_version", QUANTIZATION_VERSION);
    return put_paths(w, e, err);
}
