#include "host/serve/grammar_cache.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

typedef struct entry {
    struct entry *next; /* the one used before this */
    pl_grammar_kind kind;
    pl_grammar *grammar; /* NULL: being compiled, or failed */
    pl_error error;
    bool done;
    int users; /* between their asking and their answer */
    size_t n;
    char text[];
} entry;

struct pl_grammar_cache {
    const pl_model *model;
    size_t max_grammars, max_bytes;
    pthread_mutex_t lock; /* of all that follows */
    pthread_cond_t compiled;
    entry *first; /* the one used last */
    pl_grammar_cache_stats stats;
};

pl_status pl_grammar_cache_create(const pl_model *model, size_t max_grammars, size_t max_bytes, pl_grammar_cache **out,
                                  pl_error *err)
{
    pl_grammar_cache *cache = calloc(1, sizeof *cache);
    if (!cache)
        return pl_fail_memory(err, sizeof *cache, "cache of grammars");
    cache->model = model;
    cache->max_grammars = max_grammars;
    cache->max_bytes = max_bytes;
    pthread_mutex_init(&cache->lock, NULL);
    pthread_cond_init(&cache->compiled, NULL);
    *out = cache;
    return PL_OK;
}

static void free_entry(entry *e)
{
    pl_grammar_free(e->grammar);
    free(e);
}

void pl_grammar_cache_free(pl_grammar_cache *cache)
{
    if (!cache)
        return;
    while (cache->first) {
        entry *e = cache->first;
        cache->first = e->next;
        free_entry(e);
    }
    pthread_cond_destroy(&cache->compiled);
    pthread_mutex_destroy(&cache->lock);
    free(cache);
}

/* Takes it out of the list; NULL: not there. Those that failed are there only until all who waited have been told. */
static entry *take(pl_grammar_cache *cache, pl_grammar_kind kind, const char *text, size_t n)
{
    for (entry **at = &cache->first; *at; at = &(*at)->next) {
        entry *e = *at;
        if (e->error.status == PL_OK && e->kind == kind && e->n == n && (n == 0 || memcmp(e->text, text, n) == 0)) {
            *at = e->next;
            return e;
        }
    }
    return NULL;
}

static void put_first(pl_grammar_cache *cache, entry *e)
{
    e->next = cache->first;
    cache->first = e;
}

/* Of those that nobody waits for, the ones used longest ago go. */
static void evict(pl_grammar_cache *cache)
{
    size_t count = 0, bytes = 0;
    for (entry **at = &cache->first; *at;) {
        entry *e = *at;
        bool failed = e->error.status != PL_OK;
        if (e->users == 0 && (failed || count + 1 > cache->max_grammars || bytes + e->n > cache->max_bytes)) {
            *at = e->next;
            free_entry(e);
            continue;
        }
        count++;
        bytes += e->n;
        at = &e->next;
    }
    cache->stats.kept = count;
}

static entry *make_entry(pl_grammar_kind kind, const char *text, size_t n)
{
    entry *e = malloc(sizeof *e + n);
    if (!e)
        return NULL;
    *e = (entry){.kind = kind, .n = n};
    if (n)
        memcpy(e->text, text, n);
    return e;
}

/* The lock is given up meanwhile. */
static void compile(pl_grammar_cache *cache, entry *e)
{
    pl_grammar *grammar = NULL;
    pl_error error = {.status = PL_OK};
    cache->stats.compiled++;
    pthread_mutex_unlock(&cache->lock);
    pl_status status = pl_grammar_compile(cache->model, e->kind, e->text, e->n, &grammar, &error);
    pthread_mutex_lock(&cache->lock);
    e->grammar = status == PL_OK ? grammar : NULL;
    e->error = error;
    e->error.status = status;
    e->done = true;
    pthread_cond_broadcast(&cache->compiled);
}

pl_status pl_grammar_cache_get(pl_grammar_cache *cache, pl_grammar_kind kind, const char *text, size_t n,
                               pl_grammar **out, pl_error *err)
{
    pthread_mutex_lock(&cache->lock);
    entry *e = take(cache, kind, text, n);
    bool found = e;
    if (!e)
        e = make_entry(kind, text, n);
    if (!e) {
        pthread_mutex_unlock(&cache->lock);
        return pl_fail_memory(err, sizeof *e + n, "grammar");
    }
    put_first(cache, e);
    e->users++;
    if (!found)
        compile(cache, e);
    while (!e->done)
        pthread_cond_wait(&cache->compiled, &cache->lock);
    cache->stats.found += found;
    e->users--;
    pl_status status = e->error.status;
    if (status == PL_OK)
        *out = pl_grammar_share(e->grammar);
    else if (err)
        *err = e->error;
    evict(cache);
    pthread_mutex_unlock(&cache->lock);
    return status;
}

pl_grammar_cache_stats pl_grammar_cache_count(pl_grammar_cache *cache)
{
    pthread_mutex_lock(&cache->lock);
    pl_grammar_cache_stats stats = cache->stats;
    pthread_mutex_unlock(&cache->lock);
    return stats;
}
