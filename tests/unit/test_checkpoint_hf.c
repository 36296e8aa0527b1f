/* Opening Hugging Face folders: the golden models, their other forms, and what can be wrong with them. */
#include <jansson.h>
#include <math.h>
#include <sys/stat.h>

#include "host/model/checkpoint_parts.h"
#include "host/model/path.h"
#include "host/model/safetensors.h"
#include "tests/unit/scratch.h"

#define E4B PL_TEST_DATA "/golden/text/e4b"
#define E2B PL_TEST_DATA "/golden/text/e2b"
#define PREFIX "model.language_model."

/* A safetensors file in the making: a golden one, changed. */
typedef struct packed {
    char name[128];
    const char *dtype;
    pl_entry entry;
} packed;

static scratch s;
static pl_safetensors source;
static packed *tensors;
static size_t n_tensors;
static json_t *config;
static pl_checkpoint *checkpoint;
static pl_error err;

static packed *add(const char *name, const pl_entry *entry)
{
    packed *t = &tensors[n_tensors++];
    snprintf(t->name, sizeof t->name, "%s", name);
    t->dtype = entry->type_name;
    t->entry = *entry;
    return t;
}

static void setup(void)
{
    scratch_open(&s);
    cr_assert_eq(pl_safetensors_open(E4B "/model.safetensors", &source, &err), PL_OK);
    tensors = calloc(source.tensors.n + 8, sizeof *tensors);
    for (size_t i = 0; i < source.tensors.n; i++)
        add(source.tensors.items[i].name, &source.tensors.items[i]);
    config = json_load_file(E4B "/config.json", 0, NULL);
    cr_assert_not_null(config);
}

static void teardown(void)
{
    pl_checkpoint_close(checkpoint);
    pl_safetensors_close(&source);
    json_decref(config);
    free(tensors);
    scratch_close(&s);
}

TestSuite(checkpoint_hf, .init = setup, .fini = teardown);

static packed *find(const char *name)
{
    for (size_t i = 0; i < n_tensors; i++)
        if (strcmp(tensors[i].name, name) == 0)
            return &tensors[i];
    cr_assert_fail("no tensor %s", name);
    return NULL;
}

static void drop(const char *name)
{
    packed *t = find(name);
    *t = tensors[--n_tensors];
}

/* Tensors [begin, end), one behind the other; `spaces` shift the data. */
static const char *pack(const char *file, size_t begin, size_t end, int spaces)
{
    json_t *root = json_object();
    uint64_t at = 0;
    for (size_t i = begin; i < end; i++) {
        const packed *t = &tensors[i];
        json_t *shape = json_array();
        for (int d = 0; d < t->entry.n_dims; d++)
            json_array_append_new(shape, json_integer(t->entry.dims[d]));
        json_object_set_new(root, t->name,
                            json_pack("{s:s,s:o,s:[I,I]}", "dtype", t->dtype, "shape", shape, "data_offsets",
                                      (json_int_t)at, (json_int_t)(at + t->entry.bytes)));
        at += t->entry.bytes;
    }
    char *text = json_dumps(root, JSON_COMPACT);
    uint64_t n = strlen(text), padded = (n + 7) / 8 * 8 + (uint64_t)spaces;
    char *data = malloc(8 + padded + at);
    memcpy(data, &padded, 8);
    memset(data + 8, ' ', padded);
    memcpy(data + 8, text, n);
    at = 8 + padded;
    for (size_t i = begin; i < end; at += tensors[i].entry.bytes, i++)
        memcpy(data + at, tensors[i].entry.data, tensors[i].entry.bytes);
    const char *path = scratch_write(&s, file, data, at);
    free(data);
    free(text);
    json_decref(root);
    return path;
}

static void write_config(void)
{
    char *text = json_dumps(config, 0);
    scratch_text(&s, "config.json", text);
    free(text);
}

static pl_status open_path(const char *path)
{
    pl_checkpoint_close(checkpoint);
    checkpoint = NULL;
    memset(&err, 0, sizeof err);
    return pl_checkpoint_open(path, &checkpoint, &err);
}

static pl_status open_packed(int spaces)
{
    write_config();
    pack("model.safetensors", 0, n_tensors, spaces);
    return open_path(s.dir);
}

static void accepts(void)
{
    cr_assert_eq(open_packed(0), PL_OK, "%s", err.message);
}

static void refuses(pl_status status, const char *const *words)
{
    expect_failure(open_packed(0), status, &err, words);
}

static const pl_weights *weights(void)
{
    return pl_checkpoint_weights(checkpoint);
}

static bool views(const pl_tensor *t, const char *name, int64_t rows, int64_t cols)
{
    const pl_entry *entry = pl_tensor_list_find(&source.tensors, name);
    return t->data && t->rows == rows && t->cols == cols && (uint64_t)rows * pl_tensor_row_bytes(t) == entry->bytes &&
           memcmp(t->data, entry->data, entry->bytes) == 0;
}

static void set_text(const char *key, const char *json)
{
    json_object_set_new(json_object_get(config, "text_config"), key, json_loads(json, JSON_DECODE_ANY, NULL));
}

static void weights_are_right(void)
{
    const pl_weights *w = weights();
    const pl_layer_weights *l = &w->layer[7];
    cr_assert(views(&w->embed, PREFIX "embed_tokens.weight", 1088, 64));
    cr_assert(views(&w->ple_table, PREFIX "embed_tokens_per_layer.weight", 1024, 320));
    cr_assert(views(&w->ple_model_proj, PREFIX "per_layer_model_projection.weight", 320, 64));
    cr_assert(views(&w->ple_norm, PREFIX "per_layer_projection_norm.weight", 1, 16));
    cr_assert(views(&w->out_norm, PREFIX "norm.weight", 1, 64));
    cr_assert(views(&w->altup_proj[1], PREFIX "altup_projections.1.weight", 64, 64));
    cr_assert(views(&w->altup_unembed[2], PREFIX "altup_unembed_projections.2.weight", 64, 64));
#define L7(name) PREFIX "layers.7." name
    cr_assert(views(&l->attn_norm, L7("input_layernorm.weight"), 1, 64));
    cr_assert(views(&l->post_attn_norm, L7("post_attention_layernorm.weight"), 1, 64));
    cr_assert(views(&l->ffn_norm, L7("pre_feedforward_layernorm.weight"), 1, 64));
    cr_assert(views(&l->post_ffn_norm, L7("post_feedforward_layernorm.weight"), 1, 64));
    cr_assert(views(&l->post_ple_norm, L7("post_per_layer_input_norm.weight"), 1, 64));
    cr_assert(views(&l->q, L7("self_attn.q_proj.weight"), 128, 64));
    cr_assert(views(&l->k, L7("self_attn.k_proj.weight"), 32, 64));
    cr_assert(views(&l->v, L7("self_attn.v_proj.weight"), 32, 64));
    cr_assert(views(&l->o, L7("self_attn.o_proj.weight"), 64, 128));
    cr_assert(views(&l->q_norm, L7("self_attn.q_norm.weight"), 1, 16));
    cr_assert(views(&l->k_norm, L7("self_attn.k_norm.weight"), 1, 16));
    cr_assert(views(&l->gate, L7("mlp.gate_proj.weight"), 128, 64));
    cr_assert(views(&l->up, L7("mlp.up_proj.weight"), 128, 64));
    cr_assert(views(&l->down, L7("mlp.down_proj.weight"), 64, 128));
    cr_assert(views(&l->laurel_left, L7("laurel.linear_left.weight"), 8, 64));
    cr_assert(views(&l->laurel_right, L7("laurel.linear_right.weight"), 64, 8));
    cr_assert(views(&l->laurel_norm, L7("laurel.post_laurel_norm.weight"), 1, 64));
    cr_assert(views(&l->altup_router, L7("altup.modality_router.weight"), 4, 64));
    cr_assert(views(&l->altup_router_norm, L7("altup.router_norm.weight"), 1, 64));
    cr_assert(views(&l->altup_predict, L7("altup.prediction_coefs.weight"), 16, 4));
    cr_assert(views(&l->altup_correct, L7("altup.correction_coefs.weight"), 4, 4));
    cr_assert(views(&l->altup_scale, L7("altup.correct_output_scale"), 1, 64));
    cr_assert(views(&l->ple_gate, L7("per_layer_input_gate.weight"), 16, 64));
    cr_assert(views(&l->ple_proj, L7("per_layer_projection.weight"), 64, 16));
    for (int i = 10; i < 20; i++)
        cr_assert(!w->layer[i].k.data && !w->layer[i].v.data && !w->layer[i].k_norm.data && w->layer[i].q.data);
}

Test(checkpoint_hf, golden_model)
{
    cr_assert_eq(open_path(E4B), PL_OK, "%s", err.message);
    weights_are_right();
    cr_assert_null(weights()->head.data);
    cr_assert_str_eq(pl_checkpoint_name(checkpoint), "e4b");
    cr_assert_eq(pl_checkpoint_kind(checkpoint), PL_CHECKPOINT_HF);
    cr_assert_null(pl_checkpoint_pieces(checkpoint));
    cr_assert_not_null(strstr(pl_checkpoint_chat_template(checkpoint), "<start_of_turn>"));
    cr_assert(pl_checkpoint_config(checkpoint)->n_eos == 2);
    const pl_tensor *all;
    cr_assert_eq(pl_checkpoint_tensors(checkpoint, &all), 491);
    cr_assert_eq(pl_checkpoint_bytes(checkpoint), source.file.size);
    pl_checkpoint_drop(checkpoint, &weights()->embed);
    weights_are_right();
    cr_assert_eq(open_path(E4B "/"), PL_OK);
    cr_assert_str_eq(pl_checkpoint_name(checkpoint), "e4b");
}

/* The sharded slice holds the same values as the model that it was cut from. */
Test(checkpoint_hf, sharded_slice)
{
    cr_assert_eq(open_path(E2B), PL_OK, "%s", err.message);
    const pl_entry *up = pl_tensor_list_find(&source.tensors, PREFIX "layers.17.mlp.up_proj.weight");
    const pl_tensor *cut = &weights()->layer[12].up;
    cr_assert(cut->rows == 64 && cut->cols == 64 && memcmp(cut->data, up->data, 64 * 64 * 2) == 0);
    const pl_config *c = pl_checkpoint_config(checkpoint);
    cr_assert(c->n_layers == 15 && c->n_kv_layers == 10 && c->ffn[0] == 64 && c->kv_layer[14] == 9 &&
              c->kv_layer[13] == 8);
}

Test(checkpoint_hf, other_prefixes)
{
    static const char *const prefixes[] = {"model.", "language_model.model.", "language_model.", ""};
    for (size_t p = 0; p < 4; p++) {
        for (size_t i = 0; i < n_tensors; i++)
            snprintf(tensors[i].name, sizeof tensors[i].name, "%s%s", prefixes[p],
                     source.tensors.items[i].name + strlen(PREFIX));
        accepts();
        weights_are_right();
    }
    for (size_t i = 0; i < n_tensors; i++)
        snprintf(tensors[i].name, sizeof tensors[i].name, "odd.%s", source.tensors.items[i].name);
    refuses(PL_ERR_FORMAT, WORDS(s.dir, "embed_tokens.weight is missing"));
    pl_checkpoint *parts = NULL;
    cr_assert_eq(pl_checkpoint_open_parts(s.dir, &parts, NULL), PL_OK);
    cr_expect_gt(pl_checkpoint_config(parts)->hidden, 0);
    cr_expect_not_null(pl_tensor_list_find(pl_checkpoint_entries(parts), tensors[0].name));
    pl_checkpoint_close(parts);
}

Test(checkpoint_hf, towers_and_decoys_are_skipped)
{
    const pl_entry any = find(PREFIX "norm.weight")->entry;
    packed *odd = add("model.vision_tower.stem.weight", &any);
    odd->dtype = "I16";
    add("model.audio_tower.conv.weight", &any);
    for (int l = 10; l < 20; l++) {
        static const char *const parts[] = {"k_proj", "v_proj", "k_norm"};
        for (int i = 0; i < 3; i++) {
            char name[128];
            snprintf(name, sizeof name, PREFIX "layers.%d.self_attn.%s.weight", l, parts[i]);
            drop(name);
        }
    }
    accepts();
    weights_are_right();
}

Test(checkpoint_hf, misaligned_data_is_copied)
{
    cr_assert_eq(open_packed(1), PL_OK, "%s", err.message);
    weights_are_right();
    cr_assert_eq((uintptr_t)weights()->layer[3].gate.data % 2, 0);
    cr_assert_eq((uintptr_t)weights()->embed.data % 2, 0);
}

Test(checkpoint_hf, heads)
{
    add("lm_head.weight", &find(PREFIX "embed_tokens.weight")->entry);
    accepts();
    cr_assert_null(weights()->head.data, "a tied model keeps one copy");
    set_text("tie_word_embeddings", "false");
    accepts();
    cr_assert(views(&weights()->head, PREFIX "embed_tokens.weight", 1088, 64));
    find("lm_head.weight")->entry.dims[0] = 544;
    find("lm_head.weight")->entry.bytes /= 2;
    refuses(PL_ERR_FORMAT, WORDS("lm_head.weight is [544, 64], expected [1088, 64]"));
    drop("lm_head.weight");
    refuses(PL_ERR_FORMAT, WORDS("lm_head.weight is missing"));
}

Test(checkpoint_hf, other_types)
{
    packed *t = find(PREFIX "layers.0.input_layernorm.weight");
    t->dtype = "F16";
    accepts();
    cr_assert_eq(weights()->layer[0].attn_norm.type, PL_F16);
    t->dtype = "I16";
    refuses(PL_ERR_UNSUPPORTED, WORDS("model.safetensors", PREFIX "layers.0.input_layernorm.weight", "type I16"));
    t->dtype = "BF16";
    t = find(PREFIX "layers.4.altup.correction_coefs.weight");
    t->dtype = "F32"; /* the same bytes, half as many values */
    t->entry.dims[0] = 2;
    refuses(PL_ERR_FORMAT, WORDS("correction_coefs.weight is [2, 4], expected [4, 4]"));
}

Test(checkpoint_hf, missing_tensors_are_named)
{
    static const char *const names[] = {
        PREFIX "layers.19.mlp.down_proj.weight",      PREFIX "norm.weight",
        PREFIX "layers.9.self_attn.k_norm.weight",    PREFIX "altup_projections.2.weight",
        PREFIX "layers.0.altup.correct_output_scale", PREFIX "embed_tokens_per_layer.weight"};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        packed kept = *find(names[i]);
        drop(names[i]);
        refuses(PL_ERR_FORMAT, WORDS(s.dir, names[i], "missing"));
        tensors[n_tensors++] = kept;
    }
}

/* What config.json says rules: shapes that differ are named with both. */
Test(checkpoint_hf, config_that_disagrees)
{
    set_text("vocab_size", "1089");
    refuses(PL_ERR_FORMAT, WORDS("embed_tokens.weight is [1088, 64], expected [1089, 64]"));
    set_text("vocab_size", "1088");
    set_text("vocab_size_per_layer_input", "1000");
    refuses(PL_ERR_FORMAT, WORDS("embed_tokens_per_layer.weight is [1024, 320], expected [1000, 320]"));
    set_text("vocab_size_per_layer_input", "1024");
    set_text("head_dim", "8");
    refuses(PL_ERR_FORMAT, WORDS("layers.0.self_attn.q_proj.weight is [128, 64], expected [64, 64]"));
    set_text("head_dim", "16");
    set_text("num_kv_shared_layers", "0");
    accepts();
    cr_assert_not_null(weights()->layer[19].k.data);
}

Test(checkpoint_hf, folders_that_are_no_models)
{
    expect_failure(open_path(s.dir), PL_ERR_IO, &err, WORDS(s.dir, "has no config.json", "*.safetensors"));
    write_config();
    expect_failure(open_path(s.dir), PL_ERR_IO, &err,
                   WORDS("neither model.safetensors nor model.safetensors.index.json"));
    scratch_text(&s, "model.safetensors", "");
    expect_failure(open_path(s.dir), PL_ERR_FORMAT, &err, WORDS("model.safetensors", "too few"));
    remove(scratch_path(&s, "model.safetensors"));
    mkdir(scratch_path(&s, "model.safetensors"), 0700);
    expect_failure(open_path(s.dir), PL_ERR_IO, &err, WORDS("model.safetensors"));
    scratch_text(&s, "config.json", "{\"model_type\": \"gemma3n\",}");
    expect_failure(open_path(s.dir), PL_ERR_FORMAT, &err, WORDS("config.json", "line 1"));
    scratch_text(&s, "config.json", "");
    expect_failure(open_path(s.dir), PL_ERR_FORMAT, &err, WORDS("config.json"));
}

Test(checkpoint_hf, broken_generation_config)
{
    scratch_text(&s, "generation_config.json", "{\"eos_token_id\": [1, 4000]}");
    refuses(PL_ERR_FORMAT, WORDS("eos_token_id", "4000"));
    scratch_text(&s, "generation_config.json", "[");
    refuses(PL_ERR_FORMAT, WORDS("generation_config.json"));
}

/* ---- shards ---- */

static json_t *map;

/* The first 200 tensors in one shard, the rest in another, and an index in `map`. */
static void shard(void)
{
    write_config();
    pack("a.safetensors", 0, 200, 0);
    pack("b.safetensors", 200, n_tensors, 0);
    map = json_object();
    for (size_t i = 0; i < n_tensors; i++)
        json_object_set_new(map, tensors[i].name, json_string(i < 200 ? "a.safetensors" : "b.safetensors"));
}

static pl_status open_shards(void)
{
    char *text = json_dumps(map, 0), *whole;
    size_t n = strlen(text) + 64;
    whole = malloc(n);
    snprintf(whole, n, "{\"weight_map\": %s}", text);
    scratch_text(&s, "model.safetensors.index.json", whole);
    free(text);
    free(whole);
    return open_path(s.dir);
}

Test(checkpoint_hf, shards)
{
    shard();
    cr_assert_eq(open_shards(), PL_OK, "%s", err.message);
    weights_are_right();
    json_decref(map);
}

Test(checkpoint_hf, shards_that_are_not_what_the_index_says)
{
    shard();
    json_object_set_new(map, tensors[0].name, json_string("b.safetensors"));
    expect_failure(open_shards(), PL_ERR_FORMAT, &err, WORDS("b.safetensors", tensors[0].name, "index"));
    json_object_set_new(map, tensors[0].name, json_string("a.safetensors"));
    json_object_set_new(map, "ghost.weight", json_string("a.safetensors"));
    expect_failure(open_shards(), PL_ERR_FORMAT, &err, WORDS("a.safetensors", "ghost.weight"));
    json_object_del(map, "ghost.weight");
    pack("b.safetensors", 199, n_tensors, 0);
    expect_failure(open_shards(), PL_ERR_FORMAT, &err,
                   WORDS(tensors[199].name, "is both in", "a.safetensors", "b.safetensors"));
    remove(scratch_path(&s, "b.safetensors"));
    expect_failure(open_shards(), PL_ERR_IO, &err, WORDS("b.safetensors", "No such file"));
    json_decref(map);
}

Test(checkpoint_hf, shard_names_stay_in_the_folder)
{
    static const char *const tricks[] = {"../x.safetensors", "/etc/passwd",      "sub/x.safetensors", "x.bin", "",
                                         ".safetensors",     "..\\x.safetensors"};
    shard();
    for (size_t i = 0; i < sizeof tricks / sizeof tricks[0]; i++) {
        json_object_set_new(map, tensors[3].name, json_string(tricks[i]));
        expect_failure(open_shards(), PL_ERR_FORMAT, &err, WORDS("index.json", tensors[3].name, tricks[i]));
    }
    json_object_set_new(map, tensors[3].name, json_integer(7));
    expect_failure(open_shards(), PL_ERR_FORMAT, &err, WORDS("index.json", tensors[3].name, "an integer"));
    json_object_clear(map);
    expect_failure(open_shards(), PL_ERR_FORMAT, &err, WORDS("index.json", "weight_map is missing or empty"));
    json_decref(map);
    scratch_text(&s, "model.safetensors.index.json", "{\"weight_map\": []}");
    expect_failure(open_path(s.dir), PL_ERR_FORMAT, &err, WORDS("index.json", "weight_map is a list"));
}

/* ---- what stands beside the weights ---- */

Test(checkpoint_hf, chat_templates)
{
    accepts();
    cr_assert_null(pl_checkpoint_chat_template(checkpoint));
    scratch_text(
        &s, "tokenizer_config.json",
        "{\"chat_template\": [{\"name\":\"tool\",\"template\":\"T\"},{\"name\":\"default\",\"template\":\"D\"}]}");
    accepts();
    cr_assert_str_eq(pl_checkpoint_chat_template(checkpoint), "D");
    scratch_text(&s, "tokenizer_config.json", "{\"chat_template\": \"C\"}");
    accepts();
    cr_assert_str_eq(pl_checkpoint_chat_template(checkpoint), "C");
    scratch_text(&s, "chat_template.json", "{\"chat_template\": \"J\"}");
    accepts();
    cr_assert_str_eq(pl_checkpoint_chat_template(checkpoint), "J");
    scratch_text(&s, "chat_template.jinja", "{{ bos }}\n");
    accepts();
    cr_assert_str_eq(pl_checkpoint_chat_template(checkpoint), "{{ bos }}\n");
    remove(scratch_path(&s, "chat_template.jinja"));
    scratch_text(&s, "chat_template.json", "{");
    refuses(PL_ERR_FORMAT, WORDS("chat_template.json"));
}

Test(checkpoint_hf, declared_paths)
{
    const pl_named_path *paths;
    json_object_set_new(config, "pleiad_paths", json_pack("{s:s}", "tail", "mix:widths=128;skip=10-14"));
    accepts();
    cr_assert_eq(pl_checkpoint_paths(checkpoint, &paths), 1);
    cr_assert_str_eq(paths[0].name, "tail");
    json_object_set_new(config, "pleiad_paths", json_pack("{s:s}", "tail", "mix:widths=128;skip=9"));
    refuses(PL_ERR_FORMAT, WORDS("path tail", "layer 9 of skip: only layers 10 to 19"));
    json_object_set_new(config, "pleiad_paths", json_pack("{s:i}", "tail", 3));
    refuses(PL_ERR_FORMAT, WORDS("config.json", "pleiad_paths.tail is an integer"));
    json_object_set_new(config, "pleiad_paths", json_integer(3));
    refuses(PL_ERR_FORMAT, WORDS("config.json", "pleiad_paths is an integer"));
}
