#include "host/serve/assets.h"

#include <string.h>

#include "host/serve/api_error.h"

const char *pl_asset_type(const char *path)
{
    static const char *const types[][2] = {
        {".html", "text/html; charset=utf-8"},
        {".js", "text/javascript; charset=utf-8"},
        {".css", "text/css; charset=utf-8"},
        {".json", "application/json"},
        {".svg", "image/svg+xml"},
        {".webmanifest", "application/manifest+json"},
    };
    const char *dot = strrchr(path, '.');
    for (size_t i = 0; dot && i < sizeof types / sizeof types[0]; i++)
        if (strcmp(dot, types[i][0]) == 0)
            return types[i][1];
    return "application/octet-stream";
}

static const pl_asset *find(const char *path)
{
    if (strcmp(path, "/") == 0)
        path = "/index.html";
    else if (strcmp(path, "/favicon.ico") == 0)
        path = "/favicon.svg";
    for (size_t i = 0; i < pl_asset_count; i++)
        if (strcmp(pl_asset_table[i].path, path) == 0)
            return &pl_asset_table[i];
    return NULL;
}

void pl_api_asset(void *user, pl_exchange *x)
{
    (void)user;
    const pl_asset *asset = find(pl_exchange_path(x));
    if (!asset) {
        pl_api_error error = {.status = 404, .message = "There is no such page."};
        pl_api_fail(x, &error, 0);
        return;
    }
    const char *known = pl_exchange_header(x, "if-none-match");
    pl_exchange_set_header(x, "ETag", asset->etag);
    pl_exchange_set_header(x, "Cache-Control", "no-cache");
    pl_exchange_set_header(x, "Referrer-Policy", "no-referrer");
    pl_exchange_set_header(
        x, "Content-Security-Policy",
        "default-src 'self'; img-src 'self' data:; media-src 'self' data:; object-src 'none'; base-uri 'none'; "
        "form-action 'none'; frame-ancestors 'none'");
    if (known && strstr(known, asset->etag))
        pl_exchange_respond(x, 304, NULL, "", 0);
    else
        pl_exchange_respond(x, 200, pl_asset_type(asset->path), (const char *)asset->bytes, asset->n);
}
