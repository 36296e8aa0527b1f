#ifndef _GNU_SOURCE
#define _GNU_SOURCE /* names of threads */
#endif

#include "host/serve/service.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "host/serve/grammar_cache.h"
#include "host/serve/routes.h"

#define THREADS 2
#define QUEUE 1024
#define GRAMMARS 64
#define GRAMMAR_BYTES ((size_t)4 << 20)

typedef struct piece_of_work {
    void (*fn)(void *user);
    void *user;
} piece_of_work;

struct pl_service {
    const pl_model *model;
    pl_engine *engine;
    pl_scheduler *scheduler;
    pl_service_params params;
    char *name, *path;
    pl_http_route *routes;
    pl_call_news *news;
    pl_grammar_cache *grammars;
    pthread_t threads[THREADS];
    int n_threads;
    pthread_mutex_t lock; /* of what follows */
    pthread_cond_t wake;
    piece_of_work queue[QUEUE]; /* a ring */
    size_t first, n;
    bool ends;
};

/* ---- threads ---- */

static void *work(void *arg)
{
    pthread_setname_np(pthread_self(), "pleiad-service");
    pl_service *s = arg;
    pthread_mutex_lock(&s->lock);
    for (;;) {
        while (s->n == 0 && !s->ends)
            pthread_cond_wait(&s->wake, &s->lock);
        if (s->n == 0)
            break;
        piece_of_work next = s->queue[s->first];
        s->first = (s->first + 1) % QUEUE;
        s->n--;
        pthread_mutex_unlock(&s->lock);
        next.fn(next.user);
        pthread_mutex_lock(&s->lock);
    }
    pthread_mutex_unlock(&s->lock);
    return NULL;
}

pl_status pl_service_work(pl_service *s, void (*fn)(void *user), void *user, pl_error *err)
{
    pthread_mutex_lock(&s->lock);
    bool full = s->n == QUEUE;
    if (!full) {
        s->queue[(s->first + s->n++) % QUEUE] = (piece_of_work){fn, user};
        pthread_cond_signal(&s->wake);
    }
    pthread_mutex_unlock(&s->lock);
    return full ? pl_fail(err, PL_ERR_BUSY, "%d requests wait to be read; try again later", QUEUE) : PL_OK;
}

static pl_status start_threads(pl_service *s, pl_error *err)
{
    for (; s->n_threads < THREADS; s->n_threads++) {
        int failed = pthread_create(&s->threads[s->n_threads], NULL, work, s);
        if (failed)
            return pl_fail(err, PL_ERR_MEMORY, "cannot start a thread: %s", strerror(failed));
    }
    return PL_OK;
}

void pl_service_end(pl_service *s)
{
    pthread_mutex_lock(&s->lock);
    s->ends = true;
    pthread_cond_broadcast(&s->wake);
    pthread_mutex_unlock(&s->lock);
    while (s->n_threads > 0)
        pthread_join(s->threads[--s->n_threads], NULL);
}

/* ---- life ---- */

static pl_status copy_text(const char *text, char **out, pl_error *err)
{
    *out = strdup(text);
    return *out ? PL_OK : pl_fail_memory(err, strlen(text) + 1, "service");
}

pl_status pl_service_create(const pl_model *model, pl_engine *engine, pl_scheduler *scheduler,
                            const pl_service_params *params, pl_service **out, pl_error *err)
{
    pl_status status;
    pl_service *s = calloc(1, sizeof *s);
    if (!s)
        return pl_fail_memory(err, sizeof *s, "service");
    s->model = model;
    s->engine = engine;
    s->scheduler = scheduler;
    s->params = *params;
    pthread_mutex_init(&s->lock, NULL);
    pthread_cond_init(&s->wake, NULL);
    PL_TRY_GOTO(copy_text(params->name, &s->name, err));
    PL_TRY_GOTO(copy_text(params->path, &s->path, err));
    s->params.name = s->name;
    s->params.path = s->path;
    PL_TRY_GOTO(pl_routes_make(params->web_page, &s->routes, err));
    PL_TRY_GOTO(pl_call_news_create(&s->news, err));
    PL_TRY_GOTO(pl_grammar_cache_create(model, GRAMMARS, GRAMMAR_BYTES, &s->grammars, err));
    PL_TRY_GOTO(start_threads(s, err));
    *out = s;
    return PL_OK;
fail:
    pl_service_free(s);
    return status;
}

void pl_service_free(pl_service *s)
{
    if (!s)
        return;
    pl_service_end(s);
    pl_grammar_cache_free(s->grammars);
    pl_call_news_free(s->news);
    pthread_cond_destroy(&s->wake);
    pthread_mutex_destroy(&s->lock);
    free(s->routes);
    free(s->path);
    free(s->name);
    free(s);
}

/* ---- what it holds ---- */

const pl_model *pl_service_model(const pl_service *s)
{
    return s->model;
}

pl_engine *pl_service_engine(const pl_service *s)
{
    return s->engine;
}

pl_scheduler *pl_service_scheduler(const pl_service *s)
{
    return s->scheduler;
}

const pl_service_params *pl_service_parameters(const pl_service *s)
{
    return &s->params;
}

const pl_http_route *pl_service_routes(const pl_service *s)
{
    return s->routes;
}

pl_call_news *pl_service_news(pl_service *s)
{
    return s->news;
}

pl_status pl_service_grammar(pl_service *s, pl_grammar_kind kind, const char *text, size_t n, pl_grammar **out,
                             pl_error *err)
{
    return pl_grammar_cache_get(s->grammars, kind, text, n, out, err);
}
