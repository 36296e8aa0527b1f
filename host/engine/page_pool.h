/* Pages of K/V memory of one kind. A page is held by any number of sequences, and may be kept besides for later ones;
 * it is free again when neither is so. */
#ifndef PL_ENGINE_PAGE_POOL_H
#define PL_ENGINE_PAGE_POOL_H

#include "host/ops/backend.h"

typedef struct pl_page_pool {
    pl_backend *backend;
    char *memory; /* of the ops; NULL where pages have no bytes */
    size_t page_bytes;
    int32_t n_pages, n_free;
    int32_t n_spare;     /* kept, and held by no sequence */
    int32_t *free_pages; /* stack */
    uint16_t *holders;   /* sequences */
    bool *kept;
} pl_page_pool;

/* Leaves the pool such that it can be closed also where it fails. page_bytes: 0 where there are no such layers. */
pl_status pl_page_pool_open(pl_page_pool *pool, pl_backend *backend, int32_t pages, size_t page_bytes, pl_error *err);
void pl_page_pool_close(pl_page_pool *pool);

/* A free page, held once; there must be one. */
int32_t pl_page_take(pl_page_pool *pool);

/* One holder more or less. pl_page_drop() tells whether the page is only kept now. */
void pl_page_hold(pl_page_pool *pool, int32_t page);
bool pl_page_drop(pl_page_pool *pool, int32_t page);

/* Keeps a page that is held; forgets one that is kept. */
void pl_page_keep(pl_page_pool *pool, int32_t page);
void pl_page_forget(pl_page_pool *pool, int32_t page);

/* Others would see what is written into it. */
bool pl_page_shared(const pl_page_pool *pool, int32_t page);

/* Queues a copy. */
void pl_page_copy(pl_page_pool *pool, int32_t to, int32_t from);

#endif
