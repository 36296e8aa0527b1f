#include "tools/opened.h"

#include "host/base/progress.h"
#include "tools/console.h"

pl_engine_params pl_opened_params(const pl_options *options)
{
    return (pl_engine_params){
        .threads = options->n_threads,
        .context = options->n_context,
        .batch_rows = options->n_batch,
        .no_pin = options->no_pin,
    };
}

typedef struct loading {
    pl_progress progress;
    const char *what; /* the part that progress is about, NULL before the first */
    bool wanted;
} loading;

static void show_loading(void *user, const char *what, double fraction)
{
    loading *l = user;
    if (l->what != what) {
        if (l->what)
            pl_progress_finish(&l->progress);
        pl_progress_start(&l->progress, what, NULL, 1, l->wanted);
        l->what = what;
    }
    pl_progress_update(&l->progress, fraction);
}

static void describe(const pl_options *options, const pl_engine *engine)
{
    pl_engine_info info;
    pl_engine_describe(engine, &info);
    pl_console_detail(
        options,
        "%s, %d threads, context %d, %d rows a step; loaded in %.2f s: %.1f MB of weights in memory, %.1f MB "
        "in the file; peak memory %.1f MB",
        info.backend, info.threads, info.context, info.batch_rows, info.load_s, (double)info.weight_bytes / 1e6,
        (double)info.mapped_bytes / 1e6, (double)info.peak_bytes / 1e6);
}

pl_status pl_opened_engine(const pl_options *options, const pl_engine_params *params, pl_opened *opened, pl_error *err)
{
    loading l = {.wanted = !options->quiet};
    pl_engine_params with_progress = *params;
    with_progress.progress = show_loading;
    with_progress.progress_user = &l;
    pl_status status = pl_engine_create(opened->model, &with_progress, &opened->engine, err);
    if (l.what)
        pl_progress_finish(&l.progress);
    PL_TRY(status);
    describe(options, opened->engine);
    PL_TRY(pl_session_create(opened->engine, &opened->session, err));
    return options->path ? pl_session_set_path(opened->session, options->path, PL_SWITCH_EXACT, err) : PL_OK;
}

pl_status pl_opened_start(const pl_options *options, const pl_engine_params *params, pl_opened *out, pl_error *err)
{
    pl_status status;
    *out = (pl_opened){.model = NULL};
    PL_TRY_GOTO(pl_model_open(options->model, &out->model, err));
    PL_TRY_GOTO(pl_opened_engine(options, params, out, err));
    return PL_OK;
fail:
    pl_opened_free(out);
    return status;
}

void pl_opened_free(pl_opened *opened)
{
    pl_session_free(opened->session);
    pl_engine_free(opened->engine);
    pl_model_close(opened->model);
    *opened = (pl_opened){.model = NULL};
}
