/* pleiad bench: prompt and generation speed. Prompts are random tokens; a prompt's time ends with the first token
 * after it, generation counts the tokens after that one. */
#include <stdlib.h>
#include <string.h>

#include "host/base/bandwidth.h"
#include "host/base/cpu.h"
#include "host/base/progress.h"
#include "host/base/rng.h"
#include "host/base/timeline.h"
#include "tools/bench_report.h"
#include "tools/commands.h"
#include "tools/console.h"
#include "tools/opened.h"

#define LEAST_IN_MEMORY ((size_t)64 << 20)
#define SEED 1

typedef struct bench {
    const pl_options *options;
    pl_opened opened;
    pl_engine_info info;
    pl_bench_report report;
    pl_progress progress;
    pl_op_timer *timer; /* NULL on a card, as the two below */
    pl_bandwidth *memory;
    double bandwidth; /* the best seen with this engine */
    pl_peak peak;
    int32_t *tokens; /* as many as the longest case needs, random ids */
    double *rates;   /* [repetitions] */
    double done;     /* runs, for progress */
} bench;

/* ---- cases -------------------------------------------------------------------------------------- */

typedef pl_status (*visit_fn)(bench *b, const pl_bench_case *c, void *user, pl_error *err);

/* Each depth with each length of prompt, then with each length of answer for each number of sequences. */
static pl_status each_case(bench *b, visit_fn visit, void *user, pl_error *err)
{
    const pl_options *o = b->options;
    for (size_t d = 0; d < o->bench_depths.n; d++) {
        pl_bench_case c = {.depth = o->bench_depths.items[d], .parallel = 1};
        for (size_t i = 0; i < o->bench_prompts.n; i++)
            if ((c.n_prompt = o->bench_prompts.items[i]) > 0)
                PL_TRY(visit(b, &c, user, err));
        c.n_prompt = 0;
        for (size_t i = 0; i < o->bench_predicts.n; i++)
            for (size_t k = 0; k < o->bench_parallel.n; k++) {
                c.n_gen = o->bench_predicts.items[i];
                c.parallel = o->bench_parallel.items[k];
                if (c.n_gen > 0)
                    PL_TRY(visit(b, &c, user, err));
            }
    }
    return PL_OK;
}

typedef struct extent {
    size_t cases;
    int32_t tokens, context, parallel;
} extent;

#define LEAST_BATCH 64 /* rows a step, where an engine chooses */

static pl_status add_extent(bench *b, const pl_bench_case *c, void *user, pl_error *err)
{
    (void)err;
    extent *e = user;
    int32_t batch = b->options->n_batch ? b->options->n_batch : LEAST_BATCH;
    int32_t tokens = pl_bench_tokens(c), context = pl_bench_context(c, batch);
    e->cases++;
    e->tokens = tokens > e->tokens ? tokens : e->tokens;
    e->context = context > e->context ? context : e->context;
    e->parallel = c->parallel > e->parallel ? c->parallel : e->parallel;
    return PL_OK;
}

static extent measure_extent(bench *b)
{
    extent e = {0};
    pl_error none;
    (void)each_case(b, add_extent, &e, &none);
    return e;
}

static pl_status make_tokens(bench *b, int32_t n, pl_error *err)
{
    pl_rng rng;
    b->tokens = malloc((size_t)n * sizeof *b->tokens);
    b->rates = calloc((size_t)b->options->repetitions, sizeof *b->rates);
    if (!b->tokens || !b->rates)
        return pl_fail_memory(err, (size_t)n * sizeof *b->tokens, "prompt");
    pl_rng_seed(&rng, SEED);
    for (int32_t i = 0; i < n; i++)
        b->tokens[i] = (int32_t)(pl_rng_uniform(&rng) * pl_model_vocab_size(b->opened.model));
    return PL_OK;
}

/* ---- one measurement ---------------------------------------------------------------------------- */

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

/* Memory gives more or less as others use it: looked at around each measurement, and the best counts. */
static void look_at_memory(bench *b)
{
    double rate = b->memory ? pl_bandwidth_measure(b->memory) : 0;
    b->bandwidth = rate > b->bandwidth ? rate : b->bandwidth;
}

/* The first run warms up, and says what a token reads and multiplies. */
static pl_status warm_up(bench *b, const pl_bench_machine *m, const pl_bench_case *c, pl_bench_result *out,
                         pl_error *err)
{
    double rate;
    if (b->timer)
        pl_op_timer_clear(b->timer);
    PL_TRY(pl_bench_run(m, c, &rate, err));
    out->token_bytes = (double)pl_session_token_bytes(b->opened.session);
    if (!b->timer)
        return PL_OK;
    pl_op_times t = pl_op_timer_read(b->timer);
    double tokens = t.rows > 0 ? (double)t.rows : 1;
    out->token_bytes = 0;
    for (int i = 0; i < t.counts->n; i++) {
        out->token_bytes += t.counts->op[i].stored_bytes / tokens;
        out->token_ops += pl_bench_int8_ops(&t.counts->op[i]) / tokens;
    }
    pl_op_timer_clear(b->timer);
    return PL_OK;
}

static pl_status measure(bench *b, const pl_bench_case *c, void *user, pl_error *err)
{
    (void)user;
    size_t n = (size_t)b->options->repetitions;
    pl_bench_machine m = {b->opened.engine, b->opened.session, b->tokens, b->timer};
    pl_bench_result result = {.test = *c};
    look_at_memory(b);
    PL_TRY(warm_up(b, &m, c, &result, err));
    m.timer = b->options->bench_ops ? b->timer : NULL;
    for (size_t i = 0; i < n; i++) {
        double begin = pl_timeline_now(b->opened.timeline);
        PL_TRY(pl_bench_run(&m, c, &b->rates[i], err));
        pl_timeline_end(b->opened.timeline, PL_TIMELINE_MAIN, c->n_gen ? "repetition: answer" : "repetition: prompt",
                        begin);
        pl_progress_update(&b->progress, ++b->done);
    }
    look_at_memory(b);
    qsort(b->rates, n, sizeof *b->rates, rising);
    result.model = base_name(b->options->model);
    result.backend = b->info.backend;
    result.ple = b->info.ple ? pl_ple_placement_name(b->info.ple) : NULL;
    result.path = pl_session_path(b->opened.session);
    result.threads = b->info.threads;
    result.batch_rows = b->info.batch_rows;
    result.model_bytes = b->info.weight_bytes + b->info.mapped_bytes;
    result.rates = b->rates;
    result.n = n;
    result.bandwidth = b->bandwidth;
    result.peak = b->peak;
    if (b->timer)
        result.times = pl_op_timer_read(b->timer);
    pl_progress_finish(&b->progress);
    pl_bench_report_add(&b->report, &result);
    return pl_console_flush(err);
}

/* ---- all of them -------------------------------------------------------------------------------- */

static pl_status bench_path(bench *b, const char *path, pl_error *err)
{
    if (path)
        PL_TRY(pl_session_set_path(b->opened.session, path, PL_SWITCH_EXACT, err));
    return each_case(b, measure, NULL, err);
}

static void close_engine(bench *b)
{
    pl_op_timer_free(b->timer);
    pl_bandwidth_free(b->memory);
    b->timer = NULL;
    b->memory = NULL;
    b->bandwidth = 0;
    pl_session_free(b->opened.session);
    pl_engine_free(b->opened.engine);
    b->opened.session = NULL;
    b->opened.engine = NULL;
}

/* What the threads could do at most. A card reads its own memory, ranks have threads of their own, and a small model comes
 * from caches. */
static pl_status measure_machine(bench *b, pl_error *err)
{
    const pl_options *o = b->options;
    if (b->info.kind == PL_BACKEND_CUDA || o->tp > 1)
        return PL_OK;
    PL_TRY(pl_op_timer_create(b->opened.engine, &b->timer, err));
    if (b->info.weight_bytes + b->info.mapped_bytes >= LEAST_IN_MEMORY)
        PL_TRY(pl_bandwidth_create(b->info.threads, o->no_pin, &b->memory, err));
    PL_TRY(pl_peak_measure(b->info.threads, o->no_pin, PL_CPU_ALL, &b->peak, err));
    look_at_memory(b);
    if (b->memory)
        pl_console_detail(o, "%d threads read %.1f GB/s from memory", b->info.threads, b->bandwidth / 1e9);
    pl_console_detail(o, "%d threads do %.0f Gop/s with 8-bit integers (%s)", b->info.threads, b->peak.ops_per_s / 1e9,
                      b->peak.name);
    return PL_OK;
}

static pl_status bench_threads(bench *b, int32_t threads, pl_error *err)
{
    extent e = measure_extent(b);
    pl_engine_params params = pl_opened_params(b->options);
    params.threads = threads;
    params.context = e.context;
    params.sessions = e.parallel > 1 ? e.parallel + 1 : 1;
    PL_TRY(pl_opened_engine(b->options, &params, &b->opened, err));
    pl_engine_describe(b->opened.engine, &b->info);
    if (b->options->bench_ops && b->info.kind == PL_BACKEND_CUDA)
        return pl_fail(err, PL_ERR_UNSUPPORTED, "--ops: this engine is on a card, expected --backend cpu");
    if (b->options->bench_ops && b->options->tp > 1)
        return pl_fail(err, PL_ERR_UNSUPPORTED, "--ops: ranks share the model (--tp), expected one");
    PL_TRY(measure_machine(b, err));
    if (b->options->paths.n == 0)
        PL_TRY(bench_path(b, NULL, err));
    for (size_t i = 0; i < b->options->paths.n; i++)
        PL_TRY(bench_path(b, b->options->paths.items[i], err));
    close_engine(b);
    return PL_OK;
}

pl_status pl_cmd_bench(const pl_options *options, pl_error *err)
{
    pl_status status;
    bench b = {.options = options,
               .report = {.format = (pl_bench_output)options->bench_output, .ops = options->bench_ops}};
    extent e = measure_extent(&b);
    double runs = (double)e.cases * (double)options->bench_threads.n * (double)options->repetitions *
                  (double)(options->paths.n ? options->paths.n : 1);
    if (e.cases == 0)
        return pl_fail(err, PL_ERR_ARGUMENT, "nothing to measure: all of --n-prompt and --n-gen are 0");
    PL_TRY_GOTO(pl_opened_trace(options, &b.opened, err));
    PL_TRY_GOTO(pl_model_open(options->model, &b.opened.model, err));
    PL_TRY_GOTO(make_tokens(&b, e.tokens, err));
    pl_progress_start(&b.progress, "measuring", NULL, runs, !options->quiet);
    for (size_t i = 0; i < options->bench_threads.n; i++)
        PL_TRY_GOTO(bench_threads(&b, options->bench_threads.items[i], err));
    PL_TRY_GOTO(pl_bench_report_end(&b.report, err));
    PL_TRY_GOTO(pl_opened_write_trace(options, &b.opened, err));
fail:
    pl_progress_finish(&b.progress);
    close_engine(&b);
    pl_opened_free(&b.opened);
    free(b.tokens);
    free(b.rates);
    return status;
}
