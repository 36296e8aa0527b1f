/* Any bytes as the body of a request: a line with the path of a route, then the body. It goes all the way through the
 * call and its format; the exchange, the scheduler and the towers are made up here, in place of the library's. */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "host/base/status.h"
#include "host/serve/service.h"

struct pl_exchange {
    const char *path, *body;
    size_t n_body;
    bool begun;
    int over; /* times */
};

typedef struct post {
    void (*fn)(void *user);
    void *user;
} post;

static struct {
    pthread_mutex_t lock;
    pthread_cond_t change;
    post list[16];
    int n;
} posted = {.lock = PTHREAD_MUTEX_INITIALIZER, .change = PTHREAD_COND_INITIALIZER};

/* ---- the exchange ---- */

const char *pl_exchange_method(const pl_exchange *x)
{
    (void)x;
    return "POST";
}

const char *pl_exchange_path(const pl_exchange *x)
{
    return x->path;
}

const char *pl_exchange_query(const pl_exchange *x, const char *name)
{
    (void)x;
    (void)name;
    return NULL;
}

const char *pl_exchange_header(const pl_exchange *x, const char *name)
{
    (void)x;
    return strcmp(name, "Content-Type") == 0 ? "multipart/form-data; boundary=XX" : NULL;
}

const char *pl_exchange_body(const pl_exchange *x, size_t *n)
{
    *n = x->n_body;
    return x->body;
}

uint64_t pl_exchange_client(const pl_exchange *x)
{
    (void)x;
    return 1;
}

uint64_t pl_exchange_id(const pl_exchange *x)
{
    (void)x;
    return 1;
}

pl_http *pl_exchange_http(const pl_exchange *x)
{
    (void)x;
    return NULL;
}

void pl_exchange_on_gone(pl_exchange *x, void (*fn)(void *user), void *user)
{
    (void)x;
    (void)fn;
    (void)user;
}

void pl_exchange_note(pl_exchange *x, const char *text)
{
    (void)x;
    (void)text;
}

void pl_exchange_set_header(pl_exchange *x, const char *name, const char *value)
{
    (void)x;
    (void)name;
    (void)value;
}

/* Whatever is said must be JSON. */
void pl_exchange_respond(pl_exchange *x, int status, const char *content_type, const char *body, size_t n)
{
    if (x->over++ || x->begun || status < 200 || n == 0 || !strstr(content_type, "json") || !memchr("{[", body[0], 2))
        abort();
}

void pl_exchange_begin(pl_exchange *x, int status, const char *content_type)
{
    (void)content_type;
    if (x->begun || x->over || status != 200)
        abort();
    x->begun = true;
}

bool pl_exchange_send(pl_exchange *x, const char *data, size_t n)
{
    (void)data;
    (void)n;
    if (!x->begun || x->over)
        abort();
    return true;
}

void pl_exchange_end(pl_exchange *x)
{
    if (!x->begun || x->over++)
        abort();
}

/* Only where memory runs out in the middle of a response, which it does not here. */
void pl_exchange_drop(pl_exchange *x)
{
    (void)x;
    abort();
}

pl_status pl_http_post(pl_http *http, void (*fn)(void *user), void *user, pl_error *err)
{
    (void)http;
    (void)err;
    pthread_mutex_lock(&posted.lock);
    if (posted.n == 16)
        abort();
    posted.list[posted.n++] = (post){fn, user};
    pthread_cond_signal(&posted.change);
    pthread_mutex_unlock(&posted.lock);
    return PL_OK;
}

pl_status pl_http_every(pl_http *http, double seconds, void (*fn)(void *user), void *user, pl_error *err)
{
    (void)http;
    (void)seconds;
    (void)fn;
    (void)user;
    (void)err;
    return PL_OK;
}

pl_http_stats pl_http_count(const pl_http *http)
{
    (void)http;
    return (pl_http_stats){0};
}

/* ---- the scheduler: answers at once, with what a parser of functions would look at ---- */

static void answer(const pl_request *r)
{
    static const char *const pieces[] = {"{\"name", "\": \"f\", \"parameters\": {\"a\"", ": 1}}", "\xc3\xa9 "};
    const pl_logprob top[20] = {{1, -0.5f}, {2, -1.5f}};
    pl_token_event event = {.logprob = -0.5f, .top = top};
    event.n_top = r->generation.n_logprobs > 0 ? (size_t)r->generation.n_logprobs : 0;
    for (size_t i = 0; i < 4 && !r->embed; i++) {
        event.id = (int32_t)(300 + i);
        event.text = pieces[i];
        event.n_bytes = strlen(pieces[i]);
        if (event.n_top > 20 || !r->generation.on_token(r->generation.user, &event))
            abort();
    }
}

pl_status pl_scheduler_submit(pl_scheduler *scheduler, const pl_request *r, uint64_t *id, pl_error *err)
{
    (void)scheduler;
    static const float state[8] = {1, 2, 3};
    pl_outcome outcome = {.message = "", .path = "e4b", .reason = "asked for"};
    if (r->n_prompt == 0)
        return pl_fail(err, PL_ERR_ARGUMENT, "the prompt is empty");
    outcome.answer = (pl_generated){.n_prompt = r->n_prompt, .n_tokens = 4, .stop_index = -1};
    outcome.state = r->embed ? state : NULL;
    outcome.n_state = r->embed ? 8 : 0;
    *id = 1;
    answer(r);
    r->on_done(r->user, &outcome);
    return PL_OK;
}

void pl_scheduler_cancel(pl_scheduler *scheduler, uint64_t id)
{
    (void)scheduler;
    (void)id;
}

void pl_scheduler_count(pl_scheduler *scheduler, pl_scheduler_stats *out)
{
    (void)scheduler;
    *out = (pl_scheduler_stats){0};
}

double pl_histogram_bound(int i)
{
    return i;
}

void pl_engine_describe(const pl_engine *engine, pl_engine_info *out)
{
    (void)engine;
    *out = (pl_engine_info){.backend = "none", .placement = "", .context = 2048};
}

/* ---- towers: nothing can be encoded ---- */

pl_status pl_media_create(pl_engine *engine, pl_media_kind kind, const void *bytes, size_t n, const char *name,
                          const pl_media_params *params, pl_media **out, pl_error *err)
{
    (void)engine;
    (void)kind;
    (void)params;
    (void)out;
    if (n == 0 || !bytes)
        abort();
    return pl_fail(err, PL_ERR_FORMAT, "%s is not encoded here", name);
}

pl_status pl_media_from_samples(pl_engine *engine, const float *samples, size_t n, const pl_media_params *params,
                                pl_media **out, pl_error *err)
{
    (void)engine;
    (void)params;
    (void)out;
    if (n == 0 || !samples)
        abort();
    return pl_fail(err, PL_ERR_FORMAT, "sound is not encoded here");
}

/* ---- one request ---- */

static pl_service *make_service(void)
{
    const pl_service_params params = {
        .name = "demo", .path = "auto", .max_tokens = 100, .sampling = pl_sampling_default()};
    pl_model *model;
    pl_service *service;
    if (pl_model_open(PL_TEST_DATA "/../tools/demo_model/demo.gguf", &model, NULL) != PL_OK ||
        pl_service_create(model, NULL, NULL, &params, &service, NULL) != PL_OK)
        abort();
    return service;
}

static const pl_http_route *find_route(const pl_service *service, const char *path)
{
    const pl_http_route *r = pl_service_routes(service);
    while (r->method && (strcmp(r->method, "POST") != 0 || strcmp(r->path, path) != 0))
        r++;
    return r->method ? r : NULL;
}

static void run_posted(void)
{
    pthread_mutex_lock(&posted.lock);
    while (posted.n == 0)
        pthread_cond_wait(&posted.change, &posted.lock);
    post first = posted.list[0];
    memmove(posted.list, posted.list + 1, (size_t)--posted.n * sizeof first);
    pthread_mutex_unlock(&posted.lock);
    first.fn(first.user);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static pl_service *service;
    char path[64];
    const uint8_t *line = memchr(data, '\n', size);
    if (!line || (size_t)(line - data) >= sizeof path)
        return 0;
    memcpy(path, data, (size_t)(line - data));
    path[line - data] = '\0';
    if (!service)
        service = make_service();
    const pl_http_route *route = find_route(service, path);
    if (!route)
        return 0;
    pl_exchange x = {.path = path, .body = (const char *)line + 1, .n_body = size - (size_t)(line + 1 - data)};
    route->handler(service, &x);
    while (!x.over)
        run_posted();
    return 0;
}
