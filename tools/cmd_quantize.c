/* pleiad quantize: a smaller GGUF file from a model. */
#include <math.h>
#include <stdlib.h>
#include <sys/stat.h>

#include "host/base/clock.h"
#include "host/base/outfile.h"
#include "host/base/progress.h"
#include "host/base/topology.h"
#include "host/convert/fit.h"
#include "host/convert/importance.h"
#include "host/convert/recipe.h"
#include "host/convert/write_gguf.h"
#include "host/engine/memory.h"
#include "tools/commands.h"
#include "tools/console.h"
#include "tools/interrupt.h"
#include "tools/quantize_report.h"

#define DEFAULT_TYPE "q4"
#define STEP_ROWS 512 /* the engine's own choice, for the memory of a step */

typedef struct quantizing {
    const pl_options *options;
    pl_checkpoint *checkpoint;
    pl_export *e;
    pl_imatrix *imatrix; /* may be NULL */
    pl_pool *pool;
    pl_encode_error *errors;
    pl_progress progress;
    uint32_t file_type;
    pl_quantize_report report;
} quantizing;

/* ---- before ------------------------------------------------------------------------------------- */

static pl_status refuse_same_file(const pl_options *options, pl_error *err)
{
    if (pl_same_file(options->model, options->out_file))
        return pl_fail(err, PL_ERR_ARGUMENT, "%s and %s are the same file; a model is not quantised in place",
                       options->model, options->out_file);
    return PL_OK;
}

static pl_status open_imatrix(quantizing *q, pl_error *err)
{
    size_t matrices = 0;
    if (!q->options->imatrix)
        return PL_OK;
    PL_TRY(pl_imatrix_read(q->options->imatrix, &q->imatrix, err));
    PL_TRY(pl_importance_check(q->imatrix, q->e, err));
    for (size_t i = 0; i < q->e->n; i++)
        matrices += pl_recipe_may_change(&q->e->tensors[i]);
    pl_console_note(q->options, "%s: has entries for %zu of the model's %zu matrices", q->options->imatrix,
                    pl_importance_covers(q->imatrix, q->e), matrices);
    return PL_OK;
}

static pl_status start(quantizing *q, pl_error *err)
{
    PL_TRY(refuse_same_file(q->options, err));
    PL_TRY(pl_checkpoint_open(q->options->model, &q->checkpoint, err));
    PL_TRY(pl_export_plan(q->checkpoint, NULL, PL_CHECKPOINT_GGUF, &q->e, err));
    PL_TRY(open_imatrix(q, err));
    return pl_topology_pool(q->options->n_threads, false, &q->pool, err);
}

/* ---- types --------------------------------------------------------------------------------------- */

static pl_recipe_params recipe_params(const quantizing *q)
{
    const pl_options *o = q->options;
    return (pl_recipe_params){.type = o->type ? o->type : DEFAULT_TYPE,
                              .pure = o->pure,
                              .importance = q->imatrix != NULL,
                              .overrides = o->tensor_types.items,
                              .n_overrides = o->tensor_types.n};
}

static pl_dtype type_of_most_bytes(const pl_export *e)
{
    int64_t bytes[64] = {0};
    int most = 0;
    for (size_t i = 0; i < e->n; i++)
        if (pl_fit_on_card(e, &e->tensors[i]))
            bytes[e->tensors[i].type & 63] += pl_fit_tensor_bytes(&e->tensors[i]);
    for (int type = 1; type < 64; type++)
        if (bytes[type] > bytes[most])
            most = type;
    return (pl_dtype)most;
}

/* What the types may take. */
typedef struct limits {
    int64_t card, reserved, table;
} limits;

/* The sizes that llama.cpp's recipe of the same class would have. */
static pl_status limits_of_recipe(const quantizing *q, limits *out, pl_error *err)
{
    pl_recipe_params recipe = recipe_params(q);
    uint32_t file_type;
    recipe.n_overrides = 0;
    PL_TRY(pl_recipe_apply(q->e, &recipe, &file_type, err));
    *out = (limits){.card = pl_fit_card_bytes(q->e)};
    for (size_t i = 0; i < q->e->n; i++)
        if (q->e->tensors[i].role == PL_ROLE_PLE_TABLE)
            out->table = pl_fit_tensor_bytes(&q->e->tensors[i]);
    return PL_OK;
}

static pl_status fit_pinned(quantizing *q, const limits *most, bool *pinned, pl_error *err)
{
    const pl_recipe_params recipe = recipe_params(q);
    pl_sensitivity measured;
    pl_fit_result result;
    PL_TRY(pl_recipe_override(q->e, recipe.overrides, recipe.n_overrides, pinned, err));
    if (q->options->sensitivity)
        PL_TRY(pl_sensitivity_read(q->options->sensitivity, &measured, err));
    const pl_fit_params params = {.pool = q->pool,
                                  .imatrix = q->imatrix,
                                  .sensitivity = q->options->sensitivity ? &measured : pl_sensitivity_default(),
                                  .card_bytes = most->card,
                                  .reserved_bytes = most->reserved,
                                  .table_bytes = most->table,
                                  .pinned = pinned,
                                  .progress = pl_progress_show,
                                  .progress_user = &q->progress,
                                  .cancelled = pl_interrupt_poll};
    pl_progress_start(&q->progress, "Trying types", NULL, 1, !q->options->quiet);
    pl_status status = pl_fit_types(q->e, &params, &result, err);
    pl_progress_finish(&q->progress);
    PL_TRY(status);
    if (q->options->sensitivity)
        q->report.predicted_loss = result.loss;
    q->file_type = pl_recipe_file_type(type_of_most_bytes(q->e));
    return PL_OK;
}

static pl_status fit(quantizing *q, const limits *most, pl_error *err)
{
    bool *pinned = calloc(q->e->n, sizeof *pinned);
    if (!pinned)
        return pl_fail_memory(err, q->e->n * sizeof *pinned, "types");
    pl_status status = fit_pinned(q, most, pinned, err);
    free(pinned);
    return status;
}

static pl_status choose_types(quantizing *q, pl_error *err)
{
    const pl_options *o = q->options;
    const pl_recipe_params recipe = recipe_params(q);
    limits most = {.card = o->fit, .reserved = q->report.card_kv + q->report.card_work};
    if (o->fit && (o->type || o->pure))
        return pl_fail(err, PL_ERR_ARGUMENT,
                       "--fit chooses the types itself: leave out --type and --pure, or fix single "
                       "tensors with --tensor-type");
    if (!o->fit && (o->pure || !pl_recipe_size_like(recipe.type))) {
        if (o->sensitivity)
            return pl_fail(err, PL_ERR_ARGUMENT, "--sensitivity goes with --fit and types q3 to q6, not with %s",
                           recipe.type);
        return pl_recipe_apply(q->e, &recipe, &q->file_type, err);
    }
    if (!o->fit)
        PL_TRY(limits_of_recipe(q, &most, err));
    return fit(q, &most, err);
}

/* Errors add up, and an importance matrix of the original would be better used on the original. */
static void warn_of_quantised_source(const quantizing *q)
{
    size_t n = 0;
    const char *type = NULL;
    for (size_t i = 0; i < q->e->n; i++) {
        const pl_export_tensor *t = &q->e->tensors[i];
        const pl_dtype_info *info = t->source ? pl_dtype_describe((int)t->source->type) : NULL;
        if (info && info->block_elems > 1 && !pl_export_is_copy(t)) {
            type = info->name;
            n++;
        }
    }
    if (n > 0)
        pl_console_note(q->options,
                        "%s: %zu tensors are quantised already (%s); the original model would give better "
                        "results",
                        q->options->model, n, type);
}

/* ---- writing ------------------------------------------------------------------------------------- */

static pl_status write_file(quantizing *q, pl_error *err)
{
    struct stat st;
    const pl_write_options params = {.pool = q->pool,
                                     .imatrix = q->imatrix,
                                     .file_type = q->file_type,
                                     .progress = pl_progress_show,
                                     .progress_user = &q->progress,
                                     .cancelled = pl_interrupt_poll,
                                     .errors = q->errors};
    pl_progress_start(&q->progress, "Quantising", "B", (double)pl_export_bytes(q->e), !q->options->quiet);
    pl_status status = pl_write_gguf(q->e, q->options->out_file, &params, err);
    pl_progress_finish(&q->progress);
    if (status == PL_OK && stat(q->options->out_file, &st) == 0 && S_ISREG(st.st_mode))
        q->report.file_bytes = st.st_size;
    return status;
}

static void plan_card(quantizing *q)
{
    pl_memory_plan plan;
    const pl_config *config = pl_checkpoint_config(q->checkpoint);
    int context = q->options->n_context < config->context ? q->options->n_context : config->context;
    pl_memory_plan_compute(q->checkpoint, context, STEP_ROWS, PL_CACHE_F32, &plan);
    q->report.context = context;
    q->report.card_kv = (int64_t)plan.kv;
    q->report.card_work = (int64_t)plan.work;
}

static pl_status quantize(quantizing *q, pl_error *err)
{
    double began = pl_clock_seconds();
    PL_TRY(start(q, err));
    plan_card(q);
    PL_TRY(choose_types(q, err));
    warn_of_quantised_source(q);
    q->report.e = q->e;
    q->report.card_weights = pl_fit_card_bytes(q->e);
    q->report.file_bytes = pl_export_bytes(q->e);
    if (!q->options->dry_run) {
        q->errors = calloc(q->e->n, sizeof *q->errors);
        if (!q->errors)
            return pl_fail_memory(err, q->e->n * sizeof *q->errors, "errors");
        PL_TRY(write_file(q, err));
        q->report.errors = q->errors;
    }
    q->report.seconds = pl_clock_seconds() - began;
    if (q->options->json)
        return pl_quantize_print_json(q->options, &q->report, err);
    if (!q->options->quiet || q->options->dry_run)
        pl_quantize_print(q->options, &q->report);
    return PL_OK;
}

pl_status pl_cmd_quantize(const pl_options *options, pl_error *err)
{
    quantizing q = {.options = options, .report = {.predicted_loss = NAN}};
    pl_interrupt_catch();
    pl_status status = quantize(&q, err);
    free(q.errors);
    pl_pool_free(q.pool);
    pl_imatrix_free(q.imatrix);
    pl_export_free(q.e);
    pl_checkpoint_close(q.checkpoint);
    return status;
}
