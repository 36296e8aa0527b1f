#include "host/engine/row_cache.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#define NONE (-1)

/* A place for a row, in the ring of all places from the one used last to the one used longest ago. */
typedef struct place {
    int32_t newer, older;
    int32_t id; /* of its row, or NONE */
} place;

struct pl_row_cache {
    size_t row_bytes;
    int32_t n_places;
    int32_t newest;
    int32_t *place_of; /* [ids] or NONE */
    place *places;     /* [n_places] */
    char *rows;        /* [n_places] of row_bytes */
};

static void take_out(pl_row_cache *c, int32_t i)
{
    place *p = &c->places[i];
    c->places[p->newer].older = p->older;
    c->places[p->older].newer = p->newer;
}

static void put_before(pl_row_cache *c, int32_t i, int32_t next)
{
    int32_t previous = c->places[next].newer;
    c->places[i].newer = previous;
    c->places[i].older = next;
    c->places[previous].older = i;
    c->places[next].newer = i;
}

static void touch(pl_row_cache *c, int32_t i)
{
    if (i == c->newest)
        return;
    take_out(c, i);
    put_before(c, i, c->newest);
    c->newest = i;
}

pl_status pl_row_cache_create(int32_t ids, size_t row_bytes, size_t bytes, pl_row_cache **out, pl_error *err)
{
    assert(ids > 0 && row_bytes > 0);
    size_t fit = bytes / row_bytes;
    int32_t n = fit < 1 ? 1 : fit < (size_t)ids ? (int32_t)fit : ids;
    pl_row_cache *c = calloc(1, sizeof *c);
    if (!c)
        return pl_fail_memory(err, sizeof *c, "row cache");
    *c = (pl_row_cache){.row_bytes = row_bytes, .n_places = n};
    c->place_of = malloc((size_t)ids * sizeof *c->place_of);
    c->places = malloc((size_t)n * sizeof *c->places);
    c->rows = malloc((size_t)n * row_bytes);
    if (!c->place_of || !c->places || !c->rows) {
        pl_row_cache_free(c);
        return pl_fail_memory(err, (size_t)n * row_bytes, "row cache");
    }
    memset(c->place_of, 0xff, (size_t)ids * sizeof *c->place_of);
    for (int32_t i = 0; i < n; i++)
        c->places[i] = (place){.newer = i > 0 ? i - 1 : n - 1, .older = i + 1 < n ? i + 1 : 0, .id = NONE};
    *out = c;
    return PL_OK;
}

void pl_row_cache_free(pl_row_cache *cache)
{
    if (!cache)
        return;
    free(cache->place_of);
    free(cache->places);
    free(cache->rows);
    free(cache);
}

bool pl_row_cache_has(const pl_row_cache *cache, int32_t id)
{
    return cache->place_of[id] != NONE;
}

const void *pl_row_cache_find(pl_row_cache *cache, int32_t id)
{
    int32_t i = cache->place_of[id];
    if (i == NONE)
        return NULL;
    touch(cache, i);
    return cache->rows + (size_t)i * cache->row_bytes;
}

void *pl_row_cache_put(pl_row_cache *cache, int32_t id)
{
    assert(cache->place_of[id] == NONE);
    int32_t i = cache->places[cache->newest].newer; /* round the ring: the oldest */
    place *p = &cache->places[i];
    if (p->id != NONE)
        cache->place_of[p->id] = NONE;
    p->id = id;
    cache->place_of[id] = i;
    cache->newest = i; /* the ring turns by one */
    return cache->rows + (size_t)i * cache->row_bytes;
}
