#include "host/text/piece_index.h"

#include <string.h>
#include <xxhash.h>

uint32_t pl_index_bits(size_t n)
{
    uint32_t bits = 2;
    while (((size_t)2 << bits) < 3 * n)
        bits++;
    return bits;
}

/* Where text is (*id its piece), or where it belongs (*id = -1). */
static size_t seek(const pl_piece_index *index, const char *text, size_t n, uint64_t *tag, int32_t *id)
{
    uint64_t hash = XXH3_64bits_withSeed(text, n, index->seed);
    size_t mask = ((size_t)1 << index->bits) - 1;
    size_t at = (size_t)(hash >> (64 - index->bits));
    *tag = hash << 32;
    for (;; at = (at + 1) & mask) {
        uint64_t slot = index->slot[at];
        *id = -1;
        if (slot == PL_SLOT_EMPTY)
            return at;
        if ((slot ^ *tag) >> 32)
            continue;
        uint32_t i = (uint32_t)slot;
        if (index->offset[i + 1] - index->offset[i] == n && memcmp(index->text + index->offset[i], text, n) == 0) {
            *id = (int32_t)i;
            return at;
        }
    }
}

int32_t pl_piece_find(const pl_piece_index *index, const char *text, size_t n)
{
    uint64_t tag;
    int32_t id;
    seek(index, text, n, &tag, &id);
    return id;
}

int32_t pl_piece_enter(const pl_piece_index *index, uint64_t *slot, uint32_t id)
{
    uint64_t tag;
    int32_t held;
    size_t at = seek(index, index->text + index->offset[id], index->offset[id + 1] - index->offset[id], &tag, &held);
    if (held < 0)
        slot[at] = tag | id;
    return held;
}
