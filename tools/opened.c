#include "tools/opened.h"

#include <float.h>
#include <string.h>
#include <unistd.h>

#include "host/base/timeline.h"
#include "tools/answer_grammar.h"
#include "tools/console.h"
#include "tools/loading.h"
#include "tools/media_shown.h"

/* Sensitivities are measured by exchanging weights of a running engine, which only the CPU's takes. */
static pl_backend_kind backend_of(const pl_options *options)
{
    if (options->command == PL_COMMAND_SENSITIVITY ||
        (options->backend == PL_BACKEND_AUTO && options->n_gpu_layers == 0))
        return PL_BACKEND_CPU;
    return (pl_backend_kind)options->backend;
}

pl_engine_params pl_opened_params(const pl_options *options)
{
    return (pl_engine_params){
        .backend = backend_of(options),
        .device = options->device,
        .tp = options->tp,
        .ple = (pl_ple_placement)options->ple,
        .cache = (pl_cache_type)options->cache_type,
        .sessions = options->command == PL_COMMAND_SENSITIVITY ? 3 : 1, /* it compares two of its own */
        .threads = options->n_threads,
        .context = options->n_context,
        .batch_rows = options->n_batch,
        .keep_towers_s = options->keep_towers == 0 ? DBL_MIN : options->keep_towers, /* 0 would be the default */
        .no_pin = options->no_pin,
        .fast_prompts = options->fast_prompts,
    };
}

char *pl_opened_name(const pl_options *options)
{
    if (options->alias)
        return strdup(options->alias);
    size_t n = strlen(options->model);
    while (n > 1 && options->model[n - 1] == '/')
        n--;
    size_t from = n;
    while (from > 0 && options->model[from - 1] != '/')
        from--;
    if (n - from > 5 && strncmp(options->model + n - 5, ".gguf", 5) == 0)
        n -= 5;
    return strndup(options->model + from, n - from);
}

/* Why it is not a card that computes, for those who wait in front of a terminal. */
static void tell_placement(const pl_options *options, const pl_engine_info *info)
{
    bool waits = (options->command == PL_COMMAND_RUN || options->command == PL_COMMAND_SERVE) &&
                 info->kind == PL_BACKEND_CPU && isatty(STDERR_FILENO);
    if (!info->placement || !*info->placement)
        return;
    if (waits)
        pl_console_note(options, "%s", info->placement);
    else
        pl_console_detail(options, "%s", info->placement);
}

static void describe(const pl_options *options, const pl_engine *engine)
{
    pl_engine_info info;
    pl_engine_describe(engine, &info);
    tell_placement(options, &info);
    pl_console_detail(
        options,
        "%s, %d threads, context %d, %d rows a step; loaded in %.2f s: %.1f MB of weights in memory, %.1f MB "
        "in the file; peak memory %.1f MB",
        info.backend, info.threads, info.context, info.batch_rows, info.load_s, (double)info.weight_bytes / 1e6,
        (double)info.mapped_bytes / 1e6, (double)info.peak_bytes / 1e6);
}

void pl_opened_tell_rows(const pl_options *options, const pl_engine *engine)
{
    pl_engine_info info;
    pl_engine_describe(engine, &info);
    if (info.ple_rows > 0)
        pl_console_detail(options, "per-layer table: %llu rows brought to the card, %.1f %% of them from the cache",
                          (unsigned long long)info.ple_rows, 100.0 * (double)info.ple_hits / (double)info.ple_rows);
}

pl_status pl_opened_engine(const pl_options *options, const pl_engine_params *params, pl_opened *opened, pl_error *err)
{
    pl_loading l = {.wanted = !options->quiet};
    pl_engine_params with_progress = *params;
    with_progress.progress = pl_loading_show;
    with_progress.progress_user = &l;
    with_progress.timeline = opened->timeline;
    double begin = pl_timeline_now(opened->timeline);
    pl_status status = pl_engine_create(opened->model, &with_progress, &opened->engine, err);
    pl_timeline_end(opened->timeline, PL_TIMELINE_MAIN, "create engine", begin);
    pl_loading_end(&l);
    PL_TRY(status);
    describe(options, opened->engine);
    if (options->command == PL_COMMAND_SERVE)
        return PL_OK; /* the scheduler has sessions of its own */
    PL_TRY(pl_session_create(opened->engine, &opened->session, err));
    return options->path ? pl_session_set_path(opened->session, options->path, PL_SWITCH_EXACT, err) : PL_OK;
}

static void close_model(pl_opened *opened)
{
    pl_session_free(opened->session);
    pl_grammar_free(opened->grammar);
    pl_engine_free(opened->engine);
    pl_model_close(opened->model);
    opened->session = NULL;
    opened->grammar = NULL;
    opened->engine = NULL;
    opened->model = NULL;
}

pl_status pl_opened_model(const pl_options *options, pl_opened *out, pl_error *err)
{
    PL_TRY(pl_model_open(options->model, &out->model, err));
    return options->mmproj ? pl_model_add_towers(out->model, options->mmproj, err) : PL_OK;
}

pl_status pl_opened_start(const pl_options *options, const pl_engine_params *params, pl_opened *out, pl_error *err)
{
    pl_status status;
    double begin = pl_timeline_now(out->timeline);
    PL_TRY_GOTO(pl_opened_model(options, out, err));
    pl_timeline_end(out->timeline, PL_TIMELINE_MAIN, "open model", begin);
    PL_TRY_GOTO(pl_showing_check(options, out->model, err));
    PL_TRY_GOTO(pl_answer_grammar(options, out->model, &out->grammar, err));
    PL_TRY_GOTO(pl_opened_engine(options, params, out, err));
    return PL_OK;
fail:
    close_model(out);
    return status;
}

pl_status pl_opened_trace(const pl_options *options, pl_opened *out, pl_error *err)
{
    if (!options->trace)
        return PL_OK;
    PL_TRY(pl_outfile_open(options->trace, &out->trace, err));
    return pl_timeline_create(0, &out->timeline, err);
}

pl_status pl_opened_write_trace(const pl_options *options, pl_opened *opened, pl_error *err)
{
    if (!opened->timeline)
        return PL_OK;
    PL_TRY(pl_timeline_print(opened->timeline, opened->trace.file, options->trace, err));
    return pl_outfile_commit(&opened->trace, err);
}

void pl_opened_free(pl_opened *opened)
{
    close_model(opened);
    pl_timeline_free(opened->timeline);
    pl_outfile_abort(&opened->trace);
    *opened = (pl_opened){.model = NULL};
}
