#include "host/convert/recipe.h"

#include <fnmatch.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "host/base/options_table.h"

#define NAME_BYTES 128
#define LAST_TYPE PL_NVFP4

/* ---- the recipes -------------------------------------------------------------------------------- */

typedef enum layers {
    ALL,
    FIRST_TWO,
    FIRST_FOUR,
    FIRST_16TH,
    FIRST_8TH,
    MORE_BITS, /* first and last eighth, and every third between */
    UNREAD,    /* of K/V: the layers that read others' */
} layers;

/* What else must hold. */
enum { ALWAYS = 0, WITH_IMPORTANCE = 1, WITHOUT_IMPORTANCE = 2, MANY_QUERY_HEADS = 4 };

typedef enum style {
    OURS,
    LLAMA, /* small matrices as in the source; tables by its rule; its types for rows that do not fit */
} style;

typedef struct rule {
    uint64_t roles;
    layers layers;
    pl_dtype type;
    int when;
} rule;

#define RULES 16

typedef struct recipe {
    const char *name, *alias;
    uint32_t file_type; /* GGUF's number, of ours the most like it */
    style style;
    pl_dtype base;
    rule rules[RULES]; /* the last that holds counts */
} recipe;

#define ROLE(name) (UINT64_C(1) << PL_ROLE_##name)
#define KV (ROLE(K) | ROLE(V))
#define LAUREL (ROLE(LAUREL_LEFT) | ROLE(LAUREL_RIGHT))
#define ALTUP (ROLE(ALTUP_PROJ) | ROLE(ALTUP_UNEMBED))
#define PLE_GATES (ROLE(PLE_GATE) | ROLE(PLE_PROJ))
#define SMALL (LAUREL | ALTUP | PLE_GATES | ROLE(PLE_MODEL_PROJ))
#define HEAD (ROLE(EMBED) | ROLE(HEAD))
#define TABLE ROLE(PLE_TABLE)

static const recipe recipes[] = {
    /* K/V matrices that nobody reads need no precision. */
    {.name = "q8", .file_type = 7, .style = OURS, .base = PL_Q8_0, .rules = {{KV, UNREAD, PL_Q2_K, ALWAYS}}},

    {.name = "q2_k",
     .file_type = 10,
     .style = LLAMA,
     .base = PL_Q2_K,
     .rules = {{ROLE(V) | ROLE(DOWN) | ROLE(O), ALL, PL_Q3_K, ALWAYS}, {ROLE(V), ALL, PL_Q4_K, MANY_QUERY_HEADS}}},
    {.name = "q3_k_s", .file_type = 11, .style = LLAMA, .base = PL_Q3_K},
    {.name = "q3_k_m",
     .alias = "q3_k",
     .file_type = 12,
     .style = LLAMA,
     .base = PL_Q3_K,
     .rules = {{ROLE(V) | ROLE(DOWN) | ROLE(O), ALL, PL_Q4_K, ALWAYS},
               {ROLE(V), FIRST_TWO, PL_Q5_K, ALWAYS},
               {ROLE(DOWN), FIRST_16TH, PL_Q5_K, ALWAYS}}},
    {.name = "q3_k_l",
     .file_type = 13,
     .style = LLAMA,
     .base = PL_Q3_K,
     .rules = {{ROLE(V) | ROLE(DOWN) | ROLE(O), ALL, PL_Q5_K, ALWAYS}}},
    {.name = "q4_k_s",
     .file_type = 14,
     .style = LLAMA,
     .base = PL_Q4_K,
     .rules = {{ROLE(V), FIRST_FOUR, PL_Q5_K, ALWAYS}, {ROLE(DOWN), FIRST_8TH, PL_Q5_K, ALWAYS}}},
    {.name = "q4_k_m",
     .alias = "q4_k",
     .file_type = 15,
     .style = LLAMA,
     .base = PL_Q4_K,
     .rules = {{ROLE(V) | ROLE(DOWN), MORE_BITS, PL_Q6_K, ALWAYS}}},
    {.name = "q5_k_s", .file_type = 16, .style = LLAMA, .base = PL_Q5_K},
    {.name = "q5_k_m",
     .alias = "q5_k",
     .file_type = 17,
     .style = LLAMA,
     .base = PL_Q5_K,
     .rules = {{ROLE(V) | ROLE(DOWN), MORE_BITS, PL_Q6_K, ALWAYS}}},
    {.name = "q6_k", .file_type = 18, .style = LLAMA, .base = PL_Q6_K},
    {.name = "q4_0",
     .file_type = 2,
     .style = LLAMA,
     .base = PL_Q4_0,
     .rules = {{ROLE(DOWN), FIRST_8TH, PL_Q4_1, WITH_IMPORTANCE}}},
    {.name = "q4_1", .file_type = 3, .style = LLAMA, .base = PL_Q4_1},
    {.name = "q5_0",
     .file_type = 8,
     .style = LLAMA,
     .base = PL_Q5_0,
     .rules = {{ROLE(DOWN), FIRST_8TH, PL_Q5_1, WITH_IMPORTANCE}}},
    {.name = "q5_1", .file_type = 9, .style = LLAMA, .base = PL_Q5_1},
    {.name = "q8_0", .file_type = 7, .style = LLAMA, .base = PL_Q8_0},
    {.name = "iq4_nl",
     .file_type = 25,
     .style = LLAMA,
     .base = PL_IQ4_NL,
     .rules = {{ROLE(V), ALL, PL_Q5_K, MANY_QUERY_HEADS}, {ROLE(DOWN), FIRST_8TH, PL_Q5_K, WITHOUT_IMPORTANCE}}},
    {.name = "iq4_xs",
     .file_type = 30,
     .style = LLAMA,
     .base = PL_IQ4_XS,
     .rules = {{ROLE(V), ALL, PL_Q5_K, MANY_QUERY_HEADS}, {ROLE(DOWN), FIRST_8TH, PL_Q5_K, WITHOUT_IMPORTANCE}}},

    {.name = "mxfp4",
     .file_type = 38,
     .style = OURS,
     .base = PL_MXFP4,
     .rules = {{SMALL, ALL, PL_Q8_0, ALWAYS}, {HEAD | TABLE, ALL, PL_Q6_K, ALWAYS}}},
    {.name = "nvfp4",
     .file_type = 39,
     .style = OURS,
     .base = PL_NVFP4,
     .rules = {{SMALL, ALL, PL_Q8_0, ALWAYS}, {HEAD | TABLE, ALL, PL_Q6_K, ALWAYS}}},
    {.name = "f16", .file_type = 1, .style = OURS, .base = PL_F16},
    {.name = "bf16", .file_type = 32, .style = OURS, .base = PL_BF16},
    {.name = "f32", .file_type = 0, .style = OURS, .base = PL_F32},
};

#define N_RECIPES (sizeof recipes / sizeof recipes[0])

/* Recipes of ours that are a size: that of one of llama.cpp's. */
static const char *const fitted[][2] = {{"q3", "q3_k_m"}, {"q4", "q4_k_m"}, {"q5", "q5_k_m"}, {"q6", "q6_k"}};

#define N_FITTED (sizeof fitted / sizeof fitted[0])

static bool named(const char *name, const char *text)
{
    return name && strcasecmp(name, text) == 0;
}

static const recipe *find_recipe(const char *text)
{
    for (size_t i = 0; i < N_RECIPES; i++)
        if (named(recipes[i].name, text) || named(recipes[i].alias, text))
            return &recipes[i];
    return NULL;
}

const char *pl_recipe_size_like(const char *type)
{
    for (size_t i = 0; i < N_FITTED; i++)
        if (named(fitted[i][0], type))
            return fitted[i][1];
    return NULL;
}

static bool find_type(const char *text, pl_dtype *out)
{
    for (int type = 0; type <= LAST_TYPE; type++) {
        const pl_dtype_info *info = pl_dtype_describe(type);
        if (info && named(info->name, text)) {
            *out = (pl_dtype)type;
            return true;
        }
    }
    return false;
}

/* ---- which layers ------------------------------------------------------------------------------- */

bool pl_recipe_unread(const pl_export *e, const pl_export_tensor *t)
{
    return (t->role == PL_ROLE_K || t->role == PL_ROLE_V) && t->layer >= e->config.n_kv_layers;
}

/* What rules ask about a model. */
typedef struct facts {
    const pl_export *e;
    bool importance, untied;
    int n_v; /* layers whose V the source has, of which alone llama-quantize counts eighths for V */
} facts;

static facts gather(const pl_export *e, bool importance)
{
    facts f = {.e = e, .importance = importance};
    for (size_t i = 0; i < e->n; i++) {
        f.untied |= e->tensors[i].role == PL_ROLE_HEAD;
        f.n_v += e->tensors[i].role == PL_ROLE_V && e->tensors[i].source;
    }
    return f;
}

static bool selects(layers which, const facts *f, const pl_export_tensor *t)
{
    int i = t->layer, n = t->role == PL_ROLE_V ? f->n_v : f->e->config.n_layers;
    switch (which) {
    case ALL: return true;
    case FIRST_TWO: return i < 2;
    case FIRST_FOUR: return i < 4;
    case FIRST_16TH: return i < n / 16;
    case FIRST_8TH: return i < n / 8;
    case MORE_BITS: return i < n / 8 || i >= 7 * n / 8 || (i - n / 8) % 3 == 2;
    case UNREAD: return pl_recipe_unread(f->e, t);
    }
    return false;
}

static bool holds(const rule *r, const facts *f, const pl_export_tensor *t)
{
    const pl_config *c = &f->e->config;
    return (r->roles >> t->role & 1) && selects(r->layers, f, t) && !(r->when == WITH_IMPORTANCE && !f->importance) &&
           !(r->when == WITHOUT_IMPORTANCE && f->importance) &&
           !(r->when == MANY_QUERY_HEADS && c->n_heads / c->n_kv_heads < 4);
}

/* ---- rows and blocks ---------------------------------------------------------------------------- */

static int64_t common_divisor(int64_t a, int64_t b)
{
    while (b) {
        int64_t rest = a % b;
        a = b;
        b = rest;
    }
    return a;
}

/* widths[l] = a common divisor of layer l's FFN widths on all nested paths; 0 where only the whole is read. A path
 * that the source's own blocks rule out is none to keep open. */
static void divide_widths(const pl_export *e, const char *path_name, pl_path *scratch, int64_t *widths)
{
    if (pl_path_parse(e->source, path_name, scratch, NULL) != PL_OK || scratch->n_layers != e->config.n_layers)
        return;
    for (int l = 0; l < scratch->n_layers; l++)
        widths[l] = common_divisor(widths[l], scratch->ffn[l]);
}

pl_status pl_recipe_units(const pl_export *e, int64_t *units, pl_error *err)
{
    int64_t widths[PL_MAX_LAYERS] = {0};
    pl_path *scratch = pl_arena_take(e->arena, 1, sizeof *scratch);
    if (!scratch)
        return pl_fail_memory(err, sizeof *scratch, "paths");
    divide_widths(e, "e2b", scratch, widths);
    for (size_t i = 0; i < e->n_paths; i++)
        divide_widths(e, e->paths[i].name, scratch, widths);
    for (size_t i = 0; i < e->n; i++) {
        const pl_export_tensor *t = &e->tensors[i];
        units[i] = t->n_cols;
        if (t->role == PL_ROLE_DOWN)
            units[i] = common_divisor(units[i], widths[t->layer]);
    }
    return PL_OK;
}

static bool fits(pl_dtype type, int64_t unit)
{
    return unit % pl_dtype_describe((int)type)->block_elems == 0;
}

/* The type that stands in for one whose blocks do not fit. Ours, by the error on normally distributed values:
 *
 *     Q2_K   2.6 bits 25.8 %    MXFP4  4.25 bits 11.1 %: none is smaller
 *     Q3_K   3.4 bits 14.3 %    IQ4_NL 4.5 bits 7.3 %
 *     Q4_K   4.5 bits  6.9 %    IQ4_NL 4.5 bits 7.3 %, where Q4_1 has 5 bits 7.1 %
 *     Q5_K   5.5 bits  3.4 %    Q5_1   6 bits 3.4 %, where Q5_0 has 5.5 bits 4.0 % */
static pl_dtype stand_in(pl_dtype type, style s)
{
    switch (type) {
    case PL_Q2_K: return s == LLAMA ? PL_Q4_0 : PL_MXFP4;
    case PL_Q3_K: return s == LLAMA ? PL_Q4_0 : PL_IQ4_NL;
    case PL_Q4_K: return s == LLAMA ? PL_Q5_0 : PL_IQ4_NL;
    case PL_Q5_K: return PL_Q5_1;
    case PL_Q6_K: return PL_Q8_0;
    case PL_IQ4_XS: return PL_IQ4_NL;
    case PL_NVFP4: return PL_MXFP4;
    default: return PL_F16;
    }
}

/* Of 16 bits, what the source has: nothing is lost then. */
static pl_dtype fitting(pl_dtype type, style s, int64_t unit, const pl_export_tensor *t)
{
    while (!fits(type, unit))
        type = stand_in(type, s);
    bool from_bf16 = t->source && t->source->type == PL_BF16;
    return type == PL_F16 && s == OURS && from_bf16 ? PL_BF16 : type;
}

/* ---- a recipe ----------------------------------------------------------------------------------- */

bool pl_recipe_may_change(const pl_export_tensor *t)
{
    return t->role < PL_ROLES && pl_weight_table[t->role].kind != PL_WEIGHT_VECTOR;
}

/* llama-quantize takes a tied embedding, and with it the per-layer table, for an output matrix. */
static bool llama_output(const pl_export_tensor *t, bool untied)
{
    return t->role == PL_ROLE_HEAD || (!untied && (t->role == PL_ROLE_EMBED || t->role == PL_ROLE_PLE_TABLE));
}

static bool llama_keeps(const pl_export_tensor *t)
{
    return (LAUREL | ALTUP | ROLE(PLE_MODEL_PROJ)) >> t->role & 1;
}

static pl_dtype pick(const recipe *r, const facts *f, const pl_export_tensor *t)
{
    pl_dtype type = r->base;
    if (r->style == LLAMA && llama_output(t, f->untied))
        return type == PL_Q8_0 || !fits(type, t->n_cols) ? PL_Q8_0 : PL_Q6_K;
    for (int i = 0; i < RULES && r->rules[i].roles; i++)
        if (holds(&r->rules[i], f, t))
            type = r->rules[i].type;
    return type;
}

static void apply(pl_export *e, const recipe *r, const pl_recipe_params *params, const int64_t *units)
{
    facts f = gather(e, params->importance);
    bool from_gguf = pl_checkpoint_kind(e->source) == PL_CHECKPOINT_GGUF;
    for (size_t i = 0; i < e->n; i++) {
        pl_export_tensor *t = &e->tensors[i];
        bool may_change = pl_recipe_may_change(t);
        if (!may_change && r->style == LLAMA && from_gguf && t->source)
            t->type = t->source->type;
        if (may_change && !(r->style == LLAMA && llama_keeps(t)))
            t->type = fitting(pick(r, &f, t), r->style, units[i], t);
    }
}

static pl_status apply_pure(pl_export *e, const char *name, const int64_t *units, uint32_t *file_type, pl_error *err)
{
    pl_dtype type;
    if (!find_type(name, &type))
        return pl_fail(err, PL_ERR_ARGUMENT, "--pure needs a single type, '%.40s' is a recipe", name);
    for (size_t i = 0; i < e->n; i++)
        if (pl_recipe_may_change(&e->tensors[i]))
            e->tensors[i].type = fitting(type, OURS, units[i], &e->tensors[i]);
    *file_type = pl_recipe_file_type(type);
    return PL_OK;
}

static pl_status unknown(const char *text, pl_error *err)
{
    pl_nearest near = pl_nearest_to(text);
    for (size_t i = 0; i < N_RECIPES; i++)
        pl_nearest_consider(&near, recipes[i].name);
    for (size_t i = 0; i < N_FITTED; i++)
        pl_nearest_consider(&near, fitted[i][0]);
    return pl_fail(err, PL_ERR_ARGUMENT, "type '%.40s' is not known%s%s%s; 'pleiad help quantize' lists them", text,
                   near.name ? ", did you mean '" : "", near.name ? near.name : "", near.name ? "'?" : "");
}

pl_status pl_recipe_apply(pl_export *e, const pl_recipe_params *params, uint32_t *file_type, pl_error *err)
{
    const char *size_like = pl_recipe_size_like(params->type);
    const recipe *r = find_recipe(size_like ? size_like : params->type);
    if (!r)
        return unknown(params->type, err);
    int64_t *units = pl_arena_take(e->arena, e->n, sizeof *units);
    if (!units)
        return pl_fail_memory(err, e->n * sizeof *units, "types");
    PL_TRY(pl_recipe_units(e, units, err));
    if (params->pure) {
        PL_TRY(apply_pure(e, params->type, units, file_type, err));
    } else {
        apply(e, r, params, units);
        *file_type = r->file_type;
    }
    return pl_recipe_override(e, params->overrides, params->n_overrides, NULL, err);
}

uint32_t pl_recipe_file_type(pl_dtype most)
{
    for (size_t i = N_RECIPES; i-- > 0;)
        if (recipes[i].base == most)
            return recipes[i].file_type;
    return 0;
}

/* ---- overrides ---------------------------------------------------------------------------------- */

/* The name without ".weight"; returns out. */
static const char *short_name(const char *name, char out[NAME_BYTES])
{
    static const char ending[] = ".weight";
    size_t n = strlen(name), tail = sizeof ending - 1;
    bool ends = n > tail && strcmp(name + n - tail, ending) == 0;
    snprintf(out, NAME_BYTES, "%.*s", (int)(ends ? n - tail : n), name);
    return out;
}

static bool matches(const char *pattern, const char *name)
{
    char brief[NAME_BYTES];
    return fnmatch(pattern, name, 0) == 0 || fnmatch(pattern, short_name(name, brief), 0) == 0;
}

static pl_status no_match(const pl_export *e, const char *pattern, pl_error *err)
{
    char brief[NAME_BYTES], best[NAME_BYTES] = "";
    pl_nearest near = pl_nearest_to(pattern);
    for (size_t i = 0; i < e->n; i++) {
        size_t before = near.distance;
        if (!pl_recipe_may_change(&e->tensors[i]))
            continue;
        pl_nearest_consider(&near, short_name(e->tensors[i].name, brief));
        if (near.name == brief && (near.distance < before || !*best))
            memcpy(best, brief, sizeof best);
    }
    return pl_fail(err, PL_ERR_ARGUMENT, "--tensor-type: no matrix is named '%.80s'%s%s%s", pattern,
                   *best ? ", did you mean '" : "", best, *best ? "'?" : "");
}

static pl_status set_type(pl_export_tensor *t, pl_dtype type, int64_t unit, pl_error *err)
{
    const pl_dtype_info *info = pl_dtype_describe((int)type);
    if (t->n_cols % info->block_elems != 0)
        return pl_fail(err, PL_ERR_ARGUMENT, "--tensor-type: %s has rows of %lld values, %s needs multiples of %d",
                       t->name, (long long)t->n_cols, info->name, info->block_elems);
    if (!fits(type, unit))
        return pl_fail(err, PL_ERR_ARGUMENT,
                       "--tensor-type: nested paths cut %s at multiples of %lld, %s needs multiples of %d", t->name,
                       (long long)unit, info->name, info->block_elems);
    t->type = type;
    return PL_OK;
}

static pl_status override_one(pl_export *e, const char *text, const int64_t *units, bool *pinned, pl_error *err)
{
    char pattern[NAME_BYTES];
    const char *equals = strrchr(text, '=');
    pl_dtype type;
    size_t n = equals ? (size_t)(equals - text) : 0;
    if (n == 0 || n >= sizeof pattern)
        return pl_fail(err, PL_ERR_ARGUMENT, "--tensor-type takes PATTERN=TYPE, not '%.80s'", text);
    memcpy(pattern, text, n);
    pattern[n] = '\0';
    if (!find_type(equals + 1, &type))
        return pl_fail(err, PL_ERR_ARGUMENT, "--tensor-type: '%.40s' is not a type; types are such as q4_k, q8_0, f16",
                       equals + 1);
    bool any = false;
    for (size_t i = 0; i < e->n; i++) {
        pl_export_tensor *t = &e->tensors[i];
        if (!pl_recipe_may_change(t) || !matches(pattern, t->name))
            continue;
        PL_TRY(set_type(t, type, units[i], err));
        if (pinned)
            pinned[i] = true;
        any = true;
    }
    return any ? PL_OK : no_match(e, pattern, err);
}

pl_status pl_recipe_override(pl_export *e, const char *const *overrides, size_t n, bool *pinned, pl_error *err)
{
    if (n == 0)
        return PL_OK;
    int64_t *units = pl_arena_take(e->arena, e->n, sizeof *units);
    if (!units)
        return pl_fail_memory(err, e->n * sizeof *units, "types");
    PL_TRY(pl_recipe_units(e, units, err));
    for (size_t i = 0; i < n; i++)
        PL_TRY(override_one(e, overrides[i], units, pinned, err));
    return PL_OK;
}
