#include <math.h>

#include "host/model/path.h"
#include "tests/unit/gguf_builder.h"
#include "tests/unit/plans.h"
#include "tests/unit/scratch.h"

static gguf_builder b;
static scratch s;
static pl_checkpoint *checkpoint;
static pl_path path;
static pl_error err;

static void setup(void)
{
    scratch_open(&s);
    gguf_builder_tiny(&b);
}

static void teardown(void)
{
    pl_checkpoint_close(checkpoint);
    gguf_builder_free(&b);
    scratch_close(&s);
}

TestSuite(path, .init = setup, .fini = teardown);

static void open_golden(void)
{
    checkpoint = must_open(PL_TEST_DATA "/golden/text/e4b");
}

static void open_tiny(void)
{
    gguf_builder_place(&b);
    checkpoint = must_open(gguf_builder_write(&b, &s, "tiny.gguf"));
}

/* `spec` gives these widths; 0 is a layer that is skipped. */
static void gives(const char *spec, const int *widths)
{
    cr_assert_eq(pl_path_parse(checkpoint, spec, &path, &err), PL_OK, "%s: %s", spec, err.message);
    cr_assert_str_eq(path.name, spec);
    cr_assert_eq(path.n_layers, pl_checkpoint_config(checkpoint)->n_layers);
    for (int l = 0; l < path.n_layers; l++) {
        cr_assert_eq(path.ffn[l], widths[l], "%s: layer %d is %d, expected %d", spec, l, path.ffn[l], widths[l]);
        cr_assert_eq(path.skip[l], widths[l] == 0);
    }
}

static void refuses(const char *spec, const char *words)
{
    expect_failure(pl_path_parse(checkpoint, spec, &path, &err), PL_ERR_ARGUMENT, &err, WORDS(words));
}

static const int full[20] = {128, 128, 128, 128, 128, 128, 128, 128, 128, 128,
                             128, 128, 128, 128, 128, 128, 128, 128, 128, 128};

/* The slices that the golden runs were made with. */
Test(path, golden_slices)
{
    static const int e2b[20] = {64, 64, 64, 64, 64, 64, 64, 64, 64, 64, 0, 0, 0, 0, 0, 64, 64, 64, 64, 64};
    static const int tail[20] = {128, 128, 128, 128, 128, 128, 128, 128, 128, 128, 0, 0, 0, 0, 0, 64, 64, 64, 64, 64};
    static const int mnm[20] = {96, 96, 96, 96, 128, 96, 96, 96, 96, 128, 128, 128, 128, 128, 128, 64, 64, 64, 64, 128};
    open_golden();
    gives("e4b", full);
    gives("full", full);
    gives("e2b", e2b);
    gives("mix:widths=64;skip=10-14", e2b);
    gives("mix:skip=10-14;widths=64", e2b);
    gives("mix:widths=64;skip=10,11,12-14", e2b);
    gives("mix:widths=128,128,128,128,128,128,128,128,128,128,64,64,64,64,64;skip=10-14", tail);
    gives("mix:widths=96,96,96,96,128,96,96,96,96,128,128,128,128,128,128,64,64,64,64,128", mnm);
    gives("mix:widths=128", full);
}

Test(path, texts_that_are_wrong)
{
    open_golden();
    refuses("", "expected e4b, e2b, or mix:");
    refuses("E4B", "'E4B' is not known");
    refuses("mix:", "neither widths=");
    refuses("mix:skip=10-14", "widths=W[,W...] is missing");
    refuses("mix:width=64", "'width=64' is neither");
    refuses("mix:widths=64;", "'' is neither");
    refuses("mix:widths=64;widths=64", "'widths' is given twice");
    refuses("mix:widths=", "'' is not a list of numbers");
    refuses("mix:widths=64,", "is not a list of numbers");
    refuses("mix:widths=64x", "'64x' is not a list of numbers");
    refuses("mix:widths=-64", "is not a list of numbers");
    refuses("mix:widths=9999999999999999999999", "is not a list of numbers");
    refuses("mix:widths=64,64,64,64,64,64,64;skip=10-14", "widths: 7 values for 15 kept layers");
    refuses("mix:widths=64,64", "widths: 2 values for 20 kept layers");
    refuses("mix:widths=0", "width 0: layer 0 takes 1 to 128");
    refuses("mix:widths=129", "width 129: layer 0 takes 1 to 128");
    refuses("mix:widths=64;skip=9", "layer 9 of skip: only layers 10 to 19 may be skipped");
    refuses("mix:widths=64;skip=12-20", "layer 20 of skip: only layers 10 to 19");
    refuses("mix:widths=64;skip=0-999999999", "layer 0 of skip");
    refuses("mix:widths=64;skip=14-12", "14-12 runs backwards");
    refuses("mix:widths=64;skip=12,12", "layer 12 of skip: named twice");
    refuses("mix:widths=64;skip=", "skip: '' is not a list of layers");
    refuses("mix:widths=64;skip=12-", "is not a list of layers");
    refuses("mix:widths=64;skip=a", "skip: 'a' is not a list of layers");
    refuses("mix:widths=64;skip=12 14", "is not a list of layers");
    char many[1200] = "mix:widths=";
    while (strlen(many) < 1100)
        strcat(many, "64,");
    refuses(many, "bytes, at most 1023");
    many[1010] = '\0';
    refuses(many, "widths:");
}

/* An unknown path names those that the file has. */
Test(path, declared_names)
{
    static const int e2b[4] = {32, 64, 0, 32}, thin[4] = {32, 32, 32, 32};
    gguf_builder_text(&b, "pleiad.path.e2b", "mix:widths=32,64,32;skip=2");
    gguf_builder_text(&b, "pleiad.path.thin", "mix:widths=32");
    gguf_builder_text(&b, "pleiad.path.whole", "full");
    open_tiny();
    gives("e2b", e2b);
    gives("thin", thin);
    gives("whole", (const int[]){64, 64, 64, 64});
    refuses("fat", "expected e4b, e2b, thin, whole, or mix:");
}

/* Without a declaration, a file whose shared layers are one period holds the small model alone. */
Test(path, e2b_by_rule)
{
    open_tiny();
    gives("e2b", (const int[]){64, 64, 64, 64});
    cr_assert_str_eq(pl_path_default(checkpoint), "e2b");
}

Test(path, widths_are_whole_blocks)
{
    open_tiny();
    refuses("mix:widths=48", "width 48: quantised ffn_down of layer 0 needs multiples of 32");
    refuses("mix:widths=64,32,50,64", "width 50: quantised ffn_down of layer 2 needs multiples of 32");
    gives("mix:widths=64,32,32,64", (const int[]){64, 32, 32, 64});
}

Test(path, no_shared_layers)
{
    gguf_builder_u32(&b, "gemma3n.attention.shared_kv_layers", 0);
    open_tiny();
    refuses("mix:widths=32;skip=3", "no shared layers");
    gives("e2b", (const int[]){64, 64, 64, 64});
}

Test(path, same_kv)
{
    pl_path e4b, tail, e2b;
    open_golden();
    const pl_config *c = pl_checkpoint_config(checkpoint);
    cr_assert_eq(pl_path_parse(checkpoint, "e4b", &e4b, &err), PL_OK);
    cr_assert_eq(pl_path_parse(checkpoint, "e2b", &e2b, &err), PL_OK);
    cr_assert_eq(
        pl_path_parse(checkpoint, "mix:widths=128,128,128,128,128,128,128,128,128,128,1;skip=10-12,14-19", &tail, &err),
        PL_OK, "%s", err.message);
    cr_assert(pl_path_same_kv(c, &e4b, &tail));
    cr_assert_not(pl_path_same_kv(c, &e4b, &e2b));
    cr_assert_not(pl_path_same_kv(c, &tail, &e2b));
}

/* Everything that is multiplied, counted by hand for a path of the tiny model. */
Test(path, weights_and_bytes)
{
    open_tiny();
    cr_assert_eq(pl_path_parse(checkpoint, "mix:widths=64,32,32;skip=2", &path, &err), PL_OK, "%s", err.message);
    int64_t attention = 3 * 2 * 32 * 32 + 2 * 2 * 16 * 32, ffn = 3 * 32 * (64 + 32 + 32);
    int64_t glue = 3 * (2 * 32 * 8 + 2 * 32 * 4 + 4 * 32 + 16 * 4 + 4 * 4), whole = 6 * 32 * 32 + 3 * 8 * 32,
            head = 16 * 32;
    cr_assert_eq(pl_path_weights(checkpoint, &path), attention + ffn + glue + whole + head);
    int64_t vectors = 3 * (8 * 32 + 16) + 2 * 16 + 32 + 8;
    int64_t f32 = attention + 3 * (2 * 32 * 8 + 16 * 4 + 4 * 4) + vectors, f16 = 3 * (2 * 32 * 4 + 4 * 32) + whole;
    cr_assert_eq(pl_path_bytes(checkpoint, &path), 4 * f32 + 2 * f16 + (ffn + head) / 32 * 34);
}

/* ---- the published models, as files of full size without content ---- */

typedef struct shape {
    int layers, ffn;
} shape;

static void published_keys(shape m)
{
    enum { VOCAB = 262400 };
    gguf_builder_u32(&b, "gemma3n.block_count", (uint32_t)m.layers);
    gguf_builder_u32(&b, "gemma3n.context_length", 32768);
    gguf_builder_u32(&b, "gemma3n.embedding_length", 2048);
    gguf_builder_u32(&b, "gemma3n.feed_forward_length", (uint32_t)m.ffn);
    gguf_builder_u32(&b, "gemma3n.attention.head_count", 8);
    gguf_builder_u32(&b, "gemma3n.attention.head_count_kv", 2);
    gguf_builder_u32(&b, "gemma3n.attention.key_length", 256);
    gguf_builder_u32(&b, "gemma3n.attention.value_length", 256);
    gguf_builder_u32(&b, "gemma3n.attention.sliding_window", 512);
    gguf_builder_drop_key(&b, "gemma3n.embedding_length_per_layer_input");
    gguf_builder_drop_key(&b, "gemma3n.attention.shared_kv_layers");
    gguf_builder_drop_key(&b, "gemma3n.attention.sliding_window_pattern");
    gguf_builder_drop_key(&b, "gemma3n.activation_sparsity_scale");
    float *scores = calloc(VOCAB, sizeof *scores);
    int32_t *kinds = malloc(VOCAB * sizeof *kinds);
    const char **pieces = malloc(VOCAB * sizeof *pieces);
    for (int i = 0; i < VOCAB; i++) {
        kinds[i] = 1;
        pieces[i] = "x";
    }
    gguf_builder_texts(&b, "tokenizer.ggml.tokens", pieces, VOCAB);
    gguf_builder_array(&b, "tokenizer.ggml.scores", PL_GGUF_F32, scores, VOCAB, VOCAB * sizeof *scores);
    gguf_builder_array(&b, "tokenizer.ggml.token_type", PL_GGUF_I32, kinds, VOCAB, VOCAB * sizeof *kinds);
    free(scores);
    free(kinds);
    free(pieces);
}

/* The tiny model's tensors, widened; types as the standard quantiser picks them for Q4_0. */
static void published_tensor(shape m, const char *name, const built_tensor *tiny)
{
    uint64_t ne[3] = {tiny->ne[0], tiny->ne[1], tiny->ne[2]};
    bool ffn = strstr(name, "ffn_") != NULL, table = strstr(name, "token_embd.weight") != NULL;
    uint32_t type = tiny->n_dims == 1 || strstr(name, "coef") ? PL_F32 : table ? PL_Q6_K : PL_Q4_0;
    if (tiny->n_dims > 1 && type != PL_F32 &&
        (strstr(name, "altup") || strstr(name, "laurel") || strstr(name, "model_proj")))
        type = PL_F16;
    for (uint32_t i = 0; i < tiny->n_dims; i++) {
        if (ne[i] == 64 && ffn)
            ne[i] = (uint64_t)m.ffn;
        else if (ne[i] == 32 &&
                 (strcmp(name, "per_layer_token_embd.weight") == 0 || (i == 1 && strstr(name, "model_proj"))))
            ne[i] = 256 * (uint64_t)m.layers;
        else if (ne[i] == 32)
            ne[i] = 2048;
        else if (ne[i] == 16 && table)
            ne[i] = 262400;
        else if (ne[i] == 16 && strstr(name, "coef") == NULL)
            ne[i] = tiny->n_dims == 1 ? 256 : 512;
        else if (ne[i] == 8)
            ne[i] = 256;
        else if (ne[i] == 4 && strstr(name, "laurel"))
            ne[i] = 64;
    }
    gguf_builder_hollow(&b, name, type, tiny->n_dims, ne[0], ne[1], ne[2]);
}

static void open_published(shape m)
{
    gguf_builder tiny;
    gguf_builder_tiny(&tiny);
    published_keys(m);
    while (b.n_tensors > 0)
        free(b.tensors[--b.n_tensors].data);
    for (size_t i = 0; i < tiny.n_tensors; i++)
        if (strncmp(tiny.tensors[i].name, "blk.", 4) != 0)
            published_tensor(m, tiny.tensors[i].name, &tiny.tensors[i]);
    for (int l = 0; l < m.layers; l++)
        for (size_t i = 0; i < tiny.n_tensors; i++)
            if (strncmp(tiny.tensors[i].name, "blk.0.", 6) == 0) {
                char name[80];
                snprintf(name, sizeof name, "blk.%d.%.60s", l, tiny.tensors[i].name + 6);
                published_tensor(m, name, &tiny.tensors[i]);
            }
    gguf_builder_place(&b);
    const char *file = scratch_path(&s, "published.gguf");
    cr_assert(gguf_builder_write_hollow(&b, file));
    checkpoint = must_open(file);
    gguf_builder_free(&tiny);
}

Test(path, published_e4b)
{
    open_published((shape){35, 16384});
    const pl_config *c = pl_checkpoint_config(checkpoint);
    cr_assert(c->ple_vocab == 262144 && c->n_kv_layers == 20 && c->kv_layer[34] == 19 && c->kv_layer[33] == 18);
    cr_assert_str_eq(pl_path_default(checkpoint), "e4b");
    cr_assert_eq(pl_path_parse(checkpoint, "e4b", &path, &err), PL_OK);
    cr_assert_eq(pl_path_weights(checkpoint, &path), INT64_C(3948440304) + 537395200);
    cr_assert_float_eq((double)pl_path_bytes(checkpoint, &path) / 1e9, 2.740, 0.0006);
    cr_assert_eq(pl_path_parse(checkpoint, "e2b", &path, &err), PL_OK);
    for (int l = 0; l < 35; l++)
        cr_assert_eq(path.ffn[l], l >= 20 && l <= 24 ? 0 : 8192);
    cr_assert_eq(pl_path_weights(checkpoint, &path), INT64_C(1884014944) + 537395200);
    cr_assert_float_eq((double)pl_path_bytes(checkpoint, &path) / 1e9, 1.573, 0.0006);
    refuses("mix:widths=8200", "width 8200: quantised ffn_down of layer 0 needs multiples of 32");
}

Test(path, published_e2b)
{
    open_published((shape){30, 8192});
    cr_assert_eq(pl_path_parse(checkpoint, "e2b", &path, &err), PL_OK, "%s", err.message);
    for (int l = 0; l < 30; l++)
        cr_assert_eq(path.ffn[l], 8192);
    cr_assert_eq(pl_path_weights(checkpoint, &path), INT64_C(1884014944) + 537395200);
    refuses("e4b", "this file holds E2B only");
    cr_assert_str_eq(pl_path_default(checkpoint), "e2b");
    cr_assert_eq(pl_path_parse(checkpoint, "full", &path, &err), PL_OK);
}
