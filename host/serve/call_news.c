#include "host/serve/call_news.h"

#include <pthread.h>
#include <stdlib.h>

struct pl_call_news {
    pthread_mutex_t lock;
    pl_call_news_item *first, **last; /* under the lock */
    bool posted;
    pl_call_quiet quiet; /* the ends of the list; loop only */
    bool ticking;
};

pl_status pl_call_news_create(pl_call_news **out, pl_error *err)
{
    pl_call_news *news = calloc(1, sizeof *news);
    if (!news)
        return pl_fail_memory(err, sizeof *news, "the list of news");
    pthread_mutex_init(&news->lock, NULL);
    news->last = &news->first;
    news->quiet.previous = news->quiet.next = &news->quiet;
    *out = news;
    return PL_OK;
}

static pl_call_news_item *take_all(pl_call_news *news)
{
    pthread_mutex_lock(&news->lock);
    pl_call_news_item *first = news->first;
    news->first = NULL;
    news->last = &news->first;
    news->posted = false;
    pthread_mutex_unlock(&news->lock);
    return first;
}

void pl_call_news_free(pl_call_news *news)
{
    if (!news)
        return;
    pl_call_news_item *next;
    for (pl_call_news_item *item = take_all(news); item; item = next) {
        next = item->next;
        item->drop(item);
    }
    pthread_mutex_destroy(&news->lock);
    free(news);
}

static void look(void *user)
{
    pl_call_news_item *next;
    for (pl_call_news_item *item = take_all(user); item; item = next) {
        next = item->next;
        item->look(item);
    }
}

pl_status pl_call_news_add(pl_call_news *news, pl_http *http, pl_call_news_item *item, pl_error *err)
{
    item->next = NULL;
    pthread_mutex_lock(&news->lock);
    *news->last = item;
    news->last = &item->next;
    bool post = !news->posted;
    news->posted = true;
    pthread_mutex_unlock(&news->lock);
    return post ? pl_http_post(http, look, news, err) : PL_OK;
}

/* Also looks at the news whose post there was no memory for. */
static void tick(void *user)
{
    pl_call_news *news = user;
    pl_call_quiet *next;
    look(news);
    for (pl_call_quiet *quiet = news->quiet.next; quiet != &news->quiet; quiet = next) {
        next = quiet->next;
        if (++quiet->ticks < PL_CALL_QUIET_TICKS)
            continue;
        quiet->ticks = 0;
        quiet->tell(quiet);
    }
}

pl_status pl_call_quiet_watch(pl_call_news *news, pl_http *http, pl_call_quiet *quiet, pl_error *err)
{
    if (!news->ticking)
        PL_TRY(pl_http_every(http, PL_CALL_TICK_S, tick, news, err));
    news->ticking = true;
    quiet->ticks = 0;
    quiet->next = &news->quiet;
    quiet->previous = news->quiet.previous;
    quiet->previous->next = quiet->next->previous = quiet;
    return PL_OK;
}

void pl_call_quiet_forget(pl_call_quiet *quiet)
{
    if (!quiet->next)
        return;
    quiet->previous->next = quiet->next;
    quiet->next->previous = quiet->previous;
    quiet->next = quiet->previous = NULL;
}
