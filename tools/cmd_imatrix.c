/* pleiad imatrix: which columns of each matrix matter, from a text or out of other such files. */
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "host/base/clock.h"
#include "host/base/outfile.h"
#include "host/base/progress.h"
#include "host/measure/collect.h"
#include "tools/commands.h"
#include "tools/console.h"
#include "tools/interrupt.h"
#include "tools/measured_text.h"
#include "tools/opened.h"
#include "tools/slurp.h"

#define SAVE_EVERY_S 30

static pl_status write_matrix(const pl_options *options, const pl_imatrix *m, pl_error *err)
{
    return options->imatrix_format == PL_IMATRIX_DAT ? pl_imatrix_write_dat(m, options->out_file, err)
                                                     : pl_imatrix_write_gguf(m, options->out_file, err);
}

/* ---- adding files ---- */

static pl_status add_file(pl_imatrix *m, const char *path, pl_error *err)
{
    pl_imatrix *file = NULL;
    PL_TRY(pl_imatrix_read(path, &file, err));
    pl_status status = pl_imatrix_add(m, file, path, err);
    pl_imatrix_free(file);
    return status;
}

/* What the --in-file options hold, in chunks of --ctx-size. */
static pl_status read_in_files(const pl_options *options, pl_imatrix **out, pl_error *err)
{
    pl_imatrix *m = NULL;
    pl_status status = PL_OK;
    PL_TRY(pl_imatrix_create(&m, err));
    m->chunk_size = options->n_context;
    for (size_t i = 0; i < options->in_files.n; i++)
        PL_TRY_GOTO(add_file(m, options->in_files.items[i], err));
    *out = m;
    return PL_OK;
fail:
    pl_imatrix_free(m);
    return status;
}

static pl_status merge(const pl_options *options, const pl_imatrix *added, pl_error *err)
{
    PL_TRY(write_matrix(options, added, err));
    pl_console_note(options, "%s: %zu tensors from %zu files", options->out_file, added->n, options->in_files.n);
    return PL_OK;
}

/* ---- collecting ---- */

typedef struct job {
    const pl_options *options;
    pl_imatrix *added; /* of the --in-file options */
    pl_opened opened;
    pl_passages passages;
    pl_collector *collector;
    pl_progress progress;
    double saved; /* when */
} job;

/* The file holds what was added as well, and apart from it what this run alone collected, to go on with. */
static pl_status save(job *j, pl_error *err)
{
    const pl_imatrix *own = pl_collector_matrix(j->collector);
    pl_imatrix *all = NULL;
    pl_status status = PL_OK;
    j->saved = pl_clock_seconds();
    if (j->options->in_files.n == 0)
        return write_matrix(j->options, own, err);
    PL_TRY(pl_imatrix_create(&all, err));
    PL_TRY_GOTO(pl_imatrix_add(all, own, "this run", err));
    PL_TRY_GOTO(pl_imatrix_add(all, j->added, "what --in-file adds", err));
    all->run = own->run;
    PL_TRY_GOTO(write_matrix(j->options, all, err));
fail:
    pl_imatrix_free(all);
    return status;
}

static pl_status resume(job *j, pl_error *err)
{
    const char *path = j->options->out_file;
    pl_imatrix *file = NULL;
    if (access(path, F_OK) != 0) {
        pl_console_note(j->options, "%s is not there yet: starting from the beginning", path);
        return PL_OK;
    }
    PL_TRY(pl_imatrix_read(path, &file, err));
    pl_status status = pl_collector_resume(j->collector, file, path, err);
    pl_imatrix_free(file);
    return status;
}

static pl_status stopped(job *j, pl_error *err)
{
    int32_t done = pl_collector_done(j->collector), total = pl_collector_total(j->collector);
    pl_progress_finish(&j->progress);
    if (done == 0) {
        pl_console_note(j->options, "stopped before the first piece was read; nothing was written");
        return PL_ERR_CANCELLED;
    }
    PL_TRY(save(j, err));
    pl_console_note(j->options, "stopped after %d of %d pieces; %s holds them%s", done, total, j->options->out_file,
                    j->options->imatrix_format == PL_IMATRIX_DAT ? "" : ": the same command with --resume goes on");
    return PL_ERR_CANCELLED;
}

static pl_status read_passages(job *j, pl_error *err)
{
    int32_t first = pl_collector_done(j->collector), total = pl_collector_total(j->collector);
    pl_progress_start(&j->progress, "reading", "tokens", (double)(total - first) * j->passages.length,
                      !j->options->quiet);
    j->saved = pl_clock_seconds();
    while (pl_collector_done(j->collector) < total) {
        pl_status status = pl_collector_next(j->collector, err);
        if (status == PL_ERR_CANCELLED || (status == PL_OK && pl_interrupt_pending()))
            return stopped(j, err);
        PL_TRY(status);
        pl_progress_update(&j->progress, (double)(pl_collector_done(j->collector) - first) * j->passages.length);
        if (pl_clock_seconds() - j->saved >= SAVE_EVERY_S)
            PL_TRY(save(j, err));
    }
    pl_progress_finish(&j->progress);
    return save(j, err);
}

static pl_status open_model(job *j, pl_error *err)
{
    const pl_options *options = j->options;
    pl_engine_params params = pl_opened_params(options);
    pl_strbuf text = {.data = NULL};
    pl_status status = PL_OK;
    PL_TRY_GOTO(pl_slurp(options->file, &text, err));
    PL_TRY_GOTO(pl_model_open(options->model, &j->opened.model, err));
    PL_TRY_GOTO(pl_measured_text_cut(options, j->opened.model, &text, &j->passages, err));
    PL_TRY_GOTO(pl_opened_engine(options, &params, &j->opened, err));
fail:
    pl_strbuf_free(&text);
    return status;
}

static pl_status collect(job *j, pl_error *err)
{
    const pl_options *options = j->options;
    PL_TRY(open_model(j, err));
    PL_TRY(pl_collector_create(j->opened.session, &j->passages, pl_measured_text_name(options), options->paths.items,
                               options->paths.n, &j->collector, err));
    if (options->resume)
        PL_TRY(resume(j, err));
    int32_t total = pl_collector_total(j->collector);
    if (pl_collector_done(j->collector) == total) {
        pl_console_note(options, "%s is complete: all %d pieces were read", options->out_file, total);
        return PL_OK;
    }
    pl_interrupt_catch();
    pl_interrupt_watch(j->opened.session);
    pl_status status = read_passages(j, err);
    pl_progress_finish(&j->progress);
    pl_interrupt_watch(NULL);
    PL_TRY(status);
    pl_console_note(options, "%s: %d pieces of %d tokens", options->out_file, total, j->passages.length);
    return PL_OK;
}

/* ---- the command ---- */

static pl_status check_options(const pl_options *o, pl_error *err)
{
    if (!o->file && o->in_files.n == 0)
        return pl_fail(err, PL_ERR_ARGUMENT,
                       "nothing to collect from: give a model and a text (--model, --file), or files to add up "
                       "(--in-file)");
    if (o->file && !o->model)
        return pl_fail(err, PL_ERR_ARGUMENT, "--file needs a model to read it with (--model)");
    if (!o->file && o->resume)
        return pl_fail(err, PL_ERR_ARGUMENT, "--resume needs the model and the text (--model, --file)");
    if (!o->file && o->paths.n > 0)
        return pl_fail(err, PL_ERR_ARGUMENT, "--path needs the model and the text (--model, --file)");
    if (o->resume && o->imatrix_format == PL_IMATRIX_DAT)
        return pl_fail(err, PL_ERR_ARGUMENT,
                       "--resume needs --output-format gguf: a .dat holds means only and not what they are of");
    if (o->file && o->chunks == 0)
        return pl_fail(err, PL_ERR_ARGUMENT, "--chunks 0 leaves nothing to read");
    for (size_t i = 0; o->file && i < o->in_files.n; i++)
        if (strcmp(o->in_files.items[i], o->out_file) == 0)
            return pl_fail(err, PL_ERR_ARGUMENT, "%s cannot be added to itself (--in-file, --out)", o->out_file);
    return PL_OK;
}

/* Told now rather than in hours. */
static pl_status check_out_file(const char *path, pl_error *err)
{
    pl_outfile out;
    PL_TRY(pl_outfile_open(path, &out, err));
    pl_outfile_abort(&out);
    return PL_OK;
}

pl_status pl_cmd_imatrix(const pl_options *options, pl_error *err)
{
    pl_status status;
    job j = {.options = options};
    PL_TRY(check_options(options, err));
    PL_TRY(check_out_file(options->out_file, err));
    PL_TRY(read_in_files(options, &j.added, err));
    PL_TRY_GOTO(options->file ? collect(&j, err) : merge(options, j.added, err));
fail:
    pl_collector_free(j.collector);
    pl_passages_free(&j.passages);
    pl_opened_free(&j.opened);
    pl_imatrix_free(j.added);
    return status;
}
