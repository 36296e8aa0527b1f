/* Files that are part of the program: the web page (host/serve/ui) and openapi.json. */
#ifndef PL_SERVE_ASSETS_H
#define PL_SERVE_ASSETS_H

#include "host/serve/http.h"

typedef struct pl_asset {
    const char *path; /* "/index.html" */
    const char *etag; /* in quotes: its content's hash */
    const unsigned char *bytes;
    size_t n;
} pl_asset;

/* Made by host/serve/embed.cmake. */
extern const pl_asset pl_asset_table[];
extern const size_t pl_asset_count;

const char *pl_asset_type(const char *path); /* of the content, by the name's end */

/* GET of an asset: its path, or "/" for the page and "/favicon.ico" for its picture. */
void pl_api_asset(void *user, pl_exchange *x);

#endif
