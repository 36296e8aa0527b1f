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
#define MEDIA_THREADS 3
#define MEDIA_QUEUE 128 /* each may hold a large body */
#define GRAMMARS 64
#define GRAMMAR_BYTES ((size_t)4 << 20)

typedef struct piece_of_work {
    void (*fn)(void *user);
    void *user;
} piece_of_work;

/* Threads and what waits for them. */
typedef struct lane {
    pthread_t threads[THREADS > MEDIA_THREADS ? THREADS : MEDIA_THREADS];
    int n_threads;
    size_t room;
    pthread_mutex_t lock; /* of what follows */
    pthread_cond_t wake;
    piece_of_work queue[QUEUE]; /* a ring of `room` */
    size_t first, n;
    bool ends;
} lane;

struct pl_service {
    const pl_model *model;
    pl_engine *engine;
    pl_scheduler *scheduler;
    pl_service_params params;
    char *name, *path;
    pl_http_route *routes;
    pl_call_news *news;
    pl_grammar_cache *grammars;
    lane text, media;
    pthread_mutex_t towers;
};

/* ---- threads ---- */

static void *work(void *arg)
{
    pthread_setname_np(pthread_self(), "pleiad-service");
    lane *l = arg;
    pthread_mutex_lock(&l->lock);
    for (;;) {
        while (l->n == 0 && !l->ends)
            pthread_cond_wait(&l->wake, &l->lock);
        if (l->n == 0)
            break;
        piece_of_work next = l->queue[l->first];
        l->first = (l->first + 1) % l->room;
        l->n--;
        pthread_mutex_unlock(&l->lock);
        next.fn(next.user);
        pthread_mutex_lock(&l->lock);
    }
    pthread_mutex_unlock(&l->lock);
    return NULL;
}

static pl_status add_work(lane *l, void (*fn)(void *user), void *user, pl_error *err)
{
    pthread_mutex_lock(&l->lock);
    bool full = l->n == l->room || l->ends;
    if (!full) {
        l->queue[(l->first + l->n++) % l->room] = (piece_of_work){fn, user};
        pthread_cond_signal(&l->wake);
    }
    pthread_mutex_unlock(&l->lock);
    return full ? pl_fail(err, PL_ERR_BUSY, "%zu requests wait to be read; try again later", l->room) : PL_OK;
}

pl_status pl_service_work(pl_service *s, void (*fn)(void *user), void *user, pl_error *err)
{
    return add_work(&s->text, fn, user, err);
}

pl_status pl_service_work_media(pl_service *s, void (*fn)(void *user), void *user, pl_error *err)
{
    return add_work(&s->media, fn, user, err);
}

void pl_service_lock_towers(pl_service *s)
{
    pthread_mutex_lock(&s->towers);
}

void pl_service_unlock_towers(pl_service *s)
{
    pthread_mutex_unlock(&s->towers);
}

static pl_status start_threads(lane *l, int n, pl_error *err)
{
    for (; l->n_threads < n; l->n_threads++) {
        int failed = pthread_create(&l->threads[l->n_threads], NULL, work, l);
        if (failed)
            return pl_fail(err, PL_ERR_MEMORY, "cannot start a thread: %s", strerror(failed));
    }
    return PL_OK;
}

static void end_threads(lane *l)
{
    pthread_mutex_lock(&l->lock);
    l->ends = true;
    pthread_cond_broadcast(&l->wake);
    pthread_mutex_unlock(&l->lock);
    while (l->n_threads > 0)
        pthread_join(l->threads[--l->n_threads], NULL);
}

void pl_service_end(pl_service *s)
{
    end_threads(&s->text); /* first: it gives work to the other */
    end_threads(&s->media);
}

/* ---- life ---- */

static void lane_init(lane *l, size_t room)
{
    l->room = room;
    pthread_mutex_init(&l->lock, NULL);
    pthread_cond_init(&l->wake, NULL);
}

static void lane_clear(lane *l)
{
    pthread_cond_destroy(&l->wake);
    pthread_mutex_destroy(&l->lock);
}

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
    lane_init(&s->text, QUEUE);
    lane_init(&s->media, MEDIA_QUEUE);
    pthread_mutex_init(&s->towers, NULL);
    PL_TRY_GOTO(copy_text(params->name, &s->name, err));
    PL_TRY_GOTO(copy_text(params->path, &s->path, err));
    s->params.name = s->name;
    s->params.path = s->path;
    PL_TRY_GOTO(pl_routes_make(params->web_page, &s->routes, err));
    PL_TRY_GOTO(pl_call_news_create(&s->news, err));
    PL_TRY_GOTO(pl_grammar_cache_create(model, GRAMMARS, GRAMMAR_BYTES, &s->grammars, err));
    PL_TRY_GOTO(start_threads(&s->text, THREADS, err));
    PL_TRY_GOTO(start_threads(&s->media, MEDIA_THREADS, err));
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
    lane_clear(&s->text);
    lane_clear(&s->media);
    pthread_mutex_destroy(&s->towers);
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

/* What stands behind one of the colons, as paths may have colons, too. */
static const char *path_behind(const pl_service *s, const char *asked)
{
    for (const char *colon = strchr(asked, ':'); colon; colon = strchr(colon + 1, ':'))
        if (strcmp(colon + 1, "auto") == 0 || pl_model_check_path(s->model, colon + 1, NULL) == PL_OK)
            return colon + 1;
    return NULL;
}

bool pl_service_has_model(const pl_service *s, const char *asked, const char **path)
{
    size_t n = strlen(s->name);
    bool ours = strncmp(asked, s->name, n) == 0 && (!asked[n] || asked[n] == ':');
    const char *from = ours ? asked + n : asked;
    *path = path_behind(s, from);
    return s->params.any_model || (ours && (!*from || *path == from + 1));
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
