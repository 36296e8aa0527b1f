#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif

#include "host/engine/ple_gather.h"

#include "host/base/clock.h"
#include "host/engine/ple_service.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

struct pl_ple_gather {
    const pl_checkpoint *checkpoint;
    pl_tensor table;
    size_t row_bytes;
    pl_row_cache *cache; /* may be NULL */
    pl_ple_stats stats;
};

pl_status pl_ple_gather_open(const pl_checkpoint *checkpoint, const pl_tensor *table, size_t cache_bytes,
                             pl_ple_gather **out, pl_error *err)
{
    pl_ple_gather *g = calloc(1, sizeof *g);
    if (!g)
        return pl_fail_memory(err, sizeof *g, "per-layer embeddings");
    *g = (pl_ple_gather){.checkpoint = checkpoint, .table = *table, .row_bytes = pl_tensor_row_bytes(table)};
    if (cache_bytes >= g->row_bytes) {
        pl_status status = pl_row_cache_create((int32_t)table->rows, g->row_bytes, cache_bytes, &g->cache, err);
        if (status != PL_OK) {
            free(g);
            return status;
        }
    }
    *out = g;
    return PL_OK;
}

void pl_ple_gather_free(pl_ple_gather *gather)
{
    if (!gather)
        return;
    pl_row_cache_free(gather->cache);
    free(gather);
}

static int32_t row_of(const pl_ple_gather *g, int32_t id)
{
    return id >= 0 && id < g->table.rows ? id : 0;
}

static pl_tensor row_at(const pl_ple_gather *g, int32_t row)
{
    pl_tensor one = g->table;
    one.data = pl_tensor_row(&g->table, row);
    one.rows = 1;
    return one;
}

/* The file's pages come into the page cache; into our mapping only what is touched there, which is nothing. */
void pl_ple_gather_ask(const pl_ple_gather *g, int32_t id)
{
    int32_t row = row_of(g, id);
    if (!g->cache || !pl_row_cache_has(g->cache, row))
        pl_ple_advise(pl_tensor_row(&g->table, row), g->row_bytes, MADV_WILLNEED);
}

static pl_status bring(pl_ple_gather *g, int32_t row, char *to, pl_error *err)
{
    const void *found = g->cache ? pl_row_cache_find(g->cache, row) : NULL;
    g->stats.rows++;
    g->stats.hits += found != NULL;
    if (!found) {
        pl_tensor one = row_at(g, row);
        PL_TRY(pl_checkpoint_read(g->checkpoint, &one, to, err));
        g->stats.bytes += g->row_bytes;
        if (g->cache)
            memcpy(pl_row_cache_put(g->cache, row), to, g->row_bytes);
        return PL_OK;
    }
    memcpy(to, found, g->row_bytes);
    return PL_OK;
}

pl_status pl_ple_gather_rows(pl_ple_gather *g, const pl_ple_want *want, int n, char *rows, pl_error *err)
{
    double start = pl_clock_seconds();
    for (int i = 0; i < n && n > 1; i++) /* side by side and not one after the other */
        pl_ple_gather_ask(g, want[i].id);
    for (int i = 0; i < n; i++) {
        assert(!want[i].drawn);
        PL_TRY(bring(g, row_of(g, want[i].id), rows + (size_t)i * g->row_bytes, err));
    }
    g->stats.gather_s += pl_clock_seconds() - start;
    return PL_OK;
}

pl_ple_stats pl_ple_gather_stats(const pl_ple_gather *g)
{
    return g->stats;
}
