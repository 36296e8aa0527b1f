/* How calls tell the loop that answers have gone on: one post for all that happened since the loop last looked, however
 * many calls it was in. Also counts the seconds in which a stream has nothing to say. */
#ifndef PL_SERVE_CALL_NEWS_H
#define PL_SERVE_CALL_NEWS_H

#include "host/serve/http.h"

typedef struct pl_call_news pl_call_news;

pl_status pl_call_news_create(pl_call_news **out, pl_error *err);

/* After the last pl_http_serve() of the server, and no service thread may be left; drops what no loop will look at. */
void pl_call_news_free(pl_call_news *news);

/* A call's place in the list; part of it. */
typedef struct pl_call_news_item {
    struct pl_call_news_item *next;
    void (*look)(struct pl_call_news_item *item); /* on the loop */
    void (*drop)(struct pl_call_news_item *item); /* instead, where there is no loop any more */
} pl_call_news_item;

/* item->look is called once, soon; from any thread. An item must not be added again before that. PL_ERR_MEMORY: not so
 * soon, but within PL_CALL_TICK_S. */
pl_status pl_call_news_add(pl_call_news *news, pl_http *http, pl_call_news_item *item, pl_error *err);

/* A stream that is to say something now and then; loop only, as is all below. */
typedef struct pl_call_quiet {
    struct pl_call_quiet *previous, *next;
    int32_t ticks; /* since it was watched or last said something; set to 0 by who speaks */
    void (*tell)(struct pl_call_quiet *quiet);
} pl_call_quiet;

#define PL_CALL_TICK_S 5
#define PL_CALL_QUIET_TICKS 3 /* then tell is called, and ticks is 0 again */

pl_status pl_call_quiet_watch(pl_call_news *news, pl_http *http, pl_call_quiet *quiet, pl_error *err);
void pl_call_quiet_forget(pl_call_quiet *quiet); /* also of one not watched */

#endif
