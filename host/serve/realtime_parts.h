/* The inside of a realtime session, for api_realtime.c and realtime_*.c.
 *
 *     loop     what comes is cut into messages (websocket.h), which wait in the session; what there is to say is sent
 *     media    realtime_work(): one message after another, and a turn for others between. Speech is encoded as it arrives
 *     scheduler pieces of the answer pile up
 *
 * A session is freed by its last reference: of the exchange, the work, the request, and the news. */
#ifndef PL_SERVE_REALTIME_PARTS_H
#define PL_SERVE_REALTIME_PARTS_H

#include <pthread.h>
#include <stdatomic.h>

#include "host/base/json_out.h"
#include "host/base/strbuf.h"
#include "host/serve/conversation.h"
#include "host/serve/fields.h"
#include "host/serve/realtime_hear.h"
#include "host/serve/service.h"
#include "host/serve/websocket.h"

#define REALTIME_ID 40
#define REALTIME_COST 256 /* bytes that a message counts beside its text, while it waits */

/* Something of the conversation: a text, or speech. Several may have the same id: parts of one item. */
typedef struct realtime_entry {
    char id[REALTIME_ID];
    pl_speaker speaker;
    pl_strbuf text;
    pl_media_part part; /* without rows: it is text */
} realtime_entry;

/* What came: an event of the client, or the answer that the loop has sent. */
typedef struct realtime_message {
    struct realtime_message *next;
    bool answer;
    size_t n;
    char text[]; /* and a NUL */
} realtime_message;

/* What the client may set. */
typedef struct realtime_settings {
    char *instructions; /* NULL: none */
    double rate;        /* of its sound */
    float temperature;
    int32_t max_tokens; /* 0: as many as the server gives */
} realtime_settings;

/* Of the response that is being made. Written before it is told, read after. */
typedef struct realtime_response {
    char id[REALTIME_ID], item[REALTIME_ID], previous[REALTIME_ID];
    int64_t audio_tokens;
    pl_outcome outcome; /* without its texts */
    pl_error error;
} realtime_response;

typedef struct realtime {
    pl_call_news_item news;
    pl_call_quiet quiet;
    pl_service *service;
    pl_http *http;
    bool beta; /* names of events before they were final */
    uint64_t client, random;
    _Atomic uint64_t n_ids;
    char id[REALTIME_ID], path[256];

    /* the loop's */
    pl_exchange *exchange; /* NULL once it is over */
    pl_websocket socket;
    pl_strbuf sends;  /* what the loop itself says */
    pl_strbuf answer; /* so far */
    bool begun;       /* the response is told */
    bool drains;
    int pings; /* not answered */

    /* the work's */
    realtime_settings settings;
    pl_hearing hearing;
    realtime_entry *entries;
    size_t n_entries, entries_room;
    size_t heard; /* samples of all entries */
    realtime_response response;

    pthread_mutex_t lock; /* of what follows */
    int refs;
    bool gone, told, works;
    realtime_message *first, **last;
    size_t waiting; /* bytes */
    pl_strbuf out;  /* frames of the work's events */
    int close_code; /* 0: none */
    bool active;    /* a response is being made: until its answer is an entry */
    bool submitted, done;
    uint64_t request;
    pl_strbuf delta;
} realtime;

void realtime_release(realtime *rt);
void realtime_tell(realtime *rt); /* the loop that there is news */
bool realtime_is_gone(void *user);
void realtime_name(realtime *rt, const char *prefix, char out[REALTIME_ID]);

/* Frees what the work holds; for the end. */
void realtime_forget(realtime *rt);

/* Gives the message to the work. False: too much waits, or no memory. Loop only. */
bool realtime_give(realtime *rt, bool answer, const char *text, size_t n);

/* realtime_work.c; user: a session, and a reference of it. */
void realtime_work(void *user);

/* What may be set for one response, of its object f; f->error: what is wrong with it. */
bool realtime_read_response(realtime *rt, pl_fields *f, realtime_settings *settings, const char **instructions);

/* realtime_respond.c: on the work's thread; false: *error, which is also f's, says why. */
bool realtime_respond(realtime *rt, pl_fields *f, pl_api_error *error);

/* realtime_put.c: begin an event, {"type", "event_id"; to be ended. */
pl_json realtime_event(realtime *rt, const char *type);

/* Ends an event and adds it as a frame. */
void realtime_add(pl_strbuf *out, pl_json *json);

void realtime_put_session(realtime *rt, const char *type, pl_strbuf *out);
void realtime_put_error(realtime *rt, const pl_api_error *error, const char *event_id, pl_strbuf *out);
void realtime_put_item(realtime *rt, const realtime_entry *entries, size_t n, const char *previous, pl_strbuf *out);

/* The response, from the loop. */
void realtime_put_begin(realtime *rt, pl_strbuf *out);
void realtime_put_delta(realtime *rt, const char *text, size_t n, pl_strbuf *out);
void realtime_put_end(realtime *rt, pl_strbuf *out);

#endif
