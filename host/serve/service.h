/* What all handlers share: the model and its scheduler, the grammars compiled lately, and a few threads for work that
 * would hold up the loop: some for text, others for images and sound. */
#ifndef PL_SERVE_SERVICE_H
#define PL_SERVE_SERVICE_H

#include "host/serve/call_news.h"
#include "host/serve/http.h"

typedef struct pl_service pl_service;

typedef struct pl_service_params {
    const char *name;     /* of the model as clients see it: "gemma-3n-e4b" */
    const char *path;     /* for requests that name none: "auto" or as pl_session_set_path() */
    int32_t max_tokens;   /* most a request may ask for, and get that asks for none; -1: the context */
    pl_sampling sampling; /* for requests that say nothing */
    pl_drafting draft;    /* for all requests */
    bool any_model;       /* whatever model a request names is this one; a path behind its name still counts */
    bool web_page;
    bool media_urls; /* images and sound may be fetched from addresses that requests give */
} pl_service_params;

/* Borrows model, engine and scheduler. */
pl_status pl_service_create(const pl_model *model, pl_engine *engine, pl_scheduler *scheduler,
                            const pl_service_params *params, pl_service **out, pl_error *err);

/* Does what work is left, and ends the threads. For the end of a server: after pl_http_serve(), before the scheduler and
 * then the http are freed; last comes the service. */
void pl_service_end(pl_service *service);
void pl_service_free(pl_service *service);

const pl_model *pl_service_model(const pl_service *s);
pl_engine *pl_service_engine(const pl_service *s);
pl_scheduler *pl_service_scheduler(const pl_service *s);
const pl_service_params *pl_service_parameters(const pl_service *s);

/* Whether requests may name the model so: NAME or NAME:PATH; *path: of the latter, else NULL. */
bool pl_service_has_model(const pl_service *s, const char *asked, const char **path);

/* All routes; `user` of pl_http_create() is the service. */
const pl_http_route *pl_service_routes(const pl_service *s);

/* What calls use to reach the loop: made and freed with the service. */
pl_call_news *pl_service_news(pl_service *s);

/* Runs fn(user) on one of the service's threads, in order of the calls where there is one thread. PL_ERR_BUSY: too many wait. */
pl_status pl_service_work(pl_service *s, void (*fn)(void *user), void *user, pl_error *err);

/* The same for work with images and sound, on threads of their own, so that it does not hold up requests of text: one after
 * another, a request with much of it takes a turn for each piece. */
pl_status pl_service_work_media(pl_service *s, void (*fn)(void *user), void *user, pl_error *err);

/* Around each use of the towers: one at a time, as they share the engine's threads. */
void pl_service_lock_towers(pl_service *s);
void pl_service_unlock_towers(pl_service *s);

/* A grammar, compiled or found among those used lately; one reference for the caller. Any thread. */
pl_status pl_service_grammar(pl_service *s, pl_grammar_kind kind, const char *text, size_t n, pl_grammar **out,
                             pl_error *err);

#endif
