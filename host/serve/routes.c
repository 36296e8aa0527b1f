#include "host/serve/routes.h"

#include <stdlib.h>
#include <string.h>

#include "host/serve/api_audio.h"
#include "host/serve/api_chat.h"
#include "host/serve/api_completions.h"
#include "host/serve/api_embeddings.h"
#include "host/serve/api_health.h"
#include "host/serve/api_messages.h"
#include "host/serve/api_models.h"
#include "host/serve/api_realtime.h"
#include "host/serve/api_responses.h"
#include "host/serve/api_text.h"
#include "host/serve/assets.h"
#include "host/serve/metrics.h"

static const pl_http_route api_routes[] = {
    {"GET", "/health", pl_api_health, .open = true},
    {"GET", "/metrics", pl_api_metrics, .open = false},
    {"GET", "/openapi.json", pl_api_asset, .open = true},
    {"GET", "/props", pl_api_props, .open = false},
    {"GET", "/ready", pl_api_ready, .open = true},
    {"GET", "/v1/models", pl_api_models, .open = false},
    {"GET", "/v1/models/", pl_api_model, .open = false},
    {"GET", "/v1/realtime", pl_api_realtime, .open = false},
    {"POST", "/apply-template", pl_api_apply_template, .open = false},
    {"POST", "/detokenize", pl_api_detokenize, .open = false},
    {"POST", "/tokenize", pl_api_tokenize, .open = false},
    {"POST", "/v1/audio/transcriptions", pl_api_transcriptions, .open = false},
    {"POST", "/v1/audio/translations", pl_api_translations, .open = false},
    {"POST", "/v1/chat/completions", pl_api_chat, .open = false},
    {"POST", "/v1/completions", pl_api_completions, .open = false},
    {"POST", "/v1/embeddings", pl_api_embeddings, .open = false},
    {"POST", "/v1/messages", pl_api_messages, .open = false},
    {"POST", "/v1/messages/count_tokens", pl_api_count_tokens, .open = false},
    {"POST", "/v1/responses", pl_api_responses, .open = false},
};

/* The page, its picture, and what it loads. */
static void add_page(pl_http_route *routes, size_t n)
{
    routes[n++] = (pl_http_route){"GET", "/", pl_api_asset, .open = true};
    routes[n++] = (pl_http_route){"GET", "/favicon.ico", pl_api_asset, .open = true};
    for (size_t i = 0; i < pl_asset_count; i++)
        if (strcmp(pl_asset_table[i].path, "/openapi.json") != 0)
            routes[n++] = (pl_http_route){"GET", pl_asset_table[i].path, pl_api_asset, .open = true};
}

pl_status pl_routes_make(bool web_page, pl_http_route **out, pl_error *err)
{
    size_t n = sizeof api_routes / sizeof api_routes[0], room = n + pl_asset_count + 3;
    pl_http_route *routes = calloc(room, sizeof *routes);
    if (!routes)
        return pl_fail_memory(err, room * sizeof *routes, "routes");
    memcpy(routes, api_routes, sizeof api_routes);
    if (web_page)
        add_page(routes, n);
    *out = routes;
    return PL_OK;
}
