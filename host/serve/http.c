#include "host/serve/http.h"

#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "host/base/clock.h"
#include "host/serve/http_parts.h"

#define SCRATCH_BYTES 65536
#define EVENTS 256
#define SWEEP_S 1.0

/* ---- life ---- */

static void set_defaults(pl_http_params *p)
{
    if (p->max_body_bytes == 0)
        p->max_body_bytes = (size_t)32 << 20;
    if (p->max_connections <= 0)
        p->max_connections = 4096;
    if (p->read_timeout_s <= 0)
        p->read_timeout_s = 30;
    if (p->write_timeout_s <= 0)
        p->write_timeout_s = 30;
    if (p->linger_s <= 0)
        p->linger_s = 2;
    if (p->max_unsent_bytes == 0)
        p->max_unsent_bytes = (size_t)4 << 20;
}

static pl_status copy_origins(pl_http *http, const pl_http_params *params, pl_error *err)
{
    http->params.n_origins = 0;
    http->origins = calloc(params->n_origins + 1, sizeof *http->origins);
    http->params.origins = (const char *const *)http->origins;
    for (size_t i = 0; http->origins && i < params->n_origins; i++) {
        http->origins[i] = strdup(params->origins[i]);
        if (!http->origins[i])
            break;
        http->params.n_origins++;
    }
    return http->params.n_origins == params->n_origins && http->origins ? PL_OK : pl_fail_memory(err, 0, "origins");
}

static bool watch_descriptor(pl_http *http, int fd, void *mark)
{
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = mark};
    return epoll_ctl(http->epoll, EPOLL_CTL_ADD, fd, &event) == 0;
}

static pl_status open_loop(pl_http *http, pl_error *err)
{
    http->epoll = epoll_create1(EPOLL_CLOEXEC);
    http->wake = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    http->spare = open("/dev/null", O_RDONLY | O_CLOEXEC);
    bool ok = http->epoll >= 0 && http->wake >= 0 && http->spare >= 0 &&
              watch_descriptor(http, http->wake, &http->wake);
    for (int i = 0; ok && i < http->n_listeners; i++)
        ok = watch_descriptor(http, http->listeners[i], &http->listeners[i]);
    return ok ? PL_OK : pl_fail(err, PL_ERR_IO, "cannot watch sockets: %s", strerror(errno));
}

pl_status pl_http_create(const pl_http_params *params, const pl_http_route *routes, void *user, pl_http **out,
                         pl_error *err)
{
    pl_status status;
    pl_http *http = calloc(1, sizeof *http);
    if (!http)
        return pl_fail_memory(err, sizeof *http, "HTTP server");
    http->params = *params;
    http->epoll = http->wake = http->spare = -1;
    http->routes = routes;
    http->user = user;
    pthread_mutex_init(&http->lock, NULL);
    set_defaults(&http->params);
    PL_TRY_GOTO(copy_origins(http, params, err));
    PL_TRY_GOTO(pl_http_keys_init(&http->keys, params->keys, params->n_keys, err));
    http->params.keys = NULL;
    http->id_prefix = pl_http_hash_of(http->keys.secret, "id", 2).half[0] >> 32;
    http->scratch = malloc(SCRATCH_BYTES);
    if (!http->scratch) {
        status = pl_fail_memory(err, SCRATCH_BYTES, "HTTP server");
        goto fail;
    }
    PL_TRY_GOTO(pl_http_listen(http, err));
    http->params.host = NULL;
    PL_TRY_GOTO(open_loop(http, err));
    *out = http;
    return PL_OK;
fail:
    pl_http_free(http);
    return status;
}

/* Those that no other list has. */
static void free_dead(pl_http *http)
{
    for (pl_connection **at = &http->dead; *at;) {
        pl_connection *c = *at;
        if (c->is_later) {
            at = &c->next_dead;
            continue;
        }
        *at = c->next_dead;
        pl_connection_free(c);
    }
}

static void work_on_later(pl_http *http)
{
    pl_connection *c = http->later;
    http->later = NULL;
    while (c) {
        c->is_later = false;
        pl_connection_work(c);
        c = c->next_later;
    }
}

static void drop_all(pl_http *http)
{
    while (http->all)
        pl_connection_drop(http->all);
    while (http->inside)
        pl_inside_drop(http->inside);
}

static void run_posted(pl_http *http)
{
    pthread_mutex_lock(&http->lock);
    pl_posted *posted = http->posted;
    size_t n = http->n_posted;
    http->posted = NULL;
    http->n_posted = http->posted_room = 0;
    pthread_mutex_unlock(&http->lock);
    for (size_t i = 0; i < n; i++)
        posted[i].fn(posted[i].user);
    free(posted);
}

static void close_descriptor(int fd)
{
    if (fd >= 0)
        close(fd);
}

void pl_http_free(pl_http *http)
{
    if (!http)
        return;
    http->draining = true; /* requests that were posted do not begin any more */
    drop_all(http);
    run_posted(http);
    work_on_later(http);
    free_dead(http);
    pl_http_unlisten(http);
    close_descriptor(http->epoll);
    close_descriptor(http->wake);
    close_descriptor(http->spare);
    for (size_t i = 0; i < http->params.n_origins; i++)
        free(http->origins[i]);
    free(http->origins);
    free(http->every);
    pl_http_keys_free(&http->keys);
    pthread_mutex_destroy(&http->lock);
    free(http->scratch);
    free(http);
}

const char *pl_http_address(const pl_http *http)
{
    return http->address;
}

bool pl_http_is_local(const pl_http *http)
{
    return http->loopback || http->unix_path[0];
}

/* ---- from other threads ---- */

/* Also from signal handlers. */
static void wake_up(pl_http *http)
{
    int why = errno;
    uint64_t one = 1;
    if (write(http->wake, &one, sizeof one) < 0)
        errno = why; /* it is full of wake-ups */
}

void pl_http_stop(pl_http *http)
{
    atomic_fetch_add(&http->stops, 1);
    wake_up(http);
}

pl_status pl_http_post(pl_http *http, void (*fn)(void *user), void *user, pl_error *err)
{
    pthread_mutex_lock(&http->lock);
    if (http->n_posted == http->posted_room) {
        size_t room = http->posted_room ? 2 * http->posted_room : 64;
        pl_posted *posted = realloc(http->posted, room * sizeof *posted);
        if (!posted) {
            pthread_mutex_unlock(&http->lock);
            return pl_fail_memory(err, room * sizeof *posted, "calls to the HTTP loop");
        }
        http->posted = posted;
        http->posted_room = room;
    }
    http->posted[http->n_posted++] = (pl_posted){fn, user};
    bool first = http->n_posted == 1;
    pthread_mutex_unlock(&http->lock);
    if (first)
        wake_up(http);
    return PL_OK;
}

pl_http_stats pl_http_count(const pl_http *http)
{
    return (pl_http_stats){
        .connections = atomic_load(&http->n_connections),
        .exchanges = atomic_load(&http->n_exchanges),
        .requests = atomic_load(&http->n_requests),
        .bytes_in = atomic_load(&http->bytes_in),
        .bytes_out = atomic_load(&http->bytes_out),
        .refused = atomic_load(&http->n_refused),
        .dropped = atomic_load(&http->n_dropped),
        .timed_out = atomic_load(&http->n_timed_out),
    };
}

/* ---- the loop ---- */

static double sweep_period(const pl_http *http)
{
    double least = http->params.read_timeout_s < http->params.write_timeout_s ? http->params.read_timeout_s
                                                                              : http->params.write_timeout_s;
    return least / 4 < SWEEP_S ? least / 4 : SWEEP_S;
}

/* Milliseconds to sleep at most. Without clients there are no slow ones to look for. */
static int sleep_ms(const pl_http *http)
{
    double until = INFINITY;
    if (http->work)
        return 0;
    if (http->draining)
        until = http->drain_until;
    if (http->all)
        until = fmin(until, http->next_sweep);
    if (http->later)
        until = fmin(until, http->later_at);
    for (size_t i = 0; i < http->n_every; i++)
        until = fmin(until, http->every[i].next);
    if (until == INFINITY)
        return -1;
    return (int)(fmin(fmax(until - http->now, 0), 1000) * 1000) + 1;
}

pl_status pl_http_every(pl_http *http, double seconds, void (*fn)(void *user), void *user, pl_error *err)
{
    pl_every *every = realloc(http->every, (http->n_every + 1) * sizeof *every);
    if (!every)
        return pl_fail_memory(err, sizeof *every, "a timer");
    http->every = every;
    every[http->n_every++] = (pl_every){fn, user, seconds, pl_clock_seconds() + seconds};
    return PL_OK;
}

static void run_timers(pl_http *http)
{
    for (size_t i = 0; i < http->n_every; i++) {
        if (http->now < http->every[i].next)
            continue;
        http->every[i].next = http->now + http->every[i].seconds;
        http->every[i].fn(http->every[i].user);
    }
}

/* now: before the sockets were last looked at, so that nobody is slow because the loop was. */
static void sweep(pl_http *http, double now)
{
    if (!http->all || now < http->next_sweep)
        return;
    http->next_sweep = now + sweep_period(http);
    for (pl_connection *c = http->all, *next; c; c = next) {
        next = c->next;
        pl_connection_sweep(c, now);
    }
}

static void dispatch(pl_http *http, const struct epoll_event *event)
{
    void *mark = event->data.ptr;
    if (mark == &http->wake) {
        uint64_t count;
        if (read(http->wake, &count, sizeof count) > 0)
            run_posted(http);
    } else if (mark >= (void *)http->listeners && mark < (void *)(http->listeners + PL_HTTP_LISTENERS)) {
        pl_http_accept(http, *(int *)mark);
    } else {
        pl_connection_event(mark, event->events);
    }
}

static void settle(pl_http *http)
{
    pl_connection *work = http->work;
    http->work = NULL;
    while (work) {
        pl_connection *c = work;
        work = c->next_work;
        c->has_work = false;
        pl_connection_settle(c);
    }
    if (!http->work)
        free_dead(http);
}

static void obey_stops(pl_http *http, double drain_s)
{
    int stops = atomic_load(&http->stops);
    if (stops > 0 && !http->draining) {
        http->draining = true;
        http->drain_until = http->now + drain_s;
        pl_http_unlisten(http);
        for (pl_connection *c = http->all; c; c = c->next)
            pl_connection_drain(c);
    }
    if (stops > 1 || (http->draining && http->now >= http->drain_until))
        drop_all(http);
}

pl_status pl_http_serve(pl_http *http, double drain_s, pl_error *err)
{
    struct epoll_event events[EVENTS];
    for (;;) {
        http->now = pl_clock_seconds();
        obey_stops(http, drain_s);
        run_timers(http);
        if (http->now >= http->later_at)
            work_on_later(http);
        settle(http);
        if (http->draining && !http->all && !http->inside)
            return PL_OK;
        double looked = http->now;
        int n = epoll_wait(http->epoll, events, EVENTS, sleep_ms(http));
        if (n < 0 && errno != EINTR)
            return pl_fail(err, PL_ERR_IO, "cannot wait for clients: %s", strerror(errno));
        http->now = pl_clock_seconds();
        for (int i = 0; i < n; i++)
            dispatch(http, &events[i]);
        settle(http);
        sweep(http, looked);
    }
}
