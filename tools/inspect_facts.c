#include "tools/inspect_facts.h"

#include "host/model/weight_table.h"

#include <stdlib.h>
#include <string.h>

const char *pl_inspect_part_name(pl_inspect_part_id part)
{
    static const char *const names[PL_PARTS] = {
        [PL_PART_FFN] = "FFN",
        [PL_PART_ATTENTION] = "attention Q, O",
        [PL_PART_KV] = "attention K, V",
        [PL_PART_PLE_GATES] = "per-layer gates",
        [PL_PART_ALTUP_PROJECTIONS] = "AltUp projections",
        [PL_PART_PLE_PROJECTION] = "per-layer projection",
        [PL_PART_LAUREL] = "LAuReL",
        [PL_PART_ALTUP] = "AltUp routers, mixing",
        [PL_PART_NORMS] = "norms",
        [PL_PART_HEAD] = "embedding, head",
        [PL_PART_PLE_TABLE] = "per-layer table",
        [PL_PART_UNUSED] = "towers, unused",
    };
    return names[part];
}

/* ---- parts -------------------------------------------------------------------------------------- */

static pl_inspect_part_id part_of(pl_role role)
{
    switch (role) {
    case PL_ROLE_GATE:
    case PL_ROLE_UP:
    case PL_ROLE_DOWN: return PL_PART_FFN;
    case PL_ROLE_Q:
    case PL_ROLE_O:
    case PL_ROLE_Q_NORM: return PL_PART_ATTENTION;
    case PL_ROLE_K:
    case PL_ROLE_V:
    case PL_ROLE_K_NORM: return PL_PART_KV;
    case PL_ROLE_PLE_GATE:
    case PL_ROLE_PLE_PROJ:
    case PL_ROLE_POST_PLE_NORM: return PL_PART_PLE_GATES;
    case PL_ROLE_LAUREL_LEFT:
    case PL_ROLE_LAUREL_RIGHT:
    case PL_ROLE_LAUREL_NORM: return PL_PART_LAUREL;
    case PL_ROLE_ALTUP_ROUTER:
    case PL_ROLE_ALTUP_ROUTER_NORM:
    case PL_ROLE_ALTUP_PREDICT:
    case PL_ROLE_ALTUP_CORRECT:
    case PL_ROLE_ALTUP_SCALE: return PL_PART_ALTUP;
    case PL_ROLE_ALTUP_PROJ:
    case PL_ROLE_ALTUP_UNEMBED: return PL_PART_ALTUP_PROJECTIONS;
    case PL_ROLE_PLE_MODEL_PROJ:
    case PL_ROLE_PLE_NORM: return PL_PART_PLE_PROJECTION;
    case PL_ROLE_EMBED:
    case PL_ROLE_HEAD: return PL_PART_HEAD;
    case PL_ROLE_PLE_TABLE: return PL_PART_PLE_TABLE;
    case PL_ROLE_ATTN_NORM:
    case PL_ROLE_POST_ATTN_NORM:
    case PL_ROLE_FFN_NORM:
    case PL_ROLE_POST_FFN_NORM:
    case PL_ROLE_OUT_NORM:
    case PL_ROLES: break;
    }
    return PL_PART_NORMS;
}

static void count_parts(pl_inspect_facts *f)
{
    const pl_weights *w = pl_checkpoint_weights(f->checkpoint);
    for (pl_weight_cursor at = {0}; pl_weight_next(w, pl_checkpoint_config(f->checkpoint), &at);) {
        pl_inspect_part *part = &f->parts[part_of(at.role)];
        part->params += at.tensor->rows * at.tensor->cols;
        part->bytes += (size_t)at.tensor->rows * pl_tensor_row_bytes(at.tensor);
    }
}

static void add_up(pl_inspect_part *sum, const pl_inspect_part *parts, int n)
{
    for (int i = 0; i < n; i++) {
        sum->params += parts[i].params;
        sum->bytes += parts[i].bytes;
    }
}

pl_inspect_part pl_inspect_core(const pl_inspect_facts *facts)
{
    pl_inspect_part sum = {0, 0};
    add_up(&sum, facts->parts, PL_PART_HEAD);
    return sum;
}

pl_inspect_part pl_inspect_total(const pl_inspect_facts *facts)
{
    pl_inspect_part sum = {0, 0};
    add_up(&sum, facts->parts, PL_PARTS);
    return sum;
}

/* ---- types -------------------------------------------------------------------------------------- */

static pl_inspect_type *type_of(pl_inspect_facts *f, const char *name)
{
    for (size_t i = 0; i < f->n_types; i++)
        if (strcmp(f->types[i].name, name) == 0)
            return &f->types[i];
    if (f->n_types < PL_INSPECT_TYPES)
        f->n_types++;
    f->types[f->n_types - 1].name = name;
    return &f->types[f->n_types - 1];
}

static int more_bytes(const void *a, const void *b)
{
    size_t x = ((const pl_inspect_type *)a)->bytes, y = ((const pl_inspect_type *)b)->bytes;
    return (x < y) - (x > y);
}

static void count_types(pl_inspect_facts *f)
{
    const pl_tensor *all;
    pl_inspect_part in_file = {0, 0};
    size_t n = pl_checkpoint_tensors(f->checkpoint, &all);
    for (size_t i = 0; i < n; i++) {
        const pl_dtype_info *info = pl_dtype_describe((int)all[i].type);
        pl_inspect_type *type = type_of(f, info ? info->name : "other");
        pl_inspect_part one = {all[i].rows * all[i].cols,
                               info ? (size_t)all[i].rows * pl_tensor_row_bytes(&all[i]) : 0};
        type->tensors++;
        type->params += one.params;
        type->bytes += one.bytes;
        add_up(&in_file, &one, 1);
    }
    qsort(f->types, f->n_types, sizeof f->types[0], more_bytes);
    pl_inspect_part used = pl_inspect_total(f);
    f->parts[PL_PART_UNUSED] = (pl_inspect_part){in_file.params - used.params, in_file.bytes - used.bytes};
}

/* ---- paths -------------------------------------------------------------------------------------- */

static pl_status add_path(pl_inspect_facts *f, const char *name, const char *spec, pl_error *err)
{
    pl_inspect_path *p = &f->paths[f->n_paths];
    PL_TRY(pl_path_parse(f->checkpoint, name, &p->path, err));
    for (int l = 0; l < p->path.n_layers; l++)
        p->n_layers += !p->path.skip[l];
    p->weights = pl_path_weights(f->checkpoint, &p->path);
    p->bytes = pl_path_bytes(f->checkpoint, &p->path);
    p->name = name;
    p->spec = spec;
    f->n_paths++;
    return PL_OK;
}

/* Of a path that the file does not declare: a model may have no such part, as E2B has no E4B. */
static pl_status add_path_if_any(pl_inspect_facts *f, const char *name, pl_error *err)
{
    pl_status status = add_path(f, name, NULL, err);
    return status == PL_ERR_ARGUMENT ? PL_OK : status;
}

/* The two that every published model has, then what else the file declares. */
static pl_status find_paths(pl_inspect_facts *f, pl_error *err)
{
    static const char *const always[] = {"e4b", "e2b"};
    const pl_named_path *declared;
    size_t n = pl_checkpoint_paths(f->checkpoint, &declared);
    f->paths = calloc(n + 2, sizeof *f->paths);
    if (!f->paths)
        return pl_fail_memory(err, (n + 2) * sizeof *f->paths, "paths");
    for (size_t i = 0; i < 2; i++) {
        const char *spec = NULL;
        for (size_t j = 0; j < n; j++)
            if (strcmp(declared[j].name, always[i]) == 0)
                spec = declared[j].spec;
        PL_TRY(spec ? add_path(f, always[i], spec, err) : add_path_if_any(f, always[i], err));
    }
    for (size_t i = 0; i < n; i++)
        if (strcmp(declared[i].name, always[0]) != 0 && strcmp(declared[i].name, always[1]) != 0)
            PL_TRY(add_path(f, declared[i].name, declared[i].spec, err));
    return PL_OK;
}

/* ---- text --------------------------------------------------------------------------------------- */

static void try_text(pl_inspect_facts *f, const char *path)
{
    pl_model *model = NULL;
    pl_message hello = {"user", "Hello"};
    pl_tokens tokens = {.ids = NULL};
    const pl_pieces *pieces = pl_checkpoint_pieces(f->checkpoint);
    if (pl_model_open_text(path, &model, &f->tokenizer_error) == PL_OK)
        f->n_pieces = pieces ? pieces->n : pl_model_vocab_size(model);
    pl_model_close(model);
    model = NULL;
    if (pl_model_open(path, &model, &f->chat_error) == PL_OK)
        f->chat = pl_tokenize_chat(model, &hello, 1, true, &tokens, &f->chat_error) == PL_OK;
    pl_tokens_free(&tokens);
    pl_model_close(model);
}

/* ---- memory ------------------------------------------------------------------------------------- */

static void plan_memory(pl_inspect_facts *f, const pl_options *options)
{
    const pl_config *config = pl_checkpoint_config(f->checkpoint);
    int most = config->context < PL_DEFAULT_CONTEXT ? config->context : PL_DEFAULT_CONTEXT;
    f->context = options->n_context ? options->n_context : most;
    int rows = f->context < PL_DEFAULT_BATCH_ROWS ? f->context : PL_DEFAULT_BATCH_ROWS;
    pl_memory_plan_compute(f->checkpoint, f->context, rows, (pl_cache_type)options->cache_type, &f->plan);
    pl_kv_size size = {.sequences = 1, .context = f->context, .batch_rows = rows};
    for (pl_ple_placement ple = PL_PLE_VRAM; ple <= PL_PLE_DISK; ple++)
        pl_card_memory_compute(config, &f->plan, ple, &size, &f->on_card[ple]);
    pl_inspect_find_cards(options->card_memory, &f->cards);
    pl_inspect_fit_cards(config, &f->plan, options->n_context, &f->cards);
}

pl_status pl_inspect_gather(const pl_options *options, pl_inspect_facts *out, pl_error *err)
{
    pl_status status;
    *out = (pl_inspect_facts){.checkpoint = NULL};
    PL_TRY_GOTO(pl_checkpoint_open(options->model, &out->checkpoint, err));
    PL_TRY_GOTO(pl_tower_source_open(out->checkpoint, options->mmproj, &out->towers, err));
    count_parts(out);
    count_types(out);
    PL_TRY_GOTO(find_paths(out, err));
    plan_memory(out, options);
    try_text(out, options->model);
    return PL_OK;
fail:
    pl_inspect_facts_free(out);
    return status;
}

void pl_inspect_facts_free(pl_inspect_facts *facts)
{
    free(facts->paths);
    pl_tower_source_close(facts->towers);
    pl_checkpoint_close(facts->checkpoint);
    *facts = (pl_inspect_facts){.checkpoint = NULL};
}
