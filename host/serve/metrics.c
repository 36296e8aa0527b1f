#include "host/serve/metrics.h"

#include "host/serve/api_error.h"
#include "host/serve/service.h"

static void describe(pl_strbuf *out, const char *name, const char *type, const char *help)
{
    pl_strbuf_printf(out, "# HELP pleiad_%s %s\n# TYPE pleiad_%s %s\n", name, help, name, type);
}

static void put_count(pl_strbuf *out, const char *name, uint64_t value, const char *help)
{
    describe(out, name, "counter", help);
    pl_strbuf_printf(out, "pleiad_%s %llu\n", name, (unsigned long long)value);
}

static void put_gauge(pl_strbuf *out, const char *name, double value, const char *help)
{
    describe(out, name, "gauge", help);
    pl_strbuf_printf(out, "pleiad_%s %.15g\n", name, value);
}

static void put_histogram(pl_strbuf *out, const char *name, const pl_histogram *h, const char *help)
{
    uint64_t sum = 0;
    describe(out, name, "histogram", help);
    for (int i = 0; i < PL_HISTOGRAM_BUCKETS; i++) {
        sum += h->count[i];
        pl_strbuf_printf(out, "pleiad_%s_bucket{le=\"%g\"} %llu\n", name, pl_histogram_bound(i),
                         (unsigned long long)sum);
    }
    sum += h->count[PL_HISTOGRAM_BUCKETS];
    pl_strbuf_printf(out, "pleiad_%s_bucket{le=\"+Inf\"} %llu\npleiad_%s_sum %.9g\npleiad_%s_count %llu\n", name,
                     (unsigned long long)sum, name, h->sum, name, (unsigned long long)sum);
}

/* A value of a label, in its quotes. */
static void put_label(pl_strbuf *out, const char *text)
{
    pl_strbuf_add(out, "\"", 1);
    for (; *text; text++) {
        if (*text == '"' || *text == '\\')
            pl_strbuf_add(out, "\\", 1);
        pl_strbuf_add(out, *text == '\n' ? "\\n" : text, *text == '\n' ? 2 : 1);
    }
    pl_strbuf_add(out, "\"", 1);
}

static void put_paths(pl_strbuf *out, const pl_scheduler_stats *s)
{
    describe(out, "path_requests_total", "counter", "Requests that began on a path of the model.");
    for (int i = 0; i < s->n_paths; i++) {
        pl_strbuf_add_text(out, "pleiad_path_requests_total{path=");
        put_label(out, s->paths[i].path);
        pl_strbuf_printf(out, "} %llu\n", (unsigned long long)s->paths[i].requests);
    }
    describe(out, "path_rows_total", "counter", "Rows of steps on a path of the model.");
    for (int i = 0; i < s->n_paths; i++) {
        pl_strbuf_add_text(out, "pleiad_path_rows_total{path=");
        put_label(out, s->paths[i].path);
        pl_strbuf_printf(out, "} %llu\n", (unsigned long long)s->paths[i].rows);
    }
}

static void put_by_source(pl_strbuf *out, const char *name, const uint64_t *counts, const char *help)
{
    describe(out, name, "counter", help);
    for (int i = 0; i < PL_DRAFT_SOURCES; i++)
        pl_strbuf_printf(out, "pleiad_%s{source=\"%s\"} %llu\n", name, pl_draft_source_name(i),
                         (unsigned long long)counts[i]);
}

static void put_scheduler(pl_strbuf *out, const pl_scheduler_stats *s)
{
    put_gauge(out, "requests_waiting", s->waiting, "Requests that wait for their first step.");
    put_gauge(out, "requests_running", s->running, "Requests in steps.");
    put_count(out, "requests_submitted_total", s->submitted, "Requests taken.");
    put_count(out, "requests_refused_total", s->refused, "Requests for which the queue had no room.");
    put_count(out, "requests_done_total", s->done, "Requests answered.");
    put_count(out, "requests_cancelled_total", s->cancelled, "Requests whose client left.");
    put_count(out, "requests_failed_total", s->failed, "Requests that failed.");
    put_count(out, "steps_total", s->steps, "Steps of the model.");
    put_count(out, "preemptions_total", s->preemptions, "Requests that lost their place to others.");
    put_count(out, "path_moves_total", s->moves, "Answers that changed their path.");
    put_count(out, "prompt_tokens_total", s->prompt_tokens, "Prompt tokens read; those reused are not among them.");
    put_count(out, "reused_tokens_total", s->reused_tokens, "Prompt tokens whose keys and values were there.");
    put_count(out, "answer_tokens_total", s->answer_tokens, "Tokens generated.");
    put_by_source(out, "draft_tokens_total", s->drafts.drafted, "Tokens proposed and verified.");
    put_by_source(out, "draft_accepted_total", s->drafts.accepted, "Of these, accepted.");
    put_histogram(out, "queue_seconds", &s->queued_s, "Time from a request to its first step.");
    put_histogram(out, "first_token_seconds", &s->first_token_s, "Time from a request to its first token.");
    put_histogram(out, "token_seconds", &s->token_s, "Time from token to token of an answer.");
    put_histogram(out, "step_seconds", &s->step_s, "Time of a step.");
    put_gauge(out, "kv_tokens", (double)s->kv_tokens, "Tokens whose keys and values there is room for.");
    put_gauge(out, "kv_used_tokens", (double)s->kv_used, "Of these, held by requests.");
    put_gauge(out, "kv_kept_tokens", (double)s->kv_kept, "Of these, kept for reuse.");
    put_paths(out, s);
}

static void put_engine(pl_strbuf *out, const pl_engine_info *e)
{
    describe(out, "info", "gauge", "The program and what computes.");
    pl_strbuf_add_text(out, "pleiad_info{version=");
    put_label(out, PL_VERSION);
    pl_strbuf_add_text(out, ",backend=");
    put_label(out, e->backend);
    pl_strbuf_add_text(out, "} 1\n");
    put_count(out, "ple_rows_total", e->ple_rows, "Rows of the per-layer table that a thread brought to the card.");
    put_count(out, "ple_hits_total", e->ple_hits, "Of these, from the cache of rows used lately.");
    put_gauge(out, "weight_bytes", (double)e->weight_bytes, "Weights in memory.");
    put_gauge(out, "mapped_bytes", (double)e->mapped_bytes, "Weights read where they are in the file.");
    put_gauge(out, "peak_memory_bytes", (double)e->peak_bytes, "The process' peak resident memory.");
}

static void put_towers(pl_strbuf *out, const pl_tower_stats *t)
{
    describe(out, "tower_bytes", "gauge", "Weights of towers for images and sound in memory; 0: not loaded.");
    pl_strbuf_printf(out, "pleiad_tower_bytes{tower=\"vision\"} %zu\npleiad_tower_bytes{tower=\"audio\"} %zu\n",
                     t->vision_bytes, t->audio_bytes);
    put_gauge(out, "media_cache_bytes", (double)t->cache_bytes, "Rows of images and sound that are remembered.");
    describe(out, "media_encoded_total", "counter", "Images and clips of sound that a tower encoded.");
    pl_strbuf_printf(out, "pleiad_media_encoded_total{kind=\"image\"} %llu\n", (unsigned long long)t->images);
    pl_strbuf_printf(out, "pleiad_media_encoded_total{kind=\"audio\"} %llu\n", (unsigned long long)t->clips);
    put_count(out, "media_hits_total", t->hits, "Images and clips of sound that were remembered instead.");
    describe(out, "media_encode_seconds_total", "counter", "Time of encoding.");
    pl_strbuf_printf(out, "pleiad_media_encode_seconds_total %.9g\n", t->encode_s);
    describe(out, "tower_load_seconds_total", "counter", "Time of loading towers.");
    pl_strbuf_printf(out, "pleiad_tower_load_seconds_total %.9g\n", t->load_s);
}

static void put_http(pl_strbuf *out, const pl_http_stats *h)
{
    put_gauge(out, "http_connections", h->connections, "Open connections.");
    put_gauge(out, "http_exchanges", h->exchanges, "Requests under way.");
    put_count(out, "http_requests_total", h->requests, "HTTP requests.");
    put_count(out, "http_received_bytes_total", h->bytes_in, "Bytes received.");
    put_count(out, "http_sent_bytes_total", h->bytes_out, "Bytes sent.");
    put_count(out, "http_refused_total", h->refused, "Connections beyond the limit.");
    put_count(out, "http_dropped_total", h->dropped, "Connections that fell too far behind.");
    put_count(out, "http_timed_out_total", h->timed_out, "Connections that were too slow.");
}

void pl_metrics_print(pl_strbuf *out, const pl_scheduler_stats *scheduler, const pl_engine_info *engine,
                      const pl_tower_stats *towers, const pl_http_stats *http)
{
    put_scheduler(out, scheduler);
    put_engine(out, engine);
    put_towers(out, towers);
    put_http(out, http);
}

void pl_api_metrics(void *user, pl_exchange *x)
{
    pl_scheduler_stats scheduler;
    pl_engine_info engine;
    pl_tower_stats towers;
    pl_http_stats http = pl_http_count(pl_exchange_http(x));
    pl_strbuf out = {.data = NULL};
    pl_scheduler_count(pl_service_scheduler(user), &scheduler);
    pl_engine_describe(pl_service_engine(user), &engine);
    pl_engine_towers(pl_service_engine(user), &towers);
    pl_metrics_print(&out, &scheduler, &engine, &towers, &http);
    if (out.failed) {
        pl_api_error error = {.status = 503, .message = "Out of memory."};
        pl_api_fail(x, &error, 0);
    } else {
        pl_exchange_respond(x, 200, "text/plain; version=0.0.4; charset=utf-8", out.data, out.n);
    }
    pl_strbuf_free(&out);
}
