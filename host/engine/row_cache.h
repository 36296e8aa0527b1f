/* Rows of one size that were used lately, in bounded memory: the one used longest ago goes first. Every call takes the
 * same time, whatever is in it. For one thread at a time. */
#ifndef PL_ENGINE_ROW_CACHE_H
#define PL_ENGINE_ROW_CACHE_H

#include "host/base/status.h"

typedef struct pl_row_cache pl_row_cache;

/* For rows 0 to ids - 1, as many of them as fit in `bytes`, at least one. */
pl_status pl_row_cache_create(int32_t ids, size_t row_bytes, size_t bytes, pl_row_cache **out, pl_error *err);
void pl_row_cache_free(pl_row_cache *cache);

/* The row, which thereby has been used last, or NULL. Valid until the next put. */
const void *pl_row_cache_find(pl_row_cache *cache, int32_t id);

bool pl_row_cache_has(const pl_row_cache *cache, int32_t id);

/* Where the caller writes a row that is not there yet; it has been used last. */
void *pl_row_cache_put(pl_row_cache *cache, int32_t id);

#endif
