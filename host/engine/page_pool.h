/* Pages of K/V memory of one kind. A page is held by any number of sequences, and may be kept besides for later ones;
 * it is free again when neither is so.
 *
 * A page is blocks, each of which has so many bytes for each head. Where ranks compute together every one has a part of
 * each page: all blocks, with its own heads. */
#ifndef PL_ENGINE_PAGE_POOL_H
#define PL_ENGINE_PAGE_POOL_H

#include "host/ops/comm.h"

typedef struct pl_page_shape {
    int blocks; /* 0: there are no such layers, pages have no bytes */
    int heads;  /* of the whole model */
    size_t head_bytes;
} pl_page_shape;

typedef struct pl_page_part {
    pl_backend *backend;
    int first_head, heads;
    char *memory; /* of the ops, [pages]; NULL where pages have no bytes */
    size_t bytes; /* of a page */
} pl_page_part;

typedef struct pl_page_pool {
    pl_page_part part[PL_COMM_MOST];
    int n_parts;
    pl_page_shape shape;
    size_t page_bytes; /* of the whole page */
    int32_t n_pages, n_free;
    int32_t n_spare;     /* kept, and held by no sequence */
    int32_t *free_pages; /* stack */
    uint16_t *holders;   /* sequences */
    bool *kept;
} pl_page_pool;

/* Of the parts backend and heads count. Leaves the pool such that it can be closed also where it fails. */
pl_status pl_page_pool_open(pl_page_pool *pool, const pl_page_part *parts, int n_parts, int32_t pages,
                            pl_page_shape shape, pl_error *err);
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

/* A whole page, page_bytes: waits for it; queues its coming. */
pl_status pl_page_read(const pl_page_pool *pool, int32_t page, void *out, pl_error *err);
void pl_page_write(pl_page_pool *pool, int32_t page, const void *data);

#endif
