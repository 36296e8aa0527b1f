/* pleiad bench: prompt and generation speed. Prompts are random tokens; a prompt's time ends with the first token
 * after it, generation counts the tokens after that one. */
#include <stdlib.h>
#include <string.h>

#include "host/base/bandwidth.h"
#include "host/base/progress.h"
#include "host/base/rng.h"
#include "host/base/timeline.h"
#include "tools/bench_report.h"
#include "tools/commands.h"
#include "tools/console.h"
#include "tools/opened.h"

#define SEED 1

typedef struct bench {
    const pl_options *options;
    pl_opened opened;
    pl_engine_info info;
    pl_bench_report report;
    pl_progress progress;
    int32_t *prompt; /* longest_prompt random ids */
    double *rates;   /* [repetitions] */
    double bandwidth;
    double done; /* runs, for progress */
} bench;

static int32_t greatest(const pl_int_list *list)
{
    int32_t most = 0;
    for (size_t i = 0; i < list->n; i++)
        most = list->items[i] > most ? list->items[i] : most;
    return most;
}

static pl_status make_prompt(bench *b, pl_error *err)
{
    size_t n = (size_t)greatest(&b->options->bench_prompts) + 1;
    pl_rng rng;
    b->prompt = malloc(n * sizeof *b->prompt);
    b->rates = calloc((size_t)b->options->repetitions, sizeof *b->rates);
    if (!b->prompt || !b->rates)
        return pl_fail_memory(err, n * sizeof *b->prompt, "prompt");
    pl_rng_seed(&rng, SEED);
    for (size_t i = 0; i < n; i++)
        b->prompt[i] = (int32_t)(pl_rng_uniform(&rng) * pl_model_vocab_size(b->opened.model));
    return PL_OK;
}

/* ---- one measurement ---------------------------------------------------------------------------- */

/* Reads n_prompt tokens, or generates n_gen; *rate: tokens a second. */
static pl_status run_once(const bench *b, int32_t n_prompt, int32_t n_gen, double *rate, pl_error *err)
{
    pl_generated made;
    pl_generation params = pl_generation_default();
    params.sampling.temperature = 0;
    params.ignore_eos = true;
    params.max_tokens = n_gen ? n_gen + 1 : 0;
    PL_TRY(pl_session_truncate(b->opened.session, 0, err));
    PL_TRY(pl_generate(b->opened.session, b->prompt, n_gen ? 1 : (size_t)n_prompt, &params, &made, err));
    *rate = n_gen ? (double)(made.n_tokens - 1) / made.generate_s : (double)n_prompt / made.prompt_s;
    return PL_OK;
}

static int rising(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static const char *base_name(const char *path)
{
    const char *slash = strrchr(path, '/');
    return slash && slash[1] ? slash + 1 : path;
}

static pl_status measure(bench *b, int32_t n_prompt, int32_t n_gen, pl_error *err)
{
    size_t n = (size_t)b->options->repetitions;
    double warm_up;
    PL_TRY(run_once(b, n_prompt, n_gen, &warm_up, err));
    for (size_t i = 0; i < n; i++) {
        double begin = pl_timeline_now(b->opened.timeline);
        PL_TRY(run_once(b, n_prompt, n_gen, &b->rates[i], err));
        pl_timeline_end(b->opened.timeline, PL_TIMELINE_MAIN, n_gen ? "repetition: answer" : "repetition: prompt",
                        begin);
        pl_progress_update(&b->progress, ++b->done);
    }
    qsort(b->rates, n, sizeof *b->rates, rising);
    pl_bench_result result = {
        .model = base_name(b->options->model),
        .backend = b->info.backend,
        .ple = b->info.ple ? pl_ple_placement_name(b->info.ple) : NULL,
        .path = pl_session_path(b->opened.session),
        .threads = b->info.threads,
        .batch_rows = b->info.batch_rows,
        .model_bytes = b->info.weight_bytes + b->info.mapped_bytes,
        .n_prompt = n_prompt,
        .n_gen = n_gen,
        .rates = b->rates,
        .n = n,
        .token_bytes = pl_session_token_bytes(b->opened.session),
        .bandwidth = b->bandwidth,
    };
    pl_progress_finish(&b->progress);
    pl_bench_report_add(&b->report, &result);
    return pl_console_flush(err);
}

/* ---- all of them -------------------------------------------------------------------------------- */

static pl_status bench_path(bench *b, const char *path, pl_error *err)
{
    const pl_int_list *prompts = &b->options->bench_prompts, *gens = &b->options->bench_predicts;
    if (path)
        PL_TRY(pl_session_set_path(b->opened.session, path, PL_SWITCH_EXACT, err));
    for (size_t i = 0; i < prompts->n; i++)
        if (prompts->items[i])
            PL_TRY(measure(b, prompts->items[i], 0, err));
    for (size_t i = 0; i < gens->n; i++)
        if (gens->items[i])
            PL_TRY(measure(b, 0, gens->items[i], err));
    return PL_OK;
}

static void close_engine(bench *b)
{
    pl_session_free(b->opened.session);
    pl_engine_free(b->opened.engine);
    b->opened.session = NULL;
    b->opened.engine = NULL;
}

static pl_status bench_threads(bench *b, int32_t threads, pl_error *err)
{
    int32_t prompt = greatest(&b->options->bench_prompts), gen = greatest(&b->options->bench_predicts) + 2;
    pl_engine_params params = pl_opened_params(b->options);
    params.threads = threads;
    params.context = prompt + 1 > gen ? prompt + 1 : gen;
    PL_TRY(pl_opened_engine(b->options, &params, &b->opened, err));
    pl_engine_describe(b->opened.engine, &b->info);
    if (gen > 2 && b->info.kind != PL_BACKEND_CUDA) { /* a card reads its own memory */
        PL_TRY(pl_bandwidth_read(b->info.threads, b->options->no_pin, &b->bandwidth, err));
        pl_console_detail(b->options, "%d threads read %.1f GB/s from memory", b->info.threads, b->bandwidth / 1e9);
    }
    if (b->options->paths.n == 0)
        PL_TRY(bench_path(b, NULL, err));
    for (size_t i = 0; i < b->options->paths.n; i++)
        PL_TRY(bench_path(b, b->options->paths.items[i], err));
    close_engine(b);
    return PL_OK;
}

static size_t count_tests(const pl_int_list *list)
{
    size_t n = 0;
    for (size_t i = 0; i < list->n; i++)
        n += list->items[i] != 0;
    return n;
}

static size_t count_runs(const pl_options *o)
{
    size_t tests = count_tests(&o->bench_prompts) + count_tests(&o->bench_predicts);
    return tests * o->bench_threads.n * (o->paths.n ? o->paths.n : 1) * (size_t)o->repetitions;
}

pl_status pl_cmd_bench(const pl_options *options, pl_error *err)
{
    pl_status status;
    bench b = {.options = options, .report = {.format = (pl_bench_output)options->bench_output}};
    size_t runs = count_runs(options);
    if (runs == 0)
        return pl_fail(err, PL_ERR_ARGUMENT, "nothing to measure: all of --n-prompt and --n-gen are 0");
    PL_TRY_GOTO(pl_opened_trace(options, &b.opened, err));
    PL_TRY_GOTO(pl_model_open(options->model, &b.opened.model, err));
    PL_TRY_GOTO(make_prompt(&b, err));
    pl_progress_start(&b.progress, "measuring", NULL, (double)runs, !options->quiet);
    for (size_t i = 0; i < options->bench_threads.n; i++)
        PL_TRY_GOTO(bench_threads(&b, options->bench_threads.items[i], err));
    PL_TRY_GOTO(pl_bench_report_end(&b.report, err));
    PL_TRY_GOTO(pl_opened_write_trace(options, &b.opened, err));
fail:
    pl_progress_finish(&b.progress);
    pl_opened_free(&b.opened);
    free(b.prompt);
    free(b.rates);
    return status;
}
