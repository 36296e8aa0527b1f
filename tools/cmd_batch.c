/* pleiad batch: a file of requests, each answered exactly once, on all ranks that mpirun or srun has started.
 *
 *     rank 0   has the lines and their results: input, results, dealer, report
 *     all      have the model, engines and a worker; the crew brings lines and takes results where there is more than one */
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "host/base/clock.h"
#include "host/base/outfile.h"
#include "host/base/strbuf.h"
#include "host/base/topology.h"
#include "host/batch/answered.h"
#include "host/batch/crew.h"
#include "host/batch/deadline.h"
#include "host/batch/model_share.h"
#include "host/batch/record.h"
#include "host/batch/worker.h"
#include "tools/batch_engines.h"
#include "tools/batch_report.h"
#include "tools/commands.h"
#include "tools/console.h"
#include "tools/loading.h"
#include "tools/opened.h"
#include "tools/signals.h"

enum { EXIT_FAILED = 1 };

typedef struct job {
    pl_options options; /* a copy: only rank 0 speaks */
    char *name;         /* of the model */
    char *settings;     /* what results depend on beside the requests */
    double begin;
    pl_signals *signals;
    pl_ranks *ranks; /* NULL: there is one */
    bool joined;     /* its crew is there */
    bool broken;     /* some of its ranks are missing */
    bool answered;   /* rank 0 has found all results there */
    pl_shared_file file, mmproj;
    pl_model *model;

    pl_input *input; /* rank 0's, as are those below */
    pl_results *results;
    pl_dealer *dealer;
    pl_batch_report *report;
    _Atomic(pl_deadline *) deadline; /* NULL: none, or not known yet */

    pl_crew *crew; /* NULL: there is one rank */
    pl_batch_engines engines;
    pl_worker *_Atomic worker;
    _Atomic bool stopped; /* by a signal, or by rank 0 */
} job;

static bool is_first(const job *j)
{
    return !j->ranks || j->ranks->rank == 0;
}

/* ---- the model --------------------------------------------------------------------------------- */

static pl_status check_options(const pl_options *options, pl_error *err)
{
    if (options->alias && !*options->alias)
        return pl_fail(err, PL_ERR_ARGUMENT, "--alias takes a name");
    if (options->resume && options->overwrite)
        return pl_fail(err, PL_ERR_ARGUMENT, "--resume goes on, --overwrite begins anew: not both");
    if (options->deadline > 0 && options->path)
        return pl_fail(err, PL_ERR_ARGUMENT, "--deadline chooses the path: not with --path %s", options->path);
    if (pl_same_file(options->in_file, options->out_file))
        return pl_fail(err, PL_ERR_ARGUMENT, "--out %s is the file of requests", options->out_file);
    return PL_OK;
}

static pl_status open_file(job *j, const char *path, pl_shared_file *out, pl_error *err)
{
    pl_loading loading = {.wanted = !j->options.quiet};
    pl_status status = pl_share_file(j->ranks, path, (pl_share_how)j->options.share, pl_loading_show, &loading, out,
                                     err);
    pl_loading_end(&loading);
    return status;
}

static pl_status open_model(job *j, pl_error *err)
{
    const char *path = j->options.model, *mmproj = j->options.mmproj;
    if (j->ranks) {
        PL_TRY(open_file(j, path, &j->file, err));
        path = j->file.path;
    }
    if (j->ranks && mmproj) {
        PL_TRY(open_file(j, mmproj, &j->mmproj, err));
        mmproj = j->mmproj.path;
    }
    PL_TRY(pl_model_open(path, &j->model, err));
    if (mmproj)
        PL_TRY(pl_model_add_towers(j->model, mmproj, err));
    if (j->options.draft_path)
        PL_TRY(pl_model_check_path(j->model, j->options.draft_path, err));
    return j->options.path ? pl_model_check_path(j->model, j->options.path, err) : PL_OK;
}

/* ---- the lines --------------------------------------------------------------------------------- */

static void note(void *user, const char *text)
{
    const job *j = user;
    pl_console_note(&j->options, "%s", text);
}

/* What results depend on beside the requests themselves. */
static pl_status tell_settings(job *j, pl_error *err)
{
    const pl_options *o = &j->options;
    const pl_sampling *s = &o->sampling;
    pl_strbuf text = {0};
    pl_strbuf_printf(&text, "model %s (%016llx), ", j->name, (unsigned long long)pl_model_fingerprint(j->model));
    if (o->deadline > 0)
        pl_strbuf_add_text(&text, "paths by a deadline");
    else
        pl_strbuf_printf(&text, "path %s", o->path ? o->path : pl_model_path(j->model, 0));
    pl_strbuf_printf(&text, ", context %d, max-tokens %d, cache %d", o->n_context, o->max_tokens, o->cache_type);
    if (o->fast_prompts)
        pl_strbuf_add_text(&text, ", fast prompts");
    pl_strbuf_printf(&text, ", temp %g, top-k %d, top-p %g, min-p %g, typical %g", (double)s->temperature, s->top_k,
                     (double)s->top_p, (double)s->min_p, (double)s->typical_p);
    pl_strbuf_printf(&text, ", penalties %g %g %g over %d", (double)s->repeat_penalty, (double)s->presence_penalty,
                     (double)s->frequency_penalty, s->penalty_last_n);
    pl_strbuf_printf(&text, ", dry %g %g %d %d", (double)s->dry_multiplier, (double)s->dry_base, s->dry_allowed_length,
                     s->dry_last_n);
    for (size_t i = 0; i < s->n_dry_breakers; i++)
        pl_strbuf_printf(&text, " '%s'", s->dry_breakers[i]);
    pl_strbuf_add_text(&text, ", samplers");
    for (int i = 0; i < PL_SAMPLER_STEPS && s->order[i] != PL_SAMPLER_END; i++)
        pl_strbuf_printf(&text, " %d", (int)s->order[i]);
    return pl_strbuf_take(&text, &j->settings, NULL, err);
}

static pl_status index_input(job *j, pl_error *err)
{
    pl_pool *pool;
    pl_loading loading = {.wanted = !j->options.quiet};
    PL_TRY(pl_topology_pool(j->options.n_threads, false, &pool, err));
    pl_input_params params = {.path = j->options.in_file,
                              .most_bytes = (size_t)j->options.max_body,
                              .pool = pool,
                              .progress = pl_loading_show,
                              .progress_user = &loading};
    pl_status status = pl_input_open(&params, &j->input, err);
    pl_loading_end(&loading);
    pl_pool_free(pool);
    return status;
}

static pl_status open_results(job *j, pl_error *err)
{
    pl_loading loading = {.wanted = !j->options.quiet};
    pl_results_params params = {.out = j->options.out_file,
                                .fingerprint = pl_input_fingerprint(j->input),
                                .lines = pl_input_lines(j->input),
                                .settings = j->settings,
                                .overwrite = j->options.overwrite,
                                .answered = j->answered,
                                .note = note,
                                .note_user = j,
                                .progress = pl_loading_show,
                                .progress_user = &loading};
    pl_status status = pl_results_open(&params, &j->results, err);
    pl_loading_end(&loading);
    PL_TRY(status);
    pl_results_stats found = pl_results_count(j->results);
    if (j->answered)
        pl_console_note(&j->options, "%s: has a result for each request already; --overwrite does them again",
                        j->options.out_file);
    else if (found.kept)
        pl_console_note(&j->options, "going on: %lld of %lld results are there", (long long)found.kept,
                        (long long)found.lines);
    return PL_OK;
}

/* Until engines are there, and the paths known, lines go to the fastest. */
static const char *choose_path(void *user, int64_t line)
{
    job *j = user;
    const char *path = "";
    pl_deadline *deadline = atomic_load(&j->deadline);
    if (deadline)
        return pl_deadline_choose(deadline, line, pl_clock_seconds());
    for (size_t i = 0; pl_model_path(j->model, i); i++)
        path = pl_model_path(j->model, i);
    return path;
}

static void count_done(void *user, int64_t line)
{
    job *j = user;
    pl_deadline *deadline = atomic_load(&j->deadline);
    if (deadline)
        pl_deadline_done(deadline, line, pl_clock_seconds());
}

static pl_status open_lines(job *j, pl_error *err)
{
    uint64_t seed = pl_record_seed(j->settings);
    PL_TRY(index_input(j, err));
    if (!j->options.overwrite)
        PL_TRY(pl_batch_is_answered(j->options.out_file, j->input, seed, &j->answered, err));
    PL_TRY(open_results(j, err));
    pl_dealer_params params = {
        .input = j->input, .results = j->results, .ranks = j->ranks ? j->ranks->size : 1, .seed = seed, .user = j};
    if (j->options.deadline > 0) {
        params.choose = choose_path;
        params.done = count_done;
    }
    return pl_dealer_create(&params, &j->dealer, err);
}

static pl_status plan_deadline(job *j, pl_error *err)
{
    pl_deadline_path paths[PL_DEADLINE_PATHS];
    pl_deadline *deadline;
    int32_t n;
    if (j->options.deadline <= 0 || !j->dealer)
        return PL_OK;
    pl_dealer_stats stats = pl_dealer_count(j->dealer);
    PL_TRY(pl_deadline_find_paths(j->model, j->engines.items[0], paths, &n, err));
    pl_deadline_params params = {.paths = paths,
                                 .n_paths = n,
                                 .lines = stats.results.lines,
                                 .left = stats.left + stats.under_way,
                                 .now_s = pl_clock_seconds(),
                                 .end_s = j->begin + (double)j->options.deadline};
    PL_TRY(pl_deadline_create(&params, &deadline, err));
    atomic_store(&j->deadline, deadline);
    return PL_OK;
}

/* ---- the end before the end -------------------------------------------------------------------- */

static void stop_worker(void *user)
{
    job *j = user;
    atomic_store(&j->stopped, true);
    pl_worker *worker = atomic_load(&j->worker);
    if (worker)
        pl_worker_stop(worker);
}

/* A signal: what is done is kept. */
static void stop(void *user)
{
    job *j = user;
    pl_error why;
    pl_fail(&why, PL_ERR_CANCELLED, "stopped by a signal");
    if (j->dealer)
        pl_dealer_stop(j->dealer, NULL);
    else
        pl_crew_cannot_work(j->crew, &why);
    stop_worker(j);
}

static void say(void *user, const char *message)
{
    note(user, message);
}

/* ---- the work ---------------------------------------------------------------------------------- */

static pl_status join_crew(job *j, const pl_crew_desk *desk, pl_error *err)
{
    pl_crew_params params = {.ranks = j->ranks,
                             .desk = desk,
                             .lost_after_s = (double)j->options.lost_after,
                             .say = say,
                             .stop = stop_worker,
                             .user = j};
    PL_TRY(pl_crew_create(&params, &j->crew, err));
    j->joined = true;
    return PL_OK;
}

static pl_status begin_report(job *j, pl_error *err)
{
    pl_batch_report_params params = {.options = &j->options,
                                     .dealer = j->dealer,
                                     .results = j->results,
                                     .crew = j->crew,
                                     .engines = j->engines.n,
                                     .answered = j->answered,
                                     .energy = !j->ranks || j->ranks->n_local == j->ranks->size};
    return pl_batch_report_begin(&params, &j->report, err);
}

static pl_status make_worker(job *j, pl_error *err)
{
    const pl_options *options = &j->options;
    pl_worker *worker;
    PL_TRY(pl_batch_engines_make(options, j->model, j->ranks, &j->engines, err));
    PL_TRY(plan_deadline(j, err));
    pl_worker_params params = {
        .model = j->model,
        .engines = j->engines.items,
        .n_engines = j->engines.n,
        .service = {.name = j->name,
                    .path = options->path ? options->path : pl_model_path(j->model, 0),
                    .max_tokens = options->max_tokens,
                    .sampling = options->sampling,
                    .draft = {.most = options->draft, .path = options->draft_path},
                    .media_urls = options->allow_media_urls,
                    .any_model = !options->alias},
        .source = j->crew ? pl_crew_source(j->crew) : pl_dealer_source(j->dealer),
        .seed = pl_record_seed(j->settings),
    };
    PL_TRY(pl_worker_create(&params, &worker, err));
    atomic_store(&j->worker, worker);
    return PL_OK;
}

/* The report is of all ranks' work: it begins also where rank 0 itself cannot work. */
static pl_status work_here(job *j, pl_error *err)
{
    pl_status made = make_worker(j, err);
    if (is_first(j) && (made == PL_OK || j->crew))
        PL_TRY(begin_report(j, made == PL_OK ? err : NULL));
    PL_TRY(made);
    if (atomic_load(&j->stopped))
        return pl_fail(err, PL_ERR_CANCELLED, "stopped");
    return pl_worker_run(j->worker, err);
}

/* With a crew the job goes on without this rank, unless it was the last. */
static pl_status work(job *j, pl_error *err)
{
    pl_error why = {.message = ""};
    pl_status status = work_here(j, &why);
    if (j->crew) {
        if (status != PL_OK)
            pl_crew_cannot_work(j->crew, &why);
        return pl_crew_end(j->crew, &j->broken, err);
    }
    pl_status outcome = pl_dealer_error(j->dealer, err);
    if (outcome == PL_OK && status != PL_OK && err)
        *err = why;
    return outcome == PL_OK ? status : outcome;
}

static pl_status run(job *j, pl_error *err)
{
    pl_crew_desk desk;
    PL_TRY(open_model(j, err));
    PL_TRY(tell_settings(j, err));
    if (is_first(j)) {
        PL_TRY(open_lines(j, err));
        desk = pl_dealer_desk(j->dealer);
    }
    if (j->ranks)
        PL_TRY(join_crew(j, is_first(j) ? &desk : NULL, err));
    pl_signals_set(j->signals, stop, j);
    pl_status status = work(j, err);
    pl_signals_set(j->signals, NULL, NULL);
    pl_batch_report_end(j->report);
    return status;
}

/* ---- the end ----------------------------------------------------------------------------------- */

static void tell_what_is_left(const job *j)
{
    pl_results_stats stats = pl_results_count(j->results);
    pl_console_note(&j->options, "%lld of %lld results are kept; the same command goes on", (long long)stats.done,
                    (long long)stats.lines);
}

static pl_status finish(job *j, pl_error *err)
{
    PL_TRY(pl_results_finish(j->results, j->options.ordered, err));
    if (j->report && (!j->answered || j->options.json))
        pl_batch_report_summary(j->report);
    return PL_OK;
}

/* Who uses something goes before it. */
static void release(job *j)
{
    pl_batch_report_free(j->report);
    pl_crew_free(j->crew);
    pl_worker_free(atomic_load(&j->worker));
    pl_batch_engines_free(&j->engines);
    pl_dealer_free(j->dealer);
    pl_deadline_free(atomic_load(&j->deadline));
    pl_input_free(j->input);
    pl_model_close(j->model);
}

/* Where ranks are missing, or one has not even begun, the others would wait for ever: they are ended. */
static void leave_ranks(job *j, const pl_error *err)
{
    if (!j->ranks)
        return;
    if (j->broken || !j->joined) {
        if (*err->message && (is_first(j) || !j->joined))
            pl_console_error(&j->options, err);
        pl_results_close(j->results);
        j->ranks->abort(j->ranks, EXIT_FAILED);
    }
    pl_shared_file_close(&j->mmproj);
    pl_shared_file_close(&j->file);
    j->ranks->close(j->ranks);
}

static pl_status end(job *j, pl_status status, pl_error *err)
{
    bool first = is_first(j);
    if (status == PL_OK && first)
        status = finish(j, err);
    if (status != PL_OK && j->results)
        tell_what_is_left(j);
    release(j);
    if (status == PL_OK && first && j->broken) /* nothing comes after the ranks' end */
        status = pl_results_forget(j->results, err);
    leave_ranks(j, err);
    if (status == PL_OK && first)
        status = pl_results_forget(j->results, err);
    pl_results_close(j->results);
    pl_signals_end(j->signals);
    free(j->settings);
    free(j->name);
    return first ? status : PL_OK; /* rank 0 says how it ended */
}

pl_status pl_cmd_batch(const pl_options *options, pl_error *err)
{
    pl_status status;
    pl_error own = {.message = ""};
    job j = {.options = *options, .name = pl_opened_name(options), .begin = pl_clock_seconds()};
    signal(SIGPIPE, SIG_IGN);
    signal(SIGXFSZ, SIG_IGN);
    if (!j.name)
        return pl_fail_memory(err, strlen(options->model), "name");
    PL_TRY_GOTO(check_options(options, &own));
    PL_TRY_GOTO(pl_signals_begin(&j.signals, &own));
    PL_TRY_GOTO(pl_ranks_open(pl_launched_processes(), (double)options->lost_after, &j.ranks, &own));
    j.options.quiet = options->quiet || !is_first(&j);
    status = run(&j, &own);
fail:
    status = end(&j, status, &own);
    if (status != PL_OK && err)
        *err = own;
    return status;
}
