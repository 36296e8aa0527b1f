/* The grammars used lately: many requests come with the same one, and compiling takes long. Any thread. */
#ifndef PL_SERVE_GRAMMAR_CACHE_H
#define PL_SERVE_GRAMMAR_CACHE_H

#include "host/base/status.h"

typedef struct pl_grammar_cache pl_grammar_cache;

/* Keeps at most max_grammars, and max_bytes of their texts; those in use at the moment may be more. */
pl_status pl_grammar_cache_create(const pl_model *model, size_t max_grammars, size_t max_bytes, pl_grammar_cache **out,
                                  pl_error *err);
void pl_grammar_cache_free(pl_grammar_cache *cache);

/* One reference for the caller. Those who ask for the same one at the same time wait for one compilation, and get its
 * error where it fails; errors are not kept. */
pl_status pl_grammar_cache_get(pl_grammar_cache *cache, pl_grammar_kind kind, const char *text, size_t n,
                               pl_grammar **out, pl_error *err);

typedef struct pl_grammar_cache_stats {
    uint64_t compiled, found;
    size_t kept;
} pl_grammar_cache_stats;

pl_grammar_cache_stats pl_grammar_cache_count(pl_grammar_cache *cache);

#endif
