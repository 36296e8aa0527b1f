#include "host/engine/page_pool.h"

#include <assert.h>
#include <stdlib.h>

pl_status pl_page_pool_open(pl_page_pool *pool, pl_backend *backend, int32_t pages, size_t page_bytes, pl_error *err)
{
    *pool = (pl_page_pool){.backend = backend, .page_bytes = page_bytes, .n_pages = pages, .n_free = pages};
    pool->free_pages = calloc((size_t)pages, sizeof *pool->free_pages);
    pool->holders = calloc((size_t)pages, sizeof *pool->holders);
    pool->kept = calloc((size_t)pages, sizeof *pool->kept);
    if (!pool->free_pages || !pool->holders || !pool->kept)
        return pl_fail_memory(err, (size_t)pages * sizeof *pool->free_pages, "K/V pages");
    for (int32_t p = 0; p < pages; p++)
        pool->free_pages[p] = pages - 1 - p;
    if (page_bytes == 0)
        return PL_OK;
    pool->memory = backend->memory_take(backend, (size_t)pages * page_bytes);
    return pool->memory ? PL_OK : pl_backend_fail_memory(backend, (size_t)pages * page_bytes, "K/V", err);
}

void pl_page_pool_close(pl_page_pool *pool)
{
    if (pool->memory)
        pool->backend->memory_give(pool->backend, pool->memory, (size_t)pool->n_pages * pool->page_bytes);
    free(pool->free_pages);
    free(pool->holders);
    free(pool->kept);
    *pool = (pl_page_pool){0};
}

int32_t pl_page_take(pl_page_pool *pool)
{
    assert(pool->n_free > 0);
    int32_t page = pool->free_pages[--pool->n_free];
    pool->holders[page] = 1;
    return page;
}

void pl_page_hold(pl_page_pool *pool, int32_t page)
{
    assert(pool->holders[page] > 0 || pool->kept[page]);
    if (pool->holders[page]++ == 0)
        pool->n_spare--;
}

bool pl_page_drop(pl_page_pool *pool, int32_t page)
{
    assert(pool->holders[page] > 0);
    if (--pool->holders[page] > 0)
        return false;
    if (pool->kept[page])
        pool->n_spare++;
    else
        pool->free_pages[pool->n_free++] = page;
    return pool->kept[page];
}

void pl_page_keep(pl_page_pool *pool, int32_t page)
{
    assert(pool->holders[page] > 0 && !pool->kept[page]);
    pool->kept[page] = true;
}

void pl_page_forget(pl_page_pool *pool, int32_t page)
{
    assert(pool->kept[page]);
    pool->kept[page] = false;
    if (pool->holders[page] > 0)
        return;
    pool->n_spare--;
    pool->free_pages[pool->n_free++] = page;
}

bool pl_page_shared(const pl_page_pool *pool, int32_t page)
{
    return pool->kept[page] || pool->holders[page] > 1;
}

void pl_page_copy(pl_page_pool *pool, int32_t to, int32_t from)
{
    if (pool->page_bytes)
        pool->backend->copy(pool->backend->stream, pool->memory + (size_t)to * pool->page_bytes,
                            pool->memory + (size_t)from * pool->page_bytes, pool->page_bytes);
}
