/* pleiad serve: the model over HTTP. */
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#include "host/serve/service.h"
#include "tools/commands.h"
#include "tools/console.h"
#include "tools/opened.h"
#include "tools/serve_keys.h"
#include "tools/signals.h"

#define CONNECTIONS 4096
#define OTHER_DESCRIPTORS 64 /* files, threads' wake-ups, the loop's own */

typedef struct server {
    const pl_options *options;
    pl_serve_keys keys;
    pl_signals *signals;
    pl_opened opened;
    pl_scheduler *scheduler;
    pl_service *service;
    pl_http *http;
    char *name;
} server;

/* ---- what the options say ---- */

/* Kept prefixes are written at the end: that they cannot be is told at the beginning. */
static pl_status check_prefix_cache(const char *file, pl_error *err)
{
    const char *slash = strrchr(file, '/');
    char *folder = slash ? strndup(file, slash > file ? (size_t)(slash - file) : 1) : strdup(".");
    if (!folder)
        return pl_fail_memory(err, strlen(file), "name");
    bool writable = access(folder, W_OK) == 0;
    int why = errno;
    free(folder);
    return writable ? PL_OK : pl_fail(err, PL_ERR_IO, "--prefix-cache %s: cannot write there: %s", file, strerror(why));
}

static pl_status check_options(const pl_options *options, pl_error *err)
{
    if (options->alias && !*options->alias)
        return pl_fail(err, PL_ERR_ARGUMENT, "--alias takes a name");
    return options->prefix_cache ? check_prefix_cache(options->prefix_cache, err) : PL_OK;
}

/* As many descriptors as the system allows; returns how many connections that is enough for. */
static int32_t raise_descriptors(void)
{
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) != 0)
        return CONNECTIONS;
    limit.rlim_cur = limit.rlim_max;
    setrlimit(RLIMIT_NOFILE, &limit);
    if (getrlimit(RLIMIT_NOFILE, &limit) != 0 || limit.rlim_cur >= CONNECTIONS + OTHER_DESCRIPTORS)
        return CONNECTIONS;
    return limit.rlim_cur > 2 * OTHER_DESCRIPTORS ? (int32_t)limit.rlim_cur - OTHER_DESCRIPTORS : OTHER_DESCRIPTORS;
}

/* One line a request; control characters of the path cannot reach the terminal. */
static void log_request(void *user, const pl_http_entry *entry)
{
    char path[256], at[32] = "";
    time_t now = time(NULL);
    struct tm utc;
    size_t n = 0;
    for (const char *p = entry->path; *p && n + 1 < sizeof path; p++)
        path[n++] = (unsigned char)*p < ' ' || *p == 0x7f ? '?' : *p;
    path[n] = '\0';
    if (gmtime_r(&now, &utc))
        strftime(at, sizeof at, "%Y-%m-%dT%H:%M:%SZ", &utc);
    pl_console_detail(user, "%s %s %s %s %d%s %.1f ms%s%s", at, entry->client, entry->method, path, entry->status,
                      entry->whole ? "" : " cut", 1000 * entry->seconds, *entry->note ? " " : "", entry->note);
}

static pl_http_params http_params(server *s)
{
    const pl_options *options = s->options;
    return (pl_http_params){
        .host = options->host,
        .port = options->port,
        .keys = s->keys.items,
        .n_keys = s->keys.n,
        .origins = options->cors.items,
        .n_origins = options->cors.n,
        .max_body_bytes = (size_t)options->max_body,
        .max_connections = raise_descriptors(),
        .read_timeout_s = options->timeout,
        .write_timeout_s = options->timeout,
        .log = options->verbose ? log_request : NULL,
        .log_user = (void *)(uintptr_t)options,
    };
}

/* ---- life ---- */

/* Loading takes long: an address that cannot be had is told before. */
static pl_status try_address(server *s, pl_error *err)
{
    static const pl_http_route none = {.method = NULL};
    pl_http *http;
    pl_http_params params = http_params(s);
    PL_TRY(pl_http_create(&params, &none, NULL, &http, err));
    pl_http_free(http);
    return PL_OK;
}

static pl_status load(server *s, pl_error *err)
{
    pl_engine_params params = pl_opened_params(s->options);
    params.sessions = s->options->n_parallel;
    params.kv_tokens = s->options->kv_tokens;
    params.kv_bytes = (size_t)s->options->kv_memory;
    return pl_opened_start(s->options, &params, &s->opened, err);
}

static pl_status choose_path(const server *s, const char **out, pl_error *err)
{
    const pl_model *model = s->opened.model;
    *out = s->options->path;
    if (!*out)
        *out = pl_model_path(model, 1) ? "auto" : pl_model_path(model, 0);
    return strcmp(*out, "auto") == 0 ? PL_OK : pl_model_check_path(model, *out, err);
}

static pl_status start(server *s, pl_error *err)
{
    const pl_options *options = s->options;
    pl_scheduler_params scheduling = {.max_waiting = options->max_queue, .prefix_file = options->prefix_cache};
    pl_service_params service = {.name = s->name,
                                 .max_tokens = options->max_tokens,
                                 .sampling = options->sampling,
                                 .draft = {.most = options->draft, .path = options->draft_path},
                                 .web_page = !options->no_web,
                                 .media_urls = options->allow_media_urls};
    PL_TRY(choose_path(s, &service.path, err));
    if (options->draft_path)
        PL_TRY(pl_model_check_path(s->opened.model, options->draft_path, err));
    PL_TRY(pl_scheduler_create(s->opened.engine, &scheduling, &s->scheduler, err));
    PL_TRY(pl_service_create(s->opened.model, s->opened.engine, s->scheduler, &service, &s->service, err));
    pl_http_params params = http_params(s);
    return pl_http_create(&params, pl_service_routes(s->service), s->service, &s->http, err);
}

static void stop(void *http)
{
    pl_http_stop(http);
}

static pl_status announce(const server *s, pl_error *err)
{
    if (!s->keys.n && !pl_http_is_local(s->http))
        pl_console_note(s->options,
                        "everybody who reaches this machine may use the model: --api-key-file asks for keys");
    printf("listening on %s\n", pl_http_address(s->http));
    return pl_console_flush(err);
}

static void end(server *s)
{
    if (s->signals)
        pl_signals_set(s->signals, NULL, NULL);
    if (s->service)
        pl_service_end(s->service);
    pl_scheduler_free(s->scheduler);
    pl_http_free(s->http);
    pl_service_free(s->service);
    pl_opened_free(&s->opened);
    pl_signals_end(s->signals);
    pl_serve_keys_free(&s->keys);
    free(s->name);
}

pl_status pl_cmd_serve(const pl_options *options, pl_error *err)
{
    pl_status status;
    server s = {.options = options, .name = pl_opened_name(options)};
    signal(SIGPIPE, SIG_IGN);
    if (!s.name)
        return pl_fail_memory(err, strlen(options->model), "name");
    PL_TRY_GOTO(check_options(options, err));
    PL_TRY_GOTO(pl_serve_keys_read(options, &s.keys, err));
    PL_TRY_GOTO(pl_signals_begin(&s.signals, err));
    PL_TRY_GOTO(try_address(&s, err));
    PL_TRY_GOTO(load(&s, err));
    PL_TRY_GOTO(start(&s, err));
    pl_signals_set(s.signals, stop, s.http);
    PL_TRY_GOTO(announce(&s, err));
    status = pl_http_serve(s.http, options->drain, err);
fail:
    end(&s);
    return status;
}
