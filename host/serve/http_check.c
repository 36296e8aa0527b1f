/* Which handler a request goes to, and whether it may. */
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "host/serve/api_error.h"
#include "host/serve/http_parts.h"

static bool path_fits(const pl_http_route *route, const char *path)
{
    size_t n = strlen(route->path);
    if (n > 1 && route->path[n - 1] == '/')
        return strncmp(route->path, path, n) == 0 && path[n];
    return strcmp(route->path, path) == 0;
}

static const char *method_of(const pl_exchange *x)
{
    return x->head_only ? "GET" : x->request.method;
}

static const pl_http_route *find_route(const pl_http *http, const pl_exchange *x, bool *known)
{
    *known = false;
    for (const pl_http_route *route = http->routes; route->method; route++) {
        if (!path_fits(route, x->request.path))
            continue;
        *known = true;
        if (strcmp(route->method, method_of(x)) == 0)
            return route;
    }
    return NULL;
}

/* "Allow: GET, HEAD, OPTIONS", or another header that lists them. */
static void put_methods(pl_exchange *x, const char *header)
{
    pl_strbuf list = {.data = NULL};
    for (const pl_http_route *route = x->http->routes; route->method; route++)
        if (path_fits(route, x->request.path))
            pl_strbuf_printf(&list, "%s, %s", route->method, strcmp(route->method, "GET") == 0 ? "HEAD, " : "");
    pl_strbuf_add_text(&list, "OPTIONS");
    pl_exchange_set_header(x, header, list.data ? list.data : "OPTIONS");
    pl_strbuf_free(&list);
}

static bool refuse(pl_exchange *x, int status, const char *code, const char *format, ...) PL_PRINTF(4, 5);

static bool refuse(pl_exchange *x, int status, const char *code, const char *format, ...)
{
    pl_api_error error = {.status = status};
    snprintf(error.code, sizeof error.code, "%s", code);
    va_list args;
    va_start(args, format);
    vsnprintf(error.message, sizeof error.message, format, args);
    va_end(args);
    pl_api_fail(x, &error, 0);
    return false;
}

/* ---- who asks ---- */

/* "localhost:8080" and the like. */
static bool names_loopback(const char *host)
{
    size_t n = *host == '[' ? strcspn(host, "]") : strcspn(host, ":");
    n += host[n] == ']';
    if (host[n] == ':' && host[n + 1 + strspn(host + n + 1, "0123456789")] != '\0')
        return false;
    if (strncasecmp(host, "[::1]", n) == 0 && n == 5)
        return true;
    if (n >= 9 && strncasecmp(host + n - 9, "localhost", 9) == 0)
        return n == 9 || host[n - 10] == '.';
    size_t digits = strspn(host, "0123456789.");
    return strncmp(host, "127.", 4) == 0 && digits == n;
}

static bool origin_is_listed(const pl_http *http, const char *origin)
{
    for (size_t i = 0; i < http->params.n_origins; i++)
        if (strcmp(http->params.origins[i], "*") == 0 || strcasecmp(http->params.origins[i], origin) == 0)
            return true;
    return false;
}

static bool origin_is_ours(const pl_exchange *x, const char *origin)
{
    const char *host = strstr(origin, "://");
    return host && x->request.host && strcasecmp(host + 3, x->request.host) == 0;
}

static bool check_sender(pl_http *http, pl_exchange *x)
{
    const char *origin = pl_exchange_header(x, "origin");
    if (http->loopback && x->request.host && !names_loopback(x->request.host))
        return refuse(x, 403, "host_not_allowed", "This server answers on localhost only, not as \"%s\".",
                      x->request.host);
    if (!origin)
        return true;
    if (origin_is_listed(http, origin)) {
        pl_exchange_set_header(x, "Access-Control-Allow-Origin", origin);
        pl_exchange_set_header(x, "Access-Control-Expose-Headers", "X-Request-Id, Retry-After");
        pl_exchange_set_header(x, "Vary", "Origin");
        return true;
    }
    return origin_is_ours(x, origin) || refuse(x, 403, "origin_not_allowed",
                                               "Pages of \"%s\" may not ask this server (--cors allows them).", origin);
}

/* "Authorization: Bearer KEY", or "x-api-key: KEY" as Anthropic's clients send it. */
static const char *given_key(const pl_exchange *x)
{
    const char *text = pl_exchange_header(x, "authorization");
    if (text && strncasecmp(text, "Bearer ", 7) == 0)
        return text + 7 + strspn(text + 7, " ");
    return pl_exchange_header(x, "x-api-key");
}

static bool check_key(pl_http *http, pl_exchange *x)
{
    if (http->keys.n == 0)
        return true;
    const char *key = given_key(x);
    uint64_t client;
    if (pl_http_keys_have(&http->keys, key ? key : "", key ? strlen(key) : 0, &client)) {
        x->client = client;
        return true;
    }
    if (x->route->open)
        return true;
    pl_exchange_set_header(x, "WWW-Authenticate", "Bearer");
    return refuse(x, 401, "invalid_api_key", "%s",
                  key ? "The API key is not one of this server's."
                      : "This server wants an API key: send it as \"Authorization: Bearer KEY\".");
}

/* ---- OPTIONS ---- */

static bool respond_options(pl_exchange *x)
{
    const char *asked = pl_exchange_header(x, "access-control-request-headers");
    put_methods(x, "Allow");
    if (pl_exchange_header(x, "access-control-request-method")) {
        put_methods(x, "Access-Control-Allow-Methods");
        pl_exchange_set_header(x, "Access-Control-Max-Age", "600");
        if (asked)
            pl_exchange_set_header(x, "Access-Control-Allow-Headers", asked);
    }
    pl_exchange_respond(x, 204, NULL, "", 0);
    return false;
}

static bool asks_for_options(const pl_exchange *x)
{
    bool known;
    if (strcmp(x->request.method, "OPTIONS") != 0)
        return false;
    find_route(x->http, x, &known);
    return known || strcmp(x->request.path, "*") == 0;
}

bool pl_http_find_route(pl_exchange *x)
{
    bool known;
    x->route = find_route(x->http, x, &known);
    if (!known)
        return refuse(x, 404, "unknown_url", "Unknown request URL: %s %.300s.", x->request.method, x->request.path);
    if (!x->route) {
        put_methods(x, "Allow");
        return refuse(x, 405, "method_not_supported", "Not allowed here: %s.", x->request.method);
    }
    return true;
}

bool pl_http_check(pl_exchange *x)
{
    pl_http *http = x->http;
    if (!check_sender(http, x))
        return false;
    if (asks_for_options(x))
        return respond_options(x);
    return pl_http_find_route(x) && check_key(http, x);
}
