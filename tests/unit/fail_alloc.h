/* Makes allocations fail, one after the other, to visit every path that handles it.
 *
 * The test program is linked with -Wl,--wrap=malloc and the same for calloc, realloc, aligned_alloc,
 * strdup and free; only calls from our own code pass here, not those inside libraries. */
#ifndef PL_TESTS_UNIT_FAIL_ALLOC_H
#define PL_TESTS_UNIT_FAIL_ALLOC_H

#include "host/base/status.h"

/* Runs work, with a fresh err, again and again: the first time its first allocation fails, then its
 * second, until it gets through. Checks each time that the failure is reported as PL_ERR_MEMORY with a
 * message, and that nothing of what was allocated stays behind.
 * Returns how many allocations were made to fail. */
typedef pl_status (*fail_alloc_fn)(void *ctx, pl_error *err);
int fail_alloc_each(fail_alloc_fn work, void *ctx);

#endif
