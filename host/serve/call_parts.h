/* The inside of a call, for call*.c.
 *
 * refs, gone, error and arrived are under the lock. exchange, looked and the rest of the answers belong to the loop; what
 * an outcome fills of a choice is written before its arrival is told, and read after. A reference is held by the exchange
 * while it is open, by the work on a service thread, by each request until its on_done, and while the call is news. */
#ifndef PL_SERVE_CALL_PARTS_H
#define PL_SERVE_CALL_PARTS_H

#include "host/serve/call.h"

#include <pthread.h>

/* A token of a choice, or its end. */
typedef struct arrival {
    int32_t choice;
    int32_t id;
    bool done;
    float logprob;
    size_t text, n_bytes; /* in arrivals.text */
    size_t top, n_top;    /* in arrivals.top */
} arrival;

typedef struct arrivals {
    arrival *list;
    size_t n, room;
    pl_strbuf text;
    pl_logprob *top;
    size_t n_top, top_room;
} arrivals;

typedef struct choice {
    pl_call *call;
    int32_t index;
    uint64_t request; /* 0: not submitted; under the lock */
    pl_tool_parser parser;
    size_t pieces_room;
    pl_call_choice shown;
} choice;

struct pl_call {
    pl_call_news_item news;
    pl_call_quiet quiet;
    pl_service *service;
    pl_http *http;
    const pl_call_format *format;
    pl_exchange *exchange; /* NULL once it is over */
    char *body, *content_type;
    size_t n_body;
    json_t *root;      /* what was read of the body; until all is submitted, as the spec borrows from it */
    size_t n_prepared; /* prompts whose choices are submitted */
    pl_arena *memory;
    pl_call_spec spec;
    char id[25];
    uint64_t random;
    int64_t created;
    const char *model;
    choice *choices; /* [n_choices], once read */
    int32_t n_choices;
    bool begun;        /* a stream */
    int32_t n_told;    /* choices whose end the format knows */
    arrivals looked;   /* what the loop is looking at */
    pl_strbuf out;     /* events not yet sent */
    pl_strbuf content; /* of the piece that is parsed for calls of functions */

    pthread_mutex_t lock;
    int32_t refs;
    bool gone; /* nobody wants the answers any more */
    bool told; /* is among the news */
    bool
        submitted; /* all choices, of streams those of the first prompt; the loop looks at nothing but an error before */
    bool paused;   /* the next prompt waits until an answer is there */
    pl_api_error error;
    double retry_after_s;
    int32_t n_open; /* choices not done */
    arrivals arrived;
};

void call_hold(pl_call *call);
void call_release(pl_call *call); /* the last frees it */

/* The first error counts; the loop hears of it. */
void call_fail(pl_call *call, const pl_api_error *error);

/* Ends what was submitted, and what will be. */
void call_cancel(pl_call *call);

void call_tell(pl_call *call); /* the loop */

/* ---- call_work.c: on the service's threads; user: a call, and a reference of it ---- */

void call_work(void *user);
void call_prepare(void *user);      /* the next prompt */
bool call_may_go_on(pl_call *call); /* under the lock: it was paused and is no more */
void call_go_on(pl_call *call);

/* ---- call_arrive.c: on the scheduler's thread ---- */

bool call_token(void *user, const pl_token_event *event); /* user: a choice */
void call_done(void *user, const pl_outcome *outcome);
void arrivals_free(arrivals *a);

/* ---- call_look.c: on the loop ---- */

void call_look(pl_call_news_item *item);
void call_gone(void *user);
void call_quiet(pl_call_quiet *quiet);
void call_respond_failed(pl_call *call, const pl_api_error *error, double retry_after_s);

#endif
