/* pleiad sensitivity: what each part's precision is worth. */
#include <stdio.h>

#include "host/base/progress.h"
#include "host/measure/probe.h"
#include "tools/commands.h"
#include "tools/console.h"
#include "tools/interrupt.h"
#include "tools/measured_text.h"
#include "tools/opened.h"
#include "tools/slurp.h"

static pl_status cut_text(const pl_options *options, const pl_model *model, pl_passages *out, pl_error *err)
{
    pl_strbuf text = {.data = NULL};
    pl_status status = pl_slurp(options->file, &text, err);
    if (status == PL_OK)
        status = pl_measured_text_cut(options, model, &text, out, err);
    pl_strbuf_free(&text);
    return status;
}

static pl_status probe(const pl_options *options, const pl_opened *opened, const pl_passages *passages,
                       pl_sensitivity *out, pl_error *err)
{
    pl_progress progress;
    const char *whole = pl_session_path(opened->session);
    pl_probe_params params = {.passages = passages,
                              .paths = options->paths.n ? options->paths.items : &whole,
                              .n_paths = options->paths.n ? options->paths.n : 1,
                              .progress = pl_progress_show,
                              .user = &progress,
                              .cancelled = pl_interrupt_poll};
    pl_interrupt_catch();
    pl_progress_start(&progress, "probing", NULL, 1, !options->quiet);
    pl_status status = pl_probe_sensitivity(opened->engine, &params, out, err);
    pl_progress_finish(&progress);
    return status;
}

pl_status pl_cmd_sensitivity(const pl_options *options, pl_error *err)
{
    pl_status status;
    pl_opened opened = {.model = NULL};
    pl_passages passages = {.ids = NULL};
    pl_sensitivity found = {.model = ""};
    pl_engine_params params = pl_opened_params(options);
    PL_TRY_GOTO(pl_model_open(options->model, &opened.model, err));
    PL_TRY_GOTO(cut_text(options, opened.model, &passages, err));
    PL_TRY_GOTO(pl_opened_engine(options, &params, &opened, err));
    snprintf(found.model, sizeof found.model, "%s", options->model);
    snprintf(found.text, sizeof found.text, "%s, %d x %d tokens", pl_measured_text_name(options), passages.n,
             passages.length);
    PL_TRY_GOTO(probe(options, &opened, &passages, &found, err));
    PL_TRY_GOTO(pl_sensitivity_write(&found, options->out_file, err));
    pl_console_note(options, "%s: written", options->out_file);
fail:
    pl_passages_free(&passages);
    pl_opened_free(&opened);
    return status;
}
