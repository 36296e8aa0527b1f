/* Memory by lifetime: everything taken from an arena is given back at once.
 *
 *     chunk   [ red | a ......... | red | b .. | red | free ............ ]
 *
 * Each block starts on PL_ARENA_ALIGN bytes and has a red zone before and after it. Under
 * AddressSanitizer the red zones are poisoned; without it they hold a pattern that
 * pl_arena_check() verifies. Not thread-safe. */
#ifndef PL_BASE_ARENA_H
#define PL_BASE_ARENA_H

#include "host/base/status.h"

#define PL_ARENA_ALIGN 64

typedef struct pl_arena pl_arena;

/* chunk_bytes: size of the pieces taken from the system; larger requests get a piece of their own. */
pl_status pl_arena_create(size_t chunk_bytes, pl_arena **out, pl_error *err);
void pl_arena_free(pl_arena *arena);

/* n * size bytes, zeroed; NULL when the system has none left or the product overflows. */
void *pl_arena_take(pl_arena *arena, size_t n, size_t size);

/* A copy of n bytes plus a NUL. */
char *pl_arena_text(pl_arena *arena, const char *text, size_t n);

/* Forgets all blocks, keeps the memory. */
void pl_arena_reset(pl_arena *arena);

/* False when something wrote over a red zone. */
bool pl_arena_check(const pl_arena *arena);

size_t pl_arena_used_bytes(const pl_arena *arena);

#endif
