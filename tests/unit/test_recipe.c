/* Recipes against what llama-quantize picks, and what holds for all of them. */
#include "host/convert/recipe.h"
#include "tests/unit/gguf_builder.h"
#include "tests/unit/plans.h"
#include "tests/unit/scratch.h"

#define DEMO PL_TEST_DATA "/../tools/demo_model/demo.gguf"
#define BF16_FOLDER PL_TEST_DATA "/golden/text/e4b"
#define OVERRIDES(...)                                                                                                 \
    .overrides = (const char *const[]){__VA_ARGS__}, .n_overrides = sizeof(const char *[]){__VA_ARGS__} / sizeof(char *)

static const char *const all[] = {"q8",     "q2_k",  "q3_k_s", "q3_k_m", "q3_k_l", "q4_k_s", "q4_k_m", "q5_k_s",
                                  "q5_k_m", "q6_k",  "q4_0",   "q4_1",   "q5_0",   "q5_1",   "q8_0",   "iq4_nl",
                                  "iq4_xs", "mxfp4", "nvfp4",  "f16",    "bf16",   "f32"};
#define N_ALL (sizeof all / sizeof *all)

static scratch s;
static pl_checkpoint *checkpoint;
static pl_export *plan;
static uint32_t file_type;
static pl_error err;

static void setup(void)
{
    scratch_open(&s);
}

static void teardown(void)
{
    pl_export_free(plan);
    pl_checkpoint_close(checkpoint);
    plan = NULL;
    checkpoint = NULL;
    scratch_close(&s);
}

TestSuite(recipe, .init = setup, .fini = teardown);

static void open_plan(const char *path)
{
    checkpoint = must_open(path);
    plan = must_plan(checkpoint, NULL, PL_CHECKPOINT_GGUF);
}

static pl_status apply(pl_recipe_params params)
{
    return pl_recipe_apply(plan, &params, &file_type, &err);
}

static void works(pl_recipe_params params)
{
    cr_assert_eq(apply(params), PL_OK, "%s: %s", params.type, err.message);
}

static pl_dtype type_of(const char *name)
{
    return must_find(plan, name)->type;
}

/* ---- as llama-quantize picks --------------------------------------------------------------------- */

/* A plan of E4B, of which recipes look at names, sizes and the source's types only: its matrices Q8_0, what
 * llama-quantize keeps F16. */
typedef struct published {
    pl_export e;
    pl_export_tensor tensors[PL_MAX_LAYERS * PL_ROLES];
    pl_tensor sources[PL_MAX_LAYERS * PL_ROLES];
    char names[PL_MAX_LAYERS * PL_ROLES][PL_WEIGHT_NAME_BYTES];
} published;

static bool kept(const char *name)
{
    return strstr(name, "altup") || strstr(name, "laurel") || strstr(name, "per_layer_model_proj");
}

static void add(published *p, pl_role role, int layer)
{
    pl_export_tensor *t = &p->tensors[p->e.n];
    const pl_weight_info *info = &pl_weight_table[role];
    char *name = p->names[p->e.n];
    if (info->kind == PL_WEIGHT_VECTOR || role == PL_ROLE_HEAD)
        return;
    pl_weight_name(PL_CHECKPOINT_GGUF, "", layer, role, 0, name);
    t->name = name;
    t->role = role;
    t->layer = layer;
    t->n_cols = pl_size_of(&p->e.config, layer < 0 ? 0 : layer, info->cols);
    t->n_rows = pl_size_of(&p->e.config, layer < 0 ? 0 : layer, info->rows) * info->count;
    t->n_parts = info->count;
    t->source = &p->sources[p->e.n];
    t->type = p->sources[p->e.n].type = kept(name) ? PL_F16 : PL_Q8_0;
    p->e.n++;
}

static published *make_published(void)
{
    published *p = calloc(1, sizeof *p);
    cr_assert_not_null(p);
    p->e.config = (pl_config){.n_layers = 35,
                              .n_kv_layers = 20,
                              .hidden = 2048,
                              .n_heads = 8,
                              .n_kv_heads = 2,
                              .head_dim = 256,
                              .ple_dim = 256,
                              .ple_vocab = 262144,
                              .vocab = 262400,
                              .laurel_rank = 64};
    for (int l = 0; l < 35; l++)
        p->e.config.ffn[l] = 16384;
    p->e.source = checkpoint;
    p->e.arena = plan->arena;
    p->e.tensors = p->tensors;
    for (int role = PL_LAYER_ROLES; role < PL_ROLES; role++)
        add(p, (pl_role)role, -1);
    for (int l = 0; l < 35; l++)
        for (int role = 0; role < PL_LAYER_ROLES; role++)
            add(p, (pl_role)role, l);
    return p;
}

static void check_type(const published *p, const char *recipe, const char *name, int layer, int want)
{
    char full[128];
    if (pl_weight_find(name, &(pl_role){0}, &(int){0}))
        snprintf(full, sizeof full, "%s", name);
    else
        snprintf(full, sizeof full, "blk.%d.%s", layer, name);
    for (size_t i = 0; i < p->e.n; i++)
        if (strcmp(p->e.tensors[i].name, full) == 0) {
            cr_expect_eq((int)p->e.tensors[i].type, want, "%s: %s has type %d, llama-quantize gives %d", recipe, full,
                         (int)p->e.tensors[i].type, want);
            return;
        }
    cr_assert_fail("%s is not in the plan", full);
}

/* "14x4 12": layer after layer. Returns how many. */
static int check_runs(const published *p, const char *recipe, const char *name, char *runs)
{
    int layer = 0;
    for (char *word = strtok(runs, " \n"); word; word = strtok(NULL, " \n")) {
        int type = 0, n = 1;
        cr_assert(sscanf(word, "%dx%d", &type, &n) >= 1);
        for (int i = 0; i < n; i++)
            check_type(p, recipe, name, layer++, type);
    }
    return layer;
}

Test(recipe, llama_names_pick_llama_types)
{
    open_plan(DEMO);
    published *p = make_published();
    char line[512], recipe[32], name[96], full[112], last[40] = "";
    int flag, at, checked = 0;
    FILE *file = fopen(PL_TEST_DATA "/golden/quant/recipes.txt", "r");
    cr_assert_not_null(file);
    while (fgets(line, sizeof line, file)) {
        cr_assert_eq(sscanf(line, "%31s %d %90s %n", recipe, &flag, name, &at), 3);
        snprintf(full, sizeof full, "%s.weight", name);
        if (strcmp(last, recipe) != 0)
            for (size_t i = 0; i < p->e.n; i++)
                p->tensors[i].type = p->sources[i].type;
        snprintf(last, sizeof last, "%s", recipe);
        pl_recipe_params params = {.type = recipe, .importance = flag};
        cr_assert_eq(pl_recipe_apply(&p->e, &params, &file_type, &err), PL_OK, "%s", err.message);
        checked += check_runs(p, recipe, full, line + at);
    }
    fclose(file);
    cr_assert_eq(checked, 2 * 16 * (35 * 11 + 5));
    free(p);
}

/* Where few query heads share one of V, V is large, and left alone. */
Test(recipe, few_query_heads_leave_v_alone)
{
    static const struct {
        const char *type;
        int few, many;
    } known[] = {{"q2_k", PL_Q3_K, PL_Q4_K}, {"iq4_nl", PL_IQ4_NL, PL_Q5_K}, {"iq4_xs", PL_IQ4_XS, PL_Q5_K}};
    open_plan(DEMO);
    published *p = make_published();
    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        for (int kv_heads = 2; kv_heads <= 4; kv_heads += 2) {
            pl_recipe_params params = {.type = known[i].type};
            p->e.config.n_kv_heads = kv_heads;
            cr_assert_eq(pl_recipe_apply(&p->e, &params, &file_type, &err), PL_OK);
            check_type(p, known[i].type, "attn_v.weight", 20, kv_heads == 4 ? known[i].few : known[i].many);
        }
    free(p);
}

Test(recipe, file_types_are_llamas)
{
    static const struct {
        const char *name;
        uint32_t type;
    } known[] = {{"f32", 0},     {"f16", 1},     {"q4_0", 2},  {"q8_0", 7},    {"q3_k_m", 12},
                 {"q4_k_s", 14}, {"q4_k_m", 15}, {"Q4_K", 15}, {"Q5_K_M", 17}, {"q6_k", 18},
                 {"iq4_nl", 25}, {"iq4_xs", 30}, {"bf16", 32}, {"nvfp4", 39}};
    open_plan(DEMO);
    for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
        works((pl_recipe_params){.type = known[i].name});
        cr_expect_eq(file_type, known[i].type, "%s", known[i].name);
    }
    cr_expect_eq(pl_recipe_file_type(PL_Q8_0), 7);
    cr_expect_eq(pl_recipe_file_type(PL_F32), 0);
}

/* ---- all of them --------------------------------------------------------------------------------- */

static void check_all_fit(const char *recipe)
{
    for (size_t i = 0; i < plan->n; i++) {
        const pl_export_tensor *t = &plan->tensors[i];
        const pl_dtype_info *info = pl_dtype_describe((int)t->type);
        cr_expect_eq(t->n_cols % info->block_elems, 0, "%s: %s in %s", recipe, t->name, info->name);
        if (!pl_recipe_may_change(t) && t->role < PL_ROLES) /* towers stay as they are */
            cr_expect_eq(t->type, PL_F32, "%s: %s", recipe, t->name);
    }
}

Test(recipe, blocks_fit_rows_of_any_length)
{
    open_plan(DEMO); /* rows of 32, 192, 256, 384, 640 */
    for (size_t i = 0; i < N_ALL; i++) {
        works((pl_recipe_params){.type = all[i]});
        check_all_fit(all[i]);
    }
    works((pl_recipe_params){.type = "q4_k_m"});
    cr_expect_eq(type_of("blk.1.attn_q.weight"), PL_Q5_0); /* llama.cpp's way out */
    works((pl_recipe_params){.type = "q4_k", .pure = true});
    cr_expect_eq(type_of("blk.1.attn_q.weight"), PL_IQ4_NL); /* and ours, a bit smaller */
    cr_expect_eq(type_of("blk.1.attn_output.weight"), PL_Q4_K);
}

Test(recipe, sixteen_bits_are_the_sources)
{
    open_plan(BF16_FOLDER); /* its LAuReL rank is no multiple of 32 */
    works((pl_recipe_params){.type = "q8"});
    cr_expect_eq(type_of("blk.1.laurel_r.weight"), PL_BF16);
    works((pl_recipe_params){.type = "q4_k_m"});
    cr_expect_eq(type_of("blk.1.proj.weight"), PL_F16);
}

Test(recipe, ours_keep_small_matrices_precise_and_unread_ones_small)
{
    static const char *const ours[] = {"q8", "mxfp4"};
    open_plan(DEMO);
    for (size_t i = 0; i < 2; i++) {
        works((pl_recipe_params){.type = ours[i]});
        cr_expect_eq(type_of("altup_proj.weight"), PL_Q8_0, "%s", ours[i]);
        cr_expect_eq(type_of("per_layer_model_proj.weight"), PL_Q8_0, "%s", ours[i]);
        cr_expect_eq(type_of("blk.11.attn_v.weight"), PL_MXFP4, "%s", ours[i]);
        cr_expect(pl_recipe_unread(plan, must_find(plan, "blk.11.attn_v.weight")));
        cr_expect_not(pl_recipe_unread(plan, must_find(plan, "blk.5.attn_v.weight")));
    }
}

Test(recipe, sizes_of_ours_are_those_of_llama)
{
    cr_expect_str_eq(pl_recipe_size_like("q4"), "q4_k_m");
    cr_expect_str_eq(pl_recipe_size_like("Q6"), "q6_k");
    cr_expect_null(pl_recipe_size_like("q8"));
    cr_expect_null(pl_recipe_size_like("q4_k_m"));
    open_plan(DEMO);
    works((pl_recipe_params){.type = "q5"});
    cr_expect_eq(file_type, 17);
}

Test(recipe, pure_is_one_type)
{
    open_plan(DEMO);
    works((pl_recipe_params){.type = "q5_1", .pure = true});
    cr_expect_eq(file_type, 9);
    for (size_t i = 0; i < plan->n; i++)
        if (plan->tensors[i].role < PL_ROLES) /* towers stay as they are */
            cr_expect_eq(plan->tensors[i].type, pl_recipe_may_change(&plan->tensors[i]) ? PL_Q5_1 : PL_F32, "%s",
                         plan->tensors[i].name);
    works((pl_recipe_params){.type = "q3_k", .pure = true});
    cr_expect_eq(type_of("blk.0.attn_output.weight"), PL_Q3_K);
    expect_failure(apply((pl_recipe_params){.type = "q4_k_m", .pure = true}), PL_ERR_ARGUMENT, &err,
                   WORDS("--pure", "q4_k_m"));
    expect_failure(apply((pl_recipe_params){.type = "q4", .pure = true}), PL_ERR_ARGUMENT, &err, WORDS("'q4'"));
}

Test(recipe, unknown_names_get_a_suggestion)
{
    open_plan(DEMO);
    expect_failure(apply((pl_recipe_params){.type = "q4_k_n"}), PL_ERR_ARGUMENT, &err, WORDS("q4_k_n", "did you mean"));
    expect_failure(apply((pl_recipe_params){.type = "nonsense"}), PL_ERR_ARGUMENT, &err, WORDS("nonsense"));
}

/* ---- nested paths -------------------------------------------------------------------------------- */

/* FFN 512 wide, but a declared path cuts it to 384: blocks of 256 would close that path. */
Test(recipe, blocks_fit_the_widths_of_nested_paths)
{
    gguf_builder b;
    gguf_builder_tiny(&b);
    gguf_builder_u32(&b, "gemma3n.feed_forward_length", 512);
    gguf_builder_text(&b, "pleiad.path.slim", "mix:widths=384");
    for (size_t i = 0; i < b.n_tensors; i++) {
        bool down = strstr(b.tensors[i].name, "ffn_down");
        if (down || strstr(b.tensors[i].name, "ffn_up") || strstr(b.tensors[i].name, "ffn_gate"))
            gguf_builder_reshape(&b.tensors[i], 2, down ? 512 : 32, down ? 32 : 512, 1);
    }
    gguf_builder_place(&b);
    open_plan(gguf_builder_write(&b, &s, "slim.gguf"));
    gguf_builder_free(&b);
    works((pl_recipe_params){.type = "q4_k", .pure = true});
    cr_expect_eq(type_of("blk.1.ffn_down.weight"), PL_IQ4_NL);
    works((pl_recipe_params){.type = "q4_k_s"});
    cr_expect_eq(type_of("blk.1.ffn_down.weight"), PL_Q5_0);
    expect_failure(apply((pl_recipe_params){.type = "q8", OVERRIDES("*.ffn_down=q4_k")}), PL_ERR_ARGUMENT, &err,
                   WORDS("nested paths", "blk.0.ffn_down.weight", "128", "256"));
}

/* ---- overrides ----------------------------------------------------------------------------------- */

Test(recipe, the_last_override_that_matches_counts)
{
    open_plan(DEMO);
    works((pl_recipe_params){.type = "iq4_nl", OVERRIDES("blk.*.ffn_*=q8_0", "blk.[2-3].ffn_down.weight=BF16")});
    cr_expect_eq(type_of("blk.1.ffn_down.weight"), PL_Q8_0);
    cr_expect_eq(type_of("blk.2.ffn_down.weight"), PL_BF16);
    cr_expect_eq(type_of("blk.2.ffn_up.weight"), PL_Q8_0);
    cr_expect_eq(type_of("blk.2.ffn_norm.weight"), PL_F32);
    cr_expect_eq(type_of("blk.2.attn_q.weight"), PL_IQ4_NL);
}

Test(recipe, overrides_tell_what_they_touched)
{
    open_plan(DEMO);
    bool *pinned = calloc(plan->n, sizeof *pinned);
    static const char *const one[] = {"token_embd=q8_0"};
    cr_assert_eq(pl_recipe_override(plan, one, 1, pinned, &err), PL_OK);
    for (size_t i = 0; i < plan->n; i++)
        cr_expect_eq(pinned[i], strcmp(plan->tensors[i].name, "token_embd.weight") == 0, "%s", plan->tensors[i].name);
    free(pinned);
}

Test(recipe, wrong_overrides_are_refused)
{
    const struct {
        const char *text;
        const char *const *words;
    } wrong[] = {
        {"token_embd", WORDS("PATTERN=TYPE", "token_embd")},
        {"=q8_0", WORDS("PATTERN=TYPE")},
        {"token_embd=q9", WORDS("'q9' is not a type")},
        {"token_embd=", WORDS("'' is not a type")},
        {"blk.3.ffn_dwn=q8_0", WORDS("blk.3.ffn_dwn", "did you mean 'blk.3.ffn_down'")},
        {"blk.3.attn_norm=q8_0", WORDS("blk.3.attn_norm")},
        {"blk.99.ffn_down=q8_0", WORDS("blk.99.ffn_down")},
        {"blk.3.ffn_down=q4_k", WORDS("blk.3.ffn_down.weight", "640", "256")},
    };
    open_plan(DEMO);
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++)
        expect_failure(apply((pl_recipe_params){.type = "q8", OVERRIDES(wrong[i].text)}), PL_ERR_ARGUMENT, &err,
                       wrong[i].words);
}
