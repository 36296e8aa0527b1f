#include "host/engine/page_pool.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

static pl_status take_memory(pl_page_part *part, size_t bytes, pl_error *err)
{
    part->memory = part->backend->memory_take(part->backend, bytes);
    return part->memory ? PL_OK : pl_backend_fail_memory(part->backend, bytes, "K/V", err);
}

pl_status pl_page_pool_open(pl_page_pool *pool, const pl_page_part *parts, int n_parts, int32_t pages,
                            pl_page_shape shape, pl_error *err)
{
    size_t head_blocks = (size_t)shape.blocks * shape.head_bytes;
    *pool = (pl_page_pool){.n_parts = n_parts,
                           .shape = shape,
                           .page_bytes = head_blocks * (size_t)shape.heads,
                           .n_pages = pages,
                           .n_free = pages};
    for (int i = 0; i < n_parts; i++) {
        pool->part[i] = parts[i];
        pool->part[i].memory = NULL;
        pool->part[i].bytes = head_blocks * (size_t)parts[i].heads;
    }
    pool->free_pages = calloc((size_t)pages, sizeof *pool->free_pages);
    pool->holders = calloc((size_t)pages, sizeof *pool->holders);
    pool->kept = calloc((size_t)pages, sizeof *pool->kept);
    if (!pool->free_pages || !pool->holders || !pool->kept)
        return pl_fail_memory(err, (size_t)pages * sizeof *pool->free_pages, "K/V pages");
    for (int32_t p = 0; p < pages; p++)
        pool->free_pages[p] = pages - 1 - p;
    for (int i = 0; i < n_parts && pool->page_bytes > 0; i++)
        PL_TRY(take_memory(&pool->part[i], (size_t)pages * pool->part[i].bytes, err));
    return PL_OK;
}

void pl_page_pool_close(pl_page_pool *pool)
{
    for (int i = 0; i < pool->n_parts; i++) {
        pl_page_part *part = &pool->part[i];
        if (part->memory)
            part->backend->memory_give(part->backend, part->memory, (size_t)pool->n_pages * part->bytes);
    }
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

static char *page_at(const pl_page_part *part, int32_t page)
{
    return part->memory + (size_t)page * part->bytes;
}

void pl_page_copy(pl_page_pool *pool, int32_t to, int32_t from)
{
    for (int i = 0; i < pool->n_parts && pool->page_bytes > 0; i++) {
        pl_page_part *part = &pool->part[i];
        part->backend->copy(part->backend->stream, page_at(part, to), page_at(part, from), part->bytes);
    }
}

/* Where the part's heads of a block begin in the whole page. */
static size_t heads_at(const pl_page_pool *pool, const pl_page_part *part, int block)
{
    return ((size_t)block * (size_t)pool->shape.heads + (size_t)part->first_head) * pool->shape.head_bytes;
}

pl_status pl_page_read(const pl_page_pool *pool, int32_t page, void *out, pl_error *err)
{
    for (int i = 0; i < pool->n_parts && pool->page_bytes > 0; i++) {
        const pl_page_part *part = &pool->part[i];
        size_t run = (size_t)part->heads * pool->shape.head_bytes;
        const void *seen = NULL;
        PL_TRY(part->backend->fetch(part->backend->stream, page_at(part, page), part->bytes, &seen, err));
        for (int block = 0; block < pool->shape.blocks; block++)
            memcpy((char *)out + heads_at(pool, part, block), (const char *)seen + (size_t)block * run, run);
    }
    return PL_OK;
}

void pl_page_write(pl_page_pool *pool, int32_t page, const void *data)
{
    for (int i = 0; i < pool->n_parts && pool->page_bytes > 0; i++) {
        pl_page_part *part = &pool->part[i];
        pl_backend *b = part->backend;
        size_t run = (size_t)part->heads * pool->shape.head_bytes;
        if (run * (size_t)pool->shape.blocks == pool->page_bytes) {
            b->upload(b->stream, page_at(part, page), data, pool->page_bytes);
            continue;
        }
        for (int block = 0; block < pool->shape.blocks; block++)
            b->upload(b->stream, page_at(part, page) + (size_t)block * run,
                      (const char *)data + heads_at(pool, part, block), run);
    }
}
