/* Plans of files to be written: which values of the source they take, under which names. */
#include <math.h>

#include "host/convert/export.h"
#include "tests/unit/fail_alloc.h"
#include "tests/unit/gguf_builder.h"
#include "tests/unit/plans.h"
#include "tests/unit/scratch.h"

#define E4B PL_TEST_DATA "/golden/text/e4b"
#define E2B PL_TEST_DATA "/golden/text/e2b"
#define E2B_OF_E4B "mix:widths=64;skip=10-14"
#define PREFIX "model.language_model."

static gguf_builder b;
static scratch s;
static pl_checkpoint *checkpoint;
static pl_export *plan;
static pl_error err;

static void setup(void)
{
    scratch_open(&s);
    gguf_builder_tiny(&b);
}

static void teardown(void)
{
    pl_export_free(plan);
    pl_checkpoint_close(checkpoint);
    gguf_builder_free(&b);
    scratch_close(&s);
}

TestSuite(export, .init = setup, .fini = teardown);

static void open_tiny(void)
{
    gguf_builder_place(&b);
    checkpoint = must_open(gguf_builder_write(&b, &s, "tiny.gguf"));
}

static void plan_gguf(const char *spec)
{
    plan = must_plan(checkpoint, spec, PL_CHECKPOINT_GGUF);
}

static void plan_hf(const char *spec)
{
    plan = must_plan(checkpoint, spec, PL_CHECKPOINT_HF);
}

static const pl_export_tensor *find(const char *name)
{
    for (size_t i = 0; i < plan->n; i++)
        if (strcmp(plan->tensors[i].name, name) == 0)
            return &plan->tensors[i];
    return NULL;
}

static const pl_export_tensor *need(const char *name)
{
    const pl_export_tensor *t = find(name);
    cr_assert_not_null(t, "%s is not planned", name);
    return t;
}

static float *values_of(const pl_export_tensor *t)
{
    float *out = malloc((size_t)(t->n_rows * t->n_cols) * sizeof *out + 1);
    pl_export_read(t, 0, t->n_rows, out);
    return out;
}

static const pl_entry *source_of(const char *name)
{
    const pl_entry *entry = pl_tensor_list_find(pl_checkpoint_entries(checkpoint), name);
    cr_assert_not_null(entry, "%s", name);
    return entry;
}

static float *decoded(const pl_entry *entry, int64_t *n)
{
    *n = 1;
    for (int d = 0; d < entry->n_dims; d++)
        *n *= entry->dims[d];
    float *out = malloc((size_t)*n * sizeof *out + 1);
    pl_decode((pl_dtype)entry->type, entry->data, out, *n);
    return out;
}

/* The planned tensor holds the values of the source's `name` from `skip` on, then zeros. */
static void holds(const pl_export_tensor *t, const char *name, int64_t skip)
{
    int64_t n, all = t->n_rows * t->n_cols;
    float *is = values_of(t), *should = decoded(source_of(name), &n);
    for (int64_t i = 0; i < all; i++)
        cr_assert_eq(is[i], skip + i < n ? should[skip + i] : 0, "%s: value %lld", t->name, (long long)i);
    free(should);
    free(is);
}

/* Bytes by pl_export_copy(), a row at a time and all at once, stand for the values of pl_export_read(). */
static void copies(const pl_export_tensor *t)
{
    size_t row_bytes = pl_dtype_bytes(t->type, t->n_cols);
    unsigned char *bytes = malloc(row_bytes * (size_t)t->n_rows + 1), *row = malloc(row_bytes + 1);
    float *is = malloc((size_t)(t->n_rows * t->n_cols) * sizeof *is + 1), *should = values_of(t);
    cr_assert(pl_export_is_copy(t), "%s", t->name);
    pl_export_copy(t, 0, t->n_rows, bytes);
    for (int64_t i = 0; i < t->n_rows; i++) {
        pl_export_copy(t, i, 1, row);
        cr_assert_arr_eq(row, bytes + (size_t)i * row_bytes, row_bytes);
        pl_decode(t->type, row, is + i * t->n_cols, t->n_cols);
    }
    cr_assert_arr_eq(is, should, (size_t)(t->n_rows * t->n_cols) * sizeof *is);
    free(should);
    free(is);
    free(row);
    free(bytes);
}

static void has_shape(const pl_export_tensor *t, pl_dtype type, int n_dims, int64_t d0, int64_t d1, int64_t d2)
{
    const int64_t dims[] = {d0, d1, d2};
    int64_t n = 1;
    cr_assert_eq(t->type, type, "%s is %d", t->name, (int)t->type);
    cr_assert_eq(t->n_dims, n_dims, "%s", t->name);
    for (int i = 0; i < n_dims; i++) {
        cr_assert_eq(t->dims[i], dims[i], "%s: size %d is %lld", t->name, i, (long long)t->dims[i]);
        n *= t->dims[i];
    }
    cr_assert_eq(n, t->n_rows * t->n_cols);
}

/* ---- GGUF from GGUF ------------------------------------------------------------------------------ */

Test(export, everything_of_a_gguf_file_is_kept_in_order)
{
    gguf_builder_tensor(&b, "extra.weight", PL_F16, 3, 5, 3, 2);
    open_tiny();
    plan_gguf(NULL);
    const pl_tensor_list *entries = pl_checkpoint_entries(checkpoint);
    cr_assert_eq(plan->n, entries->n);
    for (size_t i = 0; i < plan->n; i++) {
        const pl_export_tensor *t = &plan->tensors[i];
        const pl_entry *entry = &entries->items[i];
        cr_assert_str_eq(t->name, entry->name);
        cr_assert_eq(t->n_dims, entry->n_dims, "%s", t->name);
        cr_assert_arr_eq(t->dims, entry->dims, (size_t)t->n_dims * sizeof *t->dims, "%s", t->name);
        holds(t, t->name, 0);
        bool vector = t->role != PL_ROLES && pl_weight_table[t->role].kind == PL_WEIGHT_VECTOR;
        cr_assert_eq((int)t->type, vector ? PL_F32 : entry->type, "%s", t->name);
        if ((int)t->type == entry->type)
            copies(t);
    }
    cr_assert_eq(need("extra.weight")->role, PL_ROLES);
    cr_assert_eq(need("blk.3.ffn_up.weight")->role, PL_ROLE_UP);
    cr_assert_eq(need("blk.3.ffn_up.weight")->layer, 3);
    cr_assert_eq(need("token_embd.weight")->layer, -1);
    has_shape(need("altup_proj.weight"), PL_F16, 3, 3, 32, 32);
    has_shape(need("extra.weight"), PL_F16, 3, 2, 3, 5);
    cr_assert_eq(memcmp(&plan->config, pl_checkpoint_config(checkpoint), sizeof plan->config), 0);
}

Test(export, a_slice_is_renumbered_and_cut)
{
    const float sparsity[TINY_LAYERS] = {1.5f, 1.5f, 1, -INFINITY};
    gguf_builder_array(&b, "gemma3n.activation_sparsity_scale", PL_GGUF_F32, sparsity, TINY_LAYERS, sizeof sparsity);
    open_tiny();
    plan_gguf("mix:widths=32,64,32;skip=2");
    const pl_config *c = &plan->config;
    cr_assert_eq(c->n_layers, 3);
    cr_assert_eq(c->n_kv_layers, 2);
    cr_assert_eq(c->ffn[0], 32);
    cr_assert_eq(c->ffn[1], 64);
    cr_assert_eq(c->ffn[2], 32);
    cr_assert(c->local[0] && !c->local[1] && !c->local[2]);
    cr_assert_eq(c->kv_layer[2], 1);
    cr_assert_gt(c->sparsity_z[1], 1);
    cr_assert_eq(c->sparsity_z[2], -INFINITY);
    cr_assert_null(find("blk.3.ffn_up.weight"));
    cr_assert_eq(plan->n, pl_checkpoint_entries(checkpoint)->n - 24);

    const pl_export_tensor *up = need("blk.2.ffn_up.weight"), *down = need("blk.2.ffn_down.weight");
    has_shape(up, PL_Q8_0, 2, 32, 32, 0);
    holds(up, "blk.3.ffn_up.weight", 0);
    copies(up);
    has_shape(down, PL_Q8_0, 2, 32, 32, 0);
    copies(down);
    float *is = values_of(down);
    int64_t n;
    float *should = decoded(source_of("blk.3.ffn_down.weight"), &n);
    for (int i = 0; i < 32 * 32; i++)
        cr_assert_eq(is[i], should[i / 32 * 64 + i % 32]);
    free(should);
    free(is);
    has_shape(need("blk.1.ffn_down.weight"), PL_Q8_0, 2, 32, 64, 0);
    holds(need("blk.2.attn_q.weight"), "blk.3.attn_q.weight", 0);
    holds(need("blk.2.attn_k.weight"), "blk.3.attn_k.weight", 0);
    holds(need("blk.1.attn_k.weight"), "blk.1.attn_k.weight", 0);
}

/* Columns of layers that go: 8 a layer, so that blocks of 32 are cut. */
Test(export, a_slice_keeps_its_layers_of_the_per_layer_tensors)
{
    open_tiny();
    plan_gguf("mix:widths=64;skip=2");
    const pl_export_tensor *table = need("per_layer_token_embd.weight"), *proj = need("per_layer_model_proj.weight");
    has_shape(table, PL_F32, 2, TINY_VOCAB, 24, 0);
    has_shape(proj, PL_F16, 2, 24, 32, 0);
    cr_assert_not(pl_export_is_copy(table));
    copies(proj);
    int64_t n;
    float *is = values_of(table), *should = decoded(source_of("per_layer_token_embd.weight"), &n);
    for (int i = 0; i < TINY_VOCAB * 24; i++)
        cr_assert_eq(is[i], should[i / 24 * 32 + (i % 24 < 16 ? i % 24 : i % 24 + 8)]);
    free(should);
    free(is);
    is = values_of(proj);
    should = decoded(source_of("per_layer_model_proj.weight"), &n);
    for (int i = 0; i < 24 * 32; i++)
        cr_assert_eq(is[i], should[(i / 32 < 16 ? i / 32 : i / 32 + 8) * 32 + i % 32]);
    free(should);
    free(is);
}

Test(export, other_tensors_of_layers_go_with_them)
{
    gguf_builder_tensor(&b, "blk.2.extra.weight", PL_F32, 1, 5, 1, 1);
    gguf_builder_tensor(&b, "blk.3.extra.weight", PL_F32, 1, 7, 1, 1);
    open_tiny();
    plan_gguf("mix:widths=64;skip=2");
    has_shape(need("blk.2.extra.weight"), PL_F32, 1, 7, 0, 0);
    cr_assert_eq(need("blk.2.extra.weight")->layer, 2);
    cr_assert_null(find("blk.3.extra.weight"));
}

Test(export, types_that_cannot_be_written_are_told)
{
    gguf_builder_tensor(&b, "extra.weight", 26, 1, 4, 1, 1);
    open_tiny();
    expect_failure(pl_export_plan(checkpoint, NULL, PL_CHECKPOINT_GGUF, &plan, &err), PL_ERR_UNSUPPORTED, &err,
                   WORDS("tiny.gguf", "extra.weight", "I32"));
}

Test(export, missing_kv_of_shared_layers_becomes_zeros)
{
    gguf_builder_drop_tensor(&b, "blk.3.attn_k.weight");
    gguf_builder_drop_tensor(&b, "blk.3.attn_v.weight");
    gguf_builder_drop_tensor(&b, "blk.3.attn_k_norm.weight");
    open_tiny();
    plan_gguf(NULL);
    const pl_export_tensor *k = need("blk.3.attn_k.weight"), *norm = need("blk.3.attn_k_norm.weight");
    has_shape(k, PL_F32, 2, 16, 32, 0);
    has_shape(norm, PL_F32, 1, 16, 0, 0);
    cr_assert_null(k->source);
    copies(k);
    float *values = values_of(k);
    for (int i = 0; i < 16 * 32; i++)
        cr_assert_eq(values[i], 0);
    free(values);
    holds(need("blk.2.attn_k.weight"), "blk.2.attn_k.weight", 0);
    cr_assert_not_null(need("blk.3.attn_v.weight"));
}

Test(export, fused_qkv_is_split)
{
    for (int l = 0; l < TINY_LAYERS; l++) {
        char name[64];
        const char *parts[] = {"q", "k", "v"};
        for (int i = 0; i < 3; i++) {
            snprintf(name, sizeof name, "blk.%d.attn_%s.weight", l, parts[i]);
            gguf_builder_drop_tensor(&b, name);
        }
        snprintf(name, sizeof name, "blk.%d.attn_qkv.weight", l);
        gguf_builder_tensor(&b, name, PL_F16, 2, 32, 64, 1);
    }
    open_tiny();
    plan_gguf(NULL);
    cr_assert_null(find("blk.0.attn_qkv.weight"));
    for (int l = 0; l < TINY_LAYERS; l += 3) { /* one with K/V of its own, one without */
        char name[64], fused[64];
        snprintf(fused, sizeof fused, "blk.%d.attn_qkv.weight", l);
        snprintf(name, sizeof name, "blk.%d.attn_q.weight", l);
        const pl_export_tensor *q = need(name);
        snprintf(name, sizeof name, "blk.%d.attn_k.weight", l);
        const pl_export_tensor *k = need(name);
        snprintf(name, sizeof name, "blk.%d.attn_v.weight", l);
        const pl_export_tensor *v = need(name);
        int64_t n;
        float *all = decoded(source_of(fused), &n), *is[] = {values_of(q), values_of(k), values_of(v)};
        has_shape(q, PL_F16, 2, 32, 32, 0);
        has_shape(v, PL_F16, 2, 16, 32, 0);
        cr_assert_arr_eq(is[0], all, 32 * 32 * sizeof *all);
        cr_assert_arr_eq(is[1], all + 32 * 32, 16 * 32 * sizeof *all);
        cr_assert_arr_eq(is[2], all + 48 * 32, 16 * 32 * sizeof *all);
        for (int i = 0; i < 3; i++)
            free(is[i]);
        free(all);
    }
}

Test(export, a_whole_file_keeps_its_paths_and_a_slice_has_none)
{
    gguf_builder_text(&b, "pleiad.path.small", "mix:widths=32");
    open_tiny();
    plan_gguf(NULL);
    cr_assert_eq(plan->n_paths, 1);
    cr_assert_str_eq(plan->paths[0].name, "small");
    pl_export_free(plan);
    plan_gguf("full");
    cr_assert_eq(plan->n_paths, 1);
    pl_export_free(plan);
    plan_gguf("small");
    cr_assert_eq(plan->n_paths, 0);
}

Test(export, gguf_is_not_written_as_a_folder)
{
    open_tiny();
    expect_failure(pl_export_plan(checkpoint, NULL, PL_CHECKPOINT_HF, &plan, &err), PL_ERR_UNSUPPORTED, &err,
                   WORDS("tiny.gguf", "GGUF"));
}

/* ---- from Hugging Face folders ------------------------------------------------------------------- */

Test(export, a_folder_as_gguf_has_what_llama_cpp_wants)
{
    checkpoint = must_open(E4B);
    plan_gguf(NULL);
    const pl_config *c = &plan->config;
    cr_assert_eq(plan->n, 7 + 24 * (size_t)c->n_layers);
    for (size_t i = 0; i < plan->n; i++) {
        pl_role role;
        int layer;
        cr_assert(pl_weight_find(plan->tensors[i].name, &role, &layer), "%s", plan->tensors[i].name);
        cr_assert_eq(role, plan->tensors[i].role);
        cr_assert_eq(layer, plan->tensors[i].layer);
    }
    const pl_export_tensor *table = need("per_layer_token_embd.weight"), *altup = need("altup_proj.weight");
    cr_assert_lt(c->ple_vocab, c->vocab);
    has_shape(table, PL_BF16, 2, c->vocab, 16 * c->n_layers, 0);
    holds(table, PREFIX "embed_tokens_per_layer.weight", 0);
    copies(table);
    has_shape(altup, PL_BF16, 3, 3, 64, 64);
    copies(altup);
    float *is = values_of(altup);
    for (int i = 0; i < 3; i++) {
        char name[80];
        int64_t n;
        snprintf(name, sizeof name, PREFIX "altup_projections.%d.weight", i);
        float *should = decoded(source_of(name), &n);
        cr_assert_arr_eq(is + i * n, should, (size_t)n * sizeof *is);
        free(should);
    }
    free(is);
    has_shape(need("blk.0.altup_router.weight"), PL_F32, 2, 4, 64, 0);
    holds(need("blk.0.altup_router.weight"), PREFIX "layers.0.altup.modality_router.weight", 0);
    holds(need("blk.19.attn_k.weight"), PREFIX "layers.19.self_attn.k_proj.weight", 0);
}

/* The slice that the reference made, byte for byte. */
Test(export, a_slice_of_a_folder_is_the_references)
{
    checkpoint = must_open(E4B);
    plan_hf(E2B_OF_E4B);
    pl_checkpoint *reference = must_open(E2B);
    const pl_tensor_list *entries = pl_checkpoint_entries(reference);
    cr_assert_eq(plan->n, entries->n);
    for (size_t i = 0; i < plan->n; i++) {
        const pl_export_tensor *t = &plan->tensors[i];
        const pl_entry *entry = pl_tensor_list_find(entries, t->name);
        cr_assert_not_null(entry, "%s", t->name);
        cr_assert_eq((int)t->type, entry->type, "%s", t->name);
        cr_assert_eq(t->n_dims, entry->n_dims, "%s", t->name);
        cr_assert_arr_eq(t->dims, entry->dims, (size_t)t->n_dims * sizeof *t->dims, "%s", t->name);
        unsigned char *bytes = malloc(entry->bytes);
        cr_assert(pl_export_is_copy(t), "%s", t->name);
        pl_export_copy(t, 0, t->n_rows, bytes);
        cr_assert_arr_eq(bytes, entry->data, entry->bytes, "%s", t->name);
        free(bytes);
    }
    const pl_config *is = &plan->config, *should = pl_checkpoint_config(reference);
    cr_assert_eq(is->n_layers, should->n_layers);
    cr_assert_eq(is->n_kv_layers, should->n_kv_layers);
    for (int l = 0; l < is->n_layers; l++) {
        cr_assert_eq(is->ffn[l], should->ffn[l]);
        cr_assert_eq(is->local[l], should->local[l]);
        cr_assert_eq(is->kv_layer[l], should->kv_layer[l]);
        cr_assert_eq(is->sparsity_z[l], should->sparsity_z[l]);
    }
    pl_checkpoint_close(reference);
}

/* ---- failures ------------------------------------------------------------------------------------ */

static pl_status plan_and_free(void *ctx, pl_error *e)
{
    pl_export *made = NULL;
    PL_TRY(pl_export_plan(checkpoint, ctx, PL_CHECKPOINT_GGUF, &made, e));
    pl_export_free(made);
    return PL_OK;
}

Test(export, every_allocation_may_fail)
{
    static pl_path path;
    checkpoint = must_open(E4B);
    cr_assert_eq(pl_path_parse(checkpoint, E2B_OF_E4B, &path, &err), PL_OK);
    cr_assert_geq(fail_alloc_each(plan_and_free, &path), 3);
}
