#include "host/serve/job.h"

#include <stdlib.h>
#include <string.h>

typedef struct pl_job {
    pl_call_news_item news; /* first: the loop hears of the job's end */
    pl_service *service;
    pl_http *http;
    pl_exchange *exchange; /* NULL: the client has left; read and written on the loop only */
    pl_job_fn fn;
    pl_json json;
    pl_api_error error;
    size_t n_body;
    char body[];
} pl_job;

static void gone(void *user)
{
    pl_job *job = user;
    job->exchange = NULL;
}

static void drop(pl_call_news_item *item)
{
    pl_job *job = (pl_job *)item;
    pl_json_free(&job->json);
    free(job);
}

static void respond(pl_call_news_item *item)
{
    pl_job *job = (pl_job *)item;
    if (job->exchange && job->error.status)
        pl_api_fail(job->exchange, &job->error, 0);
    else if (job->exchange)
        pl_respond_json(job->exchange, 200, &job->json);
    drop(item);
}

static void work(void *user)
{
    pl_job *job = user;
    json_t *body = pl_fields_parse(job->body, job->n_body, &job->error);
    if (body)
        job->fn(job->service, body, &job->json, &job->error);
    json_decref(body);
    (void)pl_call_news_add(pl_service_news(job->service), job->http, &job->news, NULL);
}

void pl_job_start(pl_service *service, pl_exchange *x, pl_job_fn fn)
{
    pl_error err = {0};
    size_t n;
    const char *body = pl_exchange_body(x, &n);
    pl_job *job = malloc(sizeof *job + n);
    if (!job) {
        pl_fail_memory(&err, sizeof *job + n, "a request");
    } else {
        *job = (pl_job){.news = {.look = respond, .drop = drop},
                        .service = service,
                        .http = pl_exchange_http(x),
                        .exchange = x,
                        .fn = fn,
                        .json = pl_json_to_buffer(),
                        .n_body = n};
        if (n)
            memcpy(job->body, body, n);
        if (pl_service_work(service, work, job, &err) == PL_OK) {
            pl_exchange_on_gone(x, gone, job); /* respond() runs on this thread: not yet */
            return;
        }
        free(job);
    }
    pl_api_error error = pl_api_error_of(&err);
    pl_api_fail(x, &error, 1);
}

void pl_respond_json(pl_exchange *x, int status, pl_json *json)
{
    pl_error err;
    char *text;
    size_t n;
    if (pl_json_take(json, &text, &n, &err) != PL_OK) {
        pl_api_error error = pl_api_error_of(&err);
        pl_api_fail(x, &error, 0);
        return;
    }
    pl_exchange_respond(x, status, "application/json", text, n);
    free(text);
}
