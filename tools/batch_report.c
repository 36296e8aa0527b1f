#include "tools/batch_report.h"

#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "host/base/clock.h"
#include "host/base/energy.h"
#include "host/base/json_out.h"
#include "host/base/progress.h"
#include "host/ops/devices.h"
#include "tools/console.h"
#include "tools/size_text.h"

#define TICK_S 0.25
#define SYNC_S 2.0

struct pl_batch_report {
    pl_batch_report_params params;
    pl_energy *energy; /* NULL: not asked for */
    pl_energy_used used;
    pl_results_stats begun, now; /* at the beginning, and now or at the end */
    double begin, seconds;
    int ranks;
    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t wake;
    bool runs, ends;
};

/* ---- figures ---- */

typedef struct figures {
    int64_t done, prompt_tokens, answer_tokens; /* of this process and its crew, now */
    double joules_a_token;                      /* -1: not known */
} figures;

static double joules(const pl_energy_used *used)
{
    if (used->cards_j < 0 && used->processor_j < 0)
        return -1;
    return (used->cards_j > 0 ? used->cards_j : 0) + (used->processor_j > 0 ? used->processor_j : 0);
}

static figures figures_of(const pl_batch_report *r)
{
    figures f = {.done = r->now.done - r->begun.done,
                 .prompt_tokens = r->now.prompt_tokens - r->begun.prompt_tokens,
                 .answer_tokens = r->now.answer_tokens - r->begun.answer_tokens,
                 .joules_a_token = -1};
    double used = joules(&r->used);
    int64_t tokens = f.prompt_tokens + f.answer_tokens;
    if (used >= 0 && tokens > 0)
        f.joules_a_token = used / (double)tokens;
    return f;
}

static void look(pl_batch_report *r)
{
    r->seconds = pl_clock_seconds() - r->begin;
    r->now = pl_results_count(r->params.results);
    if (r->energy)
        r->used = pl_energy_read(r->energy);
    r->ranks = r->params.crew ? pl_crew_working(r->params.crew) : 1;
}

/* ---- the thread ---- */

static void format_more(const pl_batch_report *r, char *out, size_t size)
{
    figures f = figures_of(r);
    int n = snprintf(out, size, "  %.0f tokens/s", (double)(f.prompt_tokens + f.answer_tokens) / r->seconds);
    if (f.joules_a_token >= 0 && n > 0 && (size_t)n < size)
        n += snprintf(out + n, size - (size_t)n, "  %.3g J/token", f.joules_a_token);
    if (r->now.failed && n > 0 && (size_t)n < size)
        snprintf(out + n, size - (size_t)n, "  %lld failed", (long long)r->now.failed);
}

static void sync_results(pl_batch_report *r)
{
    pl_error why;
    if (pl_results_sync(r->params.results, &why) != PL_OK)
        pl_dealer_stop(r->params.dealer, &why);
}

/* False: it is the end. */
static bool wait_a_tick(pl_batch_report *r)
{
    struct timespec until;
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_nsec += (long)(TICK_S * 1e9);
    until.tv_sec += until.tv_nsec / 1000000000;
    until.tv_nsec %= 1000000000;
    pthread_mutex_lock(&r->lock);
    while (!r->ends && pthread_cond_timedwait(&r->wake, &r->lock, &until) == 0)
        ;
    bool ends = r->ends;
    pthread_mutex_unlock(&r->lock);
    return !ends;
}

static void *run(void *arg)
{
    pl_batch_report *r = arg;
    char more[128];
    pl_progress progress;
    double synced = pl_clock_seconds();
    pl_progress_start(&progress, "answering", "requests", (double)(r->begun.lines - r->begun.done),
                      !r->params.options->quiet);
    progress.more = more;
    while (wait_a_tick(r)) {
        look(r);
        format_more(r, more, sizeof more);
        pl_progress_update(&progress, (double)figures_of(r).done);
        if (pl_clock_seconds() - synced < SYNC_S)
            continue;
        sync_results(r);
        synced = pl_clock_seconds();
    }
    pl_progress_finish(&progress);
    return NULL;
}

/* ---- life ---- */

static pl_status start_energy(pl_batch_report *r, pl_error *err)
{
    pl_device_list there;
    const char *pci_ids[PL_DEVICES_MAX];
    pl_devices_list(&there);
    for (int i = 0; i < there.n; i++)
        pci_ids[i] = there.devices[i].pci_id;
    pl_energy_params params = {.pci_ids = pci_ids, .n_cards = there.n};
    return pl_energy_start(&params, &r->energy, err);
}

pl_status pl_batch_report_begin(const pl_batch_report_params *params, pl_batch_report **out, pl_error *err)
{
    pl_batch_report *r = calloc(1, sizeof *r);
    if (!r)
        return pl_fail_memory(err, sizeof *r, "report");
    r->params = *params;
    r->used = (pl_energy_used){-1, -1};
    r->begin = pl_clock_seconds();
    r->begun = r->now = pl_results_count(params->results);
    pthread_mutex_init(&r->lock, NULL);
    pthread_cond_init(&r->wake, NULL);
    pl_status status = params->energy ? start_energy(r, err) : PL_OK;
    int failed = status == PL_OK ? pthread_create(&r->thread, NULL, run, r) : 0;
    if (failed)
        status = pl_fail(err, PL_ERR_MEMORY, "cannot start a thread: %s", strerror(failed));
    if (status != PL_OK) {
        pl_batch_report_free(r);
        return status;
    }
    r->runs = true;
    *out = r;
    return PL_OK;
}

void pl_batch_report_end(pl_batch_report *r)
{
    if (!r || !r->runs)
        return;
    pthread_mutex_lock(&r->lock);
    r->ends = true;
    pthread_cond_signal(&r->wake);
    pthread_mutex_unlock(&r->lock);
    pthread_join(r->thread, NULL);
    r->runs = false;
    look(r);
}

void pl_batch_report_free(pl_batch_report *r)
{
    if (!r)
        return;
    pl_batch_report_end(r);
    pl_energy_free(r->energy);
    pthread_cond_destroy(&r->wake);
    pthread_mutex_destroy(&r->lock);
    free(r);
}

/* ---- the summary ---- */

static void put_known(pl_json *json, const char *key, int64_t value, bool known)
{
    pl_json_key(json, key);
    if (known)
        pl_json_int(json, value);
    else
        pl_json_null(json);
}

static void put_joules(pl_json *json, const char *key, double value)
{
    pl_json_put_double(json, key, value < 0 ? (double)NAN : value);
}

static void put_json(const pl_batch_report *r)
{
    figures f = figures_of(r);
    pl_json json = pl_json_to_file(stdout);
    pl_json_begin_object(&json);
    pl_json_put_string(&json, "output", r->params.options->out_file);
    pl_json_put_int(&json, "requests", r->now.lines);
    put_known(&json, "answered", r->now.done - r->now.failed, !r->params.answered);
    put_known(&json, "failed", r->now.failed, !r->params.answered);
    pl_json_put_int(&json, "kept", r->begun.done);
    pl_json_put_int(&json, "ranks", r->ranks);
    pl_json_put_int(&json, "engines", r->params.engines);
    pl_json_put_double(&json, "seconds", r->seconds);
    pl_json_put_double(&json, "requests_per_second", (double)f.done / r->seconds);
    pl_json_put_int(&json, "prompt_tokens", f.prompt_tokens);
    pl_json_put_int(&json, "answer_tokens", f.answer_tokens);
    pl_json_put_double(&json, "prompt_tokens_per_second", (double)f.prompt_tokens / r->seconds);
    pl_json_put_double(&json, "answer_tokens_per_second", (double)f.answer_tokens / r->seconds);
    put_joules(&json, "joules_cards", r->used.cards_j);
    put_joules(&json, "joules_processor", r->used.processor_j);
    put_joules(&json, "joules_per_token", f.joules_a_token);
    pl_json_end_object(&json);
    pl_json_newline(&json);
}

static void put_text(const pl_batch_report *r)
{
    const pl_options *options = r->params.options;
    figures f = figures_of(r);
    char lines[PL_SIZE_TEXT], failed[PL_SIZE_TEXT], done[PL_SIZE_TEXT];
    pl_console_note(options, "%s: %s results, %s of them errors", options->out_file, pl_count_text(r->now.lines, lines),
                    pl_count_text(r->now.failed, failed));
    if (f.done)
        pl_console_note(options, "%s in %.1f s: %.1f requests/s, %.1f tokens/s read, %.1f tokens/s answered",
                        pl_count_text(f.done, done), r->seconds, (double)f.done / r->seconds,
                        (double)f.prompt_tokens / r->seconds, (double)f.answer_tokens / r->seconds);
    if (f.joules_a_token >= 0)
        pl_console_note(options, "%.1f kJ, %.3g J a token", joules(&r->used) / 1000, f.joules_a_token);
}

void pl_batch_report_summary(const pl_batch_report *r)
{
    if (r->params.options->json)
        put_json(r);
    else
        put_text(r);
}
