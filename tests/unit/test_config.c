#include <criterion/criterion.h>
#include <jansson.h>
#include <math.h>

#include "host/model/config_parts.h"
#include "tests/unit/scratch.h"

static json_t *root, *text;
static pl_config config;
static pl_error err;

/* The big golden model's config.json, to be changed. */
static void setup(void)
{
    size_t n;
    char *json = read_file(PL_TEST_DATA "/golden/text/e4b/config.json", &n);
    root = json_loadb(json, n, 0, NULL);
    free(json);
    text = json_object_get(root, "text_config");
    cr_assert_not_null(text);
}

static void teardown(void)
{
    json_decref(root);
}

TestSuite(config, .init = setup, .fini = teardown);

static pl_status parse_with(const char *generation)
{
    char *json = json_dumps(root, 0);
    memset(&err, 0, sizeof err);
    pl_status status = pl_config_from_json(json, strlen(json), generation, generation ? strlen(generation) : 0,
                                           "dir/config.json", &config, &err);
    free(json);
    return status;
}

static void accepts(void)
{
    cr_assert_eq(parse_with(NULL), PL_OK, "%s", err.message);
}

static json_t *value_of(const char *json)
{
    json_t *value = json_loads(json, JSON_DECODE_ANY, NULL);
    cr_assert_not_null(value, "%s", json);
    return value;
}

/* With one key of the text section set to a value (NULL: taken out), the file is refused. */
static void refuses(pl_status status, const char *key, const char *json, const char *const *words)
{
    json_t *before = json_incref(json_object_get(text, key));
    if (json)
        json_object_set_new(text, key, value_of(json));
    else
        json_object_del(text, key);
    expect_failure(parse_with(NULL), status, &err, words);
    expect_failure(err.status, status, &err, WORDS("dir/config.json"));
    if (before)
        json_object_set_new(text, key, before);
    else
        json_object_del(text, key);
}

static void set(const char *key, const char *json)
{
    json_object_set_new(text, key, value_of(json));
}

Test(config, golden_model)
{
    accepts();
    const pl_config *c = &config;
    cr_assert(c->n_layers == 20 && c->n_kv_layers == 10 && c->hidden == 64 && c->ffn[0] == 128 && c->ffn[19] == 128);
    cr_assert(c->n_heads == 8 && c->n_kv_heads == 2 && c->head_dim == 16 && c->ple_dim == 16 && c->ple_vocab == 1024 &&
              c->vocab == 1088);
    cr_assert(c->laurel_rank == 8 && c->window == 16 && c->context == 2048 && c->altup_correct_scale);
    cr_assert(c->eps == 1e-6f && c->softcap == 30 && c->rope_base_global == 1e6f && c->rope_base_local == 1e4f);
    cr_assert(c->bos == 2 && c->pad == 0 && c->n_eos == 2 && c->eos[0] == 1 && c->eos[1] == 106);
    for (int l = 0; l < 20; l++) {
        cr_assert_eq(c->local[l], l % 5 != 4);
        cr_assert_eq(c->kv_layer[l], l < 10 ? l : l % 5 == 4 ? 9 : 8);
    }
    cr_assert_eq(c->sparsity_z[5], pl_normal_quantile(0.95));
    cr_assert_eq(c->sparsity_z[19], -INFINITY);
}

Test(config, text_section_alone)
{
    json_t *nested = root;
    root = json_incref(text);
    accepts();
    cr_assert(config.n_eos == 1 && config.eos[0] == 1, "a text section without ids has transformers' own");
    json_decref(root);
    root = nested;
}

/* The classes of transformers leave out what has its default. */
Test(config, absent_keys_are_those_of_e4b)
{
    json_object_clear(text);
    accepts();
    const pl_config *c = &config;
    cr_assert(c->n_layers == 35 && c->n_kv_layers == 20 && c->hidden == 2048 && c->ffn[34] == 16384 &&
              c->vocab == 262400);
    cr_assert(c->ple_vocab == 262144 && c->ple_dim == 256 && c->head_dim == 256 && c->n_heads == 8 &&
              c->n_kv_heads == 2);
    cr_assert(c->window == 512 && c->context == 32768 && c->laurel_rank == 64 && c->softcap == 30);
    for (int l = 0; l < 35; l++) {
        cr_assert_eq(c->local[l], l % 5 != 4);
        cr_assert_eq(c->kv_layer[l], l < 20 ? l : l % 5 == 4 ? 19 : 18);
        cr_assert_eq(isinf(c->sparsity_z[l]) != 0, l >= 10);
    }
}

Test(config, other_spellings)
{
    set("intermediate_size", "96");
    set("activation_sparsity_pattern", "null");
    set("final_logit_softcapping", "null");
    json_object_del(text, "rope_theta");
    json_object_del(text, "rope_local_base_freq");
    json_object_del(text, "rope_scaling");
    set("rope_parameters", "{\"full_attention\":{\"rope_type\":\"default\",\"rope_theta\":500000},"
                           "\"sliding_attention\":{\"rope_type\":\"default\",\"rope_theta\":2000.0}}");
    set("dtype", "\"bfloat16\"");
    accepts();
    cr_assert(config.ffn[0] == 96 && config.ffn[19] == 96 && config.softcap == 0);
    cr_assert(config.rope_base_global == 500000 && config.rope_base_local == 2000);
    cr_assert_eq(config.sparsity_z[9], pl_normal_quantile(0.95));
    cr_assert_eq(config.sparsity_z[10], -INFINITY);
}

/* As the published recipe for cutting E2B leaves it. */
Test(config, lists_longer_than_the_layers)
{
    set("num_hidden_layers", "15");
    set("num_kv_shared_layers", "5");
    set("intermediate_size", "64");
    accepts();
    cr_assert(config.n_layers == 15 && config.n_kv_layers == 10 && !config.local[14] && config.kv_layer[14] == 9);
}

Test(config, small_model_without_sparsity_pattern)
{
    set("num_hidden_layers", "10");
    set("num_kv_shared_layers", "0");
    set("intermediate_size", "64");
    set("activation_sparsity_pattern", "null");
    accepts();
    cr_assert_eq(config.sparsity_z[0], -INFINITY);
    cr_assert_eq(config.kv_layer[9], 9);
}

Test(config, stop_tokens)
{
    cr_assert_eq(parse_with("{\"eos_token_id\": 7, \"bos_token_id\": 3}"), PL_OK);
    cr_assert(config.n_eos == 1 && config.eos[0] == 7 && config.bos == 3);
    cr_assert_eq(parse_with("{\"eos_token_id\": [106, 1, 106]}"), PL_OK);
    cr_assert(config.n_eos == 2 && config.eos[0] == 106 && config.eos[1] == 1);
    expect_failure(parse_with("{\"eos_token_id\": [1, 1088]}"), PL_ERR_FORMAT, &err, WORDS("eos_token_id", "1088"));
    expect_failure(parse_with("{\"eos_token_id\": \"1\"}"), PL_ERR_FORMAT, &err, WORDS("eos_token_id", "a string"));
    expect_failure(parse_with("{\"bos_token_id\": -1}"), PL_ERR_FORMAT, &err, WORDS("bos_token_id", "-1"));
    expect_failure(parse_with("{\"eos_token_id\": [2,3,4,5,6,7,8,9,10]}"), PL_ERR_UNSUPPORTED, &err,
                   WORDS("stop tokens"));
    expect_failure(parse_with("{"), PL_ERR_FORMAT, &err, WORDS("generation_config.json", "line 1"));
}

Test(config, models_that_are_not_gemma_3n)
{
    refuses(PL_ERR_UNSUPPORTED, "model_type", "\"llama\"", WORDS("model_type", "'llama'"));
    refuses(PL_ERR_UNSUPPORTED, "altup_num_inputs", "2", WORDS("altup_num_inputs"));
    refuses(PL_ERR_UNSUPPORTED, "altup_active_idx", "1", WORDS("altup_active_idx"));
    refuses(PL_ERR_UNSUPPORTED, "attention_bias", "true", WORDS("attention_bias"));
    refuses(PL_ERR_UNSUPPORTED, "hidden_activation", "\"gelu\"", WORDS("hidden_activation", "gelu"));
    refuses(PL_ERR_UNSUPPORTED, "rope_scaling", "{\"rope_type\":\"yarn\"}", WORDS("rope_scaling"));
    refuses(PL_ERR_UNSUPPORTED, "rope_parameters", "{\"full_attention\":{\"rope_type\":\"yarn\"}}",
            WORDS("rope_parameters", "yarn"));
    refuses(PL_ERR_FORMAT, "rope_parameters", "{\"rope_theta\":10000}", WORDS("rope_parameters", "full_attention"));
    json_object_del(root, "model_type");
    refuses(PL_ERR_FORMAT, "model_type", NULL, WORDS("model_type is missing"));
}

Test(config, values_out_of_range)
{
    static const struct {
        const char *key, *json, *word;
    } bad[] = {
        {"num_hidden_layers", "0", "num_hidden_layers"},
        {"num_hidden_layers", "129", "num_hidden_layers"},
        {"num_hidden_layers", "-1", "num_hidden_layers"},
        {"num_hidden_layers", "20.0", "num_hidden_layers is a number"},
        {"num_hidden_layers", "99999999999", "num_hidden_layers"},
        {"num_kv_shared_layers", "20", "num_kv_shared_layers"},
        {"num_kv_shared_layers", "16", "global layer"},
        {"hidden_size", "0", "hidden size"},
        {"hidden_size", "\"64\"", "hidden_size is a string"},
        {"hidden_size", "1073741824", "hidden size"},
        {"num_attention_heads", "0", "attention heads"},
        {"num_attention_heads", "7", "cannot share"},
        {"num_key_value_heads", "3", "cannot share"},
        {"num_key_value_heads", "16", "K/V heads"},
        {"head_dim", "15", "odd"},
        {"head_dim", "0", "head size"},
        {"vocab_size", "0", "vocabulary"},
        {"vocab_size", "100", "_token_id"},
        {"vocab_size_per_layer_input", "1089", "per-layer vocabulary"},
        {"laurel_rank", "0", "LAuReL"},
        {"sliding_window", "0", "sliding window"},
        {"max_position_embeddings", "0", "context"},
        {"rms_norm_eps", "0", "epsilon"},
        {"rms_norm_eps", "-1e-6", "epsilon"},
        {"rms_norm_eps", "1e300", "rms_norm_eps"},
        {"rope_theta", "0", "rotary base of global"},
        {"rope_local_base_freq", "-1", "rotary base of local"},
        {"final_logit_softcapping", "-30", "soft cap"},
        {"altup_correct_scale", "1", "altup_correct_scale is an integer"},
        {"intermediate_size", "[128]", "intermediate_size has 1 values for 20 layers"},
        {"intermediate_size", "[1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,0]", "intermediate_size of layer 19"},
        {"intermediate_size", "0", "FFN width of layer 0"},
        {"layer_types", "[\"full_attention\"]", "layer_types"},
        {"layer_types", "\"full_attention\"", "layer_types"},
        {"activation_sparsity_pattern", "[0.5]", "activation_sparsity_pattern"},
        {"activation_sparsity_pattern", "0.5", "activation_sparsity_pattern"},
    };
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        refuses(PL_ERR_FORMAT, bad[i].key, bad[i].json, WORDS(bad[i].word));
    json_array_set_new(json_object_get(text, "layer_types"), 3, json_string("chunked_attention"));
    refuses(PL_ERR_UNSUPPORTED, "unused", "0", WORDS("layer_types of layer 3", "chunked_attention"));
}

Test(config, sparsity_out_of_range)
{
    static const double bad[] = {1, 1.5, -0.1};
    for (size_t i = 0; i < 3; i++) {
        json_array_set_new(json_object_get(text, "activation_sparsity_pattern"), 4, json_real(bad[i]));
        refuses(PL_ERR_FORMAT, "unused", "0", WORDS("activation_sparsity_pattern of layer 4"));
    }
    json_array_set_new(json_object_get(text, "activation_sparsity_pattern"), 4, json_real(0.5));
    accepts();
    cr_assert_lt(fabsf(config.sparsity_z[4]), 1e-7f);
}

/* Values of the standard normal distribution from tables of 10 and more digits. */
Test(config, normal_quantile)
{
    static const struct {
        double p, z;
    } known[] = {{0.95, 1.6448536269514722},  {0.9, 1.2815515655446004},   {0.99, 2.3263478740408408},
                 {0.999, 3.090232306167813},  {0.05, -1.6448536269514722}, {0.975, 1.959963984540054},
                 {1e-9, -5.9978070150076865}, {0.75, 0.6744897501960817}};
    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++)
        cr_assert_eq(pl_normal_quantile(known[i].p), (float)known[i].z, "p = %g gives %.9g", known[i].p,
                     (double)pl_normal_quantile(known[i].p));
    cr_assert_eq(pl_normal_quantile(0), -INFINITY);
}

Test(config, text_that_is_not_json)
{
    static const char *const bad[] = {"",
                                      "{",
                                      "[]",
                                      "7",
                                      "{\"a\":1,\"a\":2}",
                                      "{\"text_config\":7}",
                                      "\xff\xfe",
                                      "{\"text_config\":{\"hidden_size\":1e999}}"};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        expect_failure(pl_config_from_json(bad[i], strlen(bad[i]), NULL, 0, "dir/config.json", &config, &err),
                       PL_ERR_FORMAT, &err, WORDS("dir/config.json"));
}
