#include "host/serve/call_parts.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>

#define MEMORY_CHUNK_BYTES 4096

/* ---- lifetime ---------------------------------------------------------------------------------- */

static void free_choice(choice *c)
{
    pl_call_choice *shown = &c->shown;
    for (size_t i = 0; i < shown->n_tools; i++) {
        pl_strbuf_free(&shown->tools[i].name);
        pl_strbuf_free(&shown->tools[i].arguments);
    }
    free(shown->tools);
    free(shown->pieces);
    free(shown->state);
    pl_strbuf_free(&shown->text);
    pl_tool_parser_free(&c->parser);
}

static void call_free(pl_call *call)
{
    for (int32_t i = 0; i < call->n_choices; i++)
        free_choice(&call->choices[i]);
    free(call->choices);
    for (size_t i = 0; i < call->spec.n_prompts; i++)
        pl_tokens_free(&call->spec.prompts[i]);
    if (call->format->free)
        call->format->free(call);
    pl_conversation_free(call->spec.conversation);
    pl_grammar_free(call->spec.grammar);
    arrivals_free(&call->arrived);
    arrivals_free(&call->looked);
    pl_strbuf_free(&call->out);
    pl_strbuf_free(&call->content);
    pl_arena_free(call->memory);
    pthread_mutex_destroy(&call->lock);
    free(call->body);
    free(call->content_type);
    free(call);
}

void call_hold(pl_call *call)
{
    pthread_mutex_lock(&call->lock);
    call->refs++;
    pthread_mutex_unlock(&call->lock);
}

void call_release(pl_call *call)
{
    pthread_mutex_lock(&call->lock);
    bool last = --call->refs == 0;
    pthread_mutex_unlock(&call->lock);
    if (last)
        call_free(call);
}

static void drop_news(pl_call_news_item *item)
{
    call_release((pl_call *)item);
}

void call_tell(pl_call *call)
{
    pthread_mutex_lock(&call->lock);
    bool news = !call->told && !call->gone;
    if (news) {
        call->told = true;
        call->refs++;
    }
    pthread_mutex_unlock(&call->lock);
    if (news)
        (void)pl_call_news_add(pl_service_news(call->service), call->http, &call->news, NULL);
}

void call_fail(pl_call *call, const pl_api_error *error)
{
    pl_scheduler_stats stats = {0};
    if (error->status == 429 || error->status == 503)
        pl_scheduler_count(pl_service_scheduler(call->service), &stats);
    pthread_mutex_lock(&call->lock);
    if (!call->error.status) {
        call->error = *error;
        call->retry_after_s = stats.retry_after_s;
    }
    pthread_mutex_unlock(&call->lock);
    call_tell(call);
}

void call_cancel(pl_call *call)
{
    pthread_mutex_lock(&call->lock);
    call->gone = true;
    int32_t n = call->n_open > 0 ? call->n_choices : 0;
    pthread_mutex_unlock(&call->lock);
    for (int32_t i = 0; i < n; i++) {
        pthread_mutex_lock(&call->lock);
        uint64_t request = call->choices[i].request;
        pthread_mutex_unlock(&call->lock);
        if (request)
            pl_scheduler_cancel(pl_service_scheduler(call->service), request);
    }
}

/* ---- on the loop ------------------------------------------------------------------------------- */

/* The time and address where the system gives no random numbers (a kernel still starting): ids are only to differ. */
static void name_call(pl_call *call)
{
    static const char letters[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";
    unsigned char bytes[24 + sizeof call->random] = {0};
    if (getrandom(bytes, sizeof bytes, GRND_NONBLOCK) != (ssize_t)sizeof bytes)
        snprintf((char *)bytes, sizeof bytes, "%lx%p", (unsigned long)clock(), (void *)call);
    for (int i = 0; i < 24; i++)
        call->id[i] = letters[bytes[i] % (sizeof letters - 1)];
    memcpy(&call->random, bytes + 24, sizeof call->random);
    call->created = (int64_t)time(NULL);
}

static pl_status call_create(pl_service *service, pl_exchange *x, const pl_call_format *format, pl_call **out,
                             pl_error *err)
{
    size_t n_body;
    const char *body = pl_exchange_body(x, &n_body), *type = pl_exchange_header(x, "Content-Type");
    pl_call *call = calloc(1, sizeof *call);
    char *copy = malloc(n_body + 1), *content_type = type ? strdup(type) : NULL;
    pl_arena *memory = NULL;
    bool there = call && copy && (content_type || !type);
    pl_status status = there ? pl_arena_create(MEMORY_CHUNK_BYTES, &memory, err)
                             : pl_fail_memory(err, sizeof *call + n_body, "a call");
    if (status != PL_OK) {
        free(call);
        free(copy);
        free(content_type);
        return status;
    }
    if (n_body)
        memcpy(copy, body, n_body);
    *call = (pl_call){.news = {.look = call_look, .drop = drop_news},
                      .quiet = {.tell = call_quiet},
                      .service = service,
                      .http = pl_exchange_http(x),
                      .format = format,
                      .exchange = x,
                      .body = copy,
                      .content_type = content_type,
                      .n_body = n_body,
                      .memory = memory,
                      .refs = 2, /* the exchange's and the work's */
                      .spec.request = pl_request_default()};
    call->spec.request.client = pl_exchange_client(x);
    pthread_mutex_init(&call->lock, NULL);
    name_call(call);
    *out = call;
    return PL_OK;
}

void pl_call_start(pl_service *service, pl_exchange *x, const pl_call_format *format)
{
    pl_error err;
    pl_call *call;
    if (call_create(service, x, format, &call, &err) != PL_OK) {
        pl_api_error error = pl_api_error_of(&err);
        pl_api_fail(x, &error, 0);
        return;
    }
    pl_exchange_on_gone(x, call_gone, call);
    pl_status status = pl_call_quiet_watch(pl_service_news(service), call->http, &call->quiet, &err);
    if (status == PL_OK)
        status = format->prompt ? pl_service_work_media(service, call_work, call, &err)
                                : pl_service_work(service, call_work, call, &err);
    if (status != PL_OK) {
        pl_api_error error = pl_api_error_of(&err);
        call_respond_failed(call, &error, 1);
        call_release(call); /* the work's */
    }
}

/* ---- for formats ------------------------------------------------------------------------------- */

pl_service *pl_call_service(const pl_call *call)
{
    return call->service;
}

const pl_call_spec *pl_call_asked(const pl_call *call)
{
    return &call->spec;
}

int32_t pl_call_choices(const pl_call *call)
{
    return call->n_choices;
}

const pl_call_choice *pl_call_choice_at(const pl_call *call, int32_t i)
{
    return &call->choices[i].shown;
}

const char *pl_call_content_type(const pl_call *call)
{
    return call->content_type;
}

const char *pl_call_id(const pl_call *call)
{
    return call->id;
}

int64_t pl_call_created(const pl_call *call)
{
    return call->created;
}

const char *pl_call_model(const pl_call *call)
{
    return call->model;
}

void pl_call_set_data(pl_call *call, void *data)
{
    call->spec.format_data = data;
}

void pl_call_set_model(pl_call *call, const char *model)
{
    const char *kept = pl_arena_text(call->memory, model, strlen(model));
    if (kept)
        call->model = kept;
}

void *pl_call_keep(pl_call *call, size_t bytes)
{
    return pl_arena_take(call->memory, 1, bytes);
}

const char *pl_call_keep_text(pl_call *call, const char *text, size_t n)
{
    return pl_arena_text(call->memory, text, n);
}
