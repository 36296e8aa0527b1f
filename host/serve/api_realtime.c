/* The loop's side of a realtime session: the handshake, frames in and out, the end. */
#include "host/serve/api_realtime.h"

#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/random.h>

#include "host/serve/realtime_parts.h"

#define MESSAGE_BYTES ((size_t)4 << 20)  /* a minute of sound */
#define WAITING_BYTES ((size_t)16 << 20) /* of messages */
#define PINGS 2                          /* not answered: the client has vanished */

/* ---- lifetime ---------------------------------------------------------------------------------- */

static void realtime_free(realtime *rt)
{
    for (realtime_message *m = rt->first, *next; m; m = next) {
        next = m->next;
        free(m);
    }
    realtime_forget(rt);
    pl_websocket_clear(&rt->socket);
    pl_strbuf_free(&rt->sends);
    pl_strbuf_free(&rt->answer);
    pl_strbuf_free(&rt->out);
    pl_strbuf_free(&rt->delta);
    pthread_mutex_destroy(&rt->lock);
    free(rt);
}

void realtime_release(realtime *rt)
{
    pthread_mutex_lock(&rt->lock);
    bool last = --rt->refs == 0;
    pthread_mutex_unlock(&rt->lock);
    if (last)
        realtime_free(rt);
}

bool realtime_is_gone(void *user)
{
    realtime *rt = user;
    pthread_mutex_lock(&rt->lock);
    bool gone = rt->gone;
    pthread_mutex_unlock(&rt->lock);
    return gone;
}

void realtime_tell(realtime *rt)
{
    pthread_mutex_lock(&rt->lock);
    bool news = !rt->told && !rt->gone;
    if (news) {
        rt->told = true;
        rt->refs++;
    }
    pthread_mutex_unlock(&rt->lock);
    if (news)
        (void)pl_call_news_add(pl_service_news(rt->service), rt->http, &rt->news, NULL);
}

void realtime_name(realtime *rt, const char *prefix, char out[REALTIME_ID])
{
    snprintf(out, REALTIME_ID, "%s_%016llx%06llx", prefix, (unsigned long long)rt->random,
             (unsigned long long)atomic_fetch_add(&rt->n_ids, 1));
}

/* What to do for the exchange's part when it is over or gone. */
static void let_go(realtime *rt)
{
    rt->exchange = NULL;
    pl_call_quiet_forget(&rt->quiet);
    pthread_mutex_lock(&rt->lock);
    rt->gone = true;
    uint64_t request = rt->active ? rt->request : 0;
    pthread_mutex_unlock(&rt->lock);
    if (request)
        pl_scheduler_cancel(pl_service_scheduler(rt->service), request);
    realtime_release(rt);
}

static void on_gone(void *user)
{
    let_go(user);
}

/* ---- out --------------------------------------------------------------------------------------- */

/* Sends what there is to say; ends the exchange behind a close. The caller has a reference. */
static void send_out(realtime *rt)
{
    if (!rt->exchange)
        return;
    if (rt->sends.failed) {
        pl_exchange_drop(rt->exchange);
        return;
    }
    bool sent = rt->sends.n == 0 || pl_exchange_send(rt->exchange, rt->sends.data, rt->sends.n);
    pl_strbuf_clear(&rt->sends);
    if (sent && rt->socket.closed) {
        pl_exchange_end(rt->exchange);
        let_go(rt);
    }
}

/* Where the server ends, and nothing is under way. */
static void close_if_drained(realtime *rt)
{
    pthread_mutex_lock(&rt->lock);
    bool idle = !rt->active && !rt->works;
    pthread_mutex_unlock(&rt->lock);
    if (rt->drains && idle)
        pl_websocket_close(&rt->socket, PL_WEBSOCKET_GOING_AWAY, "the server ends", &rt->sends);
}

static void begin_response(realtime *rt)
{
    pl_strbuf_clear(&rt->answer);
    rt->begun = true;
    realtime_put_begin(rt, &rt->sends);
}

static void say_delta(realtime *rt, const pl_strbuf *delta)
{
    pl_strbuf_add(&rt->answer, delta->data, delta->n);
    realtime_put_delta(rt, delta->data, delta->n, &rt->sends);
    rt->sends.failed = rt->sends.failed || delta->failed || rt->answer.failed;
}

static void end_response(realtime *rt)
{
    char text[120];
    const pl_generated *a = &rt->response.outcome.answer;
    rt->begun = false;
    realtime_put_end(rt, &rt->sends);
    snprintf(text, sizeof text, "%zu + %zu tokens", a->n_prompt, a->n_tokens);
    pl_exchange_note(rt->exchange, text);
    if (!realtime_give(rt, true, rt->answer.data ? rt->answer.data : "", rt->answer.n))
        rt->sends.failed = true;
}

static void look(pl_call_news_item *item)
{
    realtime *rt = (realtime *)item;
    pl_strbuf delta = {0};
    pthread_mutex_lock(&rt->lock);
    rt->told = false;
    pl_strbuf_add(&rt->sends, rt->out.data, rt->out.n);
    rt->sends.failed = rt->sends.failed || rt->out.failed;
    pl_strbuf_clear(&rt->out);
    bool responds = rt->submitted, done = responds && rt->done;
    if (responds) {
        delta = rt->delta;
        rt->delta = (pl_strbuf){0};
    }
    if (done)
        rt->submitted = rt->done = false;
    int code = rt->close_code;
    pthread_mutex_unlock(&rt->lock);
    if (rt->exchange && responds) {
        if (!rt->begun)
            begin_response(rt);
        if (delta.n || delta.failed)
            say_delta(rt, &delta);
        if (done)
            end_response(rt);
    }
    pl_strbuf_free(&delta);
    if (code)
        pl_websocket_close(&rt->socket, code, "", &rt->sends);
    close_if_drained(rt);
    send_out(rt);
    realtime_release(rt);
}

static void drop_news(pl_call_news_item *item)
{
    realtime_release((realtime *)item);
}

/* ---- in ---------------------------------------------------------------------------------------- */

bool realtime_give(realtime *rt, bool answer, const char *text, size_t n)
{
    realtime_message *m = malloc(sizeof *m + n + 1);
    if (!m)
        return false;
    *m = (realtime_message){.answer = answer, .n = n};
    memcpy(m->text, text, n);
    m->text[n] = '\0';
    pthread_mutex_lock(&rt->lock);
    bool room = answer || rt->waiting + n + REALTIME_COST <= WAITING_BYTES;
    bool starts = room && !rt->works;
    if (room) {
        rt->waiting += n + REALTIME_COST;
        *rt->last = m;
        rt->last = &m->next;
    }
    if (starts) {
        rt->works = true;
        rt->refs++;
    }
    pthread_mutex_unlock(&rt->lock);
    if (!room)
        free(m);
    if (!starts || pl_service_work_media(rt->service, realtime_work, rt, NULL) == PL_OK)
        return room;
    pthread_mutex_lock(&rt->lock);
    rt->works = false;
    rt->refs--; /* the exchange's is left */
    pthread_mutex_unlock(&rt->lock);
    return false;
}

static void on_message(void *user, const char *text, size_t n)
{
    realtime *rt = user;
    if (!realtime_give(rt, false, text, n))
        pl_websocket_close(&rt->socket, PL_WEBSOCKET_BUSY, "too much waits to be read", &rt->sends);
}

/* n = 0: the server drains. */
static void on_input(void *user, const char *bytes, size_t n)
{
    realtime *rt = user;
    pthread_mutex_lock(&rt->lock);
    rt->refs++; /* sending may find the client gone */
    pthread_mutex_unlock(&rt->lock);
    rt->pings = 0;
    rt->drains = rt->drains || n == 0;
    rt->quiet.ticks = 0;
    pl_websocket_feed(&rt->socket, bytes, n, &rt->sends);
    close_if_drained(rt);
    send_out(rt);
    realtime_release(rt);
}

static void on_quiet(pl_call_quiet *quiet)
{
    realtime *rt = (realtime *)((char *)quiet - offsetof(realtime, quiet));
    if (rt->pings++ == PINGS) {
        pl_exchange_drop(rt->exchange);
        return;
    }
    pthread_mutex_lock(&rt->lock);
    rt->refs++;
    pthread_mutex_unlock(&rt->lock);
    pl_websocket_put_ping(&rt->sends);
    send_out(rt);
    realtime_release(rt);
}

/* ---- the handshake ----------------------------------------------------------------------------- */

/* Whether a header's list has the word, in any capitals. */
static bool has_word(const pl_exchange *x, const char *header, const char *word)
{
    const char *at = pl_exchange_header(x, header);
    while (at && *at) {
        at += strspn(at, ", \t");
        size_t n = strcspn(at, ", \t");
        if (n == strlen(word) && strncasecmp(at, word, n) == 0)
            return true;
        at += n;
    }
    return false;
}

static bool refuse(pl_exchange *x, int status, const char *param, const char *code, const char *message)
{
    pl_api_error error = {.status = status};
    snprintf(error.param, sizeof error.param, "%s", param);
    snprintf(error.code, sizeof error.code, "%s", code);
    snprintf(error.message, sizeof error.message, "%s", message);
    pl_api_fail(x, &error, 0);
    return false;
}

static bool check_handshake(pl_exchange *x, char accept[PL_WEBSOCKET_ACCEPT])
{
    const char *key = pl_exchange_header(x, "Sec-WebSocket-Key"), *version;
    version = pl_exchange_header(x, "Sec-WebSocket-Version");
    if (strcmp(pl_exchange_method(x), "GET") != 0 || !has_word(x, "Upgrade", "websocket") ||
        !has_word(x, "Connection", "upgrade"))
        return refuse(x, 400, "", "websocket_expected", "This is a WebSocket: ask for an upgrade to it.");
    if (!version || strcmp(version, "13") != 0) {
        pl_exchange_set_header(x, "Sec-WebSocket-Version", "13");
        return refuse(x, 400, "", "websocket_version", "This server speaks version 13 of WebSocket.");
    }
    return (key && pl_websocket_accept(key, accept)) ||
           refuse(x, 400, "", "websocket_key", "Sec-WebSocket-Key must be 16 bytes of base64.");
}

/* NAME or NAME:PATH; none: the server's. */
static bool check_model(const pl_service *s, pl_exchange *x, char *path, size_t room)
{
    const char *asked = pl_exchange_query(x, "model"), *named = NULL;
    if (asked && (!pl_service_has_model(s, asked, &named) || (named && strlen(named) >= room)))
        return refuse(x, 404, "model", "model_not_found", "The model does not exist or you do not have access to it.");
    snprintf(path, room, "%s", named ? named : pl_service_parameters(s)->path);
    return true;
}

static pl_status create(pl_service *service, pl_exchange *x, realtime **out, pl_error *err)
{
    realtime *rt = calloc(1, sizeof *rt);
    if (!rt)
        return pl_fail_memory(err, sizeof *rt, "a session");
    *rt = (realtime){.news = {.look = look, .drop = drop_news},
                     .quiet = {.tell = on_quiet},
                     .service = service,
                     .http = pl_exchange_http(x),
                     .beta = has_word(x, "OpenAI-Beta", "realtime=v1"),
                     .client = pl_exchange_client(x),
                     .exchange = x,
                     .socket = {.max_bytes = MESSAGE_BYTES, .message = on_message, .user = rt},
                     .settings = {.rate = 24000},
                     .hearing = {.service = service, .stop = {realtime_is_gone, rt}},
                     .refs = 1,
                     .last = &rt->first};
    rt->settings.temperature = pl_service_parameters(service)->sampling.temperature;
    pthread_mutex_init(&rt->lock, NULL);
    if (getrandom(&rt->random, sizeof rt->random, GRND_NONBLOCK) != (ssize_t)sizeof rt->random)
        rt->random = pl_exchange_id(x);
    realtime_name(rt, "sess", rt->id);
    *out = rt;
    return PL_OK;
}

void pl_api_realtime(void *user, pl_exchange *x)
{
    pl_service *service = user;
    char accept[PL_WEBSOCKET_ACCEPT], path[sizeof((realtime *)NULL)->path];
    pl_error err = {.message = ""};
    realtime *rt = NULL;
    if (!check_handshake(x, accept) || !check_model(service, x, path, sizeof path))
        return;
    pl_status status = create(service, x, &rt, &err);
    if (status == PL_OK)
        status = pl_call_quiet_watch(pl_service_news(service), rt->http, &rt->quiet, &err);
    if (status != PL_OK) {
        pl_api_error error = pl_api_error_of(&err);
        pl_api_fail(x, &error, 1);
        if (rt)
            realtime_release(rt);
        return;
    }
    memcpy(rt->path, path, sizeof path);
    pl_exchange_on_gone(x, on_gone, rt);
    pl_exchange_set_header(x, "Sec-WebSocket-Accept", accept);
    if (has_word(x, "Sec-WebSocket-Protocol", "realtime"))
        pl_exchange_set_header(x, "Sec-WebSocket-Protocol", "realtime");
    pl_exchange_upgrade(x, "websocket", on_input, rt);
    realtime_put_session(rt, "session.created", &rt->sends);
    pl_exchange_send(x, rt->sends.data, rt->sends.n);
    pl_strbuf_clear(&rt->sends);
}
