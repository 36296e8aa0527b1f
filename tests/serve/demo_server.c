#include "tests/serve/demo_server.h"

#include <criterion/criterion.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define DEMO_MODEL PL_TEST_DATA "/../tools/demo_model/demo.gguf"

/* ---- the server ---- */

static void *serve(void *user)
{
    pl_error err = {.message = ""};
    pl_status status = pl_http_serve(user, 0, &err);
    cr_assert_eq(status, PL_OK, "%s", err.message);
    return NULL;
}

void demo_start(demo_server *s)
{
    demo_start_with(s, DEMO_MODEL, false);
}

void demo_start_with(demo_server *s, const char *model, bool media_urls)
{
    pl_error err = {.message = ""};
    const pl_engine_params engine = {.backend = PL_BACKEND_CPU, .sessions = 16, .threads = 2, .no_pin = true};
    pl_service_params service = {.name = "demo", .path = "e4b", .max_tokens = -1, .sampling = pl_sampling_default()};
    const pl_http_params http = {.host = "127.0.0.1", .linger_s = RAW_PATIENCE_S};
    service.sampling.temperature = 0;
    service.media_urls = media_urls;
    cr_assert_eq(pl_model_open(model, &s->model, &err), PL_OK, "%s", err.message);
    cr_assert_eq(pl_engine_create(s->model, &engine, &s->engine, &err), PL_OK, "%s", err.message);
    cr_assert_eq(pl_scheduler_create(s->engine, NULL, &s->scheduler, &err), PL_OK, "%s", err.message);
    cr_assert_eq(pl_service_create(s->model, s->engine, s->scheduler, &service, &s->service, &err), PL_OK, "%s",
                 err.message);
    cr_assert_eq(pl_http_create(&http, pl_service_routes(s->service), s->service, &s->http, &err), PL_OK, "%s",
                 err.message);
    pthread_create(&s->thread, NULL, serve, s->http);
}

void demo_stop(demo_server *s)
{
    pl_http_stop(s->http);
    pl_http_stop(s->http);
    pthread_join(s->thread, NULL);
    pl_service_end(s->service);
    pl_scheduler_free(s->scheduler);
    pl_http_free(s->http);
    pl_service_free(s->service);
    pl_engine_free(s->engine);
    pl_model_close(s->model);
}

/* ---- requests ---- */

raw_response demo_ask(const demo_server *s, const char *method, const char *path, const char *body)
{
    pl_strbuf text = {0};
    int fd = raw_connect(pl_http_address(s->http));
    pl_strbuf_printf(&text, "%s %s HTTP/1.1\r\nHost: localhost\r\nContent-Length: %zu\r\n\r\n", method, path,
                     body ? strlen(body) : 0);
    pl_strbuf_add_text(&text, body ? body : "");
    raw_response response = raw_ask(fd, text.data);
    pl_strbuf_free(&text);
    close(fd);
    return response;
}

static json_t *parse(raw_response response, int status, const char *path, const char *body)
{
    json_error_t error;
    cr_assert_eq(response.status, status, "%s %s: %d %s", path, body ? body : "", response.status, raw_body(&response));
    json_t *root = json_loads(raw_body(&response), 0, &error);
    cr_assert(root, "%s: %s: %s", path, error.text, raw_body(&response));
    raw_free(&response);
    return root;
}

json_t *demo_get(const demo_server *s, int status, const char *path)
{
    return parse(demo_ask(s, "GET", path, NULL), status, path, NULL);
}

static char *print(const char *format, va_list args) __attribute__((format(printf, 1, 0)));
static char *print(const char *format, va_list args)
{
    va_list again;
    va_copy(again, args);
    size_t n = (size_t)vsnprintf(NULL, 0, format, again) + 1;
    va_end(again);
    char *text = malloc(n);
    cr_assert(text);
    vsnprintf(text, n, format, args);
    return text;
}

json_t *demo_post(const demo_server *s, int status, const char *path, const char *body, ...)
{
    va_list args;
    va_start(args, body);
    char *text = print(body, args);
    va_end(args);
    json_t *root = parse(demo_ask(s, "POST", path, text), status, path, text);
    free(text);
    return root;
}

/* "event: NAME" and "data: ..." up to a blank line; comments say nothing. */
static void add_event(json_t *events, const char *begin, const char *end)
{
    json_t *event = json_object();
    for (const char *line = begin; line < end;) {
        size_t n = strcspn(line, "\n");
        if (strncmp(line, "event: ", 7) == 0)
            json_object_set_new(event, "event", json_stringn(line + 7, n - 7));
        if (strncmp(line, "data: ", 6) == 0) {
            json_t *data = json_loadb(line + 6, n - 6, 0, NULL);
            json_object_set_new(event, "data", data ? data : json_stringn(line + 6, n - 6));
        }
        line += n + 1;
    }
    if (json_object_get(event, "data"))
        json_array_append(events, event);
    json_decref(event);
}

json_t *demo_stream(const demo_server *s, const char *path, const char *body, ...)
{
    va_list args;
    va_start(args, body);
    char *text = print(body, args);
    va_end(args);
    raw_response response = demo_ask(s, "POST", path, text);
    cr_assert(response.status == 200 && !response.cut, "%s %s: %d %s", path, text, response.status,
              raw_body(&response));
    cr_assert_str_eq(raw_header(&response, "content-type"), "text/event-stream");
    const char *unbuffered = strstr(response.head.data, "X-Accel-Buffering: no\r\n");
    cr_assert(unbuffered && !strstr(unbuffered + 1, "X-Accel-Buffering"), "%s", response.head.data);
    json_t *events = json_array();
    const char *end;
    for (const char *at = raw_body(&response); (end = strstr(at, "\n\n")); at = end + 2)
        add_event(events, at, end);
    raw_free(&response);
    free(text);
    return events;
}

/* ---- JSON ---- */

const json_t *json_at(const json_t *root, const char *path)
{
    while (root && *path) {
        char name[64];
        size_t n = strcspn(path, ".");
        snprintf(name, sizeof name, "%.*s", (int)n, path);
        root = json_is_array(root) ? json_array_get(root, strtoul(name, NULL, 10)) : json_object_get(root, name);
        path += n + (path[n] == '.');
    }
    return root;
}

const char *json_text_at(const json_t *root, const char *path)
{
    const char *text = json_string_value(json_at(root, path));
    return text ? text : "";
}

int64_t json_int_at(const json_t *root, const char *path)
{
    const json_t *value = json_at(root, path);
    return json_is_integer(value) ? json_integer_value(value) : -1;
}
