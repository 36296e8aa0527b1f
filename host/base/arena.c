#include "host/base/arena.h"

#include <stdlib.h>
#include <string.h>

#if defined(__SANITIZE_ADDRESS__)
#define HAVE_ASAN 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define HAVE_ASAN 1
#endif
#endif

#ifdef HAVE_ASAN
#include <sanitizer/asan_interface.h>
#define POISON(address, bytes) ASAN_POISON_MEMORY_REGION(address, bytes)
#define UNPOISON(address, bytes) ASAN_UNPOISON_MEMORY_REGION(address, bytes)
#define READS_POISON __attribute__((no_sanitize("address")))
#else
#define POISON(address, bytes) ((void)(address), (void)(bytes))
#define UNPOISON(address, bytes) ((void)(address), (void)(bytes))
#define READS_POISON
#endif

#define RED PL_ARENA_ALIGN
#define RED_WORDS (RED / sizeof(uint64_t))
#define RED_BYTE 0xa5
#define RED_WORD 0xa5a5a5a5a5a5a5a5u
#define LAST_BLOCK UINT64_MAX

/* Memory holds pairs of a red zone and a block, and a red zone at the end. The first word of a red zone
 * is the size of the block behind it (LAST_BLOCK: none), the second its complement, the others are
 * RED_WORD; RED_BYTE fills the rest of a block's last line. */
typedef struct chunk {
    struct chunk *next;
    unsigned char *memory;
    size_t size, end; /* end: where the last red zone starts */
} chunk;

struct pl_arena {
    size_t chunk_bytes;
    size_t used_bytes;
    chunk *chunks, **current; /* ordinary ones, filled in order */
    chunk *large;             /* one block each; empty ones wait for a request that fits */
};

static size_t round_up(size_t n)
{
    return (n + RED - 1) / RED * RED;
}

static void mark(chunk *c, size_t at, uint64_t block_bytes)
{
    unsigned char *red = c->memory + at;
    uint64_t words[2] = {block_bytes, ~block_bytes};
    UNPOISON(red, RED);
    memset(red, RED_BYTE, RED);
    memcpy(red, words, sizeof words);
    POISON(red, RED);
}

static void empty_chunk(chunk *c)
{
    c->end = 0;
    POISON(c->memory, c->size);
    mark(c, 0, LAST_BLOCK);
}

static chunk *new_chunk(size_t size)
{
    chunk *c = malloc(sizeof *c);
    unsigned char *memory = aligned_alloc(PL_ARENA_ALIGN, size);
    if (!c || !memory) {
        free(c);
        free(memory);
        return NULL;
    }
    *c = (chunk){.memory = memory, .size = size};
    empty_chunk(c);
    return c;
}

static void free_chunks(chunk *c)
{
    while (c) {
        chunk *next = c->next;
        UNPOISON(c->memory, c->size);
        free(c->memory);
        free(c);
        c = next;
    }
}

pl_status pl_arena_create(size_t chunk_bytes, pl_arena **out, pl_error *err)
{
    if (chunk_bytes > SIZE_MAX / 2)
        return pl_fail(err, PL_ERR_ARGUMENT, "arena: chunks of %zu bytes are too large", chunk_bytes);
    pl_arena *arena = malloc(sizeof *arena);
    if (!arena)
        return pl_fail_memory(err, sizeof *arena, "arena");
    *arena = (pl_arena){.chunk_bytes = round_up(chunk_bytes) + 2 * RED};
    arena->current = &arena->chunks;
    *out = arena;
    return PL_OK;
}

void pl_arena_free(pl_arena *arena)
{
    if (!arena)
        return;
    free_chunks(arena->chunks);
    free_chunks(arena->large);
    free(arena);
}

/* A chunk with room for a block of `lines` bytes and its red zone, or NULL. */
static chunk *chunk_for(pl_arena *arena, size_t lines)
{
    size_t need = lines + 2 * RED;
    if (need > arena->chunk_bytes) {
        for (chunk *c = arena->large; c; c = c->next)
            if (c->end == 0 && c->size >= need)
                return c;
        chunk *c = new_chunk(need);
        if (c) {
            c->next = arena->large;
            arena->large = c;
        }
        return c;
    }
    while (*arena->current && (*arena->current)->size - (*arena->current)->end < need)
        arena->current = &(*arena->current)->next;
    if (!*arena->current)
        *arena->current = new_chunk(arena->chunk_bytes);
    return *arena->current;
}

void *pl_arena_take(pl_arena *arena, size_t n, size_t size)
{
    if (size && n > (SIZE_MAX / 2 - 4 * RED) / size)
        return NULL;
    size_t bytes = n * size, lines = round_up(bytes);
    chunk *c = chunk_for(arena, lines);
    if (!c)
        return NULL;
    unsigned char *block = c->memory + c->end + RED;
    mark(c, c->end, bytes);
    c->end += RED + lines;
    mark(c, c->end, LAST_BLOCK);
    UNPOISON(block, lines);
    memset(block, 0, bytes);
    memset(block + bytes, RED_BYTE, lines - bytes);
    POISON(block + bytes, lines - bytes);
    arena->used_bytes += bytes;
    return block;
}

char *pl_arena_text(pl_arena *arena, const char *text, size_t n)
{
    char *copy = n < SIZE_MAX ? pl_arena_take(arena, n + 1, 1) : NULL;
    if (copy && n)
        memcpy(copy, text, n);
    return copy;
}

void pl_arena_reset(pl_arena *arena)
{
    for (chunk *c = arena->chunks; c; c = c->next)
        empty_chunk(c);
    for (chunk *c = arena->large; c; c = c->next)
        empty_chunk(c);
    arena->current = &arena->chunks;
    arena->used_bytes = 0;
}

READS_POISON static bool check_chunk(const chunk *c)
{
    for (size_t at = 0;;) {
        const uint64_t *red = (const uint64_t *)(const void *)(c->memory + at);
        if (red[1] != ~red[0])
            return false;
        for (size_t i = 2; i < RED_WORDS; i++)
            if (red[i] != RED_WORD)
                return false;
        if (red[0] == LAST_BLOCK || at == c->end)
            return red[0] == LAST_BLOCK && at == c->end;
        if (red[0] > c->end - at - RED)
            return false;
        size_t lines = round_up(red[0]);
        for (size_t i = red[0]; i < lines; i++)
            if (c->memory[at + RED + i] != RED_BYTE)
                return false;
        at += RED + lines;
    }
}

bool pl_arena_check(const pl_arena *arena)
{
    for (const chunk *c = arena->chunks; c; c = c->next)
        if (!check_chunk(c))
            return false;
    for (const chunk *c = arena->large; c; c = c->next)
        if (!check_chunk(c))
            return false;
    return true;
}

size_t pl_arena_used_bytes(const pl_arena *arena)
{
    return arena->used_bytes;
}
